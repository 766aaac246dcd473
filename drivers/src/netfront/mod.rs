//! The network front end: xenbus handshake, rings and counters of `device/vif/0`.
//!
//! ```text
//! start ── burst 1: backend, mac ──► answers ── rings, burst 2: eight writes ──► live ◄── adopt
//!   ▲                                                                              │
//!   └──── the back end is ready again ◄── closed ◄── it left or wrote nonsense ────┘
//! ```
//!
//! The machine is [`handshake::step`]; this file is the shell that carries out
//! its actions, and `xenbus.rs` what it says to xenstore. It has two entries: [`NetFront::start`], and [`NetFront::adopt`] where the toolstack has connected the
//! network before the guest ran. Frames may be queued as soon as it is live: nothing waits for
//! the back end to be connected.

mod buffers;
pub mod handshake;
mod link;
mod receive;
mod sring;
mod transmit;
mod types;
mod xenbus;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::abi::{PAGE_SIZE, XenbusState};
use crate::grant::GrantTable;
use crate::xenstore::{Event, ReqId, StoreError, Xenstore};
use crate::{DomId, EventPort, Hypervisor, SystemTime};
use buffers::Buffers;
use handshake::{Actions, Input, State};
use link::Link;
use mayfly_handoff::network::Preconnected;
use transmit::Room;
pub use transmit::TxFrame;
pub use types::{
    Checksum, Config, Counters, ETHERNET_HEADER, Features, LinkError, Notice, Offload, RingError,
    RxFrame, SendError,
};
use xenbus::{FEATURES, Feature, HOME, MTU_MAX, Question, WATCH_BACKEND, WATCH_STATE};

/// How long the other side may take for a step before the kernel hears of it.
const PATIENCE_NS: u64 = 5_000_000_000;
/// How long frames must have moved on a link for it to count as one that works.
const STEADY_NS: u64 = 10_000_000_000;
/// Attempts in a row at a link that does not get to work for [`STEADY_NS`], before
/// only a re-plugged interface is tried again: neither a back end nor xenstored
/// must keep the guest busy with handshakes. A back end that is restarted now and
/// then gets as many attempts each time.
const MAX_ATTEMPTS: u32 = 16;
/// Notices that wait for the kernel at most; more are dropped and counted.
const MAX_NOTICES: usize = 8;

/// The time that the present state has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    Off,
    /// Starts when [`NetFront::drive`] next hears what time it is.
    Armed,
    At(SystemTime),
}

/// The network interface `device/vif/0`.
#[derive(Debug)]
pub struct NetFront<'h, H: Hypervisor> {
    xen: &'h H,
    grants: GrantTable,
    config: Config,
    state: State,
    inputs: VecDeque<Input>,
    questions: Vec<(ReqId, Question)>,
    link: Option<Link>,
    /// The transmit buffers, while there is no link.
    buffers: Option<Buffers>,
    domain: DomId,
    backend: Vec<u8>,
    /// The back end whose state is watched.
    watched: Option<Vec<u8>>,
    housekeeping: bool,
    peer_state_changed: bool,
    mac: [u8; 6],
    mtu: u16,
    /// What the back end has said of each of [`FEATURES`].
    features: [Option<bool>; FEATURES.len()],
    timer: Timer,
    /// Attempts at a link since the last one that worked; one more once given up.
    attempts: u32,
    notices: VecDeque<Notice>,
    counters: Counters,
}

