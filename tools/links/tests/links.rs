//! Bridge ports in the kernel, in a network namespace of their own.
//!
//! There are no vifs here, so one end of a veth pair stands for a vif; the name does not matter to the kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod namespace;

use std::time::{Duration, Instant};

use mayfly_links::{Error, Links};
use namespace::{ip, outside};

const BOUND: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn a_port_comes_is_attached_and_goes() {
    if outside("a_port_comes_is_attached_and_goes") {
        return;
    }
    ip("link add xenbr0 type bridge");
    ip("link set xenbr0 mtu 1400 up");
    let mut links = Links::open().unwrap();
    let bridge = links.bridge("xenbr0").unwrap();
    assert_eq!(bridge.mtu, 1400);
    assert!(matches!(
        links.appeared("vif5.0", SHORT),
        Err(Error::NotAppeared { .. })
    ));
    // The link appears during the wait.
    let waiter = std::thread::spawn(|| {
        std::thread::sleep(SHORT);
        ip("link add vif5.0 address fe:ff:ff:ff:ff:ff type veth peer name guest");
        ip("link set guest up");
    });
    let mut vif = links.appeared("vif5.0", BOUND).unwrap();
    waiter.join().unwrap();
    assert_eq!((vif.up, vif.master), (false, None));
    links.attach(&mut vif, &bridge, None).unwrap();
    let now = links.find("vif5.0").unwrap();
    assert_eq!(
        (now.up, now.master, now.mtu),
        (true, Some(bridge.index), 1400)
    );
    assert!(vif.up);
    links.running("vif5.0", BOUND).unwrap();
    ip("link set guest down");
    // The kernel reports a lost carrier within a second.
    let end = Instant::now() + BOUND;
    while links.running("vif5.0", SHORT).is_ok() {
        assert!(Instant::now() < end);
        std::thread::sleep(SHORT);
    }
    assert!(matches!(
        links.running("vif5.0", SHORT),
        Err(Error::NotRunning { .. })
    ));
    ip("link set guest up");
    links.running("vif5.0", BOUND).unwrap();
    // The kernel gives the guest's end an address, and the vif none.
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap();
    assert!(!addresses.contains("vif5.0"), "{addresses}");
    let vifs: Vec<_> = links
        .list()
        .unwrap()
        .iter()
        .filter_map(|link| link.vif())
        .collect();
    assert_eq!(vifs.len(), 1);
    assert_eq!((vifs[0].domid, vifs[0].device), (5, 0));
    // A link that leaves the bridge is not gone.
    ip("link set vif5.0 nomaster");
    assert!(matches!(
        links.gone("vif5.0", SHORT),
        Err(Error::NotGone { .. })
    ));
    let waiter = std::thread::spawn(|| {
        std::thread::sleep(SHORT);
        ip("link del vif5.0");
    });
    links.gone("vif5.0", BOUND).unwrap();
    waiter.join().unwrap();
    links.gone("vif5.0", SHORT).unwrap();
    // A link that came and went has not appeared.
    assert!(matches!(
        links.appeared("vif5.0", SHORT),
        Err(Error::NotAppeared { .. })
    ));
    assert!(matches!(
        links.attach(&mut vif, &bridge, None),
        Err(Error::NoSuchLink(_))
    ));
}

#[test]
fn what_is_no_bridge_is_named() {
    if outside("what_is_no_bridge_is_named") {
        return;
    }
    ip("link add plain type veth peer name other");
    let mut links = Links::open().unwrap();
    let error = links.bridge("xenbr0").unwrap_err().to_string();
    assert!(error.contains("xenbr0"), "{error}");
    let error = links.bridge("plain").unwrap_err().to_string();
    assert_eq!(error, "plain is of the kind veth and not a bridge");
    let error = links.bridge("lo").unwrap_err().to_string();
    assert_eq!(error, "lo is a plain link and not a bridge");
    assert!(matches!(links.bridge("a/b"), Err(Error::Name(_))));
}

#[test]
fn changes_that_were_lost_are_asked_for() {
    if outside("changes_that_were_lost_are_asked_for") {
        return;
    }
    let mut links = Links::open().unwrap();
    ip("link add vif7.0 type veth peer name guest");
    // More changes follow than are kept.
    for round in 0..1500 {
        let mtu = 1400 + round % 2;
        ip(&format!("link set guest mtu {mtu}"));
    }
    let start = Instant::now();
    assert_eq!(links.appeared("vif7.0", BOUND).unwrap().name, "vif7.0");
    assert!(start.elapsed() < BOUND);
}
