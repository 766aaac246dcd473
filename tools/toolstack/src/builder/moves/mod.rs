//! Moves the network of a running guest from one back end to the other.
//!
//! The front end takes no part: its rings, grants and event channels stay, and each back end goes on at the indices
//! that the other has left in the rings. (netback does since Linux 5.6, for its `unbind` and `bind`.) So every front end can be
//! moved, and what it has queued is sent. The directory that the front end watches stays the same as well: netback gets
//! another one if it takes over a guest of the switch, as its states there would confuse the front end; and if it is
//! itself taken over, it is unbound from its device, whose directory stays.
//!
//! Frames for the guest are held by the switch meanwhile:
//!
//! ```text
//! to the switch    hold ─ bridge leads to the switch ─ netback drains, and goes ─ switch attaches, and delivers
//! to netback       hold ─ switch lets go ─ netback attaches ─ bridge leads to the vif ─ what was held follows
//! ```

mod lock;

use std::time::Duration;

use mayfly_links::{Bridge, Link, vif_name};
use mayfly_switch::control::{SwitchConnection, SwitchOrder, SwitchReply};
use mayfly_switch::port::{Features, Rings};
use mayfly_switch::port_name;
use mayfly_switch::switch::{Bounds, Guard, SendLimits, Sleeper};
use mayfly_switch::xenbus::Interface;
use mayfly_switch::xenbus::keys::{self as switch_keys, FrontFault};
use mayfly_xenstore::Request;

use super::ToolstackError;
use super::config::{GuestConfig, Network};
use super::create::{AT_FIRST, interface_of};
use super::keys::{self, StoreOp};
use super::toolstack::Toolstack;
use crate::paths;

/// The time that frames which have passed the bridge have to reach the guest, or the switch.
const DRAIN: Duration = Duration::from_millis(20);
/// The most that is held: what clients can have under way in a second.
const BOUNDS: Bounds = Bounds {
    frames: 4096,
    bytes: 8 << 20,
};
/// The bridge of an interface of which nothing says it, as xl's.
const BRIDGE: &str = "xenbr0";

/// Why the guest of a service is refused.
const SERVICE: &str = "it is the guest of a service of `hatch summon`, which would lead the frames for it elsewhere: write `network` into the service's file";

/// A guest that is moved.
struct Moving {
    domid: u16,
    interface: Interface,
    rings: Rings,
    features: Features,
    /// The directory that the front end watches.
    shown: String,
    /// netback's directory, if netback serves it.
    netback: Option<String>,
    rate: Option<String>,
    bridge: Bridge,
    /// The switch's port on the bridge.
    port: Link,
}

impl Toolstack {
    /// Gives a running guest this back end. Returns false if it has it already.
    ///
    /// # Errors
    /// The guest is not connected, or is not one that can be moved; a step failed, and the guest is on its first back
    /// end again, or the error says that it is on none.
    pub fn move_network(&mut self, domid: u16, to: Network) -> Result<bool, ToolstackError> {
        let mut switch = self
            .switch()
            .map_err(|error| ToolstackError::Switch(format!("none runs: {error}")))?;
        // Before anything is read: the guest is not removed meanwhile.
        let _lock = self.lock_netback(domid)?;
        let guest = self.moving(domid)?;
        let is_served = is_served(&mut switch, domid)?;
        match to {
            Network::Switch if guest.netback.is_none() && is_served => return Ok(false),
            Network::Netback if guest.netback.is_some() => return Ok(false),
            Network::Switch => self.give_to_switch(&guest, &mut switch)?,
            Network::Netback => self.give_to_netback(&guest, &mut switch)?,
        }
        self.remember(domid, to)?;
        Ok(true)
    }

