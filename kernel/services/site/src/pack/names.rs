//! Zones of a pack.

use crate::rtype::NSEC;
use core::cmp::Ordering;

use super::read::{entry, hash, part, same_name, search, u8_at, u16_at, u32_at};
use super::{NODE, NSEC3, Pack, RRSET, ZONE};
use crate::{Broken, Encloser, Node, Nsec3Parameters, RrSet, Zone, Zones, labels, next_label};

/// A flag of a node: the node is an apex.
const APEX: u8 = 1;
/// A flag of a zone: anyone may transfer the whole zone.
const TRANSFER: u8 = 1;
/// A flag of a zone: the zone is signed.
const SIGNED: u8 = 2;

/// The labels of a name, from the top down; `None` when it is not a name.
fn from_top<'n>(name: &'n [u8], room: &'n mut [u8; 127]) -> Option<impl Iterator<Item = &'n [u8]>> {
    let count = labels(name)?;
    let starts = room.get_mut(..count)?;
    let mut at = 0;
    for start in &mut *starts {
        *start = u8::try_from(at).ok()?;
        at = next_label(name, at);
    }
    Some(starts.iter().rev().map(|start| {
        let tail = name.get(usize::from(*start)..).unwrap_or_default();
        let (length, tail) = tail.split_first().unwrap_or((&0, &[]));
        tail.get(..usize::from(*length)).unwrap_or_default()
    }))
}

/// Compares two names in wire form by the canonical order of RFC 4034 section 6.1; `None` when one is not a name.
#[must_use]
pub fn canonical_order(one: &[u8], other: &[u8]) -> Option<Ordering> {
    let (mut room, mut other_room) = ([0; 127], [0; 127]);
    let mut one = from_top(one, &mut room)?;
    let mut other = from_top(other, &mut other_room)?;
    loop {
        let (one, other) = match (one.next(), other.next()) {
            (Some(one), Some(other)) => (one, other),
            (one, other) => return Some(one.is_some().cmp(&other.is_some())),
        };
        let lower = |byte: &u8| byte.to_ascii_lowercase();
        let order = one.iter().map(lower).cmp(other.iter().map(lower));
        if order != Ordering::Equal {
            return Some(order);
        }
    }
}

/// A node, from its first byte to the end of the section.
#[derive(Clone, Copy)]
struct NodeRecord<'a>(&'a [u8]);

impl<'a> NodeRecord<'a> {
    fn zone(self) -> Result<u32, Broken> {
        u32_at(self.0, 0)
    }

    fn is_apex(self) -> Result<bool, Broken> {
        Ok(u8_at(self.0, 15)? & APEX != 0)
    }

    fn link(self, at: usize) -> Result<Option<Node>, Broken> {
        let node = u32_at(self.0, at)?;
        Ok((node != 0).then_some(Node(node)))
    }

    fn rrsets(self) -> Result<usize, Broken> {
        u16_at(self.0, 12).map(usize::from)
    }

    fn name(self) -> Result<&'a [u8], Broken> {
        let length = u8_at(self.0, 14)?.into();
        part(self.0, NODE + RRSET * self.rrsets()?, length)
    }

    /// The type of the `index`th RRset, which must exist.
    fn rtype(self, index: usize) -> Result<u16, Broken> {
        u16_at(self.0, NODE + RRSET * index)
    }

    /// The `index`th RRset, which must exist.
    fn rrset(self, index: usize) -> Result<RrSet<'a>, Broken> {
        let record = part(self.0, NODE + RRSET * index, RRSET)?;
        let at = u32_at(record, 8)? as usize;
        let rdata = part(self.0, at, u32_at(record, 12)? as usize)?;
        let signatures_at = at.checked_add(rdata.len()).ok_or(Broken)?;
        Ok(RrSet {
            rtype: u16_at(record, 0)?,
            ttl: u32_at(record, 4)?,
            rdata,
            signatures: part(self.0, signatures_at, u32_at(record, 16)? as usize)?,
        })
    }

    /// The index of the RRset of a type.
    fn position(self, rtype: u16) -> Result<Option<usize>, Broken> {
        let count = self.rrsets()?;
        let index = search(count, |index| Ok(self.rtype(index)? < rtype))?;
        Ok((index < count && self.rtype(index)? == rtype).then_some(index))
    }
}

/// A zone.
#[derive(Clone, Copy)]
struct ZoneRecord<'a>(&'a [u8]);

