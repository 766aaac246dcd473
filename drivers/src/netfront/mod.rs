//! The network front end: xenbus handshake, rings and counters of `device/vif/0`.
//!
//! ```text
//! start ── burst 1: backend, mac ──► answers ── rings, burst 2: eight writes ──► live ◄── adopt
//!   ▲                                                                              │
//!   └──── the back end is ready again ◄── closed ◄── it left or wrote nonsense ────┘
//! ```
//!
//! The state machine is [`handshake::step`]. `actions.rs` carries out its actions, `xenbus.rs` reads and writes
//! xenstore, `questions.rs` queues the requests, and `link.rs` holds the two rings. There are two entries:
//! [`NetFront::start`], and [`NetFront::adopt`] if the toolstack has connected the network before the guest ran. Frames
//! may be queued as soon as the interface is live, before the back end is connected.

mod actions;
mod buffers;
pub mod handshake;
mod link;
mod questions;
mod receive;
mod sring;
mod transmit;
mod types;
mod xenbus;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::abi::{PAGE_SIZE, XenbusState};
use crate::grant::GrantTable;
use crate::xenstore::{ReqId, StoreError, Xenstore};
use crate::{DomId, EventPort, Hypervisor, SystemTime};
use buffers::Buffers;
use handshake::{Input, LinkState};
use link::Link;
use mayfly_handoff::network::Preconnected;
use questions::{Feature, FeaturesSaid, Question};
use transmit::Room;
pub use transmit::TxFrame;
pub use types::{
    BufferCounts, Checksum, Counters, ETHERNET_HEADER, Features, LinkError, Notice, Offload,
    RingError, RxFrame, SendError,
};
use xenbus::{Check, MTU_MAX};

/// The time that the other side may take for a step before the kernel is told, in ns.
const PATIENCE_NS: u64 = 5_000_000_000;
/// The time that frames must move on a link before the link counts as working, in ns.
const STEADY_NS: u64 = 10_000_000_000;
/// The first pause before the front end looks again at an absent interface or at a back end that has left or was given
/// up, in case a watch event was lost; in ns. Each further pause is twice as long.
const FIRST_RETRY_NS: u64 = 60_000_000_000;

/// The time limit of the present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    Off,
    /// Starts at the next call of [`NetFront::drive`], which has the time.
    Armed,
    At(SystemTime),
}

/// The network interface `device/vif/0`.
#[derive(Debug)]
pub struct NetFront<'h, H: Hypervisor> {
    xen: &'h H,
    grants: GrantTable,
    config: BufferCounts,
    state: LinkState,
    inputs: VecDeque<Input>,
    /// Requests without an answer.
    asked: Vec<(ReqId, Question)>,
    /// Questions that did not fit in the request queue.
    unasked: VecDeque<Question>,
    link: Option<Link>,
    /// The transmit buffers, while there is no link.
    buffers: Option<Buffers>,
    domain: DomId,
    backend: Vec<u8>,
    mac: [u8; 6],
    mtu: u16,
    /// The state that the front end has written last.
    own_state: Option<XenbusState>,
    housekeeping: bool,
    home_watched: bool,
    /// The back end whose state is watched.
    watched: Option<Vec<u8>>,
    /// The keys of our directory that describe the plugged interface were written.
    plug_changed: bool,
    /// Our state was written, by us or another domain.
    state_changed: bool,
    mtu_changed: bool,
    peer_state_changed: bool,
    check: Option<Check>,
    /// xenstored was restarted and has not yet answered about our back end.
    forgotten: bool,
    features: FeaturesSaid,
    timer: Timer,
    /// Attempts at a link since the last one that worked.
    attempts: u32,
    /// The pause before the next look at a back end that has left.
    retry_pause: u64,
    /// The last notice given of an interface that does not work.
    said: Option<Notice>,
    notices: VecDeque<Notice>,
    counters: Counters,
}

