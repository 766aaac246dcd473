//! Initial sequence numbers (RFC 6528), and how smoltcp comes to use them.
//!
//! smoltcp draws the number of a connection from the random generator of the interface through which the SYN comes. The
//! generator is not made for secrets (it is PCG, and public), and smoltcp has no hook for another. But it can be
//! inverted: an interface that is made with the right seed yields our number as its first. So the interface is made
//! again for each SYN that opens a connection ([`prepare`]), which costs some copies. The generator yields nothing but
//! our own numbers, so it gives no secret away.
//!
//! The test below, and tests of the whole guest, assert that smoltcp still draws its numbers in this way.

use smoltcp::iface::{Config, Interface};
use smoltcp::phy::Device;
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use super::path::Tuple;
use crate::secrets::keyed_hash;
use crate::stack::path::Path;

/// smoltcp 0.14 `rand.rs`: the next state is `state * MULTIPLIER + INCREMENT`.
const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;
/// The inverse of [`MULTIPLIER`] modulo 2^64.
const INVERSE: u64 = inverse(MULTIPLIER);
const _: () = assert!(MULTIPLIER.wrapping_mul(INVERSE) == 1);
/// The lowest of the 32 bits that a state yields if its top three bits are 0.
const SHIFT: u32 = 29;

/// The inverse of an odd number modulo 2^64, by Newton's method: each step doubles the number of correct bits.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut bits = 3;
    while bits < u64::BITS {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
}

/// The state before a state.
const fn before(state: u64) -> u64 {
    state.wrapping_sub(INCREMENT).wrapping_mul(INVERSE)
}

/// The 16 bits that smoltcp draws from a state.
fn word(state: u64) -> u16 {
    let shift = SHIFT - (state >> 61) as u32;
    let [_, _, _, _, a, b, c, d] = (state >> shift).to_be_bytes();
    u16::from_be_bytes([a, b]) ^ u16::from_be_bytes([c, d])
}

/// The seed of an interface whose first sequence number is `number`.
fn seed(number: u32) -> u64 {
    let mut seed = 0;
    for low in 0..8 {
        let state = u64::from(number) << SHIFT | low;
        // smoltcp draws an IPv4 identification first, and again if it is 0.
        let identification = before(state);
        seed = before(identification);
        if word(identification) != 0 {
            break;
        }
    }
    seed
}

/// Makes the interface again, so that the connection that the next SYN opens has this initial sequence number. The
/// device must be one for IP packets.
pub(super) fn prepare(
    iface: &mut Interface,
    device: &mut (impl Device + ?Sized),
    number: u32,
    now: Instant,
) {
    *iface = anew(iface, device, seed(number), now);
}

/// An interface with the same addresses, for a device for IP packets.
pub(super) fn anew(
    iface: &Interface,
    device: &mut (impl Device + ?Sized),
    seed: u64,
    now: Instant,
) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut fresh = Interface::new(config, device, now);
    fresh.update_ip_addrs(|addresses| {
        let _ = addresses.extend_from_slice(iface.ip_addrs());
    });
    fresh
}

/// Initial sequence numbers.
pub(super) struct Sequence {
    key: [u8; 16],
}

impl Sequence {
    /// Numbers with the key of [`Purpose::Sequence`](crate::secrets::Purpose).
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The number of a connection that is opened now: `M + F(connection, key)` of RFC 6528 section 3. M grows by one
    /// every 4 microseconds.
    pub(super) fn initial(&self, now: Instant, path: &Path) -> u32 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "both wrap"
        )]
        let (clock, hash) = (
            (now.total_micros() / 4) as u32,
            keyed_hash(&self.key, &[Tuple::of(path).as_bytes()]) as u32,
        );
        clock.wrapping_add(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::super::opening::Opening;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use smoltcp::iface::SocketSet;
    use smoltcp::phy::{Loopback, Medium, RxToken, TxToken};
    use smoltcp::socket::tcp;
    use smoltcp::storage::RingBuffer;
    use smoltcp::wire::{IpAddress, IpCidr, TcpPacket};

    const PATH: Path = Path {
        mac: [2; 6],
        from: IpAddress::v4(10, 0, 2, 7),
        from_port: 4000,
        to: IpAddress::v4(10, 0, 2, 80),
        to_port: 80,
    };

    /// The sequence number with which a socket answers a SYN through an interface that was prepared.
    fn answered_with(number: u32) -> u32 {
        let mut device = Loopback::new(Medium::Ip);
        let config = Config::new(HardwareAddress::Ip);
        let mut iface = Interface::new(config, &mut device, Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(PATH.to, 24)).unwrap();
        });
        let buffer = || RingBuffer::new(vec![0; 2048]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(80).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        sockets.add(socket);

        prepare(&mut iface, &mut device, number, Instant::ZERO);
        let syn = Opening::syn(&PATH, 77, 1460);
        let token = device.transmit(Instant::ZERO).unwrap();
        token.consume(syn.length(), |packet| syn.write(packet));
        iface.poll_ingress_single(Instant::ZERO, &mut device, &mut sockets);
        iface.poll_egress(Instant::ZERO, &mut device, &mut sockets);
        let (answer, _) = device.receive(Instant::ZERO).unwrap();
        answer.consume(|packet| {
            let segment = TcpPacket::new_checked(&packet[20..]).unwrap();
            assert!(segment.syn() && segment.ack());
            assert_eq!(segment.ack_number().0, 78);
            segment.seq_number().0.cast_unsigned()
        })
    }

    #[test]
    fn smoltcp_uses_the_number_that_it_is_given() {
        let edges = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
        let many = (0..2000_u32).map(|i| i.wrapping_mul(0x9e37_79b9));
        // Numbers for which the first identification would be 0.
        let again = (0..).filter(|&number| word(before(u64::from(number) << SHIFT)) == 0);
        for number in edges.into_iter().chain(many).chain(again.take(3)) {
            assert_eq!(answered_with(number), number);
        }
    }

    #[test]
    fn numbers_differ_by_connection_and_grow_with_time() {
        let sequence = Sequence::new([7; 16]);
        let at = |micros, path: &Path| sequence.initial(Instant::from_micros(micros), path);
        let first = at(1_000_000, &PATH);
        // RFC 6528: the number of one connection grows by 250,000 in a second.
        assert_eq!(at(2_000_000, &PATH).wrapping_sub(first), 250_000);
        for other in [
            Path {
                from_port: 4001,
                ..PATH
            },
            Path {
                to_port: 53,
                ..PATH
            },
            Path {
                from: IpAddress::v4(10, 0, 2, 8),
                ..PATH
            },
            Path {
                to: IpAddress::v4(10, 0, 2, 81),
                ..PATH
            },
        ] {
            assert_ne!(at(1_000_000, &other), first);
        }
        let other = Sequence::new([8; 16]);
        assert_ne!(other.initial(Instant::from_micros(1_000_000), &PATH), first);
    }
}
