//! SYN cookies (RFC 4987 section 3.6): the guest answers a SYN without keeping any state of it.
//!
//! The state is in our initial sequence number, which the peer's next segment brings back: a keyed hash of the
//! connection, the peer's initial sequence number and the time, and the index of an MSS, one of eight. An attacker who
//! has not seen the number would have to guess 29 bits within half a minute.
//!
//! A cookie has no room for the peer's window scale (so its window is at most 64 KiB), its offer of selective
//! acknowledgements, and the exact MSS. So cookies are used only when a service has as many half-open connections as it
//! may have, or no slot left.

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, TcpOption, TcpPacket};

use super::path::Tuple;
use crate::secrets::{Purpose, Root, keyed_hash};
use crate::stack::frame::Segment;
use crate::stack::path::Path;

/// The length of a period in seconds. A cookie is valid in the period in which it was made and in the next one.
const PERIOD: i64 = 16;
/// The MSS values that a cookie can hold, in bytes; a peer gets the greatest one that is not above its own. 64 is for
/// the smallest packets; then come the defaults of IPv4 and IPv6 (RFC 9293 section 3.7.1), tunnels, PPPoE, and Ethernet
/// with either family.
const SIZES: [u16; 8] = [64, 536, 1220, 1360, 1400, 1420, 1440, 1460];
/// The bits of a cookie that hold the index of the MSS.
const SIZE_BITS: u32 = 7;

/// The values that a cookie was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Our initial sequence number: the cookie.
    pub(super) number: u32,
    /// The peer's initial sequence number.
    pub(super) peer: u32,
    /// The peer's MSS in bytes, rounded down to one of [`SIZES`].
    pub(super) mss: u16,
}

/// Makes cookies and recognises them.
pub(super) struct Cookies {
    root: Root,
    /// The key, and the end of the last cookie's validity. `None` until the first cookie: the boot path makes no key,
    /// and no segment can answer a cookie.
    used: Option<(CookieKey, Instant)>,
}

#[derive(Clone, Copy)]
struct CookieKey([u8; 16]);

impl Cookies {
    /// Cookies with a key that is derived from the root key.
    pub(super) fn new(root: Root) -> Self {
        Self { root, used: None }
    }

    /// Makes the cookie for a SYN. Returns it and the peer's next sequence number.
    pub(super) fn make(&mut self, now: Instant, syn: &Segment<'_>) -> (u32, u32) {
        let key = match self.used {
            Some((key, _)) => key,
            None => CookieKey(self.root.key(Purpose::SynCookie)),
        };
        let until = now + Duration::from_secs(2 * PERIOD.unsigned_abs());
        self.used = Some((key, until));
        let segment = TcpPacket::new_unchecked(syn.message);
        let peer = segment.seq_number().0.cast_unsigned();
        let mss = mss(syn);
        let size = SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0);
        #[allow(clippy::cast_possible_truncation, reason = "less than 8")]
        let size = size as u32;
        let [hash, mask] = key.hash(period(now), &syn.path, peer);
        let cookie = hash & !SIZE_BITS | (mask ^ size) & SIZE_BITS;
        (cookie, peer.wrapping_add(1))
    }

    /// Returns the connection that a segment opens, if it answers a cookie. (It need not be the peer's first segment
    /// after the SYN.)
    pub(super) fn check(&self, now: Instant, segment: &Segment<'_>) -> Option<Opened> {
        let (key, until) = self.used?;
        let packet = TcpPacket::new_unchecked(segment.message);
        if now >= until || !packet.ack() || packet.syn() || packet.rst() {
            return None;
        }
        let number = packet.ack_number().0.cast_unsigned().wrapping_sub(1);
        let peer = packet.seq_number().0.cast_unsigned().wrapping_sub(1);
        let this = period(now);
        [this, this.wrapping_sub(1)].into_iter().find_map(|period| {
            let [hash, mask] = key.hash(period, &segment.path, peer);
            let size = (number ^ mask) & SIZE_BITS;
            let mss = *SIZES.get(size as usize)?;
            ((number ^ hash) & !SIZE_BITS == 0).then_some(Opened { number, peer, mss })
        })
    }
}

impl CookieKey {
    fn hash(&self, period: u32, path: &Path, peer: u32) -> [u32; 2] {
        let tuple = Tuple::of(path);
        let times = [period.to_le_bytes(), peer.to_le_bytes()];
        let hash = keyed_hash(&self.0, &[times.as_flattened(), tuple.as_bytes()]);
        #[allow(clippy::cast_possible_truncation, reason = "both halves are used")]
        let halves = [hash as u32, (hash >> 32) as u32];
        halves
    }
}

fn period(now: Instant) -> u32 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "wraps after two thousand years"
    )]
    let period = (now.secs() / PERIOD) as u32;
    period
}

/// The MSS in a SYN, or the default of its address family, in bytes.
pub(super) fn mss(syn: &Segment<'_>) -> u16 {
    peers_mss(&TcpPacket::new_unchecked(syn.message), &syn.path)
}

fn peers_mss(syn: &TcpPacket<&[u8]>, path: &Path) -> u16 {
    let mut options = syn.options();
    while let Ok((rest, option)) = TcpOption::parse(options) {
        match option {
            TcpOption::MaxSegmentSize(mss) if mss > 0 => return mss,
            TcpOption::EndOfList => break,
            _ => options = rest,
        }
    }
    match path.from {
        IpAddress::Ipv4(_) => 536,
        IpAddress::Ipv6(_) => 1220,
    }
}

