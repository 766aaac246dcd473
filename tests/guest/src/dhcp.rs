//! A DHCP server whose answers a test controls.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use crate::frames::{self, Dhcp};
use crate::{GUEST_MAC, GUEST4, Net};

/// The server's MAC address.
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Its IP address.
pub const SERVER: [u8; 4] = [10, 0, 2, 2];

/// The options, the `file` field, and the source address of a message.
pub type Said = (Vec<u8>, Vec<u8>, [u8; 4]);

/// The usual options.
#[must_use]
pub fn usual(dhcp: &Dhcp) -> Said {
    said(dhcp, |_| ())
}

/// The usual options, changed.
pub fn said(dhcp: &Dhcp, change: impl FnOnce(&mut Vec<(u8, Vec<u8>)>)) -> Said {
    let mut options = dhcp.options();
    change(&mut options);
    let mut bytes = frames::encoded(&options);
    bytes.push(255);
    (bytes, Vec::new(), dhcp.server)
}

/// The usual options without those of the numbers `without`, and with those of `with`.
#[must_use]
pub fn instead(dhcp: &Dhcp, without: &[u8], with: &[(u8, &[u8])]) -> Said {
    said(dhcp, |options| {
        options.retain(|(code, _)| !without.contains(code));
        options.extend(with.iter().map(|(code, value)| (*code, value.to_vec())));
    })
}

/// A server that leases one address as long as it is up.
pub struct Server {
    /// The address that it leases.
    pub address: [u8; 4],
    /// The router in its answers.
    pub router: [u8; 4],
    /// Its own address.
    pub from: [u8; 4],
    /// The duration of a lease, in seconds.
    pub lease: u32,
    /// The options, `file` field and source address of its answers.
    pub say: fn(&Dhcp) -> Said,
    /// Whether it answers.
    pub up: bool,
    /// The number of frames of the log that it has read.
    pub seen: usize,
    /// The number of messages of the client so far.
    pub requests: u32,
}

impl Server {
    /// A server that leases the usual address for this many seconds, and is the router.
    #[must_use]
    pub fn new(lease: u32) -> Self {
        Self {
            address: GUEST4,
            router: SERVER,
            from: SERVER,
            lease,
            say: usual,
            up: true,
            seen: 0,
            requests: 0,
        }
    }

    /// Answers the messages since the last call.
    pub fn serve(&mut self, net: &mut Net<'_>) {
        let new = net.client.log[self.seen..].to_vec();
        self.seen = net.client.log.len();
        for (_, frame) in new {
            // UDP from port 68 to 67.
            if frame[12..14] != [8, 0] || frame[23] != 17 || frame[34..38] != [0, 68, 0, 67] {
                continue;
            }
            let message = &frame[42..];
            assert_eq!(message[..4], [1, 1, 6, 0]);
            assert_eq!(message[28..34], GUEST_MAC);
            let kind = option(message, 53).expect("a message type")[0];
            let kind = match kind {
                1 => 2,
                3 => 5,
                _ => continue,
            };
            self.requests += 1;
            if self.up {
                let answer = Dhcp {
                    kind,
                    xid: u32::from_be_bytes(message[4..8].try_into().unwrap()),
                    mac: GUEST_MAC,
                    address: self.address,
                    server: self.from,
                    router: Some(self.router),
                    lease: self.lease,
                };
                let (options, file, from) = (self.say)(&answer);
                let message = answer.message_with(&options, &file);
                net.deliver(&Dhcp::frame_of(SERVER_MAC, from, &message));
            }
        }
    }

    /// Answers for this many seconds.
    pub fn run(&mut self, net: &mut Net<'_>, seconds: f64) {
        net.until(seconds, |net| {
            self.serve(net);
            false
        });
    }
}

/// The value of an option in a message.
#[must_use]
pub fn option(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = message.get(240..)?;
    while let [kind, length, tail @ ..] = rest {
        let (value, tail) = tail.split_at_checked((*length).into())?;
        if *kind == wanted {
            return Some(value);
        }
        rest = tail;
    }
    None
}
