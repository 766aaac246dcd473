//! Births on a fake switch in a simulated dom0.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mayfly_drivers::abi::{XENSTORE_RECONNECT, xenstore_domain_interface as ring};
use tempfile::TempDir;

use super::super::super::layout::XENSTORE_GFN;
use super::super::super::tests::{config, image, without_folders};
use super::super::super::{Shell, Taken};
use super::handed::addresses;
use super::*;
use crate::fake::{FakeHost, FakeSwitch};
use crate::gc::{self, Snapshot};
use crate::paths;

#[test]
fn one_address_of_each_family() {
    let v4 = Ipv4Addr::new(10, 0, 2, 80);
    let v6 = "fd00:2::80".parse().unwrap();
    for (cmdline, known) in [
        ("gw=10.0.2.2 ip=10.0.2.80/24", Some((Some(v4), None))),
        ("ip=fd00:2::80/64 console=off", Some((None, Some(v6)))),
        (
            "ip=10.0.2.80/24 ip=fd00:2::80/64",
            Some((Some(v4), Some(v6))),
        ),
        // Held to the first, it would lose what it says by the other.
        ("ip=10.0.2.80/24 ip=10.0.3.1/24", None),
        ("ip=fd00:2::80/64 ip=dhcp", None),
        ("ip=dhcp quiet", None),
        ("", None),
    ] {
        assert_eq!(addresses(cmdline), known, "{cmdline}");
    }
}

struct Bed {
    host: FakeHost,
    image: Image,
    folder: TempDir,
    served: FakeSwitch,
    switch: RefCell<Option<SwitchConnection>>,
    before: mayfly_xenstore::memory::Nodes,
}

impl Bed {
    fn new() -> Self {
        let host = FakeHost::new();
        let (folder, path) = image();
        let served = FakeSwitch::listen(folder.path()).unwrap();
        let toolstack = host.toolstack().unwrap().with_run(folder.path());
        let switch = toolstack.switch().unwrap();
        Self {
            before: without_folders(host.store.nodes()),
            host,
            image: Image::open(&path).unwrap(),
            folder,
            served,
            switch: RefCell::new(Some(switch)),
        }
    }

    fn toolstack(&self) -> Toolstack {
        let toolstack = self.host.toolstack().unwrap();
        toolstack.with_run(self.folder.path())
    }

    fn wanted<'a>(&'a self, config: &'a GuestConfig) -> WantedOnSwitch<'a> {
        WantedOnSwitch {
            config,
            image: &self.image,
            ramdisk: None,
            is_guarded: true,
            is_declared: false,
        }
    }

    fn bear(&self, toolstack: &mut Toolstack) -> Result<Newborn, CreateError> {
        let config = config("web", 1);
        let what = self.wanted(&config);
        let mut switch = self.switch.borrow_mut();
        toolstack.bear(
            what,
            switch.as_mut().unwrap(),
            CreateAs::Running,
            &mut |_| Ok(()),
        )
    }

    fn create(&self, name: &str, last: u8) -> Result<Created, CreateError> {
        let config = config(name, last);
        let what = self.wanted(&config);
        let mut switch = self.switch.borrow_mut();
        self.toolstack().create_on_switch(
            what,
            switch.as_mut().unwrap(),
            CreateAs::Running,
            &mut |_| Ok(()),
        )
    }

    fn mark(&self) -> PathBuf {
        self.folder
            .path()
            .join("making")
            .join(paths::uuid(&[1; 16]))
    }

    fn is_as_before(&self, after: &str) {
        assert!(self.host.xen.domids().is_empty(), "after {after}");
        let nodes = without_folders(self.host.store.nodes());
        assert_eq!(nodes, self.before, "after {after}");
        assert!(!self.mark().exists(), "after {after}");
        self.serves(&[], after);
    }

    /// Checks that the switch serves these domains in the end: nobody waits for it to let a guest go.
    fn serves(&self, domains: &[u16], after: &str) {
        let start = Instant::now();
        while self.served.domains() != domains && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.served.domains(), domains, "after {after}");
    }
}

