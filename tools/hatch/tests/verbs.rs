//! The verbs on domains where there is no Xen: what is understood, what is said, how it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

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
fn a_file_of_services_is_checked() {
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/summon.toml");
    let (code, stdout, stderr) = hatch(&["summon", "check", good]);
    assert_eq!((code, stdout), (Some(0), format!("{good}: 2 services\n")));
    // Warnings: the image of each, and the site of one, are dom0's.
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
    assert!(stderr.contains(&format!("hatch: {good}:")), "{stderr}");
    let file = config("[daemon]\nttl = 0\n[[services]]\nname = 'a b'\n");
    let path = file.path().to_str().unwrap();
    let (code, stdout, stderr) = hatch(&["summon", "check", path]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    for line in [1, 2, 3, 4] {
        assert!(stderr.contains(&format!("{path}:{line}: ")), "{stderr}");
    }
}

#[test]
fn a_daemon_that_is_not_there_has_no_status() {
    let asked = ["summon", "status", "--socket", "/nonexistent/summon"];
    let (code, _, stderr) = hatch(&asked);
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr,
        "hatch: /nonexistent/summon: there is no `hatch summon`\n"
    );
    let (code, stdout, _) = hatch(&[&asked[..], &["--json"]].concat());
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("{\"error\":"), "{stdout}");
}
