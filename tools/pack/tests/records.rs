//! Records of every type: their wire form, and their text form.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fmt::Write as _;

use common::{packed, wire};
use mayfly_site::{Pack, Zones, records};

/// A record of every type that has a text form of its own: number, name, data as input, data as printed.
const RECORDS: &[(u16, &str, &str, &str)] = &[
    (1, "A", "192.0.2.1", "192.0.2.1"),
    (3, "MD", "host", "host.example.test."),
    (4, "MF", "host", "host.example.test."),
    (7, "MB", "host", "host.example.test."),
    (8, "MG", "host", "host.example.test."),
    (9, "MR", "host", "host.example.test."),
    (
        11,
        "WKS",
        "192.0.2.1 tcp smtp 80 domain",
        "192.0.2.1 6 25 53 80",
    ),
    (11, "WKS", "192.0.2.1 17", "192.0.2.1 17"),
    (12, "PTR", "host.other.", "host.other."),
    (13, "HINFO", "\"PC\" Linux", "\"PC\" \"Linux\""),
    (14, "MINFO", "a b", "a.example.test. b.example.test."),
    (15, "MX", "10 mail", "10 mail.example.test."),
    (
        16,
        "TXT",
        "\"a b\" c \"\\\"\" \\065\\;",
        "\"a b\" \"c\" \"\\\"\" \"A;\"",
    ),
    (17, "RP", "a .", "a.example.test. ."),
    (18, "AFSDB", "1 a", "1 a.example.test."),
    (19, "X25", "311061700956", "\"311061700956\""),
    (
        20,
        "ISDN",
        "150862028003217 \"004\"",
        "\"150862028003217\" \"004\"",
    ),
    (20, "ISDN", "150862028003217", "\"150862028003217\""),
    (21, "RT", "10 a", "10 a.example.test."),
    (22, "NSAP", "0x47.0005.80.FF", "0x47000580ff"),
    (23, "NSAP-PTR", "host", "host.example.test."),
    (
        24,
        "SIG",
        "NXT 1 3 3600 20300101000000 20260101000000 2143 foo AQID",
        "NXT 1 3 3600 20300101000000 20260101000000 2143 foo.example.test. AQID",
    ),
    (25, "KEY", "512 NONE RSASHA1 AQ ID", "512 0 5 AQID"),
    (25, "KEY", "49152 3 0", "49152 3 0"),
    (26, "PX", "10 a b", "10 a.example.test. b.example.test."),
    (
        27,
        "GPOS",
        "-32.6882 116.8652 10.0",
        "\"-32.6882\" \"116.8652\" \"10.0\"",
    ),
    (28, "AAAA", "2001:DB8:0:0::1", "2001:db8::1"),
    (28, "AAAA", "::ffff:192.0.2.1", "::ffff:192.0.2.1"),
    (
        29,
        "LOC",
        "51 30 12.748 N 0 7 39.611 W 0.00m 0.00m 0.00m 0.00m",
        "51 30 12.748 N 0 7 39.611 W 0.00m 0.00m 0.00m 0.00m",
    ),
    (
        29,
        "LOC",
        "42 21 54 n 71 06 18 w -24m 30m",
        "42 21 54.000 N 71 6 18.000 W -24.00m 30m 10000m 10m",
    ),
    (
        29,
        "LOC",
        "42 S 71 E 42849672.95 0.05 1.23 90000000",
        "42 0 0.000 S 71 0 0.000 E 42849672.95m 0.05m 1m 90000000m",
    ),
    (
        29,
        "LOC",
        "90 N 180 W -100000.00m",
        "90 0 0.000 N 180 0 0.000 W -100000.00m 1m 10000m 10m",
    ),
    (30, "NXT", "a A NXT", "a.example.test. A NXT"),
    (31, "EID", "E32C 6F78163A9348", "e32c6f78163a9348"),
    (32, "NIMLOC", "32251a030067", "32251a030067"),
    (33, "SRV", "0 0 80 a", "0 0 80 a.example.test."),
    (
        35,
        "NAPTR",
        "100 10 u E2U+sip \"!^.*$!sip:i@e!\" .",
        "100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:i@e!\" .",
    ),
    (36, "KX", "10 a", "10 a.example.test."),
    (37, "CERT", "pgp 0 0 AQID", "PGP 0 0 AQID"),
    (37, "CERT", "1 65535 RSASHA256 AQID", "PKIX 65535 8 AQID"),
    (37, "CERT", "99 65535 8 AQID", "99 65535 8 AQID"),
    (38, "A6", "0 2001:db8::1", "0 2001:db8::1"),
    (38, "A6", "64 ::1:2:3:4 a", "64 ::1:2:3:4 a.example.test."),
    (38, "A6", "128 a", "128 a.example.test."),
    (39, "DNAME", "a.b.", "a.b."),
    (40, "SINK", "1 0 2 AQID", "1 0 2 AQID"),
    (
        42,
        "APL",
        "1:192.168.32.0/21 !1:192.168.38.0/28 2:FF00::/8",
        "1:192.168.32.0/21 !1:192.168.38.0/28 2:ff00::/8",
    ),
    (42, "APL", "", ""),
    (
        43,
        "DS",
        "4711 ED25519 SHA-256 00112233 ( 44556677 ) ",
        "4711 15 2 0011223344556677",
    ),
    (44, "SSHFP", "4 2 AABB", "4 2 aabb"),
    (
        45,
        "IPSECKEY",
        "10 1 2 192.0.2.38 AQID",
        "10 1 2 192.0.2.38 AQID",
    ),
    (45, "IPSECKEY", "10 0 2 . AQID", "10 0 2 . AQID"),
    (
        45,
        "IPSECKEY",
        "10 2 2 2001:db8::1 AQID",
        "10 2 2 2001:db8::1 AQID",
    ),
    (45, "IPSECKEY", "10 3 0 gw", "10 3 0 gw.example.test."),
    (
        47,
        "NSEC",
        "b A TYPE1234 NS LOC",
        "b.example.test. A NS LOC TYPE1234",
    ),
    (
        48,
        "DNSKEY",
        "257 3 ECDSAP256SHA256 AQ (\n ID )",
        "257 3 13 AQID",
    ),
    (
        49,
        "DHCID",
        "AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=",
        "AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=",
    ),
    (51, "NSEC3PARAM", "1 0 12 AABB", "1 0 12 aabb"),
    (51, "NSEC3PARAM", "SHA-1 0 0 -", "1 0 0 -"),
    (52, "TLSA", "DANE-EE SPKI SHA2-256 AABB", "3 1 1 aabb"),
    (53, "SMIMEA", "3 1 1 aabb", "3 1 1 aabb"),
    (
        55,
        "HIP",
        "2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc rvs.example.com. rvs2",
        "2 200100107b1a74df365639cc39f1d578 AwEAAbdxyhNuSutc rvs.example.com. rvs2.example.test.",
    ),
    (56, "NINFO", "a b", "\"a\" \"b\""),
    (57, "RKEY", "0 1 8 AQID", "0 1 8 AQID"),
    (58, "TALINK", ". a", ". a.example.test."),
    (59, "CDS", "0 0 0 00", "0 0 0 00"),
    (59, "CDS", "0 0 0 0", "0 0 0 00"),
    (60, "CDNSKEY", "0 3 DELETE AA==", "0 3 0 AA=="),
    (61, "OPENPGPKEY", "AQID BAUG", "AQIDBAUG"),
    (62, "CSYNC", "66 3 A NS AAAA", "66 3 A NS AAAA"),
    (
        63,
        "ZONEMD",
        "2018031500 1 1 FEBE 3D4C",
        "2018031500 1 1 febe3d4c",
    ),
    (
        64,
        "SVCB",
        "1 a key668 port=\"443\" alpn=\"h2,h3\" mandatory=port,alpn key667=\"he llo\" ipv6hint=2001:DB8::1 ipv4hint=192.0.2.1,192.0.2.2",
        "1 a.example.test. mandatory=alpn,port alpn=\"h2,h3\" port=443 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1 key667=\"he llo\" key668",
    ),
    (
        64,
        "SVCB",
        "16 foo. alpn=\"f\\\\\\\\oo\\\\,bar,h2\" no-default-alpn ech=AQID",
        "16 foo. alpn=\"f\\\\\\\\oo\\\\,bar,h2\" no-default-alpn ech=AQID",
    ),
    (
        64,
        "SVCB",
        "16 foo. alpn=f\\\\\\092oo\\092,bar,h2",
        "16 foo. alpn=\"f\\\\\\\\oo\\\\,bar,h2\"",
    ),
    (
        64,
        "SVCB",
        "1 foo. key1=\\002h2 key4=\\192\\000\\002\\001 key65399=\\;\\\"",
        "1 foo. alpn=\"h2\" ipv4hint=192.0.2.1 key65399=\";\\\"\"",
    ),
    (
        64,
        "SVCB",
        "1 . dohpath=/q{?dns} ohttp tls-supported-groups=29,23",
        "1 . dohpath=\"/q{?dns}\" ohttp tls-supported-groups=29,23",
    ),
    (65, "HTTPS", "0 foo.example.", "0 foo.example."),
    (
        66,
        "DSYNC",
        "CDS NOTIFY 5359 scanner",
        "CDS 1 5359 scanner.example.test.",
    ),
    (67, "HHIT", "AQID", "AQID"),
    (68, "BRID", "AQID", "AQID"),
    (99, "SPF", "\"v=spf1 -all\"", "\"v=spf1 -all\""),
    (104, "NID", "10 14:4FFF:ff20:ee64", "10 0014:4fff:ff20:ee64"),
    (105, "L32", "10 10.1.2.0", "10 10.1.2.0"),
    (
        106,
        "L64",
        "10 2001:0DB8:1140:1000",
        "10 2001:0db8:1140:1000",
    ),
    (107, "LP", "10 a", "10 a.example.test."),
    (108, "EUI48", "00-00-5E-00-53-2a", "00-00-5e-00-53-2a"),
    (
        109,
        "EUI64",
        "00-00-5e-ef-10-00-00-2a",
        "00-00-5e-ef-10-00-00-2a",
    ),
    (
        256,
        "URI",
        "10 1 \"ftp://ftp1.example.com/public\"",
        "10 1 \"ftp://ftp1.example.com/public\"",
    ),
    (
        257,
        "CAA",
        "0 issue letsencrypt.org",
        "0 issue \"letsencrypt.org\"",
    ),
    (257, "CAA", "128 \"iodef\" \"\"", "128 iodef \"\""),
    (258, "AVC", "app-name:x y", "\"app-name:x\" \"y\""),
    (259, "DOA", "0 1 2 \"\" AQID", "0 1 2 \"\" AQID"),
    (259, "DOA", "0 1 2 text/plain -", "0 1 2 \"text/plain\" -"),
    (260, "AMTRELAY", "10 0 0 .", "10 0 0 ."),
    (
        260,
        "AMTRELAY",
        "10 0 1 203.0.113.15",
        "10 0 1 203.0.113.15",
    ),
    (
        260,
        "AMTRELAY",
        "10 1 2 2001:db8::15",
        "10 1 2 2001:db8::15",
    ),
    (
        260,
        "AMTRELAY",
        "128 1 3 relay",
        "128 1 3 relay.example.test.",
    ),
    (
        261,
        "RESINFO",
        "qnamemin exterr=15-17",
        "\"qnamemin\" \"exterr=15-17\"",
    ),
    (262, "WALLET", "BTC 1A1zP1", "\"BTC\" \"1A1zP1\""),
    (263, "CLA", "a", "\"a\""),
    (264, "IPN", "18446744073709551615", "18446744073709551615"),
    (32768, "TA", "1 8 2 AABB", "1 8 2 aabb"),
    (32769, "DLV", "1 8 2 AABB", "1 8 2 aabb"),
    (65280, "TYPE65280", "\\# 3 0102 03", "\\# 3 010203"),
    (10, "NULL", "\\# 0", "\\# 0"),
    (34, "ATMA", "\\# 2 00ff", "\\# 2 00ff"),
];

