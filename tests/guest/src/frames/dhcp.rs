//! Messages of a DHCP server.

use super::{BROADCAST, Path, encoded, udp};

/// The contents of a DHCP message of a server.
#[derive(Debug, Clone)]
pub struct Dhcp {
    /// 2 offers, 5 acknowledges, 6 refuses.
    pub kind: u8,
    /// The client's transaction ID.
    pub xid: u32,
    /// The client.
    pub mac: [u8; 6],
    /// The address that is leased.
    pub address: [u8; 4],
    /// The server.
    pub server: [u8; 4],
    /// The router, if there is one.
    pub router: Option<[u8; 4]>,
    /// The duration of the lease, in seconds.
    pub lease: u32,
}

impl Dhcp {
    /// The usual options, by number.
    #[must_use]
    pub fn options(&self) -> Vec<(u8, Vec<u8>)> {
        let mut options = vec![
            (53, vec![self.kind]),
            (54, self.server.to_vec()),
            (51, self.lease.to_be_bytes().to_vec()),
            (1, vec![255, 255, 255, 0]),
        ];
        options.extend(self.router.map(|router| (3, router.to_vec())));
        options
    }

    /// A message with these bytes as its options and its `file` field.
    #[must_use]
    pub fn message_with(&self, options: &[u8], file: &[u8]) -> Vec<u8> {
        let mut message = vec![2, 1, 6, 0];
        message.extend(self.xid.to_be_bytes());
        message.extend([0, 0, 0x80, 0, 0, 0, 0, 0]);
        message.extend(self.address);
        message.extend(self.server);
        message.extend([0; 4]);
        message.extend(self.mac);
        message.resize(108, 0);
        message.extend(file);
        message.resize(236, 0);
        message.extend([0x63, 0x82, 0x53, 0x63]);
        message.extend(options);
        message
    }

    /// The message as the payload of a datagram from port 67 to 68.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut options = encoded(&self.options());
        options.push(255);
        self.message_with(&options, b"")
    }

    /// The whole frame, broadcast.
    #[must_use]
    pub fn frame(&self, mac: [u8; 6]) -> Vec<u8> {
        Self::frame_of(mac, self.server, &self.message())
    }

    /// A message as a broadcast frame from this address.
    #[must_use]
    pub fn frame_of(mac: [u8; 6], from: [u8; 4], message: &[u8]) -> Vec<u8> {
        let path = Path {
            mac,
            to_mac: BROADCAST,
            from: from.into(),
            to: [255; 4].into(),
        };
        udp(&path, 67, 68, message)
    }
}
