//! A network namespace for a test.
//!
//! The test runs itself again under `unshare`, because changing one's own namespace takes `unsafe`.

use std::process::Command;

const INSIDE: &str = "HATCH_TEST_INSIDE";

/// Runs `ip` of iproute2.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("ip of iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// Runs the named test again in a namespace. Returns false if this is that run.
pub(crate) fn outside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let this = std::env::current_exe().expect("this program");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(this)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare of util-linux");
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    true
}
