//! Who a segment is from and for, as a key.

use crate::stack::frame::Path;

/// Whether two segments belong to the same connection.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    one.from_port == other.from_port
        && one.to_port == other.to_port
        && one.from == other.from
        && one.to == other.to
}

/// A hash of a path that nobody can choose who does not know the seeds.
pub(super) fn hash([one, two]: [u64; 2], path: &Path) -> u64 {
    fn mix(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        #[allow(clippy::cast_possible_truncation, reason = "both halves are used")]
        let (low, high) = (product as u64, (product >> 64) as u64);
        low ^ high
    }
    fn halves(address: &smoltcp::wire::IpAddress) -> (u64, u64) {
        match address {
            smoltcp::wire::IpAddress::Ipv4(address) => (u64::from(address.to_bits()), 0),
            smoltcp::wire::IpAddress::Ipv6(address) => {
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
