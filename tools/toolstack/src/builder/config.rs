//! The description that a guest is created from.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use super::actions::Watched;
use super::index::IndexRecord;
use crate::paths;
use mayfly_xen::TscMode;

/// The description of a guest that is to be created.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GuestConfig {
    /// The name, unique on the host.
    pub name: String,
    /// The UUID.
    pub uuid: [u8; 16],
    /// The memory, in MiB.
    pub memory: u64,
    /// The command line.
    pub cmdline: String,
    /// The network interface, if there is one.
    pub vif: Option<GuestVif>,
    /// Whether the network is connected before the guest runs.
    pub connect: Connect,
    /// The back end of the network. (An older hatch did not record it.)
    #[serde(default)]
    pub network: Network,
    /// Whether there is a console that `xl console` can attach to.
    pub console: bool,
    /// The behaviour of RDTSC.
    pub tsc: TscMode,
    /// The data for `hatch watch`, if that handles the guest's end.
    pub watched: Option<Watched>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GuestVif {
    /// The MAC address, unique on the host.
    pub mac: [u8; 6],
    /// The name of the bridge that the interface is a port of.
    pub bridge: String,
    /// The IP address that the guest may use, in the format of the bridge's scripts.
    pub ip: Option<String>,
    /// The rate limit as netback reads `rate`: bytes per interval and the interval in microseconds, `BYTES,USECS`.
    pub rate: Option<String>,
    /// The MTU that the guest is given.
    pub mtu: Option<u32>,
}

/// A back end of a guest's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Linux' netback.
    #[default]
    Netback,
    /// The process of `hatch switch`.
    Switch,
}

impl Network {
    /// Its name, as in configurations and command lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Netback => "netback",
            Self::Switch => "switch",
        }
    }
}

/// The side that connects the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Connect {
    /// The builder, if the image's note says that it takes a connected network; otherwise the guest.
    #[default]
    Auto,
    /// The builder, before the guest runs.
    Before,
    /// The guest, by itself.
    Guest,
}

/// The longest name, in bytes.
pub const NAME_MAX: usize = 128;

/// The longest record, in bytes: the largest message of xenstored less the path of the key.
const RECORD_MAX: usize = 3900;

/// An error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestConfigError {
    /// The name is not valid.
    #[error(
        "{0:?} is not a name: a name has 1 to {NAME_MAX} printable characters, no blank and no slash, and is not a number"
    )]
    Name(String),
    /// The MAC address is a multicast address or all zeros.
    #[error("the MAC address {0} is a multicast address or all zeros")]
    Mac(String),
    /// A value that is written to xenstore or given to the kernel unchanged is too long or has invalid characters.
    #[error("{0} is too long or has invalid characters")]
    Value(&'static str),
}

impl GuestConfig {
    /// The guest's record in the index.
    pub(crate) fn index(&self) -> IndexRecord {
        let mac = self.vif.as_ref().map(|vif| &vif.mac);
        IndexRecord::new(&self.uuid, mac, &self.name)
    }

    /// The configuration as JSON, from which `hatch watch` makes the guest again.
    #[must_use]
    pub fn record(&self) -> String {
        // Serialization fails only for maps whose keys are not strings, and there are none.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Checks everything that does not depend on the image.
    ///
    /// # Errors
    /// The first error found.
    pub fn check(&self) -> Result<(), GuestConfigError> {
        check_name(&self.name)?;
        if self.watched.is_some() && self.record().len() > RECORD_MAX {
            return Err(GuestConfigError::Value("the record for `hatch watch`"));
        }
        let Some(vif) = &self.vif else {
            return Ok(());
        };
        if vif.mac[0] & 1 != 0 || vif.mac == [0; 6] {
            return Err(GuestConfigError::Mac(paths::mac_text(&vif.mac)));
        }
        // IFNAMSIZ is 16, including the NUL.
        let is_interface = |name: &str| {
            (1..=15).contains(&name.len()) && is_printable(name) && !name.contains(['/', ':'])
        };
        if !is_interface(&vif.bridge) {
            return Err(GuestConfigError::Value("the bridge's name"));
        }
        for (what, value) in [("ip", &vif.ip), ("rate", &vif.rate)] {
            let is_text = |text: &String| {
                text.len() <= 1024
                    && text
                        .bytes()
                        .all(|byte| byte == b' ' || byte.is_ascii_graphic())
            };
            if value.as_ref().is_some_and(|value| !is_text(value)) {
                return Err(GuestConfigError::Value(what));
            }
        }
        if vif.mtu.is_some_and(|mtu| !(68..=65_535).contains(&mtu)) {
            return Err(GuestConfigError::Value("the MTU"));
        }
        Ok(())
    }
}

/// A random UUID (RFC 9562, version 4). It does not wait until the kernel's pool is seeded, which may take seconds in a
/// dom0 that has just started: the UUID has to be unique on this host and is no secret.
///
/// # Errors
/// The kernel gives no random numbers.
pub fn random_uuid() -> io::Result<[u8; 16]> {
    let mut random = [0; 16];
    if getrandom(&mut random, GetRandomFlags::INSECURE)? != random.len() {
        return Err(io::Error::other("no random numbers"));
    }
    let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
    Ok(uuid.into_bytes())
}

/// Random bytes for a guest's secrets; `None` as long as the kernel's pool is not seeded. It does not wait.
pub(crate) fn random_bytes() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let length = getrandom(&mut bytes, GetRandomFlags::NONBLOCK).ok()?;
    (length == bytes.len()).then_some(bytes)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Checks a guest's name.
pub fn check_name(name: &str) -> Result<(), GuestConfigError> {
    let is_name = (1..=NAME_MAX).contains(&name.len()) && is_printable(name) && !name.contains('/');
    // `xl` would take a number for a domid.
    if !is_name || name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(GuestConfigError::Name(
            name.chars().take(NAME_MAX).collect(),
        ));
    }
    Ok(())
}
