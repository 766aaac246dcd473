//! The attacking peers: their frames, and their record of the guest's answers.

mod tcp;

use std::net::{IpAddr, Ipv6Addr};

use super::{mutate, payload};
use crate::frames::{self, BROADCAST, Dhcp, Path};
use crate::random::Random;
use crate::{GUEST_MAC, GUEST4, SECOND};
use mayfly_drivers::fake::Packet;

/// The greatest number of connections that are remembered.
const MAX_CONNECTIONS: usize = 48;
/// The peers that exist, by the last byte of their addresses; the first is the router.
const HOSTS: [u8; 5] = [2, 3, 4, 5, 6];
/// The kinds of frames below this are TCP segments.
const SEGMENTS: usize = 8;
/// The greatest number of frames that are remembered for repeating and splicing.
const MAX_HISTORY: usize = 48;

const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x80);
const GUEST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x216, 0x3eff, 0xfe00, 1);

/// A TCP connection as a peer sees it.
#[derive(Debug, Clone)]
struct Connection {
    path: Path,
    from_port: u16,
    to_port: u16,
    /// The next byte to send.
    seq: u32,
    /// The next byte to receive.
    ack: u32,
    window: u16,
    established: bool,
    /// The part of a request that is still to be sent.
    rest: Vec<u8>,
}

/// All peers together.
pub(super) struct Peers {
    pub(super) random: Random,
    connections: Vec<Connection>,
    history: Vec<Vec<u8>>,
    dhcp: Option<u32>,
    next_port: u16,
    /// The number of connections that were established.
    pub(super) established: u64,
}

