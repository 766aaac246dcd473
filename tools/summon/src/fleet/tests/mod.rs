//! Tests of sequences of events and their actions.

mod any;
mod limits;
mod outdated;

use std::net::IpAddr;

use super::super::config::Asleep;
use super::*;

const A: Id = Id(1);
const B: Id = Id(2);
const C: Id = Id(3);
/// The start timeout of the services.
const SILENCE: Duration = Duration::from_secs(5);

fn limits() -> Limits {
    Limits {
        births_per_second: 100,
        burst: 100,
        births_per_prefix: 100,
        running: 10,
        memory: 100,
        queue: 10,
        ..Limits::default()
    }
}

fn spec() -> Spec {
    Spec {
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
    fn new(limits: Limits) -> Self {
        let mut fleet = Fleet::new(limits);
        for id in [A, B, C] {
            fleet.add(id, spec());
        }
        let now = Instant::now();
        Self { fleet, now }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.fleet.step(self.now, event, &mut actions);
        actions
    }

    fn after(&mut self, seconds: u64) -> Vec<Action> {
        self.now += Duration::from_secs(seconds);
        self.step(Event::Time)
    }

    /// The guest has no connections, and no client comes afterwards.
    fn quiet(&mut self, id: Id) -> Vec<Action> {
        assert_eq!(
            self.step(Event::Connections(id, Some(0))),
            [Action::Shut(id)]
        );
        assert_eq!(self.fleet.stance(id), Stance::Leaves);
        assert!(!self.fleet.takes(id));
        self.now += LAST_LOOK;
        let mut actions = self.step(Event::Time);
        assert_eq!(actions.remove(0), Action::Drop(id));
        actions
    }

    fn state(&self, id: Id) -> State {
        self.fleet.unit(id).unwrap().state
    }

    /// Brings a service from asleep to running.
    fn up(&mut self, id: Id, domid: u16) {
        assert_eq!(self.step(Event::Wanted(id, client(1))), [Action::Make(id)]);
        assert_eq!(self.step(Event::Made(id, domid)), []);
        assert_eq!(self.step(Event::Heard(id)), [Action::Tell(id, Tell::Up)]);
    }
}

#[test]
fn a_life() {
    let mut play = Play::new(limits());
    assert!(!play.fleet.holds(A) && !play.fleet.takes(A));
    assert_eq!(play.step(Event::Wanted(A, client(1))), [Action::Make(A)]);
    assert!(play.fleet.holds(A));
    assert_eq!(play.step(Event::Wanted(A, client(2))), []);
    assert_eq!(play.step(Event::Made(A, 7)), []);
    assert!(play.fleet.takes(A));
    play.step(Event::Heard(A));
    assert_eq!(play.after(19), []);
    play.step(Event::Heard(A));
    assert_eq!(play.after(19), []);
    assert_eq!(play.after(1), [Action::Ask(A)]);
    // It has a connection, so it is asked again, but not at once.
    assert_eq!(play.step(Event::Connections(A, Some(1))), []);
    assert_eq!(play.step(Event::Time), []);
    assert_eq!(play.after(1), [Action::Ask(A)]);
    assert_eq!(
        play.quiet(A),
        [
            Action::Tell(A, Tell::Down("nobody asks")),
            Action::Remove(A, 7)
        ]
    );
    assert_eq!(
        play.step(Event::Removed(A, None)),
        [Action::Tell(A, Tell::Asleep)]
    );
    assert_eq!(play.state(A), State::Asleep);
    let unit = play.fleet.unit(A).unwrap();
    assert_eq!((unit.births, unit.deaths, unit.failures), (1, 1, 0));
}

/// Brings a service to suspended, after it ran as this domain.
fn suspended(play: &mut Play, id: Id, domid: u16) {
    let asleep = Asleep::Suspend;
    let spec = Spec { asleep, ..spec() };
    play.fleet.change(id, spec, false, &mut Vec::new());
    play.up(id, domid);
    assert_eq!(play.after(20), [Action::Ask(id)]);
    assert_eq!(
        play.quiet(id),
        [
            Action::Suspend(id, domid),
            Action::Tell(id, Tell::Suspended)
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
    let resumed = [Action::Resume(A, 7), Action::Tell(A, Tell::Resumed)];
    assert_eq!(play.step(Event::Wanted(A, client(1))), resumed);
    assert!(play.fleet.takes(A));
    play.now += Duration::from_secs(1);
    play.step(Event::Heard(A));
    // The guest does not answer, but has sent something: perhaps there is no route for the question.
    assert_eq!(play.after(20), [Action::Ask(A)]);
    assert_eq!(play.step(Event::Connections(A, None)), [Action::Shut(A)]);
    play.after(1);
    assert_eq!(play.step(Event::Wanted(A, client(1))), resumed);
    let unit = play.fleet.unit(A).unwrap();
    assert_eq!((unit.births, unit.resumes, unit.deaths), (1, 2, 0));
}

#[test]
fn who_comes_at_the_last_moment_is_not_left() {
    for event in [Event::Heard(A), Event::Wanted(A, client(1))] {
        let mut play = Play::new(limits());
        play.up(A, 7);
        play.after(20);
        assert_eq!(play.step(Event::Connections(A, Some(0))), [Action::Shut(A)]);
        assert_eq!(play.step(event), [Action::Open(A)]);
        assert!(play.fleet.takes(A));
        assert_eq!(play.after(19), []);
        assert_eq!(play.after(1), [Action::Ask(A)]);
    }
}

#[test]
fn a_resumed_guest_that_was_never_heard_is_made_anew() {
    let mut play = Play::new(limits());
    suspended(&mut play, A, 7);
    play.step(Event::Wanted(A, client(1)));
    assert_eq!(play.after(20), [Action::Ask(A)]);
    let actions = play.step(Event::Connections(A, None));
    assert!(actions.contains(&Action::Remove(A, 7)), "{actions:?}");
}

#[test]
fn who_was_suspended_first_makes_room() {
    let limits = Limits {
        running: 2,
        ..limits()
    };
    let mut play = Play::new(limits);
    suspended(&mut play, A, 7);
    suspended(&mut play, B, 8);
    let actions = play.step(Event::Wanted(C, client(1)));
    assert!(actions.contains(&Action::Remove(A, 7)), "{actions:?}");
    assert!(!actions.contains(&Action::Remove(B, 8)), "{actions:?}");
    assert!(play.fleet.holds(C));
    let actions = play.step(Event::Removed(A, None));
    assert!(actions.contains(&Action::Make(C)), "{actions:?}");
}

#[test]
fn one_that_ends_while_it_is_suspended_is_removed() {
    let mut play = Play::new(limits());
    suspended(&mut play, A, 7);
    let actions = play.step(Event::Ended(A, false, "gone".into()));
    assert!(actions.contains(&Action::Remove(A, 7)), "{actions:?}");
    assert_eq!(
        play.step(Event::Removed(A, None)),
        [Action::Tell(A, Tell::Asleep)]
    );
}

#[test]
fn who_is_heard_after_it_was_asked_stays() {
    let mut play = Play::new(limits());
    play.up(A, 7);
    assert_eq!(play.after(20), [Action::Ask(A)]);
    play.step(Event::Heard(A));
    assert_eq!(play.step(Event::Connections(A, Some(0))), []);
    assert!(play.fleet.takes(A));
}

#[test]
fn who_comes_while_it_dies_gets_the_next_one() {
    let mut play = Play::new(limits());
    play.up(A, 7);
    play.after(20);
    play.quiet(A);
    assert!(!play.fleet.holds(A));
    assert_eq!(play.step(Event::Wanted(A, client(1))), []);
    assert!(play.fleet.holds(A));
    assert_eq!(play.step(Event::Removed(A, None)), [Action::Make(A)]);
}

#[test]
fn an_open_connection_keeps_it_until_the_hard_limit() {
    let mut play = Play::new(limits());
    let hard = Spec {
        idle_hard: Some(Duration::from_secs(60)),
        ..spec()
    };
    play.fleet.change(A, hard, false, &mut Vec::new());
    play.up(A, 7);
    for _ in 0..59 {
        for action in play.after(1) {
            assert_eq!(action, Action::Ask(A));
            play.step(Event::Connections(A, Some(1)));
        }
    }
    assert!(play.after(1).contains(&Action::Remove(A, 7)));
}

#[test]
fn failures_are_backed_off() {
    let mut play = Play::new(limits());
    for pause in [1, 2, 4, 8] {
        assert_eq!(play.step(Event::Wanted(A, client(1))), [Action::Make(A)]);
        let failed = Tell::Failed("no image".into(), Duration::from_secs(pause));
        assert_eq!(
            play.step(Event::NotMade(A, "no image".into())),
            [Action::Drop(A), Action::Tell(A, failed)]
        );
        assert_eq!(play.step(Event::Wanted(A, client(1))), []);
        assert!(!play.fleet.holds(A));
        assert_eq!(play.after(pause), []);
    }
    assert_eq!(play.fleet.refused.backed_off, 4);
    // A long life resets the back-off.
    play.up(A, 7);
    play.after(10);
    play.step(Event::Ended(A, true, "crash".into()));
    let pause = Duration::from_secs(1);
    let actions = play.step(Event::Removed(A, None));
    assert!(actions.contains(&Action::Tell(A, Tell::Failed("crash".into(), pause))));
}

#[test]
fn who_says_nothing_is_removed() {
    let mut play = Play::new(limits());
    play.step(Event::Wanted(A, client(1)));
    play.step(Event::Made(A, 7));
    assert_eq!(play.fleet.deadline(), Some(play.now + SILENCE));
    assert!(play.after(5).contains(&Action::Remove(A, 7)));
    play.step(Event::Removed(A, None));
    assert!(matches!(play.state(A), State::BackedOff(_)));
}

#[test]
fn what_never_sleeps_is_made_again() {
    let mut play = Play::new(limits());
    let always = Spec {
        on_demand: false,
        ..spec()
    };
    play.fleet.change(A, always, false, &mut Vec::new());
    play.up(A, 7);
    assert_eq!(play.after(1000), []);
    play.step(Event::Ended(A, false, "poweroff".into()));
    let actions = play.step(Event::Removed(A, None));
    assert!(actions.contains(&Action::Make(A)), "{actions:?}");
}

#[test]
fn who_leaves_is_removed_first() {
    let mut play = Play::new(limits());
    play.up(A, 7);
    let mut actions = Vec::new();
    play.fleet.leave(A, &mut actions);
    assert!(actions.contains(&Action::Remove(A, 7)));
    assert_eq!(play.step(Event::Wanted(A, client(1))), []);
    let actions = play.step(Event::Removed(A, None));
    assert_eq!(actions, [Action::Drop(A), Action::Gone(A)]);
    assert!(play.fleet.unit(A).is_none());
    // A guest that is being made is removed as soon as it is ready.
    play.step(Event::Wanted(B, client(1)));
    play.fleet.leave(B, &mut Vec::new());
    assert!(play.step(Event::Made(B, 8)).contains(&Action::Remove(B, 8)));
}

#[test]
fn a_guest_of_an_old_make_does_not_stay() {
    let mut play = Play::new(limits());
    play.step(Event::Wanted(A, client(1)));
    play.fleet.change(A, spec(), true, &mut Vec::new());
    assert!(play.step(Event::Made(A, 7)).contains(&Action::Remove(A, 7)));
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
        Ok(vec![Action::Make(A)])
    );
    assert_eq!(command(&mut play, A, Command::Sleep), Ok(vec![]));
    assert!(play.step(Event::Made(A, 9)).contains(&Action::Remove(A, 9)));
    play.step(Event::Removed(A, None));
    assert_eq!(
        command(&mut play, A, Command::Restart),
        Ok(vec![Action::Make(A)])
    );
    play.step(Event::Made(A, 1));
    play.step(Event::Heard(A));
    assert!(
        command(&mut play, A, Command::Restart)
            .unwrap()
            .contains(&Action::Remove(A, 1))
    );
    assert!(
        play.step(Event::Removed(A, None))
            .contains(&Action::Make(A))
    );
    play.step(Event::Made(A, 2));
    play.step(Event::Heard(A));
    command(&mut play, A, Command::Restart).unwrap();
    command(&mut play, A, Command::Sleep).unwrap();
    let after = play.step(Event::Removed(A, None));
    assert!(!after.contains(&Action::Make(A)), "{after:?}");
    play.up(A, 2);
    assert!(
        command(&mut play, A, Command::Sleep)
            .unwrap()
            .contains(&Action::Remove(A, 2))
    );
    play.step(Event::Removed(A, None));
    // A service that has failed lately is tried at once.
    play.step(Event::Wanted(A, client(0)));
    play.step(Event::NotMade(A, "no memory".into()));
    assert_eq!(play.step(Event::Wanted(A, client(0))), []);
    assert!(
        command(&mut play, A, Command::Wake)
            .unwrap()
            .contains(&Action::Make(A))
    );
    let spec = Spec {
        on_demand: false,
        ..spec()
    };
    play.fleet.change(B, spec, false, &mut Vec::new());
    assert!(command(&mut play, B, Command::Sleep).is_err());
}