impl ZoneRecord<'_> {
    fn apex(self) -> Result<Node, Broken> {
        u32_at(self.0, 0).map(Node)
    }

    /// The number of labels of the deepest name, counted from the apex.
    fn depth(self) -> Result<usize, Broken> {
        u8_at(self.0, 4).map(usize::from)
    }

    fn has(self, flag: u8) -> Result<bool, Broken> {
        Ok(u8_at(self.0, 5)? & flag != 0)
    }

    fn iterations(self) -> Result<u16, Broken> {
        u16_at(self.0, 6)
    }

    /// The first and the number of the entries of a run.
    fn run(self, at: usize) -> Result<(u32, usize), Broken> {
        let count = u32_at(self.0, at + 4)?;
        Ok((u32_at(self.0, at)?, count as usize))
    }
}

/// The offsets of the runs in the record of a zone.
const NODES: usize = 8;
const NSECS: usize = 16;
const NSEC3S: usize = 24;
const SALT: usize = 32;

impl<'a> Pack<'a> {
    fn node_record(&self, node: Node) -> Result<NodeRecord<'a>, Broken> {
        let at = usize::try_from(node.0).map_err(|_| Broken)?;
        self.nodes.get(at..).map(NodeRecord).ok_or(Broken)
    }

    fn zone_record(&self, index: u32) -> Result<ZoneRecord<'a>, Broken> {
        let at = (index as usize).checked_mul(ZONE).ok_or(Broken)?;
        part(self.zones, at, ZONE).map(ZoneRecord)
    }

    fn zone_record_of(&self, zone: Zone<Node>) -> Result<ZoneRecord<'a>, Broken> {
        self.zone_record(self.node_record(zone.apex)?.zone()?)
    }

    /// The node with a name, in lower case, that meets a condition.
    fn find(
        &self,
        name: &[u8],
        condition: impl Fn(NodeRecord<'a>) -> Result<bool, Broken>,
    ) -> Result<Option<(Node, NodeRecord<'a>)>, Broken> {
        self.names.find(hash(self.seed, name), |node| {
            let node = Node(node);
            let record = self.node_record(node)?;
            let found = same_name(record.name()?, name) && condition(record)?;
            Ok(found.then_some((node, record)))
        })
    }

    /// The `index`th zone; its `at` is zero.
    ///
    /// # Errors
    ///
    /// The pack is broken.
    pub fn nth_zone(&self, index: usize) -> Result<Option<Zone<Node>>, Broken> {
        if index >= self.zones.len() / ZONE {
            return Ok(None);
        }
        let record = self.zone_record(u32::try_from(index).map_err(|_| Broken)?)?;
        Ok(Some(Zone {
            apex: record.apex()?,
            at: 0,
            transfer: record.has(TRANSFER)?,
            signed: record.has(SIGNED)?,
        }))
    }

    /// The number of nodes of a zone, of those with NSEC, and of those with NSEC3.
    ///
    /// # Errors
    ///
    /// The pack is broken.
    pub fn node_counts(&self, zone: Zone<Node>) -> Result<[usize; 3], Broken> {
        let zone = self.zone_record_of(zone)?;
        Ok([zone.run(NODES)?.1, zone.run(NSECS)?.1, zone.run(NSEC3S)?.1])
    }

    /// The `index`th of the nodes with NSEC3 in the order of their hashes.
    ///
    /// # Errors
    ///
    /// The pack is broken.
    pub fn nth_nsec3(
        &self,
        zone: Zone<Node>,
        index: usize,
    ) -> Result<Option<([u8; 20], Node)>, Broken> {
        let (first, count) = self.zone_record_of(zone)?.run(NSEC3S)?;
        if index >= count {
            return Ok(None);
        }
        let entry = entry::<NSEC3>(self.nsec3, first, index)?;
        let (hash, node) = entry.split_first_chunk().ok_or(Broken)?;
        Ok(Some((*hash, Node(u32_at(node, 0)?))))
    }

    /// The node in an entry of the section `order`.
    fn ordered(&self, first: u32, index: usize) -> Result<Node, Broken> {
        entry(self.order, first, index).map(|node| Node(u32::from_le_bytes(node)))
    }
}

