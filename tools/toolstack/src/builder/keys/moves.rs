//! The keys of a guest that moves from one network back end to the other.

use mayfly_switch::port::Rings;
use mayfly_switch::xenbus::{self, Interface};

use super::{SCRIPT, StoreOp, guest_reads, write};
use crate::paths;

/// The directory of the switch for a guest that has begun on netback, whose front end watches `shown`.
pub(crate) fn taken_over(domid: u16, interface: &Interface, shown: &str) -> Vec<StoreOp> {
    let back = paths::switched(domid);
    let text = serde_json::to_string(interface).unwrap_or_default();
    let mut ops = vec![
        write(xenbus::keys::interface(domid), text),
        StoreOp::Perms(back.clone(), guest_reads(domid)),
        write(format!("{back}/frontend"), paths::front(domid)),
    ];
    if shown != back {
        ops.push(write(xenbus::keys::shown(domid), shown));
    }
    ops
}

/// The keys by which a front end says its rings, for one whose rings the builder has connected.
pub(crate) fn rings(domid: u16, rings: &Rings) -> Vec<StoreOp> {
    let front = paths::front(domid);
    let keys = [
        ("tx-ring-ref", Some(rings.tx_ring)),
        ("rx-ring-ref", Some(rings.rx_ring)),
        (
            "event-channel",
            Some(rings.tx_port).filter(|_| rings.rx_port.is_none()),
        ),
        (
            "event-channel-tx",
            Some(rings.tx_port).filter(|_| rings.rx_port.is_some()),
        ),
        ("event-channel-rx", rings.rx_port),
        ("request-rx-copy", Some(1)),
        ("feature-rx-notify", Some(1)),
    ];
    let keys = keys.into_iter();
    keys.filter_map(|(key, value)| Some(write(format!("{front}/{key}"), value?.to_string())))
        .collect()
}

/// A directory for netback, of a guest that the switch has served.
pub(crate) fn given_away(
    domid: u16,
    interface: &Interface,
    (directory, rate): (&str, Option<&str>),
) -> Vec<StoreOp> {
    let (front, domain) = (paths::front(domid), domid.to_string());
    let mac = paths::mac_text(&interface.mac);
    let mut ops = vec![
        // Before there is a back end whose states could be shown.
        write(xenbus::keys::netback(domid), directory),
        write(format!("{directory}/frontend"), front),
        StoreOp::Perms(directory.to_owned(), guest_reads(domid)),
    ];
    let keys = [
        ("frontend-id", Some(domain.as_str())),
        ("script", Some(SCRIPT)),
        ("mac", Some(&mac)),
        ("handle", Some("0")),
        ("rate", rate),
        ("online", Some("1")),
        ("type", Some("vif")),
        ("hotplug-status", Some("connected")),
        // Last: until there is a state, the kernel does not take it for a device.
        ("state", Some("1")),
    ];
    for (key, value) in keys {
        ops.extend(value.map(|value| write(format!("{directory}/{key}"), value)));
    }
    ops
}
