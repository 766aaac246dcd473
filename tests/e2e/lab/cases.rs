//! The cases: each has a title and one verdict.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{BRIDGE, GUEST};

use crate::birth::{BOUND, Birth, Place, State};

/// The title and the function of a case.
pub(crate) type Case = (&'static str, CaseFunction);
/// The function of a case.
pub(crate) type CaseFunction = fn(&Place) -> Result<()>;

/// The cases with the C xenstored and xenconsoled, for guests that `xl` makes and guests that `hatch` makes.
pub(crate) const CASES: &[Case] = &[
    ("the host's own clients are answered", clients),
    ("births in a row leave nothing behind", births),
    ("memory=4 is enough for DNS and HTTP", small_memory),
    (
        "console=off serves and writes nothing to the console",
        console_off,
    ),
    ("IPv6 and ICMP echo are answered", ipv6),
    ("DHCP gives it an address", dhcp),
    ("unknown words are named and ignored", unknown_word),
    ("malformed words are named, and crash", malformed_words),
    ("without a vif it says so, and crashes", no_vif),
    (
        "a bridge that is not there is refused, and nothing stays",
        wrong_bridge,
    ),
];

/// The cases about `xl` itself.
pub(crate) const XL: &[Case] = &[
    ("Xen's own vif-bridge connects it", stock_script),
    ("of two vifs it takes the first", two_vifs),
    ("xl shutdown is obeyed", shutdown),
    ("xl reboot is obeyed", reboot),
];

/// The cases with oxenstored and without xenconsoled.
pub(crate) const OTHER_DOM0: &[Case] = &[
    ("it serves without xenconsoled", no_xenconsoled),
    ("births in a row leave nothing behind", births),
];

/// The cases that are run with `hatch xenstored` in each run.
pub(crate) const STORE: &[Case] = &[
    ("births in a row leave nothing behind", births),
    ("xl shutdown is obeyed", shutdown),
];

fn served(place: &Place, lines: &[&str]) -> Result<()> {
    let birth = place.create("mayfly", lines)?;
    birth.ready()?;
    birth.answers()?;
    birth.destroy()?;
    place.nothing_left()
}

/// Queries with dig and curl if the host has them. The same queries are made in Rust too, so that the case is
/// meaningful on any host.
fn clients(place: &Place) -> Result<()> {
    let birth = place.create("mayfly", &[])?;
    birth.ready()?;
    birth.answers()?;
    let (http, dns) = (place.lab.http()?, place.lab.dns()?);
    let address = GUEST.to_string();
    // An alias and its target.
    let records = ask::dns(dns, "www.mayfly.test", Rtype::A, BOUND)?;
    ensure!(
        records.last() == Some(&format!("A {address}")),
        "www.mayfly.test A gives {records:?}"
    );
    ensure!(!ask::dns(dns, "mayfly.test", Rtype::AAAA, BOUND)?.is_empty());
    ensure!(!ask::dns(dns, "mayfly.test", Rtype::TXT, BOUND)?.is_empty());
    let (status, body) = ask::http(http, "/.mayfly/boot", BOUND)?;
    ensure!(
        status == 200 && body.contains("\"tsc_khz\""),
        "GET /.mayfly/boot gives {status}: {body}"
    );
    ensure!(ask::http(http, "/no-such-page", BOUND)?.0 == 404);
    if let Some(text) = host(Command::new("curl").args([
        "-sS",
        "-m",
        "10",
        "-w",
        "%{http_code}",
        &format!("http://{http}/"),
    ]))? {
        ensure!(text.ends_with("200"), "curl gets {text}");
    }
    for transport in ["+notcp", "+tcp"] {
        let server = format!("@{}", dns.ip());
        let port = dns.port().to_string();
        let mut dig = Command::new("dig");
        dig.args([
            &server,
            "-p",
            &port,
            transport,
            "+short",
            "+tries=3",
            "www.mayfly.test",
            "A",
        ]);
        if let Some(text) = host(&mut dig)? {
            ensure!(
                text.lines().last() == Some(&*address),
                "dig {transport} gets {text}"
            );
        }
    }
    Ok(())
}

/// Standard output of a program of the host; `None` if there is no such program.
fn host(command: &mut Command) -> Result<Option<String>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    ensure!(
        output.status.success(),
        "{name}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn births(place: &Place) -> Result<()> {
    let count = crate::cycles(10)?;
    for number in 1..=count {
        served(place, &[]).with_context(|| format!("birth {number} of {count}"))?;
    }
    Ok(())
}

fn small_memory(place: &Place) -> Result<()> {
    served(place, &["memory=4"])
}

/// The guest's report comes after the first answers, so the test waits for it; with `console=on` it is on the console.
fn console_off(place: &Place) -> Result<()> {
    for word in ["on", "off"] {
        let birth = place.create(
            "mayfly",
            &[&format!(
                "extra=\"ip=10.0.2.80/24 gw=10.0.2.2 console={word}\""
            )],
        )?;
        birth.ready()?;
        birth.answers()?;
        let report = birth.says("boot us:")?;
        let written = birth.console()?;
        if word == "on" {
            ensure!(
                written.contains(&report),
                "the report {report:?} is not on the console, which has {written:?}"
            );
        } else {
            ensure!(written.is_empty(), "the console has {written:?}");
        }
        birth.destroy()?;
        place.nothing_left()?;
    }
    Ok(())
}

fn stock_script(place: &Place) -> Result<()> {
    served(place, &[&format!("vif=['bridge={BRIDGE}']")])
}

fn ipv6(place: &Place) -> Result<()> {
    let birth = place.create("mayfly", &[])?;
    birth.ready()?;
    for address in ["10.0.2.80", "fd00:2::80"] {
        let output = place.lab.exec(&["ping", "-c", "3", "-W", "5", address])?;
        ensure!(output.success(), "ping {address}: {}", output.text());
    }
    let page = place
        .lab
        .run(&["wget", "-q", "-O", "-", "http://[fd00:2::80]/"])?;
    ensure!(!page.is_empty(), "an empty page over IPv6");
    let answer = place
        .lab
        .run(&["nslookup", "-type=a", "www.mayfly.test", "fd00:2::80"])?;
    ensure!(
        answer.contains("Address: 10.0.2.80") || answer.contains("Address 1: 10.0.2.80"),
        "nslookup over IPv6 gives {answer}"
    );
    Ok(())
}

/// QEMU's user network has a DHCP server behind the bridge; its first address is 10.0.2.100.
fn dhcp(place: &Place) -> Result<()> {
    // The MAC address is the same for both makers, and so is the lease.
    let vif = format!("vif=['mac=00:16:3e:00:00:64,bridge={BRIDGE},script=vif-mayfly']");
    let birth = place.create("mayfly", &["extra=\"ip=dhcp\"", &vif])?;
    birth.ready()?;
    let page = |birth: &Birth<'_>| {
        birth
            .place
            .lab
            .exec(&["wget", "-q", "-O", "-", "http://10.0.2.100/"])
    };
    // The lease comes some packets after the first.
    let start = std::time::Instant::now();
    while !page(&birth)?.success() {
        ensure!(
            start.elapsed() < BOUND,
            "no page at 10.0.2.100; the guest says {:?}",
            birth.lines()
        );
    }
    Ok(())
}

