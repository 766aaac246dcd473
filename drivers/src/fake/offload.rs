//! The offloads of a back end: it fills in a frame's checksum and cuts a frame into segments. A frame whose offload
//! flags are untrue is a violation.

use std::vec::Vec;

use crate::abi::{NetTxFlags, XEN_NETIF_GSO_TYPE_TCPV4, netif_extra_gso};

const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// TCP flags FIN and PSH, which only the last segment has. (CWR is for the first segment.)
const FIN_PSH: u8 = 0x09;

/// The offsets of the parts of a TCP or UDP frame.
struct Layout {
    ipv4: bool,
    protocol: u8,
    transport: usize,
    end: usize,
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn set_word(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// The one's complement sum of 16-bit words, folded.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Layout {
    fn of(frame: &[u8]) -> Option<Self> {
        match frame.get(12..14)? {
            [8, 0] if frame.len() >= ETHERNET + 20 => Some(Self {
                ipv4: true,
                protocol: frame[23],
                transport: ETHERNET + usize::from(frame[14] & 15) * 4,
                end: ETHERNET + word(frame, 16),
            }),
            [0x86, 0xdd] if frame.len() >= ETHERNET + 40 => Some(Self {
                ipv4: false,
                protocol: frame[20],
                transport: ETHERNET + 40,
                end: ETHERNET + 40 + word(frame, 18),
            }),
            _ => None,
        }
        .filter(|layout| layout.end <= frame.len() && layout.transport < layout.end)
    }

    fn checksum_at(&self) -> usize {
        self.transport + if self.protocol == TCP { 16 } else { 6 }
    }

    /// The sum of the pseudo-header for a message of `length` bytes.
    fn pseudo(&self, frame: &[u8], length: usize) -> u16 {
        let addresses = if self.ipv4 {
            &frame[26..34]
        } else {
            &frame[22..54]
        };
        let rest = [0, self.protocol, (length >> 8) as u8, length as u8];
        sum(&[addresses, &rest])
    }
}

fn fill_checksum(frame: &mut [u8], layout: &Layout) {
    let at = layout.checksum_at();
    let filled = !sum(&[&frame[layout.transport..layout.end]]);
    let filled = if filled == 0 && layout.protocol == UDP {
        0xffff
    } else {
        filled
    };
    set_word(frame, at, usize::from(filled));
}

/// The frames that leave the machine.
pub(super) fn finish(
    mut frame: Vec<u8>,
    flags: NetTxFlags,
    gso: Option<netif_extra_gso>,
) -> Result<Vec<Vec<u8>>, &'static str> {
    let layout = Layout::of(&frame).filter(|layout| {
        matches!(layout.protocol, TCP | UDP) && layout.checksum_at() + 2 <= layout.end
    });
    if !flags.contains(NetTxFlags::CSUM_BLANK) {
        if gso.is_some() {
            return Err("a frame to be cut whose checksum is not blank");
        }
        if let Some(layout) = layout.filter(|_| flags.contains(NetTxFlags::DATA_VALIDATED)) {
            let none = layout.protocol == UDP && word(&frame, layout.checksum_at()) == 0;
            let pseudo = layout.pseudo(&frame, layout.end - layout.transport);
            let total = sum(&[&frame[layout.transport..layout.end], &pseudo.to_be_bytes()]);
            if total != 0xffff && !(none && layout.ipv4) {
                return Err("a checksum that was said to be right and is not");
            }
        }
        return Ok(std::vec![frame]);
    }
    let Some(layout) = layout else {
        return Err("a blank checksum in what is neither TCP nor UDP");
    };
    let pseudo = layout.pseudo(&frame, layout.end - layout.transport);
    if word(&frame, layout.checksum_at()) != usize::from(pseudo) {
        return Err("a blank checksum that is not the pseudo-header's");
    }
    let Some(gso) = gso else {
        fill_checksum(&mut frame, &layout);
        return Ok(std::vec![frame]);
    };
    if layout.protocol != TCP || !layout.ipv4 || gso.gso_type != XEN_NETIF_GSO_TYPE_TCPV4 {
        return Err("a frame to be cut that is not what it says");
    }
    if sum(&[&frame[ETHERNET..layout.transport]]) != 0xffff {
        return Err("a frame to be cut whose IP checksum is wrong");
    }
    Ok(segments(&frame, &layout, usize::from(gso.size)))
}

fn segments(frame: &[u8], layout: &Layout, size: usize) -> Vec<Vec<u8>> {
    let header = layout.transport + usize::from(frame[layout.transport + 12] >> 4) * 4;
    let payload = &frame[header..layout.end];
    let seq = u32::from_be_bytes([
        frame[layout.transport + 4],
        frame[layout.transport + 5],
        frame[layout.transport + 6],
        frame[layout.transport + 7],
    ]);
    let count = payload.len().div_ceil(size).max(1);
    (0..count)
        .map(|index| {
            let part = &payload[index * size..payload.len().min((index + 1) * size)];
            let mut segment = [&frame[..header], part].concat();
            let at = seq.wrapping_add((index * size) as u32);
            segment[layout.transport + 4..layout.transport + 8].copy_from_slice(&at.to_be_bytes());
            if index + 1 < count {
                segment[layout.transport + 13] &= !FIN_PSH;
            }
            let end = segment.len();
            set_word(&mut segment, 16, end - ETHERNET);
            set_word(&mut segment, 24, 0);
            let checksum = !sum(&[&segment[ETHERNET..layout.transport]]);
            set_word(&mut segment, 24, usize::from(checksum));
            let layout = Layout { end, ..*layout };
            let pseudo = layout.pseudo(&segment, end - layout.transport);
            set_word(&mut segment, layout.checksum_at(), usize::from(pseudo));
            fill_checksum(&mut segment, &layout);
            segment
        })
        .collect()
}
