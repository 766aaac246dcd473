//! Completes a frame before it leaves the machine: checksum and segmentation.
//!
//! Guests and the bridge send frames of up to 64 KiB whose checksum is blank: its field has only the sum of the
//! pseudo-header (io/netif.h, `NETTXF_csum_blank`; linux/virtio_net.h, `VIRTIO_NET_HDR_F_NEEDS_CSUM`). A frame is
//! passed on unchanged in both directions to a receiver that supports this, and completed here for one that does not.
//!
//! No input makes these functions panic.

use std::ops::Range;

/// The length of an Ethernet header, in bytes.
pub(crate) const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;
/// The lengths of an IPv6 header and of the shortest headers of TCP and UDP, in bytes.
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// The most extension headers that are skipped: by RFC 8200 section 4.1 no more may precede TCP.
const EXTENSIONS: usize = 6;
/// TCP's flags (RFC 9293 section 3.1, RFC 3168 section 6.1).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// The version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

/// The state of a TCP or UDP checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Unknown: the receiver of the frame verifies it.
    #[default]
    Unknown,
    /// The sender of the frame declares it valid.
    Valid,
    /// It has to be filled in: the field has the sum of the pseudo-header.
    Blank,
}

/// The offload that a frame still needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum.
    pub checksum: Checksum,
    /// The protocol, and the TCP payload of each segment in bytes, if the frame is to be segmented. The checksum is
    /// blank then.
    pub cut: Option<(Family, u16)>,
}

impl Offload {
    /// No offload.
    pub const NONE: Self = Self {
        checksum: Checksum::Unknown,
        cut: None,
    };
}

/// The position of a TCP segment or UDP datagram in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The version of the IP packet.
    pub family: Family,
    /// The protocol number: 6 or 17.
    pub protocol: u8,
    /// The offset of the transport header.
    pub start: usize,
    /// The offset of the packet's end. The bytes after it are padding.
    pub end: usize,
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*pair))
}

fn set_half(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// The one's complement sum of 16-bit words, not folded.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_be_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    sum += u64::from(u32::from_be_bytes(last));
    sum
}

#[allow(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Transport {
    /// Finds it; `None` for a fragment, for other protocols than TCP and UDP, for a frame with a VLAN tag, and for a
    /// truncated one.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        Self::of_head(frame, frame.len())
    }

    /// The same for a frame of `length` bytes, of which only the first are there; `None` also if more of them are
    /// needed.
    #[must_use]
    pub fn of_head(frame: &[u8], length: usize) -> Option<Self> {
        let found = match half(frame, 12)? {
            IPV4 => Self::ipv4(frame)?,
            IPV6 => Self::ipv6(frame)?,
            _ => return None,
        };
        let header = match found.protocol {
            TCP => TCP_HEADER,
            UDP => UDP_HEADER,
            _ => return None,
        };
        let headers = found.start + header;
        (found.end <= length && headers <= found.end && headers <= frame.len()).then_some(found)
    }

    fn ipv4(frame: &[u8]) -> Option<Self> {
        let first = *frame.get(ETHERNET)?;
        let length = usize::from(first & 15) * 4;
        // Neither more fragments nor an offset.
        if first >> 4 != 4 || length < 20 || half(frame, ETHERNET + 6)? & 0x3fff != 0 {
            return None;
        }
        Some(Self {
            family: Family::V4,
            protocol: *frame.get(ETHERNET + 9)?,
            start: ETHERNET + length,
            end: ETHERNET + usize::from(half(frame, ETHERNET + 2)?),
        })
    }

    fn ipv6(frame: &[u8]) -> Option<Self> {
        if frame.get(ETHERNET)? >> 4 != 6 {
            return None;
        }
        let end = ETHERNET + IPV6_HEADER + usize::from(half(frame, ETHERNET + 4)?);
        let mut protocol = *frame.get(ETHERNET + 6)?;
        let mut start = ETHERNET + IPV6_HEADER;
        for _ in 0..EXTENSIONS {
            // Hop-by-hop options, routing, destination options.
            if !matches!(protocol, 0 | 43 | 60) {
                break;
            }
            protocol = *frame.get(start)?;
            start += (usize::from(*frame.get(start + 1)?) + 1) * 8;
        }
        Some(Self {
            family: Family::V6,
            protocol,
            start,
            end,
        })
    }

    /// The offset of the checksum in the transport header.
    #[must_use]
    pub fn checksum_offset(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    fn checksum_at(&self) -> usize {
        self.start + self.checksum_offset()
    }

    /// Whether a datagram has no checksum, as IPv4 allows (RFC 768).
    #[must_use]
    pub fn has_none(&self, frame: &[u8]) -> bool {
        self.protocol == UDP
            && self.family == Family::V4
            && half(frame, self.checksum_at()) == Some(0)
    }

    /// The offset of the TCP payload; `None` if the length in the header is less than the least, or beyond the packet.
    #[must_use]
    pub fn payload(&self, frame: &[u8]) -> Option<usize> {
        let header = usize::from(*frame.get(self.start + 12)? >> 4) * 4;
        let at = self.start + header;
        (self.protocol == TCP && header >= TCP_HEADER && at <= self.end).then_some(at)
    }

    /// The folded sum of the pseudo-header for a message of `length` bytes.
    fn pseudo(&self, frame: &[u8], length: usize) -> u16 {
        let addresses = match self.family {
            Family::V4 => ETHERNET + 12..ETHERNET + 20,
            Family::V6 => ETHERNET + 8..ETHERNET + IPV6_HEADER,
        };
        let addresses = frame.get(addresses).unwrap_or_default();
        fold(sum(addresses) + u64::from(self.protocol) + length as u64)
    }

    /// Makes the checksum blank.
    pub fn blank(&self, frame: &mut [u8]) {
        let pseudo = self.pseudo(frame, self.end - self.start);
        set_half(frame, self.checksum_at(), pseudo);
    }

    /// Fills in a blank checksum.
    pub fn complete(&self, frame: &mut [u8]) {
        complete(frame, self.start..self.end, self.checksum_offset());
        if self.protocol == UDP && half(frame, self.checksum_at()) == Some(0) {
            set_half(frame, self.checksum_at(), 0xffff);
        }
    }
}

