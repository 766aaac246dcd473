//! The keys of both ends: what dom0 says of an interface, and what its front end says.
//!
//! The front end's keys (Xen 4.17 public/io/netif.h) are the guest's, so each is checked. That its grants and ports
//! exist is checked by Xen when they are mapped and bound.

use std::net::{Ipv4Addr, Ipv6Addr};

use mayfly_xenstore::{Error, Store};
use serde::{Deserialize, Serialize};

use crate::port::{Features, Rings};
use crate::switch::{Guard, Guest, Mac, SendLimits};

/// The directory of the back ends that are the switch. The kernel's xenbus does not look for devices there.
pub const ROOT: &str = "/local/domain/0/switch";

/// The keys of a back end by which a front end knows what the switch can do.
pub const OFFERED: [(&str, &str); 10] = [
    ("feature-sg", "1"),
    ("feature-gso-tcpv4", "1"),
    ("feature-gso-tcpv6", "1"),
    ("feature-no-csum-offload", "0"),
    ("feature-ipv6-csum-offload", "1"),
    ("feature-rx-copy", "1"),
    ("feature-rx-flip", "0"),
    ("feature-multicast-control", "1"),
    ("feature-split-event-channels", "1"),
    ("multi-queue-max-queues", "1"),
];

/// Those of them that the project's guest asks for when its network was connected before it ran.
pub const ASKED_LATER: [(&str, &str); 4] = [
    ("feature-sg", "1"),
    ("feature-gso-tcpv4", "1"),
    ("feature-no-csum-offload", "0"),
    ("feature-ipv6-csum-offload", "1"),
];

/// The directory of a guest's back end that is the switch.
#[must_use]
pub fn directory(domid: u16) -> String {
    format!("{ROOT}/{domid}")
}

/// The key with the [`Interface`] of a guest.
#[must_use]
pub fn interface(domid: u16) -> String {
    format!("{}/interface", directory(domid))
}

/// The key with the directory that the front end watches, if that is another one: the guest began on netback.
#[must_use]
pub fn shown(domid: u16) -> String {
    format!("{}/shown", directory(domid))
}

/// The key with netback's directory, if the guest was moved to netback.
#[must_use]
pub fn netback(domid: u16) -> String {
    format!("{}/netback", directory(domid))
}

/// The front end's directory.
#[must_use]
pub fn front(domid: u16) -> String {
    format!("/local/domain/{domid}/device/vif/0")
}

/// What dom0 knows of a guest's interface, whoever serves it: all of a [`Guest`] that its front end does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// The guest's name.
    pub name: String,
    /// Its bridge.
    pub bridge: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// The checks of its frames.
    #[serde(default)]
    pub guard: Guard,
    /// The limits of its sending.
    #[serde(default)]
    pub limits: SendLimits,
    /// Whether its front end grants its buffers once, for the lifetime of the link.
    #[serde(default)]
    pub persistent: bool,
    /// The rings that the builder has connected: the front end has not said them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<Rings>,
}

impl Interface {
    /// The guest as the switch is given it.
    #[must_use]
    pub fn guest(&self, rings: Rings, features: Features) -> Guest {
        Guest {
            name: self.name.clone(),
            bridge: self.bridge.clone(),
            mac: self.mac,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            guard: self.guard,
            limits: self.limits,
            rings,
            features: Features {
                persistent: self.persistent,
                ..features
            },
        }
    }
}

