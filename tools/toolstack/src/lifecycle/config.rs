//! libxl's JSON of a guest's configuration (`libxl_domain_config`, tools/libs/light/libxl_types.idl of Xen 4.17 to
//! 4.20). A value that is not there has its default.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::builder::{Connect, EndAction, EndActions, GuestConfig, GuestVif, Network, Watched};
use crate::config::{BRIDGE, own_mac};
use crate::paths;
use mayfly_xen::TscMode;

/// libxl's default for `max_grant_frames`.
const GRANT_FRAMES: u16 = 64;
/// The most memory of a guest, in KiB: 1 TiB.
const MEMORY_MAX: u64 = 1 << 30;

/// The back end of the guest's network, if it is not netback. libxl reads only the names that it knows.
const NETWORK: &str = "hatch_network";

/// Devices that a guest cannot have. A list of them may be there, and empty.
const DEVICES: [&str; 14] = [
    "disks",
    "pcidevs",
    "rdms",
    "dtdevs",
    "vfbs",
    "vkbs",
    "virtios",
    "vtpms",
    "p9s",
    "p9",
    "pvcallsifs",
    "vdispls",
    "vsnds",
    "usbctrls",
];

/// A guest that is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDescription {
    /// Its configuration.
    pub config: GuestConfig,
    /// The greatest number of frames of its grant table.
    pub grant_frames: u16,
    /// Whether the guest is to use the addresses of its command line from now on, in place of those that it had when it
    /// was saved.
    pub is_readdressed: bool,
}

/// The names of what is done at a guest's end, as libxl has them, and what that is to hatch.
const ACTIONS: [(&str, EndAction); 7] = [
    ("destroy", EndAction::Destroy),
    ("restart", EndAction::Restart),
    ("preserve", EndAction::Preserve),
    ("rename_restart", EndAction::Restart),
    ("coredump_destroy", EndAction::Destroy),
    ("coredump_restart", EndAction::Restart),
    ("soft_reset", EndAction::Destroy),
];

impl GuestDescription {
    /// The configuration as libxl's JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let config = &self.config;
        let kib = config.memory << 10;
        let mut build = json!({
            "max_vcpus": 1,
            "avail_vcpus": [0],
            "max_memkb": kib,
            "target_memkb": kib,
            "max_grant_frames": self.grant_frames,
            "type.pvh": {},
        });
        let mut whole = json!({
            "c_info": { "type": "pvh", "name": config.name, "uuid": paths::uuid(&config.uuid) },
        });
        if !config.cmdline.is_empty() {
            build["cmdline"] = config.cmdline.clone().into();
        }
        if let Some(watched) = &config.watched {
            build["kernel"] = watched.kernel.to_string_lossy().into();
            if let Some(ramdisk) = &watched.ramdisk {
                build["ramdisk"] = ramdisk.to_string_lossy().into();
            }
            let actions = &watched.actions;
            for (event, action) in [
                ("on_poweroff", actions.on_poweroff),
                ("on_reboot", actions.on_reboot),
                ("on_watchdog", actions.on_watchdog),
                ("on_crash", actions.on_crash),
                ("on_soft_reset", actions.on_soft_reset),
            ] {
                let name = ACTIONS.iter().find(|(_, known)| *known == action);
                whole[event] = name.map_or("destroy", |(name, _)| name).into();
            }
        }
        whole["b_info"] = build;
        if let Some(vif) = &config.vif {
            whole["nics"] = json!([nic(vif)]);
        }
        if config.network == Network::Switch {
            whole[NETWORK] = config.network.as_str().into();
        }
        whole.to_string()
    }

    /// Reads libxl's JSON.
    ///
    /// # Errors
    /// What is not supported, or not there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (create, build) = (&whole["c_info"], &whole["b_info"]);
        match create["type"].as_str() {
            Some("pvh") => {}
            kind => return Err(format!("the guest's type is {kind:?}, and not \"pvh\"")),
        }
        let vcpus = build["max_vcpus"].as_u64().unwrap_or(1);
        if vcpus != 1 {
            return Err(format!("the guest has {vcpus} vCPUs, and not 1"));
        }
        for device in DEVICES {
            if whole[device]
                .as_array()
                .is_some_and(|list| !list.is_empty())
            {
                return Err(format!(
                    "the guest has {device}, for which there is no back end"
                ));
            }
        }
        let name = create["name"].as_str().ok_or("it has no name")?;
        let uuid = create["uuid"]
            .as_str()
            .and_then(|uuid| Uuid::try_parse(uuid).ok());
        let uuid = uuid.ok_or("it has no UUID")?;
        let kib = build["max_memkb"].as_u64().filter(|kib| *kib > 0);
        let kib = kib.ok_or("it does not say how much memory the guest has")?;
        if kib > MEMORY_MAX {
            return Err(format!(
                "the guest has {kib} KiB of memory, and at most 1 TiB"
            ));
        }
        let frames = build["max_grant_frames"].as_u64();
        let frames = frames.and_then(|frames| u16::try_from(frames).ok());
        Ok(Self {
            config: GuestConfig {
                name: name.to_owned(),
                uuid: uuid.into_bytes(),
                memory: kib.div_ceil(1024),
                cmdline: build["cmdline"].as_str().unwrap_or_default().to_owned(),
                vif: vif(&whole, uuid.as_bytes())?,
                connect: Connect::default(),
                console: false,
                tsc: TscMode::Default,
                network: match whole[NETWORK] == Network::Switch.as_str() {
                    true => Network::Switch,
                    false => Network::Netback,
                },
                watched: watched(&whole),
            },
            // libxl writes a number that means its default as well.
            grant_frames: frames.filter(|frames| *frames > 0).unwrap_or(GRANT_FRAMES),
            is_readdressed: false,
        })
    }
}

