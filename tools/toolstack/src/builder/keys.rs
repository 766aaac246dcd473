//! What xenstore holds of a guest: the keys, who may see them, and in which order they are written.
//!
//! They are those that libxl writes for a PVH guest (tools/libs/light of Xen 4.17: libxl_create.c `libxl__domain_make`,
//! libxl_dom.c `libxl__build_post`, libxl_nic.c, libxl_device.c `libxl__device_generic_add`), as far as a guest, a
//! back end or `xl` reads them, so that `xl` handles our guests as its own. hatch's own:
//!
//! | path | value |
//! |---|---|
//! | `/hatch/name/NAME` | domid and UUID; characters that a path can't have are `@` and two hexadecimal digits |
//! | `/hatch/mac/MAC` | domid and UUID; twelve hexadecimal digits |
//! | `/hatch/domain/DOMID` | UUID, MAC address and name: see [`super::index`] |
//! | `/hatch/domain/DOMID/watched` | the configuration as JSON, if `hatch watch` is to see to its end |
//! | `/hatch/restart/NAME` | the same, of a guest that has ended and is to be made again |
//! | `/hatch/making/UUID` | process and its start time (`/proc/PID/stat`), as long as that process makes the guest |
//!
//! The last one is written, and answered, before there is a domain, so that one of this UUID whose maker is gone is known
//! as a remainder.

use uuid::Uuid;

use mayfly_xenstore::{Access, Perm, Request};

use super::config::{Config, Vif};
use super::index::Record;
use super::layout::{CONSOLE_GFN, XENSTORE_GFN};
use super::rings::Grants;

/// A request, to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Write(String, String),
    Mkdir(String),
    Perms(String, Vec<Perm>),
    Rm(String),
    Introduce { domid: u16, gfn: u64, port: u32 },
    Release(u16),
}

impl Op {
    /// The request of the wire.
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

fn write(path: impl Into<String>, value: impl Into<String>) -> Op {
    Op::Write(path.into(), value.into())
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

/// The UUID as text.
#[must_use]
pub fn uuid(handle: &[u8; 16]) -> String {
    Uuid::from_bytes(*handle).to_string()
}

/// The MAC address with colons, as back ends and `xl` have it.
#[must_use]
pub fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// The MAC address as a part of a path.
fn mac_key(mac: &[u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).concat()
}

/// Where the index has a name.
#[must_use]
pub fn name_path(name: &str) -> String {
    format!("/hatch/name/{}", name_key(name))
}

/// Where a guest of this name is that is to be made again.
#[must_use]
pub fn restart_path(name: &str) -> String {
    format!("/hatch/restart/{}", name_key(name))
}

/// The name as a part of a path.
fn name_key(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for octet in name.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => key.push(char::from(octet)),
            _ => key += &format!("@{octet:02x}"),
        }
    }
    key
}

/// Where the index has a MAC address.
#[must_use]
pub fn mac_path(mac: &[u8; 6]) -> String {
    format!("/hatch/mac/{}", mac_key(mac))
}

/// Where the index has a domain.
#[must_use]
pub fn domain_path(domid: u16) -> String {
    format!("/hatch/domain/{domid}")
}

/// Where it says what `hatch watch` has to know of a domain: it goes with the index's entry.
#[must_use]
pub fn watched_path(domid: u16) -> String {
    format!("{}/watched", domain_path(domid))
}

/// Where it says that a domain of this UUID is being made.
#[must_use]
pub fn making_path(handle: &[u8; 16]) -> String {
    format!("/hatch/making/{}", uuid(handle))
}

/// The guest's home.
pub(crate) fn home(domid: u16) -> String {
    format!("/local/domain/{domid}")
}

/// The back end's directory for all vifs of a domain.
pub(crate) fn backends(domid: u16) -> String {
    format!("/local/domain/0/backend/vif/{domid}")
}

/// The back end's directory.
pub(crate) fn backend(domid: u16) -> String {
    format!("/local/domain/0/backend/vif/{domid}/0")
}

