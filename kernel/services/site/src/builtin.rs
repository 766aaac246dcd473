//! The built-in site.

use crate::rtype::{A, AAAA, CNAME, NS, SOA, TXT};
use core::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Broken, Coding, Encloser, File, Node, Nsec3Parameters, Pages, Resource, RrSet, Variant, Zone,
    Zones, labels, next_label,
};

/// The site that is served when the guest has no pack: the zone `mayfly.test` and one page.
///
/// | name | records |
/// |---|---|
/// | `mayfly.test` | SOA, NS, TXT, A and AAAA of this guest |
/// | `ns.mayfly.test` | A and AAAA of this guest |
/// | `www.mayfly.test` | CNAME `mayfly.test` |
/// | `*.wild.mayfly.test` | TXT, A and AAAA of this guest |
///
/// `wild.mayfly.test` itself is an empty non-terminal. A family in which the guest has no address
/// has no records.
#[derive(Clone, Debug, Default)]
pub struct BuiltIn {
    a: Option<[u8; 6]>,
    aaaa: Option<[u8; 18]>,
}

const APEX: Node = Node(0);
const NAME_SERVER: Node = Node(1);
const EMPTY: Node = Node(2);
const WILDCARD: Node = Node(3);
const WWW: Node = Node(4);

/// The names in canonical order; a node is an index into them.
const NAMES: [&[u8]; 5] = [
    b"\x06mayfly\x04test\0",
    b"\x02ns\x06mayfly\x04test\0",
    b"\x04wild\x06mayfly\x04test\0",
    b"\x01*\x04wild\x06mayfly\x04test\0",
    b"\x03www\x06mayfly\x04test\0",
];
/// The number of labels of the apex.
const APEX_LABELS: usize = 2;

/// The types in use, in numerical order.
const TYPES: [u16; 6] = [A, NS, CNAME, SOA, TXT, AAAA];

const TTL: u32 = 300;
const NS_RDATA: &[u8] = b"\x00\x10\x02ns\x06mayfly\x04test\0";
const CNAME_RDATA: &[u8] = b"\x00\x0d\x06mayfly\x04test\0";
const TXT_RDATA: &[u8] = b"\x00\x2d\x2cmayfly: a unikernel, up for as long as it is";
// Serial 1, refresh 3600, retry 900, expire 604800, minimum 60.
const SOA_RDATA: &[u8] = b"\x00\x3c\x02ns\x06mayfly\x04test\0\x0ahostmaster\x06mayfly\x04test\0\
    \x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x03\x84\x00\x09\x3a\x80\x00\x00\x00\x3c";

const PAGE: &[u8] = include_bytes!("index.html");
const ETAG: &[u8] = b"\"c8697b747f262c57\"";
const MODIFIED: u64 = 1_795_219_200;
const COMMON: &str = "ETag: \"c8697b747f262c57\"\r\nLast-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\n\
    Cache-Control: no-cache\r\nAccept-Ranges: bytes\r\n";
const TYPED: &str = "Content-Type: text/html; charset=utf-8\r\n";
const LINES: &str = "ETag: \"c8697b747f262c57\"\r\nLast-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\n\
    Cache-Control: no-cache\r\nAccept-Ranges: bytes\r\n\
    Content-Type: text/html; charset=utf-8\r\nContent-Length: 883\r\n";

impl BuiltIn {
    /// The built-in site of a guest with these addresses.
    #[must_use]
    pub fn new(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Self {
        let mut site = Self::default();
        site.set_ipv4(ipv4);
        site.aaaa = ipv6.map(|address| {
            let mut rdata = [0; 18];
            rdata[1] = 16;
            rdata[2..].copy_from_slice(&address.octets());
            rdata
        });
        site
    }

    /// Sets the IPv4 address, which may change while the guest runs (DHCP).
    pub fn set_ipv4(&mut self, ipv4: Option<Ipv4Addr>) {
        self.a = ipv4.map(|address| {
            let [a, b, c, d] = address.octets();
            [0, 4, a, b, c, d]
        });
    }
}

/// The node with this name.
fn find(name: &[u8]) -> Option<Node> {
    let index = NAMES.iter().position(|known| *known == name)?;
    u32::try_from(index).ok().map(Node)
}

impl Zones for BuiltIn {
    type Node = Node;

    fn zone(&self, name: &[u8]) -> Result<Option<Zone<Node>>, Broken> {
        let Some(count) = labels(name) else {
            return Ok(None);
        };
        let above = count.saturating_sub(APEX_LABELS);
        let at = (0..above).fold(0, |at, _| next_label(name, at));
        Ok((name.get(at..) == Some(NAMES[0])).then_some(Zone {
            apex: APEX,
            at,
            transfer: false,
            signed: false,
        }))
    }

    fn closest_encloser(&self, zone: Zone<Node>, name: &[u8]) -> Result<Encloser<Node>, Broken> {
        let mut at = 0;
        while at < zone.at {
            if let Some(node) = name.get(at..).and_then(find) {
                return Ok(Encloser { node, at });
            }
            at = next_label(name, at);
        }
        Ok(Encloser {
            node: APEX,
            at: zone.at,
        })
    }

    fn wildcard(&self, node: Node) -> Result<Option<Node>, Broken> {
        Ok((node == EMPTY).then_some(WILDCARD))
    }

    fn delegation(&self, _: Node) -> Result<Option<Node>, Broken> {
        Ok(None)
    }

    fn name(&self, node: Node) -> Result<&[u8], Broken> {
        NAMES.get(node.0 as usize).copied().ok_or(Broken)
    }

