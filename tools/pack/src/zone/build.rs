//! Records into nodes: sorted, checked, and laid out as the pack has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mayfly_site::pack::{NODE, RRSET, ZONE};

use super::super::problem::Findings;
use super::read::{Record, Records, canonical_key};
use super::{presentation, type_name};

const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const KEY: u16 = 25;
const NXT: u16 = 30;
const DNAME: u16 = 39;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const DNSKEY: u16 = 48;
const NSEC3: u16 = 50;
const NSEC3PARAM: u16 = 51;

/// More NSEC3 iterations are refused: RFC 9276 section 3.1 wants none at all, and each costs every
/// negative answer a hash.
const ITERATIONS: u16 = 100;

/// Octets of a line of a cache, of which a small node needs no more than one.
const LINE: usize = 64;

/// The zones of a site as sections of the pack.
pub(crate) struct Zones {
    pub(crate) nodes: Vec<u8>,
    /// For the index of names: nodes that are found by their name.
    pub(crate) indexed: Vec<u32>,
    pub(crate) order: Vec<u8>,
    pub(crate) nsec3: Vec<u8>,
    pub(crate) list: Vec<Zone>,
    pub(crate) records: u64,
    pub(crate) rrsets: u64,
}

/// One zone.
pub(crate) struct Zone {
    file: PathBuf,
    line: Option<usize>,
    /// The name of the apex in wire form and lower case.
    pub(crate) name: Vec<u8>,
    key: Vec<u8>,
    apex: u32,
    /// Labels of the deepest name that is indexed, from the apex on.
    depth: u8,
    transfer: bool,
    signed: bool,
    iterations: u16,
    /// Offset and octets.
    salt: [u32; 2],
    /// First and count.
    nodes: [u32; 2],
    nsec: [u32; 2],
    nsec3: [u32; 2],
}

impl Default for Zones {
    fn default() -> Self {
        Self {
            // No node is at 0.
            nodes: vec![0; 8],
            indexed: Vec::new(),
            order: Vec::new(),
            nsec3: Vec::new(),
            list: Vec::new(),
            records: 0,
            rrsets: 0,
        }
    }
}

/// A node on the way from the apex to the one that is being made.
struct Ancestor {
    key: Vec<u8>,
    at: u32,
    delegation: u32,
    /// Its name, when it has DNAME.
    dname: Option<String>,
}

/// What NSEC3 records of a chain have in common: iterations and salt.
type Parameters = (u16, Vec<u8>);