#[test]
fn it_runs_before_anything_is_asked_of_xenstored() {
    let bed = Bed::new();
    let mut toolstack = bed.toolstack();
    let asked = bed.host.store.asked().len();
    let newborn = bed.bear(&mut toolstack).unwrap();
    let domid = newborn.domid();
    assert_eq!(bed.host.store.asked().len(), asked);
    assert_eq!(bed.host.store.introduced(), [0_u16; 0]);
    assert_eq!(bed.served.domains(), [domid]);
    assert!(bed.host.xen.asked().contains(&"unpause"));
    let mark = std::fs::read_to_string(bed.mark()).unwrap();
    assert!(mark.ends_with(&format!(" {domid}")), "{mark}");
    // The guest's xenstore ring waits for xenstored.
    let guest = bed.host.xen.guest(domid).unwrap();
    let page = &guest.memory[&XENSTORE_GFN];
    let word = &page[ring::CONNECTION..ring::CONNECTION + 4];
    assert_eq!(word, XENSTORE_RECONNECT.to_le_bytes());

    let created = toolstack.introduce(newborn).unwrap();
    assert_eq!(created.domid, domid);
    assert_eq!(bed.host.domid("web"), Some(domid));
    assert_eq!(bed.host.store.introduced(), [domid]);
    let home = format!("/local/domain/{domid}");
    for (path, value) in [
        (format!("{home}/name"), "web".to_owned()),
        (format!("{home}/device/vif/0/state"), "4".to_owned()),
        (
            format!("{home}/device/vif/0/backend"),
            paths::switched(domid),
        ),
        (format!("{}/feature-sg", paths::switched(domid)), "1".into()),
    ] {
        assert_eq!(bed.host.store.get(&path), Some(value), "{path}");
    }
    assert_eq!(bed.host.store.get(&paths::making_path(&[1; 16])), None);
    assert!(!bed.mark().exists());
    toolstack.destroy(domid, false).unwrap();
    bed.is_as_before("its end");
}

#[test]
fn what_a_number_had_before_is_not_the_next_ones() {
    let bed = Bed::new();
    bed.host
        .store
        .set("/local/domain/1/control/shutdown", "poweroff");
    let created = bed.create("web", 1).unwrap();
    assert_eq!(created.domid, 1);
    let left = bed.host.store.get("/local/domain/1/control/shutdown");
    assert_eq!(left, None);
}

#[test]
fn a_maker_that_is_killed_before_it_tells_xenstored_leaves_what_gc_finds() {
    let bed = Bed::new();
    let mut toolstack = bed.toolstack();
    let newborn = bed.bear(&mut toolstack).unwrap();
    let domid = newborn.domid();
    // A domain that is being made is not removed.
    let seen = Snapshot::read(&mut toolstack).unwrap();
    assert_eq!(gc::decide(&seen), []);
    drop(newborn);
    // A process with the maker's PID and another start time.
    let mark = std::fs::read_to_string(bed.mark()).unwrap();
    let (pid, _) = mark.split_once(' ').unwrap();
    std::fs::write(bed.mark(), format!("{pid} 1 {domid}")).unwrap();
    let seen = Snapshot::read(&mut toolstack).unwrap();
    let failures = gc::carry_out(&mut toolstack, &gc::decide(&seen));
    assert_eq!(failures, [""; 0]);
    bed.is_as_before("gc");
}

#[test]
fn whatever_is_refused_nothing_is_left() {
    let bed = Bed::new();
    for call in [
        "create",
        "max_vcpus",
        "populate",
        "event_channel",
        "map",
        "map_grants",
        "pvh_context",
        "unpause",
    ] {
        bed.host.xen.refuses(call, 5);
        let error = bed.create("web", 1).unwrap_err();
        assert!(error.left.is_empty(), "{call}: {error}");
        bed.is_as_before(call);
    }
    bed.host.xen.refuses("", 0);
    bed.served.refuses(true);
    let error = bed.create("web", 1).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    bed.is_as_before("the switch refuses");
    bed.served.refuses(false);
    // The switch's link is missing, which is found when the guest runs already.
    bed.host.links.refuses("find");
    let error = bed.create("web", 1).unwrap_err();
    assert!(error.left.is_empty(), "{error}");
    bed.is_as_before("no link");
    bed.host.links.refuses("");
    // The connection still works.
    let created = bed.create("web", 1).unwrap();
    bed.toolstack().destroy(created.domid, false).unwrap();
    bed.is_as_before("its end");
}

#[test]
fn a_name_is_one_guests() {
    let bed = Bed::new();
    let first = bed.create("web", 1).unwrap().domid;
    let error = bed.create("web", 2).unwrap_err();
    assert!(matches!(
        error.failure.cause,
        ToolstackError::Taken(Taken::Name(..))
    ));
    assert_eq!(bed.host.xen.domids(), [first]);
    bed.serves(&[first], "the second");
    bed.toolstack().destroy(first, false).unwrap();
    bed.is_as_before("its end");
}

fn by_handshake(name: &str, last: u8) -> GuestConfig {
    GuestConfig {
        connect: Connect::Guest,
        ..config(name, last)
    }
}

impl Bed {
    fn create_of(&self, config: &GuestConfig) -> Result<Created, CreateError> {
        let what = self.wanted(config);
        let mut switch = self.switch.borrow_mut();
        self.toolstack().create_on_switch(
            what,
            switch.as_mut().unwrap(),
            CreateAs::Running,
            &mut |_| Ok(()),
        )
    }
}

