//! A back end that keeps pages mapped, and one that never works: their cost is bounded, and all of it is returned.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::fake::{FakeXen, Ring};
use mayfly_drivers::netfront::{BufferCounts, LinkError, Notice};
use mayfly_model_tests::{Guest, NAP_NS, RENEW_NS, SECOND, numbered_frame};

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 64,
    tx_buffers: 32,
};
/// One and a half times the receive buffers of a link, and the rings.
const MOST_PAGES: usize = 64 + 32 + 4;

/// The back end works a little, leaves and comes back, `rounds` times at most.
fn reconnect(guest: &mut Guest<'_>, rounds: usize) {
    for _ in 0..rounds {
        guest.turn_until(20, |guest| guest.net.carrier());
        for number in 0..10 {
            guest.send(&numbered_frame(number, 60));
        }
        guest.turn();
        guest.world(|world| world.netback.unload(&mut world.machine, &mut world.store));
        guest.turn_until(20, |guest| guest.net.ports().is_none());
        let pages = guest.world(|world| {
            world.netback.load(&mut world.store);
            world.machine.pages_allocated()
        });
        assert!(pages <= MOST_PAGES, "{pages} pages");
    }
}

#[test]
fn a_back_end_that_reconnects_and_keeps_everything_takes_bounded_memory() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    guest.world(|world| {
        world.netback.keep_mapped = true;
        world.netback.map_all = true;
    });
    reconnect(&mut guest, 40);
    assert!(guest.notices.contains(&Notice::Kept));
    assert!(guest.notices.contains(&Notice::Link(LinkError::Kept)));
    let kept = guest.net.quarantined();
    assert!(kept > 64 && kept <= MOST_PAGES + 32, "{kept} pages");
    // This holds however long it goes on.
    reconnect(&mut guest, 40);
    guest.run_for(4000);
    reconnect(&mut guest, 10);
    assert!(guest.notices.len() < 200, "{} lines", guest.notices.len());
    // It unmaps the pages, and everything is as before at the next look.
    guest.world(|world| world.netback.let_go(&mut world.machine));
    guest.run_for(RENEW_NS / SECOND + 1);
    assert_eq!(guest.net.quarantined(), 0);
    assert!(guest.turn_until_carrier(), "{:?}", guest.net.state());
    assert_eq!(guest.net.rx_buffers(), 64, "all of its buffers");
    assert!(guest.carries(1));
    let pages = guest.world(|world| world.machine.pages_allocated());
    assert_eq!(pages, 64 + 2);
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn a_link_beside_kept_pages_is_smaller_and_grows_again() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    guest.world(|world| {
        world.netback.keep_mapped = true;
        world.netback.map_all = true;
    });
    reconnect(&mut guest, 1);
    assert!(guest.turn_until_carrier());
    assert_eq!(guest.net.rx_buffers(), 32, "half of them are left");
    assert!(guest.carries(1));
    guest.world(|world| world.netback.let_go(&mut world.machine));
    guest.run_for(RENEW_NS / SECOND + 1);
    assert_eq!(guest.net.quarantined(), 0);
    reconnect(&mut guest, 1);
    assert!(guest.turn_until_carrier());
    assert_eq!(guest.net.rx_buffers(), 64);
}

#[test]
fn transmit_pages_that_are_let_go_are_used_again_while_the_link_lives() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    guest.world(|world| {
        world.netback.keep_mapped = true;
        world.netback.map_all = true;
        world.netback.hold_tx = true;
    });
    // All pages are in flight, and stay mapped.
    for number in 0..32 {
        assert!(guest.send(&numbered_frame(number, 60)));
    }
    guest.turn();
    guest.world(|world| {
        world.netback.unload(&mut world.machine, &mut world.store);
        world.netback.hold_tx = false;
    });
    guest.turn_until(5, |_| false);
    guest.world(|world| world.netback.load(&mut world.store));
    assert!(guest.turn_until(2000, |guest| {
        guest.notices.contains(&Notice::Link(LinkError::Kept))
    }));
    assert!(!guest.net.can_send());
    guest.world(|world| world.netback.let_go(&mut world.machine));
    guest.run_for(RENEW_NS / SECOND + 1);
    assert!(guest.turn_until_carrier());
    let sent = (0..40).take_while(|&n| guest.net.send(&numbered_frame(n, 60)).is_ok());
    assert_eq!(sent.count(), 32);
}

#[test]
fn grants_that_run_out_for_a_while_cost_no_page_for_good() {
    let xen = FakeXen::new();
    xen.with(|world| world.machine.grant_frame_limit = 1);
    let config = BufferCounts {
        rx_buffers: 256,
        tx_buffers: 256,
    };
    let mut guest = Guest::boot(&xen, config).unwrap();
    assert!(guest.turn_until_carrier());
    guest.world(|world| world.netback.hold_tx = true);
    let fill = |guest: &mut Guest<'_>| {
        let sent = (0..300).take_while(|&n| guest.net.send(&numbered_frame(n, 60)).is_ok());
        sent.count()
    };
    assert_eq!(fill(&mut guest), 246);
    guest.world(|world| {
        world.netback.hold_tx = false;
        world.machine.grant_frame_limit = 8;
    });
    guest.net.flush();
    guest.run_for(RENEW_NS / SECOND + 1);
    guest.world(|world| world.netback.release(&mut world.machine));
    guest.turn();
    guest.world(|world| world.netback.hold_tx = true);
    assert_eq!(fill(&mut guest), 256);
}

#[test]
fn who_is_given_up_is_tried_again_ever_more_rarely() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    let mut broken_at = Vec::new();
    let mut was_up = false;
    let end = guest.now() + 6 * 3600 * SECOND;
    while guest.now() < end {
        guest.turn();
        let is_up = guest.world(|world| world.netback.is_connected());
        if is_up && !was_up {
            broken_at.push(guest.now() / SECOND);
        }
        was_up = is_up;
        guest.world(|world| world.netback.jump(&mut world.machine, Ring::Rx, 1000));
    }
    // 16 at once; then after 1, 2, 4 ... minutes, and each hour.
    let later = broken_at.iter().skip(16).collect::<Vec<_>>();
    assert!((8..=14).contains(&later.len()), "{broken_at:?}");
    for pair in later.windows(3) {
        let (earlier, next) = (pair[1] - pair[0], pair[2] - pair[1]);
        assert!(next + 1 >= earlier && next <= 3700, "{broken_at:?}");
    }
    let said = guest.notices.iter();
    assert_eq!(said.filter(|&&notice| notice == Notice::GivenUp).count(), 1);
    assert!(guest.net.counters().retries >= later.len() as u64);
    // The rings are no longer broken: the next attempt lasts, and failures are forgotten.
    let hour = 3700;
    guest.run_for(hour);
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(1));
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn an_idle_guest_sleeps_between_its_looks() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    guest.run_for(60);
    let (requests, polls) = (
        guest.store.counters().requests,
        guest.world(|world| world.machine.counts.poll),
    );
    guest.run_for(600);
    let looks = 600 * SECOND / RENEW_NS;
    assert_eq!(u64::from(guest.store.counters().requests - requests), looks);
    let polls = guest.world(|world| world.machine.counts.poll) - polls;
    assert!(polls < 600 * SECOND / NAP_NS + 4 * looks, "{polls} sleeps");
}
