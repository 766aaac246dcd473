//! The whole guest on the host: the boot order and event loop of `kernel/src/main.rs` over the fake
//! Xen, xenstored and netback, with a smoltcp client at the other end of the wire.
//!
//! Time is virtual. It passes while the guest sleeps, and a little with each step, so that a guest that spins is
//! detected by the number of its steps.
#![forbid(unsafe_code)]
#![allow(
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "host-side test code"
)]

pub mod client;
pub mod dhcp;
pub mod frames;
pub mod fuzz;
pub mod netem;
pub mod peer;
pub mod random;

use std::cell::Cell;

use client::{Client, Wire};
use mayfly::boot::{Machine, boot};
use mayfly::guest::{Guest, instant};
use mayfly::report::{Memory, WithReport};
use mayfly::secrets::{Entropy, ROOT};
use mayfly::stack::Sizing;
use mayfly::timeline::{BootPhase, Timeline};
use mayfly_drivers::fake::{FakeXen, Packet};
use mayfly_drivers::xenstore::Xenstore;
use mayfly_drivers::{Hypervisor, SystemTime};
use mayfly_handoff::network::Preconnected;
use mayfly_site::Site;
use smoltcp::time::Instant;

/// The guest's address in most tests.
pub const GUEST4: [u8; 4] = [10, 0, 2, 80];
/// The guest's MAC address, which the fake's toolstack gives it.
pub const GUEST_MAC: [u8; 6] = [0, 0x16, 0x3e, 0, 0, 1];
/// The addresses of most tests, as words of the command line.
pub const ADDRESSES: &str = "ip=10.0.2.80/24 gw=10.0.2.2 ip=fd00::80/64 gw=fd00::2";
/// The command line of most tests: the guest also serves all pages of its own.
pub const CMDLINE: &str =
    "ip=10.0.2.80/24 gw=10.0.2.2 ip=fd00::80/64 gw=fd00::2 endpoints=all,payload:4294967296";
/// The RAM of a guest in most tests, in bytes, without the kernel's own.
pub const RAM: u64 = 1 << 20;
/// The duration of one step of the guest, in ns.
pub const STEP_NS: u64 = 2_000;
/// One second of virtual time, in ns.
pub const SECOND: u64 = 1_000_000_000;
/// 2026-01-01 00:00:00 UTC.
const WALL_CLOCK: u64 = 1_767_225_600;
/// The most steps of the guest before it must sleep.
const MAX_BUSY_STEPS: u32 = 10_000;

thread_local! {
    static TSC: Cell<u64> = const { Cell::new(0) };
}

/// A time-stamp counter that only counts its readers.
fn tsc() -> u64 {
    TSC.set(TSC.get() + 1);
    TSC.get()
}

/// The setup of a guest to boot.
pub struct Setup {
    /// The Xen that it runs on.
    pub xen: FakeXen,
    /// The kernel command line.
    pub cmdline: String,
    /// The sizes that follow from its memory.
    pub sizing: Sizing,
    /// The packed site that it serves, if there is one.
    pub pack: Option<&'static [u8]>,
    /// The network, if the toolstack has connected it.
    pub network: Option<Preconnected>,
    /// The random bytes of its CPU, if the CPU gives some.
    pub random: Option<[u8; ROOT]>,
}

impl Setup {
    /// A guest with one interface and the usual addresses.
    #[must_use]
    pub fn new() -> Self {
        Self::on(FakeXen::new())
    }

    /// The usual guest, with a network that the toolstack has connected.
    #[must_use]
    pub fn preconnected() -> Self {
        let (xen, network) = FakeXen::preconnected(64);
        Self {
            network: Some(network),
            ..Self::on(xen)
        }
    }

    /// The usual guest on a fake that was prepared.
    #[must_use]
    pub fn on(xen: FakeXen) -> Self {
        Self {
            xen,
            cmdline: CMDLINE.into(),
            sizing: Sizing::for_memory(RAM),
            pack: None,
            network: None,
            random: Some(*b"a guest's own 32 bytes of random"),
        }
    }

    /// Sets the command line.
    #[must_use]
    pub fn cmdline(mut self, cmdline: &str) -> Self {
        self.cmdline = cmdline.into();
        self
    }

    /// Sets the number of bytes of free RAM.
    #[must_use]
    pub fn ram(mut self, bytes: u64) -> Self {
        self.sizing = Sizing::for_memory(bytes);
        self
    }

    /// Sets the packed site.
    #[must_use]
    pub fn pack(mut self, pack: &'static [u8]) -> Self {
        self.pack = Some(pack);
        self
    }

