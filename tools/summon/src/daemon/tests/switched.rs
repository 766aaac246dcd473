//! Services on a switch that the test plays.

use std::io::{BufRead as _, BufReader, Write as _};

use mayfly_switch::control::{SentNotice, SwitchOrder, SwitchReply};
use mayfly_switch::switch::{Life, Sign, WakeFrame};

use super::super::super::config::Network;
use super::super::super::fleet::Command;
use super::*;

/// The switch's end of the daemon's connection.
struct Switch(BufReader<UnixStream>);

impl Switch {
    fn of(bed: &Bed) -> Self {
        let (stream, _) = bed.switch.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// What the daemon has asked of it since.
    fn asked(&mut self) -> Vec<SwitchOrder> {
        let mut orders = Vec::new();
        let mut line = String::new();
        while self.0.read_line(&mut line).is_ok_and(|length| length > 0) {
            orders.push(serde_json::from_str(&line).unwrap());
            line.clear();
        }
        orders
    }

    fn says(&mut self, bed: &mut Bed, notice: SentNotice) {
        let line = mayfly_switch::control::line(&SwitchReply::Notice(notice)).unwrap();
        self.0.get_mut().write_all(&line).unwrap();
        bed.daemon.hear_switch();
        bed.daemon.carry_out();
        bed.daemon.way.flush();
    }

    fn wants(&mut self, bed: &mut Bed, name: &str, cause: WakeFrame) {
        let from = CLIENT;
        let name = name.to_owned();
        self.says(bed, SentNotice::Wanted { name, cause, from });
    }
}

const LINES: &str = "network = \"switch\"";

impl Bed {
    /// The thread tells of a guest on the switch.
    fn made_on_switch(&mut self, name: &str, domid: u16) {
        self.host.xen.add(domid, [9; 16]);
        let made = MadeGuest {
            domid,
            vif: link("switch9"),
            network: Network::Switch,
            began: Instant::now(),
            is_from_pool: false,
            of: Some(self.made_of(name)),
            witness: None,
            front: 0,
        };
        let id = self.id(name);
        self.daemon.told(MakerReport::Made(id, made));
        self.daemon.carry_out();
        self.daemon.way.flush();
    }

