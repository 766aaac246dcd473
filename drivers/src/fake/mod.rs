//! Scriptable fakes of Xen, xenstored and netback.
//!
//! [`FakeXen`] implements [`Hypervisor`] on ordinary memory. Its peers run on the guest's thread, whenever the guest
//! sends an event or polls, or when a test calls [`FakeXen::run`]. As real peers do, they look only at a ring for which
//! they were notified, so a lost notification is a hang that the fake reports. They access only granted pages; a front
//! end that hands out anything else is reported in [`Machine::violations`]. Pages are recycled, so millions of fakes
//! use no more memory than one.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::new_without_default,
    reason = "host-side test code"
)]

mod counts;
mod machine;
mod netback;
mod offload;
mod preconnect;
mod process;
mod store;

use core::cell::RefCell;

pub use counts::Counts;
pub use machine::Machine;
pub use netback::{BACKEND, FakeNetback, Packet, Ring};
pub use process::Process;
pub use store::{FakeStore, Fault, HOME, Request};

use crate::{
    DomId, Errno, EventPort, Gfn, HvmParam, Hypervisor, Resumed, SharedPage, ShutdownReason,
    SystemTime, TransmitPages,
};
use machine::Remote;

/// The greatest number of rounds until the peers are idle; more means that they keep waking each other.
const MAX_ROUNDS: usize = 10_000;
/// The length of a poll that nothing can end, in ns, after which the test goes on and finds the violation.
const HANG_NS: u64 = 1_000_000_000;

/// Everything behind the [`Hypervisor`] trait.
#[derive(Debug)]
pub struct World {
    /// Memory, grants, event channels, the clock and what was counted.
    pub machine: Machine,
    /// xenstored.
    pub store: FakeStore,
    /// netback.
    pub netback: FakeNetback,
}

impl World {
    fn run(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let store = self.store.step(&mut self.machine);
            let netback = self.netback.step(&mut self.machine, &mut self.store);
            if !store && !netback {
                return;
            }
        }
        self.machine.violation("the peers do not come to rest");
    }

    fn poll(&mut self, ports: &[EventPort], deadline: Option<SystemTime>) {
        self.machine.counts.poll += 1;
        for _ in 0..MAX_ROUNDS {
            self.run();
            if ports.iter().any(|&port| self.machine.is_pending(port)) {
                return;
            }
            let due = self.store.next_due();
            match (due, deadline) {
                (Some(due), Some(deadline)) if due < deadline.0 => self.machine.advance_to(due),
                (_, Some(deadline)) => {
                    self.machine.advance_to(deadline.0);
                    self.run();
                    return;
                }
                (Some(due), None) => self.machine.advance_to(due),
                (None, None) => {
                    self.machine
                        .violation("a poll without a deadline that nothing will end");
                    self.machine.advance_to(self.machine.now() + HANG_NS);
                    return;
                }
            }
        }
        self.machine.violation("a poll that does not end");
    }
}

/// A fake machine with one guest: the guest's view of Xen.
#[derive(Debug)]
pub struct FakeXen {
    world: RefCell<World>,
}

impl FakeXen {
    /// A domain as the toolstack creates it, with one network interface that is not connected yet.
    #[must_use]
    pub fn new() -> Self {
        let mut machine = Machine::new();
        let store = FakeStore::new(&mut machine);
        let xen = Self {
            world: RefCell::new(World {
                machine,
                store,
                netback: FakeNetback::new(),
            }),
        };
        xen.with(|world| world.netback.plug(&mut world.store));
        xen
    }

    /// A domain without a network interface.
    #[must_use]
    pub fn without_vif() -> Self {
        let xen = Self::new();
        xen.with(|world| world.netback.unplug(&mut world.machine, &mut world.store));
        xen
    }

    /// Runs `f` on the world behind the trait.
    pub fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut self.world.borrow_mut())
    }

    /// Runs the peers until they are idle.
    pub fn run(&self) {
        self.with(World::run);
    }

    /// The xenstore ring, as the HVM parameters name it.
    #[must_use]
    pub fn store_ring(&self) -> (SharedPage, EventPort) {
        self.with(|world| (world.store.page(), world.store.port()))
    }
}

