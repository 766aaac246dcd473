//! The packed site: zones and files in the form in which they are served, made by `hatch pack`.
//!
//! A pack is one block of bytes that is served in place. Its content is not trusted: [`Pack::open`] checks the header
//! in constant time, and every offset and length is checked again where it is used ([`read`]); an inconsistency found
//! there is [`Broken`]. For any bytes, nothing panics, and the work for one look-up is bounded.
//!
//! # Format, version 1
//!
//! Numbers are unsigned and little endian, except in bytes that are sent as they are stored. An offset counts bytes
//! from the start of the section that is named with it, and does not depend on where the pack lies in memory. A pack is
//! shorter than 4 GiB. Unused bytes are zero.
//!
//! ```text
//! header, 128 bytes
//!      0  8  magic: 89 'M' 'A' 'Y' 'F' 'L' 'Y' 0a
//!      8  4  version: 1
//!     12  4  bytes in the whole pack
//!     16  8  seed of the hash
//!     24  1  labels of the shortest apex (the root label does not count)
//!     25  1  labels of the longest apex
//!     28  4  the default host
//!     32 80  ten sections, each: offset from the start of the pack, bytes
//!    112  8  unused
//!    120  8  hash of the 120 bytes before, with seed 0
//! sections, each at a multiple of 64, in this order
//! trailer, the last 32 bytes
//!         32  SHA-256 of all before: `hatch pack --check` verifies it, the guest does not
//! ```
//!
//! | section | holds |
//! |---|---|
//! | 0 names | hash table of the names of all zones, to `nodes` |
//! | 1 nodes | one record for each name, after 8 unused bytes |
//! | 2 zones | one record for each zone |
//! | 3 order | offsets of nodes, 4 bytes each: for each zone all nodes in canonical order (RFC 4034 section 6.1), then those with NSEC |
//! | 4 nsec3 | for each zone in the order of hashes: 20 bytes of hash, 4 of node |
//! | 5 hosts | names of hosts in the order of bytes: 4 bytes offset in `resources`, 4 of host |
//! | 6 paths | hash table of the paths of all hosts, to `resources` |
//! | 7 resources | one record for each path or name of a host, after 8 unused bytes |
//! | 8 listing | offsets of resources, 4 bytes each, in the order of host and path |
//! | 9 bodies | the bytes of files, each at a multiple of 16, from 64 KiB on of 4096 |
//!
//! ## Hash tables
//!
//! Slots of 8 bytes: the lower 32 bits of the hash, and the offset of a record, which is zero in an empty slot. A
//! record is in its home slot, `(hash >> 32) * homes >> 32`, or in one of the 31 slots after it ([`PROBES`]), with no
//! empty slot between. The table has 31 slots more than homes, so that it does not wrap. The packer makes twice as many
//! homes as records, and tries another seed if a record would be further away.
//!
//! The hash is [`read::hash`]: of a name in wire form and lower case, with the seed of the header; of a path, with the
//! hash of the four bytes of its host as the seed. The hash need not withstand an adversary: a client does not choose
//! the content of the table.
//!
//! ## Nodes
//!
//! ```text
//!  0 4  zone (index)
//!  4 4  the wildcard directly below, or 0
//!  8 4  the delegation at or above the node, or 0
//! 12 2  RRsets
//! 14 1  bytes of the name
//! 15 1  1: an apex
//! 16    for each RRset, in the order of types, 20 bytes:
//!        0 2  type
//!        4 4  TTL
//!        8 4  offset of its RDATA from the start of the node
//!       12 4  bytes of RDATA, each after its length in 16 bits, big endian
//!       16 4  bytes of RDATA of the RRSIG records that cover it, in the same form, right after
//!       the name in wire form as it was written; RDATA
//! ```
//!
//! A node is at a multiple of 8, and crosses no multiple of 64 unless it is longer than that, so it lies in one cache
//! line. Empty non-terminals are nodes as well. A node with nothing but NSEC3 is in `order` and `nsec3`, but not in
//! `names` (RFC 5155 section 7.2.8).
//!
//! ## Zones
//!
//! ```text
//!  0 4  node of the apex
//!  4 1  labels of the deepest name in `names`, from the apex on
//!  5 1  flags: 1: anyone may transfer the whole zone; 2: signed
//!  6 2  NSEC3 iterations
//!  8 8  all nodes: first in `order` (index), number
//! 16 8  nodes with NSEC: the same
//! 24 8  first in `nsec3` (index), number
//! 32 8  offset of the NSEC3 salt in `nodes`, its length in bytes
//! ```
//!
//! ## Resources
//!
//! ```text
//!  0 4  host
//!  4 2  bytes of the path
//!  6 1  1: a file; 2: a redirect; 3: a host, whose name is in place of the path; 4: header lines
//!  7 1  variants of the file
//!  8 8  time of the file's modification in seconds since 1970, 0 if unknown; or
//!  8 2  status of the redirect; or the number of bytes of the header lines
//! 10 2  bytes of the location
//! 12 2  bytes of the header lines of the redirect
//! 16    for each variant, the smallest first, 24 bytes:
//!        0 1  0: identity, 1: gzip, 2: brotli, 3: zstd
//!        1 1  bytes of the entity tag
//!        2 2  offset of the entity tag in the header lines
//!        4 4  offset of the header lines from the start of the resource
//!        8 2  bytes of the header lines
//!       10 2  of these up to `Content-Encoding`
//!       12 2  of these up to `Content-Type`
//!       14 2  of these up to `Content-Length`
//!       16 4  offset of the body in `bodies`
//!       20 4  bytes of the body
//!       the path, percent-decoded; the location; header lines
//! ```
//!
//! An error page is a resource whose path is a NUL and the status in two bytes, big endian.
//!
//! A resource of kind 4 holds the header lines of answers below a folder that are not a file. Its path is the folder's,
//! with the final slash; its host has the uppermost bit set ([`LINES_OF`]); and it is in `paths` only. A folder has
//! such a resource only if the folder above has one. In a file's own header lines, the same lines stand between
//! `Accept-Ranges` and `Content-Encoding`.

