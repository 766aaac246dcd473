//! Tests of guests whose image or site was replaced.

use super::*;

/// Replaces the files of a service.
fn outdate(play: &mut Play, id: ServiceId) -> Vec<FleetAction> {
    let mut actions = Vec::new();
    play.fleet.outdate(id, &mut actions);
    actions
}

#[test]
fn a_guest_whose_files_were_replaced_goes_when_nobody_uses_it() {
    // A service that never sleeps, one that sleeps, and one that is suspended when it sleeps.
    for (on_demand, asleep) in [
        (false, Asleep::Destroy),
        (true, Asleep::Destroy),
        (true, Asleep::Suspend),
    ] {
        let mut play = Play::new(limits());
        let spec = ServiceSpec {
            on_demand,
            asleep,
            idle_hard: (!on_demand).then_some(Duration::from_secs(30)),
            ..spec()
        };
        play.fleet.change(A, spec, false, &mut Vec::new());
        play.up(A, 7);
        assert_eq!(outdate(&mut play, A), []);
        // It stays as long as a connection is open, even if it is quiet.
        assert_eq!(play.after(20), [FleetAction::Ask(A)]);
        assert_eq!(play.step(FleetEvent::Connections(A, Some(1))), []);
        assert_eq!(play.after(20), [FleetAction::Ask(A)]);
        let actions = play.quiet(A);
        assert_eq!(
            actions,
            [
                FleetAction::Tell(A, LogNews::Down(OUTDATED)),
                FleetAction::Remove(A, 7)
            ]
        );
        let actions = play.step(FleetEvent::Removed(A, None));
        assert_eq!(actions.contains(&FleetAction::Make(A)), !on_demand);
        if on_demand {
            continue;
        }
        // The next guest is up to date, and never sleeps.
        play.step(FleetEvent::Made(A, 8));
        play.step(FleetEvent::Heard(A));
        assert_eq!(play.after(1000), []);
    }
}

#[test]
fn a_suspended_guest_whose_files_were_replaced_goes_at_once() {
    let mut play = Play::new(limits());
    let asleep = Asleep::Suspend;
    play.fleet
        .change(A, ServiceSpec { asleep, ..spec() }, false, &mut Vec::new());
    play.up(A, 7);
    assert_eq!(play.after(20), [FleetAction::Ask(A)]);
    assert!(play.quiet(A).contains(&FleetAction::Suspend(A, 7)));
    assert!(outdate(&mut play, A).contains(&FleetAction::Remove(A, 7)));
    // A service without a guest is not outdated.
    play.step(FleetEvent::Removed(A, None));
    assert_eq!(outdate(&mut play, A), []);
    assert_eq!(outdate(&mut play, ServiceId(99)), []);
}
