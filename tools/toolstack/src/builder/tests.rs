//! Creation and removal in a simulated dom0: nothing stays after a failure.

use std::fs;

use mayfly_xenstore::ErrorCode;
use mayfly_xenstore::memory::Nodes;
use tempfile::TempDir;

use super::*;
use crate::fake::FakeHost;
use crate::fake::elf::Elf;
use crate::paths;

pub(crate) fn config(name: &str, last: u8) -> GuestConfig {
    GuestConfig {
        name: name.to_owned(),
        uuid: [last; 16],
        memory: 8,
        cmdline: "ip=192.0.2.1/24".to_owned(),
        vif: Some(GuestVif {
            mac: [0x00, 0x16, 0x3e, 0, 0, last],
            bridge: "xenbr0".to_owned(),
            ip: None,
            rate: None,
            mtu: None,
        }),
        connect: Connect::Auto,
        console: true,
        tsc: mayfly_xen::TscMode::Native,
        network: Network::Netback,
        watched: None,
    }
}

pub(crate) fn image() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, Elf::new().bytes).unwrap();
    (folder, path)
}

/// Removes the folders, which are made with the first guest and stay.
pub(crate) fn without_folders(mut nodes: Nodes) -> Nodes {
    nodes.retain(|_, value| !value.is_empty());
    nodes
}

struct Bed {
    host: FakeHost,
    image: Image,
    _folder: TempDir,
    before: Nodes,
}

impl Bed {
    fn new() -> Self {
        let host = FakeHost::new();
        let (folder, path) = image();
        let before = without_folders(host.store.nodes());
        Self {
            host,
            image: Image::open(&path).unwrap(),
            _folder: folder,
            before,
        }
    }

    fn create(&self) -> Result<Created, CreateError> {
        let mut toolstack = self.host.toolstack().unwrap();
        toolstack.create(&config("web", 1), &self.image, None, CreateAs::Running)
    }

    fn is_as_before(&self, after: &str) {
        assert!(self.host.xen.domids().is_empty(), "after {after}");
        let nodes = without_folders(self.host.store.nodes());
        assert_eq!(nodes, self.before, "after {after}");
    }
}

#[test]
fn a_guest_is_on_the_network_before_it_runs() {
    let bed = Bed::new();
    let mut toolstack = bed.host.toolstack().unwrap();
    let mut seen = None;
    let created = toolstack
        .create_for(
            &config("web", 1),
            &bed.image,
            None,
            CreateAs::Running,
            &mut |soon| {
                let (vif, bridge) = soon.port.unwrap();
                let state = format!("/local/domain/0/backend/vif/{}/0/state", soon.domid);
                seen = Some((
                    vif.name.clone(),
                    bridge.name.clone(),
                    bed.host.store.get(&state),
                ));
                Ok(())
            },
        )
        .unwrap();
    let domid = created.domid;
    assert!(created.preconnected);
    let vif = format!("vif{domid}.0");
    assert_eq!(
        seen,
        Some((vif.clone(), "xenbr0".to_owned(), Some("4".to_owned())))
    );
    let (store, xen) = (&bed.host.store, &bed.host.xen);
    let entry = format!("{domid} {}", paths::uuid(&[1; 16]));
    assert_eq!(store.get("/hatch/name/web"), Some(entry));
    let home = format!("/local/domain/{domid}");
    assert_eq!(store.get(&format!("{home}/name")).as_deref(), Some("web"));
    assert_eq!(store.introduced(), [domid]);
    assert_eq!(store.get(&paths::making_path(&[1; 16])), None, "it is made");
    assert_eq!(bed.host.links.bridge_of(&vif).as_deref(), Some("xenbr0"));
    let guest = xen.guest(domid).unwrap();
    let all: Vec<u8> = guest.memory.into_values().flatten().collect();
    let has = |wanted: &[u8]| all.windows(wanted.len()).any(|bytes| bytes == wanted);
    assert!(has(b"ip=192.0.2.1/24\0"));
    assert!(!guest.grants.is_empty());
    let asked = xen.asked();
    let at = |call| asked.iter().position(|asked| *asked == call).unwrap();
    assert!(at("create") < at("populate") && at("pvh_context") < at("unpause"));
}

#[test]
fn whatever_xen_refuses_nothing_is_left() {
    const EIO: i32 = 5;
    let calls = [
        "create",
        "max_vcpus",
        "max_mem",
        "tsc_mode",
        "param",
        "populate",
        "memory_map",
        "event_channel",
        "map",
        "map_grants",
        "pvh_context",
        "unpause",
    ];
    let bed = Bed::new();
    for call in calls {
        bed.host.xen.refuses(call, EIO);
        let error = bed.create().unwrap_err();
        assert!(error.left.is_empty(), "{call}: {error}");
        assert!(
            matches!(error.failure.cause, ToolstackError::Xen(_)),
            "{call}"
        );
        bed.is_as_before(call);
    }
    bed.host.xen.refuses("", 0);
    bed.create().unwrap();
}

