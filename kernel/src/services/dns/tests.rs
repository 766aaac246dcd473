extern crate std;

use core::net::Ipv4Addr;
use std::format;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::site::BuiltIn;
use super::*;

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const IXFR: u16 = 251;
const AXFR: u16 = 252;
const ANY: u16 = 255;
const IN: u16 = 1;

fn site() -> BuiltIn {
    BuiltIn::new(Some(Ipv4Addr::new(10, 0, 2, 80)), "fd00::80".parse().ok())
}

/// A name in wire form; `\.` is not needed here.
fn wire(name: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(u8::try_from(label.len()).unwrap());
        octets.extend_from_slice(label.as_bytes());
    }
    octets.push(0);
    octets
}

/// A query with ID 0x1234, RD set, and these counts.
fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut octets = Vec::from(0x1234_u16.to_be_bytes());
    octets.extend(flags.to_be_bytes());
    octets.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    octets
}

fn question(name: &str, qtype: u16, class: u16) -> Vec<u8> {
    let mut octets = wire(name);
    octets.extend(qtype.to_be_bytes());
    octets.extend(class.to_be_bytes());
    octets
}

fn query(name: &str, qtype: u16) -> Vec<u8> {
    [header(0x0100, [1, 0, 0, 0]), question(name, qtype, IN)].concat()
}

/// An OPT record; `ttl` is extended RCODE, version and flags.
fn opt(size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    let mut octets = Vec::from(*b"\0\0\x29");
    octets.extend(size.to_be_bytes());
    octets.extend(ttl.to_be_bytes());
    octets.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    octets.extend_from_slice(options);
    octets
}

fn query_edns(name: &str, qtype: u16, size: u16) -> Vec<u8> {
    [
        header(0x0100, [1, 0, 0, 1]),
        question(name, qtype, IN),
        opt(size, 0, b""),
    ]
    .concat()
}

fn ask(zone: &impl Zone, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut out = [0xee; 4096];
    let written = answer(zone, query, transport, &mut out, &mut Stats::default())?;
    Some(out[..written].to_vec())
}

/// A decoder of its own, so that the one in use does not judge itself.
struct Dump<'m> {
    message: &'m [u8],
    at: usize,
}

impl Dump<'_> {
    fn u8(&mut self) -> u8 {
        self.at += 1;
        self.message[self.at - 1]
    }

    fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    fn name(&mut self) -> String {
        let mut text = String::new();
        loop {
            match self.u8() {
                0 => return if text.is_empty() { ".".into() } else { text },
                length @ 1..64 => {
                    let label = &self.message[self.at..self.at + usize::from(length)];
                    text += &format!("{}.", label.escape_ascii());
                    self.at += usize::from(length);
                }
                high @ 0xc0.. => {
                    let at = usize::from(high & 0x3f) << 8 | usize::from(self.u8());
                    assert!(at < self.at - 2, "a pointer points back");
                    return text
                        + &Dump {
                            message: self.message,
                            at,
                        }
                        .name();
                }
                other => panic!("label type {other:#x}"),
            }
        }
    }

    fn record(&mut self) -> String {
        let owner = self.name();
        let (rtype, class, ttl) = (self.u16(), self.u16(), self.u32());
        let length = usize::from(self.u16());
        let end = self.at + length;
        let data = match rtype {
            A => format!("A {}", Ipv4Addr::from_bits(self.u32())),
            AAAA => {
                let octets: [u8; 16] = self.message[self.at..end].try_into().unwrap();
                format!("AAAA {}", core::net::Ipv6Addr::from(octets))
            }
            NS => format!("NS {}", self.name()),
            CNAME => format!("CNAME {}", self.name()),
            SOA => {
                let (primary, mailbox) = (self.name(), self.name());
                let numbers: Vec<_> = (0..5).map(|_| format!("{}", self.u32())).collect();
                format!("SOA {primary} {mailbox} {}", numbers.join(" "))
            }
            41 => {
                self.at = end;
                return format!("OPT {owner} {class} {ttl:#x} {length}");
            }
            _ => format!("{rtype} \"{}\"", self.message[self.at..end].escape_ascii()),
        };
        if matches!(rtype, AAAA | TXT | 13) {
            self.at = end;
        }
        assert_eq!((self.at, class), (end, IN));
        format!("{owner} {ttl} {data}")
    }
}

