//! Tests of the front. The test acts as the bridge and as the maker.

use std::net::Ipv4Addr;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr};

use super::super::channel::{self, receive};
use super::super::dns::Sockets;
use super::*;

const WWW: ServiceId = ServiceId(1);
const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 0, 0, 1];
const CLIENT: [u8; 6] = [0x02, 0, 0, 0, 0, 9];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

struct Bed {
    front: Front,
    maker: Sender<ToFront>,
    /// The maker's end of the channel.
    said: OwnedFd,
    /// The bridge's end of the front's port.
    bridge: OwnedFd,
}

fn table(held_frames: usize) -> FrontTable {
    let place = ServiceAddresses {
        service: WWW,
        bridge: "xenbr0".into(),
        is_held_here: true,
        mac: MAC,
        addresses: vec![ADDRESS.into()],
    };
    FrontTable {
        services: vec![place],
        held_frames,
        held_bytes: 100_000,
        ..FrontTable::default()
    }
}

fn bed() -> Bed {
    let (maker, socket) = channel::pair().unwrap();
    let mut front = Front::new(socket, Sockets::default()).unwrap();
    front.adopt(table(8)).unwrap();
    let (bridge, port) = channel::pair().unwrap();
    front.ports.insert("xenbr0".into(), Wire::from(port));
    Bed {
        front,
        maker: Sender::new(maker.try_clone().unwrap()),
        said: maker,
        bridge,
    }
}

/// A frame with an IPv4 header and this payload.
fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = EthernetRepr {
        src_addr: EthernetAddress(CLIENT),
        dst_addr: EthernetAddress(MAC),
        ethertype: EthernetProtocol::Ipv4,
    };
    let length = u8::try_from(20 + payload.len()).unwrap();
    let mut ip = vec![0x45, 0, 0, length, 0, 0, 0, 0, 64, protocol, 0, 0];
    ip.extend(FROM.octets());
    ip.extend(ADDRESS.octets());
    ip.extend(payload);
    let mut frame = vec![0; 14];
    header.emit(&mut EthernetFrame::new_unchecked(&mut frame));
    frame.extend(ip);
    frame
}

fn segment(flags: u8, port: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    (segment[1], segment[3], segment[12], segment[13]) = (port, 80, 5 << 4, flags);
    packet(6, &segment)
}

const SYN: u8 = 2;
const ACK: u8 = 16;

fn arp() -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &CLIENT, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend(CLIENT);
    frame.extend(FROM.octets());
    frame.extend([0; 6]);
    frame.extend(ADDRESS.octets());
    frame
}

impl Bed {
    /// Sends frames from the bridge. Returns the front's messages, without counters.
    fn send(&mut self, frames: &[Vec<u8>]) -> Vec<ToMaker> {
        for frame in frames {
            rustix::io::write(&self.bridge, frame).unwrap();
        }
        self.front.come(Source::Port("xenbr0".into())).unwrap();
        self.said()
    }

    fn said(&self) -> Vec<ToMaker> {
        let mut all = Vec::new();
        while let Some(said) = receive(&self.said).unwrap() {
            all.extend(said);
        }
        all
    }

    /// Sends messages from the maker.
    fn tell(&mut self, messages: &[ToFront]) {
        for message in messages {
            self.maker.push(message, None).unwrap();
        }
        self.maker.flush().unwrap();
        self.front.come(Source::Maker).unwrap();
    }

    /// The frames that the bridge has got.
    fn got(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 2000];
        while let Ok(length) = rustix::io::read(&self.bridge, &mut buffer) {
            all.push(buffer[..length].to_vec());
        }
        all
    }

    fn counts(&self) -> FrameCounts {
        self.front.entries[&WWW].held.counts
    }
}

