//! A guest's last message at its end, and `hatch create --wait`; and `hatch pool`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::birth::{BOUND, EXAMPLE, HATCH, Place};
use crate::cases::Case;
use crate::hatch::json;

pub(crate) const CASES: &[Case] = &[
    ("it waits until a guest serves or has ended", waits),
    ("a guest's last words are told, and harmless", told),
    ("a pool gives what was asked for, and nothing else", pool),
];

/// Makes the guest crash at once.
const CRASHES: &str = "ip=nonsense";

fn waits(place: &Place) -> Result<()> {
    place.hatched(&["create", "--wait", EXAMPLE])?;
    let domid = place.lab.run(&["xl", "domid", "mayfly"])?;
    let ready = format!("/local/domain/{}/data/mayfly/ready", domid.trim());
    ensure!(place.lab.run(&["xenstore-read", &ready])?.trim() == "1");
    place.hatched(&["destroy", "mayfly"])?;
    let output = place.hatch(&["create", "--wait", "--extra", CRASHES, EXAMPLE])?;
    let said = output.error_text();
    ensure!(
        output.code == 1 && said.contains("mayfly") && said.contains("has ended (crashed)"),
        "exit code {}: {said}",
        output.code
    );
    place.hatched(&["destroy", "mayfly"])?;
    place.nothing_left()
}

fn told(place: &Place) -> Result<()> {
    place.hatched(&["create", "-p", EXAMPLE])?;
    let domid = place.lab.run(&["xl", "domid", "mayfly"])?;
    let path = format!("/local/domain/{}/data/mayfly/error", domid.trim());
    let script = format!("xenstore-write {path} \"$(printf 'bad word\\033[2J x=\\351')\"");
    place.lab.shell(&script)?;
    let shown = place.hatched(&["show", "mayfly"])?;
    ensure!(
        shown.contains("bad word") && !shown.contains('\u{1b}'),
        "{shown:?}"
    );
    place.hatched(&["destroy", "mayfly"])?;
    place.nothing_left()
}

const FOLDER: &str = "/run/pooled";

/// Waits until the pool has this number of guests.
fn ready(place: &Place, wanted: u64) -> Result<()> {
    let end = Instant::now() + BOUND;
    loop {
        let status = place.hatch(&["pool", "--status", "--json"])?;
        if status.success() && json(&status.text())?["ready"] == wanted {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "the pool is {}{}",
            status.text(),
            status.error_text()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn pool(place: &Place) -> Result<()> {
    let config = "name='pooled'\ntype='pvh'\nkernel='image'\nmemory=8\nvif=['bridge=xenbr0']\n";
    place.lab.shell(&format!(
        "rm -rf {FOLDER}; mkdir -p {FOLDER}/a {FOLDER}/b; cp /guest/mayfly {FOLDER}/a/image; cp /guest/mayfly {FOLDER}/b/image"
    ))?;
    for folder in ["a", "b"] {
        let path = format!("{FOLDER}/{folder}/guest.cfg");
        place.lab.put(&path, 0o644, config.as_bytes())?;
    }
    let script = format!(
        "cd {FOLDER}/a; {HATCH} pool --size 1 guest.cfg >{FOLDER}/log 2>&1 </dev/null & echo $!"
    );
    let pid = place.lab.shell(&script)?.trim().to_owned();
    let result = pooled(place);
    place.lab.shell(&format!(
        "kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done"
    ))?;
    let log = place
        .lab
        .shell(&format!("cat {FOLDER}/log; rm -r {FOLDER}"))?;
    result.with_context(|| format!("the pool says {log}"))?;
    place.nothing_left()
}

fn pooled(place: &Place) -> Result<()> {
    ready(place, 1)?;
    let create = |folder: &str| {
        let script = format!("cd {FOLDER}/{folder} && {HATCH} create --pool -p --json guest.cfg");
        place.lab.exec(&["sh", "-c", &script])
    };
    // The same relative paths in another folder are other files.
    let other = create("b")?;
    ensure!(
        !other.success() && other.error_text().contains("another kernel"),
        "{}{}",
        other.text(),
        other.error_text()
    );
    let made = create("a")?;
    ensure!(made.success(), "{}", made.error_text());
    let made = json(&made.text())?;
    let shown = json(&place.hatched(&["show", "--json", "pooled"])?)?;
    ensure!(
        made["uuid"] == shown["uuid"] && made["domid"] == shown["domid"],
        "it was told as {made}, and is {shown}"
    );
    place.hatched(&["destroy", "pooled"])?;
    // Nothing is left of the shell's own name and address either.
    ready(place, 1)?;
    let entries = place.lab.shell(
        "xenstore-ls -f /hatch/mac | grep -c =; xenstore-ls -f /hatch/name | grep -c =; true",
    )?;
    ensure!(
        entries.split_whitespace().eq(["1", "1"]),
        "the index has {entries}"
    );
    // A shell does not have the new image when the image file was replaced.
    let first = json(&place.hatched(&["list", "--json", "--ours"])?)?[0]["domid"].clone();
    place.lab.shell(&format!(
        "cp /guest/mayfly {FOLDER}/new && mv {FOLDER}/new {FOLDER}/a/image"
    ))?;
    let early = create("a")?;
    ensure!(
        !early.success() && early.error_text().contains("it is empty at this moment"),
        "{}{}",
        early.text(),
        early.error_text()
    );
    ready(place, 1)?;
    let made = create("a")?;
    ensure!(made.success(), "{}", made.error_text());
    ensure!(
        json(&made.text())?["domid"] != first,
        "the old image's shell was given"
    );
    place.hatched(&["destroy", "pooled"])?;
    // Without an image, no guest is given.
    place
        .lab
        .shell(&format!("echo no image >{FOLDER}/a/image"))?;
    ensure!(!create("a")?.success(), "given without an image");
    let status = json(&place.hatched(&["pool", "--status", "--json"])?)?;
    ensure!(status["ready"] == 0, "{status}");
    Ok(())
}
