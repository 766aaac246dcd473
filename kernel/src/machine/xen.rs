//! The [`Hypervisor`] that the drivers use, over hypercalls.

use core::cell::{Cell, RefCell};
use core::ptr::NonNull;

use mayfly::secrets::{Entropy, ROOT};
use mayfly::wall::Wall;
use mayfly_drivers::abi::{
    DOMID_SELF, PAGE_SIZE, XENMAPSPACE_GRANT_TABLE, XENMAPSPACE_SHARED_INFO, XENMEM_ADD_TO_PHYSMAP,
    shared_info, xen_add_to_physmap,
};
use mayfly_drivers::clock::WallClock;
use mayfly_drivers::xenstore::Xenstore;
use mayfly_drivers::{
    DomId, Errno, EventPort, Gfn, HvmParam, Hypervisor, Resumed, SharedPage, ShutdownReason,
    SystemTime, TransmitPages, clock,
};
use mayfly_handoff::network::Preconnected;
use x86_64::instructions::random::RdRand;

use super::crash::crash;
use super::hypercall::{
    call, debug_write, evtchn_send, hvm_param, init_hypercall_page, shutdown, tsc,
};
use super::network::NetworkPages;
use super::ram::{Ram, shared_page};

/// The first of the addresses below 4 GiB that domain builders leave to devices and to Xen's special pages.
const SPECIAL_PAGES: u64 = 0xf000_0000;
/// `XEN_ENOMEM` (public/errno.h), for errors that are found in this file.
const ENOMEM: Errno = Errno(12);
const ENODEV: Errno = Errno(19);
const ENOSPC: Errno = Errno(28);

/// Xen, as the drivers see it.
pub(crate) struct Xen {
    ram: Ram,
    network: NetworkPages,
    shared_info: SharedPage,
    clock: clock::Clock,
    wall: Wall,
    special: RefCell<[Gfn; 4]>,
    /// TSC ticks spent asleep, as long as they are counted.
    slept: Cell<Option<u64>>,
}

/// Has Xen map a page of its own at the address of `page`.
fn map(space: u32, index: u32, page: &SharedPage) -> Result<(), Errno> {
    let mut argument = xen_add_to_physmap {
        domid: DOMID_SELF,
        size: 0,
        space,
        idx: u64::from(index),
        gpfn: gfn(page.address()).0,
    };
    // SAFETY: Xen reads the struct and puts its frame at a place that the caller
    // owns as a SharedPage: what was there, if anything, nobody looks for.
    unsafe {
        call(
            xen_sys::__HYPERVISOR_memory_op,
            XENMEM_ADD_TO_PHYSMAP,
            &mut argument,
        )?
    };
    Ok(())
}

/// Maps `shared_info`, with every event channel masked: events set their pending bit and end `SCHEDOP_poll`, and no
/// upcall is ever injected.
fn map_shared_info(page: &SharedPage) -> Result<(), Errno> {
    map(XENMAPSPACE_SHARED_INFO, 0, page)?;
    for word in 0..64 {
        page.store64(shared_info::EVTCHN_MASK + 8 * word, u64::MAX);
    }
    Ok(())
}

/// The gfn of a page, which follows from the address because memory is identity mapped.
fn gfn(page: NonNull<u8>) -> Gfn {
    Gfn(page.addr().get() as u64 / PAGE_SIZE as u64)
}

impl Xen {
    /// Maps `shared_info`.
    pub(crate) fn new(ram: Ram, network: NetworkPages) -> Result<Self, Errno> {
        let page = ram.place_for_xen().ok_or(ENOMEM)?;
        map_shared_info(&page)?;
        Ok(Self {
            ram,
            network,
            shared_info: page,
            clock: clock::Clock::new(),
            wall: Wall::default(),
            special: RefCell::new([Gfn(0); 4]),
            slept: Cell::new(Some(0)),
        })
    }

    /// The free RAM.
    pub(crate) fn ram(&self) -> &Ram {
        &self.ram
    }