mod names;
mod pages;
pub mod read;

use core::fmt;

pub use names::canonical_order;
pub use pages::{Listed, path_hash};

use super::Broken;
use read::{Table, part, u32_at, u64_at};

/// The first eight bytes of a pack.
pub const MAGIC: [u8; 8] = *b"\x89MAYFLY\n";
/// The supported version of the format.
pub const VERSION: u32 = 1;
/// The size of the header, in bytes.
pub const HEADER: usize = 128;
/// The number of bytes of the header that its checksum covers.
pub const HEADER_SUMMED: usize = 120;
/// The size of the trailer, in bytes.
pub const TRAILER: usize = 32;
/// The number of slots that a record may be in, from its home slot on.
pub const PROBES: usize = 32;
/// The size of a node before its RRsets, in bytes.
pub const NODE: usize = 16;
/// The size of an RRset in a node, in bytes.
pub const RRSET: usize = 20;
/// The size of a zone, in bytes.
pub const ZONE: usize = 40;
/// The size of an entry of the section `nsec3`, in bytes.
pub const NSEC3: usize = 24;
/// The size of a resource before its variants, in bytes.
pub const RESOURCE: usize = 16;
/// The size of a variant in a resource, in bytes.
pub const VARIANT: usize = 24;
/// Kind of resource: a file.
pub const FILE: u8 = 1;
/// Kind of resource: a redirect.
pub const REDIRECT: u8 = 2;
/// Kind of resource: the name of a host.
pub const HOST: u8 = 3;
/// Kind of resource: the header lines of answers below a folder that are not a file.
pub const LINES: u8 = 4;
/// The bit that marks the host number of a resource of kind [`LINES`].
pub const LINES_OF: u32 = 1 << 31;
/// The header line that precedes the site's own lines in the lines of a file.
pub const ACCEPT_RANGES: &[u8] = b"Accept-Ranges: bytes\r\n";
/// A section; its number is its position in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "named as in the documentation of the module")]
pub enum Section {
    Names,
    Nodes,
    Zones,
    Order,
    Nsec3,
    Hosts,
    Paths,
    Resources,
    Listing,
    Bodies,
}

impl Section {
    /// All of them, in the order of the pack.
    pub const ALL: [Self; 10] = [
        Self::Names,
        Self::Nodes,
        Self::Zones,
        Self::Order,
        Self::Nsec3,
        Self::Hosts,
        Self::Paths,
        Self::Resources,
        Self::Listing,
        Self::Bodies,
    ];

    /// The name of the section in the documentation of the format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Nodes => "nodes",
            Self::Zones => "zones",
            Self::Order => "order",
            Self::Nsec3 => "nsec3",
            Self::Hosts => "hosts",
            Self::Paths => "paths",
            Self::Resources => "resources",
            Self::Listing => "listing",
            Self::Bodies => "bodies",
        }
    }
}