/// `RCODE flags; question; answers; authority; additional`, records separated by commas.
fn dump(message: &[u8]) -> String {
    let mut dump = Dump { message, at: 0 };
    assert_eq!(dump.u16(), 0x1234, "ID");
    let flags = dump.u16();
    let mut text = format!("{}", flags & 15);
    for (bit, name) in [
        (0x8000, " qr"),
        (0x0400, " aa"),
        (0x0200, " tc"),
        (0x0100, " rd"),
        (0x0080, " ra"),
        (0x0070, " z"),
    ] {
        if flags & bit != 0 {
            text += name;
        }
    }
    match flags >> 11 & 15 {
        0 => {}
        opcode => text += &format!(" op{opcode}"),
    }
    let counts = [dump.u16(), dump.u16(), dump.u16(), dump.u16()];
    for (section, count) in counts.into_iter().enumerate() {
        let records: Vec<_> = (0..count)
            .map(|_| {
                if section > 0 {
                    return dump.record();
                }
                format!("{} {}/{}", dump.name(), dump.u16(), dump.u16())
            })
            .collect();
        text += &format!(
            ";{}{}",
            if count > 0 { " " } else { "" },
            records.join(", ")
        );
    }
    assert_eq!(dump.at, message.len(), "nothing follows");
    text
}

const NEGATIVE: &str =
    "mayfly.test. 60 SOA ns.mayfly.test. hostmaster.mayfly.test. 1 3600 900 604800 60";

