//! A guest that is saved and restored by `xl` while it serves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mayfly_lab::{GUEST, linux, verify_saved};

use crate::birth::{BOUND, Birth, CHANGED, HATCH, Place};
use crate::cases::Case;
use crate::replug::{load, with_file};

pub(crate) const CASES: &[Case] = &[
    ("saved and restored by xl while a file is loaded", restored),
    ("saved by xl and left running", cancelled),
];

/// Guests that `hatch` made, which `xl` saves with their configuration.
pub(crate) const BY_HATCH: &[Case] = &[
    (
        "saved and restored by xl while a file is loaded",
        moved_to_xl,
    ),
    (
        "saved and restored by hatch while a file is loaded",
        by_hatch,
    ),
    ("saved and restored by hatch and by xl in turn", in_turn),
    ("saved by hatch and left running or paused", left),
    ("what is no saved guest leaves nothing behind", refused),
    ("a guest that cannot be saved goes on", not_saved),
    (
        "a Linux guest is saved and restored by hatch and by xl",
        of_linux,
    ),
    (
        "a failure at any step of a saved guest's restoration leaves nothing behind",
        restore_failures,
    ),
];

/// The same with the other xenstored.
pub(crate) const OTHER_DOM0: &[Case] = &[(
    "saved and restored by hatch while a file is loaded",
    by_hatch,
)];

const SAVED: &str = "/guest/saved";
/// Rounds of each case.
const ROUNDS: u32 = 3;

/// A connection that stays open between requests.
pub(crate) struct KeptAlive(BufReader<TcpStream>);

impl KeptAlive {
    pub(crate) fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, BOUND)?;
        stream.set_read_timeout(Some(BOUND))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks for a page, and reads all of the answer.
    pub(crate) fn ask(&mut self) -> Result<()> {
        write!(self.0.get_mut(), "GET / HTTP/1.1\r\nHost: {GUEST}\r\n\r\n")?;
        let mut length = None;
        let mut line = String::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            ensure!(!line.is_empty(), "the guest has closed the connection");
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
            if line == "\r\n" {
                break;
            }
        }
        let length: usize = length.context("no length")?;
        ensure!(length > 0, "the page is empty");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(())
    }
}

/// A guest that serves a file, and a client with a connection to it that is idle most of the time.
pub(crate) struct Clients<'a> {
    pub(crate) birth: Birth<'a>,
    file: Vec<u8>,
    pub(crate) idle: KeptAlive,
}

impl<'a> Clients<'a> {
    pub(crate) fn of(place: &'a Place) -> Result<Self> {
        let (birth, file) = with_file(place)?;
        let mut idle = KeptAlive::open(place.lab.http()?)?;
        idle.ask()?;
        Ok(Self { birth, file, idle })
    }

    /// Does something to the guest while the file is loaded. That connection and the idle one must outlive it; the idle
    /// one is used right before and after, because the guest closes it after 15 seconds.
    pub(crate) fn outlive(&mut self, what: impl FnOnce() -> Result<()>) -> Result<()> {
        let (server, idle) = (self.birth.place.lab.http()?, &mut self.idle);
        let loaded = load(server, &self.file, || {
            idle.ask().context("the connection before it")?;
            what()?;
            idle.ask().context("the connection that was idle")
        });
        loaded.with_context(|| format!("the guest says {:?}", self.birth.lines()))
    }
}

fn domain(place: &Place) -> Result<u32> {
    let domain = place.lab.run(&["xl", "domid", "mayfly"])?;
    domain.trim().parse().context("xl domid gives no number")
}

fn key(place: &Place, path: &str) -> Result<String> {
    let path = format!("/local/domain/{}/{path}", domain(place)?);
    Ok(place.lab.xenstore_wait(&path, BOUND)?.trim().to_owned())
}

fn restored(place: &Place) -> Result<()> {
    let mut clients = Clients::of(place)?;
    let lab = &place.lab;
    for _ in 0..ROUNDS {
        let before = domain(place)?;
        key(place, "control/feature-suspend")?;
        clients.outlive(|| {
            lab.run(&["xl", "save", "mayfly", SAVED])?;
            let output = place.xl(&["restore", SAVED])?;
            ensure!(output.success(), "xl restore: {}", output.error_text());
            Ok(())
        })?;
        ensure!(domain(place)? != before, "it is another domain");
        ensure!(key(place, "data/mayfly/ready")? == "1");
    }
    // The new domain's xenstored has its watches.
    lab.run(&["xl", "shutdown", "-w", "mayfly"])?;
    lab.run(&["rm", SAVED]).map(drop)
}

