//! The command: what it prints where, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "../../pack/tests/common/mod.rs"]
mod site;

use common::hatch;
use mayfly_site::Pack;

#[test]
fn packs_checks_and_lists() {
    let site = site::folder(&site::sample());
    let folder = site.path().to_str().unwrap();
    let out = site.path().join("site.mfs");
    let file = out.to_str().unwrap();

    let (code, stdout, stderr) = hatch(&["pack", folder, "-o", file]);
    assert_eq!((code, &stderr[..]), (Some(0), ""));
    assert!(
        stdout.starts_with(&format!("{file}: 4 zones (")),
        "{stdout}"
    );
    let octets = std::fs::read(&out).unwrap();
    assert!(stdout.contains(&format!(" {} bytes, in ", octets.len())));

    let (code, stdout, _) = hatch(&["pack", "--check", file]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with(&format!("{file}: right: 4 zones with ")));

    let (code, stdout, _) = hatch(&["pack", "--list", file]);
    assert_eq!(code, Some(0));
    for line in [
        "zone example.test.  serial 2026112101  ",
        "zone signed.test.  serial 1  9 names  signed, NSEC\n",
        "host without a name (default)\n",
        "host other.test, www.example.test\n",
        "308 to /a/b/",
        "error 404",
    ] {
        assert!(stdout.contains(line), "{line}\n{stdout}");
    }
    let (code, stdout, _) = hatch(&["pack", "--list", file, "--json"]);
    assert_eq!(code, Some(0));
    let listing: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(listing["zones"].as_array().unwrap().len(), 4);
    assert_eq!(listing["bytes"], octets.len());

    let mut broken = octets;
    let last = broken.len() - 1;
    broken[last] ^= 1;
    std::fs::write(&out, &broken).unwrap();
    let (code, _, stderr) = hatch(&["pack", "--check", file]);
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr.lines().next().unwrap(),
        format!("{file}: the checksum is of other bytes: the pack was changed or cut")
    );
    assert!(
        Pack::open(&broken).is_ok(),
        "that is not looked at when the guest boots"
    );
}

#[test]
fn errors_leave_no_file() {
    let site = site::folder(&[("zones/a.test.zone", "a A oops\nb A 1.2.3\n")]);
    let out = site.path().join("site.mfs");
    let (code, stdout, stderr) = hatch(&[
        "pack",
        site.path().to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
    ]);
    assert_eq!((code, &stdout[..]), (Some(1), ""));
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines[0].starts_with("zones/a.test.zone:1: "), "{stderr}");
    assert!(lines[1].starts_with("zones/a.test.zone:2: "), "{stderr}");
    assert_eq!(
        lines[2..],
        ["hatch: nothing was written, as there are 2 errors"]
    );
    assert_eq!(std::fs::read_dir(site.path()).unwrap().count(), 1);
}

#[test]
fn what_is_not_understood() {
    for arguments in [
        &[][..],
        &["pack"],
        &["pack", "x"],
        &["pack", "x", "--check", "y"],
        &["hatch"],
    ] {
        assert_eq!(hatch(arguments).0, Some(2), "{arguments:?}");
    }
    for arguments in [
        &["pack", "/nowhere", "-o", "/nowhere/x"][..],
        &["pack", "--check", "/nowhere"],
        &["pack", "--list", "/dev/null"],
    ] {
        let (code, _, stderr) = hatch(arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(stderr.lines().last().unwrap().starts_with("hatch: "));
    }
}
