//! The grant entries and both rings, as bytes, that a back end finds when the builder connects the network.
//!
//! Source: Xen 4.17 grant_table.h, io/ring.h, io/netif.h; the agreement with the guest is
//! [`mayfly_handoff::network`].

use mayfly_drivers::abi::{
    GNTTAB_NR_RESERVED_ENTRIES, GTF_PERMIT_ACCESS, grant_entry_v1, netif_rx_request, sring,
};
use zerocopy::IntoBytes;

use super::layout::{CONSOLE_GFN, Rings, XENSTORE_GFN};

/// `GNTTAB_RESERVED_CONSOLE` and `GNTTAB_RESERVED_XENSTORE`: the references by which xenconsoled and xenstored map
/// their pages.
const GNTTAB_RESERVED_CONSOLE: usize = 0;
const GNTTAB_RESERVED_XENSTORE: usize = 1;

/// Grant references of the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grants {
    pub(crate) tx_ring: u32,
    pub(crate) rx_ring: u32,
    pub(crate) rx_first: u32,
    /// The first reference that is not in use.
    pub(crate) free: u32,
}

impl Grants {
    /// The references after the reserved ones, in sequence.
    pub(crate) fn of(rings: &Rings) -> Self {
        let tx_ring = GNTTAB_NR_RESERVED_ENTRIES;
        let rx_first = tx_ring + 2;
        Self {
            tx_ring,
            rx_ring: tx_ring + 1,
            rx_first,
            free: rx_first + rings.buffers,
        }
    }
}

/// The grant table's entries, from the first to the last that is in use. All of them grant access to dom0.
pub(crate) fn grant_table(rings: Option<&Rings>, console: bool) -> Vec<u8> {
    let entry = |gfn: u64| grant_entry_v1 {
        flags: GTF_PERMIT_ACCESS,
        domid: 0,
        // RAM and special pages are below 4 GiB.
        frame: u32::try_from(gfn).unwrap_or(u32::MAX),
    };
    let none = grant_entry_v1 {
        flags: 0,
        domid: 0,
        frame: 0,
    };
    let mut entries = vec![none; GNTTAB_NR_RESERVED_ENTRIES as usize];
    if let Some(place) = entries.get_mut(GNTTAB_RESERVED_XENSTORE) {
        *place = entry(XENSTORE_GFN);
    }
    if let Some(place) = entries.get_mut(GNTTAB_RESERVED_CONSOLE).filter(|_| console) {
        *place = entry(CONSOLE_GFN);
    }
    if let Some(rings) = rings {
        entries.push(entry(rings.tx()));
        entries.push(entry(rings.rx()));
        entries.extend(rings.buffers().map(entry));
    }
    entries.as_bytes().to_vec()
}

/// The head of a ring (SHARED_RING_INIT) with `req_prod` requests on it.
fn head(req_prod: u32) -> Vec<u8> {
    let mut bytes = vec![0; sring::RING];
    for (at, value) in [
        (sring::REQ_PROD, req_prod),
        (sring::REQ_EVENT, 1),
        (sring::RSP_PROD, 0),
        (sring::RSP_EVENT, 1),
    ] {
        if let Some(place) = bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// The transmit ring: empty. Entries outside the indices are never read, so they stay as they are.
pub(crate) fn tx_ring() -> Vec<u8> {
    head(0)
}

/// The receive ring: a request for each buffer.
pub(crate) fn rx_ring(rings: &Rings, grants: &Grants) -> Vec<u8> {
    let mut bytes = head(rings.buffers);
    let request = |id: u32| netif_rx_request {
        id: u16::try_from(id).unwrap_or(u16::MAX),
        pad: 0,
        gref: grants.rx_first + id,
    };
    let requests: Vec<_> = (0..rings.buffers).map(request).collect();
    bytes.extend_from_slice(requests.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_drivers::abi::{NET_RX_RING_SIZE, PAGE_SIZE};
    use zerocopy::FromBytes;

    const RINGS: Rings = Rings {
        first: 1790,
        buffers: 256,
    };

    #[test]
    fn entries_are_where_the_references_say() {
        for console in [false, true] {
            let table = grant_table(Some(&RINGS), console);
            let entries: Vec<_> = table
                .chunks_exact(8)
                .map(|entry| grant_entry_v1::read_from_bytes(entry).unwrap())
                .collect();
            let grants = Grants::of(&RINGS);
            assert_eq!(entries.len(), grants.free as usize);
            let frame = |reference: u32| entries[reference as usize].frame;
            assert_eq!(frame(grants.tx_ring), 1790);
            assert_eq!(frame(grants.rx_ring), 1791);
            for n in 0..256 {
                assert_eq!(frame(grants.rx_first + n), 1792 + n);
            }
            assert_eq!(
                (entries[1].flags, entries[1].frame),
                (GTF_PERMIT_ACCESS, 0xfeffc)
            );
            let expected = if console {
                (GTF_PERMIT_ACCESS, 0xfefff)
            } else {
                (0, 0)
            };
            assert_eq!((entries[0].flags, entries[0].frame), expected);
            assert!(entries[2..8].iter().all(|entry| entry.flags == 0));
            assert!(
                entries[8..]
                    .iter()
                    .all(|entry| entry.flags == GTF_PERMIT_ACCESS && entry.domid == 0)
            );
            // Only one frame of the grant table is mapped.
            assert!(table.len() <= PAGE_SIZE);
        }
        assert_eq!(grant_table(None, false).len(), 64);
    }

    #[test]
    fn every_buffer_is_posted_once() {
        for buffers in [1, 8, 256] {
            let rings = Rings {
                first: 100,
                buffers,
            };
            let grants = Grants::of(&rings);
            let ring = rx_ring(&rings, &grants);
            assert!(ring.len() <= PAGE_SIZE);
            assert!(buffers <= NET_RX_RING_SIZE);
            assert_eq!(
                ring[..16],
                [
                    &buffers.to_le_bytes()[..],
                    &[1, 0, 0, 0],
                    &[0; 4],
                    &[1, 0, 0, 0]
                ]
                .concat()
            );
            for (n, request) in (0..).zip(ring[64..].chunks_exact(8)) {
                let request = netif_rx_request::read_from_bytes(request).unwrap();
                assert_eq!((u32::from(request.id), request.gref), (n, 10 + n));
            }
        }
    }
}
