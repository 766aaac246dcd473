//! Writes the parts of a pack into one stream of bytes.

use std::fmt;
use std::io::{self, Read as _, Write};
use std::path::Path;

use mayfly_site::pack::read::hash;
use mayfly_site::pack::{HEADER, HEADER_SUMMED, MAGIC, Section, TRAILER, VERSION, path_hash};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::files;
use super::problem::Problems;
use super::table::table;
use super::www::{Body, Source, Spool, Www};
use super::zone::Zones;

/// The number of seeds to try before the hash tables are given up. With twice as many homes as records, the first one
/// works in practice.
const SEEDS: u64 = 64;

/// The figures of a pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The number of zones.
    pub zones: usize,
    /// The number of names with records and of empty non-terminals.
    pub names: usize,
    /// The number of RRsets.
    pub rrsets: u64,
    /// The number of records as written in the zone files.
    pub records: u64,
    /// The number of host names.
    pub hosts: usize,
    /// The number of files.
    pub files: usize,
    /// The number of variants of files, the identity included.
    pub variants: usize,
    /// The number of redirects, those of folders included.
    pub redirects: usize,
    /// The size of the pack in bytes.
    pub bytes: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} zones ({} names, {} RRsets, {} records), {} files ({} variants, {} redirects, {} host names), {} bytes",
            self.zones,
            self.names,
            self.rrsets,
            self.records,
            self.files,
            self.variants,
            self.redirects,
            self.hosts,
            self.bytes
        )
    }
}

/// A checked site, which can be written.
pub struct Packed {
    /// The figures of the pack.
    pub summary: Summary,
    /// Warnings: content that may be a mistake.
    pub warnings: Problems,
    pub(super) plan: Plan,
}

/// All of the pack but the bodies of files, in memory.
pub(super) struct Plan {
    /// Header and sections, up to the bodies.
    head: Vec<u8>,
    bodies: Vec<Body>,
    /// The size of the section `bodies`.
    bodies_bytes: u64,
    /// The bodies that were made by the packer.
    spool: Option<Spool>,
}

impl Plan {
    /// Lays out a pack.
    pub(super) fn new(zones: Zones, www: Www) -> Result<Self, String> {
        let (seed, names, paths) = (0..SEEDS)
            .find_map(|number| {
                let seed = hash(1, &u64::to_le_bytes(number));
                Some((seed, names(&zones, seed)?, self::paths(&www, seed)?))
            })
            .ok_or("no seed was found for its hash tables")?;
        let labels = zones.list.iter().map(super::zone::Zone::labels);
        let (shortest, longest) = (labels.clone().min(), labels.max());

        let mut head = vec![0; HEADER];
        let mut places = [[0_u64; 2]; 10];
        let zone_section = zones.section();
        let sections: [(Section, &[u8]); 9] = [
            (Section::Names, &names),
            (Section::Nodes, &zones.nodes),
            (Section::Zones, &zone_section),
            (Section::Order, &zones.order),
            (Section::Nsec3, &zones.nsec3),
            (Section::Hosts, &www.hosts),
            (Section::Paths, &paths),
            (Section::Resources, &www.resources),
            (Section::Listing, &www.listing),
        ];
        let all: usize = sections.iter().map(|(_, bytes)| bytes.len() + 64).sum();
        head.reserve_exact(all + 4096);
        for (section, bytes) in sections {
            head.resize(head.len().next_multiple_of(64), 0);
            places[section as usize] = [head.len() as u64, bytes.len() as u64];
            head.extend_from_slice(bytes);
        }
        // The section is aligned, so that its content is aligned in the pack.
        let align = if www.bytes >= 4096 { 4096 } else { 64 };
        head.resize(head.len().next_multiple_of(align), 0);
        places[Section::Bodies as usize] = [head.len() as u64, www.bytes];

        let plan = Self {
            head,
            bodies: www.bodies,
            bodies_bytes: www.bytes,
            spool: www.spool,
        };
        let bytes = u32::try_from(plan.bytes())
            .map_err(|_| format!("makes a pack of {} bytes: 4 GiB are too many", plan.bytes()))?;
        Ok(plan.with_header(bytes, seed, www.default_host, [shortest, longest], &places))
    }

