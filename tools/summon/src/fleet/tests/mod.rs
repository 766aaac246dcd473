//! Tests of sequences of events and their actions.

mod any;
mod limits;
mod outdated;

use std::net::IpAddr;

use super::super::config::Asleep;
use super::*;

const A: ServiceId = ServiceId(1);
const B: ServiceId = ServiceId(2);
const C: ServiceId = ServiceId(3);
/// The start timeout of the services.
const SILENCE: Duration = Duration::from_secs(5);

fn limits() -> SummonLimits {
    SummonLimits {
        births_per_second: 100,
        burst: 100,
        births_per_prefix: 100,
        running: 10,
        memory: 100,
        queue: 10,
        ..SummonLimits::default()
    }
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        memory: 10,
        idle: Duration::from_secs(20),
        idle_hard: None,
        start_timeout: SILENCE,
        lifetime: None,
        asleep: Asleep::Destroy,
        on_demand: true,
    }
}

fn client(n: u8) -> Option<Prefix> {
    Some(IpAddr::from([192, 0, n, 1]).into())
}

/// A fleet and its clock.
struct Play {
    fleet: Fleet,
    now: Instant,
}

impl Play {
    fn new(limits: SummonLimits) -> Self {
        let mut fleet = Fleet::new(limits);
        for id in [A, B, C] {
            fleet.add(id, spec());
        }
        let now = Instant::now();
        Self { fleet, now }
    }

    fn step(&mut self, event: FleetEvent) -> Vec<FleetAction> {
        let mut actions = Vec::new();
        self.fleet.step(self.now, event, &mut actions);
        actions
    }

    fn after(&mut self, seconds: u64) -> Vec<FleetAction> {
        self.now += Duration::from_secs(seconds);
        self.step(FleetEvent::Time)
    }

    /// The guest has no connections, and no client comes afterwards.
    fn quiet(&mut self, id: ServiceId) -> Vec<FleetAction> {
        assert_eq!(
            self.step(FleetEvent::Connections(id, Some(0))),
            [FleetAction::Shut(id)]
        );
        assert_eq!(self.fleet.stance(id), Stance::Leaves);
        assert!(!self.fleet.takes(id));
        self.now += LAST_LOOK;
        let mut actions = self.step(FleetEvent::Time);
        assert_eq!(actions.remove(0), FleetAction::Drop(id));
        actions
    }

    fn state(&self, id: ServiceId) -> ServiceState {
        self.fleet.unit(id).unwrap().state
    }

    /// Brings a service from asleep to running.
    fn up(&mut self, id: ServiceId, domid: u16) {
        assert_eq!(
            self.step(FleetEvent::Wanted(id, client(1))),
            [FleetAction::Make(id)]
        );
        assert_eq!(self.step(FleetEvent::Made(id, domid)), []);
        assert_eq!(
            self.step(FleetEvent::Heard(id)),
            [FleetAction::Tell(id, LogNews::Up)]
        );
    }
}

#[test]
fn a_life() {
    let mut play = Play::new(limits());
    assert!(!play.fleet.holds(A) && !play.fleet.takes(A));
    assert_eq!(
        play.step(FleetEvent::Wanted(A, client(1))),
        [FleetAction::Make(A)]
    );
    assert!(play.fleet.holds(A));
    assert_eq!(play.step(FleetEvent::Wanted(A, client(2))), []);
    assert_eq!(play.step(FleetEvent::Made(A, 7)), []);
    assert!(play.fleet.takes(A));
    play.step(FleetEvent::Heard(A));
    assert_eq!(play.after(19), []);
    play.step(FleetEvent::Heard(A));
    assert_eq!(play.after(19), []);
    assert_eq!(play.after(1), [FleetAction::Ask(A)]);
    // It has a connection, so it is asked again, but not at once.
    assert_eq!(play.step(FleetEvent::Connections(A, Some(1))), []);
    assert_eq!(play.step(FleetEvent::Time), []);
    assert_eq!(play.after(1), [FleetAction::Ask(A)]);
    assert_eq!(
        play.quiet(A),
        [
            FleetAction::Tell(A, LogNews::Down("it is idle")),
            FleetAction::Remove(A, 7)
        ]
    );
    assert_eq!(
        play.step(FleetEvent::Removed(A, None)),
        [FleetAction::Tell(A, LogNews::Asleep)]
    );
    assert_eq!(play.state(A), ServiceState::Asleep);
    let unit = play.fleet.unit(A).unwrap();
    assert_eq!((unit.births, unit.deaths, unit.failures), (1, 1, 0));
}