/// What is wrong with a front end's keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontFault {
    /// A key is missing.
    #[error("its front end has not written {0}")]
    Missing(&'static str),
    /// A key is not a number.
    #[error("its front end has written a {0} that is not a number")]
    NotNumber(&'static str),
    /// It wants frames by page flipping.
    #[error("its front end does not ask for copies (request-rx-copy)")]
    Flips,
    /// It wants several queues, which it was not offered.
    #[error("its front end has several queues")]
    Queues,
}

/// The keys that are read, in this order.
const KEYS: [&str; 12] = [
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel-tx",
    "event-channel-rx",
    "event-channel",
    "request-rx-copy",
    "multi-queue-num-queues",
    "feature-sg",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
];

/// What a front end says of its rings and itself.
pub type Said = (Rings, Features);

/// Reads what a front end says.
///
/// # Errors
/// xenstored's; and what is wrong with the keys.
pub fn read_front(store: &mut dyn Store, domain: u16) -> Result<Result<Said, FrontFault>, Error> {
    let front = front(domain);
    let paths = KEYS.map(|key| format!("{front}/{key}"));
    Ok(parse_front(domain, &store.values(&paths)?))
}

/// Parses the values of [`KEYS`].
fn parse_front(domain: u16, values: &[Option<Vec<u8>>]) -> Result<Said, FrontFault> {
    let mut values = KEYS.into_iter().zip(values);
    let mut next = || -> Result<(&'static str, Option<u32>), FrontFault> {
        let (key, value) = values.next().ok_or(FrontFault::Missing(""))?;
        let number = value.as_ref().map(|value| number(value));
        match number {
            Some(None) => Err(FrontFault::NotNumber(key)),
            Some(number) => Ok((key, number)),
            None => Ok((key, None)),
        }
    };
    let needed = |(key, number): (_, Option<u32>)| number.ok_or(FrontFault::Missing(key));
    let tx_ring = needed(next()?)?;
    let rx_ring = needed(next()?)?;
    let (split_tx, split_rx) = (next()?.1, next()?.1);
    let (one_key, one) = next()?;
    let (tx_port, rx_port) = match (split_tx, split_rx) {
        (Some(tx), Some(rx)) => (tx, Some(rx)),
        _ => (one.ok_or(FrontFault::Missing(one_key))?, None),
    };
    if next()?.1 != Some(1) {
        return Err(FrontFault::Flips);
    }
    if next()?.1.is_some_and(|queues| queues != 1) {
        return Err(FrontFault::Queues);
    }
    let mut flag = || Ok::<_, FrontFault>(next()?.1.unwrap_or(0) != 0);
    let rings = Rings {
        domain,
        tx_ring,
        rx_ring,
        tx_port,
        rx_port,
    };
    let features = Features {
        sg: flag()?,
        gso_tcpv4: flag()?,
        gso_tcpv6: flag()?,
        csum4: !flag()?,
        csum6: flag()?,
        persistent: false,
    };
    Ok((rings, features))
}

/// A decimal number.
fn number(value: &[u8]) -> Option<u32> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(said: [&str; 12]) -> Vec<Option<Vec<u8>>> {
        let said = said.into_iter();
        said.map(|value| (value != "-").then(|| value.as_bytes().to_vec()))
            .collect()
    }

    const LINUX: [&str; 12] = ["8", "9", "15", "16", "-", "1", "-", "1", "1", "1", "-", "1"];

    #[test]
    fn a_linux_front_end_is_understood() {
        let (rings, features) = parse_front(7, &values(LINUX)).unwrap();
        assert_eq!((rings.domain, rings.tx_ring, rings.rx_ring), (7, 8, 9));
        assert_eq!((rings.tx_port, rings.rx_port), (15, Some(16)));
        assert!(features.sg && features.gso_tcpv4 && features.gso_tcpv6);
        assert!(features.csum4 && features.csum6 && !features.persistent);
    }

    #[test]
    fn a_small_front_end_has_one_event_channel_and_no_features() {
        let small = [
            "0",
            "1",
            "-",
            "-",
            "4294967295",
            "1",
            "-",
            "-",
            "-",
            "-",
            "1",
            "-",
        ];
        let (rings, features) = parse_front(7, &values(small)).unwrap();
        assert_eq!((rings.tx_port, rings.rx_port), (u32::MAX, None));
        assert!(!features.sg && !features.csum4);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let with = |at: usize, value| {
            let mut said = LINUX;
            said[at] = value;
            parse_front(7, &values(said)).unwrap_err()
        };
        assert_eq!(with(0, "-"), FrontFault::Missing("tx-ring-ref"));
        assert_eq!(with(1, "-"), FrontFault::Missing("rx-ring-ref"));
        assert_eq!(with(3, "-"), FrontFault::Missing("event-channel"));
        assert_eq!(with(5, "0"), FrontFault::Flips);
        assert_eq!(with(5, "-"), FrontFault::Flips);
        assert_eq!(with(6, "2"), FrontFault::Queues);
        for odd in [
            "",
            "+8",
            "-8",
            " 8",
            "8 ",
            "0x8",
            "4294967296",
            "\u{ff}",
            "8\0",
        ] {
            for (at, key) in KEYS.into_iter().enumerate() {
                assert_eq!(with(at, odd), FrontFault::NotNumber(key), "{odd:?}");
            }
        }
        assert!(parse_front(7, &[]).is_err());
    }

    #[test]
    fn an_interface_is_read_as_it_was_written() {
        let guest = crate::fake::guest(3);
        let interface = Interface {
            connected: Some(Rings {
                rx_port: Some(77),
                ..guest.rings
            }),
            ..crate::fake::interface(3)
        };
        let text = serde_json::to_string(&interface).unwrap();
        assert_eq!(serde_json::from_str::<Interface>(&text).unwrap(), interface);
        let rings = interface.connected.unwrap();
        assert_eq!(rings.rx_port, Some(77));
        assert_eq!(interface.guest(guest.rings, guest.features), guest);
    }
}