    fn rrset(&self, node: Node, rtype: u16) -> Result<Option<RrSet<'_>>, Broken> {
        let rdata: Option<&[u8]> = match (node, rtype) {
            (APEX | NAME_SERVER | WILDCARD, A) => self.a.as_ref().map(|rdata| &rdata[..]),
            (APEX | NAME_SERVER | WILDCARD, AAAA) => self.aaaa.as_ref().map(|rdata| &rdata[..]),
            (APEX | WILDCARD, TXT) => Some(TXT_RDATA),
            (APEX, NS) => Some(NS_RDATA),
            (APEX, SOA) => Some(SOA_RDATA),
            (WWW, CNAME) => Some(CNAME_RDATA),
            _ => None,
        };
        Ok(rdata.map(|rdata| RrSet {
            rtype,
            ttl: TTL,
            rdata,
            signatures: &[],
        }))
    }

    fn nth_rrset(&self, node: Node, index: usize) -> Result<Option<RrSet<'_>>, Broken> {
        let mut there = TYPES
            .iter()
            .filter_map(|&rtype| self.rrset(node, rtype).transpose());
        there.nth(index).transpose()
    }

    fn nth_node(&self, _: Zone<Node>, index: usize) -> Result<Option<Node>, Broken> {
        let node = u32::try_from(index).ok().map(Node);
        Ok(node.filter(|_| index < NAMES.len()))
    }

    fn nsec(&self, _: Zone<Node>, _: &[u8]) -> Result<Option<Node>, Broken> {
        Ok(None)
    }

    fn nsec3_parameters(&self, _: Zone<Node>) -> Result<Option<Nsec3Parameters<'_>>, Broken> {
        Ok(None)
    }

    fn nsec3(&self, _: Zone<Node>, _: &[u8; 20]) -> Result<Option<(Node, bool)>, Broken> {
        Ok(None)
    }
}

impl Pages for BuiltIn {
    fn resource(&self, _: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken> {
        let identity = Variant {
            coding: Coding::Identity,
            etag: ETAG,
            lines: LINES.as_bytes(),
            common: COMMON.len(),
            encoded: COMMON.len(),
            typed: COMMON.len() + TYPED.len(),
            body: PAGE,
        };
        Ok((path == b"/").then_some(Resource::File(File {
            modified: MODIFIED,
            variants: [Some(identity), None, None, None],
        })))
    }

    fn error_page(&self, _: &[u8], _: u16) -> Result<Option<File<'_>>, Broken> {
        Ok(None)
    }

    fn lines(&self, _host: &[u8], _path: &[u8]) -> Result<&[u8], Broken> {
        Ok(b"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records;
    use alloc::format;
    use alloc::vec::Vec;

    #[test]
    fn lengths_of_rdata() {
        for (bytes, length) in [
            (NS_RDATA, 16),
            (CNAME_RDATA, 13),
            (TXT_RDATA, 45),
            (SOA_RDATA, 60),
        ] {
            let lengths: Vec<_> = records(bytes).map(<[u8]>::len).collect();
            assert_eq!(lengths, [length]);
            assert_eq!(bytes.len(), 2 + length);
        }
        assert_eq!(usize::from(TXT_RDATA[2]), TXT_RDATA.len() - 3);
    }

    #[test]
    fn zone_and_closest_encloser() {
        let site = BuiltIn::default();
        for (name, apex, encloser) in [
            (&b"\x06mayfly\x04test\0"[..], Some(0), Some((APEX, 0))),
            (b"\x01a\x06mayfly\x04test\0", Some(2), Some((APEX, 2))),
            (b"\x03www\x06mayfly\x04test\0", Some(4), Some((WWW, 0))),
            (
                b"\x01a\x01b\x04wild\x06mayfly\x04test\0",
                Some(9),
                Some((EMPTY, 4)),
            ),
            (b"\x04test\0", None, None),
            (b"\0", None, None),
            (b"", None, None),
            // The bytes of the apex, but within a label.
            (b"\x0ea\x06mayfly\x04test\x01\0", None, None),
            (b"\x0da\x06mayfly\x04test\0", None, None),
        ] {
            let zone = site.zone(name).unwrap();
            assert_eq!(zone.map(|zone| zone.at), apex, "{}", name.escape_ascii());
            let found = zone.map(|zone| {
                let found = site.closest_encloser(zone, name).unwrap();
                (found.node, found.at)
            });
            assert_eq!(found, encloser, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn all_records_in_order() {
        let site = BuiltIn::new(Some(Ipv4Addr::LOCALHOST), Some(Ipv6Addr::LOCALHOST));
        let zone = site.zone(NAMES[0]).unwrap().unwrap();
        let mut types = Vec::new();
        for node in (0..).map_while(|index| site.nth_node(zone, index).unwrap()) {
            let sets = (0..).map_while(|index| site.nth_rrset(node, index).unwrap());
            types.push(sets.map(|set| set.rtype).collect::<Vec<_>>());
        }
        assert_eq!(
            types,
            [
                &[A, NS, SOA, TXT, AAAA][..],
                &[A, AAAA],
                &[],
                &[A, TXT, AAAA],
                &[CNAME]
            ]
        );
        let homeless = BuiltIn::default();
        let none = homeless.nth_rrset(NAME_SERVER, 0);
        assert_eq!(none, Ok(None), "no address, no record");
    }

    #[test]
    fn header_lines_tell_of_the_page() {
        let fnv = PAGE.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!(ETAG, format!("\"{fnv:016x}\"").as_bytes());
        let date = crate::date::imf_fixdate(MODIFIED);
        let date = core::str::from_utf8(&date).unwrap();
        assert!(COMMON.starts_with(&format!(
            "ETag: \"{fnv:016x}\"\r\nLast-Modified: {date}\r\n"
        )));
        let length = format!("Content-Length: {}\r\n", PAGE.len());
        assert_eq!(LINES, format!("{COMMON}{TYPED}{length}"));
    }
}
