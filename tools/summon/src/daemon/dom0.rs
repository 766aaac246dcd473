//! The operations on dom0's links that the maker's first thread needs, as a trait for fakes in tests.

use super::super::wire::Port;
use mayfly_links::{Bridge, Error, Link, Links};

/// dom0's links. [`mayfly_links::Links`] documents each call.
pub(super) trait Ports {
    /// The link of this name.
    fn find(&mut self, name: &str) -> Result<Link, Error>;
    /// The bridge of this name.
    fn bridge(&mut self, name: &str) -> Result<Bridge, Error>;
    /// Makes a port of our own on a bridge.
    fn port(&mut self, bridge: &str) -> Result<Port, Error>;
    /// Sets whether a port gets flooded frames.
    fn flood(&mut self, link: &Link, floods: bool) -> Result<(), Error>;
    /// Makes the bridge send frames for a MAC address to this port.
    fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), Error>;
    /// Undoes [`Ports::direct`].
    fn undirect(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), Error>;
}

impl Ports for Links {
    fn find(&mut self, name: &str) -> Result<Link, Error> {
        Self::find(self, name)
    }

    fn bridge(&mut self, name: &str) -> Result<Bridge, Error> {
        Self::bridge(self, name)
    }

    fn port(&mut self, bridge: &str) -> Result<Port, Error> {
        Port::open(self, bridge)
    }

    fn flood(&mut self, link: &Link, floods: bool) -> Result<(), Error> {
        Self::flood(self, link, floods)
    }

    fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), Error> {
        Self::direct(self, link, mac)
    }

    fn undirect(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), Error> {
        Self::undirect(self, link, mac)
    }
}
