use std::path::PathBuf;

use tempfile::TempDir;

use super::super::tests::{config, image};
use super::super::{CreateAs, Image};
use super::*;
use crate::fake::{FakeHost, FakeSwitch};

struct Bed {
    host: FakeHost,
    folder: TempDir,
    image: PathBuf,
    served: FakeSwitch,
}

impl Bed {
    fn new() -> Self {
        let (folder, image) = image();
        Self {
            host: FakeHost::new(),
            served: FakeSwitch::listen(folder.path()).unwrap(),
            folder,
            image,
        }
    }

    fn toolstack(&self) -> Toolstack {
        let toolstack = self.host.toolstack().unwrap();
        toolstack.with_run(self.folder.path())
    }

    fn create(&self, network: Network) -> u16 {
        let config = GuestConfig {
            network,
            ..config("web", 1)
        };
        let image = Image::open(&self.image).unwrap();
        let created = self
            .toolstack()
            .create(&config, &image, None, CreateAs::Running);
        created.unwrap().domid
    }

    fn moved(&self, domid: u16, to: Network) -> Result<bool, ToolstackError> {
        self.toolstack().move_network(domid, to)
    }

    fn get(&self, path: &str) -> Option<String> {
        self.host.store.get(path)
    }
}

#[test]
fn a_guest_of_the_switch_goes_to_netback_and_comes_back() {
    let bed = Bed::new();
    let domid = bed.create(Network::Switch);
    let (front, back) = (paths::front(domid), paths::backend(domid));
    let rings = bed.served.last().unwrap().rings;
    assert!(!bed.moved(domid, Network::Switch).unwrap(), "it is there");
    for _ in 0..2 {
        assert!(bed.moved(domid, Network::Netback).unwrap());
        assert_eq!(bed.served.domains(), [0_u16; 0]);
        // netback finds the rings that the builder has made, and its own directory, which the front end does not watch.
        for (path, value) in [
            (format!("{front}/tx-ring-ref"), rings.tx_ring.to_string()),
            (
                format!("{front}/event-channel-tx"),
                rings.tx_port.to_string(),
            ),
            (format!("{front}/backend"), paths::switched(domid)),
            (format!("{back}/state"), "4".to_owned()),
            (format!("{back}/mac"), "00:16:3e:00:00:01".to_owned()),
            (switch_keys::netback(domid), back.clone()),
            (format!("{}/state", paths::switched(domid)), "4".to_owned()),
        ] {
            assert_eq!(bed.get(&path), Some(value), "{path}");
        }
        assert!(bed.get(&format!("{front}/event-channel-rx")).is_some());
        let port = bed.host.links.bridge_of(&vif_name(domid, 0));
        assert_eq!(port.as_deref(), Some("xenbr0"));
        assert!(!bed.toolstack().is_switched(domid).unwrap());
        assert!(!bed.moved(domid, Network::Netback).unwrap());
        assert!(bed.moved(domid, Network::Switch).unwrap());
        assert_eq!(bed.served.domains(), [domid]);
        let last = bed.served.last().unwrap();
        assert_eq!(
            (last.rings.tx_ring, last.rings.tx_port),
            (rings.tx_ring, rings.tx_port)
        );
        assert!(last.features.persistent);
        assert_eq!(bed.get(&format!("{back}/state")), None);
        assert_eq!(bed.get(&switch_keys::netback(domid)), None);
        assert!(bed.toolstack().is_switched(domid).unwrap());
    }
    let round = ["sleep web", "hold web", "relay web", "sleep web"];
    assert_eq!(bed.served.moves(), [round, round].concat());
    bed.toolstack().destroy(domid, false).unwrap();
    assert_eq!(bed.served.domains(), [0_u16; 0]);
    assert_eq!(bed.get(&paths::switched(domid)), None);
}

#[test]
fn a_guest_of_netback_keeps_the_directory_that_it_watches() {
    let bed = Bed::new();
    let domid = bed.create(Network::Netback);
    let back = paths::backend(domid);
    let other = format!("{}/1", paths::backends(domid));
    for _ in 0..2 {
        assert!(bed.moved(domid, Network::Switch).unwrap());
        assert_eq!(bed.served.domains(), [domid]);
        assert_eq!(bed.get(&switch_keys::shown(domid)), Some(back.clone()));
        assert_eq!(bed.get(&format!("{back}/state")).as_deref(), Some("4"));
        assert_eq!(bed.get(&format!("{other}/state")), None);
        assert!(bed.moved(domid, Network::Netback).unwrap());
        assert_eq!(bed.served.domains(), [0_u16; 0]);
        assert_eq!(bed.get(&format!("{other}/state")).as_deref(), Some("4"));
        assert_eq!(bed.get(&switch_keys::netback(domid)), Some(other.clone()));
    }
    bed.toolstack().destroy(domid, false).unwrap();
    assert_eq!(bed.get(&paths::switched(domid)), None);
    assert_eq!(bed.get(&paths::backends(domid)), None);
}

