//! Turns records into nodes: sorted, checked, and laid out in the format of the pack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mayfly_site::pack::{NODE, RRSET, ZONE};

use super::super::problem::Findings;
use super::chain::{Parameters, chain_link, parameters};
use super::name::{canonical_key, presentation};
use super::records::{Apex, Record, Records};
use super::sets::{Set, rank, sets};

const NS: u16 = 2;
const SOA: u16 = 6;
const DNAME: u16 = 39;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const DNSKEY: u16 = 48;
const NSEC3: u16 = 50;

/// The size of a cache line in bytes. A small node lies in one.
const LINE: usize = 64;

/// The zones of a site as sections of the pack.
pub(crate) struct Zones {
    pub(crate) nodes: Vec<u8>,
    /// The nodes for the index of names.
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
    apex: Apex,
    /// The apex.
    node: u32,
    /// The number of labels of the deepest indexed name, counted from the apex.
    depth: u8,
    transfer: bool,
    signed: bool,
    iterations: u16,
    /// Offset and length.
    salt: [u32; 2],
    /// First and count.
    nodes: [u32; 2],
    nsec: [u32; 2],
    nsec3: [u32; 2],
}

impl Default for Zones {
    fn default() -> Self {
        Self {
            // Offset 0 means "no node".
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

/// A node between the apex and the node that is being made.
struct Ancestor {
    key: Vec<u8>,
    at: u32,
    delegation: u32,
    /// The name of the node, if it has DNAME.
    dname: Option<String>,
}

/// The NSEC and NSEC3 nodes of a zone.
#[derive(Default)]
struct Chains {
    parameters: Option<Parameters>,
    /// Nodes with NSEC.
    nsec: Vec<u32>,
    /// Nodes with NSEC3 of the chain that is served, by hash.
    nsec3: BTreeMap<[u8; 20], u32>,
}

impl Zones {
    /// Adds the zone with these records; an error keeps it out. If the file could not be read whole, missing records
    /// are not reported.
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
        // Signatures come directly after the RRset that they cover; otherwise the order is as written.
        list.sort_by(|one, other| {
            let bytes = records.bytes(one.key).cmp(records.bytes(other.key));
            bytes.then_with(|| rank(records, one).cmp(&rank(records, other)))
        });
        let Some(soa) = list.iter().find(|record| record.rtype == SOA) else {
            if whole {
                findings.error(file, None, "the zone has no SOA record");
            }
            return;
        };
        let mut zone = self.begin(records, soa, origin, findings);
        let mut chains = Chains {
            parameters: parameters(records, &list, &zone.apex.key, findings),
            ..Chains::default()
        };
        if let Some((iterations, salt)) = &chains.parameters {
            let at = u32::try_from(self.nodes.len()).unwrap_or(0);
            zone.iterations = *iterations;
            zone.salt = [at, u32::try_from(salt.len()).unwrap_or(0)];
            self.nodes.extend(salt);
        }
        let mut stack: Vec<Ancestor> = Vec::new();
        for group in list.chunk_by(|one, other| records.bytes(one.key) == records.bytes(other.key))
        {
            if let Some(reason) =
                self.name_of(records, group, &mut zone, &mut chains, &mut stack, findings)
                && whole
            {
                findings.error(file, None, reason);
            }
        }
        if u32::try_from(self.nodes.len()).is_err() {
            findings.error(file, None, "with it the zones are larger than 4 GiB");
        }
        if findings.errors.count() == before {
            self.finish(zone, chains, list.len());
        }
    }

    /// A new, empty zone, whose apex is the owner of its SOA record.
    fn begin(
        &self,
        records: &Records,
        soa: &Record,
        origin: &[u8],
        findings: &mut Findings,
    ) -> Zone {
        let (place, line) = records.place(soa);
        let apex = Apex {
            name: records.bytes(soa.owner).to_ascii_lowercase(),
            key: records.bytes(soa.key).to_vec(),
        };
        if apex.name != origin.to_ascii_lowercase() {
            let (zone, named) = (presentation(&apex.name), presentation(origin));
            let what = format!("the zone is {zone}, and the file is named as {named}");
            findings.warning(place, line, what);
        }
        Zone {
            file: place.to_owned(),
            line,
            apex,
            node: 0,
            depth: 0,
            transfer: false,
            signed: false,
            iterations: 0,
            salt: [0; 2],
            nodes: [self.entries(), 0],
            nsec: [0; 2],
            nsec3: [self.nsec3_entries(), 0],
        }
    }

    /// Adds the records of one name. Returns what is missing there, if anything.
    fn name_of(
        &mut self,
        records: &Records,
        group: &[Record],
        zone: &mut Zone,
        chains: &mut Chains,
        stack: &mut Vec<Ancestor>,
        findings: &mut Findings,
    ) -> Option<&'static str> {
        let key = records.bytes(group[0].key);
        let owner = records.bytes(group[0].owner);
        let (file, line) = records.place(&group[0]);
        if !key.starts_with(&zone.apex.key) {
            let (owner, zone) = (presentation(owner), presentation(&zone.apex.name));
            findings.error(file, line, format!("{owner} is not in the zone {zone}"));
            return None;
        }
        let hashed = group.iter().all(|record| {
            record.rtype == NSEC3 || record.rtype == RRSIG && rank(records, record).0 == NSEC3
        });
        self.ancestors(stack, key, owner, zone, |this, name| {
            this.node(zone_number(&this.list), name, &[])
        });
        let sets = sets(records, group, &zone.apex, findings);
        if let Some(dname) = stack.iter().find_map(|ancestor| ancestor.dname.as_ref())
            && !hashed
        {
            let owner = presentation(owner);
            let what = format!("{owner} is below {dname}, which has DNAME (RFC 6672 section 2.4)");
            findings.error(file, line, what);
        }
        let at = self.node(zone_number(&self.list), owner, &sets);
        let has = |rtype| sets.iter().any(|set| set.rtype == rtype);
        if has(NSEC) {
            chains.nsec.push(at);
        }
        if has(NSEC3) {
            chain_link(
                records,
                group,
                at,
                &chains.parameters,
                &mut chains.nsec3,
                findings,
            );
        }
        if hashed {
            return None;
        }
        let at_apex = key == zone.apex.key;
        self.push(stack, key, owner, at, has(NS) && !at_apex);
        // The stack has the apex and all names between.
        let depth = u8::try_from(stack.len() - 1).unwrap_or(u8::MAX);
        zone.depth = zone.depth.max(depth);
        if has(DNAME)
            && let Some(last) = stack.last_mut()
        {
            last.dname = Some(presentation(owner));
        }
        self.indexed.push(at);
        if !at_apex {
            return None;
        }
        zone.node = at;
        zone.signed = has(DNSKEY);
        self.set_flags(at);
        (!has(NS)).then_some("the zone has no NS record at its apex")
    }

    /// Appends a complete zone to the list.
    fn finish(&mut self, mut zone: Zone, chains: Chains, records: usize) {
        zone.nodes[1] = self.entries() - zone.nodes[0];
        zone.nsec = [
            self.entries(),
            u32::try_from(chains.nsec.len()).unwrap_or(0),
        ];
        for at in chains.nsec {
            self.order.extend(at.to_le_bytes());
        }
        for (hash, at) in chains.nsec3 {
            self.nsec3.extend(hash);
            self.nsec3.extend(u32::to_le_bytes(at));
        }
        zone.nsec3[1] = self.nsec3_entries() - zone.nsec3[0];
        self.records += records as u64;
        self.list.push(zone);
    }

    fn entries(&self) -> u32 {
        u32::try_from(self.order.len() / 4).unwrap_or(u32::MAX)
    }

    fn nsec3_entries(&self) -> u32 {
        let bytes = mayfly_site::pack::NSEC3;
        u32::try_from(self.nsec3.len() / bytes).unwrap_or(u32::MAX)
    }

    fn set_flags(&mut self, at: u32) {
        self.nodes[at as usize + 15] = 1;
    }

    /// Reduces the stack to the nodes above a name, and makes those that have no records.
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
        // The names between the last one on the stack and the name itself have no records. They are visited from the
        // top down.
        let mut suffixes = Vec::new();
        let mut rest = owner;
        while let Some((&length @ 1.., tail)) = rest.split_first() {
            rest = tail.get(usize::from(length)..).unwrap_or_default();
            let mut bytes = Vec::new();
            canonical_key(rest, &mut bytes);
            if bytes.len() < zone.apex.key.len()
                || stack
                    .last()
                    .is_some_and(|last| bytes.len() <= last.key.len())
            {
                break;
            }
            suffixes.push((rest, bytes));
        }
        for (name, bytes) in suffixes.into_iter().rev() {
            // The apex has no names above it.
            if bytes == zone.apex.key {
                continue;
            }
            let at = make(self, name);
            self.indexed.push(at);
            self.push(stack, &bytes, name, at, false);
        }
    }