#[test]
fn answers() {
    let soa = NEGATIVE.replace("test. 60", "test. 300");
    let soa = soa.as_str();
    for (name, qtype, expected) in [
        (
            "mayfly.test",
            A,
            "0 qr aa rd; Q; mayfly.test. 300 A 10.0.2.80;;",
        ),
        (
            "mayfly.test",
            AAAA,
            "0 qr aa rd; Q; mayfly.test. 300 AAAA fd00::80;;",
        ),
        (
            "mayfly.test",
            NS,
            "0 qr aa rd; Q; mayfly.test. 300 NS ns.mayfly.test.;;",
        ),
        ("mayfly.test", SOA, "0 qr aa rd; Q; S;;"),
        (
            "mayfly.test",
            TXT,
            "0 qr aa rd; Q; mayfly.test. 300 16 \",mayfly: a unikernel, up for as long as it is\";;",
        ),
        (
            "mayfly.test",
            ANY,
            "0 qr aa rd; Q; mayfly.test. 3600 13 \"\\x07RFC8482\\x00\";;",
        ),
        // The case of the question comes back, and owners point at it.
        (
            "MayFLY.teST",
            A,
            "0 qr aa rd; Q; MayFLY.teST. 300 A 10.0.2.80;;",
        ),
        ("nO.MayFLY.teST", A, "3 qr aa rd; Q;; N;"),
        // NODATA
        ("mayfly.test", MX, "0 qr aa rd; Q;; N;"),
        ("mayfly.test", 65_280, "0 qr aa rd; Q;; N;"),
        ("ns.mayfly.test", TXT, "0 qr aa rd; Q;; N;"),
        // NXDOMAIN, at one label and at three; names that begin or end like one that exists
        ("no.mayfly.test", A, "3 qr aa rd; Q;; N;"),
        ("no.mayfly.test", ANY, "3 qr aa rd; Q;; N;"),
        ("a.b.no.mayfly.test", A, "3 qr aa rd; Q;; N;"),
        ("a.ns.mayfly.test", A, "3 qr aa rd; Q;; N;"),
        ("xwww.mayfly.test", A, "3 qr aa rd; Q;; N;"),
        ("*.mayfly.test", A, "3 qr aa rd; Q;; N;"),
        // Wildcard and the empty non-terminal above it
        ("wild.mayfly.test", A, "0 qr aa rd; Q;; N;"),
        (
            "x.wild.mayfly.test",
            A,
            "0 qr aa rd; Q; x.wild.mayfly.test. 300 A 10.0.2.80;;",
        ),
        (
            "X.y.Wild.mayfly.test",
            A,
            "0 qr aa rd; Q; X.y.Wild.mayfly.test. 300 A 10.0.2.80;;",
        ),
        (
            "*.wild.mayfly.test",
            A,
            "0 qr aa rd; Q; *.wild.mayfly.test. 300 A 10.0.2.80;;",
        ),
        ("x.wild.mayfly.test", MX, "0 qr aa rd; Q;; N;"),
        ("x.xwild.mayfly.test", A, "3 qr aa rd; Q;; N;"),
        // CNAME
        (
            "www.mayfly.test",
            CNAME,
            "0 qr aa rd; Q; www.mayfly.test. 300 CNAME mayfly.test.;;",
        ),
        (
            "WWW.mayfly.test",
            A,
            "0 qr aa rd; Q; WWW.mayfly.test. 300 CNAME mayfly.test., mayfly.test. 300 A 10.0.2.80;;",
        ),
        (
            "www.mayfly.test",
            MX,
            "0 qr aa rd; Q; www.mayfly.test. 300 CNAME mayfly.test.; N;",
        ),
        // Outside the zone
        ("", NS, "5 qr rd; Q;;;"),
        ("test", A, "5 qr rd; Q;;;"),
        ("xmayfly.test", A, "5 qr rd; Q;;;"),
        ("mayfly.test.example", A, "5 qr rd; Q;;;"),
        ("mayfly.test", AXFR, "5 qr rd; Q;;;"),
        ("mayfly.test", IXFR, "5 qr rd; Q;;;"),
    ] {
        let owner = if name.is_empty() {
            ".".into()
        } else {
            format!("{name}.")
        };
        // A compressed owner shows the case of the question.
        let suffix = owner.len().saturating_sub("mayfly.test.".len());
        let apex = owner.get(suffix..).unwrap_or_default();
        let expected = expected
            .replace("Q;", &format!("{owner} {qtype}/1;"))
            .replace(
                " N;",
                &format!(" {};", NEGATIVE.replacen("mayfly.test.", apex, 1)),
            )
            .replace(" S;", &format!(" {soa};"));
        for transport in [Transport::Udp, Transport::Tcp] {
            let response = ask(&site(), &query(name, qtype), transport).unwrap();
            assert_eq!(dump(&response), expected, "{name} {qtype}");
            let response = ask(&site(), &query_edns(name, qtype, 1232), transport).unwrap();
            assert_eq!(
                dump(&response),
                format!("{expected} OPT . 1232 0x0 0"),
                "{name} {qtype}"
            );
        }
    }
}

#[test]
fn no_address_is_nodata() {
    let mut zone = BuiltIn::new(None, None);
    for qtype in [A, AAAA] {
        let response = ask(&zone, &query("mayfly.test", qtype), Transport::Udp).unwrap();
        assert_eq!(
            dump(&response),
            format!("0 qr aa rd; mayfly.test. {qtype}/1;; {NEGATIVE};")
        );
    }
    zone.set_ipv4(Some(Ipv4Addr::new(192, 0, 2, 1)));
    let response = ask(&zone, &query("mayfly.test", A), Transport::Udp).unwrap();
    assert!(dump(&response).contains("A 192.0.2.1"));
}

