//! Guests that are saved and restored in a simulated dom0: a failure at any call leaves the guest running, or nothing.

mod switched;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use mayfly_savefile::{HvmParam, PageBatch, SavedConfig, SavefileWriter};
use mayfly_xen::PAGE_SIZE;
use mayfly_xenstore::memory::Nodes;
use tempfile::TempDir;

use super::*;
use crate::builder::tests::{config, image, without_folders};
use crate::builder::{
    CreateAs, CreateError, Created, EndAction, EndActions, GuestConfig, GuestVif, Image, Network,
    Toolstack, Watched,
};
use crate::fake::{FakeGuest, FakeHost};
use crate::paths;

/// ENOMEM and EINVAL.
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;

/// A dom0 with a guest, `web`, that can suspend.
struct Bed {
    host: FakeHost,
    toolstack: Toolstack,
    folder: TempDir,
    /// xenstore without the guest.
    before: Nodes,
    domid: u16,
}

impl Bed {
    fn new() -> Self {
        let host = FakeHost::new();
        let mut toolstack = host.toolstack().unwrap();
        let before = without_folders(host.store.nodes());
        let (_folder, path) = image();
        let image = Image::open(&path).unwrap();
        let created = toolstack
            .create(&config("web", 1), &image, None, CreateAs::Running)
            .unwrap();
        let domid = created.domid;
        // Something in the middle of the RAM, and in its last page.
        for gfn in [700, 2047] {
            let page = crate::host::Xen::map(&host.xen, domid, &[gfn]).unwrap();
            page.write(8, &gfn.to_le_bytes()).unwrap();
        }
        crate::lifecycle::Suspended::set_context(&mut host.xen.clone(), domid, &[7; 99]).unwrap();
        Self {
            host,
            toolstack,
            folder: tempfile::tempdir().unwrap(),
            before,
            domid,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("saved")
    }

    fn guest(&self) -> FakeGuest {
        self.host.xen.guest(self.domid).unwrap()
    }

    fn save(&mut self, after: AfterSave) -> Result<(), CreateError> {
        // It is asked for three times: whether it runs, for its UUID, and when it was asked to suspend.
        self.host.xen.suspends_after(self.domid, 3);
        let target = SaveTarget::create(&self.path()).unwrap();
        self.toolstack.save(self.domid, target, after).map(drop)
    }

    fn restore(&mut self) -> Result<Created, CreateError> {
        let file = fs::File::open(self.path()).unwrap();
        let saved = SavedGuest::open(file).unwrap();
        self.toolstack.restore_from(saved, CreateAs::Running)
    }

    fn is_empty(&self, after: &str) {
        assert!(self.host.xen.domids().is_empty(), "after {after}");
        let nodes = without_folders(self.host.store.nodes());
        assert_eq!(nodes, self.before, "after {after}");
    }
}

/// The pages with something in them, apart from the rings, which begin anew.
fn content(guest: &FakeGuest) -> Vec<(u64, Vec<u8>)> {
    let pages = guest.memory.iter().filter(|(gfn, content)| {
        !matches!(gfn, 0xf_effc | 0xf_efff) && content.iter().any(|byte| *byte != 0)
    });
    pages
        .map(|(gfn, content)| (*gfn, content.clone()))
        .collect()
}

#[test]
fn a_guest_is_restored_as_it_was_saved() {
    let mut bed = Bed::new();
    let before = bed.guest();
    bed.save(AfterSave::Removed).unwrap();
    bed.is_empty("the save");
    // The file has the pages that are not zero, and a few KiB of others' numbers.
    let length = usize::try_from(fs::metadata(bed.path()).unwrap().len()).unwrap();
    let filled = content(&before).len();
    let rest = length - filled * PAGE_SIZE;
    assert!((2048 * 8..2048 * 8 + 8192).contains(&rest), "{length}");
    let created = bed.restore().unwrap();
    assert_ne!(created.domid, bed.domid);
    bed.domid = created.domid;
    let after = bed.guest();
    assert_eq!(content(&after), content(&before));
    assert_eq!(after.populated, before.populated);
    assert_eq!(
        (after.context, after.params),
        (before.context, before.params)
    );
    assert_eq!(after.tsc.map(|tsc| tsc.nsec), Some(7));
    assert_eq!(bed.host.domid("web"), Some(created.domid));
    let vif = format!("vif{}.0", created.domid);
    assert_eq!(bed.host.links.bridge_of(&vif).as_deref(), Some("xenbr0"));
    // The RAM in four superpages, the special pages one by one.
    let asked = bed.host.xen.asked();
    let start = asked.iter().rposition(|call| *call == "create").unwrap();
    let calls = asked.iter().skip(start);
    let populated = calls.filter(|call| **call == "populate").count();
    assert!(populated <= 8, "{populated} calls for memory");
}

#[test]
fn a_guest_goes_on_if_it_shall() {
    for (after, is_paused) in [(AfterSave::Runs, false), (AfterSave::Paused, true)] {
        let mut bed = Bed::new();
        bed.save(after).unwrap();
        assert!(bed.guest().resumed);
        assert_eq!(bed.host.domid("web"), Some(bed.domid));
        let info = crate::host::Xen::info(&mut bed.host.xen, bed.domid).unwrap();
        assert_eq!(info.map(|info| info.is_paused()), Some(is_paused));
        let mode = fs::metadata(bed.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others cannot read the guest's memory");
        // It is still there, and so is its name.
        let error = bed.restore().unwrap_err().to_string();
        assert!(error.contains("\"web\" is taken"), "{error}");
        assert_eq!(bed.host.xen.domids(), [bed.domid]);
    }
}

#[test]
fn a_guest_goes_on_if_it_cannot_be_saved() {
    for call in [
        "cpu_policy",
        "own_pages",
        "map",
        "tsc_info",
        "context",
        "get_param",
    ] {
        let mut bed = Bed::new();
        bed.host.xen.refuses(call, EINVAL);
        let error = bed.save(AfterSave::Removed).unwrap_err();
        assert!(error.left.is_empty(), "{call}: {error}");
        bed.host.xen.refuses("", 0);
        assert!(bed.guest().resumed, "{call}");
        assert_eq!(bed.host.domid("web"), Some(bed.domid), "{call}");
        let files = fs::read_dir(bed.folder.path()).unwrap().count();
        assert_eq!(files, 0, "{call} leaves half a file");
    }
}

#[test]
fn a_suspend_event_channel_is_used() {
    let mut bed = Bed::new();
    bed.host.store.set(&paths::suspend_channel(bed.domid), "9");
    let target = SaveTarget::create(&bed.path()).unwrap();
    bed.toolstack
        .save(bed.domid, target, AfterSave::Runs)
        .unwrap();
    assert_eq!(bed.host.store.get(&paths::shutdown(bed.domid)), None);
    assert!(bed.guest().resumed);
    // Where it cannot be bound, the guest is asked by xenstore.
    bed.host.xen.refuses("suspend_signal", EINVAL);
    bed.save(AfterSave::Runs).unwrap();
    let asked = bed.host.store.get(&paths::shutdown(bed.domid));
    assert_eq!(asked.as_deref(), Some("suspend"));
}

/// A toolstack that was killed has left it suspended.
#[test]
fn a_suspended_guest_is_saved() {
    let mut bed = Bed::new();
    bed.host.xen.ends(bed.domid, 2);
    let target = SaveTarget::create(&bed.path()).unwrap();
    bed.toolstack
        .save(bed.domid, target, AfterSave::Runs)
        .unwrap();
    assert_eq!(bed.host.store.get(&paths::shutdown(bed.domid)), None);
    assert!(bed.guest().resumed && bed.path().exists());
}

/// What cannot be undone is said.
#[test]
fn a_guest_that_stays_suspended_is_named() {
    let mut bed = Bed::new();
    bed.host.xen.refuses("resume", EINVAL);
    let error = bed.save(AfterSave::Runs).unwrap_err().to_string();
    assert!(error.contains("`remove`"), "{error}");
}

#[test]
fn a_guest_that_does_not_suspend_is_left_alone() {
    let mut bed = Bed::new();
    let target = SaveTarget::create(&bed.path()).unwrap();
    let error = bed
        .toolstack
        .save(bed.domid, target, AfterSave::Removed)
        .map(drop);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("takes no notice"), "{error}");
    let asked = bed.host.store.get(&paths::shutdown(bed.domid));
    assert_eq!(asked.as_deref(), Some(""), "it must not find it later");
    assert!(!bed.path().exists());
    assert_eq!(bed.host.domid("web"), Some(bed.domid));

    bed.host.xen.ends(bed.domid, 3);
    let target = SaveTarget::create(&bed.path()).unwrap();
    let error = bed
        .toolstack
        .save(bed.domid, target, AfterSave::Removed)
        .map(drop);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("has ended (crashed)"), "{error}");
}

