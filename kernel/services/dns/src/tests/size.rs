//! The sizes of answers, and the parts that are left out of those that do not fit.

use super::*;

const QUESTION: usize = 12 + 4;

/// TC, the numbers of records in each section, and the length in bytes.
fn shape(zones: &impl Zones, message: &[u8], transport: Transport) -> (bool, [u16; 3], usize) {
    let response = ask(zones, message, transport).unwrap();
    dump(&response);
    let header = Header::read(&response).unwrap();
    let [_, answer, authority, additional] = header.counts;
    let counts = [answer, authority, additional];
    (header.flags & flag::TC != 0, counts, response.len())
}

#[test]
fn truncation() {
    let zones = zones();
    let (txt400, txt900) = ("txt400.example.test", "txt900.example.test");
    for (name, size, truncated, counts) in [
        // The answer fits, but the other sections do not: no TC.
        (txt400, None, false, [1, 0, 0]),
        (txt400, Some(0), false, [1, 0, 1]),
        (txt400, Some(511), false, [1, 0, 1]),
        (txt400, Some(530), false, [1, 3, 1]),
        (txt400, Some(1232), false, [1, 3, 4]),
        // It does not fit.
        (txt900, None, true, [0, 0, 0]),
        (txt900, Some(512), true, [0, 0, 1]),
        (txt900, Some(900), false, [2, 0, 1]),
        (txt900, Some(1232), false, [2, 3, 4]),
        // The server's own limit holds for every client.
        ("txt1300.example.test", Some(65535), true, [0, 0, 1]),
    ] {
        let message = match size {
            None => query(name, TXT),
            Some(size) => query_edns(name, TXT, size, 0),
        };
        let (tc, found, length) = shape(&zones, &message, Transport::Udp);
        assert_eq!((tc, found), (truncated, counts), "{name} {size:?} {length}");
        let limit = usize::from(size.unwrap_or(512).clamp(512, 1232));
        assert!(length <= limit, "{name} {size:?} {length}");
        // The limits do not apply to TCP.
        let (tc, counts, _) = shape(&zones, &message, Transport::Tcp);
        assert!(!tc && counts[0] > 0 && counts[1] == 3);
    }
    // A chain is included as far as whole RRsets fit.
    let message = query_edns("www.example.test", ANY, 1232, 0);
    assert_eq!(shape(&zones, &message, Transport::Udp).1, [1, 0, 1]);
}

/// A referral without its glue is useless (RFC 9471); other addresses may be left out.
#[test]
fn glue() {
    let zones = zones();
    let all = [0, 13, 13];
    for (size, truncated) in [(None, true), (Some(512), true), (Some(700), false)] {
        let message = match size {
            None => query("x.many.example.test", A),
            Some(size) => query_edns("x.many.example.test", A, size, 0),
        };
        let (tc, counts, _) = shape(&zones, &message, Transport::Udp);
        assert_eq!(tc, truncated, "{size:?} {counts:?}");
        assert_eq!(counts[1], 13);
        let (tc, counts, _) = shape(&zones, &query("x.many.example.test", A), Transport::Tcp);
        assert_eq!((tc, counts), (false, all));
    }
}

/// At every size of the output the answer is whole, or lacks only what may be left out, or is
/// truncated, or there is none.
#[test]
fn every_room() {
    let zones = zones();
    for (name, qtype, flags, needed) in [
        ("txt400.example.test", TXT, 0, [1, 0, 0]),
        ("example.test", MX, 0, [3, 0, 0]),
        ("c1.example.test", A, 0, [5, 0, 0]),
        ("x.sub.example.test", A, 0, [0, 2, 2]),
        ("nothing.nsec.test", A, DO, [0, 6, 0]),
        ("x.dcw.nsec3.test", A, DO, [4, 4, 0]),
    ] {
        let message = query_edns(name, qtype, 1232, flags);
        let least = message.len();
        let mut sizes = 0;
        for room in 0..1400 {
            for transport in [Transport::Udp, Transport::Tcp] {
                let mut out = [0; 1400];
                let client = client(transport);
                let length = server().answer(&zones, 0, 0, client, &message, &mut out[..room]);
                assert_eq!(length.is_some(), room >= least, "{name} {room}");
                let Some(length) = length else {
                    continue;
                };
                assert_parses(&out[..length]);
                dump(&out[..length]);
                let header = Header::read(&out).unwrap();
                let counts = &header.counts[1..];
                let is_enough = counts.iter().zip(needed).all(|(is, needed)| *is >= needed);
                match (transport, header.flags & (flag::TC | flag::RCODE)) {
                    // TC has no meaning over TCP (RFC 7766): the answer is SERVFAIL.
                    (Transport::Tcp, 2) => assert_eq!(counts, [0, 0, 1]),
                    (Transport::Udp, bits) if bits & flag::TC != 0 => sizes += 1,
                    (_, 0 | 3) => assert!(is_enough, "{name} {room} {counts:?}"),
                    (_, bits) => panic!("{bits:#x}"),
                }
            }
        }
        assert!(sizes > 0, "{name} is truncated somewhere");
    }
}

/// A root that is served: the shortest names there are.
#[test]
fn root_zone() {
    let zones = Model::default().with(
        ".",
        "@ 5 IN SOA . . 1 2 3 4 5\n@ 6 IN NS a\na 7 IN A 192.0.2.1\nb 8 IN NS c.b\n",
        false,
    );
    for (name, qtype, expected) in [
        ("", NS, "0 qr aa rd; . 6 NS a.; ; a. 7 A 192.0.2.1"),
        ("x", A, "3 qr aa rd; ; . 5 SOA . . 1 2 3 4 5; "),
        ("", DS, "0 qr aa rd; ; . 5 SOA . . 1 2 3 4 5; "),
        ("x.y.b", A, "0 qr rd; ; b. 8 NS c.b.; "),
    ] {
        let message = query(name, qtype);
        let response = ask(&zones, &message, Transport::Udp).unwrap();
        assert_eq!(sections(&response).join("; "), expected);
    }
    let response = ask(&zones, &query("", NS), Transport::Udp).unwrap();
    assert!(response.len() < QUESTION + 1 + 40);
}
