//! The one interface behind which a zone and pages live, and the site that is built in.
//!
//! Everything is borrowed from the site in the form in which it goes on the wire, so that a zone of
//! a million names or a file of hundreds of megabytes costs no copy.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate alloc;

mod builtin;
pub mod date;
pub mod pack;

use core::fmt;

pub use builtin::BuiltIn;
pub use pack::Pack;

/// What is stored contradicts itself: a packed site is input like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// The zones of a site, of class IN.
///
/// A name that is looked for is in wire form (RFC 1035 section 3.1) with the root label,
/// uncompressed, ASCII letters in lower case: `\x06mayfly\x04test\0`. A name that is stored keeps
/// the case of its zone file.
pub trait Zones {
    /// A handle for a name of a zone: an owner of records, or an empty non-terminal.
    type Node: Copy + Eq + core::fmt::Debug;

    /// The zone that `name` belongs to: the one with the longest apex that is a suffix of it.
    fn zone(&self, name: &[u8]) -> Result<Option<Zone<Self::Node>>, Broken>;

    /// A number that stands for a zone, if nothing in it ever changes.
    fn unchanging(&self, _zone: Zone<Self::Node>) -> Option<u32> {
        None
    }

    /// The closest encloser of `name` in a zone that it belongs to (RFC 4592 section 3.3.1): the
    /// name itself, when it exists.
    ///
    /// Costs no more in a zone of a million names than in one of ten.
    fn closest_encloser(
        &self,
        zone: Zone<Self::Node>,
        name: &[u8],
    ) -> Result<Encloser<Self::Node>, Broken>;

    /// The wildcard right below a node.
    fn wildcard(&self, node: Self::Node) -> Result<Option<Self::Node>, Broken>;

    /// The delegation that a node is, or is below of: the topmost name below the apex with NS
    /// records (RFC 1034 section 4.2.1).
    fn delegation(&self, node: Self::Node) -> Result<Option<Self::Node>, Broken>;

    /// The name of a node, in wire form with the root label.
    fn name(&self, node: Self::Node) -> Result<&[u8], Broken>;

    /// The records of one type at a node; RRSIG records are not found so, but with what they cover.
    fn rrset(&self, node: Self::Node, rtype: u16) -> Result<Option<RrSet<'_>>, Broken>;

    /// The `index`th set of records at a node, in the order of types.
    fn nth_rrset(&self, node: Self::Node, index: usize) -> Result<Option<RrSet<'_>>, Broken>;

    /// The `index`th node of a zone in canonical order (RFC 4034 section 6.1), the apex first,
    /// empty non-terminals and what is below a delegation included: a zone transfer walks it.
    fn nth_node(&self, zone: Zone<Self::Node>, index: usize) -> Result<Option<Self::Node>, Broken>;

    /// The node with an NSEC set whose name is `name` or else the last one before it in canonical order.
    fn nsec(&self, zone: Zone<Self::Node>, name: &[u8]) -> Result<Option<Self::Node>, Broken>;

    /// How the names of a zone are hashed for NSEC3; `None` when it has none.
    fn nsec3_parameters(
        &self,
        zone: Zone<Self::Node>,
    ) -> Result<Option<Nsec3Parameters<'_>>, Broken>;

    /// The node with an NSEC3 set whose hash is `hash` or else the last one before it, around the
    /// end; and whether it is equal.
    fn nsec3(
        &self,
        zone: Zone<Self::Node>,
        hash: &[u8; 20],
    ) -> Result<Option<(Self::Node, bool)>, Broken>;
}

/// A zone that a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone<N> {
    /// The name at the top of the zone.
    pub apex: N,
    /// Where the apex begins in the name that was asked for.
    pub at: usize,
    /// Whether everybody may have the whole zone (AXFR).
    pub transfer: bool,
    /// Whether the zone is signed: its apex has DNSKEY records.
    pub signed: bool,
}

/// The closest encloser of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encloser<N> {
    /// The longest suffix of the name that exists in its zone.
    pub node: N,
    /// Where it begins in the name; 0 when it is the name.
    pub at: usize,
}

/// What goes into an NSEC3 hash (RFC 5155 section 5), which is SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nsec3Parameters<'a> {
    /// Additional times that the hash is applied.
    pub iterations: u16,
    /// Appended before each time.
    pub salt: &'a [u8],
}