impl Zones {
    /// Adds the zone that these records are; an error keeps it out. What is missing is not told when
    /// they are not all that the file has.
    pub(super) fn add(
        &mut self,
        file: &Path,
        mut records: Records,
        origin: &[u8],
        whole: bool,
        findings: &mut Findings,
    ) {
        let before = findings.errors.count();
        let mut list = std::mem::take(&mut records.list);
        let records = &records;
        // Signatures right after what they cover; otherwise as written.
        list.sort_by(|one, other| {
            let octets = records.octets(one.key).cmp(records.octets(other.key));
            octets.then_with(|| rank(records, one).cmp(&rank(records, other)))
        });

        let soa = list.iter().find(|record| record.rtype == SOA);
        let Some(soa) = soa else {
            if whole {
                findings.error(file, None, "the zone has no SOA record");
            }
            return;
        };
        let (place, line) = records.place(soa);
        let name = records.octets(soa.owner).to_ascii_lowercase();
        let key = records.octets(soa.key).to_vec();
        if name != origin.to_ascii_lowercase() {
            findings.warning(
                place,
                line,
                format!(
                    "the zone is {}, and the file is named as {}",
                    presentation(&name),
                    presentation(origin)
                ),
            );
        }
        let mut zone = Zone {
            file: place.to_owned(),
            line,
            name,
            key,
            apex: 0,
            depth: 0,
            transfer: false,
            signed: false,
            iterations: 0,
            salt: [0; 2],
            nodes: [self.entries(), 0],
            nsec: [0; 2],
            nsec3: [self.nsec3_entries(), 0],
        };
        let parameters = self.parameters(records, &list, &mut zone, findings);

        let mut stack: Vec<Ancestor> = Vec::new();
        let mut nsec = Vec::new();
        let mut nsec3 = BTreeMap::new();
        for group in
            list.chunk_by(|one, other| records.octets(one.key) == records.octets(other.key))
        {
            let key = records.octets(group[0].key);
            let owner = records.octets(group[0].owner);
            if !key.starts_with(&zone.key) {
                let (file, line) = records.place(&group[0]);
                let what = format!(
                    "{} is not in the zone {}",
                    presentation(owner),
                    presentation(&zone.name)
                );
                findings.error(file, line, what);
                continue;
            }
            let hashed = group.iter().all(|record| {
                record.rtype == NSEC3 || record.rtype == RRSIG && rank(records, record).0 == NSEC3
            });
            self.ancestors(&mut stack, key, owner, &zone, |this, name| {
                this.node(zone_number(&this.list), name, &[])
            });
            let sets = sets(records, group, &zone, findings);
            if let Some(dname) = stack.iter().find_map(|ancestor| ancestor.dname.as_ref())
                && !hashed
            {
                let (file, line) = records.place(&group[0]);
                let what = format!(
                    "{} is below {dname}, which has DNAME (RFC 6672 section 2.4)",
                    presentation(owner)
                );
                findings.error(file, line, what);
            }
            let at = self.node(zone_number(&self.list), owner, &sets);
            let has = |rtype| sets.iter().any(|set| set.rtype == rtype);
            if has(NSEC) {
                nsec.push(at);
            }
            if has(NSEC3) {
                chain_link(records, group, at, &parameters, &mut nsec3, findings);
            }
            if hashed {
                continue;
            }
            let cut = has(NS) && key != zone.key;
            self.push(&mut stack, key, owner, at, cut);
            // The stack has the apex and all that is between.
            let depth = u8::try_from(stack.len() - 1).unwrap_or(u8::MAX);
            zone.depth = zone.depth.max(depth);
            if has(DNAME)
                && let Some(last) = stack.last_mut()
            {
                last.dname = Some(presentation(owner));
            }
            self.indexed.push(at);
            if key == zone.key {
                zone.apex = at;
                zone.signed = has(DNSKEY);
                self.set_flags(at);
                if whole && !has(NS) {
                    findings.error(file, None, "the zone has no NS record at its apex");
                }
            }
        }
        if u32::try_from(self.nodes.len()).is_err() {
            findings.error(file, None, "with it the zones are larger than 4 GiB");
        }
        if findings.errors.count() > before {
            return;
        }
        zone.nodes[1] = self.entries() - zone.nodes[0];
        zone.nsec = [self.entries(), u32::try_from(nsec.len()).unwrap_or(0)];
        for at in nsec {
            self.order.extend(at.to_le_bytes());
        }
        for (hash, at) in nsec3 {
            self.nsec3.extend(hash);
            self.nsec3.extend(u32::to_le_bytes(at));
        }
        zone.nsec3[1] = self.nsec3_entries() - zone.nsec3[0];
        self.records += list.len() as u64;
        self.list.push(zone);
    }

    fn entries(&self) -> u32 {
        u32::try_from(self.order.len() / 4).unwrap_or(u32::MAX)
    }

    fn nsec3_entries(&self) -> u32 {
        let octets = mayfly_site::pack::NSEC3;
        u32::try_from(self.nsec3.len() / octets).unwrap_or(u32::MAX)
    }

    fn set_flags(&mut self, at: u32) {
        self.nodes[at as usize + 15] = 1;
    }

    /// Leaves on the stack the nodes above a name, making those that have no records.
    fn ancestors(
        &mut self,
        stack: &mut Vec<Ancestor>,
        key: &[u8],
        owner: &[u8],
        zone: &Zone,
        mut make: impl FnMut(&mut Self, &[u8]) -> u32,
    ) {
        while stack.last().is_some_and(|last| !key.starts_with(&last.key)) {
            stack.pop();
        }
        // Its names, from the top down: those between the last on the stack and itself have no records.
        let mut suffixes = Vec::new();
        let mut rest = owner;
        while let Some((&length @ 1.., tail)) = rest.split_first() {
            rest = tail.get(usize::from(length)..).unwrap_or_default();
            let mut octets = Vec::new();
            canonical_key(rest, &mut octets);
            if octets.len() < zone.key.len()
                || stack
                    .last()
                    .is_some_and(|last| octets.len() <= last.key.len())
            {
                break;
            }
            suffixes.push((rest, octets));
        }
        for (name, octets) in suffixes.into_iter().rev() {
            // Without an apex there are no names above.
            if octets == zone.key {
                continue;
            }
            let at = make(self, name);
            self.indexed.push(at);
            self.push(stack, &octets, name, at, false);
        }
    }

    /// Puts a node on the stack and ties it to those above.
    fn push(&mut self, stack: &mut Vec<Ancestor>, key: &[u8], name: &[u8], at: u32, cut: bool) {
        let above = stack.last().map_or(0, |above| above.delegation);
        let delegation = if above == 0 && cut { at } else { above };
        self.put(at + 8, delegation);
        if name.starts_with(b"\x01*")
            && let Some(parent) = stack.last()
        {
            self.put(parent.at + 4, at);
        }
        stack.push(Ancestor {
            key: key.to_vec(),
            at,
            delegation,
            dname: None,
        });
    }