    fn with_header(
        mut self,
        bytes: u32,
        seed: u64,
        default_host: u32,
        labels: [Option<u8>; 2],
        places: &[[u64; 2]],
    ) -> Self {
        let mut header = Vec::with_capacity(HEADER);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend(bytes.to_le_bytes());
        header.extend(seed.to_le_bytes());
        header.extend(labels.map(|labels| labels.unwrap_or(0)));
        header.extend([0; 2]);
        header.extend(default_host.to_le_bytes());
        for number in places.iter().flatten() {
            // The whole pack is smaller than that.
            let number = u32::try_from(*number).unwrap_or(u32::MAX);
            header.extend(number.to_le_bytes());
        }
        header.resize(HEADER_SUMMED, 0);
        header.extend(hash(0, &header).to_le_bytes());
        self.head[..HEADER].copy_from_slice(&header);
        self
    }

    /// The size of the pack in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.head.len() as u64 + self.bodies_bytes + TRAILER as u64
    }
}

/// The index of names.
fn names(zones: &Zones, seed: u64) -> Option<Vec<u8>> {
    let mut records = Vec::with_capacity(zones.indexed.len());
    for &node in &zones.indexed {
        let name = zones.name(node).to_ascii_lowercase();
        records.push((hash(seed, &name), node));
    }
    table(records)
}

/// The index of paths.
fn paths(www: &Www, seed: u64) -> Option<Vec<u8>> {
    let records = www.indexed.iter();
    let records = records.map(|(host, path, at)| (path_hash(seed, *host, path), *at));
    table(records.collect())
}

impl Packed {
    /// Writes the pack.
    ///
    /// # Errors
    ///
    /// The error of `out`, or that a file has changed since it was read.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut out = Summed {
            out,
            hash: Sha256::new(),
            bytes: 0,
        };
        out.write_all(&self.plan.head)?;
        let start = out.bytes;
        for body in &self.plan.bodies {
            let gap = start + body.at - out.bytes;
            io::copy(&mut io::repeat(0).take(gap), &mut out)?;
            match &body.source {
                Source::Made(kept) => match &self.plan.spool {
                    Some(spool) => spool.copy(*kept, &mut out)?,
                    None => return Err(io::Error::other("what was made is lost")),
                },
                Source::File {
                    path,
                    shown,
                    bytes,
                    digest,
                } => copy(path, *bytes, digest, &mut out).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", shown.display()))
                })?,
            }
        }
        let digest = out.hash.finalize();
        out.out.write_all(&digest)?;
        out.out.flush()
    }

    /// The pack in memory.
    ///
    /// # Errors
    ///
    /// A file has changed since it was read.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.summary.bytes).unwrap_or(0));
        self.write(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the pack to a file, which gets its name when it is complete.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or a file of the site has changed since it was read.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let mut temporary = tempfile::Builder::new()
            .permissions(readable())
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        let mut buffered = io::BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
        self.write(&mut buffered)?;
        drop(buffered);
        temporary.persist(file).map_err(|error| error.error)?;
        Ok(())
    }
}

/// The mode of a new file, before the umask: readable and writable by all.
fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

/// Copies a file, which must not have changed since it was read.
fn copy(path: &Path, bytes: u64, digest: &[u8; 32], out: &mut impl Write) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut file = files::open(path)?.take(bytes + 1);
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            break;
        };
        copied += part.len() as u64;
        hash.update(part);
        out.write_all(part)?;
    }
    if copied != bytes || hash.finalize()[..] != digest[..] {
        return Err(io::Error::other("has changed while it was packed"));
    }
    Ok(())
}

/// A writer that computes the SHA-256 of all written bytes.
struct Summed<'a, W> {
    out: &'a mut W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Summed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