#[test]
fn headers() {
    let ok = question("mayfly.test", A, IN);
    let q = "mayfly.test. 1/1";
    let a = "mayfly.test. 300 A 10.0.2.80";
    let pointer = b"\xc0\x0c\x00\x01\x00\x01".to_vec();
    let forward = b"\x01a\xc0\x12\x00\x01\x00\x01\x00".to_vec();
    let record = [
        wire("mayfly.test"),
        b"\0\x01\0\x01\0\0\0\0\0\x04\x01\x02\x03\x04".to_vec(),
    ]
    .concat();
    for (title, message, expected) in [
        (
            "RD clear",
            [header(0, [1, 0, 0, 0]), ok.clone()].concat(),
            format!("0 qr aa; {q}; {a};;"),
        ),
        (
            "AA, TC, RA, Z, AD, CD and RCODE of a query mean nothing",
            [header(0x07ff, [1, 0, 0, 0]), ok.clone()].concat(),
            format!("0 qr aa rd; {q}; {a};;"),
        ),
        (
            "opcode IQUERY",
            [header(0x0800, [1, 0, 0, 0]), ok.clone()].concat(),
            format!("4 qr op1; {q};;;"),
        ),
        (
            "opcode UPDATE, OPT",
            [header(0x2900, [1, 0, 0, 1]), ok.clone(), opt(512, 0, b"")].concat(),
            format!("4 qr rd op5; {q};;; OPT . 1232 0x0 0"),
        ),
        (
            "opcode 15, no body",
            header(0x7900, [0; 4]),
            "4 qr rd op15;;;;".into(),
        ),
        ("no question", header(0, [0; 4]), "1 qr;;;;".into()),
        (
            "two questions",
            [header(0, [2, 0, 0, 0]), ok.clone(), ok.clone()].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "no question where one is announced",
            header(0, [1, 0, 0, 0]),
            "1 qr;;;;".into(),
        ),
        (
            "question cut off",
            [header(0, [1, 0, 0, 0]), ok[..ok.len() - 1].to_vec()].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "self pointer",
            [header(0, [1, 0, 0, 0]), pointer].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "pointer forward",
            [header(0, [1, 0, 0, 0]), forward].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "pointer into the header",
            // The ID's octets are no name, those of the counts are: the root at offset 6.
            [
                header(0, [1, 0, 0, 0]),
                b"\x01a\xc0\x06\x00\x01\x00\x01".to_vec(),
            ]
            .concat(),
            "1 qr;;;;".into(),
        ),
        (
            "label type 0x40",
            [
                header(0, [1, 0, 0, 0]),
                b"\x41a\x00\x00\x01\x00\x01".to_vec(),
            ]
            .concat(),
            "1 qr;;;;".into(),
        ),
        (
            "trailing octets",
            [header(0, [1, 0, 0, 0]), ok.clone(), b"x".to_vec()].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "records where none are announced",
            [header(0, [1, 0, 0, 0]), ok.clone(), record.clone()].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "records that do not matter",
            [
                header(0, [1, 1, 1, 1]),
                ok.clone(),
                record.clone(),
                record.clone(),
                record.clone(),
            ]
            .concat(),
            format!("0 qr aa; {q}; {a};;"),
        ),
        (
            "fewer records than announced",
            [header(0, [1, 0, 0, 2]), ok.clone(), record].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "class CH",
            [header(0, [1, 0, 0, 0]), question("version.bind", TXT, 3)].concat(),
            "5 qr; version.bind. 16/3;;;".into(),
        ),
        (
            "class ANY",
            [header(0, [1, 0, 0, 0]), question("mayfly.test", A, 255)].concat(),
            "5 qr; mayfly.test. 1/255;;;".into(),
        ),
    ] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let response = ask(&site(), &message, transport).expect(title);
            assert_eq!(dump(&response), expected, "{title}");
        }
    }
}

