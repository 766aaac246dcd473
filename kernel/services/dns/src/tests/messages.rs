//! The message itself: its header, OPT and options, class and opcode.

use super::*;

#[test]
fn headers() {
    let zones = zones();
    let ok = question("a.b.ent.example.test", A, IN);
    let q = "a.b.ent.example.test. 1/1";
    let a = "a.b.ent.example.test. 3600 A 192.0.2.6";
    let pointer = b"\xc0\x0c\x00\x01\x00\x01".to_vec();
    let forward = b"\x01a\xc0\x12\x00\x01\x00\x01\x00".to_vec();
    let record = [
        wire("example.test"),
        b"\0\x01\0\x01\0\0\0\0\0\x04\x01\x02\x03\x04".to_vec(),
    ]
    .concat();
    let tsig = [
        wire("key"),
        b"\0\xfa\0\xff\0\0\0\0\0\x1d".to_vec(),
        wire("hmac-sha256"),
        b"\0\0\x67\x74\x85\x80\x01\x2c\0\0\0\0\0\0\0\0".to_vec(),
    ]
    .concat();
    let with = |at: usize, byte: u8| {
        let mut other = tsig.clone();
        other[at] = byte;
        [header(0, [1, 0, 0, 1]), ok.clone(), other].concat()
    };
    // After the owner: type, class, TTL, length; then the algorithm, time, fudge, lengths.
    let (class, mac, error, other) = (
        wire("key").len() + 3,
        tsig.len() - 7,
        tsig.len() - 3,
        tsig.len() - 1,
    );
    let corrupt = [
        ("a signature of a class", with(class, 1)),
        ("a signature with a TTL", with(class + 4, 1)),
        ("a signature whose MAC is not there", with(mac, 9)),
        ("a signature whose other data is not there", with(other, 1)),
        (
            "a signature whose algorithm is a pointer",
            with(class + 7, 0xc0),
        ),
    ];
    for (title, message) in corrupt {
        let answer = dump(&ask(&zones, &message, Transport::Udp).unwrap());
        assert_eq!(answer, "1 qr;;;;", "{title}");
    }
    let answer = ask(&zones, &with(error, 16), Transport::Udp).unwrap();
    assert_eq!(dump(&answer), format!("9 qr; {q};;;"));
    let cookie = opt(512, 0, b"\0\x0a\0\x08abcdefgh");
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
            "opcode NOTIFY, with the SOA record that it may have",
            [header(0x2000, [1, 1, 0, 0]), ok.clone(), record.clone()].concat(),
            format!("4 qr op4; {q};;;"),
        ),
        (
            "opcode UPDATE, OPT",
            [header(0x2900, [1, 0, 0, 1]), ok.clone(), opt(512, 0, b"")].concat(),
            format!("4 qr rd op5; {q};;; OPT . 1232 0x0 \"\""),
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
            // The ID's bytes are no name, those of the counts are: the root at offset 6.
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
            "bytes after the message",
            [header(0, [1, 0, 0, 0]), ok.clone(), b"x".to_vec()].concat(),
            format!("0 qr aa; {q}; {a};;"),
        ),
        (
            "a record in the answer section",
            [header(0, [1, 1, 0, 0]), ok.clone(), record.clone()].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "a record in the authority section",
            [header(0, [1, 0, 1, 0]), ok.clone(), record.clone()].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "a record in the additional section that means nothing there",
            [header(0, [1, 0, 0, 1]), ok.clone(), record.clone()].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "fewer records than announced",
            [header(0, [1, 0, 0, 2]), ok.clone(), opt(512, 0, b"")].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "two OPT",
            [
                header(0, [1, 0, 0, 2]),
                ok.clone(),
                opt(512, 0, b""),
                opt(512, 0, b""),
            ]
            .concat(),
            "1 qr;;;;".into(),
        ),
        (
            "OPT whose owner is not the root",
            [
                header(0, [1, 0, 0, 1]),
                ok.clone(),
                wire("a"),
                opt(512, 0, b"")[1..].to_vec(),
            ]
            .concat(),
            "1 qr;;;;".into(),
        ),
        (
            "an option that is cut off",
            [
                header(0, [1, 0, 0, 1]),
                ok.clone(),
                opt(512, 0, b"\0\x03\0\x01"),
            ]
            .concat(),
            "1 qr;;;;".into(),
        ),
        (
            "a signature with a key that is not known",
            [header(0, [1, 0, 0, 1]), ok.clone(), tsig.clone()].concat(),
            format!("9 qr; {q};;;"),
        ),
        (
            "OPT, then a signature",
            [
                header(0, [1, 0, 0, 2]),
                ok.clone(),
                opt(512, 0, b""),
                tsig.clone(),
            ]
            .concat(),
            format!("9 qr; {q};;; OPT . 1232 0x0 \"\""),
        ),
        (
            "a signature that is not the last",
            [header(0, [1, 0, 0, 2]), ok.clone(), tsig, opt(512, 0, b"")].concat(),
            "1 qr;;;;".into(),
        ),
        (
            "EDNS version 1, whose options may be anything: BADVERS",
            [
                header(0, [1, 0, 0, 1]),
                ok.clone(),
                opt(512, 0x0001_0000, b"x"),
            ]
            .concat(),
            format!("0 qr; {q};;; OPT . 1232 0x1000000 \"\""),
        ),
        (
            "DO, and options that are not known",
            [
                header(0, [1, 0, 0, 1]),
                ok.clone(),
                opt(512, DO | 0x7fff, b"\xfe\x00\0\x02ab\0\x0f\0\0"),
            ]
            .concat(),
            format!("0 qr aa; {q}; {a};; OPT . 1232 0x8000 \"\""),
        ),
        (
            "NSID",
            [
                header(0, [1, 0, 0, 1]),
                ok.clone(),
                opt(512, 0, b"\0\x03\0\0"),
            ]
            .concat(),
            format!("0 qr aa; {q}; {a};; OPT . 1232 0x0 \"\\x00\\x03\\x00\\x02me\""),
        ),
        (
            "a client's cookie that is too short",
            [
                header(0, [1, 0, 0, 1]),
                ok.clone(),
                opt(512, 0, b"\0\x0a\0\x07abcdefg"),
            ]
            .concat(),
            format!("1 qr; {q};;; OPT . 1232 0x0 \"\""),
        ),
        (
            "no question, and a question for a cookie",
            [header(0, [0, 0, 0, 1]), cookie].concat(),
            "0 qr;;;; OPT . 1232 0x0 COOKIE".into(),
        ),
        (
            "class CH",
            [header(0, [1, 0, 0, 0]), question("version.BIND", TXT, 3)].concat(),
            format!(
                "0 qr; version.BIND. 16/3; version.BIND. 0 class3 16 \"\\x0c{}\";;",
                VERSION.escape_ascii()
            ),
        ),
        (
            "class CH, name",
            [header(0, [1, 0, 0, 0]), question("id.server", ANY, 3)].concat(),
            "0 qr; id.server. 255/3; id.server. 0 class3 16 \"\\x02me\";;".into(),
        ),
        (
            "class CH, other name",
            [header(0, [1, 0, 0, 0]), question("a", TXT, 3)].concat(),
            "5 qr; a. 16/3;;;".into(),
        ),
        (
            "class HS",
            [header(0, [1, 0, 0, 0]), question("example.test", A, 4)].concat(),
            "5 qr; example.test. 1/4;;;".into(),
        ),
        (
            "class ANY: nobody is an authority for all classes (RFC 1034 section 4.3.2)",
            [
                header(0, [1, 0, 0, 0]),
                question("a.b.ent.example.test", A, 255),
            ]
            .concat(),
            "0 qr; a.b.ent.example.test. 1/255; a.b.ent.example.test. 3600 A 192.0.2.6;;".into(),
        ),
        (
            "class ANY, no name",
            [header(0, [1, 0, 0, 0]), question("no.example.test", A, 255)].concat(),
            "3 qr; no.example.test. 1/255;;;".into(),
        ),
    ] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut server = server();
            server.config.minimal = true;
            let response = ask_of(&mut server, &zones, &message, transport).expect(title);
            let mut text = dump(&response);
            if let Some(at) = text.find("\"\\x00\\n\\x00\\x18abcdefgh\\x01\\x00\\x00\\x00") {
                text.replace_range(at.., "COOKIE");
            }
            assert_eq!(text, expected, "{title}");
        }
    }
}