fn ticket(said: &[ToMaker]) -> u32 {
    match said {
        [ToMaker::Wake(wake)] => wake.ticket.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_syn_waits_for_the_decision_and_then_for_the_guest() {
    let mut bed = bed();
    let syn = segment(SYN, 1);
    let said = bed.send(std::slice::from_ref(&syn));
    let [ToMaker::Wake(wake)] = said[..] else {
        panic!("{said:?}");
    };
    assert_eq!((wake.service, wake.cause), (WWW, WakeCause::Syn));
    assert_eq!(wake.from, IpAddr::from(FROM));
    bed.tell(&[
        ToFront::Is(WWW, Stance::Holds),
        ToFront::Decided(wake.ticket.unwrap(), true),
    ]);
    // Later frames are held behind it, and cause no further wake.
    let ack = segment(ACK, 1);
    assert_eq!(bed.send(std::slice::from_ref(&ack)), []);
    assert!(bed.got().is_empty());
    bed.tell(&[ToFront::Is(WWW, Stance::Takes)]);
    assert_eq!(bed.got(), [syn, ack]);
    // The maker is told when there is time.
    assert_eq!(bed.said(), []);
    assert!(bed.front.count_at.is_some());
    bed.front.tell_counts();
    bed.front.to.flush().unwrap();
    let said = bed.said();
    assert!(matches!(
        said[..],
        [ToMaker::Replayed(WWW, ..), ToMaker::Counted(WWW, 0, _)]
    ));
    // A frame that was still on its way goes back to the bridge.
    let late = segment(ACK, 2);
    assert_eq!(bed.send(std::slice::from_ref(&late)), []);
    assert_eq!(bed.got(), [late]);
    assert_eq!(bed.counts().dropped, 0);
}

#[test]
fn a_guest_that_goes_on_at_once_gets_what_woke_it() {
    // For a suspended guest, the decision and the guest come in either order.
    for is_decided_first in [true, false] {
        let mut bed = bed();
        let syn = segment(SYN, 1);
        let ticket = ticket(&bed.send(std::slice::from_ref(&syn)));
        let mut messages = [
            ToFront::Decided(ticket, true),
            ToFront::Is(WWW, Stance::Takes),
        ];
        if !is_decided_first {
            messages.reverse();
        }
        bed.tell(&messages);
        assert_eq!(bed.got(), [syn]);
    }
}

#[test]
fn what_is_refused_is_dropped_and_others_are_not() {
    let mut bed = bed();
    let (one, two) = (segment(SYN, 1), segment(SYN, 2));
    let first = ticket(&bed.send(&[one]));
    let second = ticket(&bed.send(std::slice::from_ref(&two)));
    // A later fragment belongs to the last of them.
    let mut fragment = packet(17, &[0; 8]);
    fragment[14 + 7] = 9;
    assert_eq!(bed.send(std::slice::from_ref(&fragment)), []);
    bed.tell(&[
        ToFront::Decided(first, false),
        ToFront::Is(WWW, Stance::Holds),
        ToFront::Decided(second, true),
        ToFront::Is(WWW, Stance::Takes),
        // Nothing waits for that decision any more.
        ToFront::Decided(first, true),
    ]);
    assert_eq!(bed.got(), [two, fragment]);
    assert_eq!(bed.counts().dropped, 1);
}

#[test]
fn who_asks_for_the_address_is_answered_when_the_service_is_woken() {
    let mut bed = bed();
    for is_woken in [false, true] {
        let ticket = ticket(&bed.send(&[arp()]));
        assert!(bed.got().is_empty());
        bed.tell(&[ToFront::Decided(ticket, is_woken)]);
        assert_eq!(bed.got().len(), usize::from(is_woken));
    }
    // A probe (RFC 5227) wakes no service, and a question for a running guest is not answered here.
    let mut probe = arp();
    probe[28..32].fill(0);
    assert_eq!(bed.send(&[probe]), []);
    assert_eq!(bed.got().len(), 1);
    bed.tell(&[ToFront::Is(WWW, Stance::Takes)]);
    assert_eq!(bed.send(&[arp()]), []);
    assert!(bed.got().is_empty());
}

#[test]
fn a_guest_that_is_about_to_go_stays_for_whoever_comes() {
    let mut bed = bed();
    bed.tell(&[
        ToFront::Is(WWW, Stance::Takes),
        ToFront::Is(WWW, Stance::Leaves),
    ]);
    let frames = [segment(ACK, 1), segment(SYN, 2)];
    // One message is enough.
    assert_eq!(bed.send(&frames), [ToMaker::Heard(WWW)]);
    bed.tell(&[ToFront::Is(WWW, Stance::Takes)]);
    assert_eq!(bed.got(), frames);
}

#[test]
fn nobody_is_there_for_a_connection_of_a_guest_that_is_gone() {
    let mut bed = bed();
    assert_eq!(bed.send(&[segment(ACK, 1)]), []);
    let reset = bed.got();
    assert_eq!(reset.len(), 1);
    assert_eq!(reset[0][14 + 20 + 13] & 4, 4, "a reset");
}

#[test]
fn nothing_is_kept_without_a_bound() {
    let mut bed = bed();
    // The maker sends no decision.
    let frames: Vec<_> = (0..64).map(|n| segment(SYN, n)).collect();
    let said = (0..8).map(|_| bed.send(&frames).len()).sum::<usize>();
    assert_eq!(said, 256);
    assert_eq!(bed.front.waiting.len(), 256);
    assert_eq!(bed.counts().dropped, 8 * 64 - 256);
    // After the wake, as many frames are held as the file allows.
    bed.tell(&[ToFront::Is(WWW, Stance::Holds)]);
    let decided: Vec<_> = (0..256).map(|n| ToFront::Decided(n, true)).collect();
    bed.tell(&decided);
    assert_eq!(bed.counts().held, 8);
    assert!(bed.front.waiting.is_empty());
}

#[test]
fn another_file_leaves_what_is_held() {
    let mut bed = bed();
    let syn = segment(SYN, 1);
    let ticket = ticket(&bed.send(std::slice::from_ref(&syn)));
    bed.tell(&[
        ToFront::Is(WWW, Stance::Holds),
        ToFront::Decided(ticket, true),
    ]);
    bed.front.adopt(table(1)).unwrap();
    bed.tell(&[ToFront::Is(WWW, Stance::Takes)]);
    assert_eq!(bed.got(), [syn]);
    bed.said();
    bed.front.adopt(FrontTable::default()).unwrap();
    assert_eq!(bed.send(&[segment(SYN, 2)]), []);
    assert!(bed.got().is_empty());
}

#[test]
fn a_port_that_is_lost_is_told_once() {
    let mut bed = bed();
    // A directory can't be read.
    let wrong = std::fs::File::open("/").unwrap();
    bed.front
        .ports
        .insert("xenbr0".into(), Wire::from(OwnedFd::from(wrong)));
    bed.front.come(Source::Port("xenbr0".into())).unwrap();
    assert_eq!(bed.said(), [ToMaker::PortLost("xenbr0".into())]);
    assert!(bed.front.ports.is_empty());
}
