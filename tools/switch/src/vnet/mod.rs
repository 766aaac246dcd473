//! The header that the bridge's port puts before each frame, both ways (linux/virtio_net.h, `struct virtio_net_hdr`; linux/if_tun.h,
//! `IFF_VNET_HDR`). Its numbers are in the machine's byte order.

use crate::offload::{self, Checksum, Family, Offload, Transport};

/// Bytes of the header.
pub const SIZE: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// The congestion window was reduced: of the first segment only (RFC 3168 section 6.1).
const GSO_ECN: u8 = 0x80;

/// The header was not understood, or contradicts the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header before a frame contradicts it")]
pub struct Contradiction;

/// Reads the header of a frame. A checksum that no guest could fill in, because it is neither of TCP nor of UDP, is filled in.
///
/// # Errors
/// The header contradicts the frame.
pub fn decode(header: [u8; SIZE], frame: &mut [u8]) -> Result<Offload, Contradiction> {
    let [
        flags,
        kind,
        _,
        _,
        size0,
        size1,
        start0,
        start1,
        offset0,
        offset1,
    ] = header;
    let size = u16::from_ne_bytes([size0, size1]);
    let start = usize::from(u16::from_ne_bytes([start0, start1]));
    let offset = usize::from(u16::from_ne_bytes([offset0, offset1]));
    let family = match kind & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCPV4 => Some(Family::V4),
        GSO_TCPV6 => Some(Family::V6),
        _ => return Err(Contradiction),
    };
    if flags & NEEDS_CSUM == 0 {
        let checksum = if flags & DATA_VALID == 0 {
            Checksum::Unknown
        } else {
            Checksum::Valid
        };
        return match family {
            None => Ok(Offload {
                checksum,
                cut: None,
            }),
            Some(_) => Err(Contradiction),
        };
    }
    let transport = Transport::of(frame)
        .filter(|found| found.start == start && found.checksum_offset() == offset);
    match (family, transport) {
        (None, Some(_)) => Ok(Offload {
            checksum: Checksum::Blank,
            cut: None,
        }),
        (None, None) => {
            if start + offset + 2 > frame.len() {
                return Err(Contradiction);
            }
            offload::complete(frame, start..frame.len(), offset);
            Ok(Offload {
                checksum: Checksum::Valid,
                cut: None,
            })
        }
        (Some(family), Some(found)) if found.family == family && size != 0 => {
            found.payload(frame).ok_or(Contradiction)?;
            Ok(Offload {
                checksum: Checksum::Blank,
                cut: Some((family, size)),
            })
        }
        (Some(_), _) => Err(Contradiction),
    }
}

/// Makes the header of a frame of `length` bytes, of which only its headers need to be there. A checksum that is said to be right is made blank, because the kernel has no way to be told that it need not
/// verify it: so it fills the same in again if the frame leaves the machine, and looks at it nowhere else. netback tells it the same.
#[must_use]
pub fn encode(frame: &mut [u8], length: usize, offload: &mut Offload) -> [u8; SIZE] {
    let mut header = [0; SIZE];
    if offload.checksum == Checksum::Unknown {
        return header;
    }
    let Some(found) = Transport::of_head(frame, length) else {
        return header;
    };
    if offload.checksum == Checksum::Valid {
        if found.has_none(frame) {
            return header;
        }
        found.blank(frame);
        offload.checksum = Checksum::Blank;
    }
    header[0] = NEEDS_CSUM;
    put(&mut header, 6, found.start);
    put(&mut header, 8, found.checksum_offset());
    if let Some((family, size)) = offload.cut
        && let Some(payload) = found.payload(frame)
    {
        header[1] = match family {
            Family::V4 => GSO_TCPV4,
            Family::V6 => GSO_TCPV6,
        };
        put(&mut header, 2, payload);
        put(&mut header, 4, usize::from(size));
        if frame
            .get(found.start + 13)
            .is_some_and(|flags| flags & 0x80 != 0)
        {
            header[1] |= GSO_ECN;
        }
    }
    header
}

fn put(header: &mut [u8; SIZE], at: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    if let Some(place) = header.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests;