    /// The connection to xenstored, on the ring that `network` names, else on the ring that the HVM parameters name.
    pub(crate) fn xenstore(
        &self,
        network: Option<&Preconnected>,
    ) -> Result<Xenstore<'_, Self>, Errno> {
        let (gfn, port) = match network {
            Some(network) => (network.store, Some(network.store_port)),
            None => {
                let gfn = hvm_param(HvmParam::StorePfn)?;
                (Gfn(gfn), self.port_of(HvmParam::StoreEvtchn))
            }
        };
        let port = port.ok_or(ENODEV)?;
        let page = self.special_page(gfn).ok_or(ENODEV)?;
        Ok(Xenstore::new(self, page, port))
    }

    /// Seconds since 1970 at a time, from Xen's wall clock.
    pub(crate) fn unix_seconds(&self, now: SystemTime) -> Option<u64> {
        let read = self.wall_clock(now).map(|wall| wall.seconds);
        self.wall.unix_seconds(read, now)
    }

    /// Xen's wall clock at a time.
    fn wall_clock(&self, now: SystemTime) -> Option<WallClock> {
        clock::wall_clock(&self.shared_info, self.clock.system(now))
    }

    /// Reads the machine's own sources of the secrets.
    pub(crate) fn entropy(&self) -> Entropy {
        let now = self.now();
        let wall = self.wall_clock(now);
        let wall = wall.map_or(0, |wall| wall.seconds << 30 | u64::from(wall.nanos));
        Entropy {
            cpu: cpu_random(),
            times: [tsc(), now.0, wall],
        }
    }

    /// The TSC ticks spent in `SCHEDOP_poll` so far. From this call on they are not counted, because reading the TSC
    /// may be a VM exit.
    pub(crate) fn slept(&self) -> u64 {
        self.slept.take().unwrap_or(0)
    }

    /// The TSC's frequency in kHz, as Xen scales it.
    pub(crate) fn tsc_khz(&self) -> u64 {
        clock::time_info(&self.shared_info, tsc).map_or(0, |(info, _)| info.tsc_khz())
    }
}

/// The number of attempts to get a random number from the CPU (Intel, "Digital Random Number Generator Software
/// Implementation Guide", 5.2.1).
const RDRAND_RETRIES: usize = 10;

/// Random bytes of the CPU; `None` if it has no generator, if Xen hides it, or if it has no number ready.
fn cpu_random() -> Option<[u8; ROOT]> {
    let generator = RdRand::new()?;
    let mut bytes = [0; ROOT];
    for part in bytes.chunks_exact_mut(8) {
        let number = (0..=RDRAND_RETRIES).find_map(|_| generator.get_u64())?;
        part.copy_from_slice(&number.to_le_bytes());
    }
    Some(bytes)
}

impl Hypervisor for Xen {
    fn evtchn_alloc_unbound(&self, remote: DomId) -> Result<EventPort, Errno> {
        let mut argument = xen_sys::evtchn_alloc_unbound {
            dom: DOMID_SELF,
            remote_dom: remote.0,
            port: 0,
        };
        // SAFETY: Xen reads the struct and writes `port`.
        unsafe {
            call(
                xen_sys::__HYPERVISOR_event_channel_op,
                u64::from(xen_sys::EVTCHNOP_alloc_unbound),
                &mut argument,
            )?
        };
        EventPort::try_new(argument.port).ok_or(ENOSPC)
    }

    fn evtchn_close(&self, port: EventPort) -> Result<(), Errno> {
        let mut argument = xen_sys::evtchn_close { port: port.get() };
        // SAFETY: Xen reads the struct.
        unsafe {
            call(
                xen_sys::__HYPERVISOR_event_channel_op,
                u64::from(xen_sys::EVTCHNOP_close),
                &mut argument,
            )?
        };
        Ok(())
    }

    fn evtchn_send(&self, port: EventPort) -> Result<(), Errno> {
        evtchn_send(port.get())
    }

    fn evtchn_is_bound(&self, port: EventPort) -> bool {
        let mut argument = xen_sys::evtchn_status {
            dom: DOMID_SELF,
            port: port.get(),
            status: 0,
            vcpu: 0,
            u: xen_sys::evtchn_status__bindgen_ty_1 { virq: 0 },
        };
        // SAFETY: Xen reads `dom` and `port` and writes the rest.
        let result = unsafe {
            call(
                xen_sys::__HYPERVISOR_event_channel_op,
                u64::from(xen_sys::EVTCHNOP_status),
                &mut argument,
            )
        };
        result.is_ok() && argument.status == xen_sys::EVTCHNSTAT_interdomain
    }

    fn evtchn_take(&self, port: EventPort) -> bool {
        let bit = 1 << (port.get() % 64);
        let word = shared_info::EVTCHN_PENDING + 8 * (port.get() as usize / 64);
        // A plain load first, because most calls find no event.
        self.shared_info.load64(word) & bit != 0
            && self.shared_info.fetch_clear64(word, bit) & bit != 0
    }

