//! The trait through which the front ends use Xen.
//!
//! The guest implements it with hypercalls (`kernel/src/machine/xen.rs`); tests and
//! fuzzers implement it with [`crate::fake`]. Methods take `&self`: the guest has
//! one vCPU and no interrupts, so there is nothing to lock.

use mayfly_handoff::{DomId, EventPort, Gfn};

use crate::shared::{SharedPage, TransmitPages};

/// An error that Xen returned: a positive Xen errno (public/errno.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Xen error {}", self.0)
    }
}

/// Nanoseconds of Xen's system time: since the host booted, the same for all domains. In a guest that was resumed
/// elsewhere the time goes on where it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SystemTime(pub u64);

/// HVM parameters that a guest reads (hvm/params.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HvmParam {
    /// `HVM_PARAM_STORE_PFN`.
    StorePfn = 1,
    /// `HVM_PARAM_STORE_EVTCHN`.
    StoreEvtchn = 2,
    /// `HVM_PARAM_CONSOLE_PFN`.
    ConsolePfn = 17,
    /// `HVM_PARAM_CONSOLE_EVTCHN`.
    ConsoleEvtchn = 18,
}

/// The reason for which a domain stops (sched.h, `SHUTDOWN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownReason {
    /// `SHUTDOWN_poweroff`.
    Poweroff = 0,
    /// `SHUTDOWN_reboot`.
    Reboot = 1,
    /// `SHUTDOWN_crash`.
    Crash = 3,
}

/// The outcome of [`Hypervisor::suspend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// The toolstack has cancelled it, or Xen refused it: all that was shared still is.
    SameDomain,
    /// The guest runs in a new domain: no event channel, grant or watch is left.
    NewDomain,
}

/// Xen, as the front ends see it.
pub trait Hypervisor {
    /// `EVTCHNOP_alloc_unbound`: a new port that `remote` may bind to.
    ///
    /// # Errors
    /// Xen's errno.
    fn evtchn_alloc_unbound(&self, remote: DomId) -> Result<EventPort, Errno>;

    /// `EVTCHNOP_close`.
    ///
    /// # Errors
    /// Xen's errno.
    fn evtchn_close(&self, port: EventPort) -> Result<(), Errno>;

    /// `EVTCHNOP_send`: notifies the other end.
    ///
    /// # Errors
    /// Xen's errno; `ENOTCONN` while the other end is not bound.
    fn evtchn_send(&self, port: EventPort) -> Result<(), Errno>;

    /// `EVTCHNOP_status`: whether the other domain has bound its end.
    fn evtchn_is_bound(&self, port: EventPort) -> bool;

    /// Clears the port's pending bit in `shared_info` and says whether it was set.
    fn evtchn_take(&self, port: EventPort) -> bool;

    /// `SCHEDOP_poll`: sleeps until one of `ports` is pending or the deadline has passed. Returns at once if one is
    /// pending already. Without a deadline it sleeps until an event. The guest sleeps nowhere else.
    fn poll(&self, ports: &[EventPort], deadline: Option<SystemTime>);

    /// `HVMOP_get_param` of this domain.
    ///
    /// # Errors
    /// Xen's errno.
    fn hvm_param(&self, param: HvmParam) -> Result<u64, Errno>;

    /// The event channel that an HVM parameter names; `None` if Xen does not give the parameter, or no port's number.
    fn port_of(&self, param: HvmParam) -> Option<EventPort> {
        let port = self.hvm_param(param).ok()?;
        EventPort::try_new(u32::try_from(port).ok()?)
    }

    /// A page that Xen placed at `gfn` (the xenstore and console rings); `None`
    /// when the frame is not one of Xen's special pages or was handed out before.
    fn special_page(&self, gfn: Gfn) -> Option<SharedPage>;

    /// A page that the toolstack shared with the back end before the guest ran ([`mayfly_handoff::network`]); `None`
    /// when the frame is not one of those or was handed out before.
    fn preconnected_page(&self, gfn: Gfn) -> Option<SharedPage>;

    /// Maps a frame of this domain's grant table (`XENMEM_add_to_physmap`).
    ///
    /// # Errors
    /// Xen's errno, or `ENOMEM` when there is no room for the frame.
    fn grant_frame(&self, index: u32) -> Result<SharedPage, Errno>;

    /// Maps a frame of this domain's grant table again where [`Hypervisor::grant_frame`] has placed it, after the guest
    /// was resumed in a new domain.
    ///
    /// # Errors
    /// Xen's errno.
    fn map_grant_frame(&self, index: u32, page: &SharedPage) -> Result<(), Errno>;

    /// A page of guest memory for rings and buffers, with undefined content; `None` when memory is exhausted.
    fn alloc_page(&self) -> Option<SharedPage>;

    /// Frees a page from [`Hypervisor::alloc_page`]. No other domain may have access to the page any more: it can
    /// become ordinary memory.
    fn free_page(&self, page: SharedPage);

    /// Consecutive pages of guest memory in which frames are composed, with undefined content. They are never freed.
    /// `None` when there are not enough consecutive pages.
    fn transmit_pages(&self, count: usize) -> Option<TransmitPages>;

    /// The frame that holds a page from `alloc_page`.
    fn gfn(&self, page: &SharedPage) -> Gfn;

    /// The frame that holds one of the pages from `transmit_pages`.
    fn transmit_gfn(&self, pages: &TransmitPages, page: usize) -> Gfn;

    /// System time, from pvclock.
    fn now(&self) -> SystemTime;

    /// Writes to Xen's debug port (I/O port 0xe9): no ring, no daemon, no wait.
    fn debug_write(&self, bytes: &[u8]);

    /// `SCHEDOP_shutdown` with `SHUTDOWN_suspend`: stops the guest, so that the toolstack can save it. Returns when the
    /// guest runs again. In a new domain `shared_info` is mapped again by then; all else is the caller's.
    fn suspend(&self) -> Resumed;

    /// `SCHEDOP_shutdown`. On Xen it does not return; a fake records it and does.
    fn shutdown(&self, reason: ShutdownReason);
}