#[test]
fn edns() {
    let ok = question("mayfly.test", A, IN);
    let answered = "0 qr aa; mayfly.test. 1/1; mayfly.test. 300 A 10.0.2.80;;";
    let with = |records: &[&[u8]]| {
        let count = u16::try_from(records.len()).unwrap();
        [header(0, [1, 0, 0, count]), ok.clone(), records.concat()].concat()
    };
    let good = opt(4096, 0, b"");
    let mut owned = wire("a");
    owned.extend_from_slice(&good[1..]);
    for (title, message, expected) in [
        (
            "DO comes back",
            with(&[&opt(4096, 0x8000, b"")]),
            format!("{answered} OPT . 1232 0x8000 0"),
        ),
        (
            "other flags do not",
            with(&[&opt(4096, 0x7fff, b"")]),
            format!("{answered} OPT . 1232 0x0 0"),
        ),
        (
            "options are not understood",
            with(&[&opt(4096, 0, b"\0\x0a\0\x08abcdefgh\0\x0c\0\0")]),
            format!("{answered} OPT . 1232 0x0 0"),
        ),
        (
            "size 0",
            with(&[&opt(0, 0, b"")]),
            format!("{answered} OPT . 1232 0x0 0"),
        ),
        (
            "version 1",
            with(&[&opt(4096, 0x0001_0000, b"")]),
            "0 qr; mayfly.test. 1/1;;; OPT . 1232 0x1000000 0".into(),
        ),
        ("two", with(&[&good, &good]), "1 qr;;;;".into()),
        ("owner", with(&[&owned]), "1 qr;;;;".into()),
        (
            "option cut off",
            with(&[&opt(4096, 0, b"\0\x0a\0\x08abc")]),
            "1 qr;;;;".into(),
        ),
        (
            "option header cut off",
            with(&[&opt(4096, 0, b"\0\x0a\0")]),
            "1 qr;;;;".into(),
        ),
        ("cut off", with(&[&good[..10]]), "1 qr;;;;".into()),
    ] {
        let response = ask(&site(), &message, Transport::Udp).expect(title);
        assert_eq!(dump(&response), expected, "{title}");
    }
}

#[test]
fn no_answer() {
    let zone = site();
    let mut stats = Stats::default();
    let mut ask =
        |query: &[u8], out: &mut [u8]| answer(&zone, query, Transport::Udp, out, &mut stats);
    let good = query("mayfly.test", A);
    for length in 0..12 {
        assert_eq!(ask(&good[..length], &mut [0; 512]), None);
    }
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(ask(&response, &mut [0; 512]), None);
    // No room even for a truncated answer: 12 of header, 17 of question, 11 of OPT.
    assert_eq!(ask(&good, &mut [0; 28]), None);
    assert_eq!(ask(&query_edns("mayfly.test", A, 512), &mut [0; 39]), None);
    assert_eq!(ask(&good, &mut [0; 29]), Some(29));
    assert_eq!(
        ask(&query_edns("mayfly.test", A, 512), &mut [0; 40]),
        Some(40)
    );
    assert_eq!((stats.dropped, stats.udp, stats.truncated), (15, 2, 2));
}

/// A zone with an answer of any size, and with things that a zone should not have.
struct Odd;

const LARGE: &[u8] = &{
    // 20 records of 60 octets.
    let mut rdata = [b'x'; 20 * 62];
    let mut at = 0;
    while at < rdata.len() {
        rdata[at] = 0;
        rdata[at + 1] = 60;
        rdata[at + 2] = 59;
        at += 62;
    }
    rdata
};

impl Zone for Odd {
    type Node = u8;

    fn apex(&self, name: &[u8]) -> Option<usize> {
        name.strip_suffix(b"\x01o\0").map(<[u8]>::len)
    }

    fn node(&self, name: &[u8]) -> Option<u8> {
        match name.strip_suffix(b"\x01o\0")? {
            b"" => Some(b'.'),
            [1, letter] => Some(*letter),
            _ => None,
        }
    }

    fn rrset(&self, node: u8, rtype: u16) -> Option<RrSet<'_>> {
        let rdata: &[u8] = match (node, rtype) {
            (b't', TXT) => LARGE,
            (b's', TXT) => &LARGE[..62 * 3],
            (b'l', CNAME) => b"\0\x05\x01l\x01o\0",
            (b'm', CNAME) => b"\0\x05\x01t\x01o\0",
            (b'n', CNAME) => b"\0\x05\x01N\x01o\0",
            (b'e', CNAME) => b"\0\x09\x07example\0",
            (b'b', CNAME) => b"\0\x03\x05ab",
            (b'c', CNAME) => b"",
            _ => return None,
        };
        Some(RrSet { ttl: 1, rdata })
    }
}