fn cancelled(place: &Place) -> Result<()> {
    let mut clients = Clients::of(place)?;
    let lab = &place.lab;
    for _ in 0..ROUNDS {
        key(place, "control/feature-suspend")?;
        clients.outlive(|| lab.run(&["xl", "save", "-c", "mayfly", SAVED]).map(drop))?;
        ensure!(
            domain(place)? == clients.birth.domain,
            "it is the same domain"
        );
    }
    let lines = clients.birth.lines();
    let said = lines
        .iter()
        .filter(|line| line.contains("resumed in the same domain"));
    ensure!(said.count() == ROUNDS as usize, "it says {lines:?}");
    lab.run(&["rm", SAVED])?;
    clients.birth.destroy()
}

/// The guest's network was connected before it ran; `xl` gives it one by xenstore.
fn moved_to_xl(place: &Place) -> Result<()> {
    let mut clients = Clients::of(place)?;
    let lab = &place.lab;
    key(place, "control/feature-suspend")?;
    clients.outlive(|| {
        lab.run(&["xl", "save", "mayfly", SAVED, CHANGED])?;
        let output = place.xl(&["restore", SAVED])?;
        ensure!(output.success(), "xl restore: {}", output.error_text());
        Ok(())
    })?;
    ensure!(
        domain(place)? != clients.birth.domain,
        "it is another domain"
    );
    lab.run(&["xl", "shutdown", "-w", "mayfly"])?;
    lab.run(&["rm", SAVED])?;
    // hatch's index still has the guest that xl destroyed.
    lab.run(&[HATCH, "gc"]).map(drop)
}

/// Runs a command of hatch.
fn hatch(place: &Place, argv: &[&str]) -> Result<String> {
    place.lab.run(&[&[HATCH], argv].concat())
}

/// The error of a command of hatch that must fail.
fn fails(place: &Place, argv: &[&str]) -> Result<String> {
    let output = place.lab.exec(&[&[HATCH], argv].concat())?;
    ensure!(!output.success(), "hatch {argv:?} succeeds");
    Ok(output.error_text())
}

/// Has Debian's checker read the saved file.
fn verified(place: &Place) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), place.lab.get(SAVED)?)?;
    verify_saved(file.path(), &|_| {})
}

fn by_hatch(place: &Place) -> Result<()> {
    let mut clients = Clients::of(place)?;
    let lab = &place.lab;
    for _ in 0..ROUNDS {
        let before = domain(place)?;
        clients.outlive(|| {
            hatch(place, &["save", "mayfly", SAVED])?;
            hatch(place, &["restore", SAVED]).map(drop)
        })?;
        ensure!(domain(place)? != before, "it is another domain");
        ensure!(key(place, "data/mayfly/ready")? == "1");
        verified(place)?;
    }
    // The same through pipes, and with another name.
    lab.shell(&format!(
        "{HATCH} save mayfly - | gzip > {SAVED}; gunzip -c < {SAVED} | {HATCH} restore --name moved -"
    ))?;
    clients.idle.ask().context("through a pipe")?;
    // xenstored has the guest's watches.
    hatch(place, &["shutdown", "moved", "--wait"])?;
    hatch(place, &["destroy", "--wait", "moved"])?;
    lab.run(&["rm", SAVED])?;
    place.nothing_left()
}

fn in_turn(place: &Place) -> Result<()> {
    let mut clients = Clients::of(place)?;
    let lab = &place.lab;
    // hatch does not know which script xl would run: this is xl's default.
    lab.shell("cd /etc/xen/scripts && ln -sf vif-mayfly vif-bridge")?;
    for round in 0..ROUNDS {
        key(place, "control/feature-suspend")?;
        clients
            .outlive(|| {
                hatch(place, &["save", "mayfly", SAVED])?;
                let output = place.xl(&["restore", SAVED])?;
                ensure!(output.success(), "xl restore: {}", output.error_text());
                Ok(())
            })
            .with_context(|| format!("to xl, {round}"))?;
        key(place, "control/feature-suspend")?;
        clients
            .outlive(|| {
                lab.run(&["xl", "save", "mayfly", SAVED])?;
                hatch(place, &["restore", SAVED]).map(drop)
            })
            .with_context(|| format!("to hatch, {round}"))?;
    }
    hatch(place, &["destroy", "--wait", "mayfly"])?;
    lab.run(&["rm", SAVED])?;
    place.nothing_left()
}

