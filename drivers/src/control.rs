//! `control/shutdown`: what the toolstack asks of the guest.
//!
//! Source: Xen docs/misc/xenstore-paths.pandoc, "Domain Controlled Paths". A
//! request is acknowledged by writing the empty value. All of this comes after
//! the first packet.

use crate::Hypervisor;
use crate::xenstore::{Event, ReqId, StoreError, Xenstore};

const SHUTDOWN: &[u8] = b"control/shutdown";
const TOKEN: &[u8] = b"control";

/// What the toolstack asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop for good.
    Poweroff,
    /// Stop and be created anew.
    Reboot,
    /// Stop; the toolstack decides what becomes of the domain. For a guest the same as `Poweroff`.
    Halt,
}

impl Command {
    fn parse(value: &[u8]) -> Option<Self> {
        match value {
            b"poweroff" => Some(Self::Poweroff),
            b"reboot" => Some(Self::Reboot),
            b"halt" => Some(Self::Halt),
            _ => None,
        }
    }
}

/// The watch on `control/shutdown`.
#[derive(Debug, Default)]
pub struct Control {
    changed: bool,
    read: Option<ReqId>,
    command: Option<Command>,
    unknown: u32,
}

impl Control {
    /// A control that does nothing until [`Control::start`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            changed: false,
            read: None,
            command: None,
            unknown: 0,
        }
    }

    /// Says what the guest can do, and watches for commands.
    ///
    /// # Errors
    /// [`StoreError`]; the guest then can't be shut down by the toolstack, but destroyed.
    pub fn start<H: Hypervisor>(&self, store: &mut Xenstore<'_, H>) -> Result<(), StoreError> {
        store.write(&[b"control/feature-poweroff"], b"1")?;
        store.write(&[b"control/feature-reboot"], b"1")?;
        store.watch(&[SHUTDOWN], TOKEN)?;
        store.flush();
        Ok(())
    }

    /// Takes note of a xenstore event, if it is about `control/shutdown`.
    pub fn xenstore_event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Watch { token, .. } => self.changed |= token == TOKEN,
            Event::Answer(id, result) => {
                if self.read == Some(id) {
                    self.read = None;
                    let value = result.unwrap_or_default();
                    self.command = Command::parse(value);
                    if self.command.is_none() && !value.is_empty() {
                        self.unknown += 1;
                    }
                }
            }
        }
    }

    /// Moves on; a command, acknowledged, once there is one to obey.
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

    /// Commands that were not understood, and ignored.
    #[must_use]
    pub fn unknown(&self) -> u32 {
        self.unknown
    }
}
