//! The records of a zone in the order of its files.

use std::path::{Path, PathBuf};

use super::name::canonical_key;

/// The greatest number of files of a zone.
const FILES: usize = 10_000;

/// A place in the arena.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Span {
    at: usize,
    bytes: u16,
}

/// A record of a zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// The owner as it was written.
    pub(super) owner: Span,
    /// The owner as bytes whose order is the canonical order of names.
    pub(super) key: Span,
    pub(super) rdata: Span,
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    file: u16,
    line: u32,
}

/// The name of a zone.
pub(super) struct Apex {
    /// The name in wire form and lower case.
    pub(super) name: Vec<u8>,
    /// The name as bytes whose order is the canonical order of names.
    pub(super) key: Vec<u8>,
}

/// The records of a zone, and the arena with their bytes.
#[derive(Default)]
pub(super) struct Records {
    arena: Vec<u8>,
    pub(super) list: Vec<Record>,
    files: Vec<PathBuf>,
}

impl Records {
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.at..span.at + usize::from(span.bytes)]
    }

    /// The file and line of a record.
    pub(super) fn place(&self, record: &Record) -> (&Path, Option<usize>) {
        let file = &self.files[usize::from(record.file)];
        (file, Some(record.line as usize))
    }

    /// Adds a file. Returns its number; `None` when there are too many.
    pub(super) fn file(&mut self, shown: &Path) -> Option<u16> {
        let number = u16::try_from(self.files.len()).ok();
        let number = number.filter(|_| self.files.len() < FILES)?;
        self.files.push(shown.to_owned());
        Some(number)
    }

    /// Stores bytes in the arena. More than 65,535 would be cut, but no caller gives that many.
    fn keep(&mut self, bytes: &[u8]) -> Span {
        let at = self.arena.len();
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.arena.extend_from_slice(&bytes[..length.into()]);
        Span { at, bytes: length }
    }

    /// Adds a record from a line of a file; its owner is in wire form.
    pub(super) fn add(
        &mut self,
        owner: &[u8],
        (rtype, ttl, rdata): (u16, u32, &[u8]),
        file: u16,
        line: usize,
    ) {
        // Most records have the name of the one before.
        let last = self.list.last().copied();
        let last = last.filter(|last| self.bytes(last.owner) == owner);
        let (owner, key) = match last {
            Some(last) => (last.owner, last.key),
            None => {
                let mut key = Vec::new();
                canonical_key(owner, &mut key);
                (self.keep(owner), self.keep(&key))
            }
        };
        let rdata = self.keep(rdata);
        self.list.push(Record {
            owner,
            key,
            rdata,
            rtype,
            ttl,
            file,
            line: u32::try_from(line).unwrap_or(u32::MAX),
        });
    }
}