#[test]
fn no_answer() {
    let zones = zones();
    let ok = query("example.test", A);
    let mut response = ok.clone();
    response[2] |= 0x80;
    for message in [&b""[..], &ok[..11], &response] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut server = server();
            assert_eq!(ask_of(&mut server, &zones, message, transport), None);
            assert_eq!(server.stats.dropped, 1);
        }
    }
}

#[test]
fn counters() {
    let mut server = server();
    let zones = zones();
    for (message, transport) in [
        (query("web.example.test", A), Transport::Udp),
        (query("web.example.test", AAAA), Transport::Udp),
        (query("no.example.test", MX), Transport::Tcp),
        (query("example", 65_280), Transport::Udp),
        (query("txt1300.example.test", TXT), Transport::Udp),
        (header(0, [0; 4]), Transport::Udp),
        (header(0x8000, [0; 4]), Transport::Udp),
        (
            query_edns("web.example.test", A, 512, 0x0001_0000),
            Transport::Udp,
        ),
    ] {
        ask_of(&mut server, &zones, &message, transport);
    }
    let mut rcodes = [0; 16];
    (rcodes[0], rcodes[1], rcodes[3], rcodes[5], rcodes[15]) = (3, 1, 1, 1, 1);
    let mut types = [0; COUNTED_TYPES.len()];
    for counted in ["A", "AAAA", "MX", "TXT"] {
        let index = COUNTED_TYPES.iter().position(|(_, name)| *name == counted);
        types[index.unwrap()] = 1;
    }
    let expected = QueryCounts {
        udp: 6,
        tcp: 1,
        rcodes,
        types,
        other_types: 1,
        truncated: 1,
        dropped: 1,
        ..QueryCounts::default()
    };
    assert_eq!(server.stats, expected);
}

#[test]
fn longest_names() {
    let zones = zones();
    let many = "a.".repeat(120) + "example.test";
    let long = ["a", "b", "c"].map(|letter| letter.repeat(63)).join(".") + "." + &"d".repeat(43);
    for name in [&*many, &*(long + ".wild.example.test")] {
        let message = query(name, A);
        assert!(message.len() >= 12 + 254 + 4);
        let text = dump(&ask(&zones, &message, Transport::Udp).unwrap());
        let wild = name.contains("wild");
        assert!(
            text.starts_with(if wild { "0 qr aa" } else { "3 qr aa" }),
            "{text}"
        );
    }
    let message = query(&"a.".repeat(128), A);
    assert!(dump(&ask(&zones, &message, Transport::Udp).unwrap()).starts_with("1 qr"));
    // A DNAME record that makes a name too long (RFC 6672 section 2.2).
    for (label, expected) in [(61, "3 qr aa"), (63, "6 qr aa")] {
        let labels = ["x".repeat(label), "y".repeat(42)].join(".");
        let message = query(&(labels + ".dlong.example.test"), A);
        let text = dump(&ask(&zones, &message, Transport::Tcp).unwrap());
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("DNAME"));
    }
}
