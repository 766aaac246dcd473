//! Packets to the guest, and packets from the guest as netback parses them. A packet that Linux' netback refuses is a
//! violation.

use core::mem::size_of;
use std::vec::Vec;

use super::Connection;
use crate::abi::{
    NET_TX_RING_SIZE, NetTxFlags, PAGE_SIZE, XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_NR_SLOTS_MIN,
    netif_extra_gso, netif_tx_request, sring,
};
use crate::fake::machine::Machine;

/// A frame on its way to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The Ethernet frame.
    pub bytes: Vec<u8>,
    /// `NETRXF_*` of its slot.
    pub flags: u16,
    /// The offset of the frame in its page, in bytes.
    pub offset: u16,
}

impl Packet {
    /// A frame without flags at the start of its page.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            flags: 0,
            offset: 0,
        }
    }
}

/// A packet that the guest sent.
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) flags: NetTxFlags,
    pub(super) gso: Option<netif_extra_gso>,
    pub(super) slots: usize,
    pub(super) grants: Vec<u32>,
}

/// Takes the requests of the next packet, like `xenvif_tx_build_gops` and `xenvif_count_requests` in Linux'
/// xen-netback/netback.c.
pub(super) fn packet(
    connection: &mut Connection,
    machine: &mut Machine,
    prod: u32,
) -> Result<Sent, &'static str> {
    let first = take_tx(connection)?;
    let flags = NetTxFlags::from_bits(first.flags).ok_or("a transmit flag that does not exist")?;
    let mut gso = None;
    if flags.contains(NetTxFlags::EXTRA_INFO) {
        if connection.tx_cons == prod {
            return Err("an extra-info slot that is missing");
        }
        let extra: netif_extra_gso = connection.tx.read(tx_entry(connection.tx_cons));
        connection.tx_cons = connection.tx_cons.wrapping_add(1);
        connection.tx_pending.push_back(None);
        if extra.type_ != XEN_NETIF_EXTRA_TYPE_GSO || extra.flags != 0 || extra.size == 0 {
            return Err("an extra-info slot that netback refuses");
        }
        gso = Some(extra);
    }
    let mut slots = std::vec![first];
    let mut more = flags.contains(NetTxFlags::MORE_DATA);
    while more {
        if connection.tx_cons == prod {
            return Err("a packet whose last slots are missing");
        }
        let slot = take_tx(connection)?;
        more = slot.flags & NetTxFlags::MORE_DATA.bits() != 0;
        slots.push(slot);
        if slots.len() > XEN_NETIF_NR_SLOTS_MIN {
            return Err("a packet of too many slots");
        }
    }
    let rest: usize = slots
        .iter()
        .skip(1)
        .map(|slot| usize::from(slot.size))
        .sum();
    let total = usize::from(first.size);
    let Some(head) = total.checked_sub(rest).filter(|&head| head >= 14) else {
        return Err("a packet shorter than its slots");
    };
    slots[0].size = u16::try_from(head).map_err(|_| "a slot that is too long")?;
    let mut bytes = Vec::with_capacity(total);
    for slot in &slots {
        let (offset, size) = (usize::from(slot.offset), usize::from(slot.size));
        if offset + size > PAGE_SIZE {
            return Err("a slot that crosses its page");
        }
        if machine.is_writable(slot.gref) {
            return Err("a transmit page that the back end may write");
        }
        let page = machine
            .copy_grant(slot.gref, false)
            .ok_or("a slot without a page")?;
        let at = bytes.len();
        bytes.resize(at + size, 0);
        page.copy_out(offset, &mut bytes[at..]);
    }
    Ok(Sent {
        bytes,
        flags,
        gso,
        slots: slots.len(),
        grants: slots.iter().map(|slot| slot.gref).collect(),
    })
}

fn take_tx(connection: &mut Connection) -> Result<netif_tx_request, &'static str> {
    let request: netif_tx_request = connection.tx.read(tx_entry(connection.tx_cons));
    connection.tx_cons = connection.tx_cons.wrapping_add(1);
    let again = connection.tx_pending.contains(&Some(request.id));
    connection.tx_pending.push_back(Some(request.id));
    if again {
        return Err("a transmit id that is in flight already");
    }
    Ok(request)
}

pub(super) fn tx_entry(index: u32) -> usize {
    sring::RING + (index % NET_TX_RING_SIZE) as usize * size_of::<netif_tx_request>()
}