    /// Pushes a node on the stack and links it to those above.
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

    /// Writes a node. Returns its offset.
    fn node(&mut self, zone: u32, name: &[u8], sets: &[Set]) -> u32 {
        let bytes = NODE + RRSET * sets.len() + name.len();
        let bytes = bytes + sets.iter().map(Set::bytes).sum::<usize>();
        let mut start = self.nodes.len().next_multiple_of(8);
        if bytes <= LINE && start / LINE != (start + bytes - 1) / LINE {
            start = start.next_multiple_of(LINE);
        }
        self.nodes.resize(start, 0);
        // The size is checked when the zone is complete.
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
            data += set.bytes();
        }
        self.nodes.extend(name);
        for set in sets {
            self.nodes.extend(&set.rdata);
            self.nodes.extend(&set.signatures);
        }
        at
    }

    /// Reports two zones with the same name as an error.
    pub(super) fn check_names(&self, findings: &mut Findings) {
        let mut known: BTreeMap<&[u8], &Zone> = BTreeMap::new();
        for zone in &self.list {
            if let Some(first) = known.insert(&zone.apex.key, zone) {
                let what = format!(
                    "the zone {} is in {} as well",
                    presentation(&zone.apex.name),
                    first.file.display()
                );
                findings.error(&zone.file, zone.line, what);
            }
        }
    }

    /// Sets whether a zone may be transferred. Returns whether the zone exists.
    pub(super) fn configure(&mut self, name: &[u8], transfer: bool) -> bool {
        let zone = self.list.iter_mut().find(|zone| zone.apex.name == name);
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
            out.extend(zone.node.to_le_bytes());
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
    /// The number of labels of the apex.
    pub(crate) fn labels(&self) -> u8 {
        let labels = self.apex.key.iter().filter(|byte| **byte == 0).count();
        u8::try_from(labels).unwrap_or(u8::MAX)
    }
}

/// The number of the zone that is being made.
fn zone_number(list: &[Zone]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