impl Peers {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            connections: Vec::new(),
            history: Vec::new(),
            dhcp: None,
            next_port: 10_000,
            established: 0,
        }
    }

    /// Forgets half of the record after a good client's turn. The sequence numbers are still right.
    pub(super) fn forget(&mut self) {
        if self.random.one_in(2) {
            self.connections.clear();
        }
    }

    /// The pause after a case, in ns.
    pub(super) fn pause(&mut self) -> u64 {
        match self.random.below(1000) {
            0 => 30 * SECOND,
            1..=4 => 3 * SECOND,
            5..=30 => SECOND / 5,
            31..=200 => SECOND / 100,
            201..=500 => 50_000,
            _ => 0,
        }
    }

    /// A frame as netback passes it on.
    pub(super) fn packet(&mut self, mut bytes: Vec<u8>) -> Packet {
        // netback passes on no frame that is shorter than a header.
        bytes.resize(bytes.len().max(14), 0);
        if self.history.len() < MAX_HISTORY {
            self.history.push(bytes.clone());
        } else {
            let at = self.random.below(MAX_HISTORY);
            self.history[at].clone_from(&bytes);
        }
        Packet {
            flags: self.random.pick(&[0, 0, 0, 0, 1, 2, 3]),
            offset: self.random.pick(&[0, 0, 2, 64, 256, 2000]),
            bytes,
        }
    }

    /// The frames of one case.
    pub(super) fn sequence(&mut self) -> Vec<Vec<u8>> {
        let count = match self.random.below(200) {
            0 => 30 + self.random.below(60),
            1..=9 => 10,
            10..=59 => 4,
            60..=119 => 2,
            _ => 1,
        };
        // A long sequence is mostly a flood of one kind.
        let flood = (count > 4 && !self.random.one_in(3)).then(|| self.random.below(16));
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = flood.unwrap_or_else(|| self.random.below(24));
            let mut frame = self.valid(kind);
            // A segment is changed when it is made, so it is changed less often here.
            let spare = if kind < SEGMENTS { 7 } else { 3 };
            if self.random.below(10) >= spare {
                let other = match self.history.as_slice() {
                    [] => Vec::new(),
                    history => history[self.random.below(history.len())].clone(),
                };
                mutate::frame(&mut self.random, &mut frame, &other);
            }
            if self.random.one_in(30) {
                frames.push(frame.clone());
            }
            frames.push(frame);
        }
        if self.random.one_in(8) {
            frames.reverse();
        }
        frames
    }

    /// Frames by which the guest learns its neighbours, the routers among them.
    pub(super) fn hello() -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for host in HOSTS {
            let mac = [2, 0, 0, 0, 1, host];
            frames.push(frames::arp(1, mac, [10, 0, 2, host], [0; 6], GUEST4));
            let last = u16::from(host);
            for (from, to) in [
                (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last), GUEST6),
                (
                    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last),
                    GUEST_LINK_LOCAL,
                ),
            ] {
                let path = Path::to_guest(mac, from.into(), to.into());
                frames.push(frames::neighbor(&path, 135, to.into()));
            }
        }
        frames
    }

    fn mac(&mut self) -> [u8; 6] {
        [2, 0, 0, 0, 1, self.random.pick(&HOSTS)]
    }

    /// A path from a peer to the guest.
    fn path(&mut self) -> Path {
        let random = &mut self.random;
        let host = random.pick(&[2, 3, 4, 5, 6, 6, 6, 6, 200]);
        let (from, to): (IpAddr, IpAddr) = match random.below(8) {
            0..=3 => ([10, 0, 2, host].into(), GUEST4.into()),
            4 => ([192, 0, 2, host].into(), GUEST4.into()),
            5 => (
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host.into()).into(),
                GUEST_LINK_LOCAL.into(),
            ),
            6 => (
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(),
                GUEST6.into(),
            ),
            _ => (
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into(),
                GUEST6.into(),
            ),
        };
        let mac = self.mac();
        Path::to_guest(mac, from, to)
    }

    fn path4(&mut self) -> Path {
        loop {
            let path = self.path();
            if path.to.is_ipv4() {
                return path;
            }
        }
    }

    fn path6(&mut self) -> Path {
        loop {
            let path = self.path();
            if path.to.is_ipv6() {
                return path;
            }
        }
    }

    fn dhcp(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let message = Dhcp {
            kind: random.pick(&[2, 5, 5, 6, 1, 0]),
            xid: match self.dhcp {
                Some(xid) if !random.one_in(10) => xid,
                _ => random.long(),
            },
            mac: GUEST_MAC,
            address: random.pick(&[
                GUEST4,
                [10, 0, 2, 81],
                [0; 4],
                [255; 4],
                [224, 0, 0, 1],
                [127, 0, 0, 1],
            ]),
            server: random.pick(&[[10, 0, 2, 2], [0; 4], [255; 4]]),
            router: random.pick(&[
                None,
                Some([10, 0, 2, 2]),
                Some([0; 4]),
                Some([224, 0, 0, 1]),
            ]),
            lease: random.pick(&[0, 1, 60, 3600, u32::MAX]),
        };
        let mac = self.mac();
        if self.random.one_in(3) {
            let mut bytes = message.message();
            let mut options = bytes.split_off(236);
            mutate::bytes(&mut self.random, &mut options);
            bytes.extend(options);
            let path = Path {
                mac,
                to_mac: BROADCAST,
                from: message.server.into(),
                to: [255; 4].into(),
            };
            return frames::udp(&path, 67, 68, &bytes);
        }
        message.frame(mac)
    }

    /// An ICMP error about a packet of the guest, if one was seen.
    fn icmp_error(&mut self) -> Vec<u8> {
        let path = self.path();
        let kind = if path.to.is_ipv4() {
            self.random.pick(&[3, 3, 4, 5, 11, 12, 13])
        } else {
            self.random.pick(&[1, 2, 3, 4, 130, 133, 134, 137, 143])
        };
        let mut message = vec![kind, self.random.byte() % 16, 0, 0];
        message.extend(self.random.bytes(4));
        let packet = match self.history.as_slice() {
            [] => Vec::new(),
            history => history[self.random.below(history.len())].clone(),
        };
        message.extend(packet.get(14..).unwrap_or_default().iter().take(576));
        let hop_limit = self.random.pick(&[255, 64, 1]);
        frames::icmp(&path, hop_limit, message)
    }

    /// An IPv6 frame with extension headers before its message.
    fn extended(&mut self) -> Vec<u8> {
        let path = self.path6();
        let query = payload::query(&mut self.random);
        let frame = frames::udp(&path, 999, 53, &query);
        let kind = self.random.pick(&[0, 0, 0, 43, 44, 60]);
        let mut header = vec![frame[20], 0];
        header.extend(match self.random.below(4) {
            0 => vec![1, 4, 0, 0, 0, 0],
            1 => vec![5, 2, 0, 0, 1, 0],
            2 => vec![0xc2, 4, 0, 1, 0, 0],
            _ => self.random.bytes(6),
        });
        let mut longer = frame[..54].to_vec();
        longer[20] = kind;
        let length = u16::try_from(frame.len() - 54 + 8).unwrap_or(0);
        longer[18..20].copy_from_slice(&length.to_be_bytes());
        longer.extend(header);
        longer.extend(&frame[54..]);
        longer
    }

    /// An IPv4 frame with options, or a fragment.
    fn optioned(&mut self) -> Vec<u8> {
        let path = self.path4();
        let query = payload::query(&mut self.random);
        let mut frame = frames::udp(&path, 999, 53, &query);
        if self.random.one_in(2) {
            let words = 1 + self.random.below(10);
            let options = self.random.bytes(words * 4);
            frame.splice(34..34, options);
            frame[14] = 0x45 + u8::try_from(words).unwrap_or(0);
            let total = u16::try_from(frame.len() - 14).unwrap_or(0);
            frame[16..18].copy_from_slice(&total.to_be_bytes());
        } else {
            let fragment = self
                .random
                .pick(&[0x2000_u16, 0x2001, 0x0001, 0x1fff, 0x3fff]);
            frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        }
        frames::fix_checksums(&mut frame);
        frame
    }

    /// A valid frame.
    fn valid(&mut self, kind: usize) -> Vec<u8> {
        match kind {
            0 | 1 => self.syn(),
            2..SEGMENTS => self.segment(),
            8 | 9 => {
                let path = self.path();
                let query = payload::query(&mut self.random);
                let port = self.random.pick(&[999, 53, 1, 0, 65_535]);
                frames::udp(&path, port, 53, &query)
            }
            10 => {
                let path = self.path();
                let payload = self.random.noise(1473);
                frames::echo_request(&path, self.random.word(), &payload)
            }
            11 => {
                let mac = self.mac();
                let host = self.random.pick(&[2, 3, 4, 5, 6, 9, 80, 200, 0, 255]);
                let operation = self.random.pick(&[1, 1, 2]);
                frames::arp(operation, mac, [10, 0, 2, host], GUEST_MAC, GUEST4)
            }
            12 => {
                let path = self.path6();
                let target = if self.random.one_in(2) {
                    path.to
                } else {
                    path.from
                };
                let kind = self.random.pick(&[135, 136]);
                frames::neighbor(&path, kind, target)
            }
            13 => self.icmp_error(),
            14 => self.dhcp(),
            15 => {
                let path = self.path();
                let payload = self.random.noise(1400);
                let (from, to) = (
                    self.random.word(),
                    self.random.pick(&[67, 68, 123, 5353, 54]),
                );
                frames::udp(&path, from, to, &payload)
            }
            16 => self.extended(),
            17 => self.optioned(),
            18 => self.group_datagram(),
            19 => {
                let mac = self.mac();
                let ethertype =
                    self.random
                        .pick(&[[0x81, 0], [0x88, 0xcc], [0, 40], [8, 0], [0x86, 0xdd]]);
                let payload = self.random.noise(100);
                frames::ethernet(mac, GUEST_MAC, ethertype, &payload)
            }
            20 if !self.history.is_empty() => {
                let at = self.random.below(self.history.len());
                self.history[at].clone()
            }
            _ => self.segment(),
        }
    }

    /// A datagram to a multicast group or a broadcast address.
    fn group_datagram(&mut self) -> Vec<u8> {
        let mut path = self.path();
        path.to_mac =
            self.random
                .pick(&[BROADCAST, [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]]);
        path.to = match path.to {
            IpAddr::V4(_) => {
                let group = self
                    .random
                    .pick(&[[255; 4], [10, 0, 2, 255], [224, 0, 0, 1]]);
                group.into()
            }
            IpAddr::V6(_) => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
        };
        if self.random.one_in(2) {
            let query = payload::query(&mut self.random);
            frames::udp(&path, 999, 53, &query)
        } else {
            frames::echo_request(&path, 1, b"mayfly")
        }
    }

    /// Records a frame of the guest. Returns a neighbour's answer if the guest asks for that neighbour.
    pub(super) fn notice(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        if let Some(seen) = frames::seen(frame) {
            self.follow(&seen);
            return None;
        }
        // UDP from port 68 to 67: the client's transaction.
        if frame.get(12..14) == Some(&[8, 0]) && frame.get(34..38) == Some(&[0, 68, 0, 67]) {
            let xid = frame.get(46..50)?;
            self.dhcp = Some(u32::from_be_bytes(xid.try_into().ok()?));
            return None;
        }
        let target = frames::asked_for(frame)?;
        // Host 200 does not exist, and the others do not always answer.
        if matches!(target, IpAddr::V4(v4) if v4.octets()[3] == 200) || self.random.one_in(4) {
            return None;
        }
        let mac = self.mac();
        match target {
            IpAddr::V4(v4) => {
                let to = <[u8; 4]>::try_from(frame.get(28..32)?).ok()?;
                Some(frames::arp(2, mac, v4.octets(), GUEST_MAC, to))
            }
            IpAddr::V6(_) => {
                let to = <[u8; 16]>::try_from(frame.get(22..38)?).ok()?;
                let path = Path::to_guest(mac, target, Ipv6Addr::from(to).into());
                Some(frames::neighbor(&path, 136, target))
            }
        }
    }
}
