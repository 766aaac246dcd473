//! Zones that contradict themselves, and messages that nobody should send.

use proptest::prelude::*;

use super::*;

/// Whatever look-up fails, the answer is SERVFAIL and nothing else, and is counted.
#[test]
fn every_call_fails() {
    let zones = zones();
    let mut failures = 0;
    for (name, qtype) in [
        ("web.example.test", A),
        ("example.test", MX),
        ("example.test", ANY),
        ("host.nsec.test", RRSIG),
        ("x.wild.example.test", MX),
        ("c1.example.test", A),
        ("x.dchain.example.test", A),
        ("child.example.test", DS),
        ("x.sub.example.test", A),
        ("nothing.nsec.test", A),
        ("x.wild.nsec.test", MX),
        ("x.insecure.nsec.test", A),
        ("nothing.nsec3.test", A),
        ("x.wild.nsec3.test", MX),
        ("x.deep.cut.optout.test", A),
        ("child.example.test", IXFR),
    ] {
        let message = query_edns(name, qtype, 1232, DO);
        for fails_at in 0.. {
            let failing = Failing::new(&zones, fails_at);
            let mut server = server();
            let response = ask_of(&mut server, &failing, &message, Transport::Udp).unwrap();
            if failing.calls.get() <= fails_at {
                assert_eq!(server.stats.broken, 0);
                assert!(fails_at > 0);
                break;
            }
            failures += 1;
            assert_eq!(dump(&response).split_once(' ').unwrap().0, "2");
            assert_eq!(sections(&response)[0], "2 qr rd", "{name} {fails_at}");
            assert_eq!(sections(&response)[1..3], ["", ""], "{name} {fails_at}");
            assert_eq!((server.stats.broken, server.stats.rcodes[2]), (1, 1));
        }
    }
    assert!(failures > 150, "{failures}");
    // A transfer that can't go on ends with the connection.
    for fails_at in 0..40 {
        let failing = Failing::new(&zones, fails_at);
        let message = query("child.example.test", AXFR);
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        let mut server = server();
        let mut connection = Connection::new(0);
        let mut out = [0; 600];
        let input = Input {
            bytes: &[&length[..], &message].concat(),
            ended: false,
        };
        let progress =
            connection.process(&mut server, &failing, 0, 0, ADDRESS, input, &mut out, 600);
        if fails_at == 0 {
            // It did not begin.
            assert_eq!(sections(&out[2..progress.written])[0], "2 qr rd");
            continue;
        }
        let is_used = failing.calls.get() > fails_at;
        assert_eq!(server.stats.broken, u32::from(is_used), "{fails_at}");
        assert_eq!(progress.next == Next::Abort, is_used);
    }
}

/// A zone of one name below another, whose only set is what it is told to be.
struct Odd<'o> {
    set: RrSet<'o>,
    name: &'o [u8],
}

impl Zones for Odd<'_> {
    type Node = bool;

    fn zone(&self, name: &[u8]) -> Result<Option<Zone<bool>>, Broken> {
        Ok(name.ends_with(b"\x01o\0").then_some(Zone {
            apex: false,
            at: name.len().saturating_sub(3),
            transfer: true,
            signed: true,
        }))
    }

    fn closest_encloser(&self, _: Zone<bool>, _: &[u8]) -> Result<Encloser<bool>, Broken> {
        let (node, at) = (true, 0);
        Ok(Encloser { node, at })
    }

    fn wildcard(&self, _: bool) -> Result<Option<bool>, Broken> {
        Ok(Some(true))
    }

    fn delegation(&self, node: bool) -> Result<Option<bool>, Broken> {
        Ok((self.set.rtype == NS).then_some(node))
    }

    fn name(&self, _: bool) -> Result<&[u8], Broken> {
        Ok(self.name)
    }

    fn rrset(&self, _: bool, rtype: u16) -> Result<Option<RrSet<'_>>, Broken> {
        Ok((rtype == self.set.rtype).then_some(self.set))
    }

    fn nth_rrset(&self, _: bool, index: usize) -> Result<Option<RrSet<'_>>, Broken> {
        Ok((index < 3).then_some(self.set))
    }

    fn nth_node(&self, _: Zone<bool>, index: usize) -> Result<Option<bool>, Broken> {
        Ok((index < 3).then_some(true))
    }

    fn nsec(&self, _: Zone<bool>, _: &[u8]) -> Result<Option<bool>, Broken> {
        Ok(Some(true))
    }

    fn nsec3_parameters(&self, _: Zone<bool>) -> Result<Option<Nsec3Parameters<'_>>, Broken> {
        Ok(None)
    }

    fn nsec3(&self, _: Zone<bool>, _: &[u8; 20]) -> Result<Option<(bool, bool)>, Broken> {
        Ok(None)
    }
}