impl<'h, H: Hypervisor> NetFront<'h, H> {
    /// An interface that is not started.
    pub fn new(xen: &'h H, grants: GrantTable, config: Config) -> Self {
        Self {
            xen,
            grants,
            config,
            state: State::Idle,
            inputs: VecDeque::with_capacity(8),
            questions: Vec::with_capacity(16),
            link: None,
            buffers: None,
            domain: DomId(0),
            backend: Vec::new(),
            watched: None,
            housekeeping: false,
            peer_state_changed: false,
            mac: [0; 6],
            mtu: MTU_MAX,
            features: [None; FEATURES.len()],
            timer: Timer::Off,
            attempts: 0,
            notices: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Sends the first burst of requests: who is the back end? Also after
    /// [`Notice::NoVif`], to look again.
    pub fn start(&mut self, store: &mut Xenstore<'h, H>) {
        self.inputs.push_back(Input::Start);
        self.run(store);
    }

    /// Takes over a network that the toolstack has connected: frames may be sent and received at once, without a request to xenstored.
    ///
    /// # Errors
    /// Its pages are not there, or there is no memory for the transmit buffers.
    pub fn adopt(&mut self, network: &Preconnected) -> Result<(), Notice> {
        self.ready_buffers().map_err(Notice::Link)?;
        let link = Link::adopt(self.xen, network, &mut self.buffers);
        self.link = Some(link.map_err(Notice::Link)?);
        (self.state, _) = handshake::step(self.state, Input::Adopted);
        self.timer = Timer::Armed;
        self.counters.links += 1;
        self.domain = network.domain;
        self.mac = network.mac;
        self.backend.extend_from_slice(network.path());
        Ok(())
    }

    /// Waits for the first burst's answers.
    ///
    /// # Errors
    /// xenstored can't be used, or did not answer in time.
    pub fn discover(
        &mut self,
        store: &mut Xenstore<'h, H>,
        deadline: SystemTime,
    ) -> Result<(), Notice> {
        while !self.questions.is_empty() {
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
    /// Why there is no link; each is also the line to print.
    pub fn connect(&mut self, store: &mut Xenstore<'h, H>) -> Result<(), Notice> {
        self.run(store);
        match self.link {
            Some(_) => Ok(()),
            None => Err(self.take_notice().unwrap_or(Notice::NoVif)),
        }
    }

    /// What is left to do once the first frame is out: watches the back end and asks for the MTU.
    pub fn housekeeping(&mut self, store: &mut Xenstore<'h, H>) {
        if self.housekeeping {
            return;
        }
        self.housekeeping = true;
        self.ask(
            Question::Courtesy,
            |_, store| store.watch(&[HOME, b"backend"], WATCH_BACKEND),
            store,
        );
        self.watch_backend(store);
        store.flush();
    }

    /// Takes note of a xenstore event, if it concerns this interface. [`NetFront::drive`] acts on it.
    pub fn xenstore_event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Watch { token, .. } => {
                if token == WATCH_STATE {
                    self.peer_state_changed = true;
                } else if token == WATCH_BACKEND && self.inputs.back() != Some(&Input::Replugged) {
                    self.inputs.push_back(Input::Replugged);
                }
            }
            Event::Answer(id, result) => {
                if let Some(at) = self.questions.iter().position(|&(asked, _)| asked == id) {
                    let (_, question) = self.questions.swap_remove(at);
                    self.answered(question, result);
                }
            }
        }
    }

    /// Moves the handshake on. To be called after each xenstore event and before each sleep.
    pub fn drive(&mut self, store: &mut Xenstore<'h, H>, now: SystemTime) {
        if let Some(link) = &self.link {
            if let Some(error) = link.broken()
                && matches!(self.state, State::Live { .. })
            {
                self.counters.broken += 1;
                self.notice(Notice::Broken(error));
                self.inputs.push_back(Input::RingBroken);
            } else if matches!(self.state, State::Live { carrier: false, .. }) && link.active() {
                self.inputs.push_back(Input::Activity);
            }
        }
        match self.timer {
            Timer::Armed => {
                let time = if self.carrier() {
                    STEADY_NS
                } else {
                    PATIENCE_NS
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

    /// When [`NetFront::drive`] wants to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemTime> {
        match self.timer {
            Timer::At(deadline) => Some(deadline),
            Timer::Armed | Timer::Off => None,
        }
    }

    /// The next thing that the kernel should know.
    pub fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Copies the next frame out.
    #[inline]
    pub fn receive(&mut self, frame: &mut [u8]) -> Option<RxFrame> {
        self.link.as_mut()?.receive(frame, &mut self.counters)
    }

    /// Whether a frame of up to one page can be sent that the back end does not cut.
    #[inline]
    pub fn can_send(&mut self) -> bool {
        self.can_send_bytes(PAGE_SIZE, false)
    }

    /// Whether a frame of so many bytes can be sent, which the back end cuts into segments if
    /// `segmented`.
    #[inline]
    pub fn can_send_bytes(&mut self, length: usize, segmented: bool) -> bool {
        match &mut self.link {
            Some(link) => link.has_room(Room::new(length, segmented), &mut self.counters),
            None => false,
        }
    }

    /// Room to compose a frame of up to so many bytes in, where the back end will
    /// read it; `None` without a link or while all pages are in flight. Only a frame that room was
    /// asked for as `segmented` can be counted on to be sent with [`Offload::Segment`].
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

    /// What the back end can do with the frames that we send.
    #[must_use]
    pub fn features(&self) -> Features {
        let said = |feature: Feature| {
            let at = FEATURES.iter().position(|&(known, _)| known == feature);
            at.and_then(|at| self.features.get(at).copied().flatten())
        };
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

    /// Bytes of the longest frame that may be sent to a back end that cuts it.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        let buffers = self.link.as_ref().map(Link::buffers);
        let pages = buffers
            .or(self.buffers.as_ref())
            .map_or(1, Buffers::frame_pages);
        (pages * PAGE_SIZE).min(usize::from(u16::MAX))
    }

    /// Publishes the frames sent and buffers emptied since the last flush, with one notification at most.
    #[inline]
    pub fn flush(&mut self) {
        if let Some(link) = &mut self.link {
            link.flush(self.xen, &mut self.counters);
        }
    }

    /// Flushes and asks to be notified of the next frame; `true` if there is
    /// work already, so the guest must not sleep. A frame that waits while there
    /// is no slot to answer it is no work: a completion will wake the guest. A
    /// ring found broken is work, until [`NetFront::drive`] has left it. To be
    /// called between the last look at the rings and the poll.
    pub fn prepare_sleep(&mut self) -> bool {
        self.flush();
        match &mut self.link {
            Some(link) => {
                link.prepare_sleep(&mut self.counters)
                    || link.broken().is_some() && matches!(self.state, State::Live { .. })
            }
            None => false,
        }
    }

    /// The MAC address; zero before the first link.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The MTU: bytes of IP packet, 1500 until xenstore says less.
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

    /// Whether the back end is known to be connected.
    #[must_use]
    pub fn carrier(&self) -> bool {
        matches!(self.state, State::Live { carrier: true, .. })
    }

    /// The state of the handshake.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Receive buffers of the present link.
    #[must_use]
    pub fn rx_buffers(&self) -> usize {
        self.link.as_ref().map_or(0, Link::rx_buffers)
    }

    /// What the interface has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes back the pages that earlier back ends have let go of. Cheap when there are none.
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

    fn run(&mut self, store: &mut Xenstore<'h, H>) {
        while let Some(input) = self.inputs.pop_front() {
            let before = self.state;
            let (state, actions) = handshake::step(before, input);
            match input {
                // The kernel or the toolstack wants it: neither is the back end's doing.
                Input::Start | Input::Replugged | Input::Own(_)
                    if actions.contains(Actions::DISCOVER) =>
                {
                    self.attempts = 0;
                }
                Input::PublishRefused if matches!(before, State::Live { .. }) => {
                    self.notice(Notice::Refused);
                }
                // What was timed ended before this input's turn came.
                Input::Timeout if self.timer != Timer::Off => continue,
                Input::Timeout if self.carrier() => self.attempts = 0,
                _ => {}
            }
            let (state, actions) = self.limit(state, actions);
            self.state = state;
            if core::mem::discriminant(&before) != core::mem::discriminant(&state) {
                self.timer = match state {
                    State::Discovering { .. } | State::Live { .. } | State::Closing => Timer::Armed,
                    State::Idle | State::Closed | State::Absent => Timer::Off,
                };
            }
            self.perform(actions, store);
        }
        if self.peer_state_changed {
            self.peer_state_changed = false;
            self.ask(
                Question::PeerState,
                |net, store| store.read(&[&net.backend, b"/state"]),
                store,
            );
        }
        store.flush();
    }

    /// Counts attempts at a link, and strikes out the one too many.
    fn limit(&mut self, state: State, actions: Actions) -> (State, Actions) {
        let attempt = Actions::OFFER | Actions::DISCOVER;
        if !actions.intersects(attempt) {
            return (state, actions);
        }
        if self.attempts < MAX_ATTEMPTS {
            self.attempts += u32::from(actions.contains(Actions::DISCOVER));
            return (state, actions);
        }
        if self.attempts == MAX_ATTEMPTS {
            self.attempts += 1;
            self.notice(Notice::GivenUp);
        }
        (State::Closed, actions.difference(attempt))
    }

    fn perform(&mut self, actions: Actions, store: &mut Xenstore<'h, H>) {
        if actions.contains(Actions::LEAVE) {
            for state in [XenbusState::Closing, XenbusState::Closed] {
                self.write_state(Question::Courtesy, state, store);
            }
        }
        if actions.contains(Actions::DISCONNECT)
            && let Some(link) = self.link.take()
        {
            self.buffers = Some(link.close(self.xen, &mut self.grants));
            // The next back end may be another.
            self.features = [None; FEATURES.len()];
        }
        if actions.contains(Actions::READ_ONLINE) {
            self.ask(
                Question::Online,
                |net, store| store.read(&[&net.backend, b"/online"]),
                store,
            );
        }
        self.peer_state_changed |= actions.contains(Actions::READ_STATE);
        if actions.contains(Actions::OFFER) {
            self.write_state(Question::Courtesy, XenbusState::Initialising, store);
        }
        if actions.contains(Actions::CHECK) {
            self.ask(
                Question::OwnState,
                |_, store| store.read(&[HOME, b"state"]),
                store,
            );
        }
        if actions.contains(Actions::DISCOVER) {
            // Answers to older questions are about an older back end.
            self.questions.clear();
            for (question, key) in [
                (Question::Backend, b"backend".as_slice()),
                (Question::Mac, b"mac"),
            ] {
                self.ask(question, |_, store| store.read(&[HOME, key]), store);
            }
        }
        if actions.contains(Actions::CONNECT) {
            self.publish(store);
        }
        if actions.contains(Actions::CARRIER) {
            // From here on it is the time until the link counts as one that works.
            self.timer = Timer::Armed;
            self.notice(Notice::Carrier);
        }
        if actions.contains(Actions::REPORT_ABSENT) {
            self.notice(Notice::NoVif);
        }
        if actions.contains(Actions::REPORT_BAD) {
            self.notice(Notice::BadConfig);
        }
        if actions.contains(Actions::REPORT_LEFT) {
            self.notice(Notice::Left);
        }
        if actions.contains(Actions::REPORT_TIMEOUT) {
            self.notice(Notice::Late);
        }
    }

    fn ready_buffers(&mut self) -> Result<(), LinkError> {
        if self.buffers.is_none() {
            self.buffers = Some(Buffers::new(self.xen, self.config.tx_buffers)?);
        }
        Ok(())
    }

    fn make_link(&mut self) -> Result<Link, LinkError> {
        self.ready_buffers()?;
        Link::new(
            self.xen,
            &mut self.grants,
            self.domain,
            self.config.rx_buffers,
            &mut self.buffers,
            self.counters.links != 0,
        )
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() < MAX_NOTICES {
            self.notices.push_back(notice);
        } else {
            self.counters.lost_notices += 1;
        }
    }
}