#[test]
fn whatever_the_kernel_refuses_nothing_is_left() {
    let bed = Bed::new();
    for call in ["bridge", "appeared", "attach", "pass"] {
        bed.host.links.refuses(call);
        let error = bed.create().unwrap_err();
        assert!(error.left.is_empty(), "{call}: {error}");
        bed.is_as_before(call);
    }
    // If the kernel does not report it, netback's own state is waited for.
    bed.host.links.refuses("connected");
    bed.create().unwrap();
}

#[test]
fn a_kernel_that_knows_nothing_of_xenstored_is_named() {
    let bed = Bed::new();
    bed.host.store.remove("/local/domain/0/control");
    bed.host.links.refuses("appeared");
    let error = bed.create().unwrap_err();
    assert!(
        matches!(error.failure.cause, ToolstackError::KernelLost),
        "{error}"
    );
}

#[test]
fn whatever_xenstored_refuses_nothing_is_left() {
    let bed = Bed::new();
    bed.create().unwrap();
    let mut toolstack = bed.host.toolstack().unwrap();
    let first = bed.host.xen.domids()[0];
    toolstack.destroy(first, false).unwrap();
    // The next guest sends the same requests with another domid.
    let asked: std::collections::BTreeSet<String> = bed
        .host
        .store
        .asked()
        .into_iter()
        .filter(|asked| asked.starts_with("Write /") && !asked.contains("/hotplug-status"))
        .collect();
    assert!(asked.len() > 20);
    for request in asked {
        let next = Bed::new();
        next.host.store.refuses(&request, ErrorCode::ENOSPC);
        let error = next.create().unwrap_err();
        assert!(error.left.is_empty(), "{request}: {error}");
        next.is_as_before(&request);
    }
}

#[test]
fn a_xenstored_that_ends_at_any_request_leaves_a_guest_or_nothing() {
    let mut made = 0;
    for requests in 1.. {
        let bed = Bed::new();
        bed.host.store.ends_after(requests, false);
        match bed.create() {
            Ok(created) => {
                made += 1;
                let mut toolstack = bed.host.toolstack().unwrap();
                bed.host.store.ends_after(usize::MAX, false);
                let _ = toolstack.store().reconnect();
                toolstack.destroy(created.domid, false).unwrap();
                if made > 1 {
                    break;
                }
            }
            Err(error) => assert!(error.left.is_empty(), "{requests}: {error}"),
        }
        bed.is_as_before(&format!("{requests} requests"));
    }
}

#[test]
fn a_name_is_one_guests() {
    let bed = Bed::new();
    bed.create().unwrap();
    let mut toolstack = bed.host.toolstack().unwrap();
    let other = config("web", 2);
    let error = toolstack
        .create(&other, &bed.image, None, CreateAs::Running)
        .unwrap_err();
    assert!(matches!(
        error.failure.cause,
        ToolstackError::Taken(Taken::Name(..))
    ));
    let other = GuestConfig {
        vif: config("web", 1).vif,
        ..config("other", 3)
    };
    let error = toolstack
        .create(&other, &bed.image, None, CreateAs::Running)
        .unwrap_err();
    assert!(matches!(
        error.failure.cause,
        ToolstackError::Taken(Taken::Mac(..))
    ));
    // A guest that `xl` made is not in the index.
    bed.host.xen.add(77, [7; 16]);
    bed.host.store.set("/local/domain/77/name", "theirs");
    let error = toolstack
        .create(&config("theirs", 4), &bed.image, None, CreateAs::Running)
        .unwrap_err();
    assert!(matches!(
        error.failure.cause,
        ToolstackError::Taken(Taken::Name(..))
    ));
    assert_eq!(bed.host.xen.domids().len(), 2);
}

#[test]
fn what_is_removed_is_gone_and_what_is_not_ours_stays() {
    let bed = Bed::new();
    let domid = bed.create().unwrap().domid;
    bed.host.xen.add(77, [7; 16]);
    let mut toolstack = bed.host.toolstack().unwrap();
    assert!(matches!(
        toolstack.destroy(0, true),
        Err(DestroyError::Dom0)
    ));
    assert!(matches!(
        toolstack.destroy(77, false),
        Err(DestroyError::NotOurs(77))
    ));
    assert!(matches!(
        toolstack.destroy(99, false),
        Err(DestroyError::NoSuchDomain(99))
    ));
    let destroyed = toolstack.destroy(domid, false).unwrap();
    assert_eq!(destroyed.name.as_deref(), Some("web"));
    assert_eq!(bed.host.xen.domids(), [77]);
    toolstack.destroy(77, true).unwrap();
    bed.is_as_before("destroy");
}