/// RDATA that is not what its type says, or in another form than agreed: SERVFAIL, never half a name.
#[test]
fn broken_records() {
    for (rtype, rdata) in [
        (CNAME, &b""[..]),
        (CNAME, b"\0"),
        (CNAME, b"\0\x00"),
        (CNAME, b"\0\x03\x05ab"),
        (CNAME, b"\0\x04\x01a\0\0"),
        (CNAME, b"\0\x02\xc0\x0c"),
        (CNAME, b"\0\x01\0\0\x09\x01a\0"),
        (PTR, b"\0\x02\x01a"),
        (MX, b"\0\x01\0"),
        (MX, b"\0\x03\0\0\x05"),
        (SOA, b"\0\x04\x01a\0\0"),
        (SOA, b"\0\x16\0\0aaaabbbbccccddddeeee\0\0\0"),
        (MINFO, b"\0\x01\0"),
        (MINFO, b"\0\x03\0\0\0"),
        (TXT, b""),
        (TXT, b"\0\x09a"),
    ] {
        let zones = Odd {
            set: RrSet {
                rtype,
                ttl: 1,
                rdata,
                signatures: b"",
            },
            name: b"\x01a\x01o\0",
        };
        for qtype in [rtype, A, RRSIG] {
            let mut server = server();
            let message = query("a.o", qtype);
            let response = ask_of(&mut server, &zones, &message, Transport::Udp).unwrap();
            // The first name may be good.
            if rdata == b"\0\x01\0\0\x09\x01a\0" {
                continue;
            }
            let expected = format!("2 qr rd; a.o. {qtype}/1;;;");
            assert_eq!(dump(&response), expected, "{}", rdata.escape_ascii());
            assert_eq!(server.stats.broken, 1);
        }
    }
}

#[test]
#[ignore = "writes tests/fuzz/seeds/dns and dns_tcp: run it when the zones have changed"]
fn write_seeds() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fuzz/seeds");
    for target in ["dns", "dns_tcp"] {
        let folder = seeds.join(target);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder).unwrap();
    }
    for (title, name, qtype) in [
        ("positive", "web.example.test", A),
        ("mx", "example.test", MX),
        ("srv", "_sip._tcp.example.test", SRV),
        ("any", "example.test", ANY),
        ("rrsig", "host.nsec.test", RRSIG),
        ("wildcard", "x.wild.example.test", MX),
        ("chain", "c1.example.test", AAAA),
        ("long-chain", "l0.example.test", A),
        ("loop", "loop1.example.test", A),
        ("dname", "x.dchain.example.test", A),
        (
            "dname-too-long",
            &("x".repeat(63) + "." + &"y".repeat(50) + ".dlong.example.test"),
            A,
        ),
        ("ds", "child.example.test", DS),
        ("referral", "x.sub.example.test", A),
        ("glue", "many.example.test", A),
        ("large", "txt900.example.test", TXT),
        ("nsec-name", "nothing.nsec.test", A),
        ("nsec-wildcard", "x.wild.nsec.test", MX),
        ("nsec-referral", "x.insecure.nsec.test", A),
        ("nsec3-name", "nothing.nsec3.test", A),
        ("nsec3-wildcard", "x.wild.nsec3.test", MX),
        ("nsec3-chain", "x.dcw.nsec3.test", A),
        ("optout", "x.deep.cut.optout.test", A),
        ("axfr", "child.example.test", AXFR),
        ("ixfr", "child.example.test", IXFR),
        ("chaos", "version.bind", TXT),
    ] {
        let options = b"\0\x0a\0\x08abcdefgh\0\x03\0\0";
        let class = if title == "chaos" { class::CH } else { IN };
        let plain = [header(0, [1, 0, 0, 0]), question(name, qtype, class)].concat();
        let opt = opt(1232, DO, options);
        let edns = [
            header(flag::RD, [1, 0, 0, 1]),
            question(name, qtype, class),
            opt,
        ]
        .concat();
        let seed = [&[160, 0], &*edns].concat();
        std::fs::write(seeds.join("dns").join(title), seed).unwrap();
        let framed = [plain, edns].map(|message| {
            let length = u16::try_from(message.len()).unwrap().to_be_bytes();
            [&length[..], &message].concat()
        });
        let seed = [&[20, 160], &*framed.concat()].concat();
        std::fs::write(seeds.join("dns_tcp").join(title), seed).unwrap();
    }
}