#[cfg(test)]
mod tests {
    use super::super::opening::Opening;
    use super::*;
    use crate::secrets::{ROOT, Sources};
    use alloc::vec;
    use alloc::vec::Vec;

    fn cookies_of(random: u8) -> Cookies {
        Cookies::new(Root::new(&Sources {
            cpu: Some([random; ROOT]),
            ..Sources::default()
        }))
    }

    const V4: Path = Path {
        mac: [2; 6],
        from: IpAddress::v4(198, 18, 0, 7),
        from_port: 4000,
        to: IpAddress::v4(10, 0, 2, 80),
        to_port: 80,
    };
    const V6: Path = Path {
        from: IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 7),
        to: IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 0x80),
        ..V4
    };

    /// The TCP message of a SYN.
    fn syn(path: &Path, number: u32, mss: u16) -> Vec<u8> {
        let syn = Opening::syn(path, number, mss);
        let mut packet = vec![0; syn.length()];
        syn.write(&mut packet);
        packet.split_off(if matches!(path.from, IpAddress::Ipv4(_)) {
            20
        } else {
            40
        })
    }

    /// The TCP message by which a peer acknowledges a SYN-ACK.
    fn ack(number: u32, next: u32) -> Vec<u8> {
        let mut message = vec![0; 20];
        let mut packet = TcpPacket::new_unchecked(&mut message);
        packet.set_header_len(20);
        packet.set_ack(true);
        packet.set_seq_number(smoltcp::wire::TcpSeqNumber(number.cast_signed()));
        packet.set_ack_number(smoltcp::wire::TcpSeqNumber(next.cast_signed()));
        message
    }

    fn segment<'m>(path: &Path, message: &'m [u8], is_opening: bool) -> Segment<'m> {
        Segment {
            path: *path,
            is_opening,
            packet: &[],
            message,
        }
    }

    #[test]
    fn a_cookie_brings_back_what_it_was_made_of() {
        let mut cookies = cookies_of(7);
        let now = Instant::from_secs(1000);
        for path in [V4, V6] {
            for (mss, expected) in [
                (1460, 1460),
                (9000, 1460),
                (1459, 1440),
                (536, 536),
                (20, 64),
            ] {
                for peer in [0, 5, u32::MAX] {
                    let message = syn(&path, peer, mss);
                    let (number, next) = cookies.make(now, &segment(&path, &message, true));
                    assert_eq!(next, peer.wrapping_add(1));
                    let message = ack(next, number.wrapping_add(1));
                    let opened = Opened {
                        number,
                        peer,
                        mss: expected,
                    };
                    let answer = segment(&path, &message, false);
                    for later in [0, 15, 16] {
                        let at = now + Duration::from_secs(later);
                        assert_eq!(cookies.check(at, &answer), Some(opened), "{path:?} {later}");
                    }
                    let late = now + Duration::from_secs(33);
                    assert_eq!(cookies.check(late, &answer), None);
                }
            }
        }
    }

    #[test]
    fn what_is_no_cookie_is_not_taken_for_one() {
        let mut cookies = cookies_of(7);
        let now = Instant::from_secs(1000);
        let message = syn(&V4, 5, 1460);
        let before = cookies.check(now, &segment(&V4, &ack(6, 1), false));
        assert_eq!(before, None, "no cookie was made yet");
        let (number, next) = cookies.make(now, &segment(&V4, &message, true));
        let right = ack(next, number.wrapping_add(1));
        assert!(cookies.check(now, &segment(&V4, &right, false)).is_some());
        // Every other bit of the cookie, the peer's number, the connection, and the key.
        for bit in 3..32 {
            let forged = ack(next, (number ^ 1 << bit).wrapping_add(1));
            assert_eq!(
                cookies.check(now, &segment(&V4, &forged, false)),
                None,
                "{bit}"
            );
        }
        let forged = ack(next.wrapping_add(1), number.wrapping_add(1));
        assert_eq!(cookies.check(now, &segment(&V4, &forged, false)), None);
        let other = Path {
            from_port: 4001,
            ..V4
        };
        assert_eq!(cookies.check(now, &segment(&other, &right, false)), None);
        let mut stranger = cookies_of(8);
        stranger.make(now, &segment(&V4, &message, true));
        assert_eq!(stranger.check(now, &segment(&V4, &right, false)), None);
        let mut reset = right;
        TcpPacket::new_unchecked(&mut reset).set_rst(true);
        assert_eq!(cookies.check(now, &segment(&V4, &reset, false)), None);
    }

    #[test]
    fn options_that_are_broken_are_read_as_far_as_they_go() {
        for (options, expected) in [
            (&[][..], 536),
            (&[1, 1, 2, 4, 5, 0xb4, 0, 0], 1460),
            (&[4, 2, 3, 3, 7, 0, 2, 4], 536),
            (&[2, 4, 0, 0], 536),
            (&[2, 3, 5, 0xb4], 536),
            (&[0, 0, 0, 0], 536),
        ] {
            let mut message = vec![0; 20 + options.len()];
            message[20..].copy_from_slice(options);
            let length = u8::try_from(message.len()).unwrap();
            TcpPacket::new_unchecked(&mut message).set_header_len(length);
            let packet = TcpPacket::new_unchecked(&message[..]);
            assert_eq!(peers_mss(&packet, &V4), expected, "{options:?}");
        }
    }
}
