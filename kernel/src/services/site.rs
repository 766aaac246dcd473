//! The one interface behind which a zone and pages live, and the site that is built in.
//!
//! Everything is borrowed from the site in the form in which it goes on the wire, so that a zone of
//! a million names or a file of hundreds of megabytes costs no copy.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Resource record types that the services know by number (IANA "Resource Record (RR) TYPEs").
pub mod rtype {
    /// IPv4 address, RFC 1035.
    pub const A: u16 = 1;
    /// Authoritative name server, RFC 1035.
    pub const NS: u16 = 2;
    /// Canonical name, RFC 1035.
    pub const CNAME: u16 = 5;
    /// Start of authority, RFC 1035.
    pub const SOA: u16 = 6;
    /// Host information, RFC 1035; what RFC 8482 answers ANY with.
    pub const HINFO: u16 = 13;
    /// Text, RFC 1035.
    pub const TXT: u16 = 16;
    /// IPv6 address, RFC 3596.
    pub const AAAA: u16 = 28;
}

/// The records of one or more zones of class IN.
///
/// A name is given in wire form (RFC 1035 section 3.1) with the root label, uncompressed, ASCII
/// letters in lower case: `\x06mayfly\x04test\0`. Wildcards are ordinary names whose first label is
/// `*`; who asks for names does the matching (RFC 4592). There are no delegations: an NS set below
/// an apex is data like any other.
pub trait Zone {
    /// A handle for a name that exists.
    type Node: Copy;

    /// The zone that `name` belongs to: the position in `name` where the longest suffix that is an
    /// apex begins. `None` when no zone holds the name.
    fn apex(&self, name: &[u8]) -> Option<usize>;

    /// The node of exactly this name. An empty non-terminal exists: it is a node without records.
    fn node(&self, name: &[u8]) -> Option<Self::Node>;

    /// The records of one type at a node.
    fn rrset(&self, node: Self::Node, rtype: u16) -> Option<RrSet<'_>>;
}

/// Records of one name and type.
#[derive(Clone, Copy, Debug)]
pub struct RrSet<'a> {
    /// Time to live in seconds.
    pub ttl: u32,
    /// One or more RDATA in wire form without compression, each after its length in 16 bits, big endian.
    pub rdata: &'a [u8],
}

impl<'a> RrSet<'a> {
    /// The RDATA of each record. Stops at a length that reaches beyond the end.
    pub fn records(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.rdata;
        core::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk()?;
            let (rdata, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = tail;
            Some(rdata)
        })
    }
}

/// The pages of a site.
pub trait Pages {
    /// The page at a path: absolute, percent-decoded (but for `%2F`), without a query.
    fn page(&self, path: &[u8]) -> Option<Page<'_>>;
}

/// A page.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    /// The value of `Content-Type`: printable ASCII, at most 128 octets.
    pub content_type: &'a str,
    /// The representation.
    pub body: Body<'a>,
}

/// The representation of a page.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// Octets that are there as long as the site is: sent from where they are.
    Octets(&'a [u8]),
    /// Text that is made for each request, at most [`RENDERED_MAX`](super::http::RENDERED_MAX) octets.
    Rendered(&'a dyn fmt::Display),
}

/// The site that is served when no other was given: the zone `mayfly.test` and one page.
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

/// A name of the built-in zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltInNode {
    /// `mayfly.test`
    Apex,
    /// `ns.mayfly.test`
    NameServer,
    /// `www.mayfly.test`
    Www,
    /// `wild.mayfly.test`
    Empty,
    /// `*.wild.mayfly.test`
    Wildcard,
}

