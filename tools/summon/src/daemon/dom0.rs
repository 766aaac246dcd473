//! The operations on dom0's links that the maker's first thread needs, as a trait for fakes in tests.

use super::super::wire::BridgePort;
use mayfly_links::{Bridge, Link, Links};

/// dom0's links. [`mayfly_links::Links`] documents each call.
pub(super) trait Ports {
    /// The link of this name.
    fn find(&mut self, name: &str) -> Result<Link, mayfly_links::Error>;
    /// The bridge of this name.
    fn bridge(&mut self, name: &str) -> Result<Bridge, mayfly_links::Error>;
    /// Makes a port of our own on a bridge.
    fn port(&mut self, bridge: &str) -> Result<BridgePort, mayfly_links::Error>;
    /// Sets whether a port gets flooded frames.
    fn flood(&mut self, link: &Link, floods: bool) -> Result<(), mayfly_links::Error>;
    /// Makes the bridge send frames for a MAC address to this port.
    fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error>;
    /// Undoes [`Ports::direct`].
    fn undirect(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error>;
}

impl Ports for Links {
    fn find(&mut self, name: &str) -> Result<Link, mayfly_links::Error> {
        Self::find(self, name)
    }

    fn bridge(&mut self, name: &str) -> Result<Bridge, mayfly_links::Error> {
        Self::bridge(self, name)
    }

    fn port(&mut self, bridge: &str) -> Result<BridgePort, mayfly_links::Error> {
        BridgePort::open(self, bridge)
    }

    fn flood(&mut self, link: &Link, floods: bool) -> Result<(), mayfly_links::Error> {
        Self::flood(self, link, floods)
    }

    fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error> {
        Self::direct(self, link, mac)
    }

    fn undirect(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error> {
        Self::undirect(self, link, mac)
    }
}
