//! Tests of the command line besides serving: its output and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Output};

/// Runs the program. Returns its exit code and its output on stdout and stderr.
fn summon(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_hatch-summon"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_file_of_services_is_checked() {
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/summon.toml");
    let (code, stdout, stderr) = summon(&["check", good]);
    assert_eq!((code, stdout), (Some(0), format!("{good}: 2 services\n")));
    // Warnings, because the images and one site exist in dom0 only.
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
    assert!(stderr.contains(&format!("hatch: {good}:")), "{stderr}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let wrong = "[daemon]\nttl = 0\n[[services]]\nname = 'a b'\n";
    std::fs::write(file.path(), wrong).unwrap();
    let path = file.path().to_str().unwrap();
    let (code, stdout, stderr) = summon(&["check", path]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    for line in [1, 2, 3, 4] {
        assert!(stderr.contains(&format!("{path}:{line}: ")), "{stderr}");
    }
}

#[test]
fn a_daemon_that_is_not_there_has_no_status() {
    let asked = ["status", "--socket", "/nonexistent/summon"];
    let (code, _, stderr) = summon(&asked);
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr,
        "hatch: /nonexistent/summon: there is no `hatch summon`\n"
    );
    let (code, stdout, _) = summon(&[&asked[..], &["--json"]].concat());
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("{\"error\":"), "{stdout}");
}
