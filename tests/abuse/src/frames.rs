//! Frames that an ordinary socket would not send.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZero;
use std::thread::sleep;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context, Result};
use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, sendto, socket_with,
};
use smoltcp::phy::{ChecksumCapabilities, Device, Medium, RawSocket, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket, UdpRepr,
};

/// The number of frames that are sent before the rest of the machine gets its turn.
const BURST: u32 = 64;
/// An IPv4 header without options, and the headers before it.
const HEADERS: usize = ETHERNET + 20;
const ETHERNET: usize = 14;
/// `IPPROTO_RAW` (netinet/in.h): the sender also writes the IP header.
const IPPROTO_RAW: u32 = 255;

/// Sends the frames that `make` returns, as fast as possible. Returns their number.
fn send(interface: &str, end: Clock, mut make: impl FnMut() -> Vec<u8>) -> Result<u64> {
    let mut socket = RawSocket::new(interface, Medium::Ethernet).context("no raw socket")?;
    let mut sent = 0;
    while Clock::now() < end {
        for _ in 0..BURST {
            let frame = make();
            let token = socket
                .transmit(Instant::from_millis(0))
                .context("no token")?;
            token.consume(frame.len(), |buffer| buffer.copy_from_slice(&frame));
            sent += 1;
        }
        // dom0 has one CPU, and the sent frames must be processed too.
        sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

/// Sends an ARP request and a SYN to each address of the network in turn. For the SYN, dom0's kernel resolves the MAC
/// address, as a router would. Returns the numbers of both.
pub(crate) fn sweep(interface: &str, network: Ipv4Addr, end: Clock) -> Result<(u64, u64)> {
    let raw = Protocol::from_raw(const { NonZero::new(IPPROTO_RAW).unwrap() });
    let packets = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::NONBLOCK,
        Some(raw),
    )?;
    let [a, b, c, _] = network.octets();
    let mut last = 0_u8;
    let mut syns = 0;
    let asked = send(interface, end, || {
        last = last.wrapping_add(1);
        let target = Ipv4Addr::new(a, b, c, last);
        let frame = segment(EthernetAddress::BROADCAST, target, TcpControl::Syn, &[]);
        let packet = frame.get(ETHERNET..).unwrap_or_default();
        let to = SocketAddrV4::new(target, 0);
        // The queue of an unresolved address is soon full.
        syns += u64::from(sendto(&packets, packet, SendFlags::empty(), &to).is_ok());
        request(target)
    })?;
    Ok((asked, syns))
}

/// An ARP request from a sender that does not exist.
fn request(target: Ipv4Addr) -> Vec<u8> {
    let mac = EthernetAddress([2, 0, 0, fastrand::u8(..), fastrand::u8(..), 9]);
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: random_address(),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let ethernet = EthernetRepr {
        src_addr: mac,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; ETHERNET + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

fn random_address() -> Ipv4Addr {
    Ipv4Addr::new(
        198,
        18 + fastrand::u8(0..2),
        fastrand::u8(..),
        fastrand::u8(..),
    )
}

/// An Ethernet frame with an IPv4 packet.
fn ipv4(
    to: EthernetAddress,
    (source, guest): (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
    payload: usize,
    emit: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: guest,
        next_header: protocol,
        payload_len: payload,
        hop_limit: 64,
    };
    let mut bytes = vec![0; HEADERS + payload];
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress([2, 0, 0, 0, 0, 9]),
        dst_addr: to,
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    emit(packet.payload_mut());
    bytes
}

fn segment(to: EthernetAddress, guest: Ipv4Addr, control: TcpControl, payload: &[u8]) -> Vec<u8> {
    let source = random_address();
    let tcp = TcpRepr {
        src_port: fastrand::u16(1024..),
        dst_port: if fastrand::bool() { 80 } else { 53 },
        control,
        seq_number: TcpSeqNumber(fastrand::i32(..)),
        ack_number: (control != TcpControl::Syn).then(|| TcpSeqNumber(fastrand::i32(..))),
        window_len: 65535,
        window_scale: None,
        max_seg_size: (control == TcpControl::Syn).then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    ipv4(
        to,
        (source, guest),
        IpProtocol::Tcp,
        tcp.buffer_len(),
        |bytes| {
            tcp.emit(
                &mut TcpPacket::new_unchecked(bytes),
                &IpAddress::from(source),
                &IpAddress::from(guest),
                &ChecksumCapabilities::default(),
            );
        },
    )
}

fn datagram(to: EthernetAddress, guest: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let source = random_address();
    let udp = UdpRepr {
        src_port: fastrand::u16(1024..),
        dst_port: 53,
    };
    let length = udp.header_len() + payload.len();
    ipv4(to, (source, guest), IpProtocol::Udp, length, |bytes| {
        udp.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &IpAddress::from(source),
            &IpAddress::from(guest),
            payload.len(),
            |buffer| buffer.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// Sends SYN segments, each from another address.
pub(crate) fn syn(
    interface: &str,
    mac: EthernetAddress,
    guest: Ipv4Addr,
    end: Clock,
) -> Result<u64> {
    send(interface, end, || segment(mac, guest, TcpControl::Syn, &[]))
}

/// Sends valid frames of which some bytes were changed, or the end cut off.
pub(crate) fn malformed(
    interface: &str,
    mac: EthernetAddress,
    guest: Ipv4Addr,
    end: Clock,
) -> Result<u64> {
    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06mayfly\x04test\x00\x00\x01\x00\x01";
    send(interface, end, || {
        let mut bytes = match fastrand::u8(0..4) {
            0 => segment(mac, guest, TcpControl::Syn, &[]),
            1 => segment(mac, guest, TcpControl::Psh, b"GET / HTTP/1.1\r\n\r\n"),
            2 => datagram(mac, guest, QUERY),
            _ => {
                let mut bytes = datagram(mac, guest, &vec![0; fastrand::usize(0..1200)]);
                // ARP, IPv6 and an unknown protocol, with random bytes.
                let kind = fastrand::choice([[0x08, 0x06], [0x86, 0xdd], [0x12, 0x34]]);
                if let (Some(place), Some(kind)) = (bytes.get_mut(12..14), kind) {
                    place.copy_from_slice(&kind);
                }
                bytes
            }
        };
        for _ in 0..fastrand::u8(0..4) {
            // The link address is kept, so that the frame reaches the guest.
            let at = fastrand::usize(12..bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = fastrand::u8(..);
            }
        }
        if fastrand::u8(0..8) == 0 {
            bytes.truncate(fastrand::usize(14..=bytes.len()));
        }
        bytes
    })
}