/// An interface as JSON.
fn nic(vif: &GuestVif) -> Map<String, Value> {
    let mut nic = Map::new();
    let mut put = |key: &str, value: Value| nic.insert(key.to_owned(), value);
    put("devid", 0.into());
    put("mac", paths::mac_text(&vif.mac).into());
    put("bridge", vif.bridge.clone().into());
    put("nictype", "vif".into());
    if let Some(ip) = &vif.ip {
        put("ip", ip.clone().into());
    }
    if let Some(mtu) = vif.mtu {
        put("mtu", mtu.into());
    }
    let rate = vif.rate.as_deref().and_then(|rate| rate.split_once(','));
    if let Some((bytes, usecs)) = rate {
        for (key, value) in [
            ("rate_bytes_per_interval", bytes),
            ("rate_interval_usecs", usecs),
        ] {
            put(key, value.parse::<u64>().unwrap_or(0).into());
        }
    }
    nic
}

/// The interface of a configuration, if it has one. The UUID gives it a MAC address where it has none.
fn vif(whole: &Value, uuid: &[u8; 16]) -> Result<Option<GuestVif>, String> {
    let nics = whole["nics"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let nic = match nics {
        [] => return Ok(None),
        [nic] => nic,
        nics => {
            return Err(format!(
                "the guest has {} interfaces, and not 1",
                nics.len()
            ));
        }
    };
    if nic["devid"].as_u64().unwrap_or(0) != 0 {
        return Err("the guest's interface is not number 0".to_owned());
    }
    let is_dom0 = nic["backend_domid"].as_u64().unwrap_or(0) == 0
        && nic["backend_domname"].as_str().is_none_or(str::is_empty);
    if !is_dom0 {
        return Err("the interface's back end is not in domain 0".to_owned());
    }
    let mac = match nic["mac"].as_str() {
        // libxl then chooses one when it makes the guest.
        None | Some("00:00:00:00:00:00") => Some(own_mac(uuid)),
        Some(mac) => paths::parse_mac(mac),
    };
    let number = |key: &str| nic[key].as_u64().filter(|number| *number > 0);
    let rate = number("rate_bytes_per_interval").zip(number("rate_interval_usecs"));
    Ok(Some(GuestVif {
        mac: mac.ok_or("the interface has no valid MAC address")?,
        bridge: nic["bridge"].as_str().unwrap_or(BRIDGE).to_owned(),
        ip: nic["ip"].as_str().map(str::to_owned),
        rate: rate.map(|(bytes, usecs)| format!("{bytes},{usecs}")),
        mtu: number("mtu").and_then(|mtu| u32::try_from(mtu).ok()),
    }))
}

/// What `hatch watch` needs, if the configuration names the image.
fn watched(whole: &Value) -> Option<Watched> {
    let path = |key: &str| {
        let path = whole["b_info"][key]
            .as_str()
            .filter(|path| !path.is_empty());
        path.map(Into::into)
    };
    let on = |event: &str, default: EndAction| {
        let name = whole[event].as_str().unwrap_or_default();
        let known = ACTIONS.iter().find(|(known, _)| *known == name);
        known.map_or(default, |(_, action)| *action)
    };
    let default = EndActions::default();
    Some(Watched {
        kernel: path("kernel")?,
        ramdisk: path("ramdisk"),
        actions: EndActions {
            on_poweroff: on("on_poweroff", default.on_poweroff),
            on_reboot: on("on_reboot", default.on_reboot),
            on_watchdog: on("on_watchdog", default.on_watchdog),
            on_crash: on("on_crash", default.on_crash),
            on_soft_reset: on("on_soft_reset", default.on_soft_reset),
        },
    })
}
