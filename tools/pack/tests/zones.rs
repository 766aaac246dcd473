//! What is wrong with zones is told with file and line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{errors, packed, warnings};
use mayfly_site::{Pack, Zones, records};
use proptest::prelude::*;

/// A zone with these lines from line 4 on.
fn zone(lines: &str) -> [(&'static str, String); 1] {
    let head = "$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\n";
    [("zones/example.test.zone", format!("{head}{lines}\n"))]
}

#[test]
fn errors_name_file_and_line() {
    for (lines, wanted) in [
        (
            "a CNAME b\na A 10.0.0.1",
            "5: a.example.test. has CNAME beside A (RFC 1034 section 3.6.2)",
        ),
        (
            "a CNAME b\na CNAME c",
            "5: a.example.test. has more than one CNAME",
        ),
        (
            "a DNAME b\na DNAME c",
            "5: a.example.test. has more than one DNAME",
        ),
        (
            "a DNAME b\nx.a A 10.0.0.1",
            "5: x.a.example.test. is below a.example.test., which has DNAME (RFC 6672 section 2.4)",
        ),
        (
            "@ SOA ns h 2 2 3 4 5",
            "4: example.test. has more than one SOA",
        ),
        (
            "a SOA ns h 2 2 3 4 5",
            "4: a.example.test. has SOA and is not the apex example.test.",
        ),
        (
            "a.other.test. A 10.0.0.1",
            "4: a.other.test. is not in the zone example.test.",
        ),
        (
            "test. A 10.0.0.1",
            "4: test. is not in the zone example.test.",
        ),
        (
            "notexample.test. A 10.0.0.1",
            "4: notexample.test. is not in the zone example.test.",
        ),
        (
            "a 2147483648 A 10.0.0.1",
            "4:3: TTL 2147483648 is above 2147483647 (RFC 2181 section 8)",
        ),
        ("a TYPE41 \\# 0", "4:3: OPT: a zone holds no such records"),
        ("a TYPE255 \\# 0", "4:3: ANY: a zone holds no such records"),
        (
            "a A \\# 3 0a0000",
            "4:5: a.example.test. A: its octets are too few: 1 more are needed",
        ),
        (
            "a A \\# 5 0a00000001",
            "4:5: a.example.test. A: its octets are 1 too many",
        ),
        (
            "a NSEC3 2 0 0 - 00 A",
            "4: NSEC3 with hash 2: only SHA-1 (1) is served",
        ),
        (
            "@ NSEC3PARAM 1 0 101 -",
            "4: NSEC3PARAM with 101 iterations: more than 100 are refused (RFC 9276)",
        ),
        (
            "@ NSEC3PARAM 1 0 1 -\na NSEC3 1 0 1 - 00 A",
            "5: a.example.test. is no hash of NSEC3",
        ),
        (
            "$INCLUDE missing.zone",
            "4:10: $INCLUDE missing.zone: No such file or directory (os error 2)",
        ),
        (
            "$INCLUDE ../../../../../../../../../../../etc/hostname",
            "4:10: $INCLUDE ../../../../../../../../../../../etc/hostname: is outside of the site",
        ),
        (
            "$INCLUDE /etc/hostname",
            "4:10: $INCLUDE /etc/hostname: is outside of the site",
        ),
        (
            "$INCLUDE example.test.zone",
            "4:10: $INCLUDE goes deeper than 16 files",
        ),
        ("a CH A 10.0.0.1", "4:3: class CH: only IN is served"),
        (
            "a A 10.0.0.1\nb TXT ( x\nc A 10.0.0.2",
            "5:7: a parenthesis is not closed",
        ),
    ] {
        let errors = errors(&zone(lines));
        let first = errors.lines().next().unwrap_or_default();
        let wanted = format!("zones/example.test.zone:{wanted}");
        assert!(first.starts_with(&wanted), "{first}\n{wanted}");
    }
}

#[test]
fn errors_say_what_was_expected_and_where() {
    let long = "x".repeat(64);
    let name = format!("{0}.{0}.{0}.{0}", "x".repeat(63));
    for (lines, wanted) in [
        (
            "a A 10.0.0",
            "4:5: a.example.test. A: expected an IPv4 address, found `10.0.0`",
        ),
        (
            "a A",
            "4:4: a.example.test. A: expected an IPv4 address, and the record ends",
        ),
        (
            "a A 10.0.0.1 x",
            "4:14: a.example.test. A: expected the end of the record, found `x`",
        ),
        (
            "a A \"10.0.0.1\"",
            "4:5: a.example.test. A: expected an IPv4 address without quotes, found `10.0.0.1`",
        ),
        (
            "a AAAA 1::2::3",
            "4:8: a.example.test. AAAA: expected an IPv6 address, found `1::2::3`",
        ),
        (
            "a BOGUS x",
            "4:3: expected a TTL, a class or a type, found `BOGUS`",
        ),
        ("a IN IN A 10.0.0.1", "4:6: expected a type, found `IN`"),
        (
            "a 5x A 10.0.0.1",
            "4:3: expected a TTL, a class or a type, found `5x`",
        ),
        (
            "a 5 6 A 10.0.0.1",
            "4:5: expected a TTL, a class or a type, found `6`",
        ),
        (
            "a 5",
            "4:4: expected a TTL, a class or a type, and the record ends",
        ),
        ("a HS A 10.0.0.1", "4:3: class HS: only IN is served"),
        (
            "a CLASS255 A 10.0.0.1",
            "4:3: class CLASS255: only IN is served",
        ),
        (
            "$BOGUS x",
            "4:1: expected $ORIGIN, $TTL, $INCLUDE or $GENERATE, found `$BOGUS` (`\\$` begins a name)",
        ),
        (
            "$TTL",
            "4:5: expected a time in seconds, or as in 1w2d3h4m5s, and the record ends",
        ),
        (
            "$TTL 1y",
            "4:6: expected a time in seconds, or as in 1w2d3h4m5s, found `1y`",
        ),
        ("$TTL 1 2", "4:8: expected the end of the record, found `2`"),
        ("$ORIGIN a..b", "4:9: `a..b` is no name: a label is empty"),
        (
            "$INCLUDE",
            "4:9: expected the name of a file, and the record ends",
        ),
        (
            &format!("a TXT \"{}\"", "x".repeat(256)),
            "4:7: a.example.test. TXT: a string has 256 octets: 255 are the most",
        ),
        (
            &format!("{long} A 10.0.0.1"),
            &format!(
                "4:1: `{}...` is no name: a label is longer than 63 octets",
                &long[..60]
            ),
        ),
        (
            &format!("{name} A 10.0.0.1"),
            &format!(
                "4:1: `{}...` is no name: it is longer than 255 octets",
                &name[..60]
            ),
        ),
        (
            "a\\1 A 10.0.0.1",
            "4:1: `a\\1` is no name: `\\` and digits are three, from \\000 to \\255",
        ),
        (
            "a TXT \\256",
            "4:7: a.example.test. TXT: `\\` and digits are three, from \\000 to \\255",
        ),
        ("a TXT \"open", "4:7: a quote is not closed"),
        ("a ( A", "4:3: a parenthesis is not closed"),
        (
            "a A 10.0.0.1 )",
            "4:14: a parenthesis is closed that was not opened",
        ),
        (
            "a MX 65536 b",
            "4:6: a.example.test. MX: expected a number from 0 to 65535, found `65536`",
        ),
        (
            "a MX +1 b",
            "4:6: a.example.test. MX: expected a number from 0 to 65535, found `+1`",
        ),
        (
            "a DS 1 FOO 2 00",
            "4:8: a.example.test. DS: expected an algorithm: its name or a number from 0 to 255, found `FOO`",
        ),
        (
            "a DS 1 8 2 0",
            "4:12: a.example.test. DS: expected octets in base 16, two digits each, found `0`",
        ),
        (
            "a DS 1 8 2",
            "4:11: a.example.test. DS: expected octets in base 16, two digits each, and the record ends",
        ),
        (
            "a DNSKEY 257 3 8 AQI",
            "4:18: a.example.test. DNSKEY: expected octets in base 64, found `AQI`",
        ),
        (
            "a NSEC b A BOGUS",
            "4:12: a.example.test. NSEC: expected a record type, found `BOGUS`",
        ),
        (
            "a SVCB 1 . ALPN=h2",
            "4:12: a.example.test. SVCB: expected the name of a parameter in lower case",
        ),
        (
            "a SVCB 1 . port=443 port=443",
            "4:21: a.example.test. SVCB: `port` is there twice",
        ),
        (
            "a SVCB 1 . port=65536",
            "4:12: a.example.test. SVCB: `port` expects a number from 0 to 65535",
        ),
        (
            "a SVCB 1 . alpn",
            "4:12: a.example.test. SVCB: `alpn` needs a value",
        ),
        (
            "a SVCB 1 . no-default-alpn",
            "4:12: a.example.test. SVCB: `no-default-alpn` needs `alpn` beside it",
        ),
        (
            "a SVCB 1 . mandatory=alpn",
            "4:12: a.example.test. SVCB: `mandatory` names `alpn`, which is not there",
        ),
        (
            "a SVCB 1 . key1=h2",
            "4:12: a.example.test. SVCB: `alpn` has a value that is not of its form",
        ),
        (
            "a SVCB 1 . key65535",
            "4:12: a.example.test. SVCB: expected the name of a parameter",
        ),
        (
            "a LOC 91 N 0 E 0",
            "4:7: a.example.test. LOC: expected degrees from 0 to 90, found `91`",
        ),
        (
            "a LOC 90 1 N 0 E 0",
            "4:7: a.example.test. LOC: expected an angle of at most 90 degrees, found `90`",
        ),
        (
            "a LOC 1 N 0 E 1km",
            "4:15: a.example.test. LOC: expected an altitude in metres, found `1km`",
        ),
        (
            "a APL 3:10.0.0.0/8",
            "4:7: a.example.test. APL: expected a prefix as 1:192.0.2.0/24",
        ),
        (
            "a IPSECKEY 1 4 2 . AQID",
            "4:18: a.example.test. IPSECKEY: expected a gateway type from 0 to 3 before this, found 4",
        ),
        (
            "a NULL x",
            "4:8: a.example.test. NULL: expected `\\#`, a length and octets in base 16",
        ),
        (
            "a TYPE65280 x",
            "4:13: a.example.test. TYPE65280: expected `\\#`",
        ),
        (
            "a TYPE65280 \\# 2 00",
            "4:18: a.example.test. TYPE65280: expected 2 octets, found 1",
        ),
        (
            "a TYPE65280 \\# x",
            "4:16: a.example.test. TYPE65280: expected a length from 0 to 65535, found `x`",
        ),
        (
            "a TYPE65536 \\# 0",
            "4:3: expected a TTL, a class or a type, found `TYPE65536`",
        ),
        (
            "a RRSIG A 8 1 1 20300230000000 1 1 b AQID",
            "4:17: a.example.test. RRSIG: expected a date as YYYYMMDDHHmmSS",
        ),
        (
            "$GENERATE 3-1 a A 10.0.0.$",
            "4:11: expected a range as 1-127 or 0-254/2",
        ),
        (
            "$GENERATE 1-3 a A",
            "4:1: expected `$GENERATE RANGE OWNER [TTL] [CLASS] TYPE DATA`",
        ),
        (
            "$GENERATE 0-2147483647 a A 10.0.0.1",
            "4:11: this range has 2147483648 numbers: 1048576 are the most",
        ),
        (
            "$GENERATE 255-256 a$ A 10.0.0.$",
            "4:1: generates `a256 A 10.0.0.256`: a256.example.test. A: expected an IPv4 address",
        ),
        (
            "$GENERATE 1-2 a${0,0,q} A 10.0.0.1",
            "4:1: `${0,0,q}` is not `${OFFSET[,WIDTH[,BASE]]}`",
        ),
    ] {
        let errors = errors(&zone(lines));
        let first = errors.lines().next().unwrap_or_default();
        let wanted = format!("zones/example.test.zone:{wanted}");
        assert!(first.starts_with(&wanted), "{first}\n{wanted}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn all_errors_are_told() {
    let lines = "a A 10.0.0\n  A 10.0.0.1\nb TXT (\n  \"x\" ) oops )\nc A 1.2.3.4.5\nd A 10.0.0.1\nd CNAME c";
    let errors = errors(&zone(lines));
    let lines: Vec<_> = errors
        .lines()
        .map(|line| line.split(':').nth(1).unwrap_or_default())
        .collect();
    assert_eq!(lines, ["4", "7", "8", "9"], "{errors}");

    let errors = common::errors(&zone(&"x A oops\n".repeat(200)));
    assert!(errors.ends_with("the rest was not looked at"), "{errors}");
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(500))]

    #[test]
    fn no_text_stops_the_packer(
        parts in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![
                "@", "a", "IN", "CH", "60", "1h", "A", "TXT", "SOA", "CNAME", "NSEC3", "SVCB", "10.0.0.1", "\"", "\"x\"", "(", ")",
                "\n", "\r\n", "\n ", " ", "\t", ";", "\\#", "\\", "\\1", "\\065", "$TTL", "$ORIGIN", "$INCLUDE", ".", "..", "\0", "4", "ff", "é",
            ]).prop_map(str::to_owned),
            "[ -~]{0,8}",
        ], 0..60),
        spaced: bool,
    ) {
        let text = parts.join(if spaced { " " } else { "" });
        for files in [zone(&text), [("zones/t.zone", text)]] {
            // What is packed is read as the guest does.
            if let Ok((octets, _)) = common::pack(&files) {
                prop_assert_eq!(mayfly_pack::check(&octets).err(), None);
            }
        }
    }
}

