//! `control/shutdown`: shutdown requests from the toolstack.
//!
//! Source: Xen docs/misc/xenstore-paths.pandoc, "Domain Controlled Paths". The guest acknowledges a request by writing
//! the empty value. All of this happens after the first packet.
//!
//! A restarted xenstored has lost all watches and does not tell its clients. So the guest regularly asks for the watch
//! again: a xenstored that still has it answers `EEXIST`.

use crate::Hypervisor;
use crate::xenstore::{ReqId, StoreErrno, StoreEvent, Xenstore};

const SHUTDOWN: &[u8] = b"control/shutdown";
const TOKEN: &[u8] = b"control";

/// A shutdown request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop for good.
    Poweroff,
    /// Stop and be created anew.
    Reboot,
    /// Stop; the toolstack decides what happens to the domain. The guest treats it as `Poweroff`.
    Halt,
    /// Stop, to be saved, and go on later.
    Suspend,
}

impl Command {
    fn parse(value: &[u8]) -> Option<Self> {
        match value {
            b"poweroff" => Some(Self::Poweroff),
            b"reboot" => Some(Self::Reboot),
            b"halt" => Some(Self::Halt),
            b"suspend" => Some(Self::Suspend),
            _ => None,
        }
    }
}

/// The state of the watch on `control/shutdown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WatchState {
    /// xenstored has not confirmed it.
    Unconfirmed,
    /// xenstored has confirmed it.
    Confirmed,
}

/// The watch on `control/shutdown`.
#[derive(Debug)]
pub struct Control {
    changed: bool,
    read: Option<ReqId>,
    /// The command could not be read; it is read again at the next [`Control::renew`].
    unread: bool,
    command: Option<Command>,
    unknown: u32,
    watch: WatchState,
    asked: Option<ReqId>,
    lost: bool,
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl Control {
    /// A control that does nothing until [`Control::renew`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            changed: false,
            read: None,
            unread: false,
            command: None,
            unknown: 0,
            watch: WatchState::Unconfirmed,
            asked: None,
            lost: false,
        }
    }

    /// Advertises the guest's control features and watches for commands. Later calls check that xenstored still has the
    /// watch. Requests that cannot be sent now are sent by the next call.
    pub fn renew<H: Hypervisor>(&mut self, store: &mut Xenstore<'_, H>) {
        if self.watch == WatchState::Unconfirmed {
            for key in [
                b"control/feature-poweroff".as_slice(),
                b"control/feature-reboot",
                b"control/feature-suspend",
            ] {
                let _ = store.write(&[key], b"1");
            }
        }
        self.changed |= core::mem::take(&mut self.unread);
        if self.asked.is_none() {
            self.asked = store.watch(&[SHUTDOWN], TOKEN).ok();
        }
        store.flush();
    }

    /// To be called after a reconnection to xenstored: outstanding requests will not be answered.
    pub fn reconnected<H: Hypervisor>(&mut self, store: &mut Xenstore<'_, H>) {
        (self.read, self.asked) = (None, None);
        self.watch = WatchState::Unconfirmed;
        self.renew(store);
    }

    /// Whether xenstored has lost the watch, and with it all other watches. Clears the flag.
    #[must_use]
    pub fn take_lost(&mut self) -> bool {
        core::mem::take(&mut self.lost)
    }

    /// Handles a xenstore event, if it is about `control/shutdown`.
    pub fn xenstore_event(&mut self, event: &StoreEvent<'_>) {
        match *event {
            StoreEvent::Watch { token, .. } => self.changed |= token == TOKEN,
            StoreEvent::Answer(id, result) if self.read == Some(id) => {
                self.read = None;
                self.unread = result == Err(StoreErrno::Other);
                let value = result.unwrap_or_default();
                self.command = Command::parse(value);
                if self.command.is_none() && !value.is_empty() {
                    self.unknown += 1;
                }
            }
            StoreEvent::Answer(id, result) if self.asked == Some(id) => {
                self.asked = None;
                self.lost |= result.is_ok() && self.watch == WatchState::Confirmed;
                self.watch = match result {
                    Ok(_) | Err(StoreErrno::Exists) => WatchState::Confirmed,
                    Err(_) => WatchState::Unconfirmed,
                };
            }
            StoreEvent::Answer(..) => {}
        }
    }

    /// Sends pending requests. Returns a command once it has been read and acknowledged.
    pub fn drive<H: Hypervisor>(&mut self, store: &mut Xenstore<'_, H>) -> Option<Command> {
        if self.changed && self.read.is_none() {
            // A full queue is tried again with the next call.
            if let Ok(id) = store.read(&[SHUTDOWN]) {
                self.changed = false;
                self.read = Some(id);
                store.flush();
            }
        }
        let command = self.command.take()?;
        // The command is obeyed whether or not the toolstack hears of it.
        let _ = store.write(&[SHUTDOWN], b"");
        store.flush();
        Some(command)
    }

    /// The number of unknown commands, which are ignored.
    #[must_use]
    pub fn unknown(&self) -> u32 {
        self.unknown
    }
}
