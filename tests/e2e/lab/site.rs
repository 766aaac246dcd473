//! Packed sites are served correctly, according to the standards and to common clients.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{Set, host_command, linux, static_program, workspace};
use mayfly_pack::{Options, pack_dir};

use crate::birth::{BOUND, Birth, Maker, Place, State};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    ("the example site is served", example),
    ("every request of the HTTP table", http_table),
    ("curl is content", curl),
    ("dig, kdig and delv are content", resolvers),
    ("it answers as NSD does", reference),
    ("wrong packs are named, and crash", wrong_packs),
    ("a pack of 200 MiB is served from where it is", large_pack),
];

/// The cases that a short run repeats with the other maker.
pub(crate) const BRIEF: &[Case] = &[
    ("the example site is served", example),
    ("every request of the HTTP table", http_table),
];

const PACK: &str = "/guest/site.mfs";

fn pack(site: &Path) -> Result<Vec<u8>> {
    let packed = pack_dir(site, &Options::default());
    let packed = packed.map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok(packed.to_vec()?)
}

/// A guest with a pack, with additional memory for it.
fn served<'a>(place: &'a Place, pack: &[u8], words: &str) -> Result<Birth<'a>> {
    place.lab.put(PACK, 0o644, pack)?;
    let memory = 8 + pack.len().div_ceil(1 << 20);
    let birth = place.create(
        "mayfly",
        &[
            &format!("ramdisk=\"{PACK}\""),
            &format!("memory={memory}"),
            &format!("extra=\"ip=10.0.2.80/24 gw=10.0.2.2 {words}\""),
        ],
    )?;
    birth.ready()?;
    Ok(birth)
}

fn example(place: &Place) -> Result<()> {
    let birth = served(place, &pack(&workspace().join("tools/examples/site"))?, "")?;
    let (http, dns) = (place.lab.http()?, place.lab.dns()?);
    let (status, body) = ask::http(http, "/", BOUND)?;
    let page = std::fs::read_to_string(workspace().join("tools/examples/site/www/index.html"))?;
    ensure!(
        status == 200 && body == page,
        "GET / gives {status}: {body}"
    );
    let records = ask::dns(dns, "www.example.test", Rtype::A, BOUND)?;
    let expected = ["CNAME example.test.", "A 10.0.2.80"];
    ensure!(records == expected, "www.example.test A gives {records:?}");
    ensure!(ask::dns(dns, "mayfly.test", Rtype::A, BOUND).is_err());
    birth.destroy()
}

fn http_table(place: &Place) -> Result<()> {
    let birth = served(place, &pack(&mayfly_http_tests::site())?, "")?;
    let http = place.lab.http()?;
    let mut errors = Vec::new();
    let cases = mayfly_http_tests::cases();
    for case in &cases {
        // QEMU's forwarding does not pass on the end of the client's stream, which these cases need.
        let in_dom0 = case.expected == "cut";
        let exchange = &mut |bytes: &[u8]| {
            let answer = if in_dom0 {
                let argv = ["nc", &mayfly_lab::GUEST.to_string(), "80"];
                place.lab.exec_with(&argv, bytes, BOUND).map(|o| o.stdout)
            } else {
                exchange(http, bytes)
            };
            answer.map_err(|e| format!("{e:#}"))
        };
        if let Err(error) = case.run(exchange) {
            errors.push(error);
        }
    }
    ensure!(
        errors.is_empty(),
        "{} of {} requests:\n{}",
        errors.len(),
        cases.len(),
        errors.join("\n\n")
    );
    birth.destroy()
}