#[test]
fn zones_have_an_apex() {
    for (file, wanted) in [
        ("a 5 A 10.0.0.1\n", "the zone has no SOA record"),
        (
            "@ SOA ns h 1 2 3 4 5\n",
            "the zone has no NS record at its apex",
        ),
        ("", "the zone has no SOA record"),
    ] {
        let errors = errors(&[("zones/example.test.zone", file)]);
        assert_eq!(errors, format!("zones/example.test.zone: {wanted}"));
    }
    let file = "$ORIGIN b.test.\n@ SOA ns h 1 2 3 4 5\n@ NS ns\n";
    let errors = errors(&[("zones/a.test.zone", file), ("zones/b.test.zone", file)]);
    assert_eq!(
        errors,
        "zones/b.test.zone:2: the zone b.test. is in zones/a.test.zone as well"
    );
    let errors = common::errors(&[("zones/a..b.zone", file)]);
    assert!(errors.starts_with("zones/a..b.zone: its name without `.zone` is not a domain name: "));
    let errors = common::errors(&[
        ("zones/b.test.zone", file),
        ("mayfly.toml", "\n[zones.\"a.test\"]\ntransfer = true\n"),
    ]);
    assert_eq!(errors, "mayfly.toml:2: there is no zone `a.test`");
}