/// Fills in a blank checksum of any protocol with the Internet checksum: the field, at `offset` of the range, has the
/// sum of the data outside of the range.
pub(crate) fn complete(frame: &mut [u8], range: Range<usize>, offset: usize) {
    let at = range.start + offset;
    let filled = !fold(sum(frame.get(range).unwrap_or_default()));
    set_half(frame, at, filled);
}

/// Cuts a TCP packet into segments of at most `size` bytes of payload, which are appended to `out`; returns the end of
/// each. Their checksums are blank. Nothing is appended if the packet cannot be cut.
pub fn cut(frame: &[u8], transport: &Transport, size: u16, out: &mut Vec<u8>) -> Vec<usize> {
    let mut ends = Vec::new();
    let size = usize::from(size);
    let Some(payload_at) = transport.payload(frame).filter(|_| size != 0) else {
        return ends;
    };
    let (Some(header), Some(payload)) = (
        frame.get(..payload_at),
        frame.get(payload_at..transport.end),
    ) else {
        return ends;
    };
    let count = payload.len().div_ceil(size).max(1);
    for index in 0..count {
        let part = payload
            .get(index * size..payload.len().min((index + 1) * size))
            .unwrap_or_default();
        let at = out.len();
        out.extend_from_slice(header);
        out.extend_from_slice(part);
        let Some(segment) = out.get_mut(at..) else {
            break;
        };
        let place = Place {
            index,
            is_last: index + 1 == count,
            offset: index * size,
        };
        adapt(segment, transport, &place);
        ends.push(out.len());
    }
    ends
}

/// The position of a segment in the packet.
struct Place {
    index: usize,
    is_last: bool,
    /// The bytes of payload before it.
    offset: usize,
}

/// Changes the headers of a packet to those of one of its segments.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a packet has at most 65,535 bytes"
)]
fn adapt(segment: &mut [u8], whole: &Transport, place: &Place) {
    let end = segment.len();
    match whole.family {
        Family::V4 => {
            set_half(segment, ETHERNET + 2, (end - ETHERNET) as u16);
            let id = half(segment, ETHERNET + 4).unwrap_or(0);
            set_half(segment, ETHERNET + 4, id.wrapping_add(place.index as u16));
            set_half(segment, ETHERNET + 10, 0);
            complete(segment, ETHERNET..whole.start, 10);
        }
        Family::V6 => set_half(segment, ETHERNET + 4, (end - ETHERNET - IPV6_HEADER) as u16),
    }
    if let Some(place_of) = segment.get_mut(whole.start + 4..whole.start + 8)
        && let Some(number) = place_of.first_chunk_mut::<4>()
    {
        *number = u32::from_be_bytes(*number)
            .wrapping_add(place.offset as u32)
            .to_be_bytes();
    }
    if let Some(flags) = segment.get_mut(whole.start + 13) {
        if !place.is_last {
            *flags &= !(FIN | PSH);
        }
        if place.index != 0 {
            *flags &= !CWR;
        }
    }
    Transport { end, ..*whole }.blank(segment);
}

#[cfg(test)]
mod tests;
