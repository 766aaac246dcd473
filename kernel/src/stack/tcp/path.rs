//! The addresses and ports of a segment, as a key.

use smoltcp::wire::IpAddress;

use crate::stack::path::Path;

/// The longest [`Tuple`] in bytes.
const TUPLE_MAX: usize = 36;

/// Whether two segments belong to the same connection.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    one.from_port == other.from_port
        && one.to_port == other.to_port
        && one.from == other.from
        && one.to == other.to
}

/// The addresses and ports of a path as bytes, which differ between any two connections.
pub(super) struct Tuple {
    bytes: [u8; TUPLE_MAX],
    length: usize,
}

impl Tuple {
    /// The tuple of a path.
    pub(super) fn of(path: &Path) -> Self {
        let mut tuple = Self {
            bytes: [0; TUPLE_MAX],
            length: 0,
        };
        tuple.put(&path.from_port.to_be_bytes());
        tuple.put(&path.to_port.to_be_bytes());
        for address in [path.from, path.to] {
            match address {
                IpAddress::Ipv4(address) => tuple.put(&address.octets()),
                IpAddress::Ipv6(address) => tuple.put(&address.octets()),
            }
        }
        tuple
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        }
    }

    /// The bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }
}

/// A keyed hash of a path: without the seeds, nobody can choose paths with the same hash.
///
/// It is computed for each segment, so it takes only three multiplications. It is never sent.
pub(super) fn hash([one, two]: [u64; 2], path: &Path) -> u64 {
    fn mix(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        #[allow(clippy::cast_possible_truncation, reason = "both halves are used")]
        let (low, high) = (product as u64, (product >> 64) as u64);
        low ^ high
    }
    fn halves(address: &IpAddress) -> (u64, u64) {
        match address {
            IpAddress::Ipv4(address) => (u64::from(address.to_bits()), 0),
            IpAddress::Ipv6(address) => {
                let bits = address.to_bits();
                #[allow(clippy::cast_possible_truncation, reason = "both halves are used")]
                let halves = (bits as u64, (bits >> 64) as u64);
                halves
            }
        }
    }
    let ports = u64::from(path.from_port) << 16 | u64::from(path.to_port);
    let (low, high) = halves(&path.from);
    let (to, _) = halves(&path.to);
    let from = mix(low ^ one, high ^ two);
    mix(from ^ one, (ports << 32 ^ to) ^ two)
}