/// A pack of a zone with these lines.
fn zone(lines: &str) -> Vec<u8> {
    let head = "$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\n";
    packed(&[("zones/example.test.zone", format!("{head}{lines}"))])
}

/// The data of the only record of a name and type.
fn data(bytes: &[u8], name: &str, rtype: u16) -> Vec<u8> {
    let pack = Pack::open(bytes).unwrap();
    let name = wire(&format!("{name}.example.test"));
    let zone = pack.zone(&name).unwrap().unwrap();
    let found = pack.closest_encloser(zone, &name).unwrap();
    assert_eq!(found.at, 0);
    let set = pack.rrset(found.node, rtype).unwrap().unwrap();
    let all: Vec<_> = records(set.rdata).collect();
    assert_eq!(all.len(), 1);
    all[0].to_vec()
}

/// The records of a pack by owner, as they are printed.
fn printed(bytes: &[u8]) -> Vec<(String, String)> {
    let mut text = Vec::new();
    mayfly_pack::print_records(&Pack::open(bytes).unwrap(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines = text.lines().map(|line| {
        let mut columns = line.splitn(5, '\t');
        let owner = columns.next().unwrap().to_owned();
        assert_eq!((columns.next(), columns.next()), (Some("60"), Some("IN")));
        let _type = columns.next().unwrap();
        (owner, columns.next().unwrap_or_default().to_owned())
    });
    lines.collect()
}

/// All records with their numbers.
fn numbered() -> impl Iterator<
    Item = (
        usize,
        &'static (u16, &'static str, &'static str, &'static str),
    ),
> {
    RECORDS.iter().enumerate()
}

/// Each record at a name with its number.
fn all() -> Vec<u8> {
    let mut lines = String::new();
    for (number, (_, name, text, _)) in numbered() {
        let _ = writeln!(lines, "n{number} {name} {text}");
    }
    zone(&lines)
}

#[test]
fn every_type_is_read_and_printed() {
    let bytes = all();
    let printed = printed(&bytes);
    for (number, (_, name, text, wanted)) in numbered() {
        let owner = format!("n{number}.example.test.");
        let (_, got) = printed.iter().find(|(name, _)| *name == owner).unwrap();
        assert_eq!(got, wanted, "{name} {text}");
    }
    // All types of the table are here, except those that every zone has and those of chains.
    let known: Vec<u16> = RECORDS.iter().map(|record| record.0).collect();
    for rtype in
        (1..=65_535).filter(|rtype| mayfly_pack::type_name(*rtype) != format!("TYPE{rtype}"))
    {
        let elsewhere = [2, 5, 6, 41, 46, 50, 100, 101, 102, 103].contains(&rtype)
            || (128..256).contains(&rtype);
        assert!(known.contains(&rtype) || elsewhere, "{rtype}");
    }
}

#[test]
fn every_type_by_its_number_and_as_bytes() {
    let bytes = all();
    let mut again = String::new();
    for (number, (rtype, name, text, wanted)) in numbered() {
        let data = data(&bytes, &format!("n{number}"), *rtype);
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(again, "a{number} TYPE{rtype} {text}");
        let _ = writeln!(again, "b{number} TYPE{rtype} \\# {} {hex}", data.len());
        let _ = writeln!(again, "c{number} {name} \\# {} {hex}", data.len());
        let _ = writeln!(again, "d{number} {} {wanted}", name.to_ascii_lowercase());
    }
    let other = zone(&again);
    for (number, (rtype, name, text, _)) in numbered() {
        let wanted = data(&bytes, &format!("n{number}"), *rtype);
        for form in ["a", "b", "c", "d"] {
            let got = data(&other, &format!("{form}{number}"), *rtype);
            assert_eq!(got, wanted, "{form}: {name} {text}");
        }
    }
}

/// Data that is cut, or that extra bytes follow, is invalid, unless the last field of the type reaches to the end.
#[test]
fn bytes_that_are_no_data_of_their_type_are_refused() {
    let bytes = all();
    for (number, (rtype, name, ..)) in numbered() {
        let data = data(&bytes, &format!("n{number}"), *rtype);
        for length in 0..data.len() {
            let hex: String = data[..length]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let line =
                format!("$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\na {name} \\# {length} {hex}\n");
            let packed = common::pack(&[("zones/example.test.zone", line)]);
            // Valid data is printed in the form of the type and read back the same.
            if let Ok((bytes, _)) = packed {
                let text = printed(&bytes)
                    .into_iter()
                    .find(|(owner, _)| owner.starts_with("a."))
                    .unwrap()
                    .1;
                let again = zone(&format!("a {name} {text}"));
                assert_eq!(
                    self::data(&again, "a", *rtype),
                    data[..length],
                    "{name} {text}"
                );
            }
        }
    }
}

/// The `domain` crate reads the printed text, and makes the same bytes of it.
#[test]
fn another_parser_reads_the_same() {
    use domain::base::rdata::{ComposeRecordData as _, RecordData as _};
    use domain::zonefile::inplace::{Entry, Zonefile};

    let bytes = all();
    let printed = printed(&bytes);
    let mut compared = 0;
    for (number, (rtype, name, ..)) in numbered() {
        let owner = format!("n{number}.example.test.");
        let (_, text) = printed.iter().find(|(name, _)| *name == owner).unwrap();
        let mut file = Zonefile::from(format!("{owner} 60 IN {name} {text}\n").as_bytes());
        let Ok(Some(Entry::Record(record))) = file.next_entry() else {
            continue;
        };
        let mut data = Vec::new();
        record.data().compose_rdata(&mut data).unwrap();
        assert_eq!(record.data().rtype().to_int(), *rtype);
        assert_eq!(
            data,
            self::data(&bytes, &format!("n{number}"), *rtype),
            "{name} {text}"
        );
        compared += 1;
    }
    assert!(compared >= 30, "{compared}");
}

#[test]
fn strings_hold_any_bytes() {
    let all: Vec<u8> = (0..=255)
        .filter(|byte| !matches!(byte, b'"' | b'\\'))
        .collect();
    let (low, high) = all.split_at(120);
    let file = [
        &b"$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\na TXT \""[..],
        low,
        b"\" \"",
        high,
        b"\"\nb HINFO caf\xe9 \"\xc3\xa9\"\nc CAA 0 issue \"\t\"\nd TXT \"one\ntwo\" ; three\n",
    ]
    .concat();
    let bytes = packed(&[("zones/example.test.zone", file)]);
    assert_eq!(
        data(&bytes, "a", 16),
        [&[120][..], low, &[134], high].concat()
    );
    assert_eq!(data(&bytes, "b", 13), b"\x04caf\xe9\x02\xc3\xa9");
    assert_eq!(data(&bytes, "c", 257), b"\0\x05issue\t");
    assert_eq!(data(&bytes, "d", 16), b"\x07one\ntwo");
}
