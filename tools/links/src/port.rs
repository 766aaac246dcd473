//! A port of our own on a bridge, and where the bridge sends what is meant for a MAC address.

use super::error::Error;
use super::link::{Bridge, Link};
use super::message;
use super::socket::{Links, refused};

/// The MAC address of ports that never are a bridge's own (as netback's): a bridge takes the lowest of its ports' for itself.
const PORT_MAC: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

impl Links {
    /// Makes a link of our own a port of a bridge. The bridge learns nothing from what it sends there, as that has other
    /// people's MAC addresses, and gives it what is sent to groups, whoever has joined them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach_own(&mut self, link: &mut Link, bridge: &Bridge) -> Result<(), Error> {
        let sequence = self.next();
        self.ask(&message::address(sequence, link.index, PORT_MAC))?;
        self.done(sequence, "cannot set the MAC address of", link)?;
        self.attach(link, bridge, None)?;
        let sequence = self.next();
        self.ask(&message::own_port(sequence, link.index))?;
        self.done(sequence, "cannot set the bridge port", link)
    }

    /// Whether the bridge that a link is a port of sends there what is for everybody, for a group, or for nobody that it knows.
    ///
    /// # Errors
    /// The kernel refuses, or the link is gone, or no port.
    pub fn flood(&mut self, link: &Link, floods: bool) -> Result<(), Error> {
        let sequence = self.next();
        self.ask(&message::flood(sequence, link.index, floods))?;
        self.done(sequence, "cannot set the bridge port", link)
    }

    /// Has the bridge that a link is a port of send there, and nowhere else, what is meant for a MAC address. It holds until
    /// the next call, or until the port is gone; the bridge does not learn otherwise.
    ///
    /// # Errors
    /// The kernel refuses, or the link is gone, or no port.
    pub fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), Error> {
        let sequence = self.next();
        self.ask(&message::direct(sequence, link.index, mac))?;
        self.done(sequence, "cannot direct a MAC address to", link)
    }

    /// Undoes [`Self::direct`].
    ///
    /// # Errors
    /// The kernel refuses, or there is nothing to undo.
    pub fn undirect(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), Error> {
        let sequence = self.next();
        self.ask(&message::undirect(sequence, link.index, mac))?;
        self.done(sequence, "cannot take a MAC address from", link)
    }

    fn done(&mut self, sequence: u32, what: &str, link: &Link) -> Result<(), Error> {
        match self.outcome(sequence, "a bridge's port")? {
            0 => Ok(()),
            code => Err(refused(code, &format!("{what} {}", link.name), &link.name)),
        }
    }
}
