//! The handshake as a pure function: (the front end's state, the back end's state) to actions.
//!
//! The back end does what Linux' netback does (drivers/net/xen-netback/xenbus.c, `frontend_changed`). It has no state
//! of its own but the one in xenstore: `Connected` means that the switch was given the rings. So a process that is
//! started anew goes on where its predecessor was.

use mayfly_drivers::abi::XenbusState;

/// An action of the back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackAction {
    /// Write what the switch can do.
    Offer,
    /// Give the switch the rings.
    Attach,
    /// Have the switch release the guest.
    Detach,
    /// Write this state. It comes last: a front end that sees it relies on what was done before.
    Write(XenbusState),
}

/// What is to be done, in this order.
#[must_use]
pub fn step(front: XenbusState, back: XenbusState) -> &'static [BackAction] {
    use BackAction as A;
    use XenbusState as X;
    match (front, back) {
        // Some front ends are connected before their back end is there.
        (X::Connected, X::Initialising | X::Closed) => {
            &[A::Offer, A::Attach, A::Write(X::Connected)]
        }
        (X::Connected, X::InitWait | X::Initialised) => &[A::Attach, A::Write(X::Connected)],
        // A new directory, or a front end that begins again.
        (_, X::Initialising) | (X::Initialising, X::Closed) => {
            &[A::Offer, A::Write(X::InitWait)]
        }
        // It begins again without having left.
        (X::Initialising, X::Connected) => &[A::Detach, A::Offer, A::Write(X::InitWait)],
        (X::Closing, X::InitWait | X::Initialised | X::Connected) => {
            &[A::Detach, A::Write(X::Closing)]
        }
        (X::Closed, X::InitWait | X::Initialised | X::Connected | X::Closing)
        // The front end's directory is gone.
        | (X::Unknown, X::Connected | X::Closing)
        | (X::Initialising, X::Closing) => &[A::Detach, A::Write(X::Closed)],
        _ => &[],
    }
}

/// The state that a front end is to see while netback, which has a directory of its own, serves it: netback's, as soon
/// as the front end takes part in a change. Until then it is connected and need not know.
#[must_use]
pub fn mirrored(
    front: XenbusState,
    shown: XenbusState,
    netback: XenbusState,
) -> Option<XenbusState> {
    use XenbusState as X;
    let is_taking_over = front == X::Connected
        && matches!(
            netback,
            X::Unknown | X::Initialising | X::InitWait | X::Initialised
        );
    (!is_taking_over && shown != netback && netback != X::Unknown).then_some(netback)
}

#[cfg(test)]
mod tests {
    use super::*;
    use XenbusState as X;

    /// The states that a front end sees, if it writes these.
    fn seen(mut back: X, fronts: &[X]) -> (Vec<X>, bool) {
        let mut states = Vec::new();
        let mut is_attached = back == X::Connected;
        for front in fronts {
            for _ in 0..4 {
                let actions = step(*front, back);
                for action in actions {
                    match action {
                        BackAction::Offer => {}
                        BackAction::Attach => {
                            assert!(!is_attached, "{front:?} {back:?}");
                            is_attached = true;
                        }
                        BackAction::Detach => is_attached = false,
                        BackAction::Write(state) => {
                            back = *state;
                            states.push(back);
                        }
                    }
                }
                if actions.is_empty() {
                    break;
                }
            }
            assert!(step(*front, back).is_empty(), "it settles");
            assert_eq!(is_attached, back == X::Connected, "{front:?} {back:?}");
        }
        (states, is_attached)
    }

    #[test]
    fn a_linux_guest_connects_closes_and_comes_back() {
        let fronts = [
            X::Initialising,
            X::Connected,
            X::Closing,
            X::Closed,
            X::Initialising,
            X::Connected,
        ];
        let states = [
            X::InitWait,
            X::Connected,
            X::Closing,
            X::Closed,
            X::InitWait,
            X::Connected,
        ];
        assert_eq!(seen(X::Initialising, &fronts), (states.to_vec(), true));
    }

    #[test]
    fn who_is_connected_at_once_is_served_at_once() {
        let (states, is_attached) = seen(X::Initialising, &[X::Connected]);
        assert_eq!(states, [X::Connected]);
        assert!(is_attached);
        // What the builder has connected is left alone.
        assert_eq!(seen(X::Connected, &[X::Connected]), (Vec::new(), true));
    }

    #[test]
    fn a_front_end_that_begins_again_without_leaving_is_let_go_of_first() {
        let (states, is_attached) = seen(X::Connected, &[X::Initialising]);
        assert_eq!(states, [X::InitWait]);
        assert!(!is_attached);
    }

    #[test]
    fn a_toolstack_that_unplugs_gets_its_answer() {
        // libxl writes `Closing`, and waits for `Closed`.
        for front in [X::Closed, X::Unknown] {
            assert_eq!(seen(X::Closing, &[front]), (vec![X::Closed], false));
        }
        assert!(step(X::Connected, X::Closing).is_empty(), "the guest first");
        assert!(step(X::Closing, X::Closing).is_empty());
    }

    #[test]
    fn every_pair_of_states_settles() {
        for front in 0..=8 {
            for back in 0..=8 {
                let [front, back] = [front, back].map(|state| X::parse(&[b'0' + state]));
                let mut state = back;
                for _ in 0..4 {
                    for action in step(front, state) {
                        if let BackAction::Write(next) = action {
                            state = *next;
                        }
                    }
                }
                assert!(step(front, state).is_empty(), "{front:?} {back:?}");
            }
        }
    }

    #[test]
    fn netback_takes_over_unseen() {
        for netback in [X::Initialising, X::InitWait, X::Unknown] {
            assert_eq!(mirrored(X::Connected, X::Connected, netback), None);
        }
        assert_eq!(mirrored(X::Connected, X::Connected, X::Connected), None);
        let closing = mirrored(X::Closing, X::Connected, X::Closing);
        assert_eq!(closing, Some(X::Closing));
        let again = mirrored(X::Initialising, X::Closed, X::InitWait);
        assert_eq!(again, Some(X::InitWait));
        // The front end has closed because netback did.
        let lost = mirrored(X::Connected, X::Connected, X::Closed);
        assert_eq!(lost, Some(X::Closed));
    }
}