impl Hypervisor for FakeXen {
    fn evtchn_alloc_unbound(&self, remote: DomId) -> Result<EventPort, Errno> {
        self.with(|world| {
            world.machine.counts.evtchn_alloc_unbound += 1;
            world.machine.open_port(Remote::Unbound(remote))
        })
    }

    fn evtchn_close(&self, port: EventPort) -> Result<(), Errno> {
        self.with(|world| {
            world.machine.counts.evtchn_close += 1;
            world.machine.close_port(port)
        })
    }

    fn evtchn_send(&self, port: EventPort) -> Result<(), Errno> {
        self.with(|world| {
            world.machine.counts.evtchn_send += 1;
            match world.machine.remote(port)? {
                // Xen drops it silently (common/event_channel.c, ECS_UNBOUND).
                Remote::Unbound(_) | Remote::Console => {}
                Remote::Store => world.store.kick(),
                Remote::Netback => world.netback.kick(),
                Remote::Process => world.machine.raise(port),
            }
            world.run();
            Ok(())
        })
    }

    fn evtchn_is_bound(&self, port: EventPort) -> bool {
        self.with(|world| {
            world.machine.counts.evtchn_status += 1;
            !matches!(world.machine.remote(port), Ok(Remote::Unbound(_)) | Err(_))
        })
    }

    fn evtchn_take(&self, port: EventPort) -> bool {
        self.with(|world| world.machine.take_pending(port))
    }

    fn poll(&self, ports: &[EventPort], deadline: Option<SystemTime>) {
        self.with(|world| world.poll(ports, deadline));
    }

    fn hvm_param(&self, param: HvmParam) -> Result<u64, Errno> {
        self.with(|world| {
            world.machine.counts.hvm_param += 1;
            Ok(match param {
                HvmParam::StorePfn => machine::STORE_GFN,
                HvmParam::StoreEvtchn => u64::from(world.store.port().get()),
                HvmParam::ConsolePfn => machine::CONSOLE_GFN,
                HvmParam::ConsoleEvtchn => u64::from(world.machine.console_port().get()),
            })
        })
    }

    fn special_page(&self, gfn: Gfn) -> Option<SharedPage> {
        self.with(|world| match gfn.0 {
            machine::STORE_GFN => world.store.hand_out(),
            machine::CONSOLE_GFN => world.machine.hand_out_console(),
            _ => None,
        })
    }

    fn preconnected_page(&self, gfn: Gfn) -> Option<SharedPage> {
        self.with(|world| world.machine.preconnected_page(gfn))
    }

    fn grant_frame(&self, index: u32) -> Result<SharedPage, Errno> {
        self.with(|world| {
            world.machine.counts.grant_frame += 1;
            world.machine.grant_frame(index)
        })
    }

    fn alloc_page(&self) -> Option<SharedPage> {
        self.with(|world| world.machine.alloc_page())
    }

    fn free_page(&self, page: SharedPage) {
        self.with(|world| world.machine.free_page(&page));
    }

    fn transmit_pages(&self, count: usize) -> Option<TransmitPages> {
        self.with(|world| world.machine.transmit_pages(count))
    }

    fn gfn(&self, page: &SharedPage) -> Gfn {
        self.with(|world| world.machine.gfn(page.address()))
    }

    fn transmit_gfn(&self, pages: &TransmitPages, page: usize) -> Gfn {
        self.with(|world| world.machine.gfn(pages.address(page)))
    }

    fn now(&self) -> SystemTime {
        self.with(|world| {
            world.machine.counts.now += 1;
            SystemTime(world.machine.now())
        })
    }

    fn debug_write(&self, bytes: &[u8]) {
        self.with(|world| world.machine.debug.extend_from_slice(bytes));
    }

    fn map_grant_frame(&self, index: u32, page: &SharedPage) -> Result<(), Errno> {
        self.with(|world| world.machine.map_grant_frame(index, page))
    }

    fn suspend(&self) -> Resumed {
        self.with(|world| {
            world.machine.suspended += 1;
            if world.machine.resumes == Resumed::NewDomain {
                world.netback.unplug(&mut world.machine, &mut world.store);
                world.machine.renew();
                world.store.renew(&mut world.machine);
                world.netback.plug(&mut world.store);
            }
            world.machine.resumes
        })
    }

    fn shutdown(&self, reason: ShutdownReason) {
        self.with(|world| world.machine.shutdown = Some(reason));
    }
}