#[test]
fn what_may_not_be_meant() {
    for (lines, wanted) in [
        (
            "a 1 A 10.0.0.1\na 2 A 10.0.0.2",
            "5: a.example.test. A has TTLs 1 and 2: the lowest is taken (RFC 2181 section 5.2)",
        ),
        (
            "a A 10.0.0.1\na A 10.0.0.1",
            "5: a.example.test. A is there twice",
        ),
        (
            "a RRSIG A 13 3 60 20501231000000 20260101000000 1 x AAAA",
            "4: a.example.test. has RRSIG of A, but no A: left out",
        ),
    ] {
        assert_eq!(
            warnings(&zone(lines)),
            format!("zones/example.test.zone:{wanted}")
        );
    }
    let file = "$ORIGIN b.test.\n@ 5 SOA ns h 1 2 3 4 5\n@ NS ns\n";
    assert_eq!(
        warnings(&[("zones/a.test.zone", file)]),
        "zones/a.test.zone:2: the zone is b.test., and the file is named as a.test."
    );
}

/// The RDATA and TTL of a set in the only zone.
fn ask(octets: &[u8], name: &str, rtype: u16) -> (u32, Vec<Vec<u8>>) {
    let pack = Pack::open(octets).unwrap();
    let name = common::wire(name);
    let zone = pack.zone(&name).unwrap().unwrap();
    let found = pack.closest_encloser(zone, &name).unwrap();
    assert_eq!(found.at, 0);
    let set = pack.rrset(found.node, rtype).unwrap().unwrap();
    (set.ttl, records(set.rdata).map(<[u8]>::to_vec).collect())
}