/// Where the switch is the back end: the kernel's xenbus does not look for devices there.
pub(crate) const SWITCHED: &str = "/local/domain/0/switch";

/// The directory of a back end that is the switch.
pub(crate) fn switched(domid: u16) -> String {
    format!("{SWITCHED}/{domid}")
}

/// Removes it.
pub(crate) fn unswitched(domid: u16) -> Op {
    Op::Rm(switched(domid))
}

/// What is written of a guest that the switch serves, all of it when the guest runs already: what it reads of its network, then what
/// xenconsoled looks at, and only then that it is introduced, because with that all of them begin to look.
pub(crate) fn switched_birth(domid: u16, config: &Config, ports: &Ports) -> Vec<Op> {
    let (front, back) = (format!("{}/device/vif/0", home(domid)), switched(domid));
    // The first of each makes a directory; what is made in it afterwards takes over its rights.
    let mut ops = vec![
        name(domid, &config.name),
        Op::Perms(home(domid), guest_reads(domid)),
        write(format!("{back}/state"), "4"),
        Op::Perms(back.clone(), guest_reads(domid)),
        write(format!("{front}/backend"), back.clone()),
        Op::Perms(
            front.clone(),
            vec![
                Perm {
                    access: Access::None,
                    domid,
                },
                Perm {
                    access: Access::Read,
                    domid: 0,
                },
            ],
        ),
        write(format!("{front}/state"), "4"),
    ];
    if let Some(vif) = &config.vif {
        let mac = mac_text(&vif.mac);
        for (key, value) in [
            ("feature-sg", "1"),
            ("feature-gso-tcpv4", "1"),
            ("feature-no-csum-offload", "0"),
            ("feature-ipv6-csum-offload", "1"),
            ("frontend", front.as_str()),
            ("online", "1"),
            ("mac", mac.as_str()),
        ] {
            ops.push(write(format!("{back}/{key}"), value));
        }
        if let Some(mtu) = vif.mtu {
            ops.push(write(format!("{front}/mtu"), mtu.to_string()));
        }
        ops.push(write(format!("{front}/mac"), mac));
    }
    ops.extend(self::front(domid, ports, None));
    ops.extend(introduce(domid, ports));
    let plain = Config {
        vif: None,
        ..config.clone()
    };
    ops.extend(finish(domid, &plain, ports));
    ops
}

/// What claims name and MAC address: all of one transaction.
pub(crate) fn claim(domid: u16, config: &Config) -> Vec<Op> {
    let mut ops = entry(domid, &config.index());
    if config.watched.is_some() {
        ops.push(write(watched_path(domid), config.record()));
    }
    ops
}

/// A guest's place in the index.
pub(crate) fn entry(domid: u16, record: &Record) -> Vec<Op> {
    let claims = record.claims(domid).into_iter();
    claims.map(|(path, value)| write(path, value)).collect()
}

/// What had this number before may have left keys, which would be this one's: a `control/shutdown` among them, or a back end's
/// directory that netback wrote into when it had gone. (`/vm/UUID` may be that of a guest of the same UUID which lives.)
pub(crate) fn before(domid: u16) -> [Op; 3] {
    [
        Op::Rm(backends(domid)),
        Op::Rm(home(domid)),
        Op::Rm(format!("/libxl/{domid}")),
    ]
}

/// What is written as soon as there is a domain: its name, for others to see, and its network, for netback to have something
/// to do.
pub(crate) fn birth(domid: u16, config: &Config, preconnected: bool) -> Vec<Op> {
    let home = home(domid);
    let mut ops = Vec::with_capacity(32);
    // What is made in it afterwards takes over its rights: the guest reads its name, as it reads that of libxl's guests.
    ops.push(Op::Mkdir(home.clone()));
    ops.push(Op::Perms(home.clone(), guest_reads(domid)));
    ops.push(name(domid, &config.name));
    if let Some(vif) = &config.vif {
        network(&mut ops, domid, vif, preconnected);
    }
    ops
}

