//! The actions of the handshake, and the limit on attempts at a link.

use super::buffers::Buffers;
use super::handshake::{self, Actions, Input, LinkAction, LinkState};
use super::link::{Link, RINGS};
use super::questions::{FeaturesSaid, Question};
use super::types::{LinkError, Notice};
use super::{FIRST_RETRY_NS, NetFront, Timer};
use crate::Hypervisor;
use crate::abi::XenbusState;
use crate::grant::GrantTable;
use crate::xenstore::Xenstore;

/// The number of successive attempts at a link that does not work for [`STEADY_NS`], before attempts become rare.
/// Neither a back end nor xenstored must keep the guest busy with handshakes. A back end that is restarted now and then
/// gets as many attempts each time.
const MAX_ATTEMPTS: u32 = 16;
/// The longest pause between attempts, in ns.
const LAST_RETRY_NS: u64 = 3_600_000_000_000;
/// The greatest number of notices that wait for the kernel; more are dropped and counted.
const MAX_NOTICES: usize = 8;

impl<'h, H: Hypervisor> NetFront<'h, H> {
    pub(super) fn run(&mut self, store: &mut Xenstore<'h, H>) {
        self.ask_waiting(store);
        while let Some(input) = self.inputs.pop_front() {
            let before = self.state;
            // The state that was timed has ended before this input was handled.
            if input == Input::Timeout && self.timer != Timer::Off {
                continue;
            }
            let (state, actions) = handshake::step(before, input);
            self.take_note(before, input, actions);
            let struck = self.is_one_too_many(actions);
            let state = if struck { LinkState::Closed } else { state };
            self.state = state;
            let is_retry = input == Input::Timeout && matches!(state, LinkState::Closed);
            if is_retry || core::mem::discriminant(&before) != core::mem::discriminant(&state) {
                self.timer = match state {
                    LinkState::Idle => Timer::Off,
                    _ => Timer::Armed,
                };
            }
            for &action in actions {
                if !(struck && is_attempt(action)) {
                    self.perform(action, store);
                }
            }
        }
        self.follow_events(store);
        store.flush();
    }

    /// Counts links that fail and links that work.
    fn take_note(&mut self, before: LinkState, input: Input, actions: Actions) {
        match (before, input) {
            // The kernel or the toolstack asked for it, so it does not count against the back end.
            (_, Input::Start | Input::Replugged) if actions.contains(&LinkAction::Discover) => {
                self.begin_trial();
            }
            (LinkState::Live { carrier: true, .. }, Input::Timeout) => self.begin_trial(),
            (LinkState::Live { .. }, Input::PublishRefused) => self.notice(Notice::Refused),
            (LinkState::Closed | LinkState::Absent, Input::Timeout) => {
                self.retry_pause = self.retry_pause.saturating_mul(2).min(LAST_RETRY_NS);
                self.allow_retry();
            }
            _ => {}
        }
    }

    /// Resets the limit on attempts: a link has worked for long enough, or there is a new interface.
    pub(super) fn begin_trial(&mut self) {
        self.attempts = 0;
        self.retry_pause = FIRST_RETRY_NS;
        self.said = None;
    }

    /// Allows one more attempt, and checks whether the interface was plugged anew meanwhile.
    pub(super) fn allow_retry(&mut self) {
        self.counters.retries += 1;
        self.attempts = self.attempts.min(MAX_ATTEMPTS - 1);
        self.plug_changed = true;
    }

    /// Counts attempts at a link. Returns whether this one exceeds the limit.
    fn is_one_too_many(&mut self, actions: Actions) -> bool {
        if !actions.iter().copied().any(is_attempt) {
            return false;
        }
        if self.attempts < MAX_ATTEMPTS {
            self.attempts += u32::from(actions.contains(&LinkAction::Discover));
            return false;
        }
        self.notice_once(Notice::GivenUp);
        true
    }