/// Brings a service to suspended, after it ran as this domain.
fn suspended(play: &mut Play, id: ServiceId, domid: u16) {
    let asleep = Asleep::Suspend;
    let spec = ServiceSpec { asleep, ..spec() };
    play.fleet.change(id, spec, false, &mut Vec::new());
    play.up(id, domid);
    assert_eq!(play.after(20), [FleetAction::Ask(id)]);
    assert_eq!(
        play.quiet(id),
        [
            FleetAction::Suspend(id, domid),
            FleetAction::Tell(id, LogNews::Suspended)
        ]
    );
}

#[test]
fn a_suspended_guest_goes_on_at_once() {
    let mut play = Play::new(limits());
    suspended(&mut play, A, 7);
    assert!(!play.fleet.holds(A) && !play.fleet.takes(A));
    assert_eq!(play.fleet.used(), (1, 10));
    assert_eq!(play.after(1000), []);
    let resumed = [
        FleetAction::Resume(A, 7),
        FleetAction::Tell(A, LogNews::Resumed),
    ];
    assert_eq!(play.step(FleetEvent::Wanted(A, client(1))), resumed);
    assert!(play.fleet.takes(A));
    play.now += Duration::from_secs(1);
    play.step(FleetEvent::Heard(A));
    // The guest does not answer, but has sent something: perhaps there is no route for the question.
    assert_eq!(play.after(20), [FleetAction::Ask(A)]);
    assert_eq!(
        play.step(FleetEvent::Connections(A, None)),
        [FleetAction::Shut(A)]
    );
    play.after(1);
    assert_eq!(play.step(FleetEvent::Wanted(A, client(1))), resumed);
    let unit = play.fleet.unit(A).unwrap();
    assert_eq!((unit.births, unit.resumes, unit.deaths), (1, 2, 0));
}

#[test]
fn who_comes_at_the_last_moment_is_not_left() {
    for event in [FleetEvent::Heard(A), FleetEvent::Wanted(A, client(1))] {
        let mut play = Play::new(limits());
        play.up(A, 7);
        play.after(20);
        assert_eq!(
            play.step(FleetEvent::Connections(A, Some(0))),
            [FleetAction::Shut(A)]
        );
        assert_eq!(play.step(event), [FleetAction::Open(A)]);
        assert!(play.fleet.takes(A));
        assert_eq!(play.after(19), []);
        assert_eq!(play.after(1), [FleetAction::Ask(A)]);
    }
}

#[test]
fn a_resumed_guest_that_was_never_heard_is_made_anew() {
    let mut play = Play::new(limits());
    suspended(&mut play, A, 7);
    play.step(FleetEvent::Wanted(A, client(1)));
    assert_eq!(play.after(20), [FleetAction::Ask(A)]);
    let actions = play.step(FleetEvent::Connections(A, None));
    assert!(actions.contains(&FleetAction::Remove(A, 7)), "{actions:?}");
}

#[test]
fn who_was_suspended_first_makes_room() {
    let limits = SummonLimits {
        running: 2,
        ..limits()
    };
    let mut play = Play::new(limits);
    suspended(&mut play, A, 7);
    suspended(&mut play, B, 8);
    let actions = play.step(FleetEvent::Wanted(C, client(1)));
    assert!(actions.contains(&FleetAction::Remove(A, 7)), "{actions:?}");
    assert!(!actions.contains(&FleetAction::Remove(B, 8)), "{actions:?}");
    assert!(play.fleet.holds(C));
    let actions = play.step(FleetEvent::Removed(A, None));
    assert!(actions.contains(&FleetAction::Make(C)), "{actions:?}");
}

