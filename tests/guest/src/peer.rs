//! A peer that speaks TCP by hand, segment by segment.

use crate::frames::{self, ACK, FIN, Path, RST, SYN, Seen, Segment};
use crate::{GUEST4, Net};

/// The peers' MAC address.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// The usual peer's IP address.
pub const PEER4: [u8; 4] = [10, 0, 2, 7];

/// The guest's segments to a peer's port.
#[must_use]
pub fn segments(net: &mut Net<'_>, port: u16) -> Vec<Seen> {
    net.xen.run();
    for _ in 0..4 {
        net.step();
    }
    let now = net.now().0;
    let sent = net.sent();
    net.client
        .log
        .extend(sent.iter().map(|frame| (now, frame.clone())));
    sent.iter()
        .filter_map(|frame| frames::seen(frame))
        .filter(|segment| segment.to_port == port)
        .collect()
}

/// The initial sequence number with which the guest answers a SYN from this port to its web server.
pub fn initial_number(net: &mut Net<'_>, port: u16) -> u32 {
    let syn = Segment {
        from_port: port,
        to_port: 80,
        seq: 1000,
        flags: SYN,
        window: 60_000,
        ..Segment::default()
    };
    net.deliver(&frames::tcp(&Peer::path(), &syn));
    segments(net, port)[0].seq
}

/// The ports that the guest has sent a reset to.
#[must_use]
pub fn resets(net: &Net<'_>) -> Vec<u16> {
    net.client
        .log
        .iter()
        .filter_map(|(_, frame)| frames::seen(frame))
        .filter(|segment| segment.flags & RST != 0)
        .map(|segment| segment.to_port)
        .collect()
}

/// Sends SYNs to port 80 from 200 hosts that do not exist, so that a small guest answers the next SYN with a cookie.
///
/// # Panics
/// If the guest sends no cookies.
pub fn flood(net: &mut Net<'_>) {
    for host in 0..200 {
        let path = Path::to_guest(PEER_MAC, [198, 18, 0, host].into(), GUEST4.into());
        let segment = Segment {
            from_port: 1024,
            to_port: 80,
            flags: SYN,
            window: 1000,
            ..Segment::default()
        };
        net.deliver(&frames::tcp(&path, &segment));
        let _ = segments(net, 1024);
    }
    assert!(net.guest.stack.stats().cookies_sent > 100);
}

/// A peer that speaks TCP by hand.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub from: [u8; 4],
    /// Its port.
    pub port: u16,
    /// The guest's port.
    pub to_port: u16,
    /// The next byte to send.
    pub seq: u32,
    /// The next byte to receive.
    pub ack: u32,
    /// Its window.
    pub window: u16,
}

impl Peer {
    /// A peer that has sent nothing yet.
    #[must_use]
    pub fn new(from: [u8; 4], port: u16, to_port: u16) -> Self {
        Self {
            from,
            port,
            to_port,
            seq: 1000,
            ack: 0,
            window: 8192,
        }
    }

    /// The path from the usual peer to the guest.
    #[must_use]
    pub fn path() -> Path {
        Path::to_guest(PEER_MAC, PEER4.into(), GUEST4.into())
    }

    /// Sends a segment and returns the guest's answers.
    pub fn send(&mut self, net: &mut Net<'_>, flags: u8, payload: &[u8]) -> Vec<Seen> {
        let frame = frames::tcp(
            &Path::to_guest(PEER_MAC, self.from.into(), GUEST4.into()),
            &Segment {
                from_port: self.port,
                to_port: self.to_port,
                seq: self.seq,
                ack: self.ack,
                flags,
                window: self.window,
                options: Vec::new(),
                payload: payload.to_vec(),
            },
        );
        net.deliver(&frame);
        let bits = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.seq = self
            .seq
            .wrapping_add(u32::try_from(payload.len()).unwrap() + bits);
        let answers = segments(net, self.port);
        for answer in &answers {
            let bits = u32::from(answer.flags & SYN != 0) + u32::from(answer.flags & FIN != 0);
            let next = answer
                .seq
                .wrapping_add(u32::try_from(answer.payload.len()).unwrap() + bits);
            if answer.flags & SYN != 0 || next.wrapping_sub(self.ack) < 1 << 30 {
                self.ack = next;
            }
        }
        answers
    }

    /// Opens a connection; `None` when the guest refuses it.
    #[must_use]
    pub fn open(net: &mut Net<'_>, port: u16, to_port: u16) -> Option<Self> {
        let mut peer = Self::new(PEER4, port, to_port);
        let answers = peer.send(net, SYN, b"");
        if answers.first()?.flags != SYN | ACK {
            return None;
        }
        peer.send(net, ACK, b"");
        Some(peer)
    }
}
