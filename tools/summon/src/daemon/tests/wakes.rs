//! Tests of the work that a wake does at once, and of the work that it postpones.

use super::*;

#[test]
fn a_wake_is_decided_and_the_front_knows_how_to_stand() {
    let mut bed = bed("").alone();
    let id = bed.id("www");
    bed.says(ToMaker::Wake(bed.wake("www", Some(5)))).unwrap();
    assert_eq!(bed.ordered(), [format!("make {}", id.0)]);
    // The front is told with the next message, or a little later.
    assert_eq!(bed.heard(), []);
    bed.says(ToMaker::Wake(bed.wake("www", Some(6)))).unwrap();
    let (first, second) = (ToFront::Decided(5, true), ToFront::Decided(6, true));
    let holds = ToFront::Is(id, Stance::Holds);
    assert_eq!(bed.heard(), [first, holds, second]);
    bed.made("www", GUEST);
    assert_eq!(bed.heard(), [ToFront::Is(id, Stance::Takes)]);
    // The service goes to sleep: the front holds frames before the bridge sends it any.
    bed.daemon.fleet.end(id, "test", &mut bed.daemon.actions);
    bed.daemon.carry_out();
    bed.daemon.way.flush();
    assert_eq!(bed.heard(), [ToFront::Is(id, Stance::Sleeps)]);
    assert_eq!(bed.ordered(), [format!("remove {} {GUEST}", id.0)]);
    assert!(bed.ports.0.borrow().values().all(|port| port == "summon9"));
}

#[test]
fn what_nobody_waits_for_is_put_off_while_a_guest_is_made() {
    let mut bed = bed("").alone();
    let id = bed.id("www");
    bed.says(ToMaker::Wake(bed.wake("www", Some(5)))).unwrap();
    let at = bed.daemon.later.at().unwrap();
    assert!(bed.daemon.deadline().is_some_and(|until| until <= at));
    assert_eq!(bed.heard(), []);
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
    bed.daemon.pass();
    assert_eq!(bed.daemon.later.at(), None);
    bed.daemon.way.flush();
    let decided = ToFront::Decided(5, true);
    assert_eq!(bed.heard(), [decided, ToFront::Is(id, Stance::Holds)]);
    // The client of a DNS query will send a packet soon.
    bed.says(ToMaker::Wake(bed.wake("one", None))).unwrap();
    assert_eq!(bed.heard(), [ToFront::Is(bed.id("one"), Stance::Holds)]);
    bed.daemon
        .told(MakerReport::NotMade(bed.id("one"), "test".into()));
    bed.daemon.carry_out();
    // A refusal is sent at once.
    for n in 6..9 {
        bed.says(ToMaker::Wake(bed.wake("one", Some(n)))).unwrap();
        bed.daemon
            .told(MakerReport::NotMade(bed.id("one"), "test".into()));
        bed.daemon.carry_out();
    }
    assert!(bed.heard().contains(&ToFront::Decided(8, false)));
}

#[test]
fn a_guest_goes_on_before_all_that_nobody_waits_for() {
    let mut bed = bed("asleep = \"suspend\"").alone();
    let id = bed.id("www");
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    bed.made("www", GUEST);
    let sleep = |bed: &mut Bed| {
        let mut actions = Vec::new();
        let fleet = &mut bed.daemon.fleet;
        fleet
            .command(Instant::now(), id, Command::Sleep, &mut actions)
            .unwrap();
        bed.daemon.actions.extend(actions);
        bed.daemon.carry_out();
        assert!(matches!(bed.state("www"), ServiceState::Suspended(..)));
    };
    let mac = bed.daemon.entries[&id].service.mac;
    let vif = "vif7.0".to_owned();
    bed.ports.0.borrow_mut().insert(mac, vif);
    sleep(&mut bed);
    assert_eq!(*bed.ports.1.borrow(), [false]);
    // It was told to sleep, not asked whether it may: its packets went to it until now.
    assert_eq!(bed.ports.0.borrow()[&mac], "summon9");
    bed.daemon.way.flush();
    bed.heard();
    bed.says(ToMaker::Wake(bed.wake("www", Some(5)))).unwrap();
    // One packet has all messages that the front waits for.
    let takes = ToFront::Is(id, Stance::Takes);
    assert_eq!(bed.heard(), [ToFront::Decided(5, true), takes]);
    assert_eq!(*bed.ports.1.borrow(), [false]);
    // It sleeps again before the postponed work was done: the last state counts.
    sleep(&mut bed);
    assert_eq!(*bed.ports.1.borrow(), [false, true, false]);
    bed.daemon.catch_up();
    assert_eq!(bed.ports.1.borrow().len(), 3);
}
