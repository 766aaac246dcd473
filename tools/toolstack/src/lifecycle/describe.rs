//! The configuration of a running guest, out of xenstore.

use mayfly_savefile::SavedConfig;
use mayfly_switch::xenbus::{Interface, keys as switch_keys};

use super::config::GuestDescription;
use crate::builder::index::{self, IndexRecord};
use crate::builder::{self, Connect, GuestVif, Network, Toolstack, ToolstackError};
use crate::config::BRIDGE;
use crate::paths;
use mayfly_xen::{DomainInfo, TscMode};

/// libxl's folder of what it keeps of its guests.
const USERDATA: &str = "/var/lib/xen";
/// The longest of libxl's files that is read, in bytes.
const USERDATA_MAX: usize = 1 << 20;
/// The frames of a grant table that hatch gives to its guests.
pub(super) const OUR_FRAMES: u16 = 4;

fn refused(why: impl Into<String>) -> ToolstackError {
    ToolstackError::Refused(why.into())
}

impl Toolstack {
    /// The configuration of a guest, as `xl restore` takes it.
    pub(super) fn describe(&mut self, domid: u16) -> Result<SavedConfig, ToolstackError> {
        let Some(info) = self.xen.info(domid)? else {
            return Err(ToolstackError::Destroyed);
        };
        let record = index::record(&mut *self.store, domid)?;
        let json = match record.filter(|record| record.is_of(&info)) {
            Some(record) => self.ours(&info, record)?.json(),
            None => theirs(&info)?,
        };
        Ok(SavedConfig::Json(json))
    }

    /// The description of a guest that hatch has made.
    fn ours(
        &mut self,
        info: &DomainInfo,
        record: IndexRecord,
    ) -> Result<GuestDescription, ToolstackError> {
        let domid = info.domid;
        let network = match self.is_switched(domid)? {
            true => Network::Switch,
            false => Network::Netback,
        };
        if let Some(watched) = self.store.find(&paths::watched_path(domid))?
            && let Ok(config) = serde_json::from_str::<builder::GuestConfig>(&watched)
        {
            return Ok(GuestDescription {
                config: builder::GuestConfig { network, ..config },
                grant_frames: OUR_FRAMES,
                is_readdressed: false,
            });
        }
        let memory = format!("{}/memory/static-max", paths::home(domid));
        let memory = self
            .store
            .find(&memory)?
            .and_then(|kib| kib.parse::<u64>().ok());
        let memory = memory.ok_or_else(|| refused("xenstore has no memory/static-max of it"))?;
        let vif = match record.mac {
            Some(mac) => Some(self.vif(domid, mac)?),
            None => None,
        };
        let cmdline = paths::cmdline(&paths::uuid(&info.handle));
        Ok(GuestDescription {
            config: builder::GuestConfig {
                name: record.name,
                uuid: info.handle,
                memory: memory >> 10,
                cmdline: self.store.find(&cmdline)?.unwrap_or_default(),
                vif,
                connect: Connect::default(),
                console: false,
                tsc: TscMode::Default,
                network,
                watched: None,
            },
            grant_frames: OUR_FRAMES,
            is_readdressed: false,
        })
    }

    fn vif(&mut self, domid: u16, mac: [u8; 6]) -> Result<GuestVif, ToolstackError> {
        let (libxl, back) = (paths::libxl_vif(domid), paths::backend(domid));
        let mut bridge = self.store.find(&format!("{libxl}/bridge"))?;
        if bridge.is_none()
            && let Some(text) = self.store.find(&switch_keys::interface(domid))?
        {
            let interface = serde_json::from_str::<Interface>(&text).ok();
            bridge = interface.map(|interface| interface.bridge);
        }
        let mtu = self.store.find(&format!("{}/mtu", paths::front(domid)))?;
        Ok(GuestVif {
            mac,
            bridge: bridge.unwrap_or_else(|| BRIDGE.to_owned()),
            ip: self.store.find(&format!("{libxl}/ip"))?,
            rate: self.store.find(&format!("{back}/rate"))?,
            mtu: mtu.and_then(|mtu| mtu.parse().ok()),
        })
    }
}

/// What libxl keeps of a guest that it has made.
fn theirs(info: &DomainInfo) -> Result<String, ToolstackError> {
    let uuid = paths::uuid(&info.handle);
    let path = format!("{USERDATA}/userdata-d.{}.{uuid}.libxl-json", info.domid);
    let text = std::fs::read(&path).map_err(|error| {
        let domid = info.domid;
        refused(format!(
            "libxl's configuration of domain {domid}: {path}: {error}"
        ))
    })?;
    if text.len() > USERDATA_MAX {
        return Err(refused(format!("{path} has more than a MiB")));
    }
    let text = String::from_utf8(text);
    let text = text.map_err(|_| refused(format!("{path} is not text")))?;
    Ok(text.trim_end_matches('\0').to_owned())
}
