//! Finds the answer to a question: one walk through the zones (RFC 1034 section 4.3.2).
//!
//! The answer section is written as the walk goes. What belongs into the authority section is noted
//! and written next, required sets before the optional one; then the addresses of the names that
//! have come up.

use heapless::Vec;

use super::compose::{Fault, Owner, Target, Targets, Writer};
use super::tail::{self, Tails};
use super::wire::{
    HEADER_LEN, NAME_MAX, Question, class, is_below, is_name, rcode, rtype, to_lower,
};
use super::{Answer, Transport};
use mayfly_site::{Encloser, RrSet, Zone, Zones, records};

/// CNAME and DNAME records that are followed for one question.
const LINKS_MAX: usize = 16;
/// Sets in the authority section: each link may need a proof, the end a SOA record and three more.
const AUTHORITY_MAX: usize = LINKS_MAX + 6;
/// Sets that are remembered so that none is there twice.
const SETS_MAX: usize = 2 * AUTHORITY_MAX;

/// What beside the question decides on an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Leave out what was not asked for and is not needed.
    pub(super) minimal: bool,
    /// The client wants signatures and proofs (DO).
    pub(super) dnssec: bool,
    /// The client has come over IPv6, and so may prefer AAAA.
    pub(super) ipv6: bool,
    pub(super) transport: Transport,
}

/// One walk.
pub(super) struct Lookup<'m, 'o, 'z, Z: Zones> {
    pub(super) zones: &'z Z,
    pub(super) options: Options,
    question: Question<'m>,
    message: &'m mut Writer<'o>,
    tails: &'m mut Tails,
    /// The name that is looked for, and where it is in the message.
    pub(super) key: Key,
    owner: usize,
    /// Where the names are that were looked for before it.
    links: Vec<usize, LINKS_MAX>,
    answer: Answer,
    authority: Vec<Item<'z, Z::Node>, AUTHORITY_MAX>,
    /// Sets under their own name that are in the message.
    sets: Vec<(Z::Node, u16), SETS_MAX>,
    targets: Targets<'z>,
    /// There is nothing in the answer section that what follows it depends on.
    is_plain: bool,
}

/// A set that goes into the authority section.
struct Item<'z, N> {
    node: N,
    owner: Owner<'z>,
    set: RrSet<'z>,
    optional: bool,
}

/// Where a walk has ended.
struct End<N> {
    zone: Zone<N>,
    /// The delegation that is referred to.
    cut: Option<N>,
}

/// Whether a walk goes on with another name.
#[derive(PartialEq, Eq)]
enum Step {
    Done,
    Follow,
}

impl<'m, 'o, 'z, Z: Zones> Lookup<'m, 'o, 'z, Z> {
    pub(super) fn new(
        zones: &'z Z,
        question: &Question<'m>,
        options: Options,
        message: &'m mut Writer<'o>,
        tails: &'m mut Tails,
    ) -> Self {
        Self {
            zones,
            options,
            question: *question,
            message,
            tails,
            key: Key::new(question.name),
            owner: HEADER_LEN,
            links: Vec::new(),
            answer: Answer::of(rcode::NOERROR),
            authority: Vec::new(),
            sets: Vec::new(),
            targets: Vec::new(),
            is_plain: true,
        }
    }

    /// Fills in the sections.
    pub(super) fn run(mut self) -> Result<Answer, Fault> {
        let walked = self.walk();
        let Some(end) = self.unless_full(walked)?.flatten() else {
            return Ok(self.answer);
        };
        let tail = self.tail(&end)?;
        if let Some((id, below)) = tail {
            let apex = HEADER_LEN + end.zone.at;
            let below = self.key.from(below);
            if let Some([authority, additional]) = self.tails.append(id, apex, below, self.message)
            {
                self.answer.counts[1] = authority;
                self.answer.counts[2] = additional;
                return Ok(self.answer);
            }
        }
        let start = self.message.len();
        let written = self.write_authority();
        if self.unless_full(written)? == Some(true) {
            let written = self.write_additional(&end);
            if let (Some(true), Some((id, _))) = (self.unless_full(written)?, tail) {
                self.keep(id, &end, start)?;
            }
        }
        Ok(self.answer)
    }