    /// What there is to know of a guest before it is moved.
    fn moving(&mut self, domid: u16) -> Result<Moving, ToolstackError> {
        let (front, back) = (paths::front(domid), paths::backend(domid));
        let refused = |why: &str| ToolstackError::Refused(why.to_owned());
        let [of_service] = self.values([paths::summon(domid)])?;
        if of_service.is_some() {
            return Err(refused(SERVICE));
        }
        let [known, shown, netback, front_state, back_state] = self.values([
            switch_keys::interface(domid),
            switch_keys::shown(domid),
            switch_keys::netback(domid),
            format!("{front}/state"),
            format!("{back}/state"),
        ])?;
        if front_state.as_deref() != Some("4") {
            return Err(refused("its front end is not connected"));
        }
        let (shown, netback) = match (&known, shown, netback) {
            (Some(_), shown, netback) => (shown.unwrap_or_else(|| paths::switched(domid)), netback),
            (None, ..) if back_state.as_deref() == Some("4") => (back.clone(), Some(back)),
            (None, ..) => return Err(refused("its back end is not connected")),
        };
        let interface = match known {
            Some(known) => serde_json::from_str(&known).map_err(|error| {
                ToolstackError::Refused(format!("{}: {error}", switch_keys::interface(domid)))
            })?,
            None => self.interface(domid)?,
        };
        let (rings, features) = match switch_keys::read_front(&mut *self.store, domid)? {
            Ok(said) => said,
            // The builder has connected it, and nobody has said so in xenstore.
            Err(FrontFault::Missing("tx-ring-ref")) if interface.connected.is_some() => {
                let rings = interface.connected;
                (rings.ok_or_else(|| refused("it has no rings"))?, AT_FIRST)
            }
            Err(fault) => return Err(ToolstackError::Refused(fault.to_string())),
        };
        let [rate] = self.values([format!("{shown}/rate")])?;
        let bridge = self.links.bridge(&interface.bridge)?;
        Ok(Moving {
            domid,
            rings,
            features,
            shown,
            netback,
            rate,
            port: self.links.find(&port_name(bridge.index))?,
            bridge,
            interface,
        })
    }

    /// What the switch has to know of an interface that it has never served.
    fn interface(&mut self, domid: u16) -> Result<Interface, ToolstackError> {
        let (libxl, back) = (paths::libxl_vif(domid), paths::backend(domid));
        let [record, name, mac, bridge, other, ready] = self.values([
            paths::watched_path(domid),
            paths::domain_name(domid),
            format!("{back}/mac"),
            format!("{libxl}/bridge"),
            format!("{back}/bridge"),
            paths::ready(domid),
        ])?;
        let config = record.and_then(|record| serde_json::from_str::<GuestConfig>(&record).ok());
        let mac = mac.and_then(|mac| paths::parse_mac(&mac));
        let mac = mac.ok_or_else(|| ToolstackError::Refused("it has no MAC address".to_owned()))?;
        // mayfly grants its buffers once. Who says this of itself wrongly harms nobody else.
        let persistent = ready.as_deref() == Some("1");
        if let Some(config) = &config
            && let Some(vif) = config.vif.as_ref().filter(|vif| vif.mac == mac)
        {
            return Ok(Interface {
                persistent,
                ..interface_of(config, vif, true)
            });
        }
        Ok(Interface {
            name: name.unwrap_or_else(|| format!("domain{domid}")),
            bridge: bridge.or(other).unwrap_or_else(|| BRIDGE.to_owned()),
            mac,
            ipv4: None,
            ipv6: None,
            guard: Guard::Mac,
            limits: SendLimits::default(),
            persistent,
            connected: None,
        })
    }

    fn give_to_switch(
        &mut self,
        guest: &Moving,
        switch: &mut SwitchConnection,
    ) -> Result<(), ToolstackError> {
        let domid = guest.domid;
        declare(switch, guest)?;
        self.links.direct(&guest.port, guest.interface.mac)?;
        std::thread::sleep(DRAIN);
        let ops = keys::taken_over(domid, &guest.interface, &guest.shown);
        let ids = self.send(&ops)?;
        self.store.answers(ids)?;
        self.release_netback(guest)?;
        let attached = ask(switch, &SwitchOrder::Attach(Box::new(guest.guest())));
        let removed = self.remove(&[StoreOp::Rm(switch_keys::netback(domid))]);
        match attached {
            Ok(()) if removed.is_empty() => Ok(()),
            Ok(()) => Err(ToolstackError::Refused(removed.join("; "))),
            Err(why) => {
                let back = self.onto_netback(guest);
                Err(undone(why, back.map(drop)))
            }
        }
    }

    /// Takes netback off a guest.
    fn release_netback(&mut self, guest: &Moving) -> Result<(), ToolstackError> {
        match &guest.netback {
            Some(netback) if *netback == guest.shown => self.unbind_live(guest.domid)?,
            Some(netback) => {
                let left = self.remove(&[StoreOp::Rm(netback.clone())]);
                if !left.is_empty() {
                    return Err(ToolstackError::Refused(left.join("; ")));
                }
            }
            None => {}
        }
        Ok(self.links.gone(&vif_name(guest.domid, 0), self.bound)?)
    }