/// Sends bytes and the end of the stream. Returns all bytes that come back.
fn exchange(server: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Standard output of a program from Debian's package, run on the host.
fn client(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = host_command(Set::Clients, &format!("usr/bin/{program}"), &|_| {})?;
    output(command.args(arguments))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {text} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

fn curl(place: &Place) -> Result<()> {
    let birth = served(place, &pack(&mayfly_http_tests::site())?, "")?;
    let base = format!("http://{}", place.lab.http()?);
    let get = |arguments: &[&str], path: &str| -> Result<String> {
        let mut all = vec!["-sS", "-m", "30"];
        all.extend(arguments);
        let url = format!("{base}{path}");
        all.push(&url);
        client("curl", &all)
    };
    let file =
        |name: &str| std::fs::read_to_string(mayfly_http_tests::site().join("www").join(name));
    let alphabet = file("alphabet.txt")?;
    ensure!(get(&[], "/alphabet.txt")? == alphabet);
    let expected = alphabet.get(2..=5).context("a short file")?;
    let part = get(&["-r", "2-5"], "/alphabet.txt")?;
    ensure!(part == expected, "a range is {part:?}");
    let parts = get(&["-i", "-r", "0-1,4-5"], "/alphabet.txt")?;
    ensure!(
        parts.starts_with("HTTP/1.1 206") && parts.contains("multipart/byteranges"),
        "two ranges are {parts}"
    );
    // curl's copy is still valid: by its tag, and by its time.
    let scratch = tempfile::tempdir()?;
    let tag = scratch.path().join("tag").display().to_string();
    get(&["--etag-save", &tag], "/alphabet.txt")?;
    let code = ["-o", "/dev/null", "-w", "%{http_code}"];
    let status = |arguments: &[&str], path: &str| get(&[&code, arguments].concat(), path);
    let again = status(&["--etag-compare", &tag], "/alphabet.txt")?;
    ensure!(again == "304", "by its tag it is {again}");
    let again = status(&["-z", "Fri, 31 Dec 2100 00:00:00 GMT"], "/alphabet.txt")?;
    ensure!(again == "304", "by its time it is {again}");
    // curl decodes the content.
    let lines = file("lines.txt")?;
    let head = get(&["-I", "--compressed"], "/lines.txt")?.to_ascii_lowercase();
    ensure!(head.contains("content-encoding: "), "no coding in {head}");
    ensure!(get(&["--compressed"], "/lines.txt")? == lines);
    // A request body that is announced and refused.
    let refused = status(&["-H", "Expect: 100-continue", "-d", "a=b"], "/")?;
    ensure!(refused == "405", "POST is {refused}");
    // Two requests over one connection.
    let second = format!("{base}/lines.txt");
    let text = get(&["-w", "%{num_connects}\n", &second], "/alphabet.txt")?;
    ensure!(text.ends_with("0\n"), "a second connection: {text}");
    // Pipelined requests, which curl no longer supports.
    let request = "GET /alphabet.txt HTTP/1.1\r\nHost: a\r\n\r\n";
    let answers = exchange(place.lab.http()?, request.repeat(20).as_bytes())?;
    let answers = String::from_utf8_lossy(&answers).into_owned();
    ensure!(
        answers.matches("HTTP/1.1 200 OK\r\n").count() == 20,
        "20 requests in a row give {answers}"
    );
    birth.destroy()
}

fn resolvers(place: &Place) -> Result<()> {
    let birth = served(place, &pack(Path::new(mayfly_reference::SITE))?, "rrl=off")?;
    let dns = place.lab.dns()?;
    let (server, port) = (format!("@{}", dns.ip()), dns.port().to_string());
    for transport in ["+notcp", "+tcp"] {
        let tool = |name: &str, question: &[&str]| {
            let start = [server.as_str(), "-p", &port, transport];
            client(name, &[&start, question].concat())
        };
        let text = tool("dig", &["+short", "+tries=3", "chain1.plain.test", "A"])?;
        ensure!(text.ends_with("192.0.2.5\n"), "dig {transport} gets {text}");
        let text = tool("kdig", &["+dnssec", "www.nsec3.test", "A"])?;
        ensure!(
            text.contains("status: NOERROR")
                && text.contains("RRSIG")
                && text.contains("192.0.2.3"),
            "kdig {transport} gets {text}"
        );
    }
    let whole = client("dig", &[&server, "-p", &port, "plain.test", "AXFR"])?;
    ensure!(
        whole.matches("SOA").count() >= 2 && whole.contains("hidden.cut.plain.test."),
        "AXFR gives {whole}"
    );
    for zone in ["nsec.test", "nsec3.test", "optout.test"] {
        let anchor = anchor(zone)?;
        // Where opt-out may hide names, the absence of a name cannot be proven (RFC 5155 section 6).
        let certain = if zone == "optout.test" { 3 } else { usize::MAX };
        let questions = [
            (zone.to_owned(), "SOA", "; fully validated"),
            (format!("chain.{zone}"), "A", "; fully validated"),
            (format!("secure.{zone}"), "DS", "; fully validated"),
            (format!("some.wild.{zone}"), "A", "; fully validated"),
            (format!("a.dname.{zone}"), "A", "; fully validated"),
            (
                format!("nothing.{zone}"),
                "A",
                "; negative response, fully validated",
            ),
            (
                format!("mail.{zone}"),
                "TXT",
                "; negative response, fully validated",
            ),
            (
                format!("y.ent.{zone}"),
                "A",
                "; negative response, fully validated",
            ),
        ];
        for (name, rtype, verdict) in questions.iter().take(certain) {
            let path = anchor.path().display().to_string();
            let root = format!("+root={zone}");
            let text = client(
                "delv",
                &[&server, "-p", &port, "-a", &path, &root, name, rtype],
            )?;
            ensure!(text.contains(verdict), "delv {name} {rtype} gets {text}");
        }
    }
    birth.destroy()
}

/// The key of a signed zone, in the form of a trust anchor for BIND's tools.
fn anchor(zone: &str) -> Result<tempfile::NamedTempFile> {
    let path = Path::new(mayfly_reference::SITE).join(format!("keys/{zone}.key"));
    let key = std::fs::read_to_string(path)?;
    let (_, rdata) = key.split_once("DNSKEY").context("no key")?;
    let rdata = rdata.split(';').next().unwrap_or_default();
    let words: Vec<&str> = rdata.split_whitespace().collect();
    let (numbers, digits) = words.split_at_checked(3).context("a short key")?;
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(
        file,
        "trust-anchors {{ {zone}. static-key {} \"{}\"; }};",
        numbers.join(" "),
        digits.concat()
    )?;
    Ok(file)
}

/// Address of the Linux guest with NSD.
const NSD: &str = "10.0.2.81";

fn reference(place: &Place) -> Result<()> {
    let site = Path::new(mayfly_reference::SITE);
    let program = static_program("mayfly-reference", "mayfly-reference")?;
    place
        .lab
        .put("/guest/reference", 0o755, &std::fs::read(program)?)?;
    let nsd = linux::server(site, mayfly_reference::TRANSFERS, &|_| {})?;
    place
        .lab
        .put("/guest/vmlinuz", 0o644, &std::fs::read(nsd.kernel)?)?;
    place.lab.put("/guest/nsd", 0o644, &nsd.ramdisk)?;
    let birth = served(place, &pack(site)?, "rrl=off nsid=reference")?;
    // Only `xl` unpacks a compressed kernel.
    let peer = place.create_by(
        Maker::Xl,
        "nsd",
        &[
            "kernel=\"/guest/vmlinuz\"",
            "ramdisk=\"/guest/nsd\"",
            "memory=256",
            &format!("extra=\"quiet pci=off address={NSD}/24\""),
        ],
    )?;
    let start = Instant::now();
    while !place
        .lab
        .exec(&["nslookup", "-type=soa", "plain.test", NSD])?
        .success()
    {
        ensure!(start.elapsed() < BOUND, "NSD does not answer");
    }
    let (tested, reference) = (format!("{}:53", mayfly_lab::GUEST), format!("{NSD}:53"));
    let argv = ["/guest/reference", &tested, &reference];
    let output = place.lab.exec_with(&argv, &[], Duration::from_secs(600))?;
    ensure!(output.success(), "{}{}", output.text(), output.error_text());
    peer.destroy()?;
    birth.destroy()
}

/// Each broken pack is refused at boot with a line that says why, or is answered with SERVFAIL or 500 later. None hangs
/// the guest or is served wrongly.
fn wrong_packs(place: &Place) -> Result<()> {
    let good = pack(&workspace().join("tools/examples/site"))?;
    let changed = |at: usize, bytes: &[u8]| {
        let mut pack = good.clone();
        if let Some(place) = pack.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        pack
    };
    let cut = good.len() / 2;
    for (what, pack) in [
        ("another file", b"#!/bin/sh\nexit 1\n".repeat(1000)),
        ("no magic", changed(0, b"\0")),
        ("another version", changed(8, &[0xff])),
        ("a wrong size", good.get(..cut).unwrap_or_default().to_vec()),
        ("few bytes", good.get(..10).unwrap_or_default().to_vec()),
    ] {
        place.lab.put(PACK, 0o644, &pack)?;
        let ramdisk = format!("ramdisk=\"{PACK}\"");
        let birth = place.create("mayfly", &[&ramdisk])?;
        let line = birth.says("module 0").with_context(|| what.to_owned())?;
        ensure!(line.starts_with("mayfly: "), "{what}: the line is {line:?}");
        birth.becomes(State::Crashed).context(what)?;
        birth.destroy()?;
        place.nothing_left()?;
    }
    Ok(())
}

fn large_pack(place: &Place) -> Result<()> {
    const SIZE: usize = 200 << 20;
    let site = tempfile::tempdir()?;
    std::fs::create_dir(site.path().join("www"))?;
    let mut content = vec![0; SIZE];
    // No two blocks of 4 KiB are equal.
    for (number, place) in content.chunks_mut(4096).enumerate() {
        place.fill(b'a' + u8::try_from(number % 26)?);
        place
            .first_chunk_mut::<8>()
            .context("an odd size")?
            .copy_from_slice(&number.to_le_bytes());
    }
    std::fs::write(site.path().join("www/large.bin"), &content)?;
    std::fs::write(site.path().join("www/index.html"), "<p>large\n")?;
    let birth = served(place, &pack(site.path())?, "")?;
    let url = format!("http://{}/large.bin", place.lab.http()?);
    for start in [0, 12_345_678, SIZE - 100_000] {
        let end = start + 99_999;
        let range = format!("{start}-{end}");
        let mut command = host_command(Set::Clients, "usr/bin/curl", &|_| {})?;
        let output = command
            .args(["-sS", "-m", "60", "-r", &range, &url])
            .output()?;
        ensure!(
            content.get(start..=end) == Some(&output.stdout),
            "bytes {range} are wrong: {} came, {}",
            output.stdout.len(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    birth.destroy()
}
