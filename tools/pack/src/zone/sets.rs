//! Groups the records of one name into RRsets, and checks them.

use std::collections::HashSet;

use super::super::problem::Findings;
use super::name::presentation;
use super::rdata::folded;
use super::records::{Apex, Record, Records};
use super::types;

const CNAME: u16 = 5;
const SOA: u16 = 6;
const KEY: u16 = 25;
const NXT: u16 = 30;
const DNAME: u16 = 39;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;

/// The sort key of types at a name: RRSIG comes after the type that it covers.
pub(super) fn rank(records: &Records, record: &Record) -> (u16, bool) {
    if record.rtype == RRSIG
        && let [high, low, ..] = records.bytes(record.rdata)
    {
        return (u16::from_be_bytes([*high, *low]), true);
    }
    (record.rtype, false)
}

/// An RRset in the format of the pack.
pub(super) struct Set {
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    /// The data of each record, preceded by its length.
    pub(super) rdata: Vec<u8>,
    pub(super) signatures: Vec<u8>,
}

impl Set {
    pub(super) fn bytes(&self) -> usize {
        self.rdata.len() + self.signatures.len()
    }
}

/// Makes and checks the RRsets at a name.
pub(super) fn sets(
    records: &Records,
    group: &[Record],
    zone: &Apex,
    findings: &mut Findings,
) -> Vec<Set> {
    let owner = || presentation(records.bytes(group[0].owner));
    let at_apex = records.bytes(group[0].key) == zone.key;
    let mut sets: Vec<Set> = Vec::new();
    for run in group.chunk_by(|one, other| rank(records, one) == rank(records, other)) {
        let (rtype, signatures) = rank(records, &run[0]);
        let name = types::name(rtype);
        let (file, line) = records.place(&run[0]);
        if signatures {
            match sets.last_mut().filter(|set| set.rtype == rtype) {
                Some(set) => set.signatures = rdata(records, run, findings),
                None => {
                    let what = format!("{} has RRSIG of {name}, but no {name}: left out", owner());
                    findings.warning(file, line, what);
                }
            }
            continue;
        }
        let ttl = run.iter().map(|record| record.ttl).min().unwrap_or(0);
        if let Some(other) = run.iter().find(|record| record.ttl != run[0].ttl) {
            let (file, line) = records.place(other);
            let what = format!(
                "{} {name} has TTLs {} and {}: the lowest is taken (RFC 2181 section 5.2)",
                owner(),
                run[0].ttl,
                other.ttl
            );
            findings.warning(file, line, what);
        }
        let bytes = rdata(records, run, findings);
        let count = mayfly_site::records(&bytes).count();
        // Errors about too many records are reported at the second one.
        let second = run.get(1).unwrap_or(&run[0]);
        if rtype == SOA && !at_apex {
            let what = format!(
                "{} has SOA and is not the apex {}",
                owner(),
                presentation(&zone.name)
            );
            findings.error(file, line, what);
        } else if matches!(rtype, SOA | CNAME | DNAME) && count > 1 {
            let (file, line) = records.place(second);
            findings.error(file, line, format!("{} has more than one {name}", owner()));
        }
        sets.push(Set {
            rtype,
            ttl,
            rdata: bytes,
            signatures: Vec::new(),
        });
    }
    if sets.iter().any(|set| set.rtype == CNAME) {
        let beside =
            |record: &&Record| !matches!(rank(records, record).0, CNAME | KEY | NXT | NSEC | NSEC3);
        if let Some(other) = group.iter().find(beside) {
            let (file, line) = records.place(other);
            let what = format!(
                "{} has CNAME beside {} (RFC 1034 section 3.6.2)",
                owner(),
                types::name(other.rtype)
            );
            findings.error(file, line, what);
        }
    }
    sets
}

/// The RDATA of records of one type, each preceded by its length. Duplicates are left out; names in the data are
/// compared without case (RFC 4343).
fn rdata(records: &Records, run: &[Record], findings: &mut Findings) -> Vec<u8> {
    let mut out = Vec::new();
    let mut known = HashSet::new();
    for record in run {
        let bytes = records.bytes(record.rdata);
        if run.len() > 1 && !known.insert(folded(record.rtype, bytes)) {
            let (file, line) = records.place(record);
            let owner = presentation(records.bytes(record.owner));
            let what = format!("{owner} {} is a duplicate", types::name(record.rtype));
            findings.warning(file, line, what);
            continue;
        }
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        out.extend(length.to_be_bytes());
        out.extend(bytes);
    }
    out
}
