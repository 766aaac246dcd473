//! Guests of the switch.

use std::net::Ipv4Addr;

use mayfly_switch::xenbus::{Interface, keys as switch_keys};

use super::*;
use crate::fake::FakeSwitch;

/// A dom0 in which a switch runs, with a guest of it that was saved with `-c`.
struct OnSwitch {
    bed: Bed,
    switch: FakeSwitch,
}

impl OnSwitch {
    fn new(after: AfterSave) -> Self {
        let host = FakeHost::new();
        let folder = tempfile::tempdir().unwrap();
        let switch = FakeSwitch::listen(folder.path()).unwrap();
        let mut toolstack = host.toolstack().unwrap().with_run(folder.path());
        let before = without_folders(host.store.nodes());
        let (_image, path) = image();
        let image = Image::open(&path).unwrap();
        let config = GuestConfig {
            network: Network::Switch,
            ..config("web", 1)
        };
        let created = toolstack.create(&config, &image, None, CreateAs::Running);
        let domid = created.unwrap().domid;
        crate::lifecycle::Suspended::set_context(&mut host.xen.clone(), domid, &[7; 99]).unwrap();
        let mut bed = Bed {
            host,
            toolstack,
            folder,
            before,
            domid,
        };
        bed.save(after).unwrap();
        Self { bed, switch }
    }

    fn copied(&mut self, number: u32) -> Result<u16, CreateError> {
        let file = fs::File::open(self.bed.path()).unwrap();
        let mut saved = SavedGuest::open(file).unwrap();
        assert_eq!(saved.description.config.network, Network::Switch);
        saved.description = saved.description.copy(number, number + 1).unwrap();
        let restored = self.bed.toolstack.restore_from(saved, CreateAs::Running);
        restored.map(|created| created.domid)
    }
}

#[test]
fn copies_are_on_the_switch_with_addresses_of_their_own() {
    let mut all = OnSwitch::new(AfterSave::Runs);
    let store = all.bed.host.store.clone();
    for number in 1..=3 {
        let domid = all.copied(number).unwrap();
        let (front, back) = (paths::front(domid), paths::switched(domid));
        for (path, value) in [
            (format!("{front}/backend"), back.as_str()),
            (format!("{front}/state"), "1"),
            (format!("{back}/state"), "1"),
        ] {
            assert_eq!(store.get(&path).as_deref(), Some(value), "{path}");
        }
        assert_eq!(store.get(&paths::state(domid)), None, "no vif");
        let interface = store.get(&switch_keys::interface(domid)).unwrap();
        let interface: Interface = serde_json::from_str(&interface).unwrap();
        let last = u8::try_from(number).unwrap() + 1;
        assert_eq!(interface.name, format!("web-{number}"));
        assert_eq!(interface.mac, [0, 0x16, 0x3e, 0, 0, last]);
        let first = all.switch.last().unwrap().ipv4.unwrap();
        let address = Ipv4Addr::from_bits(first.to_bits() + number);
        assert_eq!(interface.ipv4, Some(address));
    }
    // The guest itself is as it was.
    assert_eq!(all.switch.domains(), [all.bed.domid]);
}

#[test]
fn a_restoration_that_fails_leaves_nothing_on_the_switch() {
    let mut all = OnSwitch::new(AfterSave::Removed);
    for call in ["populate", "map", "event_channel", "set_context", "unpause"] {
        all.bed.host.xen.refuses(call, ENOMEM);
        let error = all.copied(1).unwrap_err();
        assert!(error.left.is_empty(), "{call}: {error}");
        all.bed.is_empty(call);
        all.bed.host.xen.refuses("", 0);
    }
    for call in ["bridge", "find", "direct"] {
        all.bed.host.links.refuses(call);
        assert!(all.copied(1).is_err(), "{call}");
        all.bed.host.links.refuses("");
        all.bed.is_empty(call);
    }
    all.copied(1).unwrap();
}
