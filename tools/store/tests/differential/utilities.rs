//! Debian's xenstore-utils and Xen's own test of a xenstored, run with our daemon.

use std::path::Path;
use std::process::{Command, Output};

use mayfly_lab::{Set, unpacked};

use crate::daemon::{FOLDER, LIBRARIES};
use crate::growth::with_ours;

/// Runs one of Debian's programs with the daemon at a socket.
fn run(socket: &Path, program: &str, words: &[&str]) -> Output {
    let root = unpacked(Set::Dom0, &|step| eprintln!("{step}")).unwrap();
    let own = root.join(FOLDER).join(program);
    let program = if own.exists() {
        own
    } else {
        root.join("usr/bin").join(program)
    };
    Command::new(program)
        .args(words)
        .env("LD_LIBRARY_PATH", root.join(LIBRARIES))
        .env("XENSTORED_PATH", socket)
        .output()
        .unwrap()
}

fn said(socket: &Path, program: &str, words: &[&str]) -> String {
    let output = run(socket, program, words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs Debian's packages"]
fn utilities() {
    with_ours(|socket| {
        let said = |program, words: &[&str]| said(socket, program, words);
        said("xenstore-write", &["/test/a/b", "one", "/test/c", "two"]);
        assert_eq!(said("xenstore-read", &["-s", "/test/a/b"]), "one\n");
        assert_eq!(said("xenstore-list", &["/test"]), "a\nc\n");
        said("xenstore-chmod", &["/test/c", "n0", "r7"]);
        let listed = said("xenstore-ls", &["-p", "/test"]);
        assert!(listed.contains("(n0,r7)"), "{listed}");
        assert_eq!(said("xenstore-watch", &["-n", "1", "/test"]), "/test\n");
        said("xenstore-rm", &["/test"]);
        assert!(!run(socket, "xenstore-read", &["/test/c"]).status.success());
        assert!(said("xenstore-control", &["check"]).contains("OK"));
        assert!(said("xenstore-control", &["quota"]).contains("nodes"));
        // Lists that are longer than a message.
        for index in 0..300 {
            said(
                "xenstore-write",
                &[&format!("/long/a-name-that-is-long-{index}"), ""],
            );
        }
        assert_eq!(said("xenstore-list", &["/long"]).lines().count(), 300);
    });
}

#[test]
#[ignore = "needs Debian's packages"]
fn test_xenstore() {
    with_ours(|socket| {
        print!("{}", said(socket, "test-xenstore", &["-i", "500"]));
    });
}
