//! The description that a guest is created from.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use super::actions::Watched;
use super::index::Record;
use mayfly_xen::TscMode;

/// A guest to be made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Config {
    /// Its name, which no other guest has.
    pub name: String,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// MiB of memory.
    pub memory: u64,
    /// The command line.
    pub cmdline: String,
    /// Its network interface.
    pub vif: Option<Vif>,
    /// Whether the network is connected before the guest runs.
    pub connect: Connect,
    /// Whether it has a console that `xl console` can attach to.
    pub console: bool,
    /// What RDTSC does.
    pub tsc: TscMode,
    /// What `hatch watch` has to know of it, if it is to see to its end.
    pub watched: Option<Watched>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Vif {
    /// Its MAC address, which no other guest has.
    pub mac: [u8; 6],
    /// The bridge that it is a port of.
    pub bridge: String,
    /// The address that the guest may use, as the bridge's scripts read it.
    pub ip: Option<String>,
    /// Octets and microseconds, as netback reads `rate`.
    pub rate: Option<String>,
    /// The MTU that is told to the guest.
    pub mtu: Option<u32>,
}

/// Who connects the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Connect {
    /// The builder, when the image has the note that says it can take that; else the guest.
    #[default]
    Auto,
    /// The builder, before the guest runs.
    Before,
    /// The guest, by itself.
    Guest,
}

/// Octets of the longest name.
pub const NAME_MAX: usize = 128;

/// Octets of the longest record: a message of xenstored's less the path that it is kept at.
const RECORD_MAX: usize = 3900;

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name that can't be.
    #[error(
        "a name has 1 to {NAME_MAX} printable characters without blanks and slashes: {0:?} has not"
    )]
    Name(String),
    /// The interface has a MAC address that is no interface's own.
    #[error("the MAC address {0} is a group's, or none")]
    Mac(String),
    /// A value that is written to xenstore or given to the kernel as it is.
    #[error("{0} is too long, or has characters that it can't have")]
    Value(&'static str),
}

impl Config {
    /// What the index has of it.
    pub(crate) fn index(&self) -> Record {
        let mac = self.vif.as_ref().map(|vif| &vif.mac);
        Record::new(&self.uuid, mac, &self.name)
    }

    /// The same as JSON: what `hatch watch` makes it from again.
    #[must_use]
    pub fn record(&self) -> String {
        // There is no map with keys that are no text, which is all that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Checks all that does not depend on the image.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        if self.watched.is_some() && self.record().len() > RECORD_MAX {
            return Err(Error::Value("what `hatch watch` has to know of it"));
        }
        let Some(vif) = &self.vif else {
            return Ok(());
        };
        if vif.mac[0] & 1 != 0 || vif.mac == [0; 6] {
            return Err(Error::Mac(super::keys::mac_text(&vif.mac)));
        }
        // IFNAMSIZ, with the NUL.
        let is_interface = |name: &str| {
            (1..=15).contains(&name.len()) && is_printable(name) && !name.contains(['/', ':'])
        };
        if !is_interface(&vif.bridge) {
            return Err(Error::Value("the bridge's name"));
        }
        for (what, value) in [("ip", &vif.ip), ("rate", &vif.rate)] {
            let is_text = |text: &String| {
                text.len() <= 1024
                    && text
                        .bytes()
                        .all(|octet| octet == b' ' || octet.is_ascii_graphic())
            };
            if value.as_ref().is_some_and(|value| !is_text(value)) {
                return Err(Error::Value(what));
            }
        }
        if vif.mtu.is_some_and(|mtu| !(68..=65_535).contains(&mtu)) {
            return Err(Error::Value("the MTU"));
        }
        Ok(())
    }
}

/// A UUID by chance (RFC 9562, version 4). Without waiting for the kernel's pool to be seeded, which in a dom0 that has just
/// been started may take seconds: it has to be unlike the others here, and is no secret.
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

/// Random bytes for a guest's secrets; `None` as long as the kernel has none that nobody can guess, which
/// it says rather than wait.
pub(crate) fn random_bytes() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let length = getrandom(&mut bytes, GetRandomFlags::NONBLOCK).ok()?;
    (length == bytes.len()).then_some(bytes)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_graphic())
}

/// Checks a guest's name.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_name = (1..=NAME_MAX).contains(&name.len()) && is_printable(name) && !name.contains('/');
    // A number would be taken for a domid by `xl`.
    if !is_name || name.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(Error::Name(name.chars().take(NAME_MAX).collect()));
    }
    Ok(())
}