#[test]
fn directives_and_forms() {
    let octets = packed(&[
        (
            "zones/example.test.zone",
            "; a comment\n$TTL 1h\n@ IN SOA ns h (\n 1 ; serial\n 1d 2 3 4 )\n  IN NS ns\n\
             a 5 IN A 10.0.0.1\n  A 10.0.0.2\n\
             b IN 6 TXT ( \"one\"\n  two )\n$ORIGIN sub\nc A 10.0.0.3\n\
             $INCLUDE parts/more.inc other.test.example.test.\n$INCLUDE parts/more.inc\n\
             d TYPE1 \\# 4 0A000004\ne A \\# 4 0a 00 00 05\nf TYPE65280 \\# 0\n$TTL 9\ng A 10.0.0.7",
        ),
        (
            "zones/parts/more.inc",
            "x A 10.0.0.8\r\n$ORIGIN y\r\nz 7 A 10.0.0.9\r\n$TTL 1\r\n$INCLUDE ../last.inc",
        ),
        ("zones/last.inc", "last A 10.0.0.10"),
    ]);
    for (name, rtype, ttl, rdata) in [
        (
            "a.example.test",
            1,
            5,
            vec![vec![10, 0, 0, 1], vec![10, 0, 0, 2]],
        ),
        ("b.example.test", 16, 6, vec![b"\x03one\x03two".to_vec()]),
        ("c.sub.example.test", 1, 3600, vec![vec![10, 0, 0, 3]]),
        (
            "x.other.test.example.test",
            1,
            3600,
            vec![vec![10, 0, 0, 8]],
        ),
        ("z.y.other.test.example.test", 1, 7, vec![vec![10, 0, 0, 9]]),
        ("x.sub.example.test", 1, 3600, vec![vec![10, 0, 0, 8]]),
        ("z.y.sub.example.test", 1, 7, vec![vec![10, 0, 0, 9]]),
        ("last.y.sub.example.test", 1, 1, vec![vec![10, 0, 0, 10]]),
        ("d.sub.example.test", 1, 3600, vec![vec![10, 0, 0, 4]]),
        ("e.sub.example.test", 1, 3600, vec![vec![10, 0, 0, 5]]),
        ("f.sub.example.test", 65280, 3600, vec![vec![]]),
        ("g.sub.example.test", 1, 9, vec![vec![10, 0, 0, 7]]),
    ] {
        assert_eq!(ask(&octets, name, rtype), (ttl, rdata), "{name}");
    }
    let (_, soa) = ask(&octets, "example.test", 6);
    let numbers = &soa[0][soa[0].len() - 20..];
    assert_eq!(numbers[4..8], 86_400_u32.to_be_bytes());
}

