//! Zone files in the wild: what is read, and what is reported.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{errors, packed, warnings};
use mayfly_site::{Pack, Zones, records};

/// The RDATA and TTL of an RRset in the only zone.
fn ask(bytes: &[u8], name: &str, rtype: u16) -> (u32, Vec<Vec<u8>>) {
    let pack = Pack::open(bytes).unwrap();
    let name = common::wire(name);
    let zone = pack.zone(&name).unwrap().unwrap();
    let found = pack.closest_encloser(zone, &name).unwrap();
    assert_eq!(found.at, 0);
    let set = pack.rrset(found.node, rtype).unwrap().unwrap();
    (set.ttl, records(set.rdata).map(<[u8]>::to_vec).collect())
}

#[test]
fn directives_and_forms() {
    let bytes = packed(&[
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
        ("x.sub.example.test", 1, 1, vec![vec![10, 0, 0, 8]]),
        ("z.y.sub.example.test", 1, 7, vec![vec![10, 0, 0, 9]]),
        ("last.y.sub.example.test", 1, 1, vec![vec![10, 0, 0, 10]]),
        ("d.sub.example.test", 1, 1, vec![vec![10, 0, 0, 4]]),
        ("e.sub.example.test", 1, 1, vec![vec![10, 0, 0, 5]]),
        ("f.sub.example.test", 65280, 1, vec![vec![]]),
        ("g.sub.example.test", 1, 9, vec![vec![10, 0, 0, 7]]),
    ] {
        assert_eq!(ask(&bytes, name, rtype), (ttl, rdata), "{name}");
    }
    let (_, soa) = ask(&bytes, "example.test", 6);
    let numbers = &soa[0][soa[0].len() - 20..];
    assert_eq!(numbers[4..8], 86_400_u32.to_be_bytes());
}

/// The printed records of these files, without the SOA and NS records of the apex; tabs are replaced by spaces.
fn printed<C: AsRef<[u8]>>(files: &[(&str, C)]) -> Vec<String> {
    let bytes = packed(files);
    let mut text = Vec::new();
    mayfly_pack::print_records(&Pack::open(&bytes).unwrap(), &mut text).unwrap();
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
            "b.t. 9 IN A 192.0.2.2",
            "b.t. 9 IN AAAA 2001:db8::1",
            "z.y.sub.t. 9 IN A 192.0.2.9",
            "www.t. 3600 IN A 192.0.2.1",
            "www.t. 9 IN TXT \"back\"",
            "www.t. 3600 IN AAAA 2001:db8::1",
            "z.y.t. 9 IN A 192.0.2.9",
        ]
    );
}

#[test]
fn ttls_go_on_from_an_included_file() {
    let records = "@ NS ns\na A 192.0.2.1\n";
    for (included, ttl) in [
        // A file of the directive alone, and the SOA record in a file of its own, as scripts write it.
        ("$TTL 77\n@ SOA ns h 7 1 1 1 5\n", 77),
        ("@ 77 SOA ns h 7 1 1 1 5\n", 77),
        ("@ SOA ns h 7 1 1 1 5\n", 5),
        ("@ 8 SOA ns h 7 1 1 1 5\nb 77 TXT x\n", 77),
    ] {
        let found = printed(&[
            ("zones/t.zone", format!("$INCLUDE x\n{records}")),
            ("zones/x", included.to_owned()),
        ]);
        let wanted = format!("a.t. {ttl} IN A 192.0.2.1");
        assert!(found.contains(&wanted), "{included}: {found:?}");
    }
}

#[test]
fn an_included_file_is_found_beside_either_file() {
    let main = format!("{HEAD}$INCLUDE parts/x\n");
    let files = |more: &[(&'static str, &'static str)]| {
        let mut all = vec![("zones/t.zone", main.as_str())];
        all.push(("zones/parts/x", "$INCLUDE y\n"));
        all.extend(more);
        all
    };
    for folder in ["zones/y", "zones/parts/y"] {
        let found = printed(&files(&[(folder, "a A 192.0.2.1\n")]));
        assert_eq!(found, ["a.t. 3600 IN A 192.0.2.1"], "{folder}");
    }
    let both = files(&[
        ("zones/y", "a A 192.0.2.1\n"),
        ("zones/parts/y", "a A 192.0.2.2\n"),
    ]);
    assert_eq!(printed(&both), ["a.t. 3600 IN A 192.0.2.2"]);
    let warned = warnings(&both);
    let expected = "zones/parts/x:1: $INCLUDE y: is zones/parts/y, and not zones/y";
    assert!(warned.starts_with(expected), "{warned}");
}

#[test]
fn an_owner_may_be_quoted() {
    let lines = "\"a\" A 192.0.2.1\n\"b c\" A 192.0.2.2\n\"$d\" A 192.0.2.3\n";
    assert_eq!(
        printed(&[("zones/t.zone", format!("{HEAD}{lines}"))]),
        [
            "\\$d.t. 3600 IN A 192.0.2.3",
            "a.t. 3600 IN A 192.0.2.1",
            "b\\032c.t. 3600 IN A 192.0.2.2",
        ]
    );
}

#[test]
fn ttls_come_from_what_is_before() {
    for (head, lines, wanted) in [
        // $TTL, directly followed by a comment.
        (
            "$TTL 86400;one day\n@ SOA ns h 7 1 1 1 5\n@ NS ns\n",
            "a A 192.0.2.1\nb 5 A 192.0.2.1\nc A 192.0.2.1",
            [86400, 5, 86400],
        ),
        // The last TTL given (RFC 1035 section 5.1).
        (
            "@ 300 IN SOA ns h 7 1 1 1 5\n@ NS ns\n",
            "a A 192.0.2.1\nb IN 1h A 192.0.2.1\nc A 192.0.2.1",
            [300, 3600, 3600],
        ),
        // MINIMUM, as BIND does.
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
        "zones/t.zone:1: there is no TTL, so MINIMUM, 5, is the default (write $TTL 5 before it)"
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
fn records_after_generated_ones_go_on_from_before_them() {
    let lines = "b 7 A 192.0.2.9\n$GENERATE 1-2 h$ 60 A 192.0.2.$\n  TXT x\n";
    let head = "@ 5 SOA ns h 7 2h 15m 3w 5m\n@ NS ns\n";
    assert_eq!(
        printed(&[("zones/t.zone", format!("{head}{lines}"))]),
        [
            "b.t. 7 IN A 192.0.2.9",
            "b.t. 7 IN TXT \"x\"",
            "h1.t. 60 IN A 192.0.2.1",
            "h2.t. 60 IN A 192.0.2.2",
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
    let hidden = "is left out, because its name begins with a dot";
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
