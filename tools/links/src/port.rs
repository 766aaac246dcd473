//! A port of our own on a bridge, and the bridge's forwarding of MAC addresses.

use super::error::Error;
use super::link::{Bridge, Link};
use super::message;
use super::socket::{Links, refused};

/// The MAC address of our ports, as of netback's. A bridge takes the lowest address of its ports for itself, and this
/// one never is.
const PORT_MAC: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

impl Links {
    /// Makes a link of our own a port of a bridge. The bridge learns no addresses from its frames, because they have
    /// the MAC addresses of guests, and sends it all multicast, whether or not a group was joined.
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

    /// Sets whether the bridge floods a port with broadcasts, multicast and frames for unknown addresses.
    ///
    /// # Errors
    /// The kernel refuses; the link is gone; or it is not a port.
    pub fn flood(&mut self, link: &Link, floods: bool) -> Result<(), Error> {
        let sequence = self.next();
        self.ask(&message::flood(sequence, link.index, floods))?;
        self.done(sequence, "cannot set the bridge port", link)
    }

    /// Makes the bridge send frames for a MAC address to this port only, until the next call or until the port is gone.
    /// The bridge does not learn otherwise.
    ///
    /// # Errors
    /// The kernel refuses; the link is gone; or it is not a port.
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
