//! The handshake machine under any order of inputs.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::abi::XenbusState;
use mayfly_drivers::netfront::handshake::{Input, LinkAction, LinkState, step};
use proptest::prelude::*;

fn peer() -> impl Strategy<Value = Input> {
    (0_u8..=9).prop_map(|digit| Input::Peer(XenbusState::parse(&[b'0' + digit])))
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        2 => Just(Input::Start),
        6 => Just(Input::Backend(true)),
        1 => Just(Input::Backend(false)),
        1 => Just(Input::NoBackend),
        6 => Just(Input::Mac(true)),
        1 => Just(Input::Mac(false)),
        1 => Just(Input::LinkFailed),
        1 => Just(Input::PublishRefused),
        8 => peer(),
        2 => Just(Input::StoreReset),
        1 => Just(Input::Unreadable),
        1 => Just(Input::Elsewhere),
        2 => Just(Input::Activity),
        1 => Just(Input::RingBroken),
        2 => Just(Input::Online),
        2 => Just(Input::Replugged),
        2 => Just(Input::Timeout),
    ]
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(1000))]

    #[test]
    fn there_is_a_link_exactly_in_the_states_that_have_one(inputs in prop::collection::vec(input(), 0..40)) {
        let mut state = LinkState::Idle;
        let mut link = false;
        for input in inputs {
            let (next, actions) = step(state, input);
            if actions.contains(&LinkAction::Disconnect) {
                prop_assert!(link, "{state:?} {input:?}");
                link = false;
            }
            if actions.contains(&LinkAction::Connect) {
                prop_assert!(!link, "{state:?} {input:?}");
                link = true;
            }
            prop_assert_eq!(
                link,
                matches!(next, LinkState::Live { .. } | LinkState::Closing),
                "{:?} {:?}", state, input
            );
            // The back end is offered a new start only when nothing is shared.
            if actions.contains(&LinkAction::Offer) {
                prop_assert!(!link);
            }
            state = next;
        }
    }

    #[test]
    fn from_anywhere_a_back_end_that_comes_back_is_connected(inputs in prop::collection::vec(input(), 0..30)) {
        let mut state = inputs.into_iter().fold(LinkState::Idle, |state, input| step(state, input).0);
        // The inputs from the shell and a well-behaved back end: leave, be ready again, answer.
        for input in [
            Input::Start,
            Input::Backend(true),
            Input::Mac(true),
            Input::Peer(XenbusState::Connected),
            Input::Peer(XenbusState::Closing),
            Input::Peer(XenbusState::Closed),
            Input::Online,
            Input::Peer(XenbusState::InitWait),
            Input::Backend(true),
            Input::Mac(true),
            Input::Peer(XenbusState::Connected),
        ] {
            state = step(state, input).0;
        }
        prop_assert_eq!(state, LinkState::Live { carrier: true, confirmed: true });
    }
}

#[test]
fn the_boot_path_is_two_bursts() {
    let mut state = LinkState::Idle;
    let mut all = Vec::new();
    for input in [Input::Start, Input::Backend(true), Input::Mac(true)] {
        let (next, actions) = step(state, input);
        state = next;
        all.push(actions);
    }
    let bursts: [&[LinkAction]; 3] = [&[LinkAction::Discover], &[], &[LinkAction::Connect]];
    assert_eq!(all, bursts);
}

#[test]
fn a_back_end_that_works_before_it_says_connected_is_not_taken_for_a_new_one() {
    let live = LinkState::Live {
        carrier: false,
        confirmed: false,
    };
    let (state, actions) = step(live, Input::Activity);
    assert_eq!(actions, [LinkAction::ReportCarrier]);
    let (state, actions) = step(state, Input::Peer(XenbusState::InitWait));
    assert_eq!(actions, []);
    let (state, _) = step(state, Input::Peer(XenbusState::Connected));
    let (_, actions) = step(state, Input::Peer(XenbusState::InitWait));
    assert!(actions.contains(&LinkAction::Leave));
}