/// What is printed of these files, but the SOA and NS records of the apex; tabs are blanks.
fn printed<C: AsRef<[u8]>>(files: &[(&str, C)]) -> Vec<String> {
    let octets = packed(files);
    let mut text = Vec::new();
    mayfly_pack::print_records(&Pack::open(&octets).unwrap(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap().replace('\t', " ");
    let apex = |line: &&str| !line.contains(" SOA ") && !line.contains(" NS ");
    text.lines().filter(apex).map(str::to_owned).collect()
}

const HEAD: &str = "$TTL 1h\n@ SOA ns h 7 2h 15m 3w 5m\n@ NS ns\n";

#[test]
fn included_files_go_on_where_the_including_one_is() {
    let blank = "   AAAA 2001:db8::1\n$TTL 9\n$ORIGIN y\nz A 192.0.2.9\n";
    let main = "www A 192.0.2.1\n$INCLUDE \"parts/with space.inc\" ; comment\n  TXT back\nb A 192.0.2.2\n\
                $INCLUDE parts/with\\032space.inc sub\n$include ( \"parts/with space.inc\"\n sub.t. )";
    assert_eq!(
        printed(&[
            ("zones/t.zone", format!("{HEAD}{main}").as_str()),
            ("zones/parts/with space.inc", blank),
        ]),
        [
            "b.t. 3600 IN A 192.0.2.2",
            "b.t. 3600 IN AAAA 2001:db8::1",
            "z.y.sub.t. 9 IN A 192.0.2.9",
            "www.t. 3600 IN A 192.0.2.1",
            "www.t. 3600 IN TXT \"back\"",
            "www.t. 3600 IN AAAA 2001:db8::1",
            "z.y.t. 9 IN A 192.0.2.9",
        ]
    );
}

#[test]
fn ttls_come_from_what_is_before() {
    for (head, lines, wanted) in [
        // $TTL, with a comment right behind it.
        (
            "$TTL 86400;one day\n@ SOA ns h 7 1 1 1 5\n@ NS ns\n",
            "a A 192.0.2.1\nb 5 A 192.0.2.1\nc A 192.0.2.1",
            [86400, 5, 86400],
        ),
        // The last one that was said (RFC 1035 section 5.1).
        (
            "@ 300 IN SOA ns h 7 1 1 1 5\n@ NS ns\n",
            "a A 192.0.2.1\nb IN 1h A 192.0.2.1\nc A 192.0.2.1",
            [300, 3600, 3600],
        ),
        // MINIMUM, as BIND has it.
        (
            "@ SOA ns h 7 1 1 1 5\n@ NS ns\n",
            "a A 192.0.2.1\nb 6 A 192.0.2.1\nc A 192.0.2.1",
            [5, 6, 5],
        ),
    ] {
        let lines = lines.to_owned();
        let included = printed(&[
            ("zones/t.zone", format!("{head}$INCLUDE x")),
            ("zones/x", lines.clone()),
        ]);
        let plain = printed(&[("zones/t.zone", format!("{head}{lines}"))]);
        let [a, b, c] = wanted;
        let wanted = [("a", a), ("b", b), ("c", c)]
            .map(|(name, ttl)| format!("{name}.t. {ttl} IN A 192.0.2.1"));
        assert_eq!(plain, wanted);
        assert_eq!(included, wanted);
    }
    assert_eq!(
        warnings(&[("zones/t.zone", "@ SOA ns h 7 1 1 1 5\n@ NS ns\n")]),
        "zones/t.zone:1: there is no TTL: MINIMUM, 5, is taken where none is said (write $TTL 5 before it)"
    );
    assert_eq!(
        errors(&[("zones/t.zone", "@ NS ns\n@ 5 SOA ns h 7 1 1 1 5\n")]),
        "zones/t.zone:1:1: expected a TTL, as neither $TTL nor a record with one is before it"
    );
}

#[test]
fn classes_numbers_and_the_origin() {
    let lines = "a CLASS1 1h A 192.0.2.1\nb 1h class1 TYPE1 192.0.2.1\nc CLASS1 CNAME @\nd in type2 @\ne TYPE15 10 @\n\
                 $ORIGIN @\n@ TXT @ \\@ \"@\"\n\\@ A 192.0.2.1\n$ORIGIN f\n@ A 192.0.2.1\n\\$g\tA (192.0.2.1);(\n( h\n A ) 192.0.2.1\n";
    assert_eq!(
        printed(&[("zones/t.zone", format!("{HEAD}{lines}"))]),
        [
            "t. 3600 IN TXT \"@\" \"@\" \"@\"",
            "\\@.t. 3600 IN A 192.0.2.1",
            "a.t. 3600 IN A 192.0.2.1",
            "b.t. 3600 IN A 192.0.2.1",
            "c.t. 3600 IN CNAME t.",
            "e.t. 3600 IN MX 10 t.",
            "f.t. 3600 IN A 192.0.2.1",
            "\\$g.f.t. 3600 IN A 192.0.2.1",
            "h.f.t. 3600 IN A 192.0.2.1",
        ]
    );
}

#[test]
fn byte_order_marks_and_ends_of_lines() {
    let plain = format!("{HEAD}a TXT ( x ; y\n \"z\" )\nb A 192.0.2.1\n");
    let wanted = printed(&[("zones/t.zone", &plain)]);
    for other in [
        format!("\u{feff}{plain}"),
        plain.replace('\n', "\r\n"),
        plain.replace('\n', "\r"),
        plain.trim_end().to_owned(),
        plain.replace(' ', "\t"),
    ] {
        assert_eq!(printed(&[("zones/t.zone", &other)]), wanted, "{other:?}");
    }
    let wide: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let errors = errors(&[("zones/t.zone", [&[0xff, 0xfe][..], &wide].concat())]);
    assert!(
        errors.starts_with("zones/t.zone:1: begins with the byte order mark of UTF-16"),
        "{errors}"
    );
}

#[test]
fn generated_records() {
    let lines = "$GENERATE 1-3 $ CNAME $.0/25\n$GENERATE 0-4/2 h${-0,3} 5 IN A 192.0.2.$ ; comment\n$GENERATE 1-2 m$ MX \"$ .\"\n\
                 $GENERATE 1-2 u$ TXT \"a b$\" \\$\n$GENERATE 1-1 v$ TXT \"\\\"a b$\\\"\"\n$generate 10-11 ${0,3,n} PTR x${6,0,x}\n$GENERATE 7-7 @ TXT $\n";
    assert_eq!(
        printed(&[("zones/t.zone", format!("{HEAD}{lines}"))]),
        [
            "t. 3600 IN TXT \"7\"",
            "a.0.t. 3600 IN PTR x10.t.",
            "b.0.t. 3600 IN PTR x11.t.",
            "1.t. 3600 IN CNAME 1.0/25.t.",
            "2.t. 3600 IN CNAME 2.0/25.t.",
            "3.t. 3600 IN CNAME 3.0/25.t.",
            "h000.t. 5 IN A 192.0.2.0",
            "h002.t. 5 IN A 192.0.2.2",
            "h004.t. 5 IN A 192.0.2.4",
            "m1.t. 3600 IN MX 1 .",
            "m2.t. 3600 IN MX 2 .",
            "u1.t. 3600 IN TXT \"a b1\" \"$\"",
            "u2.t. 3600 IN TXT \"a b2\" \"$\"",
            "v1.t. 3600 IN TXT \"a b1\"",
        ]
    );
}

#[test]
fn names_are_the_same_whatever_the_case() {
    let lines = "@ NS NS\nwww CNAME web.example.\nWWW CNAME Web.Example.\nmail MX 10 mx.o.\nMAIL MX 10 MX.O.\n\
                 _x._tcp SRV 0 0 80 a\n_x._tcp SRV 0 0 80 A\ns SVCB 1 a alpn=h2\ns SVCB 1 A alpn=h2\ns SVCB 1 a alpn=H2\n\
                 txt TXT a\ntxt TXT A\nz IPSECKEY 1 3 2 gw AQID\nz IPSECKEY 1 3 2 GW AQID";
    let files = [("zones/t.zone", format!("{HEAD}{lines}"))];
    assert_eq!(
        printed(&files),
        [
            "_x._tcp.t. 3600 IN SRV 0 0 80 a.t.",
            "mail.t. 3600 IN MX 10 mx.o.",
            "s.t. 3600 IN SVCB 1 a.t. alpn=\"h2\"",
            "s.t. 3600 IN SVCB 1 a.t. alpn=\"H2\"",
            "txt.t. 3600 IN TXT \"a\"",
            "txt.t. 3600 IN TXT \"A\"",
            "www.t. 3600 IN CNAME web.example.",
            "z.t. 3600 IN IPSECKEY 1 3 2 gw.t. AQID",
        ]
    );
    let twice = warnings(&files);
    assert_eq!(twice.lines().count(), 6, "{twice}");
    let both = errors(&[("zones/t.zone", format!("{HEAD}a CNAME b\nA A 192.0.2.1"))]);
    assert_eq!(
        both,
        "zones/t.zone:5: A.t. has CNAME beside A (RFC 1034 section 3.6.2)"
    );
}

#[test]
fn files_that_are_not_taken_are_named() {
    let named = |file: &str| {
        format!("{file}: looks like a zone and is not packed: zones are files zones/NAME.zone")
    };
    let files = [
        ("zones/t.zone", format!("{HEAD}$INCLUDE parts/included\n")),
        ("zones/parts/included", "$TTL 5\na A 192.0.2.1\n".to_owned()),
        ("zones/parts/not", "$TTL 5\na A 192.0.2.1\n".to_owned()),
        ("zones/.#t.zone", HEAD.to_owned()),
        ("zones/._t.zone", "\0\x05".to_owned()),
        ("zones/u.zone.signed", HEAD.to_owned()),
        ("zones/db.v", "@ IN SOA ns h (\n 1 2 3 4 5 )\n".to_owned()),
        ("zones/W.ZONE", HEAD.to_owned()),
        ("zones/sub/x.zone", HEAD.to_owned()),
        ("y.zone", HEAD.to_owned()),
        (
            "zones/README",
            "These zones have a SOA record each.\n".to_owned(),
        ),
        ("zones/k.key", "t. IN DNSKEY 257 3 8 AQID\n".to_owned()),
    ];
    let hidden = "is left out, as its name begins with a dot";
    assert_eq!(
        warnings(&files).lines().collect::<Vec<_>>(),
        [
            format!("zones/.#t.zone: {hidden}"),
            format!("zones/._t.zone: {hidden}"),
            named("zones/W.ZONE"),
            named("zones/db.v"),
            named("zones/parts/not"),
            named("zones/sub/x.zone"),
            named("zones/u.zone.signed"),
            named("y.zone"),
        ]
    );
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let site = common::folder(&[("zones/t.zone", HEAD)]);
    std::fs::create_dir(site.path().join("zones/folder.zone")).unwrap();
    for pipe in ["zones/pipe.zone", "zones/pipe", "mayfly.toml"] {
        std::process::Command::new("mkfifo")
            .arg(site.path().join(pipe))
            .status()
            .unwrap();
    }
    std::fs::write(
        site.path().join("zones/u.zone"),
        format!("{HEAD}$INCLUDE pipe\n"),
    )
    .unwrap();
    let problems = mayfly_pack::pack_dir(site.path(), &common::options())
        .err()
        .unwrap();
    assert_eq!(
        problems.to_string().lines().collect::<Vec<_>>(),
        [
            "mayfly.toml: cannot be read: it is not a regular file",
            "zones/folder.zone: cannot be read: it is not a regular file",
            "zones/pipe.zone: cannot be read: it is not a regular file",
            "zones/pipe: cannot be read: it is not a regular file",
        ]
    );
}
