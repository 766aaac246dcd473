//! Composes segments that no socket sends: the SYN-ACK with a cookie, and the SYN that is replayed for it.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use crate::stack::path::Path;

/// The hop limit (time to live) of a packet.
const HOP_LIMIT: u8 = 64;

/// A SYN or a SYN-ACK in its IP packet, with the MSS as its one option. Its checksums are 0.
pub(super) struct Opening {
    ip: IpRepr,
    tcp: TcpRepr<'static>,
}

impl Opening {
    /// The longest packet in bytes: an IPv6 header, a TCP header, the MSS.
    pub(super) const LENGTH_MAX: usize = 40 + 20 + 4;

    fn new(
        ip: (smoltcp::wire::IpAddress, smoltcp::wire::IpAddress),
        tcp: TcpRepr<'static>,
    ) -> Self {
        let (from, to) = ip;
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), HOP_LIMIT);
        Self { ip, tcp }
    }

    /// A SYN from a peer to us, with this sequence number and MSS.
    pub(super) fn syn(path: &Path, number: u32, mss: u16) -> Self {
        let tcp = TcpRepr {
            src_port: path.from_port,
            dst_port: path.to_port,
            ..segment(number, None, mss)
        };
        Self::new((path.from, path.to), tcp)
    }

    /// Our SYN-ACK: our sequence number, the next one of the peer, our MSS and our window.
    pub(super) fn answer(path: &Path, number: u32, next: u32, mss: u16, window: u16) -> Self {
        let tcp = TcpRepr {
            src_port: path.to_port,
            dst_port: path.from_port,
            window_len: window,
            ..segment(number, Some(next), mss)
        };
        Self::new((path.to, path.from), tcp)
    }

    /// The length of the packet in bytes.
    pub(super) fn length(&self) -> usize {
        self.ip.buffer_len()
    }

    /// Writes the packet into a buffer of [`Opening::length`] bytes.
    pub(super) fn write(&self, packet: &mut [u8]) {
        let Some((header, message)) = packet.split_at_mut_checked(self.ip.header_len()) else {
            return;
        };
        if message.len() < self.tcp.buffer_len() {
            return;
        }
        let none = ChecksumCapabilities::ignored();
        self.ip.emit(header, &none);
        let mut message = TcpPacket::new_unchecked(message);
        let (from, to) = (self.ip.src_addr(), self.ip.dst_addr());
        self.tcp.emit(&mut message, &from, &to, &none);
    }
}

/// A SYN without ports and window; a SYN-ACK if `next` is given.
fn segment(number: u32, next: Option<u32>, mss: u16) -> TcpRepr<'static> {
    TcpRepr {
        src_port: 0,
        dst_port: 0,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(number.cast_signed()),
        ack_number: next.map(|next| TcpSeqNumber(next.cast_signed())),
        window_len: 0,
        window_scale: None,
        max_seg_size: Some(mss),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}
