//! Tests of the guard in the kernel, in a network namespace of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

#[path = "../../links/tests/namespace/mod.rs"]
mod namespace;

use std::time::{Duration, Instant};

use mayfly_links::Links;
use mayfly_summon::guard::{self, Identity};
use namespace::{ip, outside};

const BOUND: Duration = Duration::from_secs(10);

/// The host's kernel accepts the filter, applies it and counts. The guard's unit tests have what each rule drops.
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
        // ARP requests from the guest's end, for each address.
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
        // The counter of bytes precedes that of packets.
        let packets = bridge.unwrap().split_whitespace().nth(1).unwrap();
        packets.parse::<u32>().unwrap()
    };
    ask(5);
    // The guest's end also sends frames by itself: it probes for duplicates and joins groups.
    let end = Instant::now() + BOUND;
    while seen() < 5 {
        assert!(Instant::now() < end, "its own frames do not pass");
    }
    assert_eq!(guard::dropped(&mut links, vif.index).unwrap(), 0);
    // The filter is replaced by one for another address, and acts from the next frame on.
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
