//! Re-establishes a lost connection.
//!
//! Source: Xen's docs/misc/xenstore-ring.txt, "The ring reconnection feature", and io/xs_wire.h. There
//! are three ways, and the guest tries all of them:
//!
//! - oxenstored offers reconnection. The guest writes `XENSTORE_RECONNECT` into the ring page's
//!   connection word; the server empties the ring and writes `XENSTORE_CONNECTED`.
//! - The C xenstored (up to Xen 4.21 at least) offers nothing, but empties the ring when the domain is
//!   introduced to it. If it finds `XENSTORE_RECONNECT` in the word then, it writes
//!   `XENSTORE_CONNECTED` and notifies (`do_introduce`); if not, the indices tell: two of the four are
//!   the guest's to write, and are not what it has written any more.
//! - A server that does neither goes on with the stream of bytes, whose framing is lost. The guest
//!   drops what has come, asks a question, and looks for the header of its answer in what follows.
//!
//! The pauses between attempts grow to a limit; the attempts never end.
//!
//! A domain that runs before the toolstack introduces it starts as if the first attempt had been made.

use zerocopy::IntoBytes;

use super::{Broken, HEADER, Progress, RING_SIZE, Xenstore, ring};
use crate::abi::{
    XENSTORE_CONNECTED, XENSTORE_PAYLOAD_MAX, XENSTORE_RECONNECT,
    XENSTORE_SERVER_FEATURE_RECONNECTION, xs, xsd_sockmsg,
};
use crate::{EventPort, Hypervisor, SystemTime};

/// The time that a request may wait for its answer before the connection counts as lost, in ns.
const PATIENCE_NS: u64 = 30_000_000_000;
/// The pause after the first attempt, in ns; each further pause is twice as long.
const FIRST_PAUSE_NS: u64 = 1_000_000_000;
/// The longest pause between attempts, in ns.
const LONGEST_PAUSE_NS: u64 = 300_000_000_000;
/// The age at which a connection counts as stable, in ns: a later loss starts again with the first pause.
const STEADY_NS: u64 = 60_000_000_000;
/// The time that xenstored gets to finish emptying a ring, in ns.
const SETTLE_NS: u64 = 10_000_000;
/// The path that the probe reads. Any answer will do.
const PROBE: &[u8] = b"domid\0";

/// A change of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The connection is lost. Requests without an answer will have none, and watches may be gone.
    Lost(Broken),
    /// The connection was made again, without the earlier requests and watches.
    Again,
    /// The connection was made for the first time: the domain ran before it was introduced.
    First,
}

/// The supervision of a connection.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Attempts since the last connection that lasted.
    attempts: u32,
    /// The time of the next attempt, while the connection is lost.
    next: Option<SystemTime>,
    /// `XENSTORE_RECONNECT` was written.
    asked: bool,
    /// The id of the probe, whose answer the guest looks for in the byte stream.
    probe: Option<u32>,
    /// The time at which the connection was made again.
    since: Option<SystemTime>,
    /// The time since which requests have waited without any answer.
    waiting_since: Option<SystemTime>,
    /// Whether an answer has come since the last look.
    pub(super) heard: bool,
}

impl Recovery {
    fn pause(&self) -> u64 {
        let doubled = FIRST_PAUSE_NS.checked_shl(self.attempts.saturating_sub(1));
        doubled.map_or(LONGEST_PAUSE_NS, |pause| pause.min(LONGEST_PAUSE_NS))
    }
}

fn after(now: SystemTime, pause: u64) -> SystemTime {
    SystemTime(now.0.saturating_add(pause))
}

