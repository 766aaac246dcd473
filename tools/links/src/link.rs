//! Links and their names.

use serde::Serialize;

use super::error::Error;

/// `IFNAMSIZ` of `linux/if.h`, without the NUL.
const NAME_MAX: usize = 15;

/// A network link of dom0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// The kind of its driver, if it has one: `bridge`, `veth`, ...; `vif` for netback's, from Linux 6.2 on.
    pub kind: Option<String>,
    /// The bridge or bond that it belongs to.
    pub master: Option<u32>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it was set up.
    pub up: bool,
    /// Whether it has a carrier: the other end is connected.
    pub running: bool,
}

impl Link {
    /// The guest's device, if the link's name is one of netback's.
    #[must_use]
    pub fn vif(&self) -> Option<VifNumber> {
        let (domid, device) = self.name.strip_prefix("vif")?.split_once('.')?;
        let vif = VifNumber {
            domid: domid.parse().ok()?,
            device: device.parse().ok()?,
        };
        // Reject leading zeros, signs, and names like `vif1.0-emu`.
        (vif_name(vif.domid, vif.device) == self.name).then_some(vif)
    }
}

/// A guest's network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct VifNumber {
    /// The guest.
    pub domid: u16,
    /// The number of the guest's network device.
    pub device: u32,
}

/// A link that can have ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bridge {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, which is dom0's address on the bridge.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// A notification of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// The link is new or has changed.
    Is(Link),
    /// The link has changed, and so have its features.
    Featured(Link),
    /// Notifications were lost: the state of links must be queried again.
    Lost,
    /// The link is gone.
    Gone {
        /// Its number.
        index: u32,
        /// Its name.
        name: String,
    },
}

/// The name that netback gives to a guest's link.
#[must_use]
pub fn vif_name(domid: u16, device: u32) -> String {
    format!("vif{domid}.{device}")
}

/// Checks a link's name as the kernel does (`dev_valid_name`).
///
/// # Errors
/// A name that no link can have.
pub fn check_name(name: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if name.is_empty()
        || name.len() > NAME_MAX
        || matches!(name, "." | "..")
        || !name.bytes().all(legal)
    {
        // Limit the length of the name in the message.
        return Err(Error::Name(name.chars().take(NAME_MAX * 2).collect()));
    }
    Ok(())
}
