//! A guest as the switch is given it, and what the guest is told of that.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mayfly_handoff::network::{PATH_MAX, Preconnected};
use mayfly_switch::control::{SwitchConnection, SwitchOrder, SwitchReply};
use mayfly_switch::port::{Features, Rings};
use mayfly_switch::switch::{Awake, Guard, SendLimits};
use mayfly_switch::xenbus::Interface;

use super::super::super::ToolstackError;
use super::super::super::config::{GuestConfig, GuestVif};
use super::super::super::keys::Ports;
use super::super::super::layout;
use super::super::super::rings::Grants;
use super::super::CreatePlan;
use crate::paths;

/// The addresses of a command line's `ip=ADDRESS/PREFIX` words. Nothing if it has others as well that are not known (`ip=dhcp`), or more than
/// one of a family: a guest can be held to one of each.
pub(super) fn addresses(cmdline: &str) -> Option<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    let (mut v4, mut v6) = (None, None);
    let words = cmdline.split_ascii_whitespace();
    for word in words.filter_map(|word| word.strip_prefix("ip=")) {
        let is_second = match word.split('/').next()?.parse().ok()? {
            IpAddr::V4(address) => v4.replace(address).is_some(),
            IpAddr::V6(address) => v6.replace(address).is_some(),
        };
        if is_second {
            return None;
        }
    }
    (v4.is_some() || v6.is_some()).then_some((v4, v6))
}

/// What the switch has to know of an interface. A guest with addresses of its own is restricted to them.
pub(in super::super::super) fn interface_of(
    config: &GuestConfig,
    vif: &GuestVif,
    is_guarded: bool,
) -> Interface {
    let known = addresses(&config.cmdline);
    let (ipv4, ipv6) = known.unwrap_or_default();
    Interface {
        name: config.name.clone(),
        bridge: vif.bridge.clone(),
        mac: vif.mac,
        ipv4,
        ipv6,
        guard: match is_guarded && known.is_some() {
            true => Guard::Full,
            false => Guard::Mac,
        },
        limits: SendLimits::default(),
        persistent: false,
        connected: None,
    }
}

/// The same with the rings that the builder has made.
pub(super) fn connected(
    (config, rings): (&GuestConfig, Option<&layout::Rings>),
    is_guarded: bool,
    domid: u16,
    ports: &Ports,
) -> Result<Interface, ToolstackError> {
    let Some(vif) = &config.vif else {
        return Err(ToolstackError::Backend("has no interface"));
    };
    let (Some(rings), Some((tx_port, rx_port))) = (rings, ports.network) else {
        return Err(ToolstackError::Backend("has no rings"));
    };
    let grants = Grants::of(rings);
    Ok(Interface {
        persistent: true,
        connected: Some(Rings {
            domain: domid,
            tx_ring: grants.tx_ring,
            rx_ring: grants.rx_ring,
            tx_port,
            rx_port: Some(rx_port),
        }),
        ..interface_of(config, vif, is_guarded)
    })
}

/// The features of the front end as the handoff structure has it.
pub(in super::super::super) const AT_FIRST: Features = Features {
    sg: false,
    gso_tcpv4: false,
    gso_tcpv6: false,
    csum4: true,
    csum6: true,
    persistent: true,
};

/// The rings as the switch is given them.
fn handed(interface: &Interface) -> Result<Rings, ToolstackError> {
    let rings = interface.connected.map(|rings| Rings {
        // The guest notifies through the transmit ring's event channel as long as the receive ring's is unbound.
        rx_port: None,
        ..rings
    });
    rings.ok_or(ToolstackError::Backend("has no rings"))
}

/// Asks the switch to map the rings of a guest that it will serve later. Returns whether it has: if not, it does when
/// it serves the guest.
///
/// # Errors
/// The switch is gone.
pub(super) fn prepare(switch: &mut SwitchConnection, interface: &Interface) -> io::Result<bool> {
    let Ok(rings) = handed(interface) else {
        return Ok(false);
    };
    let reply = switch.ask(&SwitchOrder::Prepare {
        rings,
        features: AT_FIRST,
    })?;
    Ok(reply == SwitchReply::Done)
}

/// Asks the switch to serve a guest whose rings the builder has made. What the switch was told in a declaration is not
/// told again.
pub(super) fn attach(
    switch: &mut SwitchConnection,
    interface: &Interface,
    is_declared: bool,
) -> Result<(), ToolstackError> {
    switch.settle()?;
    let rings = handed(interface)?;
    let order = match is_declared {
        true => SwitchOrder::Awake(Box::new(Awake {
            name: interface.name.clone(),
            guard: interface.guard,
            rings,
            features: AT_FIRST,
        })),
        false => SwitchOrder::Attach(Box::new(interface.guest(rings, AT_FIRST))),
    };
    Ok(switch.send(&order)?)
}

/// Waits until it does. Returns its port on the bridge.
pub(super) fn attached(
    switch: &mut SwitchConnection,
    interface: &Interface,
    is_declared: bool,
) -> Result<String, ToolstackError> {
    match switch.receive()? {
        SwitchReply::Attached { link } => Ok(link),
        // The one who has declared it may have lost the switch, and another one may not know it yet.
        SwitchReply::Error(_) if is_declared => {
            attach(switch, interface, false)?;
            attached(switch, interface, false)
        }
        SwitchReply::Error(why) => Err(ToolstackError::Switch(why)),
        _ => Err(ToolstackError::Switch(
            "it does not answer what it was asked".into(),
        )),
    }
}

/// The handoff structure of a guest's network.
pub(super) fn network(
    plan: &CreatePlan<'_>,
    domid: u16,
    ports: &Ports,
) -> Result<Option<Preconnected>, ToolstackError> {
    let network = plan.network(domid, ports)?;
    Ok(network.map(|network| Preconnected {
        backend: path(domid),
        ..network
    }))
}

/// The back end's path in xenstore, in the form of the handoff structure.
fn path(domid: u16) -> [u8; PATH_MAX] {
    let mut bytes = [0; PATH_MAX];
    let path = paths::switched(domid);
    if let Some(place) = bytes.get_mut(..path.len()) {
        place.copy_from_slice(path.as_bytes());
    }
    bytes
}
