//! The authority and the additional section: their RRsets are noted during the walk and written after it.

use heapless::Vec;
use mayfly_site::{RrSet, Zone, Zones, records};

use super::{End, Item, Lookup, add};
use crate::compose::Fault;
use crate::key::Key;
use crate::pointer::Owner;
use crate::targets::{TARGETS_MAX, Target};
use crate::wire::{class, is_below, rtype};

impl<'z, Z: Zones> Lookup<'_, '_, 'z, Z> {
    pub(super) fn refer(&mut self, zone: Zone<Z::Node>, cut: Z::Node) -> Result<(), Fault> {
        self.answer.authoritative = !self.links.is_empty() && self.question.qclass != class::ANY;
        let name = self.zones.name(cut)?;
        let at = self
            .key
            .len()
            .checked_sub(name.len())
            .ok_or(Fault::Broken)?;
        let set = self.zones.rrset(cut, rtype::NS)?.ok_or(Fault::Broken)?;
        self.note_at(cut, at, set, false)?;
        if self.options.dnssec && zone.signed {
            match self.zones.rrset(cut, rtype::DS)? {
                Some(set) => self.note_at(cut, at, set, false)?,
                None => self.prove_no_ds(zone, cut, at)?,
            }
        }
        Ok(())
    }

    /// Notes the SOA record of a negative answer. Its TTL is the time for which the answer may be cached (RFC 2308
    /// section 3).
    pub(super) fn note_soa(&mut self, zone: Zone<Z::Node>) -> Result<(), Fault> {
        if self.question.qclass == class::ANY {
            return Ok(());
        }
        let soa = self.zones.rrset(zone.apex, rtype::SOA)?;
        let mut soa = soa.ok_or(Fault::Broken)?;
        let minimum = records(soa.rdata).next().and_then(<[u8]>::last_chunk);
        let minimum = u32::from_be_bytes(*minimum.ok_or(Fault::Broken)?);
        soa.ttl = soa.ttl.min(minimum);
        self.note_at(zone.apex, zone.at, soa, false)
    }

    /// Notes the zone's NS records, which accompany an answer.
    pub(super) fn note_servers(&mut self, zone: Zone<Z::Node>) -> Result<(), Fault> {
        let is_large = matches!(self.question.qtype, rtype::DS | rtype::DNSKEY | rtype::ANY);
        if self.options.minimal || is_large || self.question.qclass == class::ANY {
            return Ok(());
        }
        match self.zones.rrset(zone.apex, rtype::NS)? {
            Some(set) => self.note_at(zone.apex, zone.at, set, true),
            None => Ok(()),
        }
    }

    pub(super) fn note_at(
        &mut self,
        node: Z::Node,
        at: usize,
        set: RrSet<'z>,
        optional: bool,
    ) -> Result<(), Fault> {
        let owner = self.owner_at(node, at)?;
        self.note(node, owner, set, optional)
    }

    /// The owner of a node whose name begins at `at` in the name that is looked up.
    pub(super) fn owner_at(&self, node: Z::Node, at: usize) -> Result<Owner<'z>, Fault> {
        if self.links.is_empty() {
            return Ok(Owner::At(self.owner + at));
        }
        Ok(Owner::Name(self.zones.name(node)?))
    }

    pub(in super::super) fn note(
        &mut self,
        node: Z::Node,
        owner: Owner<'z>,
        set: RrSet<'z>,
        optional: bool,
    ) -> Result<(), Fault> {
        let item = Item {
            node,
            owner,
            set,
            optional,
        };
        self.authority.push(item).map_err(|_| Fault::Broken)
    }

    /// Writes the noted RRsets. Returns whether there was room for all of them.
    pub(super) fn write_authority(&mut self) -> Result<bool, Fault> {
        for optional in [false, true] {
            for item in &self.authority {
                let id = (item.node, item.set.rtype);
                if item.optional != optional || self.sets.contains(&id) {
                    continue;
                }
                let targets = Some(&mut self.targets);
                let signed = self.options.dnssec;
                match self.message.set(item.owner, &item.set, signed, targets) {
                    Ok(written) => add(&mut self.answer.counts[1], written.count)?,
                    Err(Fault::Full) if optional => return Ok(false),
                    Err(fault) => return Err(fault),
                }
                let _ = self.sets.push(id);
            }
        }
        Ok(true)
    }

    /// Writes the addresses of the targets, as far as there is room. Returns whether all were written.
    pub(super) fn write_additional(&mut self, end: &End<Z::Node>) -> Result<bool, Fault> {
        if self.targets.is_empty() {
            return Ok(true);
        }
        let zone = end.zone;
        let apex = self.zones.name(zone.apex)?;
        let cut = end.cut.map(|cut| self.zones.name(cut)).transpose()?;
        let mut found: Vec<(Target<'z>, Z::Node, bool), { TARGETS_MAX }> = Vec::new();
        for target in &self.targets {
            if !is_below(target.name, apex) {
                continue;
            }
            self.key = Key::new(target.name);
            let at = self.key.len() - apex.len();
            let encloser = self
                .zones
                .closest_encloser(Zone { at, ..zone }, self.key.from(0))?;
            let is_glue =
                encloser.node != zone.apex && self.zones.delegation(encloser.node)?.is_some();
            let node = match encloser.at {
                // Only name servers have addresses beyond a delegation.
                0 if is_glue && !target.allows_glue => None,
                0 => Some(encloser.node),
                _ if is_glue => None,
                _ => self.zones.wildcard(encloser.node)?,
            };
            // Without an address in the child zone a referral leads nowhere (RFC 9471 section 3.1).
            let is_required = cut.is_some_and(|cut| is_below(target.name, cut));
            if let Some(node) = node {
                let _ = found.push((*target, node, is_required));
            }
        }
        let order = match self.options.ipv6 {
            false => [rtype::A, rtype::AAAA],
            true => [rtype::AAAA, rtype::A],
        };
        for required in [true, false] {
            for rtype in order {
                let mut is_full = false;
                for (target, node, _) in found.iter().filter(|(_, _, is)| *is == required) {
                    if self.sets.contains(&(*node, rtype)) {
                        continue;
                    }
                    let Some(set) = self.zones.rrset(*node, rtype)? else {
                        continue;
                    };
                    let signed = self.options.dnssec;
                    match self.message.set(target.owner(), &set, signed, None) {
                        Ok(written) => {
                            add(&mut self.answer.counts[2], written.count)?;
                            let _ = self.sets.push((*node, rtype));
                        }
                        Err(Fault::Full) if !required => is_full = true,
                        Err(fault) => return Err(fault),
                    }
                }
                if is_full {
                    return Ok(false);
                }
            }
        }
        // Targets beyond the greatest number were left out.
        Ok(!self.targets.is_full())
    }
}