#[test]
fn the_next_guest_of_its_configuration_is_where_it_was_moved_to() {
    let bed = Bed::new();
    let domid = bed.create(Network::Netback);
    let config = config("web", 1);
    bed.host
        .store
        .set(&paths::watched_path(domid), &config.record());
    bed.moved(domid, Network::Switch).unwrap();
    let record = bed.get(&paths::watched_path(domid)).unwrap();
    let record: GuestConfig = serde_json::from_str(&record).unwrap();
    assert_eq!(record.network, Network::Switch);
    // Its addresses are known from there.
    let last = bed.served.last().unwrap();
    assert_eq!((last.guard, last.ipv4.is_some()), (Guard::Full, true));
}

#[test]
fn what_fails_is_undone() {
    let bed = Bed::new();
    let domid = bed.create(Network::Switch);
    for call in ["attach", "appeared", "running"] {
        bed.host.links.refuses(call);
        bed.moved(domid, Network::Netback).unwrap_err();
        bed.host.links.refuses("");
        assert_eq!(bed.served.domains(), [domid], "{call}");
        assert_eq!(bed.get(&paths::state(domid)), None, "{call}");
        assert!(bed.toolstack().is_switched(domid).unwrap(), "{call}");
    }
    bed.moved(domid, Network::Netback).unwrap();
    bed.served.refuses(true);
    let error = bed.moved(domid, Network::Switch).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(bed.get(&paths::state(domid)).as_deref(), Some("4"));
    assert!(!bed.toolstack().is_switched(domid).unwrap());
}

#[test]
fn who_is_not_connected_stays() {
    let bed = Bed::new();
    let domid = bed.create(Network::Switch);
    let state = format!("{}/state", paths::front(domid));
    bed.host.store.set(&state, "6");
    let error = bed.moved(domid, Network::Netback).unwrap_err();
    assert!(error.to_string().contains("not connected"), "{error}");
    bed.host.store.set(&state, "4");
    let queues = format!("{}/multi-queue-num-queues", paths::front(domid));
    bed.host
        .store
        .set(&format!("{}/tx-ring-ref", paths::front(domid)), "8");
    bed.host.store.set(&queues, "2");
    bed.moved(domid, Network::Netback).unwrap_err();
    assert_eq!(bed.served.domains(), [domid]);
    assert!(bed.served.moves().is_empty());
}

#[test]
fn the_guest_of_a_service_stays() {
    let bed = Bed::new();
    let domid = bed.create(Network::Switch);
    bed.host.store.set(&paths::summon(domid), "1 2");
    let error = bed.moved(domid, Network::Netback).unwrap_err();
    assert!(error.to_string().contains("hatch summon"), "{error}");
    assert_eq!(bed.served.domains(), [domid]);
    assert!(bed.served.moves().is_empty());
}

/// A toolstack that does not wait for long.
fn hurried(bed: &Bed) -> Toolstack {
    let mut toolstack = bed.toolstack();
    toolstack.bound = Duration::from_millis(50);
    toolstack
}

#[test]
fn a_guest_is_not_removed_while_it_is_moved_nor_moved_while_it_is_removed() {
    let bed = Bed::new();
    let domid = bed.create(Network::Netback);
    let lock = bed.toolstack().lock_netback(domid).unwrap();
    let error = hurried(&bed).destroy(domid, false).unwrap_err();
    assert!(error.to_string().contains("another command"), "{error}");
    let error = hurried(&bed).move_network(domid, Network::Switch);
    let error = error.unwrap_err();
    assert!(error.to_string().contains("another command"), "{error}");
    let state = bed.get(&paths::state(domid));
    assert_eq!(state.as_deref(), Some("4"));
    assert!(bed.served.moves().is_empty());
    // Who waits for it long enough goes on.
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(lock);
    });
    bed.toolstack().destroy(domid, false).unwrap();
    later.join().unwrap();
    assert_eq!(bed.get(&paths::state(domid)), None);
    let left = std::fs::read_dir(bed.folder.path().join("netback")).unwrap();
    assert_eq!(left.count(), 0);
    // Who waited for the removal finds that the guest is gone.
    bed.moved(domid, Network::Switch).unwrap_err();
    assert!(bed.served.moves().is_empty());
}