impl<H: Hypervisor> Xenstore<'_, H> {
    /// Supervises the connection and makes it again when it is lost. To be called in each round of the event loop;
    /// cheap while the connection works.
    pub fn supervise(&mut self, now: SystemTime) -> Option<Change> {
        if self.is_ours() && self.is_silent(now) {
            self.broken = Some(Broken::Silent);
        }
        let broken = self.broken?;
        let first = broken == Broken::Unintroduced;
        if first && self.recovery.next.is_none() {
            self.recovery.asked = true;
            self.recovery.next = Some(after(now, FIRST_PAUSE_NS));
        }
        let Some(next) = self.recovery.next else {
            self.lose(broken, now);
            return Some(Change::Lost(broken));
        };
        if self.is_connected_again(broken, now >= next) || self.found_probe() {
            self.recovery.next = None;
            self.recovery.since = Some(now);
            if first {
                return Some(Change::First);
            }
            self.counters.reconnections += 1;
            return Some(Change::Again);
        }
        if now >= next {
            self.attempt(now);
        }
        None
    }

    /// Begins anew with the port of the new domain in which the guest was resumed. The ring's page stays, and its
    /// indices are as the toolstack has left them; requests and watches are lost.
    pub fn resumed(&mut self, port: EventPort) {
        self.port = port;
        self.recovery = Recovery::default();
        self.take_ring_over();
        self.begin_anew();
    }

    /// The latest time for the next call of [`Xenstore::supervise`].
    #[must_use]
    pub fn supervise_at(&self) -> Option<SystemTime> {
        let patience = self.recovery.waiting_since;
        self.recovery
            .next
            .or(patience.map(|since| after(since, PATIENCE_NS)))
    }

    /// Whether our two indices differ from the values that we have written.
    pub(super) fn is_emptied(&self) -> bool {
        self.page.load_acquire(ring::REQ_PROD) != self.published
            || self.page.load_acquire(ring::RSP_CONS) != self.rsp_cons
    }

    fn is_silent(&mut self, now: SystemTime) -> bool {
        let recovery = &mut self.recovery;
        if core::mem::take(&mut recovery.heard) || self.outstanding.is_empty() {
            recovery.waiting_since = None;
        }
        if self.outstanding.is_empty() {
            return false;
        }
        let since = *recovery.waiting_since.get_or_insert(now);
        now >= after(since, PATIENCE_NS)
    }

    fn lose(&mut self, broken: Broken, now: SystemTime) {
        let recovery = &mut self.recovery;
        if recovery
            .since
            .is_none_or(|since| now >= after(since, STEADY_NS))
        {
            recovery.attempts = 0;
        }
        let pause = match recovery.attempts {
            0 if broken == Broken::Reset => SETTLE_NS,
            0 => 0,
            _ => recovery.pause(),
        };
        recovery.next = Some(after(now, pause));
        recovery.waiting_since = None;
        self.counters.lost += 1;
    }

    fn offers_reconnection(&self) -> bool {
        let features = self.page.load_acquire(ring::SERVER_FEATURES);
        features & XENSTORE_SERVER_FEATURE_RECONNECTION != 0
    }

    /// Asks for a new connection in all three ways.
    fn attempt(&mut self, now: SystemTime) {
        self.recovery.attempts = self.recovery.attempts.saturating_add(1);
        self.recovery.next = Some(after(now, self.recovery.pause()));
        self.recovery.asked = true;
        self.page
            .store_release(ring::CONNECTION, XENSTORE_RECONNECT);
        if !self.offers_reconnection() {
            self.probe();
        }
        self.notify();
    }

    /// Takes the ring over if it was emptied. `settled` says that xenstored has had the time to finish emptying it.
    fn is_connected_again(&mut self, broken: Broken, settled: bool) -> bool {
        let connection = self.page.load_acquire(ring::CONNECTION);
        let answered = self.recovery.asked && connection == XENSTORE_CONNECTED;
        let emptied = settled && !self.offers_reconnection() && self.is_emptied();
        if !(answered || emptied || broken == Broken::Reset && settled) {
            return false;
        }
        let index = |at| self.page.load_acquire(at);
        if index(ring::REQ_PROD).wrapping_sub(index(ring::REQ_CONS)) > RING_SIZE
            || index(ring::RSP_PROD).wrapping_sub(index(ring::RSP_CONS)) > RING_SIZE
        {
            return false;
        }
        self.take_ring_over();
        self.begin_anew();
        true
    }

    /// Goes on with the indices that the ring has.
    fn take_ring_over(&mut self) {
        self.req_prod = self.page.load_acquire(ring::REQ_PROD);
        self.published = self.req_prod;
        self.rsp_cons = self.page.load_acquire(ring::RSP_CONS);
        self.backlog.clear();
    }

    fn begin_anew(&mut self) {
        if core::mem::take(&mut self.recovery.asked) && !self.offers_reconnection() {
            // A server that does not offer reconnection does not write the word, so the guest does.
            self.page
                .store_release(ring::CONNECTION, XENSTORE_CONNECTED);
        }
        self.recovery.probe = None;
        self.recovery.heard = false;
        self.outstanding.clear();
        self.first_id = self.next_id;
        self.message.clear();
        self.progress = Progress::Partial;
        self.broken = None;
    }

    /// Drops all received bytes and sends a probe, by whose answer the framing is found again.
    fn probe(&mut self) {
        self.rsp_cons = self.page.load_acquire(ring::RSP_PROD);
        self.page.store_fence(ring::RSP_CONS, self.rsp_cons);
        self.message.clear();
        let used = self
            .req_prod
            .wrapping_sub(self.page.load_acquire(ring::REQ_CONS));
        // xenstored has not read the last probe yet and will answer it first, so a second probe gains nothing.
        let unread = self.recovery.probe.is_some() && used != 0;
        let length = HEADER + PROBE.len();
        if unread
            || !self.backlog.is_empty()
            || RING_SIZE
                .checked_sub(used)
                .is_none_or(|space| (space as usize) < length)
        {
            return;
        }
        let id = self.take_id();
        let header = xsd_sockmsg {
            type_: xs::READ,
            req_id: id,
            tx_id: 0,
            len: 6,
        };
        const { assert!(PROBE.len() == 6) };
        for part in [header.as_bytes(), PROBE] {
            self.req_prod = super::copy_to_ring(&self.page, self.req_prod, part);
        }
        self.page.store_release(ring::REQ_PROD, self.req_prod);
        self.published = self.req_prod;
        self.recovery.probe = Some(id);
    }

    /// Looks for the header of the probe's answer, byte by byte, through one ring at most.
    fn found_probe(&mut self) -> bool {
        let Some(id) = self.recovery.probe else {
            return false;
        };
        let start = self.rsp_cons;
        let available = self.page.load_acquire(ring::RSP_PROD).wrapping_sub(start);
        if available == 0 || available > RING_SIZE {
            return false;
        }
        let mut found = false;
        for _ in 0..available {
            let mut byte = [0];
            self.rsp_cons = super::copy_from_ring(&self.page, self.rsp_cons, &mut byte);
            if self.message.len() >= HEADER {
                self.message.remove(0);
            }
            self.message.extend_from_slice(&byte);
            if is_answer(&self.message, id) {
                found = true;
                break;
            }
        }
        self.page.store_fence(ring::RSP_CONS, self.rsp_cons);
        self.notify();
        if found {
            // The rest of the answer follows, and is dropped like an answer of the lost connection.
            let header = core::mem::take(&mut self.message);
            self.begin_anew();
            self.message = header;
        }
        found
    }
}

/// Whether a message's header is that of an answer to a read with this id.
fn is_answer(header: &[u8], id: u32) -> bool {
    let parsed = <xsd_sockmsg as zerocopy::FromBytes>::read_from_bytes(header);
    parsed.is_ok_and(|header| {
        matches!(header.type_, xs::READ | xs::ERROR)
            && (header.req_id, header.tx_id) == (id, 0)
            && header.len as usize <= XENSTORE_PAYLOAD_MAX
    })
}
