//! Server cookies (RFC 7873) of the interoperable form (RFC 9018).

use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr};

use siphasher::sip::SipHasher24;

use super::low;

/// The length of a client's cookie, in bytes.
const CLIENT_LEN: usize = 8;
/// The length of a client's and a server's cookie together, in bytes.
pub(super) const COOKIE_LEN: usize = 24;
/// The lifetime of a server's cookie, how far its timestamp may be ahead, and the age after which a new one is given,
/// in seconds (RFC 9018 section 4.3).
const LIFETIME: u32 = 3600;
const SKEW: u32 = 300;
const RENEWAL: u32 = 1800;

/// The COOKIE option of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookie {
    /// The cookies for the answer.
    pub(super) reply: [u8; COOKIE_LEN],
    /// Whether the client has proved that it receives packets at its address.
    pub(super) is_valid: bool,
}

impl Cookie {
    /// Parses an option's data; `None` if the format is wrong (RFC 7873 section 5.2.2).
    pub(super) fn read(
        data: &[u8],
        secret: &[u8; 16],
        address: IpAddr,
        unix_seconds: u64,
    ) -> Option<Self> {
        if !matches!(data.len(), 8 | 16..=40) {
            return None;
        }
        let client: &[u8; CLIENT_LEN] = data.first_chunk()?;
        // It wraps in 2106, which serial number arithmetic (RFC 1982) allows for.
        let now = low(unix_seconds);
        let fresh = make(client, now, secret, address);
        let mut cookie = Self {
            reply: fresh,
            is_valid: false,
        };
        if let Ok(shown) = <&[u8; COOKIE_LEN]>::try_from(data)
            && shown[CLIENT_LEN] == 1
        {
            let stamp = u32::from_be_bytes([shown[12], shown[13], shown[14], shown[15]]);
            let age = now.wrapping_sub(stamp);
            let in_time = age <= LIFETIME || age.wrapping_neg() <= SKEW;
            let expected = hash(shown, secret, address);
            cookie.is_valid = in_time && differing(&shown[16..], &expected) == 0;
            if cookie.is_valid && age < RENEWAL {
                cookie.reply = *shown;
            }
        }
        Some(cookie)
    }
}

fn make(
    client: &[u8; CLIENT_LEN],
    now: u32,
    secret: &[u8; 16],
    address: IpAddr,
) -> [u8; COOKIE_LEN] {
    let mut cookie = [0; COOKIE_LEN];
    cookie[..CLIENT_LEN].copy_from_slice(client);
    cookie[CLIENT_LEN] = 1;
    cookie[12..16].copy_from_slice(&now.to_be_bytes());
    let hash = hash(&cookie, secret, address);
    cookie[16..].copy_from_slice(&hash);
    cookie
}

/// A number that is derived from the secret without revealing it: the hash of a cookie of version 0, which is never
/// given to a client.
pub(super) fn seed(secret: &[u8; 16]) -> u64 {
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    u64::from_le_bytes(hash(&[0; COOKIE_LEN], secret, nobody))
}

/// SipHash-2-4 over client cookie, version, reserved, timestamp and client address.
#[inline(never)]
fn hash(cookie: &[u8; COOKIE_LEN], secret: &[u8; 16], address: IpAddr) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(&cookie[..16]);
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.finish().to_le_bytes()
}

/// Zero if both are equal. It takes constant time.
fn differing(one: &[u8], other: &[u8]) -> u8 {
    let pairs = one.iter().zip(other);
    pairs.fold(0, |differing, (a, b)| differing | (a ^ b))
}