    /// Which tail belongs to an answer, if it is one that has none of its own, and where the label
    /// right below the apex is.
    fn tail(&self, end: &End<Z::Node>) -> Result<Option<(tail::Id, usize)>, Fault> {
        let [item] = &*self.authority else {
            return Ok(None);
        };
        let is_usual =
            item.node == end.zone.apex && matches!(item.set.rtype, rtype::NS | rtype::SOA);
        if !self.is_plain || !is_usual || end.cut.is_some() {
            return Ok(None);
        }
        let id = self.zones.unchanging(end.zone).map(|zone| tail::Id {
            zone,
            rtype: item.set.rtype,
            dnssec: self.options.dnssec,
            ipv6: self.options.ipv6,
        });
        Ok(id.zip(self.key.before(end.zone.at)))
    }

    /// Keeps the tail that was written from `start` on.
    fn keep(&mut self, id: tail::Id, end: &End<Z::Node>, start: usize) -> Result<(), Fault> {
        let Some(item) = self.authority.first() else {
            return Ok(());
        };
        let names = records(item.set.rdata).flat_map(|rdata| tail::names(id.rtype, rdata));
        let [_, authority, additional] = self.answer.counts;
        let name = self.zones.name(end.zone.apex)?;
        let apex = (HEADER_LEN + end.zone.at, name);
        let counts = [authority, additional];
        self.tails
            .keep(id, apex, names, start, counts, self.message);
        Ok(())
    }