    /// The administrator tells a service to sleep whose guest is suspended then.
    fn suspends(&mut self, id: ServiceId) {
        let mut actions = Vec::new();
        let fleet = &mut self.daemon.fleet;
        let told = fleet.command(Instant::now(), id, Command::Sleep, &mut actions);
        told.unwrap();
        self.daemon.actions.extend(actions);
        self.daemon.carry_out();
        assert!(matches!(self.state("www"), ServiceState::Suspended(..)));
    }
}

fn is_declared(orders: &[SwitchOrder], name: &str) -> bool {
    let is_it =
        |order: &SwitchOrder| matches!(order, SwitchOrder::Sleep(sleeper) if sleeper.name == name);
    orders.iter().any(is_it)
}

#[test]
fn the_switch_wakes_a_service_and_the_front_is_told_later() {
    let mut bed = bed(LINES).alone();
    let mut switch = Switch::of(&bed);
    let asked = switch.asked();
    assert_eq!(asked.first(), Some(&SwitchOrder::Notices));
    assert!(is_declared(&asked, "www") && is_declared(&asked, "one"));
    assert!(bed.ports.0.borrow().values().all(|port| port == "switch9"));
    assert!(bed.daemon.ports.is_empty(), "the front has nothing to hold");
    let id = bed.id("www");
    for _ in 0..2 {
        switch.wants(&mut bed, "www", WakeFrame::Arp);
    }
    assert_eq!(bed.ordered(), [format!("make {}", id.0)]);
    // Its first frames are told before the thread tells of it.
    let life = Life {
        signs: vec![(Sign::Frame, 2000), (Sign::SynAck, 1000)],
        attached: 3000,
        held: 2,
    };
    let lives = SentNotice::Lives {
        name: "www".to_owned(),
        domain: GUEST,
        life,
    };
    switch.says(&mut bed, lives);
    assert_eq!(bed.state("www"), ServiceState::BeingBorn);
    bed.made_on_switch("www", GUEST);
    assert!(matches!(bed.state("www"), ServiceState::Running(_)));
    let entry = &bed.daemon.entries[&id];
    assert_eq!((entry.frames.held, entry.frames.replayed), (2, 2));
    assert!(switch.asked().is_empty());
    assert!(bed.heard().is_empty());
    bed.daemon.publish_switched();
    bed.daemon.publish_switched();
    bed.daemon.way.flush();
    let heard = bed.heard();
    let told = heard
        .iter()
        .filter(|told| **told == ToFront::Is(id, Stance::Takes));
    assert_eq!(told.count(), 1, "{heard:?}");
}

#[test]
fn what_comes_to_a_guest_that_is_about_to_go_keeps_it() {
    let mut bed = bed(LINES).alone();
    let mut switch = Switch::of(&bed);
    switch.wants(&mut bed, "www", WakeFrame::Syn);
    bed.made_on_switch("www", GUEST);
    let id = bed.id("www");
    bed.daemon.step(Instant::now(), FleetEvent::Heard(id));
    switch.asked();
    let name = || "www".to_owned();
    let leaves = |bed: &mut Bed| {
        bed.passes(Duration::from_secs(100));
        let open = Some(GuestReport {
            connections: 0,
            requests: 1,
        });
        bed.says(ToMaker::Said(id, open)).unwrap();
    };
    leaves(&mut bed);
    assert_eq!(switch.asked(), [SwitchOrder::Hold(name())]);
    switch.wants(&mut bed, "www", WakeFrame::Other);
    assert_eq!(switch.asked(), [SwitchOrder::Open(name())]);
    assert!(matches!(bed.state("www"), ServiceState::Running(_)));
    leaves(&mut bed);
    bed.passes(Duration::from_secs(100));
    let asked = switch.asked();
    assert!(asked.contains(&SwitchOrder::Drop(name())), "{asked:?}");
    assert!(bed.ordered().contains(&format!("remove {} {GUEST}", id.0)));
    // A frame that was for the guest that has gone wakes nobody.
    bed.daemon.told(MakerReport::Removed(id, None));
    bed.daemon.carry_out();
    switch.asked();
    switch.wants(&mut bed, "www", WakeFrame::Other);
    assert_eq!(switch.asked(), [SwitchOrder::Drop(name())]);
    assert!(bed.ordered().is_empty());
}

#[test]
fn who_is_turned_away_has_nothing_held() {
    let mut bed = bed(LINES).alone();
    let mut switch = Switch::of(&bed);
    let id = bed.id("www");
    switch.wants(&mut bed, "www", WakeFrame::Syn);
    bed.daemon.told(MakerReport::NotMade(id, "test".to_owned()));
    bed.daemon.carry_out();
    let asked = switch.asked();
    assert!(
        asked.contains(&SwitchOrder::Drop("www".to_owned())),
        "{asked:?}"
    );
    bed.ordered();
    switch.wants(&mut bed, "www", WakeFrame::Syn);
    assert_eq!(switch.asked(), [SwitchOrder::Drop("www".to_owned())]);
    assert!(bed.ordered().is_empty());
}

#[test]
fn the_next_switch_is_told_the_same_and_a_service_that_leaves_is_forgotten() {
    let mut bed = bed(LINES).alone();
    let first = Switch::of(&bed);
    drop(first);
    bed.daemon.hear_switch();
    bed.ports.0.borrow_mut().clear();
    bed.daemon.meet_switch();
    let mut switch = Switch::of(&bed);
    assert!(is_declared(&switch.asked(), "www"));
    assert_eq!(bed.ports.0.borrow().len(), 2);
    // One who says what is no message is given up.
    switch.0.get_mut().write_all(b"what?\n").unwrap();
    bed.daemon.hear_switch();
    bed.daemon.meet_switch();
    let mut switch = Switch::of(&bed);
    switch.asked();
    // Services that go over to netback.
    write(&bed.folder, "");
    bed.daemon.reload();
    let asked = switch.asked();
    for name in ["www", "one"] {
        assert!(
            asked.contains(&SwitchOrder::Forget(name.to_owned())),
            "{asked:?}"
        );
    }
    assert!(bed.ports.0.borrow().values().all(|port| port == "summon9"));
    assert_eq!(bed.daemon.ports.len(), 1, "the front holds for them");
    write(&bed.folder, LINES);
    bed.daemon.reload();
    assert!(bed.daemon.ports.is_empty());
}

/// A service whose guest, on the switch, runs and will be suspended.
fn runs() -> (Bed, Switch, ServiceId) {
    let mut bed = bed(&format!("{LINES}\nasleep = \"suspend\"")).alone();
    let mut switch = Switch::of(&bed);
    switch.wants(&mut bed, "www", WakeFrame::Syn);
    bed.made_on_switch("www", GUEST);
    let id = bed.id("www");
    bed.daemon.step(Instant::now(), FleetEvent::Heard(id));
    (bed, switch, id)
}

#[test]
fn a_suspended_guest_on_the_switch_goes_on() {
    let (mut bed, mut switch, id) = runs();
    switch.asked();
    let name = || "www".to_owned();
    for _ in 0..2 {
        bed.suspends(id);
        let asked = switch.asked();
        let wanted = [SwitchOrder::Hold(name()), SwitchOrder::Suspend(name())];
        assert_eq!(asked, wanted);
        let is_paused = |bed: &Bed| {
            let mut xen = bed.host.xen.clone();
            let info = xen.info(GUEST).unwrap().unwrap();
            info.is_paused()
        };
        assert!(is_paused(&bed));
        switch.wants(&mut bed, "www", WakeFrame::Syn);
        // The switch has given it the frame, and is told later that it gets all from now on.
        assert!(!is_paused(&bed));
        assert!(switch.asked().is_empty());
        bed.daemon.catch_up();
        assert_eq!(switch.asked(), [SwitchOrder::Open(name())]);
        let life = Life {
            signs: vec![(Sign::Answer, 1000)],
            attached: 3000,
            held: 1,
        };
        let lives = SentNotice::Lives {
            name: name(),
            domain: GUEST,
            life,
        };
        switch.says(&mut bed, lives);
        assert!(matches!(bed.state("www"), ServiceState::Running(_)));
    }
    // The port is the switch's, and others' frames come by it: nothing is changed about it.
    assert!(bed.ports.1.borrow().is_empty());
    assert_eq!(bed.ordered(), [format!("make {}", id.0)]);
}

#[test]
fn the_next_switch_holds_for_a_suspended_guest() {
    let (mut bed, switch, id) = runs();
    bed.suspends(id);
    drop(switch);
    bed.daemon.hear_switch();
    bed.daemon.meet_switch();
    let mut switch = Switch::of(&bed);
    let asked = switch.asked();
    assert!(is_declared(&asked, "www"), "{asked:?}");
    assert!(
        asked.contains(&SwitchOrder::Suspend("www".to_owned())),
        "{asked:?}"
    );
    // It goes on before the switch is told that it does, and is suspended again before that.
    switch.wants(&mut bed, "www", WakeFrame::Syn);
    bed.daemon.fleet.step(
        Instant::now(),
        FleetEvent::Heard(id),
        &mut bed.daemon.actions,
    );
    bed.suspends(id);
    let asked = switch.asked();
    let last = asked.last();
    assert_eq!(last, Some(&SwitchOrder::Suspend("www".to_owned())));
}