#[test]
fn a_front_end_that_does_the_handshake_finds_a_back_end_that_is_not_the_kernels() {
    let bed = Bed::new();
    // What xl left of a domain with this number.
    let stale = format!("{}/state", paths::switched(1));
    bed.host.store.set(&stale, "4");
    let created = bed.create_of(&by_handshake("web", 1)).unwrap();
    let domid = created.domid;
    assert!((domid, created.preconnected) == (1, false));
    assert_eq!(bed.served.domains(), [0_u16; 0], "it is for the handshake");
    let (front, back) = (paths::front(domid), paths::switched(domid));
    for (path, value) in [
        (format!("{front}/backend"), back.as_str()),
        (format!("{front}/backend-id"), "0"),
        (format!("{front}/state"), "1"),
        (format!("{back}/state"), "1"),
        (format!("{back}/frontend"), &front),
    ] {
        assert_eq!(bed.host.store.get(&path).as_deref(), Some(value), "{path}");
    }
    let interface = mayfly_switch::xenbus::keys::interface(domid);
    let interface = bed.host.store.get(&interface).unwrap();
    let interface: Interface = serde_json::from_str(&interface).unwrap();
    assert_eq!(
        (interface.name.as_str(), interface.connected),
        ("web", None)
    );
    assert_eq!(bed.host.store.get(&paths::state(domid)), None, "no vif");
    assert_eq!(bed.host.domid("web"), Some(domid));
    bed.toolstack().destroy(domid, false).unwrap();
    bed.is_as_before("its end");
}

#[test]
fn a_handshake_that_cannot_begin_leaves_nothing() {
    let bed = Bed::new();
    let config = by_handshake("web", 1);
    for call in [
        "create",
        "populate",
        "event_channel",
        "pvh_context",
        "unpause",
    ] {
        bed.host.xen.refuses(call, 5);
        let error = bed.create_of(&config).unwrap_err();
        assert!(error.left.is_empty(), "{call}: {error}");
        bed.is_as_before(call);
    }
    bed.host.xen.refuses("", 0);
    bed.host.links.refuses("direct");
    let error = bed.create_of(&config).unwrap_err();
    assert!(error.left.is_empty(), "{error}");
    bed.is_as_before("no entry in the bridge");
    // The switch has no port on the bridge, which is found before there is a domain.
    bed.host.links.refuses("find");
    let asked = bed.host.xen.asked().len();
    let error = bed.create_of(&config).unwrap_err();
    assert_eq!(error.failure.step, CreateStep::Check, "{error}");
    assert_eq!(bed.host.xen.asked().len(), asked);
}

impl Bed {
    fn shell(&self) -> Result<Shell, CreateError> {
        let template = config("shell", 9);
        let mut switch = self.switch.borrow_mut();
        self.toolstack()
            .shell_on_switch(&template, &self.image, &mut switch)
    }

    fn bear_from(&self, shell: Shell) -> Result<Newborn, CreateError> {
        let config = config("web", 1);
        let what = self.wanted(&config);
        let mut switch = self.switch.borrow_mut();
        self.toolstack()
            .bear_from(shell, what, switch.as_mut().unwrap(), &mut |_| Ok(()))
    }

    /// Checks that no mark is left.
    fn has_no_mark(&self, after: &str) {
        let marks = std::fs::read_dir(self.folder.path().join("making")).unwrap();
        assert_eq!(marks.count(), 0, "after {after}");
    }
}

#[test]
fn a_shell_becomes_a_guest() {
    let bed = Bed::new();
    let asked = bed.host.store.asked().len();
    let shell = bed.shell().unwrap();
    let domid = shell.domid();
    let uuid = *shell.uuid();
    // Nobody knows of it, and it counts as being made.
    assert_eq!(bed.host.store.asked().len(), asked);
    assert_eq!(bed.served.domains(), [0_u16; 0]);
    assert_eq!(bed.served.prepared(), [domid]);
    let mut toolstack = bed.toolstack();
    assert_eq!(gc::decide(&Snapshot::read(&mut toolstack).unwrap()), []);
    let calls = bed.host.xen.asked().len();
    let newborn = bed.bear_from(shell).unwrap();
    assert_eq!(newborn.domid(), domid);
    // Its information is mapped already.
    assert_eq!(bed.host.xen.asked()[calls..], ["unpause"]);
    assert_eq!(bed.served.domains(), [domid]);
    assert!(bed.served.prepared().is_empty());
    let created = toolstack.introduce(newborn).unwrap();
    assert_eq!((created.domid, created.uuid), (domid, uuid));
    assert_eq!(bed.host.domid("web"), Some(domid));
    bed.has_no_mark("its birth");
    toolstack.destroy(domid, false).unwrap();
    bed.is_as_before("its end");
}

