//! The interface of a site (its zones and its pages), and the built-in site.
//!
//! All data is borrowed from the site in wire form, so that a zone of a million names or a file of hundreds of
//! megabytes costs no copy.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate alloc;

mod builtin;
pub mod date;
pub mod pack;
pub mod rtype;

use core::fmt;

pub use builtin::BuiltIn;
pub use pack::Pack;

/// The stored site is inconsistent. A packed site is input like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// The zones of a site, of class IN.
///
/// A name that is looked up is in wire form (RFC 1035 section 3.1) with the root label, uncompressed, with ASCII
/// letters in lower case: `\x06mayfly\x04test\0`. A stored name keeps the case of its zone file.
pub trait Zones {
    /// A handle for a name of a zone: an owner of records, or an empty non-terminal.
    type Node: Copy + Eq + core::fmt::Debug;

    /// The zone that `name` belongs to: the one with the longest apex that is a suffix of it.
    fn zone(&self, name: &[u8]) -> Result<Option<Zone<Self::Node>>, Broken>;

    /// A number that identifies a zone whose content never changes; `None` if it may change.
    fn unchanging(&self, _zone: Zone<Self::Node>) -> Option<u32> {
        None
    }

    /// The closest encloser of `name` in its zone (RFC 4592 section 3.3.1), which is the name itself if it exists.
    ///
    /// The cost does not depend on the number of names in the zone.
    fn closest_encloser(
        &self,
        zone: Zone<Self::Node>,
        name: &[u8],
    ) -> Result<Encloser<Self::Node>, Broken>;

    /// The wildcard directly below a node.
    fn wildcard(&self, node: Self::Node) -> Result<Option<Self::Node>, Broken>;

    /// The delegation at or above a node: the topmost name below the apex with NS records (RFC 1034 section 4.2.1).
    fn delegation(&self, node: Self::Node) -> Result<Option<Self::Node>, Broken>;

    /// The name of a node, in wire form with the root label.
    fn name(&self, node: Self::Node) -> Result<&[u8], Broken>;

    /// The RRset of a type at a node. RRSIG records are part of the RRset that they cover, and are not found by their
    /// own type.
    fn rrset(&self, node: Self::Node, rtype: u16) -> Result<Option<RrSet<'_>>, Broken>;

    /// The `index`th RRset at a node, in the order of types.
    fn nth_rrset(&self, node: Self::Node, index: usize) -> Result<Option<RrSet<'_>>, Broken>;

    /// The `index`th node of a zone in canonical order (RFC 4034 section 6.1), the apex first. Empty non-terminals and
    /// names below a delegation are included: a zone transfer walks this order.
    fn nth_node(&self, zone: Zone<Self::Node>, index: usize) -> Result<Option<Self::Node>, Broken>;

    /// The node with an NSEC RRset whose name is `name`, or else the last one before it in canonical order.
    fn nsec(&self, zone: Zone<Self::Node>, name: &[u8]) -> Result<Option<Self::Node>, Broken>;

    /// The NSEC3 parameters of a zone; `None` when it has none.
    fn nsec3_parameters(
        &self,
        zone: Zone<Self::Node>,
    ) -> Result<Option<Nsec3Parameters<'_>>, Broken>;

    /// The node with an NSEC3 RRset whose hash is `hash`, or else the last one before it (before the first comes the
    /// last); and whether the hash is equal.
    fn nsec3(
        &self,
        zone: Zone<Self::Node>,
        hash: &[u8; 20],
    ) -> Result<Option<(Self::Node, bool)>, Broken>;
}

/// The zone that a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone<N> {
    /// The name at the top of the zone.
    pub apex: N,
    /// The offset of the apex in the name that was looked up.
    pub at: usize,
    /// Whether anyone may transfer the whole zone (AXFR).
    pub transfer: bool,
    /// Whether the zone is signed: its apex has DNSKEY records.
    pub signed: bool,
}

/// The closest encloser of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encloser<N> {
    /// The longest suffix of the name that exists in its zone.
    pub node: N,
    /// The offset of the node's name in the name that was looked up; 0 when both are the same.
    pub at: usize,
}