#[test]
fn truncation() {
    // 12 + (2 + 3 + 4) of header and question, 12 + 60 for each record, 11 of OPT.
    for (name, size, expected) in [
        ("s.o", None, Ok(12 + 9 + 3 * 72)),
        ("t.o", None, Err(12 + 9)),
        ("t.o", Some(512), Err(12 + 9 + 11)),
        ("t.o", Some(1232), Err(12 + 9 + 11)),
        ("t.o", Some(65535), Err(12 + 9 + 11)),
        ("s.o", Some(100), Ok(12 + 9 + 3 * 72 + 11)),
    ] {
        let message = size.map_or(query(name, TXT), |size| query_edns(name, TXT, size));
        let response = ask(&Odd, &message, Transport::Udp).unwrap();
        let truncated = response[2] & 2 != 0;
        let length = expected.unwrap_or_else(|length| length);
        assert_eq!(
            (truncated, response.len()),
            (expected.is_err(), length),
            "{name} {size:?}"
        );
        // TCP does not mind.
        let response = ask(&Odd, &message, Transport::Tcp).unwrap();
        assert!(response[2] & 2 == 0 && response.len() >= length);
    }
}

/// At every size of the output the answer is whole, or truncated, or there is none.
#[test]
fn every_room() {
    for message in [query("s.o", TXT), query_edns("s.o", TXT, 1232)] {
        let edns = message.len() - 21;
        let whole = 12 + 9 + 3 * 72 + edns;
        for room in 0..600 {
            let mut out = [0; 600];
            let length = answer(
                &Odd,
                &message,
                Transport::Udp,
                &mut out[..room],
                &mut Stats::default(),
            );
            let expected = match room {
                _ if room >= whole => Some(whole),
                _ if room >= 21 + edns => Some(21 + edns),
                _ => None,
            };
            assert_eq!(length, expected, "{room}");
            if let Some(length) = length {
                dump(&out[..length]);
            }
            // TC has no meaning over TCP (RFC 7766): SERVFAIL says that it does not work.
            let length = answer(
                &Odd,
                &message,
                Transport::Tcp,
                &mut out[..room],
                &mut Stats::default(),
            );
            assert_eq!(length, expected, "{room}");
            if let Some(length) = length
                && length < whole
            {
                assert!(dump(&out[..length]).starts_with("2 qr rd;"));
            }
        }
    }
}

#[test]
fn broken_zones() {
    for (name, expected) in [
        // A chain that leads to itself, ends nowhere, or is no name
        ("l.o", "2 qr rd; l.o. 1/1;;;"),
        ("n.o", "2 qr rd; n.o. 1/1;;;"),
        ("b.o", "2 qr rd; b.o. 1/1;;;"),
        ("c.o", "2 qr rd; c.o. 1/1;;;"),
        // A chain that leads out of what is served
        ("e.o", "0 qr aa rd; e.o. 1/1; e.o. 1 CNAME example.;;"),
        // A zone without SOA
        ("m.o", "2 qr rd; m.o. 1/1;;;"),
        ("x.x.o", "2 qr rd; x.x.o. 1/1;;;"),
    ] {
        let response = ask(&Odd, &query(name, A), Transport::Udp).unwrap();
        assert_eq!(dump(&response), expected);
    }
}

#[test]
fn longest_names() {
    let many = "a.".repeat(121) + "mayfly.test";
    let long = ["a", "b", "c"].map(|letter| letter.repeat(63)).join(".") + "." + &"d".repeat(44);
    for name in [many, long + ".wild.mayfly.test"] {
        let message = query(&name, A);
        assert_eq!(message.len(), 12 + 255 + 4);
        let text = dump(&ask(&site(), &message, Transport::Udp).unwrap());
        let wild = name.contains("wild");
        assert!(
            text.starts_with(if wild { "0 qr aa" } else { "3 qr aa" }),
            "{text}"
        );
    }
    let message = query(&"a.".repeat(128), A);
    assert!(dump(&ask(&site(), &message, Transport::Udp).unwrap()).starts_with("1 qr"));
}

