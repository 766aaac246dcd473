//! The packed site: zones and files in the form in which they are served, made by `hatch pack`.
//!
//! A pack is one block of bytes that is served from where it lies. Nothing in it is believed:
//! [`Pack::open`] looks at the header in constant time, and every offset and length is checked
//! again where it is used ([`read`]); what contradicts itself there is [`Broken`]. Whatever the
//! bytes are, nothing panics, and the work for one look-up is bounded.
//!
//! # Format, version 1
//!
//! Numbers are little endian and unsigned; but for the bytes that go on the wire as they are.
//! Offsets count bytes from the start of the section that is named with them, and say nothing of where the pack
//! lies in memory. A pack is shorter than 4 GiB. Unused bytes are zero.
//!
//! ```text
//! header, 128 bytes
//!      0  8  magic: 89 'M' 'A' 'Y' 'F' 'L' 'Y' 0a
//!      8  4  version: 1
//!     12  4  bytes in the whole pack
//!     16  8  seed of the hash
//!     24  1  labels of the shortest apex (the root label does not count)
//!     25  1  labels of the longest apex
//!     28  4  host that is the default
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
//! | 1 nodes | one record for each name, after 8 bytes of nothing |
//! | 2 zones | one record for each zone |
//! | 3 order | offsets of nodes, 4 bytes each: for each zone all in canonical order (RFC 4034 section 6.1), then those with NSEC |
//! | 4 nsec3 | for each zone in the order of hashes: 20 bytes of hash, 4 of node |
//! | 5 hosts | names of hosts in the order of octets: 4 octets offset in `resources`, 4 of host |
//! | 6 paths | hash table of the paths of all hosts, to `resources` |
//! | 7 resources | one record for each path or name of a host, after 8 bytes of nothing |
//! | 8 listing | offsets of resources, 4 bytes each, in the order of host and path |
//! | 9 bodies | the bytes of files, each at a multiple of 16, from 64 KiB on of 4096 |
//!
//! ## Hash tables
//!
//! Slots of 8 octets: the lower 32 bits of the hash, and the offset of a record, which is zero in an empty
//! slot. A record is in its home slot, `(hash >> 32) * homes >> 32`, or one of the
//! 31 after it ([`PROBES`]), with no empty slot between; the table has 31 slots more than homes
//! so that it does not wrap. The packer makes twice as many homes as records, and tries another
//! seed when a record would be further away.
//!
//! The hash is [`read::hash`]: of a name, which is in wire form and lower case, with the seed of the header; of a path
//! with the hash of the four bytes of its host as the seed. It need not withstand an adversary: who asks does not
//! choose what is in the table.
//!
//! ## Nodes
//!
//! ```text
//!  0 4  zone (index)
//!  4 4  the wildcard right below, or 0
//!  8 4  the delegation that it is or is below of, or 0
//! 12 2  RRsets
//! 14 1  bytes of the name
//! 15 1  1: an apex
//! 16    for each RRset, in the order of types, 20 octets:
//!        0 2  type
//!        4 4  TTL
//!        8 4  offset of its RDATA from the start of the node
//!       12 4  bytes of RDATA, each after its length in 16 bits, big endian
//!       16 4  bytes of RDATA of the RRSIG records that cover it, in the same form, right after
//!       the name in wire form as it was written; RDATA
//! ```
//!
//! A node is at a multiple of 8, and crosses no multiple of 64 when it is not longer than that: it is in one line of
//! a cache. Empty non-terminals are nodes as well. A node with nothing but NSEC3 is in
//! `order` and `nsec3`, but not in `names` (RFC 5155 section 7.2.8).
//!
//! ## Zones
//!
//! ```text
//!  0 4  node of the apex
//!  4 1  labels of the deepest name in `names`, from the apex on
//!  5 1  1: everybody may have the whole zone; 2: signed
//!  6 2  NSEC3 iterations
//!  8 8  first in `order` (index), how many: all nodes
//! 16 8  the same: nodes with NSEC
//! 24 8  first in `nsec3` (index), how many
//! 32 8  offset of the NSEC3 salt in `nodes`, bytes of it
//! ```
//!
//! ## Resources
//!
//! ```text
//!  0 4  host
//!  4 2  bytes of the path
//!  6 1  1: a file; 2: a redirect; 3: the name of a host, which is where the path would be; 4: header lines
//!  7 1  variants of the file
//!  8 8  when the file was modified, in seconds since 1970, or 0 when that is not known; or
//!  8 2  status of the redirect; of header lines their bytes
//! 10 2  bytes of the location
//! 12 2  bytes of the header lines of the redirect
//! 16    for each variant, the smallest first, 24 octets:
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
//! An error page is a resource whose path is a NUL and its status in two bytes, big endian.
//!
//! Header lines of kind 4 go with answers for paths below theirs that are no file: their path is a folder's, with the
//! slash at its end, their host has the uppermost bit set ([`LINES_OF`]), and they are in `paths` alone. A folder has them only
//! when the one above has. A file's own lines of this sort are what follows `Accept-Ranges` up to `Content-Encoding`.

mod names;
mod pages;
pub mod read;

use core::fmt;

pub use names::canonical_order;
pub use pages::{Listed, path_hash};

use super::Broken;
use read::{Table, part, u32_at, u64_at};