fn left(place: &Place) -> Result<()> {
    let mut clients = Clients::of(place)?;
    let lab = &place.lab;
    for _ in 0..ROUNDS {
        clients.outlive(|| hatch(place, &["save", "-c", "mayfly", SAVED]).map(drop))?;
        ensure!(
            domain(place)? == clients.birth.domain,
            "it is the same domain"
        );
        clients.outlive(|| {
            hatch(place, &["save", "-p", "mayfly", SAVED])?;
            let listed = hatch(place, &["show", "mayfly"])?;
            ensure!(listed.contains("paused"), "it is paused: {listed}");
            hatch(place, &["unpause", "mayfly"]).map(drop)
        })?;
    }
    // The guest and the file are the same guest: its name, its MAC address.
    let error = fails(place, &["restore", SAVED])?;
    ensure!(error.contains("\"mayfly\" is taken"), "{error}");
    let error = fails(place, &["restore", "--name", "copy", SAVED])?;
    ensure!(error.contains("MAC address"), "{error}");
    let copy = [
        "restore",
        "--name",
        "copy",
        "--mac",
        "00:16:3e:00:00:77",
        "-p",
        SAVED,
    ];
    hatch(place, &copy)?;
    let error = fails(place, &copy)?;
    ensure!(error.contains("\"copy\" is taken"), "{error}");
    hatch(place, &["destroy", "--wait", "copy"])?;
    clients.idle.ask().context("beside a copy")?;
    lab.run(&["rm", SAVED])?;
    clients.birth.destroy()
}

fn refused(place: &Place) -> Result<()> {
    let birth = place.create("mayfly", &["memory=8"])?;
    birth.ready()?;
    hatch(place, &["save", "mayfly", SAVED])?;
    let lab = &place.lab;
    let whole = lab.get(SAVED)?;
    let tried = |file: &[u8], expected: &str| {
        lab.put(SAVED, 0o600, file)?;
        let error = fails(place, &["restore", SAVED])?;
        ensure!(error.contains(expected), "{expected}: {error}");
        place.nothing_left().with_context(|| expected.to_owned())
    };
    for length in [0, 31, 60, 700, 5000, 9000, whole.len() / 2, whole.len() - 1] {
        let expected = if length < 32 {
            "no file of"
        } else {
            "it is cut"
        };
        tried(whole.get(..length).unwrap_or_default(), expected)?;
    }
    // The first record of pages: its kind, its length, and that it has 1,024 of them.
    let is_first = |head: &[u8]| head.starts_with(&[1, 0, 0, 0]) && head.ends_with(&[0, 4, 0, 0]);
    let record = whole.windows(12).position(is_first);
    let count = record.context("no full record")? + 8;
    for (at, byte, expected) in [
        (count, 1, "PAGE_DATA"),
        (count + 8 + 6, 0x10, "reserved bits"),
        (count + 8 + 4, 1, "the guest's end"),
        (count - 8, 0x55, "mandatory record"),
    ] {
        let mut file = whole.clone();
        *file.get_mut(at).context("too short")? = byte;
        tried(&file, expected)?;
    }
    lab.put(SAVED, 0o600, &whole)?;
    hatch(place, &["restore", SAVED])?;
    birth.answers()?;
    hatch(place, &["destroy", "--wait", "mayfly"])?;
    lab.run(&["rm", SAVED]).map(drop)
}

/// The steps of a saving at which the guest is suspended.
const SAVE_STEPS: [&str; 4] = ["suspend", "pages", "state", "file"];

fn not_saved(place: &Place) -> Result<()> {
    let mut clients = Clients::of(place)?;
    let lab = &place.lab;
    lab.shell("mkdir -p /guest/small && mount -t tmpfs -o size=1m none /guest/small && mkfifo /guest/pipe")?;
    for command in [
        "hatch save mayfly /guest/small/saved",
        "(head -c 100000 /guest/pipe > /dev/null &); hatch save mayfly /guest/pipe",
        "hatch save mayfly /guest/nowhere/saved",
    ] {
        clients
            .outlive(|| {
                let output = lab.exec(&["sh", "-c", &command.replace("hatch", HATCH)])?;
                ensure!(!output.success(), "{command} succeeds");
                Ok(())
            })
            .with_context(|| command.to_owned())?;
    }
    for step in SAVE_STEPS {
        clients
            .outlive(|| {
                let fault = format!("HATCH_FAIL_AT=save {step}");
                let output = lab.exec(&["env", &fault, HATCH, "save", "mayfly", SAVED])?;
                let text = output.error_text();
                ensure!(!output.success() && text.contains(step), "{fault}: {text}");
                Ok(())
            })
            .with_context(|| step.to_owned())?;
    }
    let left = lab.shell("ls -A /guest/small; ls -A /guest | grep -E '^[.]|^saved' || true")?;
    ensure!(left.trim().is_empty(), "half a file is left: {left}");
    lab.shell("umount /guest/small; rmdir /guest/small; rm /guest/pipe")?;
    // A guest that is paused cannot suspend itself.
    hatch(place, &["pause", "mayfly"])?;
    let error = fails(place, &["save", "mayfly", SAVED])?;
    ensure!(error.contains("is paused"), "{error}");
    hatch(place, &["unpause", "mayfly"])?;
    ensure!(
        domain(place)? == clients.birth.domain,
        "it is the same domain"
    );
    clients.idle.ask()?;
    clients.birth.destroy()
}