#[test]
fn counters() {
    let mut stats = Stats::default();
    let mut out = [0; 1232];
    for (message, transport) in [
        (query("mayfly.test", A), Transport::Udp),
        (query("mayfly.test", AAAA), Transport::Udp),
        (query("no.mayfly.test", MX), Transport::Tcp),
        (query("example", A), Transport::Udp),
        (header(0, [0; 4]), Transport::Udp),
        (header(0x8000, [0; 4]), Transport::Udp),
    ] {
        answer(&site(), &message, transport, &mut out, &mut stats);
    }
    let mut rcodes = [0; 16];
    (rcodes[0], rcodes[1], rcodes[3], rcodes[5]) = (2, 1, 1, 1);
    let expected = Stats {
        udp: 4,
        tcp: 1,
        rcodes,
        a: 2,
        aaaa: 1,
        other: 1,
        dropped: 1,
        ..Stats::default()
    };
    assert_eq!(stats, expected);
}

mod tcp {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [
            &u16::try_from(message.len()).unwrap().to_be_bytes(),
            message,
        ]
        .concat()
    }

    const ROOM: usize = 514;

    /// Feeds a stream in pieces of `step` octets to a connection whose send buffer is emptied after
    /// each call.
    fn run(stream: &[u8], step: usize, size: usize) -> (Vec<u8>, Next) {
        let mut connection = Connection::new(0);
        let (mut buffer, mut sent) = (Vec::new(), Vec::new());
        let mut stats = Stats::default();
        let mut pieces = stream.chunks(step);
        loop {
            let piece = pieces.next();
            buffer.extend_from_slice(piece.unwrap_or_default());
            let mut out = std::vec![0; size];
            let input = Input {
                octets: &buffer,
                ended: piece.is_none(),
            };
            let progress = connection.process(0, &site(), input, &mut out, ROOM, &mut stats);
            buffer.drain(..progress.consumed);
            sent.extend_from_slice(&out[..progress.written]);
            if progress.next != Next::Keep {
                return (sent, progress.next);
            }
        }
    }

    #[test]
    fn pipelined_in_pieces() {
        let queries = [
            query("mayfly.test", A),
            query("no.mayfly.test", AAAA),
            query_edns("x.wild.mayfly.test", TXT, 512),
            header(0x8000, [0; 4]),
            query("example", NS),
        ];
        let stream = queries
            .iter()
            .flat_map(|query| framed(query))
            .collect::<Vec<_>>();
        let expected: Vec<_> = queries
            .iter()
            .filter_map(|query| ask(&site(), query, Transport::Tcp))
            .flat_map(|answer| framed(&answer))
            .collect();
        for step in 1..=stream.len() {
            for size in [ROOM, ROOM + 1, 2 * ROOM, 4096] {
                assert_eq!(
                    run(&stream, step, size),
                    (expected.clone(), Next::Close),
                    "{step}"
                );
            }
        }
    }

    #[test]
    fn framing() {
        let good = framed(&query("mayfly.test", A));
        for length in [0, 11, TCP_QUERY_MAX + 1, 65535] {
            let prefix = u16::try_from(length).unwrap().to_be_bytes();
            let (sent, next) = run(&[&good[..], &prefix].concat(), 1, 4096);
            assert!(sent.len() > 2 && next == Next::Abort);
        }
        // A client that stops in the middle of a query.
        assert_eq!(
            run(&good[..good.len() - 1], 7, 4096),
            (Vec::new(), Next::Close)
        );
        // A whole query of the longest length.
        let mut longest = query("mayfly.test", A);
        longest.resize(TCP_QUERY_MAX, 0);
        let (sent, next) = run(&framed(&longest), 100, 4096);
        assert_eq!(
            (dump(&sent[2..]), next),
            ("1 qr rd;;;;".into(), Next::Close)
        );
    }

    #[test]
    fn deadlines() {
        let zone = site();
        let mut stats = Stats::default();
        let good = framed(&query("mayfly.test", A));
        let mut step = |connection: &mut Connection, now, octets: &[u8], out: &mut [u8]| {
            let input = Input {
                octets,
                ended: false,
            };
            connection.process(now, &zone, input, out, ROOM, &mut stats)
        };
        let keep = |consumed, written| Progress {
            consumed,
            written,
            next: Next::Keep,
        };

        // Octets that trickle in do not move the deadline; a whole query does.
        let mut connection = Connection::new(100);
        let mut out = [0; 2048];
        assert_eq!(
            step(&mut connection, 5_000, &good[..5], &mut out),
            keep(0, 0)
        );
        assert_eq!(connection.deadline(), 10_100);
        assert_eq!(
            step(&mut connection, 10_099, &good, &mut out),
            keep(good.len(), good.len() + 16)
        );
        assert_eq!(connection.deadline(), 20_099);
        assert_eq!(
            step(&mut connection, 20_098, &good[..9], &mut out),
            keep(0, 0)
        );
        let closed = Progress {
            consumed: 9,
            written: 0,
            next: Next::Close,
        };
        assert_eq!(step(&mut connection, 20_099, &good[..9], &mut out), closed);
        assert_eq!(step(&mut connection, 20_100, &good[..9], &mut out), closed);

        // No room for the answer until the deadline.
        let mut connection = Connection::new(0);
        assert_eq!(
            step(&mut connection, 9_999, &good, &mut out[..ROOM - 1]),
            keep(0, 0)
        );
        let progress = step(&mut connection, 10_000, &good, &mut out[..ROOM - 1]);
        assert_eq!(progress.next, Next::Abort);
        assert_eq!(stats.aborted, 1);
    }
}