/// A packed site, borrowed from the memory in which it lies.
#[derive(Clone, Copy, Debug)]
pub struct Pack<'a> {
    bytes: &'a [u8],
    seed: u64,
    names: Table<'a>,
    nodes: &'a [u8],
    zones: &'a [u8],
    /// The numbers of labels of the shortest and of the longest apex.
    apex_labels: [u8; 2],
    order: &'a [u8],
    nsec3: &'a [u8],
    hosts: &'a [u8],
    default_host: u32,
    paths: Table<'a>,
    resources: &'a [u8],
    listing: &'a [u8],
    bodies: &'a [u8],
}

/// The reason for which bytes are not a servable pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The number of bytes, which is less than a header and a trailer have.
    Short(usize),
    /// The first bytes are not [`MAGIC`].
    Magic,
    /// The checksum of the header is wrong.
    Checksum,
    /// The version is not [`VERSION`].
    Version(u32),
    /// The pack is cut short: the length in the header, and the number of bytes present.
    Cut(u32, usize),
    /// A section reaches beyond the pack.
    Section(Section),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(bytes) => write!(f, "{bytes} bytes are too few for a pack"),
            Self::Magic => f.write_str("it is not a pack made by hatch"),
            Self::Checksum => f.write_str("the checksum of its header is wrong"),
            Self::Version(version) => {
                write!(f, "its format is version {version}, and {VERSION} is read")
            }
            Self::Cut(says, there) => write!(
                f,
                "it is cut short: {there} of its {says} bytes are present"
            ),
            Self::Section(section) => {
                write!(f, "its section {} is not inside of it", section.name())
            }
        }
    }
}

impl core::error::Error for OpenError {}

impl<'a> Pack<'a> {
    /// Checks the header of a pack, in constant time.
    ///
    /// Bytes after the end of the pack are ignored.
    ///
    /// # Errors
    ///
    /// [`OpenError`], whose text is one line.
    pub fn open(bytes: &'a [u8]) -> Result<Self, OpenError> {
        let there = bytes.len();
        let short = |_| OpenError::Short(there);
        if there < HEADER + TRAILER {
            return Err(OpenError::Short(there));
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(OpenError::Magic);
        }
        // Before the checksum, because another version may have another header.
        let version = u32_at(bytes, 8).map_err(short)?;
        if version != VERSION {
            return Err(OpenError::Version(version));
        }
        let summed = part(bytes, 0, HEADER_SUMMED).map_err(short)?;
        if u64_at(bytes, HEADER_SUMMED).map_err(short)? != read::hash(0, summed) {
            return Err(OpenError::Checksum);
        }
        let length = u32_at(bytes, 12).map_err(short)?;
        let bytes = usize::try_from(length)
            .ok()
            .and_then(|length| bytes.get(..length))
            .filter(|bytes| bytes.len() >= HEADER + TRAILER)
            .ok_or(OpenError::Cut(length, there))?;

        let body = bytes.len() - TRAILER;
        let section = |section: Section| {
            let inside = || {
                let at = 32 + 8 * section as usize;
                let offset = u32_at(bytes, at)? as usize;
                let bytes = u32_at(bytes, at + 4)? as usize;
                Ok((offset, bytes))
            };
            let (at, length) = inside().map_err(|Broken| OpenError::Section(section))?;
            let all = bytes.get(..body).unwrap_or_default();
            part(all, at, length)
                .ok()
                .filter(|_| at >= HEADER && at % 64 == 0)
                .ok_or(OpenError::Section(section))
        };
        let [.., shortest, longest, _, _] = part(bytes, 0, 28).map_err(short)? else {
            return Err(OpenError::Short(there));
        };
        Ok(Self {
            bytes,
            seed: u64_at(bytes, 16).map_err(short)?,
            names: Table::new(section(Section::Names)?),
            nodes: section(Section::Nodes)?,
            zones: section(Section::Zones)?,
            apex_labels: [*shortest, *longest],
            order: section(Section::Order)?,
            nsec3: section(Section::Nsec3)?,
            hosts: section(Section::Hosts)?,
            default_host: u32_at(bytes, 28).map_err(short)?,
            paths: Table::new(section(Section::Paths)?),
            resources: section(Section::Resources)?,
            listing: section(Section::Listing)?,
            bodies: section(Section::Bodies)?,
        })
    }

    /// The bytes of the pack.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of a section, for a check of the whole pack.
    #[must_use]
    pub fn section(&self, section: Section) -> &'a [u8] {
        match section {
            Section::Names => self.names.slots(),
            Section::Nodes => self.nodes,
            Section::Zones => self.zones,
            Section::Order => self.order,
            Section::Nsec3 => self.nsec3,
            Section::Hosts => self.hosts,
            Section::Paths => self.paths.slots(),
            Section::Resources => self.resources,
            Section::Listing => self.listing,
            Section::Bodies => self.bodies,
        }
    }
}

#[cfg(test)]
mod tests;