#[test]
fn of_a_shell_that_is_discarded_or_fails_nothing_is_left() {
    let bed = Bed::new();
    let shell = bed.shell().unwrap();
    bed.toolstack().discard(shell).unwrap();
    bed.is_as_before("it was discarded");
    bed.has_no_mark("it was discarded");
    // Another toolstack has removed it, and its number is another domain's.
    let shell = bed.shell().unwrap();
    let domid = shell.domid();
    bed.toolstack().xen().destroy(domid).unwrap();
    bed.host.xen.add(domid, [8; 16]);
    bed.toolstack().discard(shell).unwrap();
    assert_eq!(bed.host.xen.domids(), [domid]);
    bed.toolstack().xen().destroy(domid).unwrap();
    bed.has_no_mark("it was gone");
    for call in ["create", "populate", "event_channel", "map", "pvh_context"] {
        bed.host.xen.refuses(call, 5);
        let error = bed.shell().unwrap_err();
        assert!(error.left.is_empty(), "{call}: {error}");
        bed.has_no_mark(call);
    }
    bed.host.xen.refuses("", 0);
    let shell = bed.shell().unwrap();
    bed.host.xen.refuses("unpause", 5);
    let error = bed.bear_from(shell).err().unwrap();
    assert!(error.left.is_empty(), "{error}");
    bed.is_as_before("it does not run");
    bed.has_no_mark("it does not run");
    bed.host.xen.refuses("", 0);
    let shell = bed.shell().unwrap();
    bed.served.refuses(true);
    let error = bed.bear_from(shell).err().unwrap();
    assert!(error.to_string().contains("refused"), "{error}");
    bed.is_as_before("the switch refuses");
    bed.has_no_mark("the switch refuses");
}

#[test]
fn the_shells_of_a_process_that_was_killed_are_found() {
    let bed = Bed::new();
    let shell = bed.shell().unwrap();
    let mark = bed
        .folder
        .path()
        .join("making")
        .join(paths::uuid(shell.uuid()));
    let text = std::fs::read_to_string(&mark).unwrap();
    let (pid, _) = text.split_once(' ').unwrap();
    std::fs::write(&mark, format!("{pid} 1 {}", shell.domid())).unwrap();
    drop(shell);
    let mut toolstack = bed.toolstack();
    let seen = Snapshot::read(&mut toolstack).unwrap();
    let failures = gc::carry_out(&mut toolstack, &gc::decide(&seen));
    assert_eq!(failures, [""; 0]);
    bed.is_as_before("gc");
    bed.has_no_mark("gc");
}

#[test]
fn a_switch_that_is_gone_or_refuses_maps_later() {
    let bed = Bed::new();
    bed.served.refuses(true);
    let shell = bed.shell().unwrap();
    assert!(bed.switch.borrow().is_some() && bed.served.prepared().is_empty());
    bed.served.refuses(false);
    let newborn = bed.bear_from(shell).unwrap();
    assert_eq!(bed.served.domains(), [newborn.domid()]);
    // It ends, and another one runs.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(theirs);
    *bed.switch.borrow_mut() = Some(SwitchConnection::over(ours));
    let shell = bed.shell().unwrap();
    assert!(bed.switch.borrow().is_none() && bed.served.prepared().is_empty());
    let mut toolstack = bed.toolstack();
    toolstack.discard(shell).unwrap();
    *bed.switch.borrow_mut() = Some(toolstack.switch().unwrap());
    let domid = toolstack.introduce(newborn).unwrap().domid;
    toolstack.destroy(domid, false).unwrap();
    bed.is_as_before("its end");
}

#[test]
fn what_was_declared_is_not_told_again_but_to_a_switch_that_does_not_know_it() {
    let bed = Bed::new();
    let config = config("web", 1);
    let declared = WantedOnSwitch {
        is_declared: true,
        ..bed.wanted(&config)
    };
    for is_known in [false, true] {
        bed.served.knows(is_known.then_some("web"));
        let mut toolstack = bed.toolstack();
        let newborn = {
            let mut switch = bed.switch.borrow_mut();
            let switch = switch.as_mut().unwrap();
            toolstack.bear(declared, switch, CreateAs::Running, &mut |_| Ok(()))
        };
        let domid = toolstack.introduce(newborn.unwrap()).unwrap().domid;
        assert_eq!(bed.served.domains(), [domid]);
        assert_eq!(bed.served.last().is_some(), !is_known);
        toolstack.destroy(domid, false).unwrap();
        bed.is_as_before("its end");
    }
    bed.served.refuses(true);
    let mut switch = bed.switch.borrow_mut();
    let switch = switch.as_mut().unwrap();
    let mut toolstack = bed.toolstack();
    let born = toolstack.bear(declared, switch, CreateAs::Running, &mut |_| Ok(()));
    let error = born.err().unwrap();
    assert!(error.to_string().contains("refused"), "{error}");
    bed.is_as_before("the switch refuses");
}
