//! What the loop asks of the machine, beyond what the core does.

use std::os::fd::BorrowedFd;

use mayfly_drivers::SharedPage;

use crate::core::Host;

/// What has happened.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// These rings' event channels have been notified; something has happened to domains, or not.
    Of {
        /// The rings' domains.
        rings: Vec<u16>,
        /// Whether a domain has shut down or gone.
        domains: bool,
    },
    /// More than can be told: all rings and domains are to be looked at.
    Lost,
}

/// Xen, or what stands for it in tests.
pub trait Machine: Host {
    /// What becomes readable when something has happened.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// What has happened since this was last asked. From then on, more can happen.
    fn events(&mut self) -> News;

    /// Gets to know what there is to know of all domains, for [`Host::state`] of as many as are asked next.
    fn look(&mut self);

    /// From now on each domain is asked about anew.
    fn look_away(&mut self);

    /// The ring page of a domain that is attached.
    fn page(&self, domid: u16) -> Option<&SharedPage>;

    /// Notifies a domain that is attached.
    fn notify(&self, domid: u16);

    /// A domain has broken the protocol: it is not served before it is attached again.
    fn shut(&mut self, domid: u16);

    /// Whether it is not served.
    fn is_shut(&self, domid: u16) -> bool;
}