#[test]
fn one_that_ends_while_it_is_suspended_is_removed() {
    let mut play = Play::new(limits());
    suspended(&mut play, A, 7);
    let actions = play.step(FleetEvent::Ended(A, false, "gone".into()));
    assert!(actions.contains(&FleetAction::Remove(A, 7)), "{actions:?}");
    assert_eq!(
        play.step(FleetEvent::Removed(A, None)),
        [FleetAction::Tell(A, LogNews::Asleep)]
    );
}

#[test]
fn who_is_heard_after_it_was_asked_stays() {
    let mut play = Play::new(limits());
    play.up(A, 7);
    assert_eq!(play.after(20), [FleetAction::Ask(A)]);
    play.step(FleetEvent::Heard(A));
    assert_eq!(play.step(FleetEvent::Connections(A, Some(0))), []);
    assert!(play.fleet.takes(A));
}

#[test]
fn who_comes_while_it_dies_gets_the_next_one() {
    let mut play = Play::new(limits());
    play.up(A, 7);
    play.after(20);
    play.quiet(A);
    assert!(!play.fleet.holds(A));
    assert_eq!(play.step(FleetEvent::Wanted(A, client(1))), []);
    assert!(play.fleet.holds(A));
    assert_eq!(
        play.step(FleetEvent::Removed(A, None)),
        [FleetAction::Make(A)]
    );
}

#[test]
fn an_open_connection_keeps_it_until_the_hard_limit() {
    let mut play = Play::new(limits());
    let hard = ServiceSpec {
        idle_hard: Some(Duration::from_secs(60)),
        ..spec()
    };
    play.fleet.change(A, hard, false, &mut Vec::new());
    play.up(A, 7);
    for _ in 0..59 {
        for action in play.after(1) {
            assert_eq!(action, FleetAction::Ask(A));
            play.step(FleetEvent::Connections(A, Some(1)));
        }
    }
    assert!(play.after(1).contains(&FleetAction::Remove(A, 7)));
}

#[test]
fn failures_are_backed_off() {
    let mut play = Play::new(limits());
    for pause in [1, 2, 4, 8] {
        assert_eq!(
            play.step(FleetEvent::Wanted(A, client(1))),
            [FleetAction::Make(A)]
        );
        let failed = LogNews::Failed("no image".into(), Duration::from_secs(pause));
        assert_eq!(
            play.step(FleetEvent::NotMade(A, "no image".into())),
            [FleetAction::Drop(A), FleetAction::Tell(A, failed)]
        );
        assert_eq!(play.step(FleetEvent::Wanted(A, client(1))), []);
        assert!(!play.fleet.holds(A));
        assert_eq!(play.after(pause), []);
    }
    assert_eq!(play.fleet.refused.backed_off, 4);
    // A long life resets the back-off.
    play.up(A, 7);
    play.after(10);
    play.step(FleetEvent::Ended(A, true, "crash".into()));
    let pause = Duration::from_secs(1);
    let actions = play.step(FleetEvent::Removed(A, None));
    assert!(actions.contains(&FleetAction::Tell(
        A,
        LogNews::Failed("crash".into(), pause)
    )));
}

#[test]
fn who_says_nothing_is_removed() {
    let mut play = Play::new(limits());
    play.step(FleetEvent::Wanted(A, client(1)));
    play.step(FleetEvent::Made(A, 7));
    assert_eq!(play.fleet.deadline(), Some(play.now + SILENCE));
    assert!(play.after(5).contains(&FleetAction::Remove(A, 7)));
    play.step(FleetEvent::Removed(A, None));
    assert!(matches!(play.state(A), ServiceState::BackedOff(_)));
}