    fn put(&mut self, at: u32, value: u32) {
        let at = at as usize;
        self.nodes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes a node; returns where.
    fn node(&mut self, zone: u32, name: &[u8], sets: &[Set]) -> u32 {
        let octets = NODE + RRSET * sets.len() + name.len();
        let octets = octets + sets.iter().map(Set::octets).sum::<usize>();
        let mut start = self.nodes.len().next_multiple_of(8);
        if octets <= LINE && start / LINE != (start + octets - 1) / LINE {
            start = start.next_multiple_of(LINE);
        }
        self.nodes.resize(start, 0);
        // Checked when the zone is complete.
        let at = u32::try_from(start).unwrap_or(0);
        self.order.extend(at.to_le_bytes());
        self.rrsets += sets.len() as u64;
        self.nodes.extend(zone.to_le_bytes());
        self.nodes.extend([0; 8]);
        self.nodes
            .extend(u16::try_from(sets.len()).unwrap_or(0).to_le_bytes());
        self.nodes
            .extend([u8::try_from(name.len()).unwrap_or(0), 0]);
        let mut data = NODE + RRSET * sets.len() + name.len();
        for set in sets {
            self.nodes.extend(set.rtype.to_le_bytes());
            self.nodes.extend([0; 2]);
            for number in [
                set.ttl as usize,
                data,
                set.rdata.len(),
                set.signatures.len(),
            ] {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                self.nodes.extend(number.to_le_bytes());
            }
            data += set.octets();
        }
        self.nodes.extend(name);
        for set in sets {
            self.nodes.extend(&set.rdata);
            self.nodes.extend(&set.signatures);
        }
        at
    }

    /// Which NSEC3 chain is served: the one that NSEC3PARAM tells, at the apex with flags 0.
    fn parameters(
        &mut self,
        records: &Records,
        list: &[Record],
        zone: &mut Zone,
        findings: &mut Findings,
    ) -> Option<Parameters> {
        let mut chosen = None;
        for record in list
            .iter()
            .filter(|record| matches!(record.rtype, NSEC3 | NSEC3PARAM))
        {
            let (file, line) = records.place(record);
            let Some((hash, flags, parameters)) = nsec3_fields(records.octets(record.rdata)) else {
                findings.error(file, line, "its NSEC3 data is cut short");
                continue;
            };
            let name = type_name(record.rtype);
            if hash != 1 {
                let what = format!("{name} with hash {hash}: only SHA-1 (1) is served");
                findings.error(file, line, what);
            } else if parameters.0 > ITERATIONS {
                let what = format!(
                    "{name} with {} iterations: more than {ITERATIONS} are refused (RFC 9276)",
                    parameters.0
                );
                findings.error(file, line, what);
            } else if record.rtype == NSEC3PARAM
                && records.octets(record.key) == zone.key
                && flags == 0
                && chosen.is_none()
            {
                chosen = Some(parameters);
            }
        }
        if let Some((iterations, salt)) = &chosen {
            let at = u32::try_from(self.nodes.len()).unwrap_or(0);
            zone.iterations = *iterations;
            zone.salt = [at, u32::try_from(salt.len()).unwrap_or(0)];
            self.nodes.extend(salt);
        }
        chosen
    }

    /// Two zones with one name are an error.
    pub(super) fn check_names(&self, findings: &mut Findings) {
        let mut known: BTreeMap<&[u8], &Zone> = BTreeMap::new();
        for zone in &self.list {
            if let Some(first) = known.insert(&zone.key, zone) {
                let what = format!(
                    "the zone {} is in {} as well",
                    presentation(&zone.name),
                    first.file.display()
                );
                findings.error(&zone.file, zone.line, what);
            }
        }
    }

    /// Says whether a zone may be transferred; whether there is such a zone.
    pub(super) fn configure(&mut self, name: &[u8], transfer: bool) -> bool {
        let zone = self.list.iter_mut().find(|zone| zone.name == name);
        zone.map(|zone| zone.transfer = transfer).is_some()
    }

    /// The name of a node.
    pub(crate) fn name(&self, node: u32) -> &[u8] {
        let node = &self.nodes[node as usize..];
        let sets = usize::from(u16::from_le_bytes([node[12], node[13]]));
        let at = NODE + RRSET * sets;
        &node[at..at + usize::from(node[14])]
    }

    /// The section `zones`.
    pub(crate) fn section(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.list.len() * ZONE);
        for zone in &self.list {
            out.extend(zone.apex.to_le_bytes());
            out.push(zone.depth);
            out.push(u8::from(zone.transfer) | u8::from(zone.signed) << 1);
            out.extend(zone.iterations.to_le_bytes());
            for [first, count] in [zone.nodes, zone.nsec, zone.nsec3, zone.salt] {
                out.extend(first.to_le_bytes());
                out.extend(count.to_le_bytes());
            }
        }
        out
    }
}

