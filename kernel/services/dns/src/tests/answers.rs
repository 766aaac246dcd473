//! Answers: RFC 1034, 2181, 2308, 4343, 4592, 6672, 8020, 8482, 9471.

use super::*;

/// A table: a question, and the answer over UDP and TCP, in which names end in `~` for
/// `example.test.`, `NS+` is the zone's NS set and `GLUE+` are their addresses, `N` is the negative
/// SOA record.
fn check(table: &[(&str, u16, &str)]) {
    let zones = zones();
    for (name, qtype, expected) in table {
        let name = name.replace('~', "example.test");
        let expected = expected
            .replace(
                "NS+",
                "~ 3600 NS ns1.~, ~ 3600 NS ns2.~, ~ 3600 NS ns.elsewhere.example.",
            )
            .replace(
                "GLUE+",
                "ns1.~ 3600 A 192.0.2.1, ns2.~ 3600 A 192.0.2.2, ns1.~ 3600 AAAA 2001:db8::1",
            )
            .replace("NEG", "~ 300 SOA ns1.~ hostmaster.~ 7 3600 900 604800 300")
            .replace('~', "example.test.");
        for transport in [Transport::Udp, Transport::Tcp] {
            let response = ask(&zones, &query(&name, *qtype), transport).unwrap();
            assert_eq!(sections(&response).join("; "), expected, "{name} {qtype}");
            // The header has nothing else, and an OPT is answered with an OPT.
            let response = ask(&zones, &query_edns(&name, *qtype, 1232, 0), transport).unwrap();
            let mut with_opt = sections(&response);
            let additional = with_opt.pop().unwrap();
            let additional = additional.strip_suffix("OPT . 1232 0x0 \"\"").unwrap();
            with_opt.push(additional.trim_end_matches(", ").into());
            assert_eq!(with_opt.join("; "), expected, "{name} {qtype}");
        }
    }
}