/// Records of one name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RrSet<'a> {
    /// Their type (IANA "Resource Record (RR) TYPEs").
    pub rtype: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// One or more RDATA in wire form without compression, each after its length in 16 bits, big endian.
    pub rdata: &'a [u8],
    /// RDATA of the RRSIG records that cover the set, in the same form, which have the same TTL
    /// (RFC 4034 section 3); empty when it is not signed.
    pub signatures: &'a [u8],
}

/// The RDATA of each record in `octets`, each after its length. Stops at a length that reaches beyond the end.
pub fn records(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    core::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk()?;
        let (rdata, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
        rest = tail;
        Some(rdata)
    })
}

/// Bytes in the longest page that is made for a request.
pub const RENDERED_MAX: usize = 16 * 1024;

/// The pages of a site.
pub trait Pages {
    /// What is at a path of a host.
    ///
    /// `host` is in lower case, without a port, and empty when the client has not said; one that is
    /// not known is the default host. `path` is absolute, percent-decoded (but for `%2F`), without a query.
    fn resource(&self, host: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken>;

    /// The file that a host shows with an error status, if it has one.
    fn error_page(&self, host: &[u8], status: u16) -> Result<Option<File<'_>>, Broken>;

    /// The site's own header lines for answers at a path that are not its file: errors, redirects, `OPTIONS`.
    fn lines(&self, host: &[u8], path: &[u8]) -> Result<&[u8], Broken>;
}

/// What is at a path.
#[derive(Clone, Copy)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is no heap to put a file on"
)]
pub enum Resource<'a> {
    /// A file.
    File(File<'a>),
    /// It is elsewhere.
    Redirect {
        /// 301, 302, 307 or 308.
        status: u16,
        /// The value of `Location`: a URI reference, escaped. The query of the request is appended
        /// when it has none of its own.
        location: &'a [u8],
    },
    /// Text that is made for each request, at most [`RENDERED_MAX`] bytes.
    Rendered {
        /// The value of `Content-Type`.
        content_type: &'a str,
        /// The representation.
        text: &'a dyn fmt::Display,
    },
    /// So many bytes that mean nothing, for load tests.
    Payload(u64),
}

/// A file with its variants.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// When it was last modified, in seconds since 1970; 0 when that is not known. Then there is no `Last-Modified` either.
    pub modified: u64,
    /// The variants, each of another coding, the smallest first; one of them is the identity.
    pub variants: Variants<'a>,
}

/// The content codings that a file may be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// `gzip`, RFC 1952.
    Gzip,
    /// `br`, RFC 7932.
    Brotli,
    /// `zstd`, RFC 8878.
    Zstd,
}

/// The variants of a file: at most one for each coding.
pub type Variants<'a> = [Option<Variant<'a>>; 4];

/// A file in one coding.
#[derive(Clone, Copy, Debug)]
pub struct Variant<'a> {
    /// The coding that its bytes are in.
    pub coding: Coding,
    /// The strong entity tag, with its quotes.
    pub etag: &'a [u8],
    /// The header lines of a 200 (each ends in CRLF), in this order: what a 304 has as well (`ETag`,
    /// `Last-Modified`, `Cache-Control`, `Vary`, `Accept-Ranges`, the site's own), `Content-Encoding`,
    /// `Content-Type`, `Content-Length`. `Date`, `Server` and `Connection` are not there.
    pub lines: &'a [u8],
    /// Bytes of `lines` that go with 304: up to `Content-Encoding`.
    pub common: usize,
    /// Bytes of `lines` up to `Content-Type`.
    pub encoded: usize,
    /// Bytes of `lines` up to `Content-Length`.
    pub typed: usize,
    /// The bytes, which are there as long as the site is: sent from where they are.
    pub body: &'a [u8],
}

/// A name of a site that is there.
///
/// It means nothing to another site than the one that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(u32);

/// The site of a guest: what is packed, or else what is built in.
#[derive(Clone, Debug)]
pub enum Site<'a> {
    /// The built-in one.
    BuiltIn(BuiltIn),
    /// The one that came as a module.
    Pack(Pack<'a>),
}

/// Asks whichever site it is.
macro_rules! either {
    ($site:expr, $inner:ident => $call:expr) => {
        match $site {
            Site::BuiltIn($inner) => $call,
            Site::Pack($inner) => $call,
        }
    };
}