/// A guest of another toolstack with devices that only its maker can end is not removed, not even with `--force`.
#[test]
fn force_does_not_remove_what_has_other_devices() {
    let devices = [
        ("/libxl/77/device/vbd", "vbd"),
        ("/libxl/77/device/9pfs", "9pfs"),
        ("/libxl/77/device/vtpm", "vtpm"),
        ("/libxl/77/dm-domid", "a device model"),
        ("/local/domain/77/image/device-model-pid", "a device model"),
    ];
    for (path, what) in devices {
        let bed = Bed::new();
        bed.host.xen.add(77, [7; 16]);
        bed.host.store.set("/libxl/77/device/vif/0", "x");
        bed.host.store.set("/libxl/77/device/console/0", "x");
        bed.host.store.set(path, "x");
        let before = bed.host.store.nodes();
        let mut toolstack = bed.host.toolstack().unwrap();
        let error = toolstack.destroy(77, true).unwrap_err();
        assert!(
            matches!(&error, DestroyError::Devices(77, devices) if devices == what),
            "{path}: {error}"
        );
        assert_eq!(bed.host.xen.domids(), [77], "{path}");
        assert!(!bed.host.xen.asked().contains(&"destroy"), "{path}");
        assert_eq!(bed.host.store.nodes(), before, "{path}");
        // Without that device only interfaces and a console are left, which `--force` removes.
        bed.host.store.remove(path);
        toolstack.destroy(77, true).unwrap();
        assert!(bed.host.xen.domids().is_empty(), "{path}");
    }
}

#[test]
fn what_an_older_hatch_claimed_is_free_when_its_domain_is_gone() {
    let bed = Bed::new();
    bed.host.xen.add(77, [7; 16]);
    bed.host.store.set("/hatch/name/web", "77");
    let error = bed.create().unwrap_err();
    assert!(matches!(
        error.failure.cause,
        ToolstackError::Taken(Taken::Name(..))
    ));
    let mut toolstack = bed.host.toolstack().unwrap();
    toolstack.destroy(77, true).unwrap();
    let domid = bed.create().unwrap().domid;
    let entry = bed.host.store.get("/hatch/name/web").unwrap();
    assert!(entry.starts_with(&format!("{domid} ")), "{entry}");
}

#[test]
fn a_shell_becomes_who_it_is_told_to_be() {
    let bed = Bed::new();
    let mut toolstack = bed.host.toolstack().unwrap();
    let shell = toolstack.shell(&config("template", 9), &bed.image).unwrap();
    let domid = shell.domid();
    let vif = format!("vif{domid}.0");
    let (store, links) = (&bed.host.store, &bed.host.links);
    assert!(!links.floods(&vif), "it gets nothing that is for everybody");
    assert_eq!(store.get("/hatch/name/template"), None);
    let created = toolstack
        .give(shell, &config("web", 1), None, true)
        .unwrap();
    assert_eq!(created.domid, domid);
    assert!(links.floods(&vif));
    let entry = format!("{domid} {}", paths::uuid(&created.uuid));
    assert_eq!(store.get("/hatch/name/web"), Some(entry));
    let mac = format!("/local/domain/{domid}/device/vif/0/mac");
    assert_eq!(store.get(&mac).as_deref(), Some("00:16:3e:00:00:01"));
    toolstack.destroy(domid, false).unwrap();
    bed.is_as_before("a guest out of a shell");
}

#[test]
fn an_entry_that_is_left_leads_to_nobody_elses_domain() {
    let bed = Bed::new();
    let mut toolstack = bed.host.toolstack().unwrap();
    let domid = bed.create().unwrap().domid;
    // Removed without hatch, and Xen has given the domid to another domain.
    bed.host.xen.add(domid, [8; 16]);
    assert_eq!(toolstack.domid("web").unwrap(), None);
    let refused = toolstack.destroy(domid, false);
    assert!(
        matches!(refused, Err(DestroyError::NotOurs(_))),
        "{refused:?}"
    );
    let (store, xen) = toolstack.ways();
    let Some(index::Named::Remainder(entry)) = index::named(store, xen, "web").unwrap() else {
        panic!("whose is it?");
    };
    toolstack.destroy_entry(&entry).unwrap();
    assert_eq!(
        bed.host.xen.domids(),
        [domid],
        "it was destroyed by a stale name"
    );
    for path in ["/hatch/name/web".to_owned(), paths::domain_path(domid)] {
        assert_eq!(bed.host.store.get(&path), None, "{path}");
    }
    // A domain that is gone is not found.
    let again = toolstack.destroy_known(domid, &[1; 16]);
    assert!(
        matches!(again, Err(DestroyError::NoSuchDomain(_))),
        "{again:?}"
    );
}

#[test]
fn a_stale_name_can_be_had_by_another() {
    let bed = Bed::new();
    let domid = bed.create().unwrap().domid;
    bed.host.xen.add(domid, [8; 16]);
    let mut toolstack = bed.host.toolstack().unwrap();
    let next = toolstack.create(&config("web", 1), &bed.image, None, CreateAs::Running);
    let next = next.unwrap().domid;
    assert_ne!(next, domid);
    assert_eq!(toolstack.domid("web").unwrap(), Some(next));
}

#[test]
fn a_guest_that_fails_on_its_way_out_of_a_pool_leaves_nothing() {
    let bed = Bed::new();
    let mut toolstack = bed.host.toolstack().unwrap();
    let shell = toolstack.shell(&config("template", 9), &bed.image).unwrap();
    // After its claim.
    bed.host.xen.refuses("unpause", 5);
    assert!(
        toolstack
            .give(shell, &config("web", 1), None, true)
            .is_err()
    );
    bed.is_as_before("a guest that could not be let run");
}