/// What has the back end look at all that [`front`] writes. The interface is up by then: the kernel passes on at once
/// that such a one has its carrier, and that of another within a second.
pub(crate) fn connect(domid: u16) -> Op {
    write(format!("{}/device/vif/0/state", home(domid)), "4")
}

/// From here on the guest may speak to xenstored, which takes its ring for an empty one when it is told of it. Not earlier than needed, as
/// xenconsoled then begins to look at the guest.
pub(crate) fn introduce(domid: u16, ports: &Ports) -> Vec<Op> {
    let mut ops = owned(domid, "data");
    ops.push(Op::Introduce {
        domid,
        gfn: XENSTORE_GFN,
        port: ports.xenstore,
    });
    ops
}

/// A directory of the guest's own.
fn owned(domid: u16, key: &str) -> Vec<Op> {
    let path = format!("{}/{key}", home(domid));
    vec![Op::Mkdir(path.clone()), Op::Perms(path, guest_owns(domid))]
}

/// What netback waits for with saying that it is connected: that the interface is where it belongs. That is seen to otherwise, and no
/// frame waits for it.
pub(crate) fn plug(domid: u16) -> Op {
    write(format!("{}/hotplug-status", backend(domid)), "connected")
}

/// Where netback says how far it is.
pub(crate) fn state(domid: u16) -> String {
    format!("{}/state", backend(domid))
}

/// What is written last, when a guest whose network is connected runs already: all that it does not need itself.
///
/// Each request costs xenstored some 40,000 instructions, so there is none for what nobody reads. What libxl makes and is not
/// here: `cpu/0/availability`, `drivers`, `feature`, `attr`, `error`, and a
/// node for each thing that a guest may say below `control`, which is the guest's as a whole instead.
pub(crate) fn finish(domid: u16, config: &Config, ports: &Ports) -> Vec<Op> {
    let home = home(domid);
    let mut ops = Vec::with_capacity(32);
    if config.vif.is_some() {
        ops.push(plug(domid));
    }
    ops.extend(owned(domid, "control"));
    let memory = config.memory << 10;
    let vm = format!("/vm/{}", uuid(&config.uuid));
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
    ops.push(Op::Mkdir(vm.clone()));
    ops.push(Op::Perms(vm.clone(), guest_reads(domid)));
    ops.push(write(format!("{vm}/uuid"), uuid(&config.uuid)));
    ops.push(write(format!("{vm}/name"), config.name.clone()));
    ops.push(write(format!("/libxl/{domid}/type"), "pvh"));
    if let Some(vif) = &config.vif {
        // The guest was told in its memory, if it runs already.
        let mac = format!("{home}/device/vif/0/mac");
        ops.push(write(mac, mac_text(&vif.mac)));
        // netback looks at it when the front end closes: without it the interface would go for good.
        ops.push(write(format!("{}/online", backend(domid)), "1"));
        // `xl destroy` wants to know.
        ops.push(write(format!("{}/type", backend(domid)), "vif"));
        libxl(&mut ops, domid, vif);
    }
    ops
}

/// netback does not probe without a script, and nobody runs it but `xl destroy`, which then has something to run.
const SCRIPT: &str = "/bin/true";

/// The network interface.
///
/// Each change below the back end's directory costs the kernel a round trip to xenstored (drivers/xen/xenbus/xenbus_probe.c of
/// Linux 6.1, `xenbus_dev_changed`), so only what netback reads is there. What `xl` shows, it has from libxl's copy.
fn network(ops: &mut Vec<Op>, domid: u16, vif: &Vif, preconnected: bool) {
    let front = format!("{}/device/vif/0", home(domid));
    let back = backend(domid);
    let mac = mac_text(&vif.mac);
    // This makes the directory; what is made in it afterwards takes over its rights.
    ops.push(write(format!("{front}/backend"), back.clone()));
    ops.push(Op::Perms(
        front.clone(),
        vec![
            Perm {
                access: Access::None,
                domid,
            },
            Perm {
                access: Access::Read,
                domid: 0,
            },
        ],
    ));
    if let Some(mtu) = vif.mtu {
        ops.push(write(format!("{front}/mtu"), mtu.to_string()));
    }
    if !preconnected {
        ops.push(write(format!("{front}/backend-id"), "0"));
    }
    // Before there is a back end: netback gives a front end up that has no state.
    ops.push(write(format!("{front}/state"), "1"));

    // As above; this one remains dom0's.
    ops.push(write(format!("{back}/frontend"), front.clone()));
    ops.push(Op::Perms(back.clone(), guest_reads(domid)));
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
    // Last: until there is a state, the kernel takes it for no device.
    ops.push(write(format!("{back}/state"), "1"));
}

