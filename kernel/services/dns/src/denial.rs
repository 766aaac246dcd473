//! Proofs that a name or a type does not exist in a signed zone: NSEC (RFC 4035 section 3.1.3) and NSEC3 (RFC 5155
//! section 7.2).

use sha1_smol::Sha1;

use super::compose::Fault;
use super::lookup::Lookup;
use super::pointer::Owner;
use super::wire::rtype;
use mayfly_site::{Encloser, Nsec3Parameters, Zone, Zones};

/// The greatest number of additional NSEC3 iterations for which a hash is computed (RFC 9276 section 3.2).
const ITERATIONS_MAX: u16 = 100;

impl<'z, Z: Zones> Lookup<'_, '_, 'z, Z> {
    /// Proves that neither the name nor a wildcard that matches it exists.
    pub(super) fn prove_no_name(
        &mut self,
        zone: Zone<Z::Node>,
        encloser: Encloser<Z::Node>,
    ) -> Result<(), Fault> {
        if let Some(parameters) = self.zones.nsec3_parameters(zone)? {
            let next = self.key.before(encloser.at);
            let at = self.prove_encloser(zone, parameters, encloser.at, next)?;
            return self.note_wildcard_hash(zone, parameters, at);
        }
        self.note_nsec_of(zone, 0)?;
        let zones = self.zones;
        let wildcard = self
            .key
            .with_wildcard(encloser.at, |name| zones.nsec(zone, name));
        self.note_nsec(wildcard.ok_or(Fault::Broken)??)
    }

    /// Proves that the name itself does not exist, so that the wildcard's records answer for it.
    pub(super) fn prove_expansion(
        &mut self,
        zone: Zone<Z::Node>,
        encloser: Encloser<Z::Node>,
    ) -> Result<(), Fault> {
        if let Some(parameters) = self.zones.nsec3_parameters(zone)? {
            let next = self.key.before(encloser.at).ok_or(Fault::Broken)?;
            return self.note_hash_of(zone, parameters, next);
        }
        self.note_nsec_of(zone, 0)
    }

    /// Proves that a node has no records of the type: the node of the name, or of the wildcard that answers for it.
    /// (The latter is proved separately.)
    pub(super) fn prove_no_type(
        &mut self,
        zone: Zone<Z::Node>,
        node: Z::Node,
        expanded: Option<Encloser<Z::Node>>,
    ) -> Result<(), Fault> {
        if let Some(parameters) = self.zones.nsec3_parameters(zone)? {
            let Some(encloser) = expanded else {
                return self.prove_encloser(zone, parameters, 0, None).map(drop);
            };
            let next = self.key.before(encloser.at);
            self.prove_encloser(zone, parameters, encloser.at, next)?;
            return self.note_wildcard_hash(zone, parameters, encloser.at);
        }
        if self.zones.rrset(node, rtype::NSEC)?.is_some() {
            return self.note_nsec(Some(node));
        }
        // The NSEC record of the name before an empty non-terminal covers that.
        match expanded {
            None => self.note_nsec_of(zone, 0),
            Some(encloser) => {
                let zones = self.zones;
                let found = self
                    .key
                    .with_wildcard(encloser.at, |name| zones.nsec(zone, name));
                self.note_nsec(found.ok_or(Fault::Broken)??)
            }
        }
    }

    /// Proves that a delegation is not signed. Its name begins at `at` in the name that is looked up.
    pub(super) fn prove_no_ds(
        &mut self,
        zone: Zone<Z::Node>,
        cut: Z::Node,
        at: usize,
    ) -> Result<(), Fault> {
        if let Some(parameters) = self.zones.nsec3_parameters(zone)? {
            return self.prove_encloser(zone, parameters, at, None).map(drop);
        }
        self.note_nsec(Some(cut))
    }

    fn note_nsec_of(&mut self, zone: Zone<Z::Node>, at: usize) -> Result<(), Fault> {
        let node = self.zones.nsec(zone, self.key.from(at))?;
        self.note_nsec(node)
    }

    fn note_nsec(&mut self, node: Option<Z::Node>) -> Result<(), Fault> {
        self.note_denial(node, rtype::NSEC)
    }

    fn note_denial(&mut self, node: Option<Z::Node>, rtype: u16) -> Result<(), Fault> {
        let Some(node) = node else {
            return Ok(());
        };
        match self.zones.rrset(node, rtype)? {
            Some(set) => self.note(node, Owner::Name(self.zones.name(node)?), set, false),
            None => Ok(()),
        }
    }

    /// Notes the NSEC3 set that matches or covers the name at `at`.
    fn note_hash_of(
        &mut self,
        zone: Zone<Z::Node>,
        parameters: Nsec3Parameters<'z>,
        at: usize,
    ) -> Result<(), Fault> {
        let hash = hash(parameters, self.key.from(at))?;
        let found = self.zones.nsec3(zone, &hash)?;
        self.note_denial(found.map(|(node, _)| node), rtype::NSEC3)
    }

    fn note_wildcard_hash(
        &mut self,
        zone: Zone<Z::Node>,
        parameters: Nsec3Parameters<'z>,
        at: usize,
    ) -> Result<(), Fault> {
        let hash = self.key.with_wildcard(at, |name| hash(parameters, name));
        let found = self.zones.nsec3(zone, &hash.ok_or(Fault::Broken)??)?;
        self.note_denial(found.map(|(node, _)| node), rtype::NSEC3)
    }

    /// Proves the closest encloser (RFC 5155 section 7.2.1): that the closest provable name at or above `at` exists,
    /// and that the next closer name does not. The latter is `next`, unless a name above is not provable. Returns the
    /// offset of the closest encloser.
    ///
    /// With opt-out, some names cannot be proved to exist: unsigned delegations, and empty non-terminals above them.
    fn prove_encloser(
        &mut self,
        zone: Zone<Z::Node>,
        parameters: Nsec3Parameters<'z>,
        mut at: usize,
        mut next: Option<usize>,
    ) -> Result<usize, Fault> {
        let encloser = loop {
            let hash = hash(parameters, self.key.from(at))?;
            let Some((node, is_equal)) = self.zones.nsec3(zone, &hash)? else {
                return Ok(at);
            };
            if is_equal || at >= zone.at {
                break node;
            }
            next = Some(at);
            at += 1 + usize::from(*self.key.from(at).first().ok_or(Fault::Broken)?);
        };
        if let Some(next) = next {
            self.note_hash_of(zone, parameters, next)?;
        }
        self.note_denial(Some(encloser), rtype::NSEC3)?;
        Ok(at)
    }
}

/// The hash of a name in lower case (RFC 5155 section 5).
fn hash(parameters: Nsec3Parameters<'_>, name: &[u8]) -> Result<[u8; 20], Fault> {
    if parameters.iterations > ITERATIONS_MAX {
        return Err(Fault::Broken);
    }
    let mut digest = salted(name, parameters.salt);
    for _ in 0..parameters.iterations {
        digest = salted(&digest, parameters.salt);
    }
    Ok(digest)
}

fn salted(bytes: &[u8], salt: &[u8]) -> [u8; 20] {
    let mut sha1 = Sha1::new();
    sha1.update(bytes);
    sha1.update(salt);
    sha1.digest().bytes()
}
