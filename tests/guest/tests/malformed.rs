//! Malformed packets against driver, stack and services at once: no panic, bounded memory and work, and a good client
//! is served afterwards.
//!
//! `MAYFLY_SCALE=10` runs ten times as many cases. `MAYFLY_SEED=7` runs the one guest of that seed; with both, as many
//! guests as the scale says from that seed on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

mod common;

use std::time::Instant;

use mayfly_guest_tests::fuzz::{Figures, attack};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The number of cases of a usual run.
const CASES: u64 = 1_000_000;
/// The number of cases for one guest.
const PER_GUEST: u64 = 2_000;
/// The number of cases between two good clients.
const CHECK_EVERY: u64 = 250;
/// The memory that the process may hold at the end besides the socket buffers, in bytes: the pages of the fake, which
/// later guests reuse. The socket buffers are never freed, as in a real guest.
const HELD: usize = 16 << 20;

/// A packed site with the names and the page for good clients, and some names for the attackers.
fn packed() -> &'static [u8] {
    let zone = "$TTL 300\n@ SOA ns hostmaster 1 3600 900 604800 60\n@ NS ns\nns A 10.0.2.80\n\
                ns AAAA fd00::80\nwww CNAME @\n@ A 10.0.2.80\n*.wild TXT \"wild\"\nsub NS ns.sub\n\
                ns.sub A 10.0.2.2\nother DNAME www\nmany TXT \"1\"\n";
    common::packed(zone, &"<html>mayfly</html>\n".repeat(60))
}

#[test]
fn mutated_frames_do_no_harm() {
    let started = Instant::now();
    let (seed, scale) = (mayfly_seeds::named_seed(), mayfly_seeds::named_scale());
    let first = seed.unwrap_or(1);
    let guests = match (seed, scale) {
        (Some(_), None) => 1,
        _ => mayfly_seeds::scaled(CASES).div_ceil(PER_GUEST),
    };
    let mut total = Figures::default();
    let site = packed();
    let before = HEAP.current_usage();
    for seed in (0..guests).map(|guest| first.wrapping_add(guest)) {
        let pack = Some(site).filter(|_| seed % 2 == 0);
        total.add(&attack(seed, PER_GUEST, CHECK_EVERY, pack, || {
            HEAP.current_usage()
        }));
    }
    let held = HEAP.current_usage() - before;
    let seconds = started.elapsed().as_secs();
    println!("{total:#?}\n{held} bytes held after {guests} guests, {seconds} s");
    assert!(held <= total.all_socket_bytes + HELD, "{held} bytes");
    // A generator that makes only useless frames would test nothing.
    assert!(
        total.established * 100 > total.cases,
        "few connections: {total:?}"
    );
    assert!(
        total.http * 100 > total.cases && total.dns * 20 > total.cases,
        "{total:?}"
    );
}