fn unknown_word(place: &Place) -> Result<()> {
    let birth = place.create(
        "mayfly",
        &["extra=\"ip=10.0.2.80/24 gw=10.0.2.2 colour=blue\""],
    )?;
    birth.ready()?;
    birth.answers()?;
    birth.says("colour=blue").map(drop)
}

fn malformed_words(place: &Place) -> Result<()> {
    for word in [
        "ip=10.0.2.80",
        "ip=10.0.2.800/24",
        "ip=10.0.2.80/33",
        "gw=nowhere",
        "console=maybe",
        "ip=fd00::/200",
    ] {
        let birth = place.create("mayfly", &[&format!("extra=\"{word}\"")])?;
        let line = birth
            .says(word)
            .with_context(|| format!("extra={word:?}"))?;
        ensure!(line.starts_with("mayfly: "), "the line is {line:?}");
        birth.becomes(State::Crashed)?;
        // The guest's owner can read it without Xen's console.
        let path = format!("/local/domain/{}/data/mayfly/error", birth.domain);
        let error = place.lab.run(&["xenstore-read", &path])?;
        ensure!(
            line.trim().ends_with(error.trim()),
            "{path} has {error:?}, and the line is {line:?}"
        );
        birth.destroy()?;
        place.nothing_left()?;
    }
    Ok(())
}

fn no_vif(place: &Place) -> Result<()> {
    let birth = place.create("mayfly", &["vif=[]"])?;
    let line = birth.says("vif")?;
    ensure!(line.starts_with("mayfly: "), "the line is {line:?}");
    birth.becomes(State::Crashed)
}

fn two_vifs(place: &Place) -> Result<()> {
    let vif = format!("'bridge={BRIDGE},script=vif-mayfly'");
    served(place, &[&format!("vif=[{vif},{vif}]")])
}

fn wrong_bridge(place: &Place) -> Result<()> {
    for script in ["script=vif-mayfly", "script=vif-bridge"] {
        let text = place.refused("mayfly", &[&format!("vif=['bridge=nowhere,{script}']")])?;
        ensure!(text.contains("nowhere"), "its maker says {text}");
        place.nothing_left()?;
    }
    Ok(())
}

fn shutdown(place: &Place) -> Result<()> {
    let birth = place.create("mayfly", &[])?;
    birth.ready()?;
    place.lab.run(&["xl", "shutdown", "mayfly"])?;
    birth.becomes(State::Gone)?;
    place.nothing_left()
}

fn reboot(place: &Place) -> Result<()> {
    let birth = place.create("mayfly", &[])?;
    birth.ready()?;
    place.lab.run(&["xl", "reboot", "mayfly"])?;
    birth.becomes(State::Gone)?;
    // xl's own process creates a guest of the same name again.
    let start = std::time::Instant::now();
    while !place.lab.exec(&["xl", "domid", "mayfly"])?.success() {
        ensure!(start.elapsed() < BOUND, "it does not come again");
        std::thread::sleep(Duration::from_millis(100));
    }
    birth.answers()
}

fn no_xenconsoled(place: &Place) -> Result<()> {
    let processes = place.lab.run(&["ps", "-o", "comm"])?;
    ensure!(!processes.contains("xenconsoled"), "xenconsoled runs");
    ensure!(
        processes.contains("oxenstored"),
        "oxenstored does not run: {processes}"
    );
    served(place, &[])
}