    fn poll(&self, ports: &[EventPort], deadline: Option<SystemTime>) {
        let mut numbers = [0u32; 8];
        let count = ports.len().min(numbers.len());
        for (number, port) in numbers.iter_mut().zip(ports) {
            *number = port.get();
        }
        let mut argument = xen_sys::sched_poll {
            ports: numbers.as_mut_ptr(),
            nr_ports: u32::try_from(count).unwrap_or(0),
            // 0 would mean no timeout; a deadline of 0 is in the past.
            timeout: deadline.map_or(0, |at| self.clock.system(at).0.max(1)),
        };
        let before = self.slept.get().map(|slept| (slept, tsc()));
        // SAFETY: Xen reads the struct and `nr_ports` ports, all on this stack.
        let _ = unsafe {
            call(
                xen_sys::__HYPERVISOR_sched_op,
                u64::from(xen_sys::SCHEDOP_poll),
                &mut argument,
            )
        };
        if let Some((slept, before)) = before {
            self.slept.set(Some(slept + (tsc() - before)));
        }
    }

    fn hvm_param(&self, param: HvmParam) -> Result<u64, Errno> {
        hvm_param(param)
    }

    fn special_page(&self, gfn: Gfn) -> Option<SharedPage> {
        let address = gfn.0.checked_mul(PAGE_SIZE as u64)?;
        if address >= 1 << 32 || address < self.ram.end().max(SPECIAL_PAGES) {
            return None;
        }
        let mut special = self.special.borrow_mut();
        if special.contains(&gfn) {
            return None;
        }
        *special.iter_mut().find(|slot| slot.0 == 0)? = gfn;
        // SAFETY: below 4 GiB and above everything that `Ram` has, by the test
        // above, and where the domain builder puts no RAM; handed out once, by
        // the list of those that were.
        Some(unsafe { shared_page(address) })
    }

    fn preconnected_page(&self, gfn: Gfn) -> Option<SharedPage> {
        self.network.page(gfn)
    }

    fn grant_frame(&self, index: u32) -> Result<SharedPage, Errno> {
        let page = self.ram.place_for_xen().ok_or(ENOMEM)?;
        map(XENMAPSPACE_GRANT_TABLE, index, &page)?;
        Ok(page)
    }

    fn map_grant_frame(&self, index: u32, page: &SharedPage) -> Result<(), Errno> {
        map(XENMAPSPACE_GRANT_TABLE, index, page)
    }

    fn alloc_page(&self) -> Option<SharedPage> {
        self.ram.page()
    }

    fn free_page(&self, page: SharedPage) {
        self.ram.give_back(page);
    }

    fn transmit_pages(&self, count: usize) -> Option<TransmitPages> {
        self.ram.transmit_pages(count)
    }

    fn gfn(&self, page: &SharedPage) -> Gfn {
        gfn(page.address())
    }

    fn transmit_gfn(&self, pages: &TransmitPages, page: usize) -> Gfn {
        gfn(pages.address(page))
    }

    fn now(&self) -> SystemTime {
        self.clock.now(&self.shared_info, tsc)
    }

    fn debug_write(&self, bytes: &[u8]) {
        debug_write(bytes);
    }

    fn suspend(&self) -> Resumed {
        // What SCHEDOP_shutdown returns does not tell the outcomes apart: when the same domain goes on, the toolstack
        // sets it to 1 only if the guest has a callback for events (tools/libs/guest/xg_resume.c). A port of the
        // guest's own does: a new domain has none but xenstore's and the console's.
        let Ok(token) = self.evtchn_alloc_unbound(DomId(DOMID_SELF)) else {
            return Resumed::SameDomain;
        };
        super::hypercall::suspend();
        if self.evtchn_close(token).is_ok() {
            return Resumed::SameDomain;
        }
        // The CPU may be another vendor's, whose hypercalls are other instructions.
        init_hypercall_page();
        if let Err(error) = map_shared_info(&self.shared_info) {
            crash(format_args!("resumed: shared_info: {error}"));
        }
        self.clock.resumed(&self.shared_info, tsc);
        Resumed::NewDomain
    }

    fn shutdown(&self, reason: ShutdownReason) {
        shutdown(reason)
    }
}
