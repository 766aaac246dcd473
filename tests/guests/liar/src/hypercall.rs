//! Hypercalls through the hypercall page, and Xen's debug port.

use core::fmt::{self, Write};

use mayfly_drivers::abi::{
    DOMID_SELF, PAGE_SIZE, XENMAPSPACE_GRANT_TABLE, XENMEM_ADD_TO_PHYSMAP, xen_add_to_physmap,
};
use x86_64::instructions::port::PortWriteOnly;
use x86_64::registers::model_specific::Msr;

/// Where the grant table appears: beyond the RAM of every guest that is as small as this one.
pub(crate) const GRANT_TABLE_GFN: u64 = 0x1_0000;

unsafe extern "C" {
    /// The page with the hypercalls' stubs, of entry.s.
    static HYPERCALL_PAGE: [u8; PAGE_SIZE];
}

/// Has Xen fill the hypercall page, by the MSR that its CPUID leaves name.
pub(crate) fn init_hypercall_page() {
    let msr = core::arch::x86_64::__cpuid(0x4000_0002).ebx;
    let page = (&raw const HYPERCALL_PAGE).addr() as u64;
    // SAFETY: Xen says that this MSR takes the address of a page to fill with call stubs; entry.s reserves that page in
    // text, for this and nothing else.
    unsafe { Msr::new(msr).write(page) };
}

/// A hypercall on a structure that Xen reads.
fn call<T>(op: u32, cmd: u64, argument: &mut T) {
    let address = (&raw mut *argument).expose_provenance() as u64;
    // SAFETY: the callers below name operations that read a `T` and write no memory of this guest.
    let _ = unsafe { xen_sys::hypercall_2(op, cmd, address) };
}

/// Has the first frame of the grant table appear at [`GRANT_TABLE_GFN`].
pub(crate) fn map_grant_table() {
    let mut argument = xen_add_to_physmap {
        domid: DOMID_SELF,
        size: 0,
        space: XENMAPSPACE_GRANT_TABLE,
        idx: 0,
        gpfn: GRANT_TABLE_GFN,
    };
    let op = xen_sys::__HYPERVISOR_memory_op;
    call(op, XENMEM_ADD_TO_PHYSMAP, &mut argument);
}

/// Notifies the other end of an event channel.
pub(crate) fn notify(port: u32) {
    let mut argument = xen_sys::evtchn_send { port };
    let op = xen_sys::__HYPERVISOR_event_channel_op;
    call(op, u64::from(xen_sys::EVTCHNOP_send), &mut argument);
}

/// Lets others run on this CPU.
pub(crate) fn give_way() {
    let op = xen_sys::__HYPERVISOR_sched_op;
    call(op, u64::from(xen_sys::SCHEDOP_yield), &mut 0_u32);
}

/// The time stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: RDTSC is allowed in ring 0 and changes two registers.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Xen's debug port: what is written there comes out on its console, a line at a time.
struct DebugPort(PortWriteOnly<u8>);

impl Write for DebugPort {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: Xen takes the byte for its console; nothing else listens on this port.
            unsafe { self.0.write(byte) };
        }
        Ok(())
    }
}

/// Prints a line.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    let _ = writeln!(DebugPort(PortWriteOnly::new(0xe9)), "liar: {text}");
}

/// Prints a line and ends the domain.
pub(crate) fn end(text: fmt::Arguments<'_>) -> ! {
    print(text);
    loop {
        let mut argument = xen_sys::sched_shutdown {
            reason: xen_sys::SHUTDOWN_crash,
        };
        let op = xen_sys::__HYPERVISOR_sched_op;
        call(op, u64::from(xen_sys::SCHEDOP_shutdown), &mut argument);
    }
}