/// A valid message of some kind, to be mutated.
fn seed() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(std::vec![
        "example.test",
        "web.example.test",
        "c1.example.test",
        "x.wild.example.test",
        "no.nsec.test",
        "x.wild.nsec3.test",
        "x.cut.optout.test",
        "x.d.example.test",
        "x.many.example.test",
        "child.example.test",
        "txt900.example.test",
        "",
    ]);
    let qtype = prop_oneof![
        prop::sample::select(std::vec![
            A, NS, CNAME, SOA, TXT, AAAA, ANY, AXFR, DS, RRSIG
        ]),
        any::<u16>()
    ];
    let edns = any::<Option<(u16, bool, bool)>>();
    (name, qtype, edns).prop_map(|(name, qtype, edns)| match edns {
        None => query(name, qtype),
        Some((size, dnssec, options)) => {
            let options = if options {
                &b"\0\x0a\0\x08abcdefgh\0\x03\0\0"[..]
            } else {
                b""
            };
            let opt = opt(size, if dnssec { DO } else { 0 }, options);
            let question = question(name, qtype, IN);
            [header(flag::RD, [1, 0, 0, 1]), question, opt].concat()
        }
    })
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    (seed(), prop::collection::vec(edit, 0..6)).prop_map(|(mut bytes, edits)| {
        for (index, value, kind) in edits {
            let at = index.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, value),
                1 => bytes.truncate(at),
                2 if at < bytes.len() => bytes[at] ^= 1 << (value & 7),
                _ if at < bytes.len() => bytes[at] = value,
                _ => bytes.push(value),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    /// Whatever comes, what goes out is a response to it in good form, and within bounds.
    #[test]
    fn mutated_messages(message in mutated(), room in 0..1500_usize, tcp: bool) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let mut out = std::vec![0; room];
        let mut server = server();
        let written = server.answer(&zones(), 0, 0, client(transport), &message, &mut out);
        prop_assert_eq!(u32::from(written.is_none()), server.stats.dropped);
        prop_assert_eq!(server.stats.broken, 0);
        if let Some(written) = written {
            prop_assert!(message[2] & 0x80 == 0);
            prop_assert_eq!(&out[..2], &message[..2]);
            prop_assert!(written <= room && (tcp || written <= usize::from(UDP_MAX)));
            prop_assert_eq!(out[2] & 0x80, 0x80, "QR");
            prop_assert_eq!(out[3] & 0xf0, 0, "RA and Z");
            out[..2].copy_from_slice(&[0x12, 0x34]);
            dump(&out[..written]);
            assert_parses(&out[..written]);
        }
    }

    #[test]
    fn odd_records(
        rtype in prop_oneof![0..66_u16, any::<u16>()],
        rdata in prop::collection::vec(any::<u8>(), 0..60),
        signatures in prop::collection::vec(any::<u8>(), 0..20),
        name in prop::collection::vec(0..4_u8, 0..10),
        qtype in 0..66_u16,
        dnssec: bool,
    ) {
        let set = RrSet { rtype, ttl: 1, rdata: &rdata, signatures: &signatures };
        let zones = Odd { set, name: &name };
        let flags = if dnssec { DO } else { 0 };
        for qtype in [rtype, qtype] {
            for name in ["a.o", "x.y.o", "o"] {
                let message = query_edns(name, qtype, 1232, flags);
                let mut out = [0; 4096];
                let client = client(Transport::Tcp);
                let written = server().answer(&zones, 0, 0, client, &message, &mut out);
                prop_assert!(written.is_some());
            }
        }
    }

    #[test]
    fn mutated_streams(
        messages in prop::collection::vec(mutated(), 1..4),
        cut in any::<prop::sample::Index>(),
        room in 14..600_usize,
    ) {
        let stream: Vec<_> = messages
            .iter()
            .flat_map(|message| [&u16::try_from(message.len()).unwrap().to_be_bytes(), &message[..]].concat())
            .collect();
        let zones = zones();
        let mut server = server();
        let mut connection = Connection::new(0);
        let mut out = [0; 600];
        let mut at = 0;
        for end in [cut.index(stream.len()), stream.len()] {
            let input = Input { bytes: &stream[at.min(end)..end], ended: end == stream.len() };
            let progress =
                connection.process(&mut server, &zones, 0, 0, ADDRESS, input, &mut out, room);
            prop_assert!(progress.consumed <= input.bytes.len() && progress.written <= out.len());
            at += progress.consumed;
        }
    }
}
