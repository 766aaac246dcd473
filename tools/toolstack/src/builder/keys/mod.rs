//! A guest's keys in xenstore, their permissions, and the order in which they are written.
//!
//! The keys are those that libxl writes for a PVH guest (tools/libs/light of Xen 4.17: libxl_create.c
//! `libxl__domain_make`, libxl_dom.c `libxl__build_post`, libxl_nic.c, libxl_device.c `libxl__device_generic_add`), as
//! far as a guest, a back end or `xl` reads them, so that `xl` handles these guests as its own. Their paths are in
//! [`crate::paths`].

use mayfly_switch::xenbus::{self, Interface};
use mayfly_xenstore::{Access, Perm, Request};

mod moves;

use super::config::{GuestConfig, GuestVif};
use super::index::IndexRecord;
use super::layout::{CONSOLE_GFN, XENSTORE_GFN};
use super::rings::Grants;
use crate::paths;
pub(crate) use moves::{given_away, rings, taken_over};

/// A request that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreOp {
    Write(String, String),
    Mkdir(String),
    Perms(String, Vec<Perm>),
    Rm(String),
    Introduce { domid: u16, gfn: u64, port: u32 },
    Release(u16),
}

impl StoreOp {
    /// The request in the protocol's form.
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Self::Write(path, value) => Request::write(path, value),
            Self::Mkdir(path) => Request::mkdir(path),
            Self::Perms(path, perms) => Request::set_perms(path, perms),
            Self::Rm(path) => Request::rm(path),
            Self::Introduce { domid, gfn, port } => Request::introduce(*domid, *gfn, *port),
            Self::Release(domid) => Request::release(*domid),
        }
    }
}

fn write(path: impl Into<String>, value: impl Into<String>) -> StoreOp {
    StoreOp::Write(path.into(), value.into())
}

/// `n0,rN`: dom0 owns it and the guest reads it.
fn guest_reads(domid: u16) -> Vec<Perm> {
    vec![
        Perm {
            access: Access::None,
            domid: 0,
        },
        Perm {
            access: Access::Read,
            domid,
        },
    ]
}

/// `nN`: the guest owns it.
fn guest_owns(domid: u16) -> Vec<Perm> {
    vec![Perm {
        access: Access::None,
        domid,
    }]
}

/// `nN,r0`: the guest owns it and dom0 reads it.
fn guest_owns_for_dom0(domid: u16) -> Vec<Perm> {
    let mut perms = guest_owns(domid);
    perms.push(Perm {
        access: Access::Read,
        domid: 0,
    });
    perms
}

/// Removes the directory of a back end that is the switch.
pub(crate) fn unswitched(domid: u16) -> StoreOp {
    StoreOp::Rm(paths::switched(domid))
}

/// The keys of a guest whose network the builder has connected to the switch, all written when the guest runs already:
/// first those that it reads of its network, then those that xenconsoled reads. The introduction is last, because the
/// others begin to look at that.
pub(crate) fn switched_birth(
    domid: u16,
    config: &GuestConfig,
    ports: &Ports,
    interface: &Interface,
) -> Vec<StoreOp> {
    let mut ops = vec![
        name(domid, &config.name),
        StoreOp::Perms(paths::home(domid), guest_reads(domid)),
    ];
    let mtu = config.vif.as_ref().and_then(|vif| vif.mtu);
    ops.extend(switched(domid, interface, mtu));
    ops.extend(self::front(domid, ports, None));
    ops.extend(introduce(domid, ports));
    ops.extend(finish(domid, &off_netback(config), ports));
    ops
}

/// A configuration without the keys of netback's interface.
pub(crate) fn off_netback(config: &GuestConfig) -> GuestConfig {
    GuestConfig {
        vif: None,
        ..config.clone()
    }
}