impl Zone {
    /// Labels of the apex.
    pub(crate) fn labels(&self) -> u8 {
        let labels = self.key.iter().filter(|octet| **octet == 0).count();
        u8::try_from(labels).unwrap_or(u8::MAX)
    }
}

/// The number of the zone that is being made.
fn zone_number(list: &[Zone]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// The order of types at a name, RRSIG after what they cover.
fn rank(records: &Records, record: &Record) -> (u16, bool) {
    if record.rtype == RRSIG
        && let [high, low, ..] = records.octets(record.rdata)
    {
        return (u16::from_be_bytes([*high, *low]), true);
    }
    (record.rtype, false)
}

/// Hash, flags, and what goes into the hash, of NSEC3 and NSEC3PARAM (RFC 5155 sections 3.2 and 4.2).
fn nsec3_fields(rdata: &[u8]) -> Option<(u8, u8, Parameters)> {
    let [hash, flags, high, low, length, rest @ ..] = rdata else {
        return None;
    };
    let salt = rest.get(..usize::from(*length))?;
    let iterations = u16::from_be_bytes([*high, *low]);
    Some((*hash, *flags, (iterations, salt.to_vec())))
}

/// Takes a node with NSEC3 into the chain, if it is of the one that is served.
fn chain_link(
    records: &Records,
    group: &[Record],
    at: u32,
    parameters: &Option<Parameters>,
    chain: &mut BTreeMap<[u8; 20], u32>,
    findings: &mut Findings,
) {
    let served = group.iter().find(|record| {
        let fields = nsec3_fields(records.octets(record.rdata));
        record.rtype == NSEC3 && fields.map(|fields| fields.2) == *parameters
    });
    let Some(record) = served else {
        return;
    };
    let owner = records.octets(record.owner);
    let hash = owner
        .split_first()
        .and_then(|(length, rest)| rest.get(..usize::from(*length)))
        .and_then(|label| std::str::from_utf8(label).ok())
        .and_then(|label| domain::utils::base32::decode_hex::<Vec<u8>>(label).ok())
        .and_then(|hash| <[u8; 20]>::try_from(hash).ok());
    let (file, line) = records.place(record);
    match hash {
        Some(hash) => drop(chain.insert(hash, at)),
        None => {
            let what = format!("{} is no hash of NSEC3", presentation(owner));
            findings.error(file, line, what);
        }
    }
}

/// Records of one name and type, in the form of the pack.
struct Set {
    rtype: u16,
    ttl: u32,
    rdata: Vec<u8>,
    signatures: Vec<u8>,
}

impl Set {
    fn octets(&self) -> usize {
        self.rdata.len() + self.signatures.len()
    }
}

/// The sets of records at a name, checked.
fn sets(records: &Records, group: &[Record], zone: &Zone, findings: &mut Findings) -> Vec<Set> {
    let owner = || presentation(records.octets(group[0].owner));
    let apex = records.octets(group[0].key) == zone.key;
    let mut sets: Vec<Set> = Vec::new();
    for run in group.chunk_by(|one, other| rank(records, one) == rank(records, other)) {
        let (rtype, signatures) = rank(records, &run[0]);
        let name = type_name(rtype);
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
        let octets = rdata(records, run, findings);
        let count = mayfly_site::records(&octets).count();
        // The first two are in place; the next one is too much.
        let second = run.get(1).unwrap_or(&run[0]);
        if rtype == SOA && !apex {
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
            rdata: octets,
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
                type_name(other.rtype)
            );
            findings.error(file, line, what);
        }
    }
    sets
}

/// The RDATA of records of one type, each after its length; the same again is left out.
fn rdata(records: &Records, run: &[Record], findings: &mut Findings) -> Vec<u8> {
    let mut out = Vec::new();
    let mut known = std::collections::HashSet::new();
    for record in run {
        let octets = records.octets(record.rdata);
        if run.len() > 1 && !known.insert(octets) {
            let (file, line) = records.place(record);
            let owner = presentation(records.octets(record.owner));
            let what = format!("{owner} {} is there twice", type_name(record.rtype));
            findings.warning(file, line, what);
            continue;
        }
        let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
        out.extend(length.to_be_bytes());
        out.extend(octets);
    }
    out
}