/// libxl's copy of the network interface, which `xl` reads.
fn libxl(ops: &mut Vec<Op>, domid: u16, vif: &Vif) {
    let libxl = format!("/libxl/{domid}/device/vif/0");
    let mut copy = vec![
        ("backend", backend(domid)),
        ("frontend", format!("{}/device/vif/0", home(domid))),
        ("mac", mac_text(&vif.mac)),
        ("bridge", vif.bridge.clone()),
    ];
    copy.extend(vif.ip.clone().map(|ip| ("ip", ip)));
    copy.extend(vif.mtu.map(|mtu| ("mtu", mtu.to_string())));
    for (key, value) in copy {
        ops.push(write(format!("{libxl}/{key}"), value));
    }
}

/// What is written when pages, grants and event channels are there.
pub(crate) fn front(domid: u16, ports: &Ports, grants: Option<&Grants>) -> Vec<Op> {
    let home = home(domid);
    let mut ops = Vec::new();
    if let Some((tx, rx)) = ports.network
        && let Some(grants) = grants
    {
        let front = format!("{home}/device/vif/0");
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

/// What says that a guest is made: nobody's remainder.
pub(crate) fn made(config: &Config) -> Op {
    Op::Rm(making_path(&config.uuid))
}

/// A guest's event channels from dom0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) xenstore: u32,
    pub(crate) console: Option<u32>,
    /// Of the transmit and of the receive ring.
    pub(crate) network: Option<(u32, u32)>,
}

/// What removes all of a domain, its back end first, because that takes the longest.
pub(crate) fn death(domid: u16, uuid: Option<&str>) -> Vec<Op> {
    let mut ops = before(domid).to_vec();
    ops.extend(uuid.map(|uuid| Op::Rm(format!("/vm/{uuid}"))));
    ops
}

/// A guest's name, for others to see.
pub(crate) fn name(domid: u16, name: &str) -> Op {
    write(format!("{}/name", home(domid)), name)
}

/// What else makes a shell, of these names, the guest that `config` says. The guest does not need it.
pub(crate) fn rename(domid: u16, shell: &Config, config: &Config) -> Vec<Op> {
    let mut ops = vec![
        Op::Rm(name_path(&shell.name)),
        write(
            format!("/vm/{}/name", uuid(&config.uuid)),
            config.name.clone(),
        ),
    ];
    if let (Some(old), Some(vif)) = (&shell.vif, &config.vif) {
        let (mac, libxl) = (mac_text(&vif.mac), format!("/libxl/{domid}/device/vif/0"));
        ops.push(Op::Rm(mac_path(&old.mac)));
        for folder in [
            &format!("{}/device/vif/0", home(domid)),
            &backend(domid),
            &libxl,
        ] {
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

/// What netback leaves behind when its directory goes while it works on it: it then writes into what is not there any more,
/// and an error besides.
pub(crate) fn remains(domid: u16) -> Vec<Op> {
    let error = format!("/local/domain/0/error/backend/vif/{domid}");
    vec![Op::Rm(backends(domid)), Op::Rm(error)]
}

/// Reads a MAC address, with colons or without.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let octets: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |all, digit| all << 4 | digit))
        .collect();
    (digits.len() == 12).then(|| octets.try_into().ok())?
}

#[cfg(test)]
mod tests;