/// The steps of a restoration.
const RESTORE_STEPS: [&str; 14] = [
    "check", "names", "domain", "keys", "limits", "pages", "channels", "rings", "front", "state",
    "port", "claim", "finish", "unpause",
];

fn restore_failures(place: &Place) -> Result<()> {
    let birth = place.create("mayfly", &["memory=8"])?;
    birth.ready()?;
    hatch(place, &["save", "mayfly", SAVED])?;
    let lab = &place.lab;
    for step in RESTORE_STEPS {
        let fault = format!("HATCH_FAIL_AT=restore {step}");
        let output = lab.exec(&["env", &fault, HATCH, "restore", SAVED])?;
        let text = output.error_text();
        ensure!(
            !output.success() && text.contains(&format!("`{step}`")),
            "{fault}: {text}"
        );
        place.nothing_left().context(fault)?;
        if step == "finish" {
            continue;
        }
        let fault = format!("HATCH_KILL_AT=restore {step}");
        let output = lab.exec(&["env", &fault, HATCH, "restore", SAVED])?;
        ensure!(!output.success(), "{fault}: it succeeds");
        if step != "unpause" {
            hatch(place, &["gc"])?;
        } else {
            // The guest is complete and runs.
            hatch(place, &["destroy", "--wait", "mayfly"])?;
        }
        place.nothing_left().context(fault)?;
    }
    hatch(place, &["restore", SAVED])?;
    birth.answers()?;
    hatch(place, &["destroy", "--wait", "mayfly"])?;
    lab.run(&["rm", SAVED]).map(drop)
}

pub(crate) const LINUX: &str = "/guest/linux.cfg";

/// Requests the Linux guest's page until it comes.
pub(crate) fn linux_answers(place: &Place) -> Result<()> {
    let start = Instant::now();
    let page = ["timeout", "3", "wget", "-q", "-O", "-", "http://10.0.2.80/"];
    loop {
        let text = place.lab.exec(&page)?.text();
        if text.contains("A Linux guest answers") {
            return Ok(());
        }
        ensure!(start.elapsed() < BOUND, "the page does not come: {text:?}");
    }
}

/// A Linux guest of xl's, which takes part in its own suspension as mayfly does.
fn of_linux(place: &Place) -> Result<()> {
    let guest = linux::guest(&|_| {})?;
    let lab = &place.lab;
    lab.put("/guest/vmlinuz", 0o644, &std::fs::read(guest.kernel)?)?;
    lab.put("/guest/ramdisk", 0o644, &guest.ramdisk)?;
    let config = include_str!("../../../tools/examples/linux.cfg");
    lab.put(LINUX, 0o644, config.as_bytes())?;
    lab.shell("cd /etc/xen/scripts && ln -sf vif-mayfly vif-bridge")?;
    let output = place.xl(&["create", LINUX])?;
    ensure!(output.success(), "xl create: {}", output.error_text());
    let by_xl = || {
        let output = place.xl(&["restore", SAVED])?;
        ensure!(output.success(), "xl restore: {}", output.error_text());
        Ok(())
    };
    let by_hatch = || hatch(place, &["restore", SAVED]).map(drop);
    let save = |force: &str| hatch(place, &["save", force, "linux", SAVED]).map(drop);
    let steps: [(&str, &dyn Fn() -> Result<()>); 7] = [
        ("xl create", &|| Ok(())),
        ("hatch save -c", &|| {
            hatch(place, &["save", "--force", "-c", "linux", SAVED]).map(drop)
        }),
        ("hatch save, hatch restore", &|| {
            save("--force").and_then(|()| by_hatch())
        }),
        ("hatch save, xl restore", &|| {
            save("--force").and_then(|()| by_xl())
        }),
        ("hatch save, hatch restore again", &|| {
            save("--force").and_then(|()| by_hatch())
        }),
        ("hatch save -c of its own", &|| save("-c")),
        ("xl save, hatch restore", &|| {
            lab.run(&["xl", "save", "linux", SAVED, LINUX])?;
            by_hatch()
        }),
    ];
    let result = steps.into_iter().try_for_each(|(what, step)| {
        step().context(what)?;
        linux_answers(place).context(what)
    });
    let _ = lab.exec(&[HATCH, "destroy", "--force", "--wait", "linux"]);
    lab.run(&["rm", "-f", SAVED])?;
    result?;
    // hatch's index still has the guest that xl removed, and xenstore the consoles of those of xl's that hatch did.
    hatch(place, &["gc"])?;
    lab.shell("xenstore-rm /local/domain/0/backend/console || true")?;
    place.nothing_left()
}
