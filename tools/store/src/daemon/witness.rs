//! The machine as the core sees it: its answers are added to the journal, or come from there when a successor repeats it.

use mayfly_xenstore::ErrorCode;

use super::Machine;
use crate::core::{DomainState, Host};
use crate::keep::{Journal, Kind, NO_PORT, Upcoming};

/// A machine with the journal of its answers.
pub(super) struct Witness<'a, M> {
    pub(super) machine: &'a mut M,
    pub(super) journal: &'a mut Journal,
}

/// The bits of [`Kind::State`].
const GONE: u64 = 1;
const SHUTDOWN: u64 = 2;
const DYING: u64 = 4;

impl<M: Machine> Witness<'_, M> {
    /// Takes the journal's answer. `None`: the machine has to be asked.
    fn repeated(&mut self, kind: Kind, domid: u16) -> Option<u64> {
        match self.journal.upcoming() {
            Upcoming::Record(next, id) if next == kind && id == u64::from(domid) => {
                Some(self.journal.repeat()?.number)
            }
            Upcoming::Nothing | Upcoming::Record(..) => None,
        }
    }

    fn add(&mut self, kind: Kind, domid: u16, number: u64) {
        self.journal.append(kind, domid.into(), number, &[]);
    }

    /// Closes the port that a worker has bound, if it ended before it could say so.
    fn close_unknown_port(&mut self) {
        if self.journal.is_repeated() {
            self.machine.close_unknown_port();
        }
    }

    fn note(&mut self, domid: u16, number: u64) {
        let port = u32::try_from(number).ok();
        self.machine.note_attached(domid, port);
    }
}

impl<M: Machine> Host for Witness<'_, M> {
    fn state(&mut self, domid: u16) -> Option<DomainState> {
        if let Some(bits) = self.repeated(Kind::State, domid) {
            return (bits & GONE == 0).then_some(DomainState {
                is_shutdown: bits & SHUTDOWN != 0,
                is_dying: bits & DYING != 0,
            });
        }
        if self.journal.upcoming() != Upcoming::Nothing {
            return Some(DomainState::default());
        }
        let state = self.machine.state(domid);
        if state != Some(DomainState::default()) {
            let bits = state.map_or(GONE, |state| {
                let bit = |is: bool, bit| if is { bit } else { 0 };
                bit(state.is_shutdown, SHUTDOWN) | bit(state.is_dying, DYING)
            });
            self.add(Kind::State, domid, bits);
        }
        state
    }

    fn attach(&mut self, domid: u16, gfn: u64, port: u32) -> Result<(), ErrorCode> {
        if let Some(number) = self.repeated(Kind::Attached, domid) {
            if number == NO_PORT {
                return Err(ErrorCode::EINVAL);
            }
            self.note(domid, number);
            return Ok(());
        }
        self.close_unknown_port();
        let result = self.machine.attach(domid, gfn, port);
        let ours = self.machine.port(domid).filter(|_| result.is_ok());
        self.add(Kind::Attached, domid, ours.map_or(NO_PORT, u64::from));
        match ours {
            Some(_) => self.machine.begin(domid),
            None => return Err(ErrorCode::EINVAL),
        }
        Ok(())
    }

    fn adopt(&mut self, domid: u16, port: u32) {
        self.machine.adopt(domid, port);
    }

    fn attach_again(&mut self, domid: u16, port: u32) {
        if let Some(number) = self.repeated(Kind::AttachedAgain, domid) {
            return self.note(domid, number);
        }
        self.close_unknown_port();
        self.machine.attach_again(domid, port);
        let ours = self.machine.port(domid);
        self.add(Kind::AttachedAgain, domid, ours.map_or(NO_PORT, u64::from));
        self.machine.begin(domid);
    }

    fn detach(&mut self, domid: u16) {
        if self.repeated(Kind::Detached, domid).is_some() {
            return self.machine.note_detached(domid);
        }
        self.machine.detach(domid);
        self.add(Kind::Detached, domid, 0);
    }
}
