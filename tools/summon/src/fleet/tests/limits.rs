//! Tests of the limits: which service gets a guest when not all can have one.

use super::*;

#[test]
fn one_network_can_not_have_all_births() {
    let mut play = Play::new(SummonLimits {
        births_per_prefix: 1,
        ..limits()
    });
    assert_eq!(
        play.step(FleetEvent::Wanted(A, client(1))),
        [FleetAction::Make(A)]
    );
    assert_eq!(play.step(FleetEvent::Wanted(B, client(1))), []);
    assert_eq!(
        (play.state(B), play.fleet.refused.prefix),
        (ServiceState::Asleep, 1)
    );
    assert_eq!(
        play.step(FleetEvent::Wanted(B, client(2))),
        [FleetAction::Make(B)]
    );
    play.after(10);
    assert_eq!(
        play.step(FleetEvent::Wanted(C, client(1))),
        [FleetAction::Make(C)]
    );
}

#[test]
fn who_is_over_a_cap_waits_for_room() {
    for limits in [
        SummonLimits {
            running: 1,
            ..limits()
        },
        SummonLimits {
            memory: 19,
            ..limits()
        },
    ] {
        let mut play = Play::new(limits);
        play.up(A, 7);
        assert_eq!(
            play.step(FleetEvent::Wanted(B, client(1))),
            [FleetAction::Tell(B, LogNews::Queued)]
        );
        assert!(play.fleet.holds(B));
        play.after(20);
        play.quiet(A);
        let actions = play.step(FleetEvent::Removed(A, None));
        assert!(actions.contains(&FleetAction::Make(B)), "{actions:?}");
    }
}

#[test]
fn births_are_limited_in_time_and_the_queue_in_length() {
    let mut play = Play::new(SummonLimits {
        births_per_second: 1,
        burst: 1,
        queue: 1,
        ..limits()
    });
    assert_eq!(
        play.step(FleetEvent::Wanted(A, client(1))),
        [FleetAction::Make(A)]
    );
    play.step(FleetEvent::Wanted(B, client(1)));
    assert_eq!(play.step(FleetEvent::Wanted(C, client(1))), []);
    assert_eq!(
        (play.state(C), play.fleet.refused.queue),
        (ServiceState::Asleep, 1)
    );
    assert_eq!(
        play.fleet.deadline(),
        Some(play.now + Duration::from_secs(1))
    );
    assert_eq!(play.after(1), [FleetAction::Make(B)]);
}

/// Makes a running guest of a service that has sent something.
fn up(play: &mut Play, id: ServiceId, domid: u16) {
    play.step(FleetEvent::Wanted(id, client(0)));
    play.step(FleetEvent::Made(id, domid));
    play.step(FleetEvent::Heard(id));
}

#[test]
fn who_chatters_keeps_nobody_out() {
    let turn = Duration::from_secs(30);
    let mut play = Play::new(SummonLimits {
        running: 1,
        turn,
        ..limits()
    });
    up(&mut play, A, 1);
    play.step(FleetEvent::Wanted(B, client(1)));
    // It sends something all the time, so it is never quiet.
    for _ in 0..29 {
        play.step(FleetEvent::Heard(A));
        assert!(!play.after(1).contains(&FleetAction::Remove(A, 1)));
    }
    assert_eq!(
        play.fleet.deadline(),
        Some(play.now + Duration::from_secs(1))
    );
    assert!(play.after(1).contains(&FleetAction::Remove(A, 1)));
    assert!(
        play.step(FleetEvent::Removed(A, None))
            .contains(&FleetAction::Make(B))
    );
}

#[test]
fn no_guest_outlives_its_lifetime() {
    let mut play = Play::new(limits());
    let lifetime = Some(Duration::from_secs(100));
    let spec = ServiceSpec { lifetime, ..spec() };
    play.fleet.change(A, spec, false, &mut Vec::new());
    up(&mut play, A, 1);
    for _ in 0..9 {
        play.step(FleetEvent::Heard(A));
        assert!(!play.after(11).contains(&FleetAction::Remove(A, 1)));
    }
    play.step(FleetEvent::Heard(A));
    assert!(play.after(1).contains(&FleetAction::Remove(A, 1)));
}

#[test]
fn a_slow_image_has_its_time() {
    let mut play = Play::new(limits());
    let start_timeout = Duration::from_secs(60);
    let spec = ServiceSpec {
        start_timeout,
        ..spec()
    };
    play.fleet.change(A, spec, false, &mut Vec::new());
    play.step(FleetEvent::Wanted(A, client(0)));
    play.step(FleetEvent::Made(A, 1));
    assert_eq!(play.after(59), []);
    assert!(play.after(1).contains(&FleetAction::Remove(A, 1)));
}
