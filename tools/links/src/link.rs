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
    /// Its MAC address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// Its driver's kind, where that has one: `bridge`, `veth`, ...; `vif` for netback's, from 6.2 on.
    pub kind: Option<String>,
    /// The bridge or bond that it belongs to.
    pub master: Option<u32>,
    /// The largest packet.
    pub mtu: u32,
    /// Whether it was set up.
    pub up: bool,
    /// Whether something is connected to it.
    pub running: bool,
}

impl Link {
    /// Which guest's it is, when its name is one of netback's.
    #[must_use]
    pub fn vif(&self) -> Option<Vif> {
        let (domid, device) = self.name.strip_prefix("vif")?.split_once('.')?;
        let vif = Vif {
            domid: domid.parse().ok()?,
            device: device.parse().ok()?,
        };
        // No leading zeros or signs, and nothing like `vif1.0-emu`.
        (vif_name(vif.domid, vif.device) == self.name).then_some(vif)
    }
}

/// A guest's network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Vif {
    /// The guest.
    pub domid: u16,
    /// Which of its devices.
    pub device: u32,
}

/// A link that can have ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bridge {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address: dom0's, to who is connected to it.
    pub mac: [u8; 6],
    /// The largest packet.
    pub mtu: u32,
}

/// What the kernel tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The link is there, or is another than before.
    Is(Link),
    /// The same, and what it can do is other than before.
    Featured(Link),
    /// More has changed than could be kept: what was known of links has to be asked for again.
    Lost,
    /// The link is gone.
    Gone {
        /// Its number.
        index: u32,
        /// Its name.
        name: String,
    },
}

/// What netback calls a guest's link.
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
        // What goes into a message is no longer than a name.
        return Err(Error::Name(name.chars().take(NAME_MAX * 2).collect()));
    }
    Ok(())
}
