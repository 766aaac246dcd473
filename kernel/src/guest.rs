//! The guest after the boot: one step of the event loop, over any [`Hypervisor`].
//!
//! A step takes the frames and messages that have arrived, serves them, and returns until when the guest may sleep. It
//! does a bounded amount of work and never sleeps itself.

use core::fmt;

use mayfly_drivers::console::Console;
use mayfly_drivers::control::{Command, Control};
use mayfly_drivers::netfront::Notice;
use mayfly_drivers::suspend::SuspendChannel;
use mayfly_drivers::xenstore::{Change, Xenstore};
use mayfly_drivers::{EventPort, Gfn, HvmParam, Hypervisor, Resumed, ShutdownReason, SystemTime};
use smoltcp::time::Instant;

use crate::copied::CopiedAddresses;
use crate::line::Line;
use crate::nic::Nic;
use crate::report::Report;
use crate::secrets::Root;
use crate::stack::{Memory, Stack};
use crate::timeline::BootPhase;
use mayfly_site::Pages;

/// The number of xenstore messages handled in one step. More wait for the next one.
const STORE_BATCH: usize = 32;
/// The latest time of the first housekeeping, in ns after boot: without a back end the first packet never leaves, but
/// the guest must still obey a shutdown request.
const HOUSEKEEPING_AT_LATEST: u64 = 1_000_000_000;
/// The time from the first packet to the first housekeeping, in ns: its hypercalls and xenstored's work would delay the
/// first answers.
const FIRST_ANSWERS: u64 = 50_000_000;
/// The time between two checks, in ns: whether xenstored still has the guest's watches, and whether a back end has
/// unmapped pages.
const RENEW_EVERY: u64 = 30_000_000_000;
/// The time that xenstored has to take the acknowledgement of `suspend` before the guest suspends, in ns.
const ACKNOWLEDGED_AT_LATEST: u64 = 1_000_000_000;

/// The running guest.
pub struct Guest<'a, H: Hypervisor, P: Pages> {
    /// Xen.
    pub xen: &'a H,
    /// The connection to xenstored.
    pub store: Xenstore<'a, H>,
    /// The network interface.
    pub nic: Nic<'a, H>,
    /// The services.
    pub stack: Stack<'a, P>,
    /// The boot report.
    pub report: &'a Report<'a>,
    /// Whether the command line allows the console ring.
    pub console_wanted: bool,
    /// Makes a root key.
    root: &'a dyn Fn() -> Root,
    control: Control,
    channel: SuspendChannel,
    copied: CopiedAddresses,
    /// The guest is to suspend once xenstored has its acknowledgement, or at this time.
    suspend_at: Option<SystemTime>,
    console: Option<Console<'a, H>>,
    links: u64,
    housekeeping: Housekeeping,
    /// Whether `data/mayfly/ready` was written.
    is_ready: bool,
}

/// The next housekeeping: work for which no client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Housekeeping {
    /// The first one: watches, features, `control/`, the console, the boot line.
    FirstAt(SystemTime),
    /// A later one, which finds losses that no event reports.
    RenewAt(SystemTime),
}

impl<'a, H: Hypervisor, P: Pages> Guest<'a, H, P> {
    /// A guest of the parts that the boot has made.
    pub fn new(
        xen: &'a H,
        store: Xenstore<'a, H>,
        nic: Nic<'a, H>,
        stack: Stack<'a, P>,
        report: &'a Report<'a>,
        console_wanted: bool,
        root: &'a dyn Fn() -> Root,
    ) -> Self {
        let latest = SystemTime(xen.now().0.saturating_add(HOUSEKEEPING_AT_LATEST));
        Self {
            xen,
            store,
            nic,
            stack,
            report,
            console_wanted,
            root,
            control: Control::new(),
            channel: SuspendChannel::new(),
            copied: CopiedAddresses::default(),
            suspend_at: None,
            console: None,
            links: 0,
            housekeeping: Housekeeping::FirstAt(latest),
            is_ready: false,
        }
    }

    /// Prints a line on Xen's debug port, and on the console if there is one.
    #[inline(never)]
    pub fn log(&mut self, text: fmt::Arguments<'_>) {
        self.print(&Line::new(text));
    }