impl Zones for Site<'_> {
    type Node = Node;

    fn zone(&self, name: &[u8]) -> Result<Option<Zone<Node>>, Broken> {
        either!(self, site => site.zone(name))
    }

    fn closest_encloser(&self, zone: Zone<Node>, name: &[u8]) -> Result<Encloser<Node>, Broken> {
        either!(self, site => site.closest_encloser(zone, name))
    }

    fn unchanging(&self, zone: Zone<Node>) -> Option<u32> {
        either!(self, site => site.unchanging(zone))
    }

    fn wildcard(&self, node: Node) -> Result<Option<Node>, Broken> {
        either!(self, site => site.wildcard(node))
    }

    fn delegation(&self, node: Node) -> Result<Option<Node>, Broken> {
        either!(self, site => site.delegation(node))
    }

    fn name(&self, node: Node) -> Result<&[u8], Broken> {
        either!(self, site => site.name(node))
    }

    fn rrset(&self, node: Node, rtype: u16) -> Result<Option<RrSet<'_>>, Broken> {
        either!(self, site => site.rrset(node, rtype))
    }

    fn nth_rrset(&self, node: Node, index: usize) -> Result<Option<RrSet<'_>>, Broken> {
        either!(self, site => site.nth_rrset(node, index))
    }

    fn nth_node(&self, zone: Zone<Node>, index: usize) -> Result<Option<Node>, Broken> {
        either!(self, site => site.nth_node(zone, index))
    }

    fn nsec(&self, zone: Zone<Node>, name: &[u8]) -> Result<Option<Node>, Broken> {
        either!(self, site => site.nsec(zone, name))
    }

    fn nsec3_parameters(&self, zone: Zone<Node>) -> Result<Option<Nsec3Parameters<'_>>, Broken> {
        either!(self, site => site.nsec3_parameters(zone))
    }

    fn nsec3(&self, zone: Zone<Node>, hash: &[u8; 20]) -> Result<Option<(Node, bool)>, Broken> {
        either!(self, site => site.nsec3(zone, hash))
    }
}

impl Pages for Site<'_> {
    fn resource(&self, host: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken> {
        either!(self, site => site.resource(host, path))
    }

    fn error_page(&self, host: &[u8], status: u16) -> Result<Option<File<'_>>, Broken> {
        either!(self, site => site.error_page(host, status))
    }

    fn lines(&self, host: &[u8], path: &[u8]) -> Result<&[u8], Broken> {
        either!(self, site => site.lines(host, path))
    }
}

/// How many labels a name in wire form has, the root label not among them; nothing when it is not a
/// whole name of at most 255 bytes.
fn labels(name: &[u8]) -> Option<usize> {
    let mut count = 0;
    let mut at = 0_usize;
    loop {
        match *name.get(at)? {
            0 => return (at + 1 == name.len() && at < 255).then_some(count),
            length @ 1..=63 => {
                count += 1;
                at += 1 + usize::from(length);
            }
            _ => return None,
        }
    }
}

/// Where the label after the one at an offset begins.
fn next_label(name: &[u8], at: usize) -> usize {
    at + 1 + usize::from(name.get(at).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stop_at_a_bad_length() {
        for rdata in [
            &b"\0\x02ab\0"[..],
            b"\0\x02ab\0\x02a",
            b"\0\x02ab\xff\xffabc",
        ] {
            let mut records = records(rdata);
            assert_eq!(records.next(), Some(&b"ab"[..]));
            assert_eq!(records.next(), None);
        }
    }

    #[test]
    fn names() {
        let longest = [&[63; 64][..], &[63; 64], &[63; 64], &[61; 62], &[0]].concat();
        let most = [&[1; 254][..], &[0]].concat();
        for (name, count) in [
            (&b"\0"[..], Some(0)),
            (b"\x01a\x02bc\0", Some(2)),
            (&longest, Some(4)),
            (&most, Some(127)),
            (b"", None),
            (b"\x01a", None),
            (b"\x01a\0\0", None),
            (b"\x40\0", None),
            (b"\xc0\x0c", None),
            (&[&most[..254], &[1, 1, 0]].concat(), None),
        ] {
            assert_eq!(labels(name), count, "{}", name.escape_ascii());
        }
        assert_eq!((longest.len(), most.len()), (255, 255));
        assert_eq!(next_label(b"\x01a\x02bc\0", 2), 5);
    }
}