impl Zones for Pack<'_> {
    type Node = Node;

    fn zone(&self, name: &[u8]) -> Result<Option<Zone<Node>>, Broken> {
        let Some(mut count) = labels(name) else {
            return Ok(None);
        };
        let [shortest, longest] = self.apex_labels.map(usize::from);
        let mut at = 0;
        loop {
            if count < shortest {
                return Ok(None);
            }
            if count <= longest {
                let suffix = name.get(at..).ok_or(Broken)?;
                if let Some((apex, record)) = self.find(suffix, NodeRecord::is_apex)? {
                    let record = self.zone_record(record.zone()?)?;
                    return Ok(Some(Zone {
                        apex,
                        at,
                        transfer: record.has(TRANSFER)?,
                        signed: record.has(SIGNED)?,
                    }));
                }
            }
            if count == 0 {
                return Ok(None);
            }
            at = next_label(name, at);
            count -= 1;
        }
    }

    fn closest_encloser(&self, zone: Zone<Node>, name: &[u8]) -> Result<Encloser<Node>, Broken> {
        let index = self.node_record(zone.apex)?.zone()?;
        let depth = self.zone_record(index)?.depth()?;
        let mut below = 0;
        let mut at = 0;
        while at < zone.at {
            at = next_label(name, at);
            below += 1;
        }
        if at != zone.at || at >= name.len() {
            return Err(Broken);
        }
        at = 0;
        while below > 0 {
            if below <= depth {
                let suffix = name.get(at..).ok_or(Broken)?;
                let found = self.find(suffix, |node| Ok(node.zone()? == index))?;
                if let Some((node, _)) = found {
                    return Ok(Encloser { node, at });
                }
            }
            at = next_label(name, at);
            below -= 1;
        }
        Ok(Encloser {
            node: zone.apex,
            at: zone.at,
        })
    }

    fn unchanging(&self, zone: Zone<Node>) -> Option<u32> {
        Some(zone.apex.0)
    }

    fn wildcard(&self, node: Node) -> Result<Option<Node>, Broken> {
        self.node_record(node)?.link(4)
    }

    fn delegation(&self, node: Node) -> Result<Option<Node>, Broken> {
        self.node_record(node)?.link(8)
    }

    fn name(&self, node: Node) -> Result<&[u8], Broken> {
        let name = self.node_record(node)?.name()?;
        labels(name).map(|_| name).ok_or(Broken)
    }

    fn rrset(&self, node: Node, rtype: u16) -> Result<Option<RrSet<'_>>, Broken> {
        let record = self.node_record(node)?;
        let index = record.position(rtype)?;
        index.map(|index| record.rrset(index)).transpose()
    }

    fn nth_rrset(&self, node: Node, index: usize) -> Result<Option<RrSet<'_>>, Broken> {
        let record = self.node_record(node)?;
        if index >= record.rrsets()? {
            return Ok(None);
        }
        record.rrset(index).map(Some)
    }

    fn nth_node(&self, zone: Zone<Node>, index: usize) -> Result<Option<Node>, Broken> {
        let (first, count) = self.zone_record_of(zone)?.run(NODES)?;
        if index >= count {
            return Ok(None);
        }
        self.ordered(first, index).map(Some)
    }

    fn nsec(&self, zone: Zone<Node>, name: &[u8]) -> Result<Option<Node>, Broken> {
        let (first, count) = self.zone_record_of(zone)?.run(NSECS)?;
        let after = search(count, |index| {
            let other = self.node_record(self.ordered(first, index)?)?.name()?;
            Ok(canonical_order(other, name).ok_or(Broken)?.is_le())
        })?;
        let Some(index) = after.checked_sub(1) else {
            return Ok(None);
        };
        let node = self.ordered(first, index)?;
        // The caller relies on the node having an NSEC RRset.
        self.node_record(node)?.position(NSEC)?.ok_or(Broken)?;
        Ok(Some(node))
    }

    fn nsec3_parameters(&self, zone: Zone<Node>) -> Result<Option<Nsec3Parameters<'_>>, Broken> {
        let record = self.zone_record_of(zone)?;
        let (_, count) = record.run(NSEC3S)?;
        if count == 0 {
            return Ok(None);
        }
        let (at, bytes) = record.run(SALT)?;
        Ok(Some(Nsec3Parameters {
            iterations: record.iterations()?,
            salt: part(self.nodes, at as usize, bytes)?,
        }))
    }

    fn nsec3(&self, zone: Zone<Node>, hash: &[u8; 20]) -> Result<Option<(Node, bool)>, Broken> {
        let (first, count) = self.zone_record_of(zone)?.run(NSEC3S)?;
        let at = |index| {
            let entry = entry::<NSEC3>(self.nsec3, first, index)?;
            let (hash, node) = entry.split_first_chunk::<20>().ok_or(Broken)?;
            Ok((*hash, Node(u32_at(node, 0)?)))
        };
        let after = search(count, |index| Ok(at(index)?.0 <= *hash))?;
        // The one before the first is the last.
        let Some(index) = after.checked_sub(1).or(count.checked_sub(1)) else {
            return Ok(None);
        };
        let (found, node) = at(index)?;
        Ok(Some((node, found == *hash)))
    }
}