impl<'h, H: Hypervisor> NetFront<'h, H> {
    /// An interface that is not started.
    pub fn new(xen: &'h H, grants: GrantTable, config: BufferCounts) -> Self {
        Self {
            xen,
            grants,
            config,
            state: LinkState::Idle,
            inputs: VecDeque::with_capacity(8),
            asked: Vec::with_capacity(16),
            unasked: VecDeque::with_capacity(16),
            link: None,
            buffers: None,
            domain: DomId(0),
            backend: Vec::new(),
            mac: [0; 6],
            mtu: MTU_MAX,
            own_state: None,
            housekeeping: false,
            home_watched: false,
            watched: None,
            plug_changed: false,
            state_changed: false,
            mtu_changed: false,
            peer_state_changed: false,
            check: None,
            forgotten: false,
            features: FeaturesSaid::default(),
            timer: Timer::Off,
            attempts: 0,
            retry_pause: FIRST_RETRY_NS,
            said: None,
            notices: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Sends the first burst of requests, which ask for the back end. To be called again after [`Notice::NoVif`] to
    /// look again.
    pub fn start(&mut self, store: &mut Xenstore<'h, H>) {
        self.inputs.push_back(Input::Start);
        self.run(store);
    }

    /// Takes over a network that the toolstack has connected: frames may be sent and received at once, without a
    /// request to xenstored.
    ///
    /// # Errors
    /// The pages of the network are missing, or there is no memory for the transmit buffers.
    pub fn adopt(&mut self, network: &Preconnected) -> Result<(), Notice> {
        self.ready_buffers().map_err(Notice::Link)?;
        let link = Link::adopt(self.xen, network, &mut self.buffers);
        self.link = Some(link.map_err(Notice::Link)?);
        (self.state, _) = handshake::step(self.state, Input::Adopted);
        self.timer = Timer::Armed;
        self.counters.links += 1;
        self.own_state = Some(XenbusState::Connected);
        self.domain = network.domain;
        self.mac = network.mac;
        self.backend.extend_from_slice(network.path());
        Ok(())
    }

    /// Waits for the answers to the first burst.
    ///
    /// # Errors
    /// xenstored can't be used, or did not answer in time.
    pub fn discover(
        &mut self,
        store: &mut Xenstore<'h, H>,
        deadline: SystemTime,
    ) -> Result<(), Notice> {
        while !self.asked.is_empty() {
            store.wait(deadline).map_err(Notice::Store)?;
            match store.pump() {
                Ok(Some(event)) => self.xenstore_event(&event),
                Ok(None) => {}
                Err(broken) => return Err(Notice::Store(StoreError::Broken(broken))),
            }
        }
        Ok(())
    }

    /// Makes the rings and publishes them, as the first burst's answers say.
    /// Afterwards frames may be sent, whether or not the back end is there yet.
    ///
    /// # Errors
    /// The reason for which there is no link, as a notice to print.
    pub fn connect(&mut self, store: &mut Xenstore<'h, H>) -> Result<(), Notice> {
        self.run(store);
        match self.link {
            Some(_) => Ok(()),
            None => Err(self.take_notice().unwrap_or(Notice::NoVif)),
        }
    }

    /// Watches the interface and asks for the MTU. To be called once the first frame has been sent.
    pub fn housekeeping(&mut self, store: &mut Xenstore<'h, H>) {
        if !self.housekeeping {
            self.housekeeping = true;
            self.watch(store);
            store.flush();
        }
    }

    /// Advances the handshake. To be called after each xenstore event and before each sleep.
    pub fn drive(&mut self, store: &mut Xenstore<'h, H>, now: SystemTime) {
        if let Some(link) = &self.link {
            if let Some(error) = link.broken()
                && matches!(self.state, LinkState::Live { .. })
            {
                self.counters.broken += 1;
                self.notice(Notice::Broken(error));
                self.inputs.push_back(Input::RingBroken);
            } else if matches!(self.state, LinkState::Live { carrier: false, .. }) && link.active()
            {
                self.inputs.push_back(Input::Activity);
            }
        }
        match self.timer {
            Timer::Armed => {
                let time = match self.state {
                    LinkState::Live { carrier: true, .. } => STEADY_NS,
                    LinkState::Closed | LinkState::Absent => self.retry_pause,
                    _ => PATIENCE_NS,
                };
                self.timer = Timer::At(SystemTime(now.0.saturating_add(time)));
            }
            Timer::At(deadline) if now >= deadline => {
                self.timer = Timer::Off;
                self.inputs.push_back(Input::Timeout);
            }
            Timer::At(_) | Timer::Off => {}
        }
        self.run(store);
    }

    /// The latest time for the next call of [`NetFront::drive`].
    #[must_use]
    pub fn deadline(&self) -> Option<SystemTime> {
        match self.timer {
            Timer::At(deadline) => Some(deadline),
            Timer::Armed | Timer::Off => None,
        }
    }

    /// Takes the next notice for the kernel.
    pub fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Copies the next received frame into `frame`.
    #[inline]
    pub fn receive(&mut self, frame: &mut [u8]) -> Option<RxFrame> {
        self.link.as_mut()?.receive(frame, &mut self.counters)
    }

    /// Whether a frame of up to one page can be sent, without segmentation by the back end.
    #[inline]
    pub fn can_send(&mut self) -> bool {
        self.can_send_bytes(PAGE_SIZE, false)
    }

    /// Whether a frame of `length` bytes can be sent; `segmented` if the back end is to cut it into segments.
    #[inline]
    pub fn can_send_bytes(&mut self, length: usize, segmented: bool) -> bool {
        match &mut self.link {
            Some(link) => link.has_room(Room::new(length, segmented), &mut self.counters),
            None => false,
        }
    }

    /// Room to compose a frame of up to `length` bytes, in pages that the back end reads; `None` without a link or
    /// while all pages are in flight. Sending with [`Offload::Segment`] is sure to succeed only if `segmented` was set.
    #[inline]
    pub fn frame(&mut self, length: usize, segmented: bool) -> Option<TxFrame<'_>> {
        let link = self.link.as_mut()?;
        link.frame(
            self.xen,
            &mut self.grants,
            length,
            segmented,
            &mut self.counters,
        )
    }

    /// Queues a copy of a frame, with complete checksums. It leaves with the next flush.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn send(&mut self, frame: &[u8]) -> Result<(), SendError> {
        if frame.len() > usize::from(self.mtu) + ETHERNET_HEADER {
            self.counters.tx_dropped += 1;
            return Err(SendError::Size);
        }
        let Some(mut room) = self.frame(frame.len(), false) else {
            self.counters.tx_dropped += 1;
            return Err(SendError::Full);
        };
        room.bytes().copy_from_slice(frame);
        room.send(frame.len(), Offload::None)
    }