#[test]
fn a_restoration_that_fails_leaves_nothing() {
    for call in [
        "create",
        "max_vcpus",
        "max_mem",
        "set_cpu_policy",
        "populate",
        "map",
        "event_channel",
        "param",
        "map_grants",
        "set_tsc_info",
        "set_context",
        "unpause",
    ] {
        let mut bed = Bed::new();
        bed.save(AfterSave::Removed).unwrap();
        bed.host.xen.refuses(call, ENOMEM);
        let error = bed.restore().unwrap_err();
        assert!(error.left.is_empty(), "{call}: {error}");
        bed.is_empty(call);
        bed.host.xen.refuses("", 0);
        bed.restore().unwrap();
    }
    for call in ["bridge", "appeared", "attach"] {
        let mut bed = Bed::new();
        bed.save(AfterSave::Removed).unwrap();
        bed.host.links.refuses(call);
        assert!(bed.restore().is_err(), "{call}");
        bed.is_empty(call);
    }
}

/// A file with these pages and parameters.
fn file(pages: &[u64], params: &[(u64, u64)]) -> Vec<u8> {
    let description = GuestDescription::of(config("web", 1));
    let config = SavedConfig::Json(description.json());
    let mut writer = SavefileWriter::begin(Vec::new(), &config, (4, 17)).unwrap();
    writer.static_data_end().unwrap();
    let mut batch = PageBatch::default();
    for gfn in pages {
        batch.zeros(*gfn);
    }
    writer.pages(&mut batch).unwrap();
    writer.context(&[1]).unwrap();
    let params: Vec<_> = params
        .iter()
        .map(|(index, value)| HvmParam {
            index: *index,
            value: *value,
        })
        .collect();
    writer.params(&params).unwrap();
    writer.finish().unwrap()
}

