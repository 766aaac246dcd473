//! Writing a message: records with compressed names, whole or not at all.

use heapless::Vec;

use super::pointer::{Owner, POINTER_END, can_point_to, pointer, target_of};
use super::targets::{Target, Targets, target};
use super::wire::{HEADER_LEN, class, is_name, name_length, rtype};
use mayfly_site::{Broken, RrSet, records};

/// The names whose offset is remembered for compression pointers.
const NAMES_MAX: usize = 48;

/// The reason why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The record does not fit.
    Full,
    /// The stored zone contradicts itself.
    Broken,
}

impl From<Broken> for Fault {
    fn from(Broken: Broken) -> Self {
        Self::Broken
    }
}

/// The written part of an RRset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// The number of records, including signatures.
    pub(super) count: u16,
    /// The offset of the last record's RDATA.
    pub(super) data: usize,
}

/// A message that is being written.
#[derive(Debug)]
pub(super) struct Writer<'o> {
    bytes: &'o mut [u8],
    len: usize,
    /// The offset up to which records may be written. The bytes after it are reserved for OPT.
    limit: usize,
    /// The offset of each name and its length without compression, in the order in which they were written.
    names: Vec<(u16, u8), NAMES_MAX>,
    /// Whether the suffixes of the question's name come first in `names`, and their number.
    has_question: bool,
    question_names: usize,
}

/// A state of a message that it can be rewound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    len: usize,
    names: usize,
}

impl<'o> Writer<'o> {
    /// A message of a header, which is filled in at the end, and the question's bytes.
    pub(super) fn new(bytes: &'o mut [u8], limit: usize, question: &[u8]) -> Option<Self> {
        let limit = limit.min(bytes.len());
        let len = HEADER_LEN + question.len();
        bytes
            .get_mut(..limit)?
            .get_mut(HEADER_LEN..len)?
            .copy_from_slice(question);
        Some(Self {
            bytes,
            len,
            limit,
            names: Vec::new(),
            has_question: false,
            question_names: 0,
        })
    }

    /// Writes a question of class IN. Only later names are compressed.
    pub(super) fn question(&mut self, name: &[u8], qtype: u16) -> Result<(), Fault> {
        self.has_question = true;
        self.name(name)?;
        self.bytes(&qtype.to_be_bytes())?;
        self.bytes(&class::IN.to_be_bytes())
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(self.bytes.len());
    }