    /// The transmit offloads of the back end.
    #[must_use]
    pub fn features(&self) -> Features {
        let said = |feature| self.features.get(feature);
        let is = |feature| said(feature) == Some(true);
        let segments = is(Feature::ScatterGather) && self.longest_frame() > PAGE_SIZE;
        // IPv4 is on unless it says otherwise, IPv6 is off unless it says so (io/netif.h).
        let checksum4 = said(Feature::NoChecksum4) == Some(false);
        Features {
            checksum4,
            checksum6: is(Feature::Checksum6),
            segment: segments && checksum4 && is(Feature::Segment4),
        }
    }

    /// The longest frame that may be sent to a back end that cuts it into segments, in bytes.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        let buffers = self.link.as_ref().map(Link::buffers);
        let pages = buffers
            .or(self.buffers.as_ref())
            .map_or(1, Buffers::frame_pages);
        (pages * PAGE_SIZE).min(usize::from(u16::MAX))
    }

    /// Publishes the frames sent and buffers emptied since the last flush, with at most one notification of each ring.
    #[inline]
    pub fn flush(&mut self) {
        if let Some(link) = &mut self.link {
            link.flush(self.xen, &mut self.counters);
        }
    }

    /// Flushes and asks for a notification of the next frame. Returns `true` if there is work already: then the guest
    /// must not sleep. A received frame that waits for a transmit slot is not work, because a completion will wake the
    /// guest. A broken ring is work, until [`NetFront::drive`] has left it. To be called between the last look at the
    /// rings and the poll.
    pub fn prepare_sleep(&mut self) -> bool {
        self.flush();
        match &mut self.link {
            Some(link) => {
                link.prepare_sleep(&mut self.counters)
                    || link.broken().is_some() && matches!(self.state, LinkState::Live { .. })
            }
            None => false,
        }
    }

    /// The MAC address; zero before the first link.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The MTU in bytes of IP packet: 1500 until xenstore says less.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The ports of the transmit and the receive ring, while there is a link.
    #[must_use]
    pub fn ports(&self) -> Option<[EventPort; 2]> {
        let ports = self.link.as_ref()?.ports();
        Some([ports.tx, ports.rx])
    }

    /// The ports for whose events the guest has to sleep: fewer than [`NetFront::ports`] where that is enough, because
    /// Xen spends some 5,000 instructions on each port of a poll. To be called after [`NetFront::prepare_sleep`].
    pub fn wake_ports(&self) -> impl Iterator<Item = EventPort> {
        let link = self.link.as_ref();
        // Until frames are known to move, an answer of either ring shows it.
        let by_tx = link.filter(|link| !self.carrier() || link.wakes_by_tx());
        let rx = link.map(|link| link.ports().rx);
        rx.into_iter().chain(by_tx.map(|link| link.ports().tx))
    }

    /// Whether the back end is known to be connected.
    #[must_use]
    pub fn carrier(&self) -> bool {
        matches!(self.state, LinkState::Live { carrier: true, .. })
    }

    /// The state of the handshake.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// Receive buffers of the present link.
    #[must_use]
    pub fn rx_buffers(&self) -> usize {
        self.link.as_ref().map_or(0, Link::rx_buffers)
    }

    /// The counters of the interface since boot.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes back pages that earlier back ends have unmapped. Cheap when there are none.
    pub fn sweep(&mut self) {
        self.grants.sweep(self.xen);
        match (&mut self.link, &mut self.buffers) {
            (Some(link), _) => link.reclaim(&mut self.grants),
            (None, Some(buffers)) => buffers.reclaim(&mut self.grants),
            (None, None) => {}
        }
    }

    /// Pages that a back end kept mapped after its link was closed.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        let buffers = self.link.as_ref().map(Link::buffers);
        self.grants.quarantined() + buffers.or(self.buffers.as_ref()).map_or(0, Buffers::held)
    }
}
