//! Between whom a message goes.

use smoltcp::wire::IpAddress;

use crate::nic::Mac;

/// The addresses of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The MAC address of the sender.
    pub(super) mac: Mac,
    pub(super) from: IpAddress,
    pub(super) from_port: u16,
    /// One of our addresses.
    pub(super) to: IpAddress,
    pub(super) to_port: u16,
}

impl Path {
    /// The path of no message.
    pub(super) const NOWHERE: Self = Self {
        mac: [0; 6],
        from: IpAddress::v4(0, 0, 0, 0),
        from_port: 0,
        to: IpAddress::v4(0, 0, 0, 0),
        to_port: 0,
    };
}
