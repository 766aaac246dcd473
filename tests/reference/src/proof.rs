//! Checks that an answer proves its denials, as a validating resolver does, but without verifying signatures: each NSEC
//! and NSEC3 RRset must have one.
//!
//! NSEC: RFC 4035 section 5.4, RFC 4592 for what a wildcard matches. NSEC3: RFC 5155 sections 8.3 to 8.8.

use std::cmp::Ordering;

use sha1_smol::Sha1;

use crate::answer::{Answer, Record};

const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const DNAME: u16 = 39;
const DS: u16 = 43;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;
const ANY: u16 = 255;

/// The RRsets of one zone that prove denials.
struct Denial<'a> {
    zone: &'a [u8],
    nsec: Vec<Nsec>,
    nsec3: Vec<Nsec3>,
}

struct Nsec {
    owner: Vec<u8>,
    next: Vec<u8>,
    types: Vec<u8>,
}

struct Nsec3 {
    hash: Vec<u8>,
    next: Vec<u8>,
    opt_out: bool,
    iterations: u16,
    salt: Vec<u8>,
    types: Vec<u8>,
}

/// The strength of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The denied name or type is proven not to exist.
    Whole,
    /// Opt-out covers the queried name, so its existence is unknown (RFC 5155 section 8.6).
    LeftOut,
}

type Result<T> = std::result::Result<T, &'static str>;

/// Checks the denials of names and types in an answer to a question with DO.
///
/// # Errors
/// The reason for which the proof fails.
pub fn check(answer: &Answer, name: &[u8], qtype: u16) -> Result<Held> {
    for set in section(answer, 1).filter(|r| matches!(r.rtype, NSEC | NSEC3)) {
        let signed = section(answer, 1)
            .filter(|r| r.rtype == RRSIG && r.owner == set.owner)
            .any(|r| r.rdata.starts_with(&set.rtype.to_be_bytes()));
        if !signed {
            return Err("a proof without its signature");
        }
    }
    // A signature has the number of labels of its wildcard (RFC 4034 section 3.1.3).
    for signature in section(answer, 0).filter(|r| r.rtype == RRSIG) {
        let of_wildcard = usize::from(*signature.rdata.get(3).ok_or("a short signature")?);
        let owner = &signature.owner;
        let labels = suffixes(owner).len() - 1 - usize::from(owner.starts_with(b"\x01*"));
        if of_wildcard < labels {
            let zone = signature.rdata.get(18..).and_then(name_in);
            let denial = Denial::new(answer, zone.ok_or("a short signature")?)?;
            let all = suffixes(owner);
            let next_closer = all.len().checked_sub(of_wildcard + 2);
            let next_closer = next_closer.and_then(|at| all.get(at)).ok_or("no labels")?;
            if !denial.covers(owner, next_closer)? {
                return Err("a wildcard stands in for a name that may be there");
            }
        }
    }
    let mut name = name.to_ascii_lowercase();
    // Follow as many aliases as there are records, unless the aliases themselves are queried. Aliases from a DNAME are
    // followed for ANY too.
    let links = match qtype {
        CNAME | ANY if !answer.has(0, |rtype| rtype == DNAME) => 0,
        _ => section(answer, 0).count(),
    };
    for _ in 0..links {
        let mut aliases = section(answer, 0);
        match aliases.find(|r| r.rtype == CNAME && r.owner == name) {
            Some(alias) => name = alias.rdata.to_ascii_lowercase(),
            None => break,
        }
    }
    let Some(zone) = denied_by(answer, &name, qtype) else {
        return Ok(Held::Whole);
    };
    let denial = Denial::new(answer, zone)?;
    match answer.rcode() {
        3 => denial.no_name(&name),
        0 => denial.no_type(&name, qtype),
        _ => Err("an error denies nothing"),
    }
}

/// The zone that denies a name or a type, which its SOA record names. An answer for all classes has no SOA record; then
/// it is the signer of a proof.
fn denied_by<'a>(answer: &'a Answer, name: &[u8], qtype: u16) -> Option<&'a [u8]> {
    let soa = section(answer, 1).find(|r| r.rtype == SOA);
    if let Some(soa) = soa {
        return Some(&soa.owner);
    }
    let all_classes = answer.question.ends_with(&[0, 255]);
    let is_given = |rtype: u16| qtype == ANY || rtype == qtype || !matches!(rtype, CNAME | RRSIG);
    let is_there = section(answer, 0).any(|r| r.owner == name && is_given(r.rtype));
    let is_referral = section(answer, 1).any(|r| r.rtype == NS);
    let signature = section(answer, 1).find(|r| r.rtype == RRSIG)?;
    let zone = signature.rdata.get(18..).and_then(name_in)?;
    (all_classes && !is_there && !is_referral && name.ends_with(zone)).then_some(zone)
}