    fn perform(&mut self, action: LinkAction, store: &mut Xenstore<'h, H>) {
        match action {
            LinkAction::Leave => {
                self.write_state(XenbusState::Closing, store);
                self.write_state(XenbusState::Closed, store);
            }
            LinkAction::Disconnect => self.disconnect(),
            LinkAction::ReadOnline => self.ask(Question::Online, store),
            LinkAction::ReadState => self.peer_state_changed = true,
            LinkAction::Offer => self.write_state(XenbusState::Initialising, store),
            LinkAction::Discover => {
                // Answers to older questions concern an older back end.
                self.forget_questions();
                self.ask(Question::Backend, store);
                self.ask(Question::Mac, store);
            }
            LinkAction::Connect => self.connect_link(store),
            LinkAction::Resume => self.resume(store),
            LinkAction::ReportCarrier => {
                // From here on the timer measures the time until the link counts as working.
                self.timer = Timer::Armed;
                self.notice(Notice::Carrier);
            }
            LinkAction::ReportAbsent => self.notice_once(Notice::NoVif),
            LinkAction::ReportBad => self.notice_once(Notice::BadConfig),
            LinkAction::ReportUnreadable => self.notice_once(Notice::Unreadable),
            LinkAction::ReportLeft => self.notice(Notice::Left),
            LinkAction::ReportReplugged => self.notice(Notice::Replugged),
            LinkAction::ReportTimeout => self.notice(Notice::Late),
        }
    }

    fn disconnect(&mut self) {
        if self.link.is_none() {
            return;
        }
        self.end_link(Link::close);
        if self.quarantined() > 0 {
            self.notice(Notice::Kept);
        }
    }

    /// Ends the link, if there is one, and keeps its buffers. The next back end may have other features.
    pub(super) fn end_link(&mut self, end: impl FnOnce(Link, &H, &mut GrantTable) -> Buffers) {
        if let Some(link) = self.link.take() {
            self.buffers = Some(end(link, self.xen, &mut self.grants));
        }
        self.features = FeaturesSaid::default();
        self.forgotten = false;
    }

    /// Makes a link and publishes it.
    fn connect_link(&mut self, store: &mut Xenstore<'h, H>) {
        self.sweep();
        match self.make_link() {
            Ok(link) => {
                self.link = Some(link);
                self.counters.links += 1;
                self.publish(store);
                if self.housekeeping {
                    self.watch(store);
                }
            }
            Err(error) => {
                self.notice(Notice::Link(error));
                self.inputs.push_back(Input::LinkFailed);
            }
        }
    }

    pub(super) fn ready_buffers(&mut self) -> Result<(), LinkError> {
        if self.buffers.is_none() {
            self.buffers = Some(Buffers::new(self.xen, self.config.tx_buffers)?);
        }
        Ok(())
    }

    fn make_link(&mut self) -> Result<Link, LinkError> {
        self.ready_buffers()?;
        let buffers = self.buffers.as_ref();
        if buffers.is_some_and(|buffers| !buffers.has_any()) {
            return Err(LinkError::Kept);
        }
        // Pages that earlier back ends keep mapped count too: the bound is one and a half times the pages of a link.
        let rx_buffers = self.config.rx_buffers;
        let bound = rx_buffers + rx_buffers / 2 + 2 * RINGS;
        let left = bound.saturating_sub(self.grants.quarantined() + RINGS);
        if left == 0 {
            return Err(LinkError::Kept);
        }
        Link::new(
            self.xen,
            &mut self.grants,
            self.domain,
            rx_buffers.min(left),
            &mut self.buffers,
            self.counters.links != 0,
        )
    }

    /// Gives a notice that would repeat with each retry only once.
    fn notice_once(&mut self, notice: Notice) {
        if self.said != Some(notice) {
            self.said = Some(notice);
            self.notice(notice);
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        if self.notices.len() < MAX_NOTICES {
            self.notices.push_back(notice);
        } else {
            self.counters.lost_notices += 1;
        }
    }
}

/// Whether an action begins an attempt at a link.
fn is_attempt(action: LinkAction) -> bool {
    matches!(action, LinkAction::Offer | LinkAction::Discover)
}
