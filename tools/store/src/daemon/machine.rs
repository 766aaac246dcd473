//! The operations of the machine that the loop needs, in addition to those of the core.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use mayfly_drivers::SharedPage;

use crate::core::Host;

/// The events since the last call of [`Machine::events`].
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// All of these, and nothing else, have happened.
    Of {
        /// The domains whose event channels were notified.
        rings: Vec<u16>,
        /// Whether a domain has shut down or gone.
        domains: bool,
    },
    /// Events were lost: all rings and domains have to be checked.
    Lost,
}

/// Xen, or a fake of it in tests.
///
/// [`Host::attach`] and [`Host::attach_again`] leave the ring's content as it is. [`Machine::begin`] follows them.
pub trait Machine: Host {
    /// Returns a file descriptor that is readable when events have happened; `None` if there is none to wait for.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Returns the numbers of all file descriptors that it uses.
    fn descriptors(&self) -> Vec<i32>;

    /// Returns the events since the last call, and unmasks their event channels.
    fn events(&mut self) -> News;

    /// Reads the states of all domains at once, for the following calls of [`Host::state`].
    fn read_states(&mut self);

    /// Forgets these states: from now on [`Host::state`] asks Xen each time.
    fn forget_states(&mut self);

    /// Returns the ring page of an attached domain.
    fn page(&self, domid: u16) -> Option<&SharedPage>;

    /// Returns the local port of an attached domain.
    fn port(&self, domid: u16) -> Option<u32>;

    /// Empties the ring of a domain that was just attached.
    fn begin(&mut self, domid: u16);

    /// Notifies an attached domain.
    fn notify(&self, domid: u16);

    /// Returns the local port of each attached domain, for a successor in this process.
    fn ports(&self) -> HashMap<u16, u32>;

    /// Stops or begins to receive the news of domains that shut down or go. Only one xenstored can receive them, so
    /// they are left to a successor.
    fn receive_exceptions(&mut self, receive: bool);

    /// Stops serving a domain that has broken the protocol, until it is attached again.
    fn shut(&mut self, domid: u16);

    /// Returns whether [`Machine::shut`] has stopped serving a domain.
    fn is_shut(&self, domid: u16) -> bool;

    /// Notes that a worker which has ended has attached a domain, at a local port if it got one.
    fn note_attached(&mut self, domid: u16, port: Option<u32>);

    /// Notes that a worker which has ended has detached a domain.
    fn note_detached(&mut self, domid: u16);

    /// Closes the port that a worker has bound in the moment in which it ended, if there is one.
    fn close_unknown_port(&mut self);

    /// Opens anew what another process cannot use, in a process that goes on with a copy of its predecessor's memory. No
    /// ring has a page until [`Machine::recover`].
    ///
    /// # Errors
    /// The kernel's.
    fn revive(&mut self) -> io::Result<()>;

    /// Maps the rings of all domains that are attached now, and unmasks all event channels.
    ///
    /// # Errors
    /// The kernel's.
    fn recover(&mut self) -> io::Result<()>;

    /// Completes [`Machine::begin`] if a worker ended during it.
    fn complete_begin(&mut self, domid: u16);
}
