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
            "4: TTL 2147483648 is above 2147483647 (RFC 2181 section 8)",
        ),
        (
            "a TYPE41 \\# 0",
            "4: a.example.test. OPT: a zone holds no such records",
        ),
        (
            "a TYPE255 \\# 0",
            "4: a.example.test. ANY: a zone holds no such records",
        ),
        (
            "a A \\# 3 0a0000",
            "4: a.example.test. A: its octets are unexpected end of input",
        ),
        (
            "a A \\# 5 0a00000001",
            "4: a.example.test. A: its octets are too many",
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
            "4: $INCLUDE missing.zone: No such file or directory (os error 2)",
        ),
        (
            "$INCLUDE ../../../../../../../../../../../etc/hostname",
            "4: $INCLUDE ../../../../../../../../../../../etc/hostname: is outside of the site",
        ),
        (
            "$INCLUDE /etc/hostname",
            "4: $INCLUDE /etc/hostname: is outside of the site",
        ),
        (
            "$INCLUDE example.test.zone",
            "4: $INCLUDE goes deeper than 16 files",
        ),
        ("a CH A 10.0.0.1", "4: different class"),
        (
            "a A 10.0.0.1\nb TXT ( x\nc A 10.0.0.2",
            "5: a parenthesis or a quote is not closed",
        ),
    ] {
        let errors = errors(&zone(lines));
        let first = errors.lines().next().unwrap_or_default();
        let wanted = format!("zones/example.test.zone:{wanted}");
        assert!(first.starts_with(&wanted), "{first}\n{wanted}");
    }
}

#[test]
fn what_the_parser_refuses() {
    for lines in [
        "a A 10.0.0",
        "a A",
        "a BOGUS x",
        "$BOGUS x",
        &format!("a TXT \"{}\"", "x".repeat(256)),
        &format!("{} A 10.0.0.1", "x".repeat(64)),
        &format!("{0}.{0}.{0}.{0} A 10.0.0.1", "x".repeat(63)),
        "a TXT \"open",
        "a ( A",
    ] {
        let errors = errors(&zone(lines));
        assert!(
            errors.starts_with("zones/example.test.zone:4: ")
                || lines.contains(['"', '(']) && errors.starts_with("zones/example.test.zone:"),
            "{lines}: {errors}"
        );
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
            if let Err(problems) = common::pack(&files) {
                prop_assert!(!problems.to_string().contains("gave up"), "{}", problems);
            }
        }
    }
}

#[test]
fn zones_have_an_apex() {
    for (file, wanted) in [
        ("a A 10.0.0.1\n", "the zone has no SOA record"),
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
    let file = "$ORIGIN b.test.\n@ SOA ns h 1 2 3 4 5\n@ NS ns\n";
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
