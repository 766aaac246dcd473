//! TCP's amount of data in flight and its segment size: congestion control and the path MTU.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use std::net::Ipv6Addr;

use mayfly_guest_tests::client::{guest4, guest6};
use mayfly_guest_tests::frames::{self, ACK, FIN, PSH, Path, SYN, Seen, Segment};
use mayfly_guest_tests::peer::{PEER_MAC, PEER4, Peer, segments};
use mayfly_guest_tests::{CMDLINE, GUEST4, Net, Setup};
use smoltcp::iface::SocketHandle;
use smoltcp::wire::IpAddress;

/// RAM of a guest with large send buffers.
const AMPLE: u64 = 250 << 20;
const MS: u64 = 1_000_000;

/// Boots a guest that serves payloads, and a client with a delay of 25 ms.
fn far<T>(test: impl FnOnce(&mut Net<'_>) -> T) -> T {
    let cmdline = CMDLINE.to_owned();
    Setup::new().ram(AMPLE).cmdline(&cmdline).run(|net| {
        net.run_for(2.0);
        // ARP is done before the delay is set.
        assert!(net.http(guest4(), b"GET / HTTP/1.0\r\n\r\n").is_some());
        // 100 Mbit/s.
        net.client.link.delay = 25 * MS;
        net.client.link.ns_per_byte = 80;
        let value = test(net);
        assert_eq!(net.violations(), [""; 0]);
        value
    })
}

/// Requests a payload and returns the connection. The request is on its way then.
fn ask(net: &mut Net<'_>, bytes: usize) -> SocketHandle {
    let handle = net.client.connect_with(guest4(), 80, 1 << 20);
    assert!(net.until(10.0, |net| net.client.tcp(handle).may_send()));
    net.client.link.taken = Some(Vec::new());
    let request =
        format!("GET /.mayfly/payload/{bytes} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    net.client.write(handle, request.as_bytes());
    handle
}

/// Takes the whole answer and returns the time that it took, in ms.
fn take(net: &mut Net<'_>, handle: SocketHandle, bytes: usize) -> u64 {
    let start = net.now().0;
    let mut taken = 0;
    let is_all = net.until(600.0, |net| {
        taken += net.client.read(handle).len();
        taken >= bytes && !net.client.tcp(handle).may_recv()
    });
    assert!(is_all, "{taken} bytes in ten minutes");
    net.client.tcp(handle).abort();
    (net.now().0 - start) / MS
}

/// The segments that the guest has sent from port 80 since the request, including lost ones, with their times.
fn sent(net: &Net<'_>) -> Vec<(u64, Seen)> {
    let taken = net.client.link.taken.as_ref().expect("it was noted");
    let segments = taken
        .iter()
        .filter_map(|(at, frame)| Some((*at, frames::seen(frame)?)));
    segments
        .filter(|(_, segment)| segment.from_port == 80 && !segment.payload.is_empty())
        .collect()
}

/// The number of bytes that were sent more than once.
fn repeated(sent: &[(u64, Seen)]) -> usize {
    let first = sent.first().expect("something").1.seq;
    let mut end = 0;
    let mut repeated = 0;
    for (_, segment) in sent {
        let start = segment.seq.wrapping_sub(first) as usize;
        let stop = start + segment.payload.len();
        repeated += stop.min(end).saturating_sub(start);
        end = end.max(stop);
    }
    repeated
}

#[test]
fn the_first_flight_is_ten_segments() {
    far(|net| {
        for _ in 0..3 {
            // The first connection, and later ones in the same slot.
            let start = net.now().0;
            let handle = ask(net, 1_000_000);
            take(net, handle, 1_000_000);
            let sent = sent(net);
            let first = sent[0].0;
            assert!(first - start < 90 * MS);
            let flight: usize = sent
                .iter()
                .filter(|(at, _)| *at < first + 49 * MS)
                .map(|(_, segment)| segment.payload.len())
                .sum();
            assert!((13_000..=14_600).contains(&flight), "{flight}");
            // The flight grows with each round trip.
            let flight: usize = sent
                .iter()
                .filter(|(at, _)| *at < first + 99 * MS)
                .map(|(_, segment)| segment.payload.len())
                .sum();
            assert!((20_000..=45_000).contains(&flight), "{flight}");
        }
    });
}

#[test]
fn a_page_of_fourteen_kilobytes_takes_one_round_trip() {
    far(|net| {
        let handle = ask(net, 14_000);
        let ms = take(net, handle, 14_000);
        assert!(ms < 60, "{ms} ms");
    });
}

#[test]
fn after_a_loss_one_segment_is_sent_again() {
    far(|net| {
        let handle = ask(net, 2_000_000);
        let mut count = 0;
        net.client.link.loses = Some(Box::new(move |frame| {
            let is_data = frames::seen(frame).is_some_and(|segment| !segment.payload.is_empty());
            count += u32::from(is_data);
            is_data && count == 300
        }));
        take(net, handle, 2_000_000);
        assert_eq!(net.client.link.lost, 1);
        let repeated = repeated(&sent(net));
        assert!((1..=2920).contains(&repeated), "{repeated} bytes");
    });
}

#[test]
fn when_a_whole_flight_is_lost_one_segment_is_sent_again_and_then_more() {
    far(|net| {
        for bytes in [12_000, 2_000_000] {
            let handle = ask(net, bytes);
            let from = if bytes > 14_000 { 300 } else { 1 };
            let mut count = 0;
            let lost = net.client.link.lost;
            net.client.link.loses = Some(Box::new(move |frame| {
                let is_data = frames::seen(frame).is_some_and(|seen| !seen.payload.is_empty());
                count += u32::from(is_data);
                is_data && (from..from + 60).contains(&count) && count < from + 9
            }));
            take(net, handle, bytes);
            assert!(net.client.link.lost > lost);
            net.client.link.loses = None;
            let sent = sent(net);
            // The first one that is sent again after a pause of a retransmission timeout.
            let pause = sent
                .windows(2)
                .position(|pair| pair[1].0 - pair[0].0 > 900 * MS);
            if let Some(pause) = pause {
                let at = sent[pause + 1].0;
                let burst = sent
                    .iter()
                    .filter(|(when, _)| (at..at + 40 * MS).contains(when));
                let burst: usize = burst.map(|(_, segment)| segment.payload.len()).sum();
                assert!(burst <= 3 * 1460, "{burst} bytes at once");
            } else {
                assert!(bytes > 14_000, "a lost first flight ends in a timeout");
            }
        }
    });
}

/// Peers repeat their acknowledgement when they get data again.
#[test]
fn a_fin_that_was_lost_is_sent_again_however_often_the_data_before_it_is_acknowledged() {
    for (port, to_port, request) in [(4000, 80, &b"GET / HTTP/1.0\r\n\r\n"[..]), (4001, 53, b"")] {
        for (repetitions, with_fin) in (1..9).flat_map(|n| [(n, false), (n, true)]) {
            Setup::new().run(|net| {
                net.run_for(2.0);
                let mut peer = Peer::open(net, port, to_port).unwrap();
                // The guest closes a connection to port 80 first, and one to port 53 after its peer.
                let flags = match (request.is_empty(), with_fin) {
                    (false, false) => ACK | PSH,
                    (false, true) => ACK | PSH | FIN,
                    (true, _) => ACK | FIN,
                };
                let answers = peer.send(net, flags, request);
                assert!(answers.iter().any(|seen| seen.flags & FIN != 0));
                // Everything except the FIN has arrived.
                peer.ack = peer.ack.wrapping_sub(1);
                for _ in 0..repetitions {
                    let number = peer.ack;
                    peer.send(net, ACK, b"");
                    peer.ack = number;
                }
                net.client.log.clear();
                net.run_for(4.0);
                let log = net.client.log.iter();
                let again = log
                    .filter_map(|(_, frame)| frames::seen(frame))
                    .filter(|seen| seen.to_port == port && seen.flags & FIN != 0);
                assert!(again.count() >= 1, "{to_port}: {repetitions}, {with_fin}");

                // Then the connection is closed, at the guest as well.
                peer.ack = peer.ack.wrapping_add(1);
                let flags = if request.is_empty() || with_fin {
                    ACK
                } else {
                    ACK | FIN
                };
                peer.send(net, flags, b"");
                net.run_for(20.0);
                assert_eq!(net.guest.stack.stats().connections, [0; 3]);
            });
        }
    }
}

#[test]
fn throughput_with_loss_and_delay() {
    far(|net| {
        net.client.link.loss = 10_000;
        let handle = ask(net, 10_000_000);
        let ms = take(net, handle, 10_000_000);
        let rate = 10_000_000 / ms;
        let sent = sent(net);
        let again = repeated(&sent);
        println!(
            "{rate} kB/s, {again} bytes sent again, {} frames lost",
            net.client.link.lost
        );
        assert!(rate >= FLOOR, "{rate} kB/s");
        // Little more is sent again than was lost.
        assert!(again < 10_000_000 / 100 * 6, "{again}");
    });
}

/// The least rate in kB/s: half of the rate of Linux 6's Reno with selective acknowledgements, in three transfers over
/// TUN devices with this delay, loss and rate (295, 308 and 298 kB/s).
const FLOOR: u64 = 150;

#[test]
fn fresh_slots_begin_anew_after_losses() {
    far(|net| {
        net.client.link.loss = 50_000;
        let handle = ask(net, 300_000);
        take(net, handle, 300_000);
        net.client.link.loss = 0;
        net.run_for(1.0);
        let handle = ask(net, 14_000);
        let ms = take(net, handle, 14_000);
        assert!(ms < 60, "{ms} ms");
    });
}

/// Opens a connection with an MSS of 1460 over either family, and asks for the page. Returns the guest's SYN-ACK.
fn open(net: &mut Net<'_>, path: &Path, port: u16) -> Seen {
    open_with(net, path, port, 1460)
}

fn open_with(net: &mut Net<'_>, path: &Path, port: u16, mss: u16) -> Seen {
    let [high, low] = mss.to_be_bytes();
    let segment = |flags, seq, ack, payload: &[u8]| Segment {
        from_port: port,
        to_port: 80,
        seq,
        ack,
        flags,
        window: 60_000,
        options: if flags == SYN {
            vec![2, 4, high, low]
        } else {
            Vec::new()
        },
        payload: payload.to_vec(),
    };
    net.deliver(&frames::tcp(path, &segment(SYN, 1000, 0, b"")));
    let answer = segments(net, port).remove(0);
    let ack = answer.seq.wrapping_add(1);
    net.deliver(&frames::tcp(path, &segment(ACK, 1001, ack, b"")));
    net.deliver(&frames::tcp(path, &segment(ACK | PSH, 1001, ack, REQUEST)));
    answer
}

/// A router's "packet too big" about a segment of the guest.
fn too_big(path: &Path, quoted: &[u8], mtu: u16) -> Vec<u8> {
    let [a, b] = mtu.to_be_bytes();
    let mut message = if path.to.is_ipv4() {
        vec![3, 4, 0, 0, 0, 0, a, b]
    } else {
        vec![2, 0, 0, 0, 0, 0, a, b]
    };
    message.extend(&quoted[14..quoted.len().min(14 + 68)]);
    frames::icmp(path, 64, message)
}

/// The frames with payload to a port, and the length of the longest payload, in bytes.
fn longest(net: &mut Net<'_>, port: u16) -> (Vec<Vec<u8>>, usize) {
    let mut found = Vec::new();
    for (_, frame) in std::mem::take(&mut net.client.log) {
        if frames::seen(&frame).is_some_and(|seen| seen.to_port == port && !seen.payload.is_empty())
        {
            found.push(frame);
        }
    }
    let most = found
        .iter()
        .map(|frame| frames::seen(frame).unwrap().payload.len())
        .max();
    (found, most.unwrap_or(0))
}

/// Acknowledges the data received in order for some seconds; returns the longest segment of the second half of that
/// time.
fn go_on(net: &mut Net<'_>, path: &Path, next: &mut u32) -> usize {
    let mut most = 0;
    for round in 0..40 {
        let (sent, longest) = longest(net, 4000);
        if round >= 20 {
            most = most.max(longest);
        }
        for frame in sent {
            let seen = frames::seen(&frame).unwrap();
            if seen.seq == *next {
                *next = next.wrapping_add(u32::try_from(seen.payload.len()).unwrap());
            }
        }
        let ack = Segment {
            from_port: 4000,
            to_port: 80,
            seq: 1001 + u32::try_from(REQUEST.len()).unwrap(),
            ack: *next,
            flags: ACK,
            window: 60_000,
            ..Segment::default()
        };
        net.deliver(&frames::tcp(path, &ack));
        net.run_for(0.1);
    }
    most
}

const REQUEST: &[u8] = b"GET /.mayfly/payload/50000000 HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_router_that_finds_segments_too_big_is_believed_if_it_has_seen_them() {
    let peer6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
    let guest: Ipv6Addr = match guest6() {
        IpAddress::Ipv6(address) => address,
        IpAddress::Ipv4(_) => unreachable!(),
    };
    let cmdline = CMDLINE.to_owned();
    for (path, headers, mtu, forged) in [
        (Peer::path(), 40, 1400, 500),
        (
            Path::to_guest(PEER_MAC, peer6.into(), guest.into()),
            60,
            1300,
            1000,
        ),
    ] {
        Setup::new().ram(AMPLE).cmdline(&cmdline).run(|net| {
            net.run_for(2.0);
            net.client.log.clear();
            open(net, &path, 4000);
            net.run_for(0.1);
            let (sent, most) = longest(net, 4000);
            assert_eq!(most, 1500 - headers);
            let right = sent[1].clone();

            // An error with a wrong sequence number, wrong ports, or a wrong length.
            let at = 14 + headers - 20;
            let mut elsewhere = right.clone();
            elsewhere[at + 4] ^= 0x80;
            let mut another = right.clone();
            another[at + 3] ^= 1;
            let mut shorter = right.clone();
            let length = if headers == 40 { 16 } else { 18 };
            shorter[length..length + 2].copy_from_slice(&[0, 60]);
            let mut spoiled = too_big(&path, &right, mtu);
            *spoiled.last_mut().unwrap() ^= 1;
            for lie in [
                too_big(&path, &elsewhere, mtu),
                too_big(&path, &another, mtu),
                too_big(&path, &shorter, mtu),
                spoiled,
            ] {
                net.deliver(&lie);
            }
            for cut in 14..14 + 68 {
                net.deliver(&too_big(&path, &right[..cut.min(at + 7)], mtu));
            }
            let mut next = frames::seen(&sent[0]).unwrap().seq;
            assert_eq!(
                go_on(net, &path, &mut next),
                1500 - headers,
                "lies are not believed"
            );

            net.deliver(&too_big(&path, &right, mtu));
            assert_eq!(go_on(net, &path, &mut next), usize::from(mtu) - headers);

            // An MTU below the minimum of every path is ignored.
            net.deliver(&too_big(&path, &right, forged));
            let most = go_on(net, &path, &mut next);
            let least = if headers == 40 { 552 } else { 1280 };
            assert_eq!(most, least - headers);

            // Another connection has the same segment size as before.
            open(net, &path, 4001);
            net.run_for(0.1);
            assert_eq!(longest(net, 4001).1, 1500 - headers);
            assert_eq!(net.violations(), [""; 0]);
        });
    }
}

#[test]
fn the_command_line_sets_an_mtu() {
    let cmdline = format!("{CMDLINE} mtu=1400");
    Setup::new().ram(AMPLE).cmdline(&cmdline).run(|net| {
        net.run_for(2.0);
        net.client.log.clear();
        open(net, &Peer::path(), 4000);
        net.run_for(0.1);
        assert_eq!(longest(net, 4000).1, 1360);
        // The SYN-ACK has the guest's MSS.
        let frame = frames::tcp(
            &Path::to_guest(PEER_MAC, PEER4.into(), GUEST4.into()),
            &Segment {
                from_port: 4001,
                to_port: 80,
                flags: SYN,
                window: 1000,
                ..Segment::default()
            },
        );
        net.deliver(&frame);
        net.run_for(0.01);
        let log = net.client.log.iter();
        let answer = log
            .map(|(_, frame)| frame)
            .find(|frame| frames::seen(frame).is_some_and(|seen| seen.flags == SYN | ACK))
            .expect("a SYN-ACK");
        assert_eq!(answer[54..58], [2, 4, 5, 0x50]);
    });
}

#[test]
fn a_peer_with_an_mss_of_one_is_served_and_keeps_nobody_awake() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        open_with(net, &Peer::path(), 4000, 1);
        net.client.log.clear();
        let steps = net.steps;
        net.run_for(5.0);
        assert!(longest(net, 4000).1 > 0);
        assert!(net.steps - steps < 300, "{} steps", net.steps - steps);
    });
}
