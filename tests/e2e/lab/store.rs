//! `hatch xenstored` in the place of Debian's.

use anyhow::{Result, ensure};
use mayfly_lab::{Options, Xenstored};

use crate::birth::Place;
use crate::cases::Case;

/// A lab whose dom0 runs it.
pub(crate) fn options() -> Options {
    Options {
        xenstored: Xenstored::Hatch,
        ..Options::named("e2e-store")
    }
}

/// The cases of `hatch xenstored` alone.
pub(crate) const CASES: &[Case] = &[("Xen's own tools work with it", tools)];

fn tools(place: &Place) -> Result<()> {
    let run = |words: &[&str]| place.lab.run(words);
    let processes = run(&["ps", "-o", "comm"])?;
    ensure!(processes.contains("hatch-xenstored"), "{processes}");
    run(&["xenstore-write", "/test/a/b", "one", "/test/c", "two"])?;
    ensure!(run(&["xenstore-read", "-s", "/test/a/b"])? == "one\n");
    ensure!(run(&["xenstore-list", "/test"])? == "a\nc\n");
    run(&["xenstore-chmod", "/test/c", "n0", "r7"])?;
    let listed = run(&["xenstore-ls", "-p", "/test"])?;
    ensure!(listed.contains("(n0,r7)"), "{listed}");
    let watched = "xenstore-watch -n 2 /test/a & sleep 0.3; xenstore-write /test/a/d 1; wait";
    let watched = place.lab.shell(watched)?;
    ensure!(watched == "/test/a\n/test/a/d\n", "{watched:?}");
    run(&["xenstore-rm", "/test"])?;
    ensure!(!place.lab.exec(&["xenstore-read", "/test/c"])?.success());
    ensure!(run(&["xenstore-control", "check"])?.contains("OK"));
    let quota = run(&["xenstore-control", "quota"])?;
    ensure!(quota.contains("nodes"), "{quota}");
    // A second one leaves the first one alone.
    let second = ["hatch-xenstored", "--pid-file", "/run/xen/xenstored.pid"];
    ensure!(!place.lab.exec(&second)?.success(), "two xenstoreds run");
    ensure!(run(&["xl", "list"])?.contains("Domain-0"));
    Ok(())
}