    fn give_to_netback(
        &mut self,
        guest: &Moving,
        switch: &mut SwitchConnection,
    ) -> Result<(), ToolstackError> {
        let name = &guest.interface.name;
        declare(switch, guest)?;
        ask(switch, &SwitchOrder::Hold(name.clone()))?;
        // If this was cut short once, the switch has let go already.
        let _ = ask(switch, &SwitchOrder::Detach(guest.domid));
        match self.onto_netback(guest) {
            Ok(()) => {
                ask(switch, &SwitchOrder::Relay(name.clone()))?;
                // What is in the switch's port by now follows.
                std::thread::sleep(DRAIN);
                Ok(())
            }
            Err(why) => {
                let mut ops = vec![StoreOp::Rm(guest.netback_directory())];
                ops.push(StoreOp::Rm(switch_keys::netback(guest.domid)));
                let _ = self.remove(&ops);
                let _ = self.links.gone(&vif_name(guest.domid, 0), self.bound);
                let back = self.links.direct(&guest.port, guest.interface.mac);
                let back = back
                    .map_err(ToolstackError::from)
                    .and_then(|()| ask(switch, &SwitchOrder::Attach(Box::new(guest.guest()))));
                Err(undone(why, back))
            }
        }
    }

    /// Gives netback a guest that nobody serves, and leads the bridge to its interface.
    fn onto_netback(&mut self, guest: &Moving) -> Result<(), ToolstackError> {
        let (domid, interface) = (guest.domid, &guest.interface);
        let directory = guest.netback_directory();
        self.links.pass()?;
        let mut ops = keys::rings(domid, &guest.rings);
        ops.extend(keys::given_away(
            domid,
            interface,
            (&directory, guest.rate.as_deref()),
        ));
        let ids = self.send(&ops)?;
        self.store.answers(ids)?;
        let vif = vif_name(domid, 0);
        let mut link = self.links.appeared(&vif, self.bound)?;
        self.links.attach(&mut link, &guest.bridge, None)?;
        self.connected_at(&format!("{directory}/state"))?;
        self.links.running(&vif, self.bound)?;
        Ok(self.links.direct(&link, interface.mac)?)
    }

    /// Notes the back end for the next time that the guest is made.
    fn remember(&mut self, domid: u16, network: Network) -> Result<(), ToolstackError> {
        let path = paths::watched_path(domid);
        let [record] = self.values([path.clone()])?;
        if let Some(mut config) =
            record.and_then(|record| serde_json::from_str::<GuestConfig>(&record).ok())
        {
            config.network = network;
            self.store.ask(Request::write(&path, &config.record()))?;
        }
        Ok(())
    }
}

impl Moving {
    fn sleeper(&self) -> Sleeper {
        Sleeper {
            name: self.interface.name.clone(),
            bridge: self.interface.bridge.clone(),
            mac: self.interface.mac,
            ipv4: self.interface.ipv4,
            ipv6: self.interface.ipv6,
            bounds: BOUNDS,
            moves: true,
        }
    }

    fn guest(&self) -> mayfly_switch::Guest {
        self.interface.guest(self.rings, self.features)
    }

    /// A directory for netback that the front end does not watch.
    fn netback_directory(&self) -> String {
        let first = paths::backend(self.domid);
        match self.shown == first {
            true => format!("{}/1", paths::backends(self.domid)),
            false => first,
        }
    }
}

fn is_served(switch: &mut SwitchConnection, domid: u16) -> Result<bool, ToolstackError> {
    let SwitchReply::Frames(guests) = switch.ask(&SwitchOrder::Frames)? else {
        return Err(ToolstackError::Switch(
            "it does not say whom it serves".to_owned(),
        ));
    };
    Ok(guests.iter().any(|(other, _)| *other == domid))
}

fn ask(switch: &mut SwitchConnection, order: &SwitchOrder) -> Result<(), ToolstackError> {
    match switch.ask(order)? {
        SwitchReply::Error(why) => Err(ToolstackError::Switch(why)),
        _ => Ok(()),
    }
}

/// Has the switch hold the frames for a guest. It refuses that for the guests of another client, which are those of
/// `hatch summon`: of a guest that was born just now, xenstore does not say that it is one.
fn declare(switch: &mut SwitchConnection, guest: &Moving) -> Result<(), ToolstackError> {
    match ask(switch, &SwitchOrder::Sleep(Box::new(guest.sleeper()))) {
        Err(ToolstackError::Switch(why)) if why.ends_with("is taken") => {
            Err(ToolstackError::Refused(SERVICE.to_owned()))
        }
        asked => asked,
    }
}

/// The error of a move that was undone, or could not be.
fn undone(why: ToolstackError, back: Result<(), ToolstackError>) -> ToolstackError {
    match back {
        Ok(()) => why,
        Err(error) => ToolstackError::Refused(format!(
            "{why}; and it has no back end now: {error}; try again"
        )),
    }
}

#[cfg(test)]
mod tests;