#[test]
fn table() {
    check(&[
        // Data, whose owner has the case of the question; with the zone's servers, and addresses of names in it
        (
            "web.~",
            A,
            "0 qr aa rd; web.~ 3600 A 192.0.2.80, web.~ 3600 A 192.0.2.81; NS+; GLUE+",
        ),
        (
            "Mixed.Case.~",
            A,
            "0 qr aa rd; Mixed.Case.~ 3600 A 192.0.2.3; NS+; GLUE+",
        ),
        (
            "mIxEd.CaSe.~",
            A,
            "0 qr aa rd; mIxEd.CaSe.~ 3600 A 192.0.2.3; NS+; GLUE+",
        ),
        ("~", NS, "0 qr aa rd; NS+; ; GLUE+"),
        (
            "~",
            SOA,
            "0 qr aa rd; ~ 3600 SOA ns1.~ hostmaster.~ 7 3600 900 604800 300; NS+; GLUE+",
        ),
        (
            "~",
            MX,
            "0 qr aa rd; ~ 3600 MX 10 mail.~, ~ 3600 MX 20 wild-mx.wild.~, ~ 3600 MX 30 host.sub.~; NS+; mail.~ 3600 A 192.0.2.25, wild-mx.wild.~ 3600 A 192.0.2.4, ns1.~ 3600 A 192.0.2.1, ns2.~ 3600 A 192.0.2.2, mail.~ 3600 AAAA 2001:db8::25, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        (
            "~",
            TXT,
            "0 qr aa rd; ~ 3600 16 \"\\x03one\\x03two\"; NS+; GLUE+",
        ),
        (
            "ns1.~",
            A,
            "0 qr aa rd; ns1.~ 3600 A 192.0.2.1; NS+; ns2.~ 3600 A 192.0.2.2, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        (
            "unknown.~",
            65280,
            "0 qr aa rd; unknown.~ 3600 65280 \"\\n\\x00\\x00\\x01\"; NS+; GLUE+",
        ),
        (
            "_sip._tcp.~",
            SRV,
            "0 qr aa rd; _sip._tcp.~ 3600 SRV [1, 2, 5060] mail.~, _sip._tcp.~ 3600 SRV [2, 2, 5060] web.~; NS+; mail.~ 3600 A 192.0.2.25, web.~ 3600 A 192.0.2.80, web.~ 3600 A 192.0.2.81, ns1.~ 3600 A 192.0.2.1, ns2.~ 3600 A 192.0.2.2, mail.~ 3600 AAAA 2001:db8::25, web.~ 3600 AAAA 2001:db8::80, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        (
            "https.~",
            HTTPS,
            "0 qr aa rd; https.~ 3600 65 \"\\x00\\x01\\x03web\\x07example\\x04test\\x00\\x00\\x01\\x00\\x03\\x02h2\"; NS+; web.~ 3600 A 192.0.2.80, web.~ 3600 A 192.0.2.81, ns1.~ 3600 A 192.0.2.1, ns2.~ 3600 A 192.0.2.2, web.~ 3600 AAAA 2001:db8::80, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        (
            "kx.~",
            KX,
            "0 qr aa rd; kx.~ 3600 36 \"\\x00\\n\\x04mail\\x07example\\x04test\\x00\"; NS+; mail.~ 3600 A 192.0.2.25, ns1.~ 3600 A 192.0.2.1, ns2.~ 3600 A 192.0.2.2, mail.~ 3600 AAAA 2001:db8::25, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        (
            "minfo.~",
            MINFO,
            "0 qr aa rd; minfo.~ 3600 MINFO mail.~ hostmaster.~; NS+; GLUE+",
        ),
        (
            "rev.~",
            PTR,
            "0 qr aa rd; rev.~ 3600 PTR Mixed.Case.~; NS+; GLUE+",
        ),
        (
            "nullmx.~",
            MX,
            "0 qr aa rd; nullmx.~ 3600 MX 0 .; NS+; GLUE+",
        ),
        // Names that exist but have no such type, and names that do not exist
        ("web.~", MX, "0 qr aa rd; ; NEG; "),
        ("_tcp.~", A, "0 qr aa rd; ; NEG; "),
        ("ent.~", A, "0 qr aa rd; ; NEG; "),
        ("b.ent.~", TXT, "0 qr aa rd; ; NEG; "),
        ("nothing.~", A, "3 qr aa rd; ; NEG; "),
        ("NoThing.Mixed.~", A, "3 qr aa rd; ; NEG; "),
        ("a.b.c.~", A, "3 qr aa rd; ; NEG; "),
        ("x.web.~", A, "3 qr aa rd; ; NEG; "),
        ("xweb.~", A, "3 qr aa rd; ; NEG; "),
        // ANY: one set (RFC 8482 section 4.1)
        (
            "~",
            ANY,
            "0 qr aa rd; ~ 3600 SOA ns1.~ hostmaster.~ 7 3600 900 604800 300; ; ",
        ),
        ("www.~", ANY, "0 qr aa rd; www.~ 3600 CNAME web.~; ; "),
        ("mail.~", ANY, "0 qr aa rd; mail.~ 3600 A 192.0.2.25; ; "),
        (
            "unknown.~",
            ANY,
            "0 qr aa rd; unknown.~ 3600 65280 \"\\n\\x00\\x00\\x01\"; ; ",
        ),
        ("ent.~", ANY, "0 qr aa rd; ; NEG; "),
        ("nothing.~", ANY, "3 qr aa rd; ; NEG; "),
        // Wildcards. They do not cover names that exist, including empty non-terminals (RFC 4592)
        (
            "x.wild.~",
            A,
            "0 qr aa rd; x.wild.~ 3600 A 192.0.2.4; NS+; GLUE+",
        ),
        (
            "x.y.wild.~",
            A,
            "0 qr aa rd; x.y.wild.~ 3600 A 192.0.2.4; NS+; GLUE+",
        ),
        (
            "X.Wild.~",
            MX,
            "0 qr aa rd; X.Wild.~ 3600 MX 10 mail.~; NS+; mail.~ 3600 A 192.0.2.25, ns1.~ 3600 A 192.0.2.1, ns2.~ 3600 A 192.0.2.2, mail.~ 3600 AAAA 2001:db8::25, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        ("x.wild.~", AAAA, "0 qr aa rd; ; NEG; "),
        (
            "*.wild.~",
            A,
            "0 qr aa rd; *.wild.~ 3600 A 192.0.2.4; NS+; GLUE+",
        ),
        ("x.*.wild.~", A, "3 qr aa rd; ; NEG; "),
        ("wild.~", A, "0 qr aa rd; ; NEG; "),
        ("exists.wild.~", A, "0 qr aa rd; ; NEG; "),
        ("x.exists.wild.~", A, "3 qr aa rd; ; NEG; "),
        (
            "x.cw.~",
            A,
            "0 qr aa rd; x.cw.~ 3600 CNAME web.~, web.~ 3600 A 192.0.2.80, web.~ 3600 A 192.0.2.81; NS+; GLUE+",
        ),
        ("x.odd.~", A, "0 qr aa rd; ; NEG; "),
        ("x.*.odd.~", A, "3 qr aa rd; ; NEG; "),
        ("sub.x.odd.~", A, "0 qr aa rd; ; NEG; "),
        // CNAME: as far as the zones go, but no loop and no endless chain
        (
            "www.~",
            A,
            "0 qr aa rd; www.~ 3600 CNAME web.~, web.~ 3600 A 192.0.2.80, web.~ 3600 A 192.0.2.81; NS+; GLUE+",
        ),
        (
            "www.~",
            CNAME,
            "0 qr aa rd; www.~ 3600 CNAME web.~; NS+; GLUE+",
        ),
        (
            "WWW.~",
            AAAA,
            "0 qr aa rd; WWW.~ 3600 CNAME web.~, web.~ 3600 AAAA 2001:db8::80; NS+; GLUE+",
        ),
        ("www.~", MX, "0 qr aa rd; www.~ 3600 CNAME web.~; NEG; "),
        (
            "c1.~",
            AAAA,
            "0 qr aa rd; c1.~ 3600 CNAME c2.~, c2.~ 3600 CNAME C3.~, C3.~ 3600 CNAME web.~, web.~ 3600 AAAA 2001:db8::80; NS+; GLUE+",
        ),
        (
            "dangling.~",
            A,
            "3 qr aa rd; dangling.~ 3600 CNAME nothing.~; NEG; ",
        ),
        (
            "typeless.~",
            TXT,
            "0 qr aa rd; typeless.~ 3600 CNAME mail.~; NEG; ",
        ),
        (
            "outside.~",
            A,
            "0 qr aa rd; outside.~ 3600 CNAME www.elsewhere.example.; ; ",
        ),
        (
            "crossing.~",
            A,
            "0 qr aa rd; crossing.~ 3600 CNAME www.child.~, www.child.~ 600 A 192.0.2.57; child.~ 600 NS ns.child.~; ns.child.~ 600 A 192.0.2.56",
        ),
        (
            "back.child.~",
            A,
            "0 qr aa rd; back.child.~ 600 CNAME web.~, web.~ 3600 A 192.0.2.80, web.~ 3600 A 192.0.2.81; NS+; GLUE+",
        ),
        (
            "below.~",
            A,
            "0 qr aa rd; below.~ 3600 CNAME host.sub.~; sub.~ 3600 NS ns.sub.~, sub.~ 3600 NS ns1.~; ns.sub.~ 3600 A 192.0.2.53, ns.sub.~ 3600 AAAA 2001:db8::53, ns1.~ 3600 A 192.0.2.1, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        (
            "loop1.~",
            A,
            "0 qr aa rd; loop1.~ 3600 CNAME loop2.~, loop2.~ 3600 CNAME loop1.~; ; ",
        ),
        ("self.~", A, "0 qr aa rd; self.~ 3600 CNAME self.~; ; "),
        (
            "x.lw.~",
            A,
            "0 qr aa rd; x.lw.~ 3600 CNAME a.lw.~, a.lw.~ 3600 CNAME a.lw.~; ; ",
        ),
        (
            "l0.~",
            A,
            "0 qr aa rd; l0.~ 3600 CNAME l1.~, l1.~ 3600 CNAME l2.~, l2.~ 3600 CNAME l3.~, l3.~ 3600 CNAME l4.~, l4.~ 3600 CNAME l5.~, l5.~ 3600 CNAME l6.~, l6.~ 3600 CNAME l7.~, l7.~ 3600 CNAME l8.~, l8.~ 3600 CNAME l9.~, l9.~ 3600 CNAME l10.~, l10.~ 3600 CNAME l11.~, l11.~ 3600 CNAME l12.~, l12.~ 3600 CNAME l13.~, l13.~ 3600 CNAME l14.~, l14.~ 3600 CNAME l15.~, l15.~ 3600 CNAME l16.~; ; ",
        ),
        ("www.~", RRSIG, "0 qr aa rd; www.~ 3600 CNAME web.~; NEG; "),
        // DNAME: only below it, with the CNAME that it amounts to (RFC 6672)
        (
            "d.~",
            TXT,
            "0 qr aa rd; d.~ 3600 16 \"\\x0cbeside DNAME\"; NS+; GLUE+",
        ),
        ("d.~", A, "0 qr aa rd; ; NEG; "),
        (
            "d.~",
            DNAME,
            "0 qr aa rd; d.~ 3600 DNAME target.~; NS+; GLUE+",
        ),
        (
            "x.d.~",
            A,
            "0 qr aa rd; d.~ 3600 DNAME target.~, x.d.~ 3600 CNAME x.target.~, x.target.~ 3600 A 192.0.2.7; NS+; GLUE+",
        ),
        (
            "X.D.~",
            A,
            "0 qr aa rd; D.~ 3600 DNAME target.~, X.D.~ 3600 CNAME X.target.~, X.target.~ 3600 A 192.0.2.7; NS+; GLUE+",
        ),
        (
            "X.d.~",
            CNAME,
            "0 qr aa rd; d.~ 3600 DNAME target.~, X.d.~ 3600 CNAME X.target.~; ; ",
        ),
        (
            "no.d.~",
            A,
            "3 qr aa rd; d.~ 3600 DNAME target.~, no.d.~ 3600 CNAME no.target.~; NEG; ",
        ),
        (
            "x.dout.~",
            A,
            "0 qr aa rd; dout.~ 3600 DNAME elsewhere.example., x.dout.~ 3600 CNAME x.elsewhere.example.; ; ",
        ),
        (
            "x.dchain.~",
            A,
            "0 qr aa rd; dchain.~ 3600 DNAME d.~, x.dchain.~ 3600 CNAME x.d.~, d.~ 3600 DNAME target.~, x.d.~ 3600 CNAME x.target.~, x.target.~ 3600 A 192.0.2.7; NS+; GLUE+",
        ),
        (
            "x.dgrow.~",
            A,
            "0 qr aa rd; dgrow.~ 3600 DNAME more.dgrow.~, x.dgrow.~ 3600 CNAME x.more.dgrow.~; ; ",
        ),
        (
            "todname.~",
            A,
            "0 qr aa rd; todname.~ 3600 CNAME x.d.~, d.~ 3600 DNAME target.~, x.d.~ 3600 CNAME x.target.~, x.target.~ 3600 A 192.0.2.7; NS+; GLUE+",
        ),
        // Delegations: a referral, but for DS at the cut (RFC 4035 section 3.1.4.1)
        (
            "sub.~",
            A,
            "0 qr rd; ; sub.~ 3600 NS ns.sub.~, sub.~ 3600 NS ns1.~; ns.sub.~ 3600 A 192.0.2.53, ns.sub.~ 3600 AAAA 2001:db8::53, ns1.~ 3600 A 192.0.2.1, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        (
            "host.sub.~",
            A,
            "0 qr rd; ; sub.~ 3600 NS ns.sub.~, sub.~ 3600 NS ns1.~; ns.sub.~ 3600 A 192.0.2.53, ns.sub.~ 3600 AAAA 2001:db8::53, ns1.~ 3600 A 192.0.2.1, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        (
            "ns.sub.~",
            A,
            "0 qr rd; ; sub.~ 3600 NS ns.sub.~, sub.~ 3600 NS ns1.~; ns.sub.~ 3600 A 192.0.2.53, ns.sub.~ 3600 AAAA 2001:db8::53, ns1.~ 3600 A 192.0.2.1, ns1.~ 3600 AAAA 2001:db8::1",
        ),
        ("SUB.~", DS, "0 qr aa rd; ; NEG; "),
        (
            "bare.~",
            A,
            "0 qr rd; ; bare.~ 3600 NS ns.elsewhere.example.; ",
        ),
        (
            "x.bare.~",
            TXT,
            "0 qr rd; ; bare.~ 3600 NS ns.elsewhere.example.; ",
        ),
        (
            "sibling.~",
            A,
            "0 qr rd; ; sibling.~ 3600 NS ns.sub.~; ns.sub.~ 3600 A 192.0.2.53, ns.sub.~ 3600 AAAA 2001:db8::53",
        ),
        (
            "secure.~",
            DS,
            "0 qr aa rd; secure.~ 3600 43 \"09\\r\\x02\\x01#Eg\\x89\\xab\\xcd\\xef\\x01#Eg\\x89\\xab\\xcd\\xef\\x01#Eg\\x89\\xab\\xcd\\xef\\x01#Eg\\x89\\xab\\xcd\\xef\"; ; ",
        ),
        (
            "secure.~",
            A,
            "0 qr rd; ; secure.~ 3600 NS ns.secure.~; ns.secure.~ 3600 A 192.0.2.55",
        ),
        ("child.~", DS, "0 qr aa rd; ; NEG; "),
        (
            "child.~",
            A,
            "0 qr aa rd; ; child.~ 60 SOA ns.child.~ hostmaster.~ 3 3600 900 604800 60; ",
        ),
        (
            "www.child.~",
            A,
            "0 qr aa rd; www.child.~ 600 A 192.0.2.57; child.~ 600 NS ns.child.~; ns.child.~ 600 A 192.0.2.56",
        ),
        (
            "no.child.~",
            A,
            "3 qr aa rd; ; child.~ 60 SOA ns.child.~ hostmaster.~ 3 3600 900 604800 60; ",
        ),
        // Not in a zone of this server
        (".", NS, "5 qr rd; ; ; "),
        ("test.", A, "5 qr rd; ; ; "),
        ("elsewhere.", A, "5 qr rd; ; ; "),
    ]);
}

/// Minimal answers leave out records that were not asked for, but not the addresses that a referral needs.
#[test]
fn minimal() {
    let zones = zones();
    let mut server = server();
    server.config.minimal = true;
    for (name, qtype, counts) in [
        ("web.example.test", A, [2, 0, 0]),
        ("example.test", MX, [3, 0, 0]),
        ("example.test", NS, [3, 0, 3]),
        ("nothing.example.test", A, [0, 1, 0]),
        ("host.sub.example.test", A, [0, 2, 4]),
    ] {
        let message = query(name, qtype);
        let response = ask_of(&mut server, &zones, &message, Transport::Udp).unwrap();
        assert_eq!(
            Header::read(&response).unwrap().counts[1..],
            counts,
            "{name}"
        );
    }
}

/// Over IPv6, AAAA records come before A records.
#[test]
fn order_of_addresses() {
    let zones = zones();
    let mut out = [0; 1232];
    let client = Client {
        address: "2001:db8::7".parse().unwrap(),
        transport: Transport::Udp,
    };
    let message = query("example.test", NS);
    let length = server().answer(&zones, 0, 0, client, &message, &mut out);
    let sections = sections(&out[..length.unwrap()]);
    assert!(
        sections[3].starts_with("ns1.example.test. 3600 AAAA"),
        "{sections:?}"
    );
}

/// Every name of the zones, in another case: the question is echoed unchanged, and the answer is the same except for
/// case.
#[test]
fn case_is_preserved() {
    let zones = zones();
    for (name, types) in zones.names() {
        let text = model::text(name);
        for qtype in types {
            let lower = query(&text, qtype);
            let upper = query(&text.to_ascii_uppercase(), qtype);
            let lower = ask(&zones, &lower, Transport::Udp).unwrap();
            let response = ask(&zones, &upper, Transport::Udp).unwrap();
            assert_eq!(response[12..upper.len()], upper[12..]);
            assert!(lower.eq_ignore_ascii_case(&response), "{text} {qtype}");
        }
    }
}

/// In records of the types of RFC 1035 each name is written once.
#[test]
fn compression() {
    let zones = zones();
    for (name, types) in zones.names() {
        for qtype in types.filter(|qtype| matches!(*qtype, A | AAAA | NS | SOA | MX | CNAME | PTR))
        {
            let message = query(&model::text(name), qtype);
            let response = ask(&zones, &message, Transport::Tcp).unwrap();
            let written = response.windows(6).filter(|bytes| *bytes == b"\x04test\0");
            assert_eq!(written.count(), 1, "{} {qtype}", name.escape_ascii());
        }
    }
}