#[test]
fn what_a_file_says_is_checked_before_the_guest_runs() {
    const STORE: u64 = 0xf_effc;
    let many: Vec<u64> = (0..2048 + 257).collect();
    for (pages, params, expected) in [
        (&[0, STORE][..], &[(1, STORE)][..], ""),
        (&[0], &[(1, STORE)], "no page for xenstore"),
        (&[0, STORE], &[], "no page for xenstore"),
        (
            &[0, STORE],
            &[(1, STORE), (17, 0xf_efff)],
            "no page for xenstore",
        ),
        (
            &[0, STORE],
            &[(1, 0)],
            "a ring at gfn 0x0, and not at 0xfeffc",
        ),
        (&[0, STORE], &[(1, STORE), (17, 5)], "a ring at gfn 0x5"),
        (
            &[0, STORE],
            &[(1, STORE), (18, 5)],
            "the unknown parameter 18",
        ),
        (
            &[0, STORE],
            &[(1, STORE), (1 << 40, 5)],
            "unknown parameter",
        ),
        (&many, &[(1, STORE)], "more than the 2304 pages"),
    ] {
        let host = FakeHost::new();
        let before = without_folders(host.store.nodes());
        let file = file(pages, params);
        let saved = SavedGuest::open(&file[..]).unwrap();
        let restored = host
            .toolstack()
            .unwrap()
            .restore_from(saved, CreateAs::Paused);
        if expected.is_empty() {
            assert!(restored.is_ok(), "{restored:?}");
            continue;
        }
        let error = restored.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(host.xen.domids().is_empty(), "{expected}");
        assert_eq!(without_folders(host.store.nodes()), before, "{expected}");
    }
}

#[test]
fn a_file_has_its_name_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let names = || fs::read_dir(folder.path()).unwrap().count();
    let mut target = SaveTarget::create(&path).unwrap();
    target.write_all(b"half").unwrap();
    assert!(!path.exists());
    drop(target);
    assert_eq!(names(), 0);
    fs::write(&path, "an older one").unwrap();
    let mut target = SaveTarget::create(&path).unwrap();
    target.write_all(b"whole").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"an older one");
    target.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    assert_eq!(names(), 1);
    assert!(SaveTarget::create(&folder.path().join("nowhere/saved")).is_err());
    assert!(SaveTarget::create(&folder.path().join("..")).is_err());
}

fn described() -> GuestDescription {
    let config = GuestConfig {
        vif: Some(GuestVif {
            mac: [0, 0x16, 0x3e, 1, 2, 3],
            bridge: "br1".to_owned(),
            ip: Some("192.0.2.1".to_owned()),
            rate: Some("62500,50000".to_owned()),
            mtu: Some(9000),
        }),
        watched: Some(Watched {
            actions: EndActions {
                on_crash: EndAction::Preserve,
                ..EndActions::default()
            },
            kernel: "/guest/mayfly".into(),
            ramdisk: Some("/guest/site".into()),
        }),
        console: false,
        tsc: mayfly_xen::TscMode::Default,
        ..config("web", 1)
    };
    GuestDescription {
        config,
        grant_frames: 9,
        is_readdressed: false,
    }
}

