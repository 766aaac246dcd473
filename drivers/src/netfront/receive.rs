//! The receive ring and its buffers.
//!
//! Pages are granted writable when they are first posted and stay granted.

use alloc::vec::Vec;
use core::mem::size_of;

use super::sring::{Granted, push};
use super::types::{Checksum, Counters, ETHERNET_HEADER, RxFrame};
use crate::abi::{
    NET_RX_RING_SIZE, NetRxFlags, PAGE_SIZE, XEN_NETIF_EXTRA_FLAG_MORE, netif_rx_request,
    netif_rx_response, sring,
};

/// The kind of slot that the next receive response must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The first slot of a packet.
    Packet,
    /// An `extra_info` slot; then more slots of the same packet if `more`.
    Extra { more: bool },
    /// A further slot of a packet that is being dropped.
    Rest,
}

/// The receive ring.
#[derive(Debug)]
pub(super) struct Receive {
    pub(super) ring: Granted,
    pub(super) prod: u32,
    pub(super) published: u32,
    pub(super) cons: u32,
    /// A power of two: the request at index `i` has buffer and id `i` modulo their number.
    ///
    /// Back ends answer receive requests in order and in place (an extra-info slot
    /// has no id at all), so the buffer that a response frees is the one that is
    /// posted next.
    pub(super) buffers: Vec<Granted>,
    expect: Expect,
}

impl Receive {
    /// The ring with its buffers, a power of two of them, all posted.
    pub(super) fn new(ring: Granted, buffers: Vec<Granted>) -> Self {
        let mut rx = Self::with_posted(ring, buffers, 0);
        for _ in 0..rx.buffers.len() {
            rx.post();
        }
        // No back end is connected yet, so this never asks for a notification.
        rx.push();
        rx
    }

    /// The ring with its buffers, where the toolstack has posted all of them.
    pub(super) fn adopt(ring: Granted, buffers: Vec<Granted>) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "at most 256 buffers")]
        let posted = buffers.len() as u32;
        Self::with_posted(ring, buffers, posted)
    }

    fn with_posted(ring: Granted, buffers: Vec<Granted>, posted: u32) -> Self {
        Self {
            ring,
            prod: posted,
            published: posted,
            cons: 0,
            buffers,
            expect: Expect::Packet,
        }
    }

    #[inline]
    pub(super) fn entry(index: u32) -> usize {
        sring::RING + (index % NET_RX_RING_SIZE) as usize * size_of::<netif_rx_request>()
    }

    #[inline]
    fn slot(&self, index: u32) -> usize {
        index as usize & (self.buffers.len() - 1)
    }

    /// Posts the next buffer.
    #[inline]
    pub(super) fn post(&mut self) {
        let slot = self.slot(self.prod);
        if let Some((_, grant)) = self.buffers.get(slot) {
            #[allow(clippy::cast_possible_truncation, reason = "at most 256 buffers")]
            let request = netif_rx_request {
                id: slot as u16,
                pad: 0,
                gref: grant.0,
            };
            self.ring.0.write(Self::entry(self.prod), &request);
            self.prod = self.prod.wrapping_add(1);
        }
    }

    /// Publishes the posted requests. Returns whether the back end asked for a notification.
    #[inline]
    pub(super) fn push(&mut self) -> bool {
        push(&self.ring.0, &mut self.published, self.prod)
    }

    /// Takes one response. Returns its frame if the response is good.
    #[inline]
    pub(super) fn take(&mut self, frame: &mut [u8], counters: &mut Counters) -> Option<RxFrame> {
        let entry = Self::entry(self.cons);
        let response: netif_rx_response = self.ring.0.read(entry);
        let slot = self.slot(self.cons);
        self.cons = self.cons.wrapping_add(1);
        let flags = NetRxFlags::from_bits_retain(response.flags);
        match self.expect {
            Expect::Extra { more } => {
                counters.rx_extra += 1;
                // The slot is a `netif_extra_info`: type, then flags.
                let [_, extra_flags] = response.id.to_le_bytes();
                if extra_flags & XEN_NETIF_EXTRA_FLAG_MORE == 0 {
                    self.expect = if more { Expect::Rest } else { Expect::Packet };
                }
                return None;
            }
            Expect::Rest => {
                if !flags.contains(NetRxFlags::MORE_DATA) {
                    self.expect = Expect::Packet;
                }
                return None;
            }
            Expect::Packet => {}
        }
        let more = flags.contains(NetRxFlags::MORE_DATA);
        if flags.contains(NetRxFlags::EXTRA_INFO) {
            self.expect = Expect::Extra { more };
        } else if more {
            self.expect = Expect::Rest;
        }
        if usize::from(response.id) != slot {
            counters.rx_bad_id += 1;
            return None;
        }
        let Ok(length) = usize::try_from(response.status) else {
            counters.rx_errors += 1;
            return None;
        };
        if more || flags.contains(NetRxFlags::GSO_PREFIX) {
            // We advertise neither feature-sg nor any GSO, so a correct back end never sends a packet of several slots.
            counters.rx_chains += 1;
            return None;
        }
        let offset = usize::from(response.offset);
        if length < ETHERNET_HEADER || offset + length > PAGE_SIZE || length > frame.len() {
            counters.rx_bad_size += 1;
            return None;
        }
        let (page, _) = self.buffers.get(slot)?;
        page.copy_out(offset, frame.get_mut(..length)?);
        counters.rx_frames += 1;
        counters.rx_bytes += length as u64;
        let checksum = if flags.contains(NetRxFlags::CSUM_BLANK) {
            Checksum::Blank
        } else if flags.contains(NetRxFlags::DATA_VALIDATED) {
            Checksum::Validated
        } else {
            Checksum::Unknown
        };
        Some(RxFrame {
            len: length,
            checksum,
        })
    }
}