    /// `None` when an answer over UDP did not fit, and has been truncated where a set ends.
    fn unless_full<T>(&mut self, result: Result<T, Fault>) -> Result<Option<T>, Fault> {
        match result {
            Err(Fault::Full) if self.options.transport == Transport::Udp => {
                self.answer.truncated = true;
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    fn walk(&mut self) -> Result<Option<End<Z::Node>>, Fault> {
        loop {
            let Some(zone) = self.zone()? else {
                // The resolver goes on from where the zones end.
                if self.links.is_empty() {
                    self.answer.rcode = rcode::REFUSED;
                }
                return Ok(None);
            };
            let mut encloser = self.zones.closest_encloser(zone, self.key.from(0))?;
            let is_exact = encloser.at == 0;
            let is_apex = encloser.node == zone.apex;
            if !is_apex && let Some(cut) = self.zones.delegation(encloser.node)? {
                // What is said of a delegation by the zone above it are its DS records.
                if !(is_exact && cut == encloser.node && self.question.qtype == rtype::DS) {
                    self.refer(zone, cut)?;
                    let cut = Some(cut);
                    return Ok(Some(End { zone, cut }));
                }
            }
            self.answer.authoritative = self.question.qclass != class::ANY;
            if !is_apex && zone.signed && self.is_hash(zone, encloser)? {
                // As if it did not exist (RFC 5155 section 7.2.8).
                encloser = Encloser {
                    node: zone.apex,
                    at: zone.at,
                };
            }
            if self.step(zone, encloser)? == Step::Done {
                return Ok(Some(End { zone, cut: None }));
            }
        }
    }

    /// The zone to look in.
    fn zone(&self) -> Result<Option<Zone<Z::Node>>, Fault> {
        let name = self.key.from(0);
        let zone = self.zones.zone(name)?;
        // DS records are the parent's (RFC 4035 section 3.1.4.1), if that is served as well.
        if self.question.qtype == rtype::DS
            && let Some(Zone { at: 0, .. }) = zone
            && let Some(label @ 1..) = name.first()
        {
            let above = 1 + usize::from(*label);
            if let Some(mut parent) = self.zones.zone(self.key.from(above))? {
                parent.at += above;
                return Ok(Some(parent));
            }
        }
        Ok(zone)
    }

    /// Whether a name is the owner of an NSEC3 set: a hash right below the apex.
    fn is_hash(&self, zone: Zone<Z::Node>, encloser: Encloser<Z::Node>) -> Result<bool, Fault> {
        let label = self.key.from(encloser.at).first();
        let is_long = label == Some(&32) && encloser.at + 33 == zone.at;
        Ok(is_long && self.zones.rrset(encloser.node, rtype::NSEC3)?.is_some())
    }

    fn step(&mut self, zone: Zone<Z::Node>, encloser: Encloser<Z::Node>) -> Result<Step, Fault> {
        if encloser.at == 0 {
            return self.answer_from(zone, encloser.node, None);
        }
        if let Some(set) = self.zones.rrset(encloser.node, rtype::DNAME)? {
            return self.redirect(encloser, set);
        }
        let proof = self.options.dnssec && zone.signed;
        if let Some(wildcard) = self.zones.wildcard(encloser.node)? {
            if proof {
                self.prove_expansion(zone, encloser)?;
            }
            return self.answer_from(zone, wildcard, Some(encloser));
        }
        self.answer.rcode = rcode::NXDOMAIN;
        if proof {
            self.prove_no_name(zone, encloser)?;
        }
        self.note_soa(zone)?;
        Ok(Step::Done)
    }

    /// Answers with what is at a node: of the name itself, or of the wildcard below its encloser.
    fn answer_from(
        &mut self,
        zone: Zone<Z::Node>,
        node: Z::Node,
        expanded: Option<Encloser<Z::Node>>,
    ) -> Result<Step, Fault> {
        let found = match self.question.qtype {
            rtype::ANY => self.any(node)?,
            rtype::RRSIG => {
                if self.write_signatures(node)? {
                    self.note_servers(zone)?;
                    return Ok(Step::Done);
                }
                None
            }
            // Those that there are belong to names that do not exist.
            rtype::NSEC3 => None,
            qtype => self.zones.rrset(node, qtype)?,
        };
        if let Some(set) = found {
            self.write_answer(node, set, expanded.is_some())?;
            self.note_servers(zone)?;
            return Ok(Step::Done);
        }
        if let Some(set) = self.zones.rrset(node, rtype::CNAME)? {
            let data = self.write_answer(node, set, expanded.is_some())?;
            let target = records(set.rdata).next().filter(|target| is_name(target));
            return Ok(self.follow(data, target.ok_or(Fault::Broken)?));
        }
        self.note_soa(zone)?;
        if self.options.dnssec && zone.signed {
            self.prove_no_type(zone, node, expanded)?;
        }
        Ok(Step::Done)
    }

    /// One set of those at a node (RFC 8482 section 4.1): one that is small and often asked for.
    fn any(&self, node: Z::Node) -> Result<Option<RrSet<'z>>, Fault> {
        let mut best = None;
        for index in 0..usize::from(u16::MAX) {
            let Some(set) = self.zones.nth_rrset(node, index)? else {
                break;
            };
            let rank = match set.rtype {
                rtype::A | rtype::AAAA | rtype::SOA | rtype::MX | rtype::PTR => {
                    return Ok(Some(set));
                }
                rtype::DNSKEY | rtype::NSEC => 1,
                rtype::NSEC3 => continue,
                _ => 2,
            };
            if best.is_none_or(|(known, _)| rank >= known) {
                best = Some((rank, set));
            }
        }
        Ok(best.map(|(_, set)| set))
    }

    /// Writes all signatures at a node. Returns whether there are any.
    fn write_signatures(&mut self, node: Z::Node) -> Result<bool, Fault> {
        let mark = self.message.mark();
        let mut count = 0_u16;
        for index in 0..usize::from(u16::MAX) {
            let Some(set) = self.zones.nth_rrset(node, index)? else {
                break;
            };
            let written = self.message.signatures(Owner::At(self.owner), &set);
            let written = written.inspect_err(|_| self.message.rewind(mark))?;
            count = count.checked_add(written).ok_or(Fault::Full)?;
        }
        add(&mut self.answer.counts[0], count)?;
        Ok(count > 0)
    }

    /// Writes a set into the answer section. Returns where the RDATA of its last record is.
    fn write_answer(
        &mut self,
        node: Z::Node,
        set: RrSet<'z>,
        is_expanded: bool,
    ) -> Result<usize, Fault> {
        let wanted = !self.options.minimal || set.rtype == rtype::NS;
        let targets = wanted.then_some(&mut self.targets);
        // No names in RDATA, and not the wildcard that a name server may be expanded from.
        self.is_plain &= matches!(set.rtype, rtype::A | rtype::AAAA | rtype::TXT)
            && !self.key.from(0).starts_with(b"\x01*");
        let signed = self.options.dnssec;
        let written = self
            .message
            .set(Owner::At(self.owner), &set, signed, targets)?;
        add(&mut self.answer.counts[0], written.count)?;
        if !is_expanded {
            let _ = self.sets.push((node, set.rtype));
        }
        Ok(written.data)
    }

    /// Goes on with the name of a CNAME record, which is in the message at `at`; unless that has
    /// been looked for before, or enough links were followed.
    fn follow(&mut self, at: usize, target: &[u8]) -> Step {
        let at = self.message.resolve(at);
        let is_known = |place: &usize| self.message.is_at(*place, target);
        if self.links.len() + 1 >= LINKS_MAX
            || is_known(&self.owner)
            || self.links.iter().any(is_known)
            || !Writer::can_point_to(at)
        {
            return Step::Done;
        }
        let _ = self.links.push(self.owner);
        self.owner = at;
        self.key = Key::new(target);
        Step::Follow
    }

    /// Follows a DNAME record at the encloser: the name below it becomes another (RFC 6672 section 2.2).
    #[inline(never)]
    fn redirect(&mut self, encloser: Encloser<Z::Node>, set: RrSet<'z>) -> Result<Step, Fault> {
        let target = records(set.rdata).next().filter(|target| is_name(target));
        let target = target.ok_or(Fault::Broken)?;
        self.is_plain = false;
        if self.sets.contains(&(encloser.node, rtype::DNAME)) {
            // Names that grow at each step.
            if is_below(target, self.zones.name(encloser.node)?) {
                return Ok(Step::Done);
            }
        } else {
            let owner = self.owner_at(encloser.node, encloser.at)?;
            let written = self.message.set(owner, &set, self.options.dnssec, None)?;
            add(&mut self.answer.counts[0], written.count)?;
            let _ = self.sets.push((encloser.node, rtype::DNAME));
        }
        let prefix = if self.links.is_empty() {
            self.question.name.get(..encloser.at)
        } else {
            self.key.from(0).get(..encloser.at)
        };
        let prefix = prefix.ok_or(Fault::Broken)?;
        let mut name = [0; NAME_MAX];
        let length = prefix.len() + target.len();
        let Some(room) = name.get_mut(..length) else {
            self.answer.rcode = rcode::YXDOMAIN;
            return Ok(Step::Done);
        };
        let (front, back) = room.split_at_mut(prefix.len());
        front.copy_from_slice(prefix);
        back.copy_from_slice(target);
        let owner = Owner::At(self.owner);
        let place = self.message.record(owner, rtype::CNAME, set.ttl, room)?;
        add(&mut self.answer.counts[0], 1)?;
        if self.question.qtype == rtype::CNAME {
            return Ok(Step::Done);
        }
        Ok(self.follow(place.data, room))
    }

    fn refer(&mut self, zone: Zone<Z::Node>, cut: Z::Node) -> Result<(), Fault> {
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

    /// Says how long an absence may be remembered (RFC 2308 section 3).
    fn note_soa(&mut self, zone: Zone<Z::Node>) -> Result<(), Fault> {
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

    /// The zone's name servers go with an answer.
    fn note_servers(&mut self, zone: Zone<Z::Node>) -> Result<(), Fault> {
        let is_large = matches!(self.question.qtype, rtype::DS | rtype::DNSKEY | rtype::ANY);
        if self.options.minimal || is_large || self.question.qclass == class::ANY {
            return Ok(());
        }
        match self.zones.rrset(zone.apex, rtype::NS)? {
            Some(set) => self.note_at(zone.apex, zone.at, set, true),
            None => Ok(()),
        }
    }

    fn note_at(
        &mut self,
        node: Z::Node,
        at: usize,
        set: RrSet<'z>,
        optional: bool,
    ) -> Result<(), Fault> {
        let owner = self.owner_at(node, at)?;
        self.note(node, owner, set, optional)
    }

    /// The name of a node that begins at `at` in the name that is looked for.
    fn owner_at(&self, node: Z::Node, at: usize) -> Result<Owner<'z>, Fault> {
        if self.links.is_empty() {
            return Ok(Owner::At(self.owner + at));
        }
        Ok(Owner::Name(self.zones.name(node)?))
    }

    pub(super) fn note(
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

    /// Writes what was noted. Returns whether there was room for all of it.
    fn write_authority(&mut self) -> Result<bool, Fault> {
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

    /// Writes the addresses of names that have come up, as far as there is room. Returns whether that
    /// was all of them.
    fn write_additional(&mut self, end: &End<Z::Node>) -> Result<bool, Fault> {
        if self.targets.is_empty() {
            return Ok(true);
        }
        let zone = end.zone;
        let apex = self.zones.name(zone.apex)?;
        let cut = end.cut.map(|cut| self.zones.name(cut)).transpose()?;
        let mut found: Vec<(Target<'z>, Z::Node, bool), { super::compose::TARGETS_MAX }> =
            Vec::new();
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
        // What is beyond the most targets was left out.
        Ok(!self.targets.is_full())
    }
}

/// The zone whose apex has this name.
pub(super) fn apex<Z: Zones>(zones: &Z, name: &[u8]) -> Result<Option<Zone<Z::Node>>, Fault> {
    let zone = zones.zone(Key::new(name).from(0))?;
    Ok(zone.filter(|zone| zone.at == 0))
}

fn add(counter: &mut u16, count: u16) -> Result<(), Fault> {
    *counter = counter.checked_add(count).ok_or(Fault::Full)?;
    Ok(())
}

/// A name in lower case.
#[derive(Debug)]
pub(super) struct Key {
    octets: [u8; NAME_MAX],
    len: usize,
}

impl Key {
    fn new(name: &[u8]) -> Self {
        let mut octets = [0; NAME_MAX];
        to_lower(name, &mut octets);
        Self {
            octets,
            len: name.len().min(NAME_MAX),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The part that begins at an offset, at which a label begins.
    pub(super) fn from(&self, at: usize) -> &[u8] {
        self.octets.get(at..self.len).unwrap_or_default()
    }

    /// The offset of the label before the one at `at`.
    pub(super) fn before(&self, at: usize) -> Option<usize> {
        let mut label = 0;
        loop {
            let next = label + 1 + usize::from(*self.octets.get(label)?);
            if next >= at {
                return (next == at).then_some(label);
            }
            label = next;
        }
    }

    /// Calls `look` with the name of the wildcard right below the name at `at`, which is not 0.
    pub(super) fn with_wildcard<T>(
        &mut self,
        at: usize,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        // The label before it has at least two bytes, which lend their place to `*`.
        let start = at.checked_sub(2)?;
        let place: &mut [u8; 2] = self.octets.get_mut(start..at)?.try_into().ok()?;
        let kept = core::mem::replace(place, *b"\x01*");
        let result = look(self.from(start));
        if let Some(place) = self.octets.get_mut(start..at) {
            place.copy_from_slice(&kept);
        }
        Some(result)
    }
}