fn section(answer: &Answer, index: usize) -> impl Iterator<Item = &Record> {
    answer.sections.get(index).into_iter().flatten()
}

impl<'a> Denial<'a> {
    fn new(answer: &Answer, zone: &'a [u8]) -> Result<Self> {
        let mut denial = Self {
            zone,
            nsec: Vec::new(),
            nsec3: Vec::new(),
        };
        for record in section(answer, 1).filter(|r| r.owner.ends_with(zone)) {
            match record.rtype {
                NSEC => denial.nsec.push(Nsec::read(record).ok_or("a short NSEC")?),
                NSEC3 => denial
                    .nsec3
                    .push(Nsec3::read(record).ok_or("a short NSEC3")?),
                _ => {}
            }
        }
        if denial.nsec.is_empty() && denial.nsec3.is_empty() {
            return Err("no proof at all");
        }
        Ok(denial)
    }

    /// Whether a name is denied: by NSEC itself, or by NSEC3 through the next closer name.
    fn covers(&self, name: &[u8], next_closer: &[u8]) -> Result<bool> {
        if !self.nsec.is_empty() {
            return Ok(self.nsec.iter().any(|nsec| nsec.covers(name)));
        }
        Ok(self.covering(next_closer).is_some())
    }

    fn covering(&self, name: &[u8]) -> Option<&Nsec3> {
        self.nsec3.iter().find(|nsec3| nsec3.covers(name))
    }

    fn matching(&self, name: &[u8]) -> Option<&Nsec3> {
        let mut all = self.nsec3.iter();
        all.find(|nsec3| nsec3.hash_of(name) == nsec3.hash)
    }

    /// The closest encloser, and whether names without NSEC3 may exist below it (RFC 5155 section 8.3).
    fn encloser<'n>(&self, name: &'n [u8]) -> Result<(&'n [u8], bool)> {
        let mut next_closer = None;
        for name in suffixes(name) {
            if name.len() < self.zone.len() {
                break;
            }
            if self.matching(name).is_some() {
                let next_closer = next_closer.ok_or("the name is there")?;
                let covering = self.covering(next_closer);
                let covering = covering.ok_or("the next closer name may be there")?;
                return Ok((name, covering.opt_out));
            }
            next_closer = Some(name);
        }
        Err("no closest encloser")
    }

    fn no_name(&self, name: &[u8]) -> Result<Held> {
        if self.nsec.is_empty() {
            let (encloser, _) = self.encloser(name)?;
            let wildcard = wildcard(encloser);
            let covering = self.covering(&wildcard);
            return covering
                .map(|_| Held::Whole)
                .ok_or("a wildcard may be there");
        }
        let covering = self.nsec.iter().find(|nsec| nsec.covers(name));
        let covering = covering.ok_or("the name may be there")?;
        let wildcard = wildcard(covering.encloser(name));
        let mut all = self.nsec.iter();
        all.any(|nsec| nsec.covers(&wildcard))
            .then_some(Held::Whole)
            .ok_or("a wildcard may be there")
    }

    fn no_type(&self, name: &[u8], qtype: u16) -> Result<Held> {
        let lacks = |types: &[u8]| {
            if has_type(types, qtype) || has_type(types, CNAME) {
                return Err("the type is there");
            }
            // The parent's record of a delegation denies only DS (RFC 6840 section 4.1).
            if has_type(types, NS) && !has_type(types, SOA) && qtype != DS {
                return Err("what the zone above says of a delegation");
            }
            Ok(Held::Whole)
        };
        if self.nsec.is_empty() {
            if let Some(nsec3) = self.matching(name) {
                return lacks(&nsec3.types);
            }
            let (encloser, opt_out) = self.encloser(name)?;
            if let Some(nsec3) = self.matching(&wildcard(encloser)) {
                return lacks(&nsec3.types);
            }
            // An unsigned delegation, or an empty non-terminal above one (RFC 5155 sections 7.1 and 7.2.4).
            return opt_out
                .then_some(Held::LeftOut)
                .ok_or("the name may be there");
        }
        if let Some(nsec) = self.nsec.iter().find(|nsec| nsec.owner == name) {
            return lacks(&nsec.types);
        }
        let covering = self.nsec.iter().find(|nsec| nsec.covers(name));
        let covering = covering.ok_or("the name may be there")?;
        // An empty non-terminal.
        if suffixes(&covering.next).contains(&name) {
            return Ok(Held::Whole);
        }
        let wildcard = wildcard(covering.encloser(name));
        let nsec = self.nsec.iter().find(|nsec| nsec.owner == wildcard);
        lacks(&nsec.ok_or("nothing about the wildcard")?.types)
    }
}