#[test]
fn copies_have_names_and_addresses_of_their_own() {
    let mut described = described();
    described.config.cmdline =
        "ip=192.0.2.9/29 gw=192.0.2.14 ip=fd00::7/64 ip=auto quiet".to_owned();
    let copy = described.copy(2, 2).unwrap();
    let vif = copy.config.vif.as_ref().unwrap();
    assert_eq!((copy.config.name.as_str(), vif.mac[5]), ("web-2", 4));
    let words = "ip=192.0.2.10/29 gw=192.0.2.14 ip=fd00::8/64 ip=auto quiet";
    assert_eq!(
        (copy.config.cmdline.as_str(), copy.is_readdressed),
        (words, true)
    );
    let addresses = copy.addresses();
    let expected = "ip=192.0.2.10/29 gw=192.0.2.14 ip=fd00::8/64";
    assert_eq!(addresses.as_deref(), Some(expected));
    // The guest itself keeps its addresses.
    assert_eq!(described.addresses(), None);
    // 192.0.2.15 is the broadcast address.
    assert!(described.copy(6, 6).is_ok());
    let error = described.copy(7, 7).unwrap_err().to_string();
    assert!(error.contains("outside of the network"), "{error}");
    described.config.cmdline = "ip=dhcp".to_owned();
    let copy = described.copy(2, 3).unwrap();
    assert_eq!(
        (copy.config.name.as_str(), copy.addresses()),
        ("web-2", None)
    );
    assert_eq!(copy.config.vif.unwrap().mac[5], 5);
}

#[test]
fn a_configuration_is_read_back() {
    for network in [Network::Netback, Network::Switch] {
        let mut described = described();
        described.config.network = network;
        assert_eq!(GuestDescription::parse(&described.json()), Ok(described));
    }
}

/// As Xen 4.17's xl writes it, shortened.
#[test]
fn the_configuration_of_xl_is_read() {
    let text = r#"{"c_info":{"type":"pvh","hap":"True","name":"web","uuid":"01010101-0101-0101-0101-010101010101",
        "run_hotplug_scripts":"True","driver_domain":"False"},"b_info":{"max_vcpus":1,"avail_vcpus":[0],"numa_placement":"False",
        "max_memkb":8192,"target_memkb":8192,"shadow_memkb":1024,"claim_mode":"False","kernel":"/guest/mayfly","cmdline":"quiet",
        "tsc_mode":"native","type.pvh":{},"sched_params":{"weight":256},"altp2m":"disabled"},"disks":[],
        "nics":[{"devid":0,"mac":"00:16:3e:01:02:03","bridge":"xenbr0","script":"vif-mayfly","nictype":"vif"}],
        "on_reboot":"restart","on_soft_reset":"soft_reset"}"#;
    let read = GuestDescription::parse(text).unwrap();
    let config = &read.config;
    assert_eq!((config.name.as_str(), config.uuid), ("web", [1; 16]));
    assert_eq!((config.memory, config.cmdline.as_str()), (8, "quiet"));
    assert_eq!(read.grant_frames, 64);
    let vif = config.vif.as_ref().unwrap();
    assert_eq!((vif.mac[5], vif.bridge.as_str()), (3, "xenbr0"));
    // libxl writes zeros for an address that it is to choose.
    let zeros = text.replacen("00:16:3e:01:02:03", "00:00:00:00:00:00", 1);
    let chosen = GuestDescription::parse(&zeros).unwrap().config.vif.unwrap();
    assert_eq!(chosen.mac, crate::config::own_mac(&[1; 16]));
    let watched = config.watched.as_ref().unwrap();
    assert_eq!(watched.actions, EndActions::default());
    for (from, to, expected) in [
        ("\"pvh\"", "\"hvm\"", "type is Some(\"hvm\")"),
        ("\"max_vcpus\":1", "\"max_vcpus\":4", "4 vCPUs"),
        ("\"disks\":[]", "\"disks\":[{}]", "has disks"),
        ("\"max_memkb\":8192", "\"max_memkb\":0", "how much memory"),
        (
            "\"max_memkb\":8192",
            "\"max_memkb\":18446744073709551615",
            "at most 1 TiB",
        ),
        ("\"devid\":0", "\"devid\":1", "not number 0"),
        ("\"devid\":0", "\"backend_domid\":3", "not in domain 0"),
        ("00:16:3e:01:02:03", "00:16:3e", "no valid MAC address"),
        ("\"nics\":[", "\"nics\":[{},", "2 interfaces"),
        ("\"name\":\"web\",", "", "no name"),
        ("01010101-", "x", "no UUID"),
        ("{\"c_info\"", "{{", "key must be a string"),
    ] {
        let error = GuestDescription::parse(&text.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
