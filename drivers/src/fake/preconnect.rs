//! The part of the fake toolstack that connects the network before the guest runs, as `hatch` does.

use std::string::ToString;
use std::vec::Vec;

use super::FakeXen;
use super::machine::{Remote, STORE_GFN};
use super::netback::{BACKEND, set_frontend};
use crate::abi::{
    GNTTAB_NR_RESERVED_ENTRIES, GTF_PERMIT_ACCESS, grant_entry_v1, netif_rx_request, sring,
};
use crate::{DomId, Gfn, GrantRef};
use mayfly_handoff::network::{PATH_MAX, Preconnected, RINGS};

impl FakeXen {
    /// A domain whose network interface is connected, and the structure that describes it to the guest.
    #[must_use]
    pub fn preconnected(rx_buffers: usize) -> (Self, Preconnected) {
        let xen = Self::new();
        let network = xen.connect(rx_buffers);
        (xen, network)
    }

    /// Does the same for a back end that is a process of domain 0 ([`FakeXen::process`]), which has yet to bind and map.
    /// netback is not involved.
    #[must_use]
    pub fn preconnected_to_process(rx_buffers: usize) -> (Self, Preconnected) {
        let xen = Self::new();
        xen.with(|world| world.netback.never_connect = true);
        let network = xen.connect(rx_buffers);
        xen.process()
            .store(|store| store.set([BACKEND, "/state"].concat().as_bytes(), b"4"));
        (xen, network)
    }

    fn connect(&self, rx_buffers: usize) -> Preconnected {
        self.with(|world| {
            let machine = &mut world.machine;
            let pages: Vec<_> = machine
                .preconnect(RINGS + rx_buffers)
                .iter()
                .map(super::SharedPage::alias)
                .collect();
            let gfns: Vec<_> = pages
                .iter()
                .map(|page| machine.gfn(page.address()))
                .collect();
            let table = machine.grant_frame(0).expect("the first frame");
            let first = GNTTAB_NR_RESERVED_ENTRIES;
            for (&Gfn(gfn), grant) in gfns.iter().zip(first..) {
                let entry = grant_entry_v1 {
                    flags: GTF_PERMIT_ACCESS,
                    domid: 0,
                    frame: gfn as u32,
                };
                table.write(grant as usize * size_of::<grant_entry_v1>(), &entry);
            }
            let (tx, rx) = (&pages[0], &pages[1]);
            for ring in [tx, rx] {
                ring.store_release(sring::RSP_EVENT, 1);
                ring.store_release(sring::REQ_EVENT, 1);
            }
            let rx_first = first + RINGS as u32;
            for id in 0..rx_buffers {
                let request = netif_rx_request {
                    id: id as u16,
                    pad: 0,
                    gref: rx_first + id as u32,
                };
                rx.write(sring::RING + id * size_of::<netif_rx_request>(), &request);
            }
            rx.store_release(sring::REQ_PROD, rx_buffers as u32);
            let [tx_port, rx_port] = [(); 2].map(|()| {
                machine
                    .open_port(Remote::Unbound(DomId(0)))
                    .expect("a port")
            });
            for (key, number) in [
                ("tx-ring-ref", first),
                ("rx-ring-ref", first + 1),
                ("event-channel-tx", tx_port.get()),
                ("event-channel-rx", rx_port.get()),
                ("request-rx-copy", 1),
                ("feature-rx-notify", 1),
                ("state", 4),
            ] {
                set_frontend(&mut world.store, key, &number.to_string());
            }
            world.run();
            let mut backend = [0; PATH_MAX];
            backend[..BACKEND.len()].copy_from_slice(BACKEND.as_bytes());
            Preconnected {
                first: gfns[0],
                rx_buffers,
                tx_ring: GrantRef(first),
                rx_ring: GrantRef(first + 1),
                rx_first: GrantRef(rx_first),
                free: GrantRef(rx_first + rx_buffers as u32),
                tx_port,
                rx_port,
                store_port: world.store.port(),
                store: Gfn(STORE_GFN),
                domain: DomId(0),
                mac: [0, 0x16, 0x3e, 0, 0, 1],
                backend,
                random: None,
            }
        })
    }
}