impl Nsec {
    fn read(record: &Record) -> Option<Self> {
        let next = name_in(&record.rdata)?;
        Some(Self {
            owner: record.owner.clone(),
            next: next.to_ascii_lowercase(),
            types: record.rdata.get(next.len()..)?.to_vec(),
        })
    }

    fn covers(&self, name: &[u8]) -> bool {
        // This zone cannot deny names below a delegation (RFC 6840 section 4.1).
        let is_cut = has_type(&self.types, NS) && !has_type(&self.types, SOA);
        if is_cut && suffixes(name).contains(&self.owner.as_slice()) {
            return false;
        }
        let after = canonical(&self.owner, name) == Ordering::Less;
        let before = canonical(name, &self.next) == Ordering::Less;
        // The next name of the last record is the apex.
        let is_last = canonical(&self.next, &self.owner) != Ordering::Greater;
        after && (before || is_last)
    }

    /// The closest encloser of a name that this record covers: the longest suffix that the name shares with one of the
    /// record's two names.
    fn encloser<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        let (owner, next) = (suffixes(&self.owner), suffixes(&self.next));
        let mut all = suffixes(name).into_iter();
        all.find(|n| owner.contains(n) || next.contains(n))
            .unwrap_or_default()
    }
}

impl Nsec3 {
    fn read(record: &Record) -> Option<Self> {
        let [1, flags, high, low, salt, rest @ ..] = record.rdata.as_slice() else {
            return None;
        };
        let (salt, rest) = rest.split_at_checked(usize::from(*salt))?;
        let (length, rest) = rest.split_first()?;
        let (next, types) = rest.split_at_checked(usize::from(*length))?;
        let label = record.owner.get(1..33).filter(|_| record.owner[0] == 32)?;
        Some(Self {
            hash: base32hex(label)?,
            next: next.to_vec(),
            opt_out: flags & 1 != 0,
            iterations: u16::from_be_bytes([*high, *low]),
            salt: salt.to_vec(),
            types: types.to_vec(),
        })
    }

    fn hash_of(&self, name: &[u8]) -> Vec<u8> {
        let once = |bytes: &[u8]| {
            let mut sha1 = Sha1::new();
            sha1.update(bytes);
            sha1.update(&self.salt);
            sha1.digest().bytes().to_vec()
        };
        (0..self.iterations).fold(once(name), |hash, _| once(&hash))
    }

    fn covers(&self, name: &[u8]) -> bool {
        let hash = self.hash_of(name);
        let is_last = self.next <= self.hash;
        let (after, before) = (self.hash < hash, hash < self.next);
        if is_last {
            after || before
        } else {
            after && before
        }
    }
}

/// Decodes base32hex (RFC 4648 section 7).
fn base32hex(digits: &[u8]) -> Option<Vec<u8>> {
    let mut bits = 0_u64;
    let mut bytes = Vec::new();
    for (index, digit) in digits.iter().enumerate() {
        let value = char::from(*digit).to_digit(32)?;
        bits = bits << 5 | u64::from(value);
        if index % 8 == 7 {
            bytes.extend(bits.to_be_bytes().get(3..)?);
            bits = 0;
        }
    }
    Some(bytes)
}

/// Whether a type bit map has a type (RFC 4034 section 4.1.2).
fn has_type(mut types: &[u8], rtype: u16) -> bool {
    let [window, bit] = rtype.to_be_bytes();
    while let [number, length, rest @ ..] = types {
        let Some((bits, tail)) = rest.split_at_checked(usize::from(*length)) else {
            return false;
        };
        if *number == window {
            let byte = bits.get(usize::from(bit / 8));
            return byte.is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0);
        }
        types = tail;
    }
    false
}

/// The uncompressed name at the start of these bytes.
fn name_in(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return bytes.get(..=at),
            length => at += 1 + length,
        }
    }
}

/// A name, its parent, and so on to the root.
fn suffixes(name: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    let mut rest = name;
    while let Some(length) = rest.first() {
        all.push(rest);
        rest = match length {
            0 => &[],
            length => rest.get(1 + usize::from(*length)..).unwrap_or_default(),
        };
    }
    all
}

fn wildcard(encloser: &[u8]) -> Vec<u8> {
    [b"\x01*", encloser].concat()
}

/// The order of RFC 4034 section 6.1.
fn canonical(a: &[u8], b: &[u8]) -> Ordering {
    let labels = |name| -> Vec<Vec<u8>> {
        let all = suffixes(name);
        let label = |n: &&[u8]| {
            let end = 1 + usize::from(*n.first().unwrap_or(&0));
            n.get(1..end).unwrap_or_default().to_ascii_lowercase()
        };
        all.iter().rev().map(label).collect()
    };
    labels(a).cmp(&labels(b))
}
