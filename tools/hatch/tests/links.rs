//! Bridge ports with the kernel's help, in a network namespace of its own.
//!
//! The test runs itself again below `unshare`, because to change one's own namespace takes `unsafe`. As there are no vifs, one end
//! of a veth pair stands for one; its name does not matter to the kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use hatch::summon::guard::{self, Identity};
use mayfly_links::{Error, Links};

const BOUND: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);
const INSIDE: &str = "HATCH_TEST_INSIDE";

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("ip of iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// Runs the named test again in a namespace; false where this is that run.
fn outside(test: &str) -> bool {
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
    // It appears while it is waited for.
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
    // The kernel tells of a lost carrier within a second.
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
    // The guest's end gets its address of the kernel, the vif none.
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
    // Leaving the bridge is not the end.
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
    // One that came and went has not appeared.
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
    // More than is kept, behind it.
    for round in 0..1500 {
        let mtu = 1400 + round % 2;
        ip(&format!("link set guest mtu {mtu}"));
    }
    let start = Instant::now();
    assert_eq!(links.appeared("vif7.0", BOUND).unwrap().name, "vif7.0");
    assert!(start.elapsed() < BOUND);
}

/// The kernel of the host takes the filter, looks with it at what comes, and counts; what each rule drops is in the guard's own tests.
#[test]
fn a_guest_is_kept_to_its_addresses() {
    if outside("a_guest_is_kept_to_its_addresses") {
        return;
    }
    ip("link add xenbr0 type bridge");
    ip("link set xenbr0 up");
    ip(
        "link add vif5.0 address fe:ff:ff:ff:ff:ff type veth peer name guest address 00:16:3e:01:02:03",
    );
    let mut links = Links::open().unwrap();
    let bridge = links.bridge("xenbr0").unwrap();
    let mut vif = links.find("vif5.0").unwrap();
    assert_eq!(vif.mac, Some([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]));
    let identity = |last| Identity {
        mac: [0x00, 0x16, 0x3e, 1, 2, 3],
        ipv4: Some([192, 0, 2, last].into()),
        ipv6: Some("2001:db8::80".parse().unwrap()),
        host: bridge.mac,
    };
    guard::protect(&mut links, vif.index, &identity(80)).unwrap();
    links.attach(&mut vif, &bridge, None).unwrap();
    ip("address add 192.0.2.80/24 dev guest");
    ip("link set guest up");
    let ask = |times: u8| {
        // Each address is asked for by ARP, from the guest's end.
        let socket = std::net::UdpSocket::bind("192.0.2.80:0").unwrap();
        for last in 100..100 + times {
            socket
                .send_to(b"x", ("192.0.2.".to_owned() + &last.to_string(), 9))
                .unwrap();
        }
    };
    let seen = || {
        let counts = std::fs::read_to_string("/proc/net/dev").unwrap();
        let bridge = counts
            .lines()
            .find_map(|line| line.trim().strip_prefix("xenbr0:"));
        // Octets come before packets.
        let packets = bridge.unwrap().split_whitespace().nth(1).unwrap();
        packets.parse::<u32>().unwrap()
    };
    ask(5);
    // Among them is what the guest's end does by itself: duplicates are looked for, groups are joined.
    let end = Instant::now() + BOUND;
    while seen() < 5 {
        assert!(Instant::now() < end, "its own frames do not pass");
    }
    assert_eq!(guard::dropped(&mut links, vif.index).unwrap(), 0);
    // Another's address, from the next frame on, without a gap.
    guard::protect(&mut links, vif.index, &identity(81)).unwrap();
    ask(10);
    let dropped = loop {
        let dropped = guard::dropped(&mut links, vif.index).unwrap();
        if dropped > 0 {
            break dropped;
        }
        assert!(Instant::now() < end, "another's address passes");
    };
    println!("{} passed, {dropped} were dropped", seen());
    let gone = vif.index + 1000;
    assert!(guard::protect(&mut links, gone, &identity(80)).is_err());
    assert!(guard::dropped(&mut links, gone).is_err());
}
