//! The program as a user runs it.

use std::process::{Command, Output};

/// Runs the program: its exit code, and what it wrote to stdout and stderr.
pub(crate) fn hatch(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_hatch"))
        .args(arguments)
        // Nobody listens there, whatever machine the tests run on.
        .env("XENSTORED_PATH", "/nonexistent/xenstored")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}
