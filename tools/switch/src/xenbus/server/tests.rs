use std::cell::RefCell;

use mayfly_xenstore::memory::{FakeStore, Tree};
use proptest::prelude::*;

use super::*;
use crate::fake;
use crate::switch::{Guest, GuestStatus};

/// The keys of a front end, as Linux writes them.
const FRONT: [(&str, &str); 5] = [
    ("tx-ring-ref", "8"),
    ("rx-ring-ref", "9"),
    ("event-channel-tx", "15"),
    ("event-channel-rx", "16"),
    ("request-rx-copy", "1"),
];

/// A xenstored, and a switch that maps nothing.
struct Dom0 {
    tree: Tree,
    store: RefCell<FakeStore>,
    guests: RefCell<Vec<Guest>>,
    /// Those whose memory is gone.
    dead: RefCell<Vec<u16>>,
    refuses: RefCell<bool>,
    said: RefCell<Vec<String>>,
}

impl Dom0 {
    fn new() -> Self {
        let tree = Tree::default();
        Self {
            store: RefCell::new(FakeStore::new(&tree).unwrap()),
            tree,
            guests: RefCell::default(),
            dead: RefCell::default(),
            refuses: RefCell::default(),
            said: RefCell::default(),
        }
    }

    /// What a toolstack writes of a guest.
    fn plug(&self, domid: u16) {
        let text = serde_json::to_string(&fake::interface(domid)).unwrap();
        self.tree.set(&keys::interface(domid), &text);
        self.front(domid, "state", "1");
        self.back(domid, "state", "1");
    }

    fn front(&self, domid: u16, key: &str, value: &str) {
        self.tree
            .set(&format!("{}/{key}", keys::front(domid)), value);
    }

    fn back(&self, domid: u16, key: &str, value: &str) {
        self.tree
            .set(&format!("{}/{key}", keys::directory(domid)), value);
    }

    fn state(&self, domid: u16) -> String {
        let path = format!("{}/state", keys::directory(domid));
        self.tree.get(&path).unwrap_or_default()
    }

    fn connect(&self, domid: u16) {
        for (key, value) in FRONT {
            self.front(domid, key, value);
        }
        self.front(domid, "state", "4");
    }

    fn served(&self) -> Vec<u16> {
        let guests = self.guests.borrow();
        guests.iter().map(|guest| guest.rings.domain).collect()
    }

