//! The Internet checksum (RFC 1071), and its place in IPv4, TCP, UDP and ICMPv6 headers.

use smoltcp::wire::IpAddress;

/// A sum of 16-bit words in the machine's byte order, not folded yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes, which begin at an even offset of the summed data.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let Self(mut sum) = self;
        // The upper half of the sum counts the carries, and has room for 2^32 of them.
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_ne_bytes(*word);
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            let word = u64::from_ne_bytes(last);
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        Self(sum)
    }

    /// Adds the pseudo-header of a message of `length` bytes (RFC 9293 section 3.1, RFC 8200 section 8.1).
    #[must_use]
    pub fn pseudo_header(from: &IpAddress, to: &IpAddress, protocol: u8, length: usize) -> Self {
        let from = match from {
            IpAddress::Ipv4(address) => Self::default().with(&address.octets()),
            IpAddress::Ipv6(address) => Self::default().with(&address.octets()),
        };
        let both = match to {
            IpAddress::Ipv4(address) => from.with(&address.octets()),
            IpAddress::Ipv6(address) => from.with(&address.octets()),
        };
        both.rest_of_pseudo_header(protocol, length)
    }

    /// The sum of a pseudo-header, from the two addresses as the IP header has them, one behind the other.
    #[must_use]
    pub fn message(addresses: &[u8], protocol: u8, length: usize) -> Self {
        let addresses = Self::default().with(addresses);
        addresses.rest_of_pseudo_header(protocol, length)
    }

    fn rest_of_pseudo_header(self, protocol: u8, length: usize) -> Self {
        let [.., a, b] = length.to_be_bytes();
        self.with(&[0, protocol, a, b])
    }

    /// The sum folded to 16 bits and not inverted, as bytes for a field.
    #[must_use]
    pub fn fold(self) -> [u8; 2] {
        let Self(mut sum) = self;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let [a, b, ..] = sum.to_ne_bytes();
        if cfg!(target_endian = "big") {
            let [.., a, b] = sum.to_ne_bytes();
            return [a, b];
        }
        [a, b]
    }

    /// The checksum: the folded sum, inverted.
    #[must_use]
    pub fn checksum(self) -> [u8; 2] {
        let [a, b] = self.fold();
        [!a, !b]
    }

    /// Whether the summed data, its checksum included, is undamaged.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.fold() == [0xff; 2]
    }
}

/// A protocol whose messages have a checksum over addresses and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 9293 section 3.1.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 4443 section 2.3.
    Icmp6,
}

impl Protocol {
    /// The protocol's number, and the offset of the checksum in a message.
    const fn number_and_place(self) -> (u8, usize) {
        match self {
            Self::Tcp => (6, 16),
            Self::Udp => (17, 6),
            Self::Icmp6 => (58, 2),
        }
    }
}

/// Writes the checksum of an IPv4 header in which it is 0.
#[inline]
pub fn finish_ipv4(header: &mut [u8]) {
    let checksum = Sum::default().with(header).checksum();
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&checksum);
    }
}

/// Writes the checksums of a packet whose checksum fields are 0: that of an IPv4 header without options, and the
/// message's. If `blank` is set, the message gets the sum of the pseudo-header alone, which the back end completes.
#[inline]
pub fn finish(header: &mut [u8], message: &mut [u8], protocol: Protocol, blank: bool) {
    let addresses = if header.first().is_some_and(|first| first >> 4 == 4) {
        finish_ipv4(header);
        header.get(12..20)
    } else {
        header.get(8..40)
    };
    let (number, place) = protocol.number_and_place();
    let pseudo = Sum::message(addresses.unwrap_or(&[]), number, message.len());
    let checksum = if blank {
        pseudo.fold()
    } else {
        match pseudo.with(message).checksum() {
            // Zero means that the datagram has no checksum (RFC 768).
            [0, 0] if protocol == Protocol::Udp => [0xff; 2],
            checksum => checksum,
        }
    };
    if let Some(field) = message.get_mut(place..place + 2) {
        field.copy_from_slice(&checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().with(&bytes).fold(), [0xdd, 0xf2]);
        assert_eq!(Sum::default().with(&bytes).checksum(), [0x22, 0x0d]);
    }

    #[test]
    fn any_length_sums_like_words_one_by_one() {
        let bytes: alloc::vec::Vec<u8> = (0..2000_u32)
            .map(|i| (i * 7 + i / 9).to_le_bytes()[0] | 1)
            .collect();
        for length in (0..80).chain([1459, 1460, 2000]) {
            let mut sum = 0_u32;
            for pair in bytes[..length].chunks(2) {
                let low = pair.get(1).copied().unwrap_or(0);
                sum += u32::from(u16::from_be_bytes([pair[0], low]));
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let [_, _, high, low] = sum.to_be_bytes();
            assert_eq!(Sum::default().with(&bytes[..length]).fold(), [high, low]);
        }
    }
}