    fn print(&mut self, line: &Line) {
        self.xen.debug_write(line.as_bytes());
        if let Some(console) = &mut self.console {
            console.write(line.as_bytes());
            self.report.console_dropped.set(console.dropped());
        }
    }

    /// Tells the stack that there is a link, and queues the first frame. The next step sends it.
    pub fn link_up(&mut self, now: SystemTime) {
        let now = instant(now);
        self.links = self.nic.front().counters().links;
        let mac = self.nic.front().mac();
        self.stack.link_up(&mut self.nic, mac, now);
        self.stack.transmit(&mut self.nic, now);
    }

    /// Handles all frames and events that have arrived. Returns the latest time of the next call; a time in the past
    /// means at once. `unix_seconds` is the time of day, if it is known.
    pub fn step(
        &mut self,
        memory: &mut Memory<'_>,
        now: SystemTime,
        unix_seconds: Option<u64>,
    ) -> Option<SystemTime> {
        self.xenstore(now);
        for port in self.nic.front().ports().into_iter().flatten() {
            self.xen.evtchn_take(port);
        }
        self.network(now);
        let wanted = self
            .stack
            .poll(&mut self.nic, memory, unix_seconds, instant(now));
        if let Some((address, [a, b, c, d, e, f])) = self.stack.take_conflict() {
            self.log(format_args!(
                "{address} is in use by {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} too"
            ));
        }
        self.nic.front().flush();
        self.housekeeping(now);
        if self.is_to_suspend(now) {
            self.suspend();
            return Some(now);
        }

        if self.nic.front().prepare_sleep() || self.store.has_more() {
            return Some(now);
        }
        let (Housekeeping::FirstAt(housekeeping) | Housekeeping::RenewAt(housekeeping)) =
            self.housekeeping;
        [
            wanted.map(system_time),
            self.nic.front().deadline(),
            self.store.supervise_at(),
            Some(housekeeping),
            self.suspend_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The event channels whose events end the sleep.
    pub fn ports(&mut self) -> heapless::Vec<EventPort, 4> {
        let front = self.nic.front();
        let ports = [self.store.port()].into_iter().chain(self.channel.port());
        ports.chain(front.wake_ports()).collect()
    }

    fn xenstore(&mut self, now: SystemTime) {
        if self.xen.evtchn_take(self.store.port()) || self.store.has_more() {
            self.pump();
        }
        match self.store.supervise(now) {
            None => {}
            Some(Change::Lost(broken)) => self.log(format_args!("{}", broken.as_str())),
            Some(Change::Again) => {
                self.log(format_args!("xenstore: connected again"));
                self.store_is_new();
            }
            // Before the first housekeeping there are no watches to set again.
            Some(Change::First) => {
                if matches!(self.housekeeping, Housekeeping::RenewAt(_)) {
                    self.store_is_new();
                }
            }
        }
        if self.control.take_lost() {
            self.log(format_args!("xenstore: a new xenstored; watching again"));
            self.store_is_new();
        }
    }

    /// Repeats requests and watches on a new connection to xenstored, which knows none of them.
    fn store_is_new(&mut self) {
        self.nic.front().reconnected(&mut self.store);
        self.control_is_new();
    }

    /// Tells a new xenstored what the toolstack wants to know, and watches for its commands.
    fn control_is_new(&mut self) {
        if matches!(self.housekeeping, Housekeeping::RenewAt(_)) {
            self.control.reconnected(&mut self.store);
            self.channel.offer(self.xen, &mut self.store);
        }
        self.is_ready = false;
    }

    fn is_to_suspend(&self, now: SystemTime) -> bool {
        self.channel.take(self.xen)
            || self
                .suspend_at
                .is_some_and(|at| self.store.is_idle() || now >= at)
    }

    /// Stops until the toolstack lets the guest go on, in this domain or in another one.
    fn suspend(&mut self) {
        self.suspend_at = None;
        self.log(format_args!("suspending"));
        match self.xen.suspend() {
            Resumed::SameDomain => self.log(format_args!("resumed in the same domain")),
            Resumed::NewDomain => self.resumed(),
        }
    }

    /// Goes on in a new domain. It may be one of several copies, so secrets are made anew. Connections stay.
    fn resumed(&mut self) {
        self.stack.renew_secrets(&(self.root)());
        self.channel.resumed();
        let xen = self.xen;
        if let (Some(console), Some(port)) =
            (&mut self.console, xen.port_of(HvmParam::ConsoleEvtchn))
        {
            console.resumed(port);
        }
        if let Some(port) = xen.port_of(HvmParam::StoreEvtchn) {
            self.store.resumed(port);
        }
        self.log(format_args!("resumed in a new domain"));
        self.copied.ask(&mut self.store);
        if let Err(error) = self.nic.front().resumed(&mut self.store) {
            self.log(format_args!("grant table: {error}"));
            self.xen.shutdown(ShutdownReason::Crash);
        }
        self.control_is_new();
    }

    /// Gives the messages of xenstored to the front ends.
    fn pump(&mut self) {
        for _ in 0..STORE_BATCH {
            let Ok(Some(event)) = self.store.pump() else {
                return;
            };
            self.nic.front().xenstore_event(&event);
            self.control.xenstore_event(&event);
            self.channel.xenstore_event(self.xen, &event);
            match self.copied.xenstore_event(&event) {
                Some(Ok(config)) => self.stack.take_addresses(&config),
                Some(Err(line)) => self.print(&line),
                None => {}
            }
        }
    }

    fn network(&mut self, now: SystemTime) {
        self.nic.front().drive(&mut self.store, now);
        while let Some(notice) = self.nic.front().take_notice() {
            match notice {
                Notice::Carrier => self.report.timeline.first(BootPhase::BackendConnected),
                notice => self.log(format_args!("{}", notice.as_str())),
            }
        }
        if self.nic.front().counters().links != self.links {
            self.link_up(now);
        }
        match self.control.drive(&mut self.store) {
            Some(Command::Poweroff | Command::Halt) => self.xen.shutdown(ShutdownReason::Poweroff),
            Some(Command::Reboot) => self.xen.shutdown(ShutdownReason::Reboot),
            Some(Command::Suspend) => {
                self.suspend_at = Some(SystemTime(now.0.saturating_add(ACKNOWLEDGED_AT_LATEST)));
            }
            None => {}
        }
    }

    /// Does the housekeeping that is due.
    fn housekeeping(&mut self, now: SystemTime) {
        let sent =
            self.report.timeline.has(BootPhase::BackendConnected) && self.nic.front().carrier();
        if sent && !self.is_ready {
            // Written at once, because launchers wait for it.
            self.is_ready = self.store.write(&[b"data/mayfly/ready"], b"1").is_ok();
            if let Housekeeping::FirstAt(at) = &mut self.housekeeping {
                *at = (*at).min(SystemTime(now.0.saturating_add(FIRST_ANSWERS)));
            }
        }
        let (Housekeeping::FirstAt(due) | Housekeeping::RenewAt(due)) = self.housekeeping;
        if now >= due {
            if matches!(self.housekeeping, Housekeeping::FirstAt(_)) {
                self.nic.front().housekeeping(&mut self.store);
                self.channel.offer(self.xen, &mut self.store);
                if self.console_wanted {
                    self.console = open_console(self.xen);
                }
                let line = self.report.line();
                self.log(format_args!("{line}"));
            } else {
                self.nic.front().renew(&mut self.store);
            }
            self.control.renew(&mut self.store);
            self.housekeeping =
                Housekeeping::RenewAt(SystemTime(now.0.saturating_add(RENEW_EVERY)));
        }
        self.store.flush();
    }
}

fn open_console<H: Hypervisor>(xen: &H) -> Option<Console<'_, H>> {
    let gfn = xen.hvm_param(HvmParam::ConsolePfn).ok()?;
    let port = xen.port_of(HvmParam::ConsoleEvtchn)?;
    let page = xen.special_page(Gfn(gfn))?;
    Some(Console::new(xen, page, port))
}

/// Xen's system time as smoltcp's instant, in microseconds.
#[must_use]
pub fn instant(time: SystemTime) -> Instant {
    Instant::from_micros(i64::try_from(time.0 / 1000).unwrap_or(i64::MAX))
}

fn system_time(instant: Instant) -> SystemTime {
    // Rounded up: to wake too early would mean to wake twice.
    let micros = u64::try_from(instant.total_micros()).unwrap_or(0);
    SystemTime(micros.saturating_add(1).saturating_mul(1000))
}
