//! What keeping costs: requests, copies, and the pause after a kill, beside idle domains.
//!
//! ```console
//! $ cargo test --release -p mayfly-store --test kept -- --ignored --nocapture costs
//! ```

use std::time::{Duration, Instant};

use mayfly_xenstore::wire::MessageKind;

use crate::daemon::{Kept, Peer};

const ROUNDS: usize = 5000;
const KILLS: usize = 200;

/// The median and the greatest of some times, in microseconds.
fn summary(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    (
        micros(times[times.len() / 2]),
        micros(times[times.len() - 1]),
    )
}

fn timed(rounds: usize, mut act: impl FnMut()) -> Vec<Duration> {
    let each = (0..rounds).map(|_| {
        let start = Instant::now();
        act();
        start.elapsed()
    });
    each.collect()
}

fn introduce(kept: &mut Kept, client: Peer, domid: u16) {
    kept.make_ring(domid);
    let home = format!("/local/domain/{domid}");
    for name in 0..13 {
        let payload = format!("{home}/device/vif/0/key-{name}\0value");
        kept.ask(client, MessageKind::Write as u32, payload.as_bytes());
    }
    let payload = format!("{domid}\x005\x007\0");
    kept.ask(client, MessageKind::Introduce as u32, payload.as_bytes());
    for path in ["control/shutdown", "memory/target", "device"] {
        let payload = format!("{path}\0t\0");
        kept.ask(
            Peer::Ring(domid),
            MessageKind::Watch as u32,
            payload.as_bytes(),
        );
    }
}

/// Prints a line of a table.
pub(crate) fn print(is_kept: bool, domains: u16) {
    let mut kept = Kept::start_as(is_kept);
    let client = kept.connect();
    for domid in 1..=domains {
        introduce(&mut kept, client, domid);
    }
    let path = "/local/domain/0/feature\0";
    kept.ask(
        client,
        MessageKind::Write as u32,
        format!("{path}1").as_bytes(),
    );
    let read = timed(ROUNDS, || {
        drop(kept.ask(client, MessageKind::Read as u32, path.as_bytes()))
    });
    let value = format!("{path}1");
    let write = timed(ROUNDS, || {
        drop(kept.ask(client, MessageKind::Write as u32, value.as_bytes()));
    });
    let ((read, read_max), (write, write_max)) = (summary(read), summary(write));
    print!("| {is_kept} | {domains} | {read:.1} | {read_max:.0} | {write:.1} | {write_max:.0} |");
    if is_kept {
        let memory = crate::daemon::memory(kept.worker().unwrap());
        let pauses = timed(KILLS, || {
            kept.kill_worker();
            kept.ask(client, MessageKind::Read as u32, path.as_bytes());
        });
        let (pause, longest) = summary(pauses);
        print!(" {:.1} | {:.1} | {memory} |", pause / 1e3, longest / 1e3);
    }
    println!();
}