#[test]
fn what_never_sleeps_is_made_again() {
    let mut play = Play::new(limits());
    let always = ServiceSpec {
        on_demand: false,
        ..spec()
    };
    play.fleet.change(A, always, false, &mut Vec::new());
    play.up(A, 7);
    assert_eq!(play.after(1000), []);
    play.step(FleetEvent::Ended(A, false, "poweroff".into()));
    let actions = play.step(FleetEvent::Removed(A, None));
    assert!(actions.contains(&FleetAction::Make(A)), "{actions:?}");
}

#[test]
fn who_leaves_is_removed_first() {
    let mut play = Play::new(limits());
    play.up(A, 7);
    let mut actions = Vec::new();
    play.fleet.leave(A, &mut actions);
    assert!(actions.contains(&FleetAction::Remove(A, 7)));
    assert_eq!(play.step(FleetEvent::Wanted(A, client(1))), []);
    let actions = play.step(FleetEvent::Removed(A, None));
    assert_eq!(actions, [FleetAction::Drop(A), FleetAction::Gone(A)]);
    assert!(play.fleet.unit(A).is_none());
    // A guest that is being made is removed as soon as it is ready.
    play.step(FleetEvent::Wanted(B, client(1)));
    play.fleet.leave(B, &mut Vec::new());
    assert!(
        play.step(FleetEvent::Made(B, 8))
            .contains(&FleetAction::Remove(B, 8))
    );
}

#[test]
fn a_guest_of_an_old_make_does_not_stay() {
    let mut play = Play::new(limits());
    play.step(FleetEvent::Wanted(A, client(1)));
    play.fleet.change(A, spec(), true, &mut Vec::new());
    assert!(
        play.step(FleetEvent::Made(A, 7))
            .contains(&FleetAction::Remove(A, 7))
    );
}

#[test]
fn the_administrator_is_obeyed() {
    let mut play = Play::new(limits());
    let command = |play: &mut Play, id, command| {
        let mut actions = Vec::new();
        let done = play.fleet.command(play.now, id, command, &mut actions);
        done.map(|()| actions)
    };
    assert_eq!(
        command(&mut play, A, Command::Wake),
        Ok(vec![FleetAction::Make(A)])
    );
    assert_eq!(command(&mut play, A, Command::Sleep), Ok(vec![]));
    assert!(
        play.step(FleetEvent::Made(A, 9))
            .contains(&FleetAction::Remove(A, 9))
    );
    play.step(FleetEvent::Removed(A, None));
    assert_eq!(
        command(&mut play, A, Command::Restart),
        Ok(vec![FleetAction::Make(A)])
    );
    play.step(FleetEvent::Made(A, 1));
    play.step(FleetEvent::Heard(A));
    assert!(
        command(&mut play, A, Command::Restart)
            .unwrap()
            .contains(&FleetAction::Remove(A, 1))
    );
    assert!(
        play.step(FleetEvent::Removed(A, None))
            .contains(&FleetAction::Make(A))
    );
    play.step(FleetEvent::Made(A, 2));
    play.step(FleetEvent::Heard(A));
    command(&mut play, A, Command::Restart).unwrap();
    command(&mut play, A, Command::Sleep).unwrap();
    let after = play.step(FleetEvent::Removed(A, None));
    assert!(!after.contains(&FleetAction::Make(A)), "{after:?}");
    play.up(A, 2);
    assert!(
        command(&mut play, A, Command::Sleep)
            .unwrap()
            .contains(&FleetAction::Remove(A, 2))
    );
    play.step(FleetEvent::Removed(A, None));
    // A service that has failed lately is tried at once.
    play.step(FleetEvent::Wanted(A, client(0)));
    play.step(FleetEvent::NotMade(A, "no memory".into()));
    assert_eq!(play.step(FleetEvent::Wanted(A, client(0))), []);
    assert!(
        command(&mut play, A, Command::Wake)
            .unwrap()
            .contains(&FleetAction::Make(A))
    );
    let spec = ServiceSpec {
        on_demand: false,
        ..spec()
    };
    play.fleet.change(B, spec, false, &mut Vec::new());
    assert!(command(&mut play, B, Command::Sleep).is_err());
}
