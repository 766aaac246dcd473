//! The command line: output, error output and exit codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::process::{Command, Output};

use mayfly_site::Pack;

/// Runs the program. Returns its exit code, standard output and standard error.
fn pack(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_hatch-pack"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn packs_checks_and_lists() {
    let site = common::folder(&common::sample());
    let folder = site.path().to_str().unwrap();
    let out = site.path().join("site.mfs");
    let file = out.to_str().unwrap();

    let (code, stdout, stderr) = pack(&[folder, "-o", file]);
    assert_eq!((code, &stderr[..]), (Some(0), ""));
    assert!(
        stdout.starts_with(&format!("{file}: 4 zones (")),
        "{stdout}"
    );
    let bytes = std::fs::read(&out).unwrap();
    assert!(stdout.contains(&format!(" {} bytes, in ", bytes.len())));

    let (code, stdout, _) = pack(&["--check", file]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with(&format!("{file}: valid: 4 zones with ")));

    let (code, stdout, _) = pack(&["--list", file]);
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
    for words in [["--list", "--records", file], ["--records", "--list", file]] {
        let (code, stdout, _) = pack(&words);
        assert_eq!(code, Some(0));
        assert!(stdout.contains("\tIN\tSOA\t"), "{stdout}");
    }

    let (code, stdout, _) = pack(&["--list", file, "--json"]);
    assert_eq!(code, Some(0));
    let listing: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(listing["zones"].as_array().unwrap().len(), 4);
    assert_eq!(listing["bytes"], bytes.len());

    let mut broken = bytes;
    let last = broken.len() - 1;
    broken[last] ^= 1;
    std::fs::write(&out, &broken).unwrap();
    let (code, _, stderr) = pack(&["--check", file]);
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr.lines().next().unwrap(),
        format!("{file}: the checksum does not match: the pack was changed or cut")
    );
    assert!(
        Pack::open(&broken).is_ok(),
        "that is not looked at when the guest boots"
    );
}

#[test]
fn errors_leave_no_file() {
    let site = common::folder(&[("zones/a.test.zone", "a A oops\nb A 1.2.3\n")]);
    let out = site.path().join("site.mfs");
    let (code, stdout, stderr) =
        pack(&[site.path().to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert_eq!((code, &stdout[..]), (Some(1), ""));
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines[0].starts_with("zones/a.test.zone:1:5: "), "{stderr}");
    assert!(lines[1].starts_with("zones/a.test.zone:2:5: "), "{stderr}");
    assert_eq!(
        lines[2..],
        ["hatch: nothing was written, as there are 2 errors"]
    );
    assert_eq!(std::fs::read_dir(site.path()).unwrap().count(), 1);
}

#[test]
fn warnings_are_printed_beside_errors() {
    let redirect = |from: &str| format!("[[redirects]]\nfrom = \"{from}\"\nto = \"/\"\n");
    let rules = redirect("/a?b") + &redirect("/caf%C3%A9");
    let site = common::folder(&[("mayfly.toml", rules), ("www/index.html", "x".to_owned())]);
    let (code, _, stderr) = pack(&[site.path().to_str().unwrap(), "-o", "/nowhere/x"]);
    assert_eq!(code, Some(1));
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    assert!(
        lines[0].starts_with("mayfly.toml:5: `/caf%C3%A9`"),
        "{stderr}"
    );
    assert!(lines[1].starts_with("mayfly.toml:2: no client"), "{stderr}");
}

#[test]
fn what_is_not_understood() {
    for arguments in [
        &[][..],
        &["x"],
        &["x", "--check", "y"],
        &["x", "-o", "y", "--check"],
    ] {
        assert_eq!(pack(arguments).0, Some(2), "{arguments:?}");
    }
    for arguments in [
        &["/nowhere", "-o", "/nowhere/x"][..],
        &["--check", "/nowhere"],
        &["--list", "/dev/null"],
    ] {
        let (code, _, stderr) = pack(arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(stderr.lines().last().unwrap().starts_with("hatch: "));
    }
}
