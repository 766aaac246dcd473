//! Errors in zones are reported with file and line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{errors, warnings};
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
            "4:5: a.example.test. A: its bytes are too few: 1 more are needed",
        ),
        (
            "a A \\# 5 0a00000001",
            "4:5: a.example.test. A: its bytes are 1 too many",
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
            "5: a.example.test. is not an NSEC3 hash",
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
        (
            "$ORIGIN a..b",
            "4:9: `a..b` is not a domain name: a label is empty",
        ),
        (
            "$INCLUDE",
            "4:9: expected the name of a file, and the record ends",
        ),
        (
            &format!("a TXT \"{}\"", "x".repeat(256)),
            "4:7: a.example.test. TXT: a string has 256 bytes: 255 are the most",
        ),
        (
            &format!("{long} A 10.0.0.1"),
            &format!(
                "4:1: `{}...` is not a domain name: a label is longer than 63 bytes",
                &long[..60]
            ),
        ),
        (
            &format!("{name} A 10.0.0.1"),
            &format!(
                "4:1: `{}...` is not a domain name: it is longer than 255 bytes",
                &name[..60]
            ),
        ),
        (
            "a\\1 A 10.0.0.1",
            "4:1: `a\\1` is not a domain name: `\\` and digits are three, from \\000 to \\255",
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
            "4:12: a.example.test. DS: expected bytes in base 16, two digits each, found `0`",
        ),
        (
            "a DS 1 8 2",
            "4:11: a.example.test. DS: expected bytes in base 16, two digits each, and the record ends",
        ),
        (
            "a DNSKEY 257 3 8 AQI",
            "4:18: a.example.test. DNSKEY: expected bytes in base 64, found `AQI`",
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
            "4:21: a.example.test. SVCB: `port` is repeated",
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
            "4:8: a.example.test. NULL: expected `\\#`, a length and bytes in base 16",
        ),
        (
            "a TYPE65280 x",
            "4:13: a.example.test. TYPE65280: expected `\\#`",
        ),
        (
            "a TYPE65280 \\# 2 00",
            "4:18: a.example.test. TYPE65280: expected 2 bytes, found 1",
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
            // A packed zone is read as the guest does.
            if let Ok((bytes, _)) = common::pack(&files) {
                prop_assert_eq!(mayfly_pack::check(&bytes).err(), None);
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
            "5: a.example.test. A is a duplicate",
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