/// The directories of an interface of the switch. If the front end does the handshake itself, it is for the switch's
/// process for xenstore to say what it can do.
pub(crate) fn switched(domid: u16, interface: &Interface, mtu: Option<u32>) -> Vec<StoreOp> {
    let (front, back) = (paths::front(domid), paths::switched(domid));
    let is_connected = interface.connected.is_some();
    let state = if is_connected { "4" } else { "1" };
    let mac = paths::mac_text(&interface.mac);
    // The first key of each directory makes the directory. Keys made in it afterwards inherit its permissions.
    let mut ops = vec![write(format!("{front}/backend"), &back)];
    ops.push(StoreOp::Perms(front.clone(), guest_owns_for_dom0(domid)));
    if let Some(mtu) = mtu {
        ops.push(write(format!("{front}/mtu"), mtu.to_string()));
    }
    ops.push(write(format!("{front}/mac"), &mac));
    if !is_connected {
        ops.push(write(format!("{front}/backend-id"), "0"));
    }
    // The front end's first: without it, the other end would be closed.
    ops.push(write(format!("{front}/state"), state));
    ops.push(write(format!("{back}/frontend"), &front));
    ops.push(StoreOp::Perms(back.clone(), guest_reads(domid)));
    ops.push(write(format!("{back}/online"), "1"));
    if is_connected {
        // What a front end asks that is connected already. The rest is said in a handshake.
        for (key, value) in xenbus::keys::ASKED_LATER {
            ops.push(write(format!("{back}/{key}"), value));
        }
    } else {
        let domain = domid.to_string();
        for (key, value) in [("frontend-id", domain.as_str()), ("mac", &mac)] {
            ops.push(write(format!("{back}/{key}"), value));
        }
    }
    ops.push(write(format!("{back}/state"), state));
    // Last: the switch's process for xenstore looks at a guest when it has this key. Serialization fails only for maps
    // whose keys are not strings, and there are none.
    let text = serde_json::to_string(interface).unwrap_or_default();
    ops.push(write(xenbus::keys::interface(domid), text));
    ops
}

/// The claims of the name and the MAC address, all in one transaction.
pub(crate) fn claim(domid: u16, config: &GuestConfig) -> Vec<StoreOp> {
    let mut ops = entry(domid, &config.index());
    if config.watched.is_some() {
        ops.push(write(paths::watched_path(domid), config.record()));
    }
    ops
}

/// A guest's entries in the index.
pub(crate) fn entry(domid: u16, record: &IndexRecord) -> Vec<StoreOp> {
    let claims = record.claims(domid).into_iter();
    claims.map(|(path, value)| write(path, value)).collect()
}

/// Removes the keys that an earlier domain with this domid may have left, which the new one would inherit: among them a
/// `control/shutdown`, or a back end's directory that netback wrote to after it was removed. (`/vm/UUID` may belong to
/// a live guest with the same UUID.)
pub(crate) fn before(domid: u16) -> [StoreOp; 3] {
    [
        StoreOp::Rm(paths::backends(domid)),
        StoreOp::Rm(paths::home(domid)),
        StoreOp::Rm(paths::libxl(domid)),
    ]
}

/// The keys that are written as soon as there is a domain: its name, for other programs, and its network, so that
/// netback can begin.
pub(crate) fn birth(domid: u16, config: &GuestConfig, preconnected: bool) -> Vec<StoreOp> {
    let home = paths::home(domid);
    let mut ops = Vec::with_capacity(32);
    // Keys made in it afterwards inherit its permissions: the guest reads its name, as a guest of libxl does.
    ops.push(StoreOp::Mkdir(home.clone()));
    ops.push(StoreOp::Perms(home.clone(), guest_reads(domid)));
    ops.push(name(domid, &config.name));
    if let Some(vif) = &config.vif {
        network(&mut ops, domid, vif, preconnected);
    }
    ops
}

/// The key that makes the back end read the keys of [`front`]. The interface is up by then: the kernel reports the
/// carrier of such an interface at once, and that of another within a second.
pub(crate) fn connect(domid: u16) -> StoreOp {
    write(format!("{}/device/vif/0/state", paths::home(domid)), "4")
}

/// The requests after which the guest may speak to xenstored, which expects the guest's ring to be empty when it is
/// told of it. They are sent no earlier than needed, as xenconsoled begins to look at the guest then.
pub(crate) fn introduce(domid: u16, ports: &Ports) -> Vec<StoreOp> {
    let mut ops = owned(domid, "data");
    ops.push(StoreOp::Introduce {
        domid,
        gfn: XENSTORE_GFN,
        port: ports.xenstore,
    });
    ops
}

/// A directory that the guest owns.
fn owned(domid: u16, key: &str) -> Vec<StoreOp> {
    let path = format!("{}/{key}", paths::home(domid));
    vec![
        StoreOp::Mkdir(path.clone()),
        StoreOp::Perms(path, guest_owns(domid)),
    ]
}

/// The key that netback waits for before it reports that it is connected: that the interface is set up. The builder
/// checks that in another way, and no frame waits for it.
pub(crate) fn plug(domid: u16) -> StoreOp {
    write(
        format!("{}/hotplug-status", paths::backend(domid)),
        "connected",
    )
}

