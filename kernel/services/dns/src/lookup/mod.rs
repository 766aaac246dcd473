//! Finds the answer to a question: one walk through the zones (RFC 1034 section 4.3.2).
//!
//! The answer section is written during the walk. The RRsets of the authority section are noted and written next,
//! required ones before the optional one; then the addresses of the names in them.

mod sections;

use heapless::Vec;

use super::compose::{Fault, Writer};
use super::key::Key;
use super::pointer::{Owner, can_point_to};
use super::tail::{self, Tails};
use super::targets::Targets;
use super::wire::{HEADER_LEN, NAME_MAX, Question, class, is_below, is_name, rcode, rtype};
use super::{Answer, Transport};
use mayfly_site::{Encloser, RrSet, Zone, Zones, records};

/// The most CNAME and DNAME records that are followed for one question.
const LINKS_MAX: usize = 16;
/// The most RRsets in the authority section: each link may need a proof, and the end a SOA record and three more.
const AUTHORITY_MAX: usize = LINKS_MAX + 6;
/// The most RRsets that are remembered so that none is written twice.
const SETS_MAX: usize = 2 * AUTHORITY_MAX;

/// The parameters of an answer beside the question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Whether records that were not asked for and are not needed are left out.
    pub(super) minimal: bool,
    /// Whether the client wants signatures and proofs (DO).
    pub(super) dnssec: bool,
    /// Whether the query came over IPv6, so that the client may prefer AAAA.
    pub(super) ipv6: bool,
    pub(super) transport: Transport,
}

/// The state of one walk.
pub(super) struct Lookup<'m, 'o, 'z, Z: Zones> {
    pub(super) zones: &'z Z,
    pub(super) options: Options,
    question: Question<'m>,
    message: &'m mut Writer<'o>,
    tails: &'m mut Tails,
    /// The name that is looked up, and its offset in the message.
    pub(super) key: Key,
    owner: usize,
    /// The offsets of the names that were looked up before it.
    links: Vec<usize, LINKS_MAX>,
    answer: Answer,
    authority: Vec<Item<'z, Z::Node>, AUTHORITY_MAX>,
    /// The RRsets that are in the message under their own names.
    sets: Vec<(Z::Node, u16), SETS_MAX>,
    targets: Targets<'z>,
    /// Whether the sections after the answer do not depend on the answer section's contents.
    is_plain: bool,
}

/// An RRset for the authority section.
struct Item<'z, N> {
    node: N,
    owner: Owner<'z>,
    set: RrSet<'z>,
    optional: bool,
}

/// The end of a walk.
struct End<N> {
    zone: Zone<N>,
    /// The delegation of the referral.
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

    /// The cached tail that fits an answer, if its tail does not depend on the answer itself, and the offset of the
    /// label right below the apex.
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

    /// Caches the tail that was written from `start` on.
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

    /// `None` if an answer over UDP did not fit and was truncated at the end of an RRset.
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
                // After a CNAME or DNAME that leads out of the zones, the resolver goes on by itself.
                if self.links.is_empty() {
                    self.answer.rcode = rcode::REFUSED;
                }
                return Ok(None);
            };
            let mut encloser = self.zones.closest_encloser(zone, self.key.from(0))?;
            let is_exact = encloser.at == 0;
            let is_apex = encloser.node == zone.apex;
            if !is_apex && let Some(cut) = self.zones.delegation(encloser.node)? {
                // Of the sets at a delegation, the zone above it is authoritative only for the DS records.
                if !(is_exact && cut == encloser.node && self.question.qtype == rtype::DS) {
                    self.refer(zone, cut)?;
                    let cut = Some(cut);
                    return Ok(Some(End { zone, cut }));
                }
            }
            self.answer.authoritative = self.question.qclass != class::ANY;
            if !is_apex && zone.signed && self.is_hash(zone, encloser)? {
                // As if the name did not exist (RFC 5155 section 7.2.8).
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

    /// The zone that is searched.
    fn zone(&self) -> Result<Option<Zone<Z::Node>>, Fault> {
        let name = self.key.from(0);
        let zone = self.zones.zone(name)?;
        // DS records are the parent's (RFC 4035 section 3.1.4.1), if the parent is served as well.
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

    /// Whether a name owns an NSEC3 RRset: a hash right below the apex.
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

    /// Answers with the RRsets of a node: that of the name itself, or of the wildcard below its encloser.
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
            // The NSEC3 records here belong to names that do not exist for queries.
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

    /// One RRset of a node (RFC 8482 section 4.1): a small one that is often asked for.
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

    /// Writes an RRset to the answer section. Returns the offset of its last record's RDATA.
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

    /// Goes on with the target of a CNAME record, which is in the message at `at`; unless that name was looked up
    /// before, or the most links were followed.
    fn follow(&mut self, at: usize, target: &[u8]) -> Step {
        let at = self.message.resolve(at);
        let is_known = |place: &usize| self.message.is_at(*place, target);
        if self.links.len() + 1 >= LINKS_MAX
            || is_known(&self.owner)
            || self.links.iter().any(is_known)
            || !can_point_to(at)
        {
            return Step::Done;
        }
        let _ = self.links.push(self.owner);
        self.owner = at;
        self.key = Key::new(target);
        Step::Follow
    }

    /// Follows a DNAME record at the encloser, which replaces the end of the name (RFC 6672 section 2.2).
    #[inline(never)]
    fn redirect(&mut self, encloser: Encloser<Z::Node>, set: RrSet<'z>) -> Result<Step, Fault> {
        let target = records(set.rdata).next().filter(|target| is_name(target));
        let target = target.ok_or(Fault::Broken)?;
        self.is_plain = false;
        if self.sets.contains(&(encloser.node, rtype::DNAME)) {
            // The name would grow at each step.
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
