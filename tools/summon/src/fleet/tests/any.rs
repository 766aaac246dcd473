//! Property tests with arbitrary events in arbitrary order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::super::held::{Bounds, HeldFrames};
use super::*;

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    /// The guest gets each frame once, whenever frames come, are read, and the bridge learns of the vif. Held frames
    /// keep their order.
    #[test]
    fn each_frame_reaches_the_guest_once(steps in proptest::collection::vec(0u8..3, 0..60), made_at in 0usize..60) {
        let bounds = Bounds { frames: 100, bytes: 100 };
        let mut play = Play::new(limits());
        let (mut held, mut port, mut guest) = (HeldFrames::default(), VecDeque::new(), Vec::new());
        play.step(FleetEvent::Wanted(A, client(1)));
        let mut sent = 0;
        let mut is_directed = false;
        let steps = steps.into_iter().map(Some).chain([None; 60]);
        for (at, step) in steps.enumerate() {
            if at == made_at {
                // As `Daemon::made` does: first the bridge, then the held frames.
                is_directed = true;
                guest.extend(held.replay().flatten());
                play.step(FleetEvent::Made(A, 7));
            }
            if step == Some(0) {
                if is_directed { guest.push(sent) } else { port.push_back(sent) }
                sent += 1;
            } else if let Some(frame) = port.pop_front() {
                match play.fleet.stance(A) {
                    Stance::Holds | Stance::Leaves => held.push(&[frame], bounds),
                    // The bridge forwards the frame to the port of its entry.
                    Stance::Takes if is_directed => guest.push(frame),
                    stance => prop_assert!(false, "{frame} is lost: {stance:?}"),
                }
            }
        }
        let replayed = usize::try_from(held.counts.replayed).unwrap();
        prop_assert!(guest[..replayed].is_sorted());
        let mut all = guest.clone();
        all.sort_unstable();
        prop_assert_eq!(all, (0..sent).collect::<Vec<u8>>());
        prop_assert_eq!(held.counts.dropped, 0);
    }

    /// With any events in any order, the limit of guests holds, and only existing guests are removed.
    #[test]
    fn any_events(events in proptest::collection::vec((0u8..10, 1u32..4, 0u8..4), 0..200)) {
        let limits = SummonLimits { running: 2, queue: 2, ..limits() };
        let mut play = Play::new(limits);
        let asleep = Asleep::Suspend;
        play.fleet.change(B, ServiceSpec { asleep, ..spec() }, false, &mut Vec::new());
        let mut alive = std::collections::BTreeMap::new();
        let mut still = std::collections::BTreeSet::new();
        for (domid, (kind, id, n)) in (1u16..).zip(events) {
            let id = ServiceId(id);
            let state = play.state(id);
            // The maker's events follow from its actions.
            let event = match kind {
                0..=2 => FleetEvent::Wanted(id, client(n)),
                3 if state == ServiceState::BeingBorn => { alive.insert(id, domid); FleetEvent::Made(id, domid) }
                4 if state == ServiceState::BeingBorn => FleetEvent::NotMade(id, "no".into()),
                5 => FleetEvent::Heard(id),
                6 => FleetEvent::Connections(id, u32::from(n).checked_sub(1)),
                7 => FleetEvent::Ended(id, n == 0, "ended".into()),
                8 if matches!(state, ServiceState::Dying(_)) => { alive.remove(&id); FleetEvent::Removed(id, None) }
                _ => { play.now += Duration::from_secs(u64::from(n) * 10); FleetEvent::Time }
            };
            for action in play.step(event) {
                if let FleetAction::Remove(id, domid) | FleetAction::Suspend(id, domid) | FleetAction::Resume(id, domid) = action {
                    prop_assert_eq!(alive.get(&id), Some(&domid));
                }
                match action {
                    FleetAction::Suspend(id, _) => prop_assert!(still.insert(id)),
                    FleetAction::Resume(id, _) => prop_assert!(still.remove(&id)),
                    FleetAction::Remove(id, _) => drop(still.remove(&id)),
                    _ => {}
                }
            }
            prop_assert!(play.fleet.used().0 <= 2);
            prop_assert!(play.fleet.queue.len() <= 3);
        }
    }
}