/// The keys that are written last, after a guest whose network is connected has started: those that it does not need
/// itself.
///
/// Each request costs xenstored some 40,000 instructions, so keys that nothing reads are left out. libxl makes these as
/// well: `cpu/0/availability`, `drivers`, `feature`, `attr`, `error`, and a node for each key that a guest may write
/// below `control`, which here the guest owns as a whole.
pub(crate) fn finish(domid: u16, config: &GuestConfig, ports: &Ports) -> Vec<StoreOp> {
    let home = paths::home(domid);
    let mut ops = Vec::with_capacity(32);
    if config.vif.is_some() {
        ops.push(plug(domid));
    }
    ops.extend(owned(domid, "control"));
    let memory = config.memory << 10;
    let vm = paths::vm(&paths::uuid(&config.uuid));
    for (key, value) in [
        ("vm", vm.clone()),
        ("domid", domid.to_string()),
        ("memory/static-max", memory.to_string()),
        ("memory/target", memory.to_string()),
        ("store/port", ports.xenstore.to_string()),
        ("store/ring-ref", XENSTORE_GFN.to_string()),
    ] {
        ops.push(write(format!("{home}/{key}"), value));
    }
    ops.push(StoreOp::Mkdir(vm.clone()));
    ops.push(StoreOp::Perms(vm.clone(), guest_reads(domid)));
    ops.push(write(format!("{vm}/uuid"), paths::uuid(&config.uuid)));
    ops.push(write(format!("{vm}/name"), config.name.clone()));
    ops.extend(cmdline(config));
    ops.push(write(format!("{}/type", paths::libxl(domid)), "pvh"));
    if let Some(vif) = &config.vif {
        // If the guest runs already, it was given the address in its memory.
        let mac = format!("{home}/device/vif/0/mac");
        ops.push(write(mac, paths::mac_text(&vif.mac)));
        // netback reads it when the front end closes: without it the interface would be removed for good.
        ops.push(write(format!("{}/online", paths::backend(domid)), "1"));
        // `xl destroy` reads it.
        ops.push(write(format!("{}/type", paths::backend(domid)), "vif"));
        libxl(&mut ops, domid, vif);
    }
    ops
}

/// The longest command line that is written to xenstore, in bytes: with its path it has to fit into a message.
const CMDLINE_MAX: usize = 3900;

/// The command line, which `hatch save` reads.
fn cmdline(config: &GuestConfig) -> Option<StoreOp> {
    let path = paths::cmdline(&paths::uuid(&config.uuid));
    let is_short = (1..=CMDLINE_MAX).contains(&config.cmdline.len());
    is_short.then(|| write(path, config.cmdline.clone()))
}

/// netback does not probe without a script. Only `xl destroy` runs it.
const SCRIPT: &str = "/bin/true";

/// The network interface.
///
/// Each change below the back end's directory costs the kernel a round trip to xenstored
/// (drivers/xen/xenbus/xenbus_probe.c of Linux 6.1, `xenbus_dev_changed`), so only the keys that netback reads are
/// there. `xl` shows those of libxl's copy.
fn network(ops: &mut Vec<StoreOp>, domid: u16, vif: &GuestVif, preconnected: bool) {
    let front = paths::front(domid);
    let back = paths::backend(domid);
    let mac = paths::mac_text(&vif.mac);
    // This makes the directory. Keys made in it afterwards inherit its permissions.
    ops.push(write(format!("{front}/backend"), back.clone()));
    ops.push(StoreOp::Perms(front.clone(), guest_owns_for_dom0(domid)));
    if let Some(mtu) = vif.mtu {
        ops.push(write(format!("{front}/mtu"), mtu.to_string()));
    }
    if !preconnected {
        ops.push(write(format!("{front}/backend-id"), "0"));
    }
    // Before there is a back end: netback gives up on a front end that has no state.
    ops.push(write(format!("{front}/state"), "1"));

    // As above; this directory stays dom0's.
    ops.push(write(format!("{back}/frontend"), front.clone()));
    ops.push(StoreOp::Perms(back.clone(), guest_reads(domid)));
    let domain = domid.to_string();
    for (key, value) in [
        ("frontend-id", domain.as_str()),
        ("script", SCRIPT),
        ("mac", &mac),
        ("handle", "0"),
    ] {
        ops.push(write(format!("{back}/{key}"), value));
    }
    if let Some(rate) = &vif.rate {
        ops.push(write(format!("{back}/rate"), rate.clone()));
    }
    // Last: until there is a state, the kernel does not take it for a device.
    ops.push(write(format!("{back}/state"), "1"));
}

/// libxl's copy of the network interface, which `xl` reads.
fn libxl(ops: &mut Vec<StoreOp>, domid: u16, vif: &GuestVif) {
    let libxl = paths::libxl_vif(domid);
    let mut copy = vec![
        ("backend", paths::backend(domid)),
        ("frontend", paths::front(domid)),
        ("mac", paths::mac_text(&vif.mac)),
        ("bridge", vif.bridge.clone()),
    ];
    copy.extend(vif.ip.clone().map(|ip| ("ip", ip)));
    copy.extend(vif.mtu.map(|mtu| ("mtu", mtu.to_string())));
    for (key, value) in copy {
        ops.push(write(format!("{libxl}/{key}"), value));
    }
}

