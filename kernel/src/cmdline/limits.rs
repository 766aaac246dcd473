//! The limits of the values.

use core::ops::RangeInclusive;

/// The allowed MTUs in bytes: from the datagram that every IPv4 host accepts (RFC 791) to the most that Ethernet
/// carries.
pub const MTU: RangeInclusive<u16> = 576..=1500;
/// The least MTU of IPv6 in bytes (RFC 8200 section 5).
pub(super) const MTU6: u16 = 1280;
/// The greatest number of `ip=ADDRESS/LENGTH` words.
pub const MAX_ADDRESSES: usize = 4;
/// The longest payload that a command line can allow, in bytes.
pub(super) const PAYLOAD_MAX: u64 = 1 << 32;
