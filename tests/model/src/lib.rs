//! A guest with drivers only: the kernel's boot order and event loop over the fake Xen.
#![forbid(unsafe_code)]

pub mod frames;

use mayfly_drivers::abi::{GNTTAB_NR_RESERVED_ENTRIES, PAGE_SIZE};
use mayfly_drivers::control::{Command, Control};
use mayfly_drivers::fake::{FakeXen, Packet, World};
use mayfly_drivers::grant::GrantTable;
use mayfly_drivers::netfront::{BufferCounts, NetFront, Notice, RxFrame};
use mayfly_drivers::xenstore::{Broken, Change, Xenstore};
use mayfly_drivers::{GrantRef, Hypervisor, SystemTime};
use mayfly_handoff::network::Preconnected;

/// A second, in ns.
pub const SECOND: u64 = 1_000_000_000;
/// The longest sleep of the guest, in ns.
pub const NAP_NS: u64 = 100_000_000;
/// The interval at which it repairs losses that no event reports, in ns.
pub const RENEW_NS: u64 = 30_000_000_000;
/// The longest wait for the first answers, in ns.
pub const BOOT_NS: u64 = 2_000_000_000;

/// The guest.
#[derive(Debug)]
pub struct Guest<'h> {
    /// The fake Xen that it runs on.
    pub xen: &'h FakeXen,
    /// Its connection to xenstored.
    pub store: Xenstore<'h, FakeXen>,
    /// Its network interface.
    pub net: NetFront<'h, FakeXen>,
    /// Its watch on `control/shutdown`.
    pub control: Control,
    /// The command that it has received.
    pub command: Option<Command>,
    /// The notices of the interface.
    pub notices: Vec<Notice>,
    /// The reasons for which the connection to xenstored was lost.
    pub broken: Vec<Broken>,
    /// The number of times that the connection was made again, or that xenstored turned out to have been restarted.
    pub reconnected: usize,
    /// The time of the next repair; `None` before its housekeeping.
    renew: Option<SystemTime>,
    /// Frames received, oldest first.
    pub received: Vec<(Vec<u8>, RxFrame)>,
    /// The number of times that it slept.
    pub naps: u64,
}

impl<'h> Guest<'h> {
    /// A guest that has sent its first burst of requests.
    ///
    /// # Panics
    /// If the fake has no grant table.
    #[must_use]
    pub fn start(xen: &'h FakeXen, config: BufferCounts) -> Self {
        let mut guest = Self::idle(xen, config, GNTTAB_NR_RESERVED_ENTRIES);
        guest.net.start(&mut guest.store);
        guest
    }

    /// A guest that has booted on a network that was connected before.
    ///
    /// # Errors
    /// The notice that the kernel would print.
    pub fn adopt(
        xen: &'h FakeXen,
        config: BufferCounts,
        network: &Preconnected,
    ) -> Result<Self, Notice> {
        let mut guest = Self::idle(xen, config, network.free.0);
        guest.net.adopt(network)?;
        guest.housekeeping();
        Ok(guest)
    }

    fn idle(xen: &'h FakeXen, config: BufferCounts, free: u32) -> Self {
        let (page, port) = xen.store_ring();
        let store = Xenstore::new(xen, page, port);
        let Ok(grants) = GrantTable::used_below(xen, GrantRef(free)) else {
            panic!("the fake has a grant table");
        };
        let net = NetFront::new(xen, grants, config);
        Self {
            xen,
            store,
            net,
            control: Control::new(),
            command: None,
            notices: Vec::new(),
            broken: Vec::new(),
            reconnected: 0,
            renew: None,
            received: Vec::new(),
            naps: 0,
        }
    }

    /// Waits for the answers and makes the link.
    ///
    /// # Errors
    /// The notice that the kernel would print.
    pub fn connect(&mut self) -> Result<(), Notice> {
        let deadline = SystemTime(self.xen.now().0 + BOOT_NS);
        self.net.discover(&mut self.store, deadline)?;
        self.net.connect(&mut self.store)
    }

    /// A guest that has booted: connected, and its housekeeping done.
    ///
    /// # Errors
    /// The notice that the kernel would print.
    pub fn boot(xen: &'h FakeXen, config: BufferCounts) -> Result<Self, Notice> {
        let mut guest = Self::start(xen, config);
        guest.connect()?;
        guest.housekeeping();
        Ok(guest)
    }

    /// The kernel's work after the first frame.
    pub fn housekeeping(&mut self) {
        self.net.housekeeping(&mut self.store);
        self.control.renew(&mut self.store);
        self.renew = Some(SystemTime(self.xen.now().0 + RENEW_NS));
    }

