//! Guests made ahead. The rings of such a guest are mapped when it is made, and not when a client waits for it. Who it
//! will be is not known then, so it sends and gets nothing.

use serde::{Deserialize, Serialize};

use super::{Guard, Guest, Refusal, SendLimits, Switch};
use crate::port::{Features, Port, Rings};
use crate::xen::{Wire, Xen};

/// A guest that is attached under the name and the addresses of a declared one ([`super::Sleeper`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Awake {
    /// The name under which it was declared.
    pub name: String,
    /// The checks of its frames.
    #[serde(default, skip_serializing_if = "Guard::is_full")]
    pub guard: Guard,
    /// The rings.
    pub rings: Rings,
    /// The features of its front end.
    #[serde(default)]
    pub features: Features,
}

impl<X: Xen, W: Wire> Switch<X, W> {
    /// Maps the rings of a guest that will be attached later. They stay mapped until the client `owner` is gone.
    ///
    /// # Errors
    /// The guest cannot be served.
    pub fn prepare(
        &mut self,
        rings: &Rings,
        features: Features,
        owner: u64,
    ) -> Result<(), Refusal> {
        let domain = rings.domain;
        if self.by_domain.contains_key(&domain) || self.prepared.contains_key(&domain) {
            return Err(Refusal::Taken("the domain"));
        }
        let port = Port::open(&self.xen, rings, features)?;
        self.prepared.insert(domain, (owner, port));
        Ok(())
    }

    /// Releases a guest that was prepared and not attached; returns whether there was one.
    pub fn unprepare(&mut self, domain: u16) -> bool {
        let prepared = self.prepared.remove(&domain);
        prepared.is_some_and(|(_, mut port)| {
            port.close(&self.xen);
            true
        })
    }

    /// Releases all guests that a client has prepared.
    pub(super) fn unprepare_all(&mut self, owner: u64) {
        for (_, (_, mut port)) in self.prepared.extract_if(|_, (other, _)| *other == owner) {
            port.close(&self.xen);
        }
    }

    /// The guest that is attached under the name of a declared one.
    ///
    /// # Errors
    /// None of this name was declared, or that one moves.
    pub fn awake(&self, awake: &Awake) -> Result<Guest, Refusal> {
        let mut sleepers = self.sleepers.values().map(|asleep| &asleep.sleeper);
        let declared = sleepers.find(|sleeper| sleeper.name == awake.name && !sleeper.moves);
        let declared = declared.ok_or(Refusal::Unknown)?;
        Ok(Guest {
            name: awake.name.clone(),
            bridge: declared.bridge.clone(),
            mac: declared.mac,
            ipv4: declared.ipv4,
            ipv6: declared.ipv6,
            guard: awake.guard,
            rings: awake.rings,
            features: awake.features,
            limits: SendLimits::default(),
        })
    }
}
