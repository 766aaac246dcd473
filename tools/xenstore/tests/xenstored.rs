//! Tests the client with a real xenstored, in a dom0, because none runs without Xen. To be run by hand in the lab:
//!
//! ```console
//! $ cargo test -p mayfly-xenstore --test xenstored --no-run
//! $ cargo xtask lab cp target/debug/deps/xenstored-... :/run/xenstored-test
//! $ cargo xtask lab exec /run/xenstored-test --ignored
//! ```
//!
//! All nodes are below `/test-hatch`, which is removed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use mayfly_xenstore::{Client, Error, ErrorCode, Perm, Request, Store};

const BOUND: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs a dom0"]
fn a_real_xenstored() {
    let mut ours = Client::connect(BOUND).unwrap();
    let mut other = Client::connect(BOUND).unwrap();
    ours.rm("/test-hatch").unwrap();
    // All operations on one node.
    ours.write("/test-hatch/a", "1").unwrap();
    assert_eq!(other.read("/test-hatch/a").unwrap(), "1");
    assert_eq!(other.find("/test-hatch/b").unwrap(), None);
    assert_eq!(other.find("/test-hatch/b/c/d").unwrap(), None);
    ours.mkdir("/test-hatch/a").unwrap();
    ours.set_perms("/test-hatch/a", &[Perm::none(0), Perm::read(7)])
        .unwrap();
    assert_eq!(
        ours.get_perms("/test-hatch/a").unwrap(),
        [Perm::none(0), Perm::read(7)]
    );
    ours.rm("/test-hatch/none").unwrap();
    ours.rm("/test-hatch/none/of/these").unwrap();
    // A watch's first event, and one for a change by another.
    ours.watch("/test-hatch/watched", "token").unwrap();
    assert_eq!(ours.event(BOUND).unwrap().unwrap().token, "token");
    other.write("/test-hatch/watched/below", "x").unwrap();
    assert_eq!(
        ours.event(BOUND).unwrap().unwrap().path,
        "/test-hatch/watched/below"
    );
    // A burst larger than any buffer, with events between the answers.
    let value = vec![b'x'; 1000];
    let mut burst = Vec::new();
    for index in 0..2000 {
        let path = format!("/test-hatch/watched/a-child-with-a-long-name-{index}");
        burst.push(ours.send(Request::write(&path, &value)).unwrap());
    }
    ours.flush().unwrap();
    ours.answers(burst).unwrap();
    let mut events = 0;
    while ours.event(Duration::from_millis(500)).unwrap().is_some() {
        events += 1;
    }
    assert_eq!(events, 2000);
    ours.unwatch("/test-hatch/watched", "token").unwrap();
    // The list is longer than a message. oxenstored 4.17 cannot send it through the kernel's device.
    match ours.directory("/test-hatch/watched") {
        Err(error) if std::env::var_os("XENSTORED_PATH").is_some() => {
            assert!(error.is(&ErrorCode::E2BIG))
        }
        list => assert_eq!(list.unwrap().len(), 2001),
    }
    assert_eq!(
        ours.directory("/test-hatch/watched/below").unwrap(),
        [""; 0]
    );
    assert!(
        ours.directory("/test-hatch/nothing")
            .unwrap_err()
            .is_absent()
    );
    // A transaction that conflicts once.
    let mut tries = 0;
    let tried: Result<_, Error> = (&mut ours as &mut dyn Store).transact(BOUND, |transaction| {
        tries += 1;
        let seen = transaction.ask(Request::read("/test-hatch/a"))?;
        if tries == 1 {
            other.write("/test-hatch/a", "2")?;
        }
        transaction.ask(Request::write("/test-hatch/claim", &seen))?;
        Ok(tries)
    });
    assert_eq!(tried.unwrap(), 2);
    assert_eq!(ours.read("/test-hatch/claim").unwrap(), "2");
    let failed: Result<(), Error> = (&mut ours as &mut dyn Store).transact(BOUND, |transaction| {
        transaction.ask(Request::write("/test-hatch/claim", "no"))?;
        transaction.ask(Request::read("/test-hatch/nothing"))?;
        Ok(())
    });
    assert!(failed.unwrap_err().is_absent());
    assert_eq!(ours.read("/test-hatch/claim").unwrap(), "2");
    ours.rm("/test-hatch").unwrap();
}