    fn supervise(&mut self, now: SystemTime) {
        match self.store.supervise(now) {
            None => {}
            Some(Change::Lost(broken)) => self.broken.push(broken),
            Some(Change::Again | Change::First) => self.store_is_new(),
        }
        if self.control.take_lost() {
            self.store_is_new();
        }
        if self.renew.is_some_and(|at| now >= at) {
            self.renew = Some(SystemTime(now.0 + RENEW_NS));
            self.net.renew(&mut self.store);
            self.control.renew(&mut self.store);
        }
    }

    fn store_is_new(&mut self) {
        self.reconnected += 1;
        self.net.reconnected(&mut self.store);
        if self.renew.is_some() {
            self.control.reconnected(&mut self.store);
        }
    }

    /// Handles everything once, as the kernel does before it sleeps.
    pub fn service(&mut self) {
        self.xen.evtchn_take(self.store.port());
        for port in self.net.ports().into_iter().flatten() {
            self.xen.evtchn_take(port);
        }
        while let Ok(Some(event)) = self.store.pump() {
            self.net.xenstore_event(&event);
            self.control.xenstore_event(&event);
        }
        let now = self.xen.now();
        self.supervise(now);
        let mut frame = [0; PAGE_SIZE];
        while let Some(received) = self.net.receive(&mut frame) {
            self.received
                .push((frame[..received.len].to_vec(), received));
        }
        self.net.drive(&mut self.store, now);
        self.command = self.command.or(self.control.drive(&mut self.store));
        self.net.flush();
        while let Some(notice) = self.net.take_notice() {
            self.notices.push(notice);
        }
    }

    /// One turn of the event loop: service, then sleep unless there is work.
    pub fn turn(&mut self) {
        self.service();
        self.sleep();
    }

    /// Sleeps until an event or a deadline, unless there is work.
    pub fn sleep(&mut self) {
        if self.net.prepare_sleep() {
            return;
        }
        let nap = self.xen.now().0 + NAP_NS;
        let deadlines = [self.net.deadline(), self.store.supervise_at(), self.renew];
        let deadline = deadlines
            .into_iter()
            .flatten()
            .fold(nap, |nap, at| nap.min(at.0));
        let mut ports = vec![self.store.port()];
        ports.extend(self.net.wake_ports());
        self.naps += 1;
        self.xen.poll(&ports, Some(SystemTime(deadline)));
    }

    /// Turns until `done`, at most `turns` times. Returns whether it was done.
    pub fn turn_until(&mut self, turns: usize, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        for _ in 0..turns {
            self.service();
            if done(self) {
                return true;
            }
            self.sleep();
        }
        false
    }

    /// Turns until frames move.
    pub fn turn_until_carrier(&mut self) -> bool {
        self.turn_until(200, |guest| guest.net.carrier())
    }

    /// The time, in ns.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.xen.now().0
    }

    /// Turns for this many seconds.
    ///
    /// # Panics
    /// If time does not pass.
    pub fn run_for(&mut self, seconds: u64) {
        let end = self.now() + seconds * SECOND;
        let is_over = self.turn_until(100_000, |guest| guest.now() >= end);
        assert!(is_over, "it is awake for ever");
    }

    /// Sends and receives a frame, which carry `number` and the number after it. Returns whether both arrived whole.
    pub fn carries(&mut self, number: u32) -> bool {
        let (out, back) = (numbered_frame(number, 60), numbered_frame(number + 1, 200));
        if !(self.turn_until(10, |guest| guest.net.can_send()) && self.send(&out)) {
            return false;
        }
        self.world(|world| world.netback.deliver(Packet::new(&back)));
        let before = self.received.len();
        self.turn_until(20, |guest| guest.received.len() > before)
            && self
                .received
                .get(before)
                .is_some_and(|(frame, _)| *frame == back)
            && self.world(|world| world.netback.transmitted.back() == Some(&out))
    }

    /// Sends a frame, flushing it.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let sent = self.net.send(frame).is_ok();
        self.net.flush();
        sent
    }

    /// Runs `f` on the world of the guest.
    pub fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        self.xen.with(f)
    }

    /// The guest's violations so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.xen.with(|world| world.machine.violations().to_vec())
    }
}

/// A frame that carries a number, `length` bytes long.
#[must_use]
pub fn numbered_frame(number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length.max(18)];
    for (index, byte) in frame.iter_mut().enumerate() {
        *byte = number.to_le_bytes()[index % 4] ^ index.to_le_bytes()[0];
    }
    frame[14..18].copy_from_slice(&number.to_le_bytes());
    frame
}
