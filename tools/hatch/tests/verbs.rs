//! The verbs on domains where there is no Xen: what is understood, what is said, how it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::process::Command;

use common::hatch;

fn config(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn a_configuration_that_is_wrong_is_not_understood() {
    let file = config("name = 'm'\ntype = 'pvh'\nkernel = '/k'\nmemory = 8\nnested = 1\n");
    let path = file.path().to_str().unwrap();
    let (code, stdout, stderr) = hatch(&["create", path]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(
        stderr.contains(&format!("{path}:5: \"nested\" is not supported")),
        "{stderr}"
    );
    let (code, stdout, _) = hatch(&["create", "--json", path]);
    assert_eq!(code, Some(2));
    let error: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(error["exit"], 2);
    assert!(
        error["error"].as_str().unwrap().contains("nested"),
        "{error}"
    );
}

#[test]
fn what_would_be_made_is_told_without_xen() {
    let file = config(
        "name='m';type='pvh';kernel='/k';memory=8;extra='ip=10.0.2.80/24'\nvif=['mac=00:16:3e:00:00:01,rate=10Mb/s']",
    );
    let path = file.path().to_str().unwrap();
    let (code, stdout, stderr) = hatch(&["create", "-N", "--template", "-n", "2", path]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["name"], "m-2");
    assert_eq!(lines[1]["cmdline"], "ip=10.0.2.81/24");
    assert_eq!(lines[1]["vif"]["mac"], "00:16:3e:00:00:02");
    assert_eq!(lines[1]["vif"]["bridge"], "xenbr0");
    assert_eq!(lines[1]["uuid"], serde_json::Value::Null);
}

#[test]
fn without_xen_nothing_works_and_says_so() {
    for arguments in [
        &["list"][..],
        &["show", "x"],
        &["destroy", "x"],
        &["pause", "x"],
        &["unpause", "x"],
        &["shutdown", "x"],
        &["gc"],
        &["gc", "--dry-run"],
    ] {
        let (code, stdout, stderr) = hatch(arguments);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(
            stderr.starts_with("hatch: cannot reach xenstored (/nonexistent/xenstored)"),
            "{stderr}"
        );
    }
}

#[test]
fn a_template_is_checked_before_the_first_guest_is_made() {
    let file = config(
        "name = 'm'\ntype = 'pvh'\nkernel = '/nonexistent'\nmemory = 8\nextra = 'ip=10.0.2.80/24'\n",
    );
    let path = file.path().to_str().unwrap();
    let (code, _, stderr) = hatch(&["create", "--template", "-n", "200", path]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("guest 176 would have an address outside of the network"),
        "{stderr}"
    );
    // Then the image is looked for.
    let (code, _, stderr) = hatch(&["create", "--template", "-n", "100", path]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/nonexistent"), "{stderr}");
    assert_eq!(
        hatch(&["create", "-n", "2", path]).0,
        Some(2),
        "-n without --template"
    );
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, _) = hatch(&["completions", shell]);
        assert_eq!(code, Some(0));
        assert!(stdout.contains("unpause"), "{shell}: {stdout}");
    }
    let (code, stdout, _) = hatch(&["man"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains(".TH hatch") && stdout.contains("Exit codes"),
        "{stdout}"
    );
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        hatch(&["man", "--dir", dir.path().to_str().unwrap()]).0,
        Some(0)
    );
    assert!(dir.path().join("hatch-create.1").exists());
}

#[test]
fn what_is_not_understood() {
    for arguments in [
        &[][..],
        &["hatch"],
        &["pack"],
        &["pack", "x"],
        &["pack", "x", "--check", "y"],
        &["summon"],
    ] {
        assert_eq!(hatch(arguments).0, Some(2), "{arguments:?}");
    }
}

/// Puts a program at a path by another process. Were it written by this one, a program that another test starts meanwhile
/// could hold the file open for writing, and to run it would fail with ETXTBSY.
fn install(from: &Path, to: &Path) {
    let mut install = Command::new("install");
    install.args(["-m", "755"]).args([from, to]);
    assert!(install.status().unwrap().success());
}

/// `hatch pack` and `hatch summon` become programs that lie beside hatch, with the arguments as they were given.
#[test]
fn verbs_that_are_programs_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let hatch = folder.path().join("hatch");
    install(Path::new(env!("CARGO_BIN_EXE_hatch")), &hatch);
    let call = |arguments: &[&str]| {
        let output = Command::new(&hatch)
            .args(arguments)
            .env("PATH", "/nonexistent")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, _, stderr) = call(&["pack", "--check", "x"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("hatch-pack: install it"), "{stderr}");
    let script = folder.path().join("script");
    std::fs::write(
        &script,
        "#!/bin/sh\nfor word; do echo \"<$word>\"; done\nexit 7\n",
    )
    .unwrap();
    install(&script, &folder.path().join("hatch-pack"));
    let (code, stdout, _) = call(&["pack", "--check", "a b"]);
    assert_eq!((code, stdout.as_str()), (Some(7), "<--check>\n<a b>\n"));
    // What hatch itself tells of them needs them not.
    let (code, stdout, _) = call(&["summon", "status", "--help"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("Usage: hatch summon status"), "{stdout}");
    let (_, stdout, _) = call(&["completions", "bash"]);
    assert!(stdout.contains("--check") && stdout.contains("--destroy"));
}
