//! A watch in a simulated dom0.

use super::*;
use crate::builder::tests::{config as guest, image};
use crate::builder::{EndActions, Watched};
use crate::fake::FakeHost;

struct Bed {
    host: FakeHost,
    folder: tempfile::TempDir,
    config: GuestConfig,
}

impl Bed {
    /// A dom0 with a guest that is watched.
    fn new() -> (Self, u16) {
        let host = FakeHost::new();
        let (folder, kernel) = image();
        let mut config = guest("web", 1);
        let image = Image::open(&kernel).unwrap();
        config.watched = Some(Watched {
            actions: EndActions::default(),
            kernel,
            ramdisk: None,
        });
        let mut toolstack = host.toolstack().unwrap();
        let made = toolstack.create(&config, &image, None, CreateAs::Running);
        let domid = made.unwrap().domid;
        let bed = Self {
            host,
            folder,
            config,
        };
        (bed, domid)
    }

    fn watch(&self) -> Watch {
        let lock = Lock::at(&self.folder.path().join("watch")).unwrap();
        Watch {
            builder: self.host.toolstack().unwrap(),
            lock: lock.unwrap(),
            pending: Vec::new(),
            undead: Vec::new(),
            paces: HashMap::new(),
            settled: HashSet::new(),
        }
    }

    fn is_to_be_made_again(&self) -> bool {
        self.host.store.get(&paths::restart_path("web")).is_some()
    }
}

/// Looks once and makes the guests that are due; returns the reports.
fn round(watch: &mut Watch) -> Vec<WatchReport> {
    let mut told = Vec::new();
    watch.ended(&mut |event| told.push(event.clone())).unwrap();
    watch.births(&mut |event| told.push(event.clone())).unwrap();
    told
}

#[test]
fn a_guest_that_reboots_is_made_again() {
    let (bed, domid) = Bed::new();
    let mut watch = bed.watch();
    assert!(round(&mut watch).is_empty(), "it runs");
    bed.host.xen.ends(domid, 1);
    let told = round(&mut watch);
    let action = EndAction::Restart;
    assert!(matches!(&told[0], WatchReport::Ended { action: a, .. } if *a == action));
    let WatchReport::Restarted { domid: next, .. } = &told[1] else {
        panic!("{told:?}");
    };
    assert_eq!(bed.host.xen.domids(), [*next]);
    assert!(!bed.is_to_be_made_again());
    assert!(round(&mut watch).is_empty());
}

#[test]
fn a_guest_that_powers_off_is_removed() {
    let (bed, domid) = Bed::new();
    bed.host.xen.ends(domid, 0);
    let told = round(&mut bed.watch());
    assert_eq!(told.len(), 1);
    assert!(bed.host.xen.domids().is_empty());
    assert!(!bed.is_to_be_made_again());
}

#[test]
fn a_domain_of_somebody_else_is_left_alone() {
    let (bed, domid) = Bed::new();
    // The same domid with another UUID.
    bed.host.xen.add(domid, [8; 16]);
    bed.host.xen.ends(domid, 0);
    assert!(round(&mut bed.watch()).is_empty());
    assert_eq!(bed.host.xen.domids(), [domid]);
}

#[test]
fn what_a_killed_watch_has_left_is_gone_on_with() {
    let (bed, domid) = Bed::new();
    bed.host.xen.ends(domid, 1);
    let mut first = bed.watch();
    first.ended(&mut |_| ()).unwrap();
    assert!(bed.is_to_be_made_again() && bed.host.xen.domids().is_empty());
    drop(first);
    let mut second = bed.watch();
    second.resume().unwrap();
    let told = round(&mut second);
    assert!(
        matches!(told[..], [WatchReport::Restarted { .. }]),
        "{told:?}"
    );
}

#[test]
fn what_cannot_be_made_again_is_given_up_and_what_is_cancelled_is_not_made() {
    let (bed, domid) = Bed::new();
    bed.host.xen.ends(domid, 1);
    let mut watch = bed.watch();
    watch.ended(&mut |_| ()).unwrap();
    assert!(cancel(bed.host.toolstack().unwrap().store(), "web").unwrap());
    assert!(round(&mut watch).is_empty());
    // Its image is gone.
    let path = paths::restart_path("web");
    bed.host.store.set(&path, &bed.config.record());
    std::fs::remove_file(bed.folder.path().join("image")).unwrap();
    watch.resume().unwrap();
    let told = round(&mut watch);
    assert!(matches!(&told[..], [WatchReport::Trouble { what, .. }] if what.contains("given up")));
    assert!(!bed.is_to_be_made_again());
}

#[test]
fn what_cannot_be_removed_is_tried_again_and_its_birth_waits() {
    let (bed, domid) = Bed::new();
    bed.host.xen.ends(domid, 1);
    bed.host.xen.refuses("destroy", 16);
    let mut watch = bed.watch();
    let told = round(&mut watch);
    assert!(
        matches!(&told[..], [WatchReport::Ended { .. }, WatchReport::Trouble { what, .. }] if what.contains("tried again")),
        "{told:?}"
    );
    assert!(bed.is_to_be_made_again(), "it was given up");
    assert_eq!((watch.undead.len(), watch.pending.len()), (1, 1));
    assert_eq!(bed.host.xen.domids(), [domid]);
    // Xen destroys it, and the delay is over.
    bed.host.xen.refuses("", 0);
    watch.undead[0].due = Instant::now();
    watch.pending[0].due = Instant::now();
    assert!(watch.bury(&mut |event| panic!("{event}")));
    let told = round(&mut watch);
    assert!(
        matches!(&told[..], [WatchReport::Restarted { .. }]),
        "{told:?}"
    );
}
