//! What std does before `main`, which hatch does itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

const HATCH: &str = env!("CARGO_BIN_EXE_hatch");

#[test]
fn a_closed_standard_stream_is_opened() {
    // The configuration is what standard output leads to: an empty file, if it leads anywhere.
    let script = "exec \"$0\" create --dry-run /proc/self/fd/1 >&-";
    let output = Command::new("sh").args(["-c", script, HATCH]).output();
    let errors = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(errors.contains("name is missing"), "{errors}");
}

#[test]
fn a_pipe_that_nobody_reads_is_an_error_of_the_write() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut child = Command::new(HATCH);
    child.args(["create", "/nowhere.cfg"]).stderr(writer);
    let status = child.status().unwrap();
    assert_ne!(status.signal(), Some(libc::SIGPIPE));
}