/// The parameters of an NSEC3 hash (RFC 5155 section 5), which is SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nsec3Parameters<'a> {
    /// The number of additional iterations.
    pub iterations: u16,
    /// The salt, appended in each iteration.
    pub salt: &'a [u8],
}

/// An RRset: the records of one name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RrSet<'a> {
    /// The type of the records (IANA "Resource Record (RR) TYPEs").
    pub rtype: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The RDATA of one or more records, in wire form without compression. Each is preceded by its length in 16 bits,
    /// big endian.
    pub rdata: &'a [u8],
    /// The RDATA of the RRSIG records that cover the set, in the same form, with the same TTL (RFC 4034 section 3);
    /// empty when the set is not signed.
    pub signatures: &'a [u8],
}

/// Iterates over the RDATA of the records in `bytes`, each of which is preceded by its length. Stops at a length that
/// reaches beyond the end.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk()?;
        let (rdata, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
        rest = tail;
        Some(rdata)
    })
}

/// The longest page that is made for a request, in bytes.
pub const RENDERED_MAX: usize = 16 * 1024;

/// The pages of a site.
pub trait Pages {
    /// The resource at a path of a host.
    ///
    /// `host` is in lower case, without a port, and empty when the client named none. An unknown host is the default
    /// host. `path` is absolute, percent-decoded (but for `%2F`), without a query.
    fn resource(&self, host: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken>;

    /// The error page of a host for a status, if it has one.
    fn error_page(&self, host: &[u8], status: u16) -> Result<Option<File<'_>>, Broken>;

    /// The site's own header lines for answers at a path that are not a file: errors, redirects, `OPTIONS`.
    fn lines(&self, host: &[u8], path: &[u8]) -> Result<&[u8], Broken>;
}

/// A resource at a path.
#[derive(Clone, Copy)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is no heap to put a file on"
)]
pub enum Resource<'a> {
    /// A file.
    File(File<'a>),
    /// A redirect.
    Redirect {
        /// 301, 302, 307 or 308.
        status: u16,
        /// The value of `Location`: a URI reference, escaped. The query of the request is appended if it has none of
        /// its own.
        location: &'a [u8],
    },
    /// Text that is made for each request, at most [`RENDERED_MAX`] bytes.
    Rendered {
        /// The value of `Content-Type`.
        content_type: &'a str,
        /// The representation.
        text: &'a dyn fmt::Display,
    },
    /// The number of meaningless bytes to serve, for load tests.
    Payload(u64),
}

/// A file with its variants.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// The time of the last modification in seconds since 1970; 0 when unknown. Then there is no `Last-Modified`
    /// either.
    pub modified: u64,
    /// The variants, each in a different coding, the smallest first. One of them is the identity.
    pub variants: Variants<'a>,
}

/// The content codings that a file may be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// The file as it is.
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
    /// The coding of the bytes.
    pub coding: Coding,
    /// The strong entity tag, with its quotes.
    pub etag: &'a [u8],
    /// The header lines of a 200, each of which ends in CRLF, in this order: the lines that a 304 has as well (`ETag`,
    /// `Last-Modified`, `Cache-Control`, `Vary`, `Accept-Ranges`, the site's own), `Content-Encoding`, `Content-Type`,
    /// `Content-Length`. `Date`, `Server` and `Connection` are not included.
    pub lines: &'a [u8],
    /// The length of the lines that a 304 has: the bytes of `lines` before `Content-Encoding`.
    pub common: usize,
    /// The number of bytes of `lines` before `Content-Type`.
    pub encoded: usize,
    /// The number of bytes of `lines` before `Content-Length`.
    pub typed: usize,
    /// The content, which lives as long as the site and is sent without a copy.
    pub body: &'a [u8],
}

/// A handle for an existing name of a site.
///
/// It is valid only for the site that returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(u32);

/// The site of a guest: a pack, or else the built-in site.
#[derive(Clone, Debug)]
pub enum Site<'a> {
    /// The built-in site.
    BuiltIn(BuiltIn),
    /// The pack that was loaded as a module.
    Pack(Pack<'a>),
}

/// Forwards a call to the site, whichever it is.
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

/// The number of labels of a name in wire form, without the root label; `None` when it is not a whole name of at most
/// 255 bytes.
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

/// The offset of the label after the one at an offset.
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