    /// Boots as `kernel/src/main.rs` does, and lets `test` use the guest.
    ///
    /// # Errors
    /// The line with which the kernel would have crashed.
    pub fn try_run<T>(self, test: impl FnOnce(&mut Net<'_>) -> T) -> Result<T, String> {
        let xen = &self.xen;
        let timeline = Timeline::new(tsc);
        timeline.stamp(BootPhase::Entry);
        let (page, port) = xen.store_ring();
        let asked = Cell::new(0);
        let entropy = || Entropy {
            cpu: self.random,
            // The boot's is 0. Only time differs when it is asked again.
            times: [asked.replace(asked.get() + 1), 0, 0],
        };
        let machine = Machine {
            xen,
            store: Xenstore::new(xen, page, port),
            cmdline: self.cmdline.as_bytes(),
            pack: self.pack,
            network: self.network.as_ref(),
            sizing: &self.sizing,
            memory: &Memory::default,
            entropy: &entropy,
            tsc_khz: 1_000_000,
            timeline: &timeline,
        };
        boot(machine, |guest| {
            test(&mut Net {
                xen,
                guest,
                client: Client::new(xen),
                handed_out: 0,
                steps: 0,
                sleeps: 0,
            })
        })
        .map_err(|failure| failure.to_string())
    }

    /// Boots a guest, and panics if it does not boot.
    pub fn run<T>(self, test: impl FnOnce(&mut Net<'_>) -> T) -> T {
        match self.try_run(test) {
            Ok(value) => value,
            Err(line) => panic!("the guest did not boot: {line}"),
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory for sockets, which is never freed, as the kernel hands it out.
fn memory(handed_out: &mut usize) -> impl FnMut(usize) -> Option<&'static mut [u8]> {
    |len| {
        *handed_out += len;
        Some(Box::leak(vec![0; len].into_boxed_slice()))
    }
}

/// A guest that is up, and a client on its wire.
pub struct Net<'a> {
    /// The Xen that the guest runs on.
    pub xen: &'a FakeXen,
    /// The guest.
    pub guest: Guest<'a, FakeXen, WithReport<'a, Site<'a>>>,
    /// The client.
    pub client: Client,
    /// The socket buffers that the guest has taken, in bytes.
    pub handed_out: usize,
    /// The number of steps of the guest so far.
    pub steps: u64,
    /// The number of sleeps of the guest so far.
    pub sleeps: u64,
}

impl Net<'_> {
    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.xen.now()
    }

    /// Virtual time as smoltcp counts it.
    #[must_use]
    pub fn instant(&self) -> Instant {
        instant(self.xen.now())
    }

    /// Runs one step of the guest; returns the time until which it wants to sleep, or `None` for no sleep.
    pub fn step(&mut self) -> Option<Option<SystemTime>> {
        self.steps += 1;
        let now = self.xen.now();
        let unix_seconds = Some(WALL_CLOCK + now.0 / SECOND);
        let wake = self
            .guest
            .step(&mut memory(&mut self.handed_out), now, unix_seconds);
        self.xen.with(|world| {
            let now = world.machine.now();
            world.machine.advance_to(now + STEP_NS);
        });
        wake.is_none_or(|at| at > self.xen.now()).then_some(wake)
    }

    /// Puts the guest to sleep until an event, its deadline or `end`.
    pub fn sleep(&mut self, wake: Option<SystemTime>, end: SystemTime) {
        self.sleeps += 1;
        let ports = self.guest.ports();
        let wake = wake.map_or(end, |at| at.min(end));
        self.xen.poll(&ports, Some(wake));
    }

    /// Runs the client and one step of the guest, and lets the guest sleep, until `end` at most.
    pub fn turn(&mut self, end: SystemTime) {
        let now = self.instant();
        let seen = self.client.log.len();
        let wire = &mut Wire::new(self.xen, &mut self.client.log, &mut self.client.link);
        let client_wake = self.client.stack.poll(wire, now);
        self.xen.run();
        let Some(wake) = self.step() else { return };
        // There is no sleep after a change: the caller may want to act on it.
        let news = self.client.log.len() != seen;
        if news || self.xen.with(|world| !world.netback.transmitted.is_empty()) {
            return;
        }
        let end = client_wake.map_or(end, |at| {
            end.min(SystemTime(at.total_micros().unsigned_abs() * 1_000 + 1_000))
        });
        let end = self
            .client
            .link
            .next()
            .map_or(end, |at| end.min(SystemTime(at)));
        self.sleep(wake, end);
    }

    /// Runs turns until `done`, for `seconds` of virtual time at most; returns whether it was done.
    pub fn until(&mut self, seconds: f64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.after(seconds);
        let mut busy = 0;
        loop {
            if done(self) {
                return true;
            }
            if self.now() >= end {
                return false;
            }
            let sleeps = self.sleeps;
            self.turn(end);
            busy = if self.sleeps == sleeps { busy + 1 } else { 0 };
            assert!(busy < MAX_BUSY_STEPS, "the guest does not come to rest");
        }
    }

    /// Runs turns for this many seconds of virtual time.
    pub fn run_for(&mut self, seconds: f64) {
        self.until(seconds, |_| false);
    }

    /// The time in this many seconds.
    #[must_use]
    pub fn after(&self, seconds: f64) -> SystemTime {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a test's own small number"
        )]
        let ns = (seconds * 1e9) as u64;
        SystemTime(self.now().0 + ns)
    }

    /// Puts a frame on the wire to the guest. Its checksums are not marked as verified.
    pub fn deliver(&self, frame: &[u8]) {
        self.deliver_flagged(frame, 0);
    }

    /// Puts a frame on the wire to the guest, with flags in its slot.
    pub fn deliver_flagged(&self, frame: &[u8], flags: u16) {
        let packet = Packet {
            flags,
            ..Packet::new(frame)
        };
        self.xen.with(|world| world.netback.deliver(packet));
    }

    /// Takes the frames that the guest has sent and the client has not seen.
    #[must_use]
    pub fn sent(&self) -> Vec<Vec<u8>> {
        self.xen
            .with(|world| world.netback.transmitted.drain(..).collect())
    }

    /// A value in the guest's xenstore home.
    #[must_use]
    pub fn key(&self, path: &str) -> Option<String> {
        self.xen.with(|world| {
            let value = world.store.get(path.as_bytes())?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }

    /// The text that the guest has written to Xen's debug port.
    #[must_use]
    pub fn debug(&self) -> String {
        self.xen
            .with(|world| String::from_utf8_lossy(&world.machine.debug).into_owned())
    }

    /// The guest's violations of the rules of a real machine.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.xen.with(|world| world.machine.violations().to_vec())
    }
}