    fn answer(&self, order: &SwitchOrder) -> SwitchReply {
        let mut guests = self.guests.borrow_mut();
        match order {
            SwitchOrder::Attach(_) if *self.refuses.borrow() => {
                SwitchReply::Error("its rings: no".to_owned())
            }
            SwitchOrder::Attach(guest) => {
                let domid = guest.rings.domain;
                assert!(guests.iter().all(|other| other.rings.domain != domid));
                guests.push((**guest).clone());
                SwitchReply::Attached {
                    link: "switch1".to_owned(),
                }
            }
            SwitchOrder::Detach(domid) => {
                let before = guests.len();
                guests.retain(|guest| guest.rings.domain != *domid);
                match guests.len() == before {
                    true => SwitchReply::Error("there is none".to_owned()),
                    false => SwitchReply::Detached(Box::<GuestStatus>::default()),
                }
            }
            SwitchOrder::Frames => {
                SwitchReply::Frames(guests.iter().map(|guest| (guest.rings.domain, 0)).collect())
            }
            SwitchOrder::Ended(domains) => {
                let dead = self.dead.borrow();
                let ended = domains.iter().filter(|domid| dead.contains(domid));
                SwitchReply::Ended(ended.copied().collect())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Serves until all is done that can be done.
    fn with(&self, body: impl FnOnce(&mut dyn FnMut())) {
        let mut store = self.store.borrow_mut();
        let mut ask = |order: &SwitchOrder| Ok(self.answer(order));
        let mut report = |line: &str| self.said.borrow_mut().push(line.to_owned());
        let mut xenbus = Xenbus::begin(&mut *store, &mut ask, &mut report).unwrap();
        body(&mut || {
            for _ in 0..10 {
                // The clock is not waited for.
                let long_ago = Instant::now();
                for due in xenbus.due.values_mut() {
                    *due = long_ago;
                }
                for known in xenbus.guests.values_mut() {
                    (known.looked_at, known.connected_at) = (None, None);
                }
                xenbus.reap_at = xenbus.reap_at.min(Instant::now() + Duration::from_secs(1));
                xenbus.turn().unwrap();
            }
        });
    }
}

#[test]
fn a_front_end_is_served_leaves_and_comes_back() {
    let dom0 = Dom0::new();
    dom0.with(|turn| {
        turn();
        dom0.plug(3);
        turn();
        assert_eq!(dom0.state(3), "2");
        let sg = format!("{}/feature-sg", keys::directory(3));
        assert_eq!(dom0.tree.get(&sg).unwrap(), "1");
        assert!(dom0.served().is_empty());
        for _ in 0..3 {
            dom0.connect(3);
            turn();
            assert_eq!((dom0.state(3).as_str(), dom0.served()), ("4", vec![3]));
            let guest = dom0.guests.borrow()[0].clone();
            assert_eq!(
                (guest.name.as_str(), guest.rings.rx_port),
                ("guest3", Some(16))
            );
            for (front, back) in [("5", "5"), ("6", "6"), ("1", "2")] {
                dom0.front(3, "state", front);
                turn();
                assert_eq!((dom0.state(3).as_str(), dom0.served()), (back, vec![]));
            }
        }
    });
    assert!(dom0.said.borrow().is_empty());
}

#[test]
fn the_next_process_goes_on_where_the_last_one_was() {
    let dom0 = Dom0::new();
    dom0.plug(3);
    dom0.with(|turn| turn());
    assert_eq!(dom0.state(3), "2");
    dom0.connect(3);
    dom0.with(|turn| turn());
    assert_eq!(dom0.state(3), "4");
    // One was ended after it had given the switch a guest, and before it said so.
    dom0.back(3, "state", "2");
    dom0.with(|turn| turn());
    assert_eq!((dom0.state(3).as_str(), dom0.served()), ("4", vec![3]));
}

#[test]
fn a_guest_whose_directory_is_gone_is_let_go_of_and_nothing_is_written() {
    let dom0 = Dom0::new();
    dom0.plug(3);
    dom0.connect(3);
    dom0.with(|turn| {
        turn();
        assert_eq!(dom0.served(), [3]);
        dom0.tree.remove(&keys::directory(3));
        dom0.tree.remove("/local/domain/3");
        turn();
        assert!(dom0.served().is_empty());
    });
    assert_eq!(dom0.tree.get(&keys::directory(3)), None);
}

#[test]
fn a_guest_that_the_builder_connected_is_left_alone() {
    let dom0 = Dom0::new();
    dom0.guests.borrow_mut().push(fake::guest(3));
    dom0.plug(3);
    dom0.front(3, "state", "4");
    dom0.back(3, "state", "4");
    dom0.with(|turn| turn());
    assert_eq!((dom0.state(3).as_str(), dom0.served()), ("4", vec![3]));
}

#[test]
fn wrong_keys_close_the_back_end_with_a_line_and_others_are_served() {
    let dom0 = Dom0::new();
    for domid in [3, 4] {
        dom0.plug(domid);
        dom0.connect(domid);
    }
    dom0.front(3, "tx-ring-ref", "lots");
    // dom0's own key, of another version of hatch.
    dom0.plug(5);
    dom0.tree.set(&keys::interface(5), "{");
    dom0.with(|turn| {
        turn();
        assert_eq!((dom0.state(3).as_str(), dom0.served()), ("5", vec![4]));
        assert_eq!(dom0.state(5), "1");
        // It leaves, and comes back with keys of sense.
        for (state, back) in [("5", "5"), ("6", "6"), ("1", "2")] {
            dom0.front(3, "state", state);
            turn();
            assert_eq!(dom0.state(3), back);
        }
        dom0.connect(3);
        *dom0.refuses.borrow_mut() = true;
        turn();
        assert_eq!((dom0.state(3).as_str(), dom0.served()), ("5", vec![4]));
    });
    let said = dom0.said.borrow();
    let of = |text: &str| said.iter().filter(|line| line.contains(text)).count();
    assert_eq!(of("domain 3: its front end has written a tx-ring-ref"), 1);
    assert_eq!(of("domain 3: its rings: no"), 1);
    assert_eq!(of("domain 5: /local/domain/0/switch/5/interface"), 1);
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn who_writes_its_state_without_end_is_looked_at_now_and_then() {
    let dom0 = Dom0::new();
    dom0.plug(3);
    let mut store = dom0.store.borrow_mut();
    let mut looks = 0;
    let mut ask = |order: &SwitchOrder| {
        looks += u32::from(matches!(order, SwitchOrder::Attach(_)));
        Ok(dom0.answer(order))
    };
    let mut report = |_: &str| {};
    let mut xenbus = Xenbus::begin(&mut *store, &mut ask, &mut report).unwrap();
    let start = Instant::now();
    let mut asked = dom0.tree.asked().len();
    while start.elapsed() < CONNECT_PAUSE * 3 / 2 {
        for state in ["1", "4", "6"] {
            dom0.connect(3);
            dom0.front(3, "state", state);
            xenbus.turn().unwrap();
        }
    }
    asked = dom0.tree.asked().len() - asked;
    drop(xenbus);
    assert!(looks <= 2, "{looks}");
    assert!(asked < 15 * 40, "{asked} requests");
}

#[test]
fn a_domain_that_ended_is_let_go_of() {
    let dom0 = Dom0::new();
    for domid in [3, 4] {
        dom0.guests.borrow_mut().push(fake::guest(domid));
    }
    dom0.dead.borrow_mut().push(3);
    let mut store = dom0.store.borrow_mut();
    let mut ask = |order: &SwitchOrder| Ok(dom0.answer(order));
    let mut report = |_: &str| {};
    let mut xenbus = Xenbus::begin(&mut *store, &mut ask, &mut report).unwrap();
    xenbus.turn().unwrap();
    assert_eq!(dom0.served(), [4]);
    dom0.dead.borrow_mut().push(4);
    xenbus.turn().unwrap();
    assert_eq!(dom0.served(), [4], "nobody has ended that we know of");
    dom0.tree.fire("@releaseDomain");
    let start = Instant::now();
    while !dom0.served().is_empty() {
        xenbus.turn().unwrap();
        assert!(start.elapsed() < PERIOD / 2);
    }
}

#[test]
fn a_guest_that_netback_serves_sees_its_states_where_it_looks() {
    let dom0 = Dom0::new();
    dom0.plug(3);
    dom0.front(3, "state", "4");
    dom0.back(3, "state", "4");
    let netback = "/local/domain/0/backend/vif/3/1";
    dom0.back(3, "netback", netback);
    dom0.with(|turn| {
        for (front, of_netback, shown) in [
            ("4", "1", "4"),
            ("4", "2", "4"),
            ("4", "4", "4"),
            ("5", "5", "5"),
            ("6", "6", "6"),
            ("1", "2", "2"),
            ("4", "4", "4"),
        ] {
            dom0.front(3, "state", front);
            dom0.tree.set(&format!("{netback}/state"), of_netback);
            turn();
            assert_eq!(dom0.state(3), shown, "{front} {of_netback}");
            assert!(dom0.served().is_empty());
        }
    });
}

#[test]
fn a_guest_that_began_on_netback_is_answered_where_it_looks() {
    let dom0 = Dom0::new();
    dom0.plug(3);
    let shown = "/local/domain/0/backend/vif/3/0";
    dom0.back(3, "shown", shown);
    let state = format!("{shown}/state");
    dom0.tree.set(&state, "4");
    dom0.guests.borrow_mut().push(fake::guest(3));
    dom0.front(3, "state", "4");
    dom0.with(|turn| {
        turn();
        assert_eq!(dom0.served(), [3]);
        for (front, back) in [("5", "5"), ("6", "6"), ("1", "2")] {
            dom0.front(3, "state", front);
            turn();
            assert_eq!(dom0.tree.get(&state).unwrap(), back);
        }
        dom0.connect(3);
        turn();
        assert_eq!(dom0.served(), [3]);
        // libxl unplugs it.
        dom0.tree.set(&state, "5");
        dom0.front(3, "state", "6");
        turn();
        assert_eq!(
            (dom0.tree.get(&state).unwrap().as_str(), dom0.served()),
            ("6", vec![])
        );
    });
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(64))]

    /// Whatever guests write, each is served at most once, `Connected` is said only of those that are served, and
    /// nobody writes to the directory of another.
    #[test]
    fn whatever_guests_write(
        writes in proptest::collection::vec(
            (3..5_u16, 0..7_usize, prop_oneof!["[0-9]", "[0-9]{1,12}", ".{0,6}"]),
            1..60,
        ),
        refuses in any::<bool>(),
    ) {
        let dom0 = Dom0::new();
        *dom0.refuses.borrow_mut() = refuses;
        for domid in [3, 4] {
            dom0.plug(domid);
        }
        dom0.with(|turn| {
            for (domid, key, value) in writes {
                let key = ["state", "tx-ring-ref", "event-channel", "request-rx-copy", "feature-sg", "state", "multi-queue-num-queues"][key];
                dom0.front(domid, key, &value);
                turn();
                for domid in [3, 4] {
                    let is_served = dom0.served().contains(&domid);
                    assert_eq!(is_served, dom0.state(domid) == "4");
                }
            }
        });
        let ours = dom0.tree.nodes();
        let others = ours.keys().filter(|path| path.starts_with(keys::ROOT));
        for path in others {
            let end = path.strip_prefix(keys::ROOT).unwrap();
            prop_assert!(end.is_empty() || end.starts_with("/3") || end.starts_with("/4"), "{path}");
        }
    }
}