/// The keys that are written when pages, grants and event channels exist.
pub(crate) fn front(domid: u16, ports: &Ports, grants: Option<&Grants>) -> Vec<StoreOp> {
    let home = paths::home(domid);
    let mut ops = Vec::new();
    if let Some((tx, rx)) = ports.network
        && let Some(grants) = grants
    {
        let front = paths::front(domid);
        for (key, value) in [
            ("tx-ring-ref", grants.tx_ring),
            ("rx-ring-ref", grants.rx_ring),
            ("event-channel-tx", tx),
            ("event-channel-rx", rx),
            ("request-rx-copy", 1),
            ("feature-rx-notify", 1),
        ] {
            ops.push(write(format!("{front}/{key}"), value.to_string()));
        }
    }
    if let Some(port) = ports.console {
        let [ring_ref, port] = [CONSOLE_GFN.to_string(), port.to_string()];
        for (key, value) in [
            ("ring-ref", ring_ref.as_str()),
            ("port", &port),
            ("limit", "1048576"),
            ("type", "xenconsoled"),
            ("output", "pty"),
            ("tty", ""),
        ] {
            ops.push(write(format!("{home}/console/{key}"), value));
        }
    }
    ops
}

/// The node in which the guest offers its suspend event channel (xenstore-paths.pandoc,
/// `~/device/suspend/event-channel`).
pub(crate) fn suspend_channel(domid: u16) -> Vec<StoreOp> {
    let path = paths::suspend_channel(domid);
    vec![
        write(path.clone(), ""),
        StoreOp::Perms(path, guest_owns(domid)),
    ]
}

/// The addresses that a restored guest uses from now on. mayfly reads them before it asks for its network.
pub(crate) fn addresses(domid: u16, words: &str) -> StoreOp {
    write(paths::addresses(domid), words)
}

/// The removal of the mark: the guest is complete, and not a remainder.
pub(crate) fn made(config: &GuestConfig) -> StoreOp {
    StoreOp::Rm(paths::making_path(&config.uuid))
}

/// A guest's event channels from dom0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) xenstore: u32,
    pub(crate) console: Option<u32>,
    /// The ports of the transmit ring and of the receive ring.
    pub(crate) network: Option<(u32, u32)>,
}

/// The removal of all keys of a domain, its back end's first, because that takes the longest.
pub(crate) fn death(domid: u16, uuid: Option<&str>) -> Vec<StoreOp> {
    let mut ops = before(domid).to_vec();
    ops.extend(uuid.map(|uuid| StoreOp::Rm(paths::vm(uuid))));
    ops
}

/// The key of a guest's name, for other programs.
pub(crate) fn name(domid: u16, name: &str) -> StoreOp {
    write(paths::domain_name(domid), name)
}

/// The remaining keys that turn a shell with this configuration into the guest of `config`. The guest does not need
/// them.
pub(crate) fn rename(domid: u16, shell: &GuestConfig, config: &GuestConfig) -> Vec<StoreOp> {
    let mut ops = vec![
        StoreOp::Rm(paths::name_path(&shell.name)),
        write(
            format!("{}/name", paths::vm(&paths::uuid(&config.uuid))),
            config.name.clone(),
        ),
    ];
    ops.extend(cmdline(config));
    if let (Some(old), Some(vif)) = (&shell.vif, &config.vif) {
        let (mac, libxl) = (paths::mac_text(&vif.mac), paths::libxl_vif(domid));
        ops.push(StoreOp::Rm(paths::mac_path(&old.mac)));
        for folder in [&paths::front(domid), &paths::backend(domid), &libxl] {
            ops.push(write(format!("{folder}/mac"), mac.clone()));
        }
        for (key, old, new) in [
            ("bridge", Some(&old.bridge), Some(&vif.bridge)),
            ("ip", old.ip.as_ref(), vif.ip.as_ref()),
        ] {
            if let Some(new) = new.filter(|_| old != new) {
                ops.push(write(format!("{libxl}/{key}"), new.clone()));
            }
        }
    }
    ops.push(made(config));
    ops
}

/// The keys that netback leaves behind when its directory is removed while it works on it: it then writes to the
/// removed paths, and an error.
pub(crate) fn remains(domid: u16) -> Vec<StoreOp> {
    let error = format!("/local/domain/0/error/backend/vif/{domid}");
    vec![StoreOp::Rm(paths::backends(domid)), StoreOp::Rm(error)]
}

#[cfg(test)]
mod tests;