/// What a pack begins with.
pub const MAGIC: [u8; 8] = *b"\x89MAYFLY\n";
/// The version that is read.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 128;
/// Bytes of the header that its checksum covers.
pub const HEADER_SUMMED: usize = 120;
/// Bytes of the trailer.
pub const TRAILER: usize = 32;
/// Slots that a record may be in.
pub const PROBES: usize = 32;
/// Bytes of a node before its RRsets.
pub const NODE: usize = 16;
/// Bytes of an RRset in a node.
pub const RRSET: usize = 20;
/// Bytes of a zone.
pub const ZONE: usize = 40;
/// Bytes of an entry of the section `nsec3`.
pub const NSEC3: usize = 24;
/// Bytes of a resource before its variants.
pub const RESOURCE: usize = 16;
/// Bytes of a variant in a resource.
pub const VARIANT: usize = 24;
/// Kind of resource: a file.
pub const FILE: u8 = 1;
/// Kind of resource: a redirect.
pub const REDIRECT: u8 = 2;
/// Kind of resource: the name of a host.
pub const HOST: u8 = 3;
/// Kind of resource: header lines for what is below a folder and no file.
pub const LINES: u8 = 4;
/// The bit of a host's number that header lines have.
pub const LINES_OF: u32 = 1 << 31;
/// The header line of a file before those that the site has for all answers at its path.
pub const ACCEPT_RANGES: &[u8] = b"Accept-Ranges: bytes\r\n";
/// A section and where its place is in the header.
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

    /// Its name in the documentation of the format.
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

/// A packed site, borrowed from where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Pack<'a> {
    octets: &'a [u8],
    seed: u64,
    names: Table<'a>,
    nodes: &'a [u8],
    zones: &'a [u8],
    /// Labels of the shortest and the longest apex.
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

/// Why something is not a pack that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Fewer bytes than a header and a trailer have: so many.
    Short(usize),
    /// It begins with something else.
    Magic,
    /// The header's checksum is of another header.
    Checksum,
    /// A version that is not read here.
    Version(u32),
    /// The pack has bytes that are not there: it says how many, and there are so many.
    Cut(u32, usize),
    /// A section is not inside the pack.
    Section(Section),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(octets) => write!(f, "{octets} bytes are too few for a pack"),
            Self::Magic => f.write_str("it is not a pack made by hatch"),
            Self::Checksum => f.write_str("the checksum of its header is wrong"),
            Self::Version(version) => {
                write!(f, "its format is version {version}, and {VERSION} is read")
            }
            Self::Cut(says, there) => write!(f, "it has {says} bytes, of which {there} are there"),
            Self::Section(section) => {
                write!(f, "its section {} is not inside of it", section.name())
            }
        }
    }
}

impl core::error::Error for OpenError {}

impl<'a> Pack<'a> {
    /// Looks at the header of a pack, in constant time.
    ///
    /// Bytes after its end do not matter.
    ///
    /// # Errors
    ///
    /// What is wrong with the header, in one line.
    pub fn open(octets: &'a [u8]) -> Result<Self, OpenError> {
        let there = octets.len();
        let short = |_| OpenError::Short(there);
        if there < HEADER + TRAILER {
            return Err(OpenError::Short(there));
        }
        if !octets.starts_with(&MAGIC) {
            return Err(OpenError::Magic);
        }
        // Before the checksum, because another version may have another header.
        let version = u32_at(octets, 8).map_err(short)?;
        if version != VERSION {
            return Err(OpenError::Version(version));
        }
        let summed = part(octets, 0, HEADER_SUMMED).map_err(short)?;
        if u64_at(octets, HEADER_SUMMED).map_err(short)? != read::hash(0, summed) {
            return Err(OpenError::Checksum);
        }
        let length = u32_at(octets, 12).map_err(short)?;
        let octets = usize::try_from(length)
            .ok()
            .and_then(|length| octets.get(..length))
            .filter(|octets| octets.len() >= HEADER + TRAILER)
            .ok_or(OpenError::Cut(length, there))?;

        let body = octets.len() - TRAILER;
        let section = |section: Section| {
            let inside = || {
                let at = 32 + 8 * section as usize;
                let offset = u32_at(octets, at)? as usize;
                let octets = u32_at(octets, at + 4)? as usize;
                Ok((offset, octets))
            };
            let (at, length) = inside().map_err(|Broken| OpenError::Section(section))?;
            let all = octets.get(..body).unwrap_or_default();
            part(all, at, length)
                .ok()
                .filter(|_| at >= HEADER && at % 64 == 0)
                .ok_or(OpenError::Section(section))
        };
        let [.., shortest, longest, _, _] = part(octets, 0, 28).map_err(short)? else {
            return Err(OpenError::Short(there));
        };
        Ok(Self {
            octets,
            seed: u64_at(octets, 16).map_err(short)?,
            names: Table::new(section(Section::Names)?),
            nodes: section(Section::Nodes)?,
            zones: section(Section::Zones)?,
            apex_labels: [*shortest, *longest],
            order: section(Section::Order)?,
            nsec3: section(Section::Nsec3)?,
            hosts: section(Section::Hosts)?,
            default_host: u32_at(octets, 28).map_err(short)?,
            paths: Table::new(section(Section::Paths)?),
            resources: section(Section::Resources)?,
            listing: section(Section::Listing)?,
            bodies: section(Section::Bodies)?,
        })
    }

    /// The bytes of the pack.
    #[must_use]
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// The bytes of a section, for who checks all of it.
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