    /// The length so far, in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes that were written.
    pub(super) fn written(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Replaces the two bytes at `at` by a pointer to `to`; returns false if a pointer cannot express that offset.
    pub(super) fn point(&mut self, at: usize, to: usize) -> bool {
        match self.bytes.get_mut(at..at + 2) {
            Some(place) if can_point_to(to) => {
                place.copy_from_slice(&pointer(to));
                true
            }
            _ => false,
        }
    }

    /// Removes the bytes from `len` on. No name in them may have been remembered.
    pub(super) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            len: self.len,
            names: self.names.len(),
        }
    }

    pub(super) fn rewind(&mut self, mark: Mark) {
        self.len = mark.len;
        self.names.truncate(mark.names.max(self.question_names));
    }

    /// Writes the header.
    pub(super) fn finish(self, id: [u8; 2], flags: u16, counts: [u16; 4]) -> Option<usize> {
        let header: &mut [u8; HEADER_LEN] = self.bytes.first_chunk_mut()?;
        header[..2].copy_from_slice(&id);
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        let (counts_to, _) = header[4..].as_chunks_mut();
        for (to, count) in counts_to.iter_mut().zip(counts) {
            *to = count.to_be_bytes();
        }
        Some(self.len)
    }

    /// The offset that the name at an offset points to, or the offset itself if there is no pointer.
    pub(super) fn resolve(&self, at: usize) -> usize {
        match self.bytes.get(at..) {
            Some([high, low, ..]) if *high >= 0xc0 => target_of(*high, *low),
            _ => at,
        }
    }

    /// Writes a TXT record of one string, for the name at `owner`.
    pub(super) fn text(&mut self, owner: usize, class: u16, text: &[u8]) -> Result<(), Fault> {
        let length = u8::try_from(text.len()).map_err(|_| Fault::Full)?;
        self.bytes(&pointer(owner))?;
        let mut head = head(rtype::TXT, 0, text.len() + 1)?;
        head[2..4].copy_from_slice(&class.to_be_bytes());
        self.bytes(&head)?;
        self.bytes(&[length])?;
        self.bytes(text)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let end = self.len + bytes.len();
        self.bytes
            .get_mut(..self.limit)
            .and_then(|room| room.get_mut(self.len..end))
            .ok_or(Fault::Full)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Calls `write`, and rewinds the message if it fails.
    fn whole<T>(&mut self, write: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let mark = self.mark();
        write(self).inspect_err(|_| self.rewind(mark))
    }

    /// Writes an RRset with its signatures, or nothing; and adds the names in its RDATA to the targets.
    pub(super) fn set<'z>(
        &mut self,
        owner: Owner<'_>,
        set: &RrSet<'z>,
        with_signatures: bool,
        targets: Option<&mut Targets<'z>>,
    ) -> Result<Written, Fault> {
        self.whole(|message| message.try_set(owner, set, with_signatures, targets))
    }

    fn try_set<'z>(
        &mut self,
        mut owner: Owner<'_>,
        set: &RrSet<'z>,
        with_signatures: bool,
        mut targets: Option<&mut Targets<'z>>,
    ) -> Result<Written, Fault> {
        let target = targets.as_ref().and_then(|_| target(set.rtype));
        let mut written = Written { count: 0, data: 0 };
        for rdata in records(set.rdata) {
            let place = self.record(owner, set.rtype, set.ttl, rdata)?;
            if let (Owner::Name([_, _, ..]), Some(start)) = (owner, place.owner) {
                owner = Owner::At(start);
            }
            if let (Some((at, allows_glue)), Some(targets)) = (target, &mut targets)
                && let Some(rest) = rdata.get(at..)
                && let Some(length @ 2..) = name_length(rest)
                && let Some(name) = rest.get(..length)
            {
                let at = self.resolve(place.data + at);
                // If the targets are full, the addresses of further names are left out.
                let _ = targets.push(Target {
                    name,
                    at,
                    allows_glue,
                });
            }
            written.data = place.data;
            written.count = written.count.checked_add(1).ok_or(Fault::Full)?;
        }
        if written.count == 0 {
            return Err(Fault::Broken);
        }
        if with_signatures {
            let signatures = self.signatures(owner, set)?;
            written.count = written.count.checked_add(signatures).ok_or(Fault::Full)?;
        }
        Ok(written)
    }

    /// Writes the signatures of an RRset.
    pub(super) fn signatures(&mut self, owner: Owner<'_>, set: &RrSet<'_>) -> Result<u16, Fault> {
        let mut count = 0_u16;
        for rdata in records(set.signatures) {
            self.record(owner, rtype::RRSIG, set.ttl, rdata)?;
            count = count.checked_add(1).ok_or(Fault::Full)?;
        }
        Ok(count)
    }

    /// Writes one record of class IN, or nothing. Returns the offsets of its owner and its RDATA.
    pub(super) fn record(
        &mut self,
        owner: Owner<'_>,
        rtype: u16,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<Place, Fault> {
        self.whole(|message| message.try_record(owner, rtype, ttl, rdata))
    }

    fn try_record(
        &mut self,
        owner: Owner<'_>,
        rtype: u16,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<Place, Fault> {
        let start = self.len;
        let owner = match owner {
            Owner::At(at @ ..POINTER_END) => {
                let [high, low] = pointer(at);
                let head = head(rtype, ttl, rdata.len())?;
                let mut bytes = [0; 12];
                bytes[..2].copy_from_slice(&[high, low]);
                bytes[2..].copy_from_slice(&head);
                self.bytes(&bytes)?;
                Some(at)
            }
            Owner::At(_) => return Err(Fault::Full),
            Owner::Name(name) => {
                self.name(name)?;
                self.bytes(&head(rtype, ttl, rdata.len())?)?;
                (start < POINTER_END).then_some(start)
            }
        };
        let data = self.len;
        if self.rdata(rtype, rdata)? {
            let length = u16::try_from(self.len - data).map_err(|_| Fault::Full)?;
            self.bytes
                .get_mut(data - 2..data)
                .ok_or(Fault::Full)?
                .copy_from_slice(&length.to_be_bytes());
        }
        Ok(Place { owner, data })
    }

    /// Writes RDATA. Names in it are compressed only in the types of RFC 1035 (RFC 3597 section 4). Returns whether its
    /// length has to be rewritten.
    fn rdata(&mut self, rtype: u16, rdata: &[u8]) -> Result<bool, Fault> {
        match rtype {
            rtype::NS
            | rtype::MD
            | rtype::MF
            | rtype::CNAME
            | rtype::MB
            | rtype::MG
            | rtype::MR
            | rtype::PTR => {
                if !is_name(rdata) {
                    return Err(Fault::Broken);
                }
                self.name(rdata)?;
            }
            rtype::MX => {
                let (preference, name) = rdata.split_at_checked(2).ok_or(Fault::Broken)?;
                if !is_name(name) {
                    return Err(Fault::Broken);
                }
                self.bytes(preference)?;
                self.name(name)?;
            }
            rtype::SOA | rtype::MINFO => {
                let numbers = if rtype == rtype::SOA { 20 } else { 0 };
                let first = name_length(rdata).ok_or(Fault::Broken)?;
                let (first, rest) = rdata.split_at_checked(first).ok_or(Fault::Broken)?;
                let second = name_length(rest).ok_or(Fault::Broken)?;
                let (second, rest) = rest.split_at_checked(second).ok_or(Fault::Broken)?;
                if rest.len() != numbers {
                    return Err(Fault::Broken);
                }
                self.name(first)?;
                self.name(second)?;
                self.bytes(rest)?;
            }
            _ => {
                self.bytes(rdata)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a name, with a pointer to the longest suffix that is in the message already.
    fn name(&mut self, name: &[u8]) -> Result<(), Fault> {
        if !self.has_question {
            self.has_question = true;
            self.remember_question();
        }
        let mut at = 0;
        let pointed = loop {
            let label = usize::from(*name.get(at).ok_or(Fault::Broken)?);
            if label == 0 {
                break None;
            }
            let rest = name.get(at..).ok_or(Fault::Broken)?;
            if let Some(found) = self.find(rest) {
                break Some(found);
            }
            at += 1 + label;
        };
        let start = self.len;
        let fresh = name.get(..at).ok_or(Fault::Broken)?;
        self.bytes(fresh)?;
        match pointed {
            Some(place) => self.bytes(&pointer(place))?,
            None => self.bytes(&[0])?,
        }
        // Only the labels that were written in full are new.
        let mut label = 0;
        while label < at && start + label < POINTER_END {
            let length = u8::try_from(name.len() - label).map_err(|_| Fault::Broken)?;
            let place = u16::try_from(start + label).map_err(|_| Fault::Broken)?;
            if self.names.push((place, length)).is_err() {
                break;
            }
            label += 1 + usize::from(*name.get(label).ok_or(Fault::Broken)?);
        }
        Ok(())
    }

    fn remember_question(&mut self) {
        let question = self.bytes.get(HEADER_LEN..self.len).unwrap_or_default();
        let Some(length) = name_length(question) else {
            return;
        };
        let mut at = 0;
        while let Some(label @ 1..) = question.get(at).copied() {
            let (Ok(place), Ok(rest)) = (u16::try_from(HEADER_LEN + at), u8::try_from(length - at))
            else {
                return;
            };
            if self.names.push((place, rest)).is_err() {
                return;
            }
            self.question_names += 1;
            at += 1 + usize::from(label);
        }
    }

    /// The offset of a name in the message. Case is ignored (RFC 4343 section 4.1).
    fn find(&self, name: &[u8]) -> Option<usize> {
        self.names
            .iter()
            .filter(|(_, length)| usize::from(*length) == name.len())
            .map(|(place, _)| usize::from(*place))
            .find(|place| self.is_at(*place, name))
    }

    /// Whether the name at the offset `at` is `name`.
    pub(super) fn is_at(&self, mut at: usize, mut name: &[u8]) -> bool {
        let message = self.bytes.get(..self.len).unwrap_or_default();
        loop {
            let Some(rest) = message.get(at..) else {
                return false;
            };
            match rest {
                [0, ..] => return name == [0],
                [high, low, ..] if *high >= 0xc0 => {
                    let place = target_of(*high, *low);
                    if place >= at {
                        return false;
                    }
                    at = place;
                }
                [length, ..] => {
                    let end = 1 + usize::from(*length);
                    match (rest.get(..end), name.split_at_checked(end)) {
                        (Some(label), Some((ours, tail))) if label.eq_ignore_ascii_case(ours) => {
                            name = tail;
                        }
                        _ => return false,
                    }
                    at += end;
                }
                [] => return false,
            }
        }
    }
}

/// The offsets of a record's parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The owner's, if a pointer can point to it.
    pub(super) owner: Option<usize>,
    /// The RDATA's.
    pub(super) data: usize,
}

/// The bytes between a record's owner and its RDATA: type, class, TTL and length.
fn head(rtype: u16, ttl: u32, length: usize) -> Result<[u8; 10], Fault> {
    let length = u16::try_from(length).map_err(|_| Fault::Broken)?;
    let mut head = [0; 10];
    head[..2].copy_from_slice(&rtype.to_be_bytes());
    head[2..4].copy_from_slice(&class::IN.to_be_bytes());
    head[4..8].copy_from_slice(&ttl.to_be_bytes());
    head[8..].copy_from_slice(&length.to_be_bytes());
    Ok(head)
}