/// A valid message of some kind, to be mutated.
fn seed() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(std::vec![
        "mayfly.test",
        "www.mayfly.test",
        "x.wild.mayfly.test",
        "wild.mayfly.test",
        "no.mayfly.test",
        "t.o",
        "l.o",
        "",
    ]);
    let qtype = prop_oneof![
        prop::sample::select(std::vec![A, NS, CNAME, SOA, TXT, AAAA, ANY, AXFR]),
        any::<u16>()
    ];
    (name, qtype, any::<Option<u16>>()).prop_map(|(name, qtype, size)| match size {
        None => query(name, qtype),
        Some(size) => query_edns(name, qtype, size),
    })
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    (seed(), prop::collection::vec(edit, 0..6)).prop_map(|(mut octets, edits)| {
        for (index, value, kind) in edits {
            let at = index.index(octets.len() + 1);
            match kind {
                0 => octets.insert(at, value),
                1 => octets.truncate(at),
                2 if at < octets.len() => octets[at] ^= 1 << (value & 7),
                _ if at < octets.len() => octets[at] = value,
                _ => octets.push(value),
            }
        }
        octets
    })
}

proptest! {
    /// Whatever comes, what goes out is a response to it in good form, and within bounds.
    #[test]
    fn mutated_messages(message in mutated(), room in 0..1500_usize, tcp: bool, odd: bool) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let mut out = std::vec![0; room];
        let mut stats = Stats::default();
        let written = if odd {
            answer(&Odd, &message, transport, &mut out, &mut stats)
        } else {
            answer(&site(), &message, transport, &mut out, &mut stats)
        };
        prop_assert_eq!(u32::from(written.is_none()), stats.dropped);
        if let Some(written) = written {
            prop_assert!(message[2] & 0x80 == 0);
            prop_assert_eq!(&out[..2], &message[..2]);
            prop_assert!(written <= room && (tcp || written <= usize::from(UDP_MAX)));
            prop_assert_eq!(out[2] & 0x80, 0x80, "QR");
            prop_assert_eq!(out[3] & 0xf0, 0, "RA and Z");
            out[..2].copy_from_slice(&[0x12, 0x34]);
            dump(&out[..written]);
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
        let mut connection = Connection::new(0);
        let mut stats = Stats::default();
        let mut out = [0; 600];
        let mut at = 0;
        for end in [cut.index(stream.len()), stream.len()] {
            let input = Input { octets: &stream[at.min(end)..end], ended: end == stream.len() };
            let progress = connection.process(0, &site(), input, &mut out, room, &mut stats);
            prop_assert!(progress.consumed <= input.octets.len() && progress.written <= out.len());
            at += progress.consumed;
        }
    }
}
