//! The answers of the guest to a smoltcp client over both families.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use std::net::{IpAddr, Ipv6Addr};

use mayfly_guest_tests::Setup;
use mayfly_guest_tests::client::{guest_link_local, guest4, guest6};
use mayfly_guest_tests::frames::{self, Path, Question};

#[test]
fn dns_over_udp() {
    Setup::new().run(|net| {
        for address in [guest4(), guest6(), guest_link_local()] {
            let answer = net
                .dns(address, &Question::a("mayfly.test"))
                .expect("an answer");
            assert_eq!(answer[..2], frames::QUERY_ID.to_be_bytes());
            // The first record is the answer, with a compressed name.
            let record = [
                &[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4][..],
                &[10, 0, 2, 80],
            ]
            .concat();
            assert_eq!(answer.get(29..45), Some(&record[..]), "{answer:x?}");
        }
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn http() {
    Setup::new().run(|net| {
        for address in [guest4(), guest6(), guest_link_local()] {
            let answer = net
                .http(
                    address,
                    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                )
                .expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn a_query_to_a_group_or_a_broadcast_address_is_not_answered() {
    let mac = [2, 0, 0, 0, 0, 2];
    Setup::new().run(|net| {
        assert!(net.dns(guest4(), &Question::a("mayfly.test")).is_some());
        let query = frames::dns_query(&Question::a("mayfly.test"));
        let v6 = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
        for (from, to) in [
            (IpAddr::from([10, 0, 2, 2]), IpAddr::from([255; 4])),
            ([10, 0, 2, 2].into(), [10, 0, 2, 255].into()),
            ([10, 0, 2, 2].into(), [224, 0, 0, 1].into()),
            (
                v6(2).into(),
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
            ),
            (
                v6(2).into(),
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x80).into(),
            ),
        ] {
            let path = Path {
                mac,
                to_mac: frames::BROADCAST,
                from,
                to,
            };
            net.run_for(2.0);
            net.client.log.clear();
            net.deliver(&frames::udp(&path, 999, 53, &query));
            net.run_for(0.1);
            assert_eq!(net.client.log, [], "{to}");
        }
        assert_eq!(net.violations(), [""; 0]);
    });
}

/// RFC 9112 section 3: 8,000 bytes of target, through receive buffers that are smaller.
#[test]
fn long_targets_are_read() {
    Setup::new().run(|net| {
        let query = "q".repeat(8000);
        let request = format!("GET /?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = net.http(guest4(), request.as_bytes()).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    });
}