const APEX: &[u8] = b"\x06mayfly\x04test\0";
const TTL: u32 = 300;
const NS: &[u8] = b"\x00\x10\x02ns\x06mayfly\x04test\0";
const CNAME: &[u8] = b"\x00\x0d\x06mayfly\x04test\0";
const TXT: &[u8] = b"\x00\x2d\x2cmayfly: a unikernel, up for as long as it is";
// Serial 1, refresh 3600, retry 900, expire 604800, minimum 60.
const SOA: &[u8] = b"\x00\x3c\x02ns\x06mayfly\x04test\0\x0ahostmaster\x06mayfly\x04test\0\
    \x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x03\x84\x00\x09\x3a\x80\x00\x00\x00\x3c";

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

    /// Takes note of an IPv4 address that came or went while the guest was running (DHCP).
    pub fn set_ipv4(&mut self, ipv4: Option<Ipv4Addr>) {
        self.a = ipv4.map(|address| {
            let [a, b, c, d] = address.octets();
            [0, 4, a, b, c, d]
        });
    }
}

impl Zone for BuiltIn {
    type Node = BuiltInNode;

    fn apex(&self, name: &[u8]) -> Option<usize> {
        // A suffix of the octets is a suffix of the labels only where a label begins.
        let apex = name.len().checked_sub(APEX.len())?;
        let mut label = 0;
        while label < apex {
            label += 1 + usize::from(*name.get(label)?);
        }
        (label == apex && name.get(apex..) == Some(APEX)).then_some(apex)
    }

    fn node(&self, name: &[u8]) -> Option<BuiltInNode> {
        match name.strip_suffix(APEX)? {
            b"" => Some(BuiltInNode::Apex),
            b"\x02ns" => Some(BuiltInNode::NameServer),
            b"\x03www" => Some(BuiltInNode::Www),
            b"\x04wild" => Some(BuiltInNode::Empty),
            b"\x01*\x04wild" => Some(BuiltInNode::Wildcard),
            _ => None,
        }
    }

    fn rrset(&self, node: BuiltInNode, rtype: u16) -> Option<RrSet<'_>> {
        use BuiltInNode::{Apex, NameServer, Wildcard, Www};
        let rdata: &[u8] = match (node, rtype) {
            (Apex | NameServer | Wildcard, rtype::A) => self.a.as_ref()?,
            (Apex | NameServer | Wildcard, rtype::AAAA) => self.aaaa.as_ref()?,
            (Apex | Wildcard, rtype::TXT) => TXT,
            (Apex, rtype::NS) => NS,
            (Apex, rtype::SOA) => SOA,
            (Www, rtype::CNAME) => CNAME,
            _ => return None,
        };
        Some(RrSet { ttl: TTL, rdata })
    }
}

impl Pages for BuiltIn {
    fn page(&self, path: &[u8]) -> Option<Page<'_>> {
        (path == b"/").then_some(Page {
            content_type: "text/html; charset=utf-8",
            body: Body::Octets(include_bytes!("index.html")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_built_in_rdata() {
        for (rdata, length) in [(NS, 16), (CNAME, 13), (TXT, 45), (SOA, 60)] {
            let mut records = RrSet { ttl: TTL, rdata }.records();
            assert_eq!(records.next().map(<[u8]>::len), Some(length));
            assert!(records.next().is_none());
            assert_eq!(rdata.len(), 2 + length);
        }
        assert_eq!(usize::from(TXT[2]), TXT.len() - 3);
    }

    #[test]
    fn records_stop_at_a_bad_length() {
        for rdata in [
            &b"\0\x02ab\0"[..],
            b"\0\x02ab\0\x02a",
            b"\0\x02ab\xff\xffabc",
        ] {
            let mut records = RrSet { ttl: 0, rdata }.records();
            assert_eq!(records.next(), Some(&b"ab"[..]));
            assert_eq!(records.next(), None);
        }
    }

    #[test]
    fn apex_is_a_suffix_of_labels() {
        let zone = BuiltIn::default();
        for (name, apex) in [
            (&b"\x06mayfly\x04test\0"[..], Some(0)),
            (b"\x01a\x06mayfly\x04test\0", Some(2)),
            (b"\x04test\0", None),
            (b"\0", None),
            (b"", None),
            // The octets of the apex, but inside a label.
            (b"\x0ea\x06mayfly\x04test\x01\0", None),
            (b"\x0da\x06mayfly\x04test\0", None),
        ] {
            assert_eq!(zone.apex(name), apex, "{}", name.escape_ascii());
        }
    }
}
