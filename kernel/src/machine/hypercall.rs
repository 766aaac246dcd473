//! Hypercalls through the hypercall page, and the functions that need nothing else: the debug port, the last message,
//! the end of the domain.
//!
//! `xen-sys` 0.0.0-pre2 supplies the call sequence for up to four arguments, the
//! numbers and the event-channel structs; `mayfly_drivers::abi` what it lacks.
//! Its calls promise not to touch the stack although `call` pushes, so the
//! guest is compiled without a red zone (`-C no-redzone`).

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mayfly::last_words;
use mayfly::line::Line;
use mayfly_drivers::abi::{
    DOMID_SELF, HVMOP_GET_PARAM, PAGE_SIZE, XENMEM_MEMORY_MAP, xen_hvm_param, xen_memory_map,
    xencons_interface,
};
use mayfly_drivers::{Errno, HvmParam, SharedPage, ShutdownReason};
use x86_64::registers::model_specific::Msr;

use super::ram::shared_page;

/// Xen's CPUID leaves lie in steps of 0x100 from here (arch-x86/cpuid.h).
const CPUID_FIRST: u32 = 0x4000_0000;
const CPUID_LAST: u32 = 0x4001_0000;
/// Xen's debug port: bytes come out on its console, a line at a time.
const DEBUG_PORT: u16 = 0xe9;

/// Whether hypercalls can be made.
static HYPERCALL_PAGE_IS_FILLED: AtomicBool = AtomicBool::new(false);
/// The number of hypercalls so far.
static HYPERCALLS: AtomicU32 = AtomicU32::new(0);

/// Two-argument hypercall on a struct that Xen reads and may write.
///
/// # Safety
/// The hypercall page is set up, and `op`/`cmd` takes a pointer to a `T`
/// and reaches no other memory of the guest than what `T` names and the caller owns.
pub(super) unsafe fn call<T>(op: u32, cmd: u64, argument: &mut T) -> Result<u64, Errno> {
    // One vCPU, no interrupts: a plain increment.
    HYPERCALLS.store(
        HYPERCALLS.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
    let address = (&raw mut *argument).expose_provenance() as u64;
    // SAFETY: by this function's contract.
    let result = unsafe { xen_sys::hypercall_2(op, cmd, address) };
    u64::try_from(result).map_err(|_| Errno(i32::try_from(-result).unwrap_or(i32::MAX)))
}

/// The number of hypercalls so far.
pub(crate) fn hypercalls() -> u32 {
    HYPERCALLS.load(Ordering::Relaxed)
}

/// Finds Xen's CPUID leaves by their signature.
fn cpuid_base() -> Option<u32> {
    (CPUID_FIRST..CPUID_LAST).step_by(0x100).find(|&leaf| {
        let id = core::arch::x86_64::__cpuid(leaf);
        // "XenVMMXenVMM" in EBX, ECX, EDX.
        (id.ebx, id.ecx, id.edx) == (0x566e_6558, 0x6558_4d4d, 0x4d4d_566e)
    })
}

/// Has Xen fill the hypercall page. Returns `false` if this is not Xen.
pub(crate) fn init_hypercall_page() -> bool {
    unsafe extern "C" {
        static HYPERCALL_PAGE: [u8; PAGE_SIZE];
    }
    let Some(base) = cpuid_base() else {
        return false;
    };
    let msr = core::arch::x86_64::__cpuid(base + 2).ebx;
    let page = (&raw const HYPERCALL_PAGE).addr() as u64;
    // SAFETY: Xen says that this MSR takes the address of a page to fill with
    // call stubs; entry.s reserves that page in text, for this and nothing else.
    unsafe { Msr::new(msr).write(page) };
    HYPERCALL_PAGE_IS_FILLED.store(true, Ordering::Relaxed);
    true
}

/// `XENMEM_memory_map`: fills `buffer` with 20-byte E820 entries and returns how many.
pub(crate) fn memory_map(buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut map = xen_memory_map {
        nr_entries: u32::try_from(buffer.len() / 20).unwrap_or(0),
        pad: 0,
        buffer: buffer.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: Xen writes at most `nr_entries` entries of 20 bytes into `buffer`.
    unsafe { call(xen_sys::__HYPERVISOR_memory_op, XENMEM_MEMORY_MAP, &mut map)? };
    Ok(map.nr_entries as usize)
}

/// `SCHEDOP_shutdown` with `SHUTDOWN_suspend`. Returns when the guest runs again, in this domain or another one.
pub(super) fn suspend() {
    let mut argument = xen_sys::sched_shutdown {
        reason: xen_sys::SHUTDOWN_suspend,
    };
    // SAFETY: Xen reads the struct. What the toolstack saves and restores is all of the guest's memory and registers.
    let _ = unsafe {
        call(
            xen_sys::__HYPERVISOR_sched_op,
            u64::from(xen_sys::SCHEDOP_shutdown),
            &mut argument,
        )
    };
}

/// Ends the domain.
pub(crate) fn shutdown(reason: ShutdownReason) -> ! {
    while HYPERCALL_PAGE_IS_FILLED.load(Ordering::Relaxed) {
        let mut argument = xen_sys::sched_shutdown {
            reason: reason as u32,
        };
        // SAFETY: Xen reads the struct.
        let _ = unsafe {
            call(
                xen_sys::__HYPERVISOR_sched_op,
                u64::from(xen_sys::SCHEDOP_shutdown),
                &mut argument,
            )
        };
    }
    loop {
        x86_64::instructions::hlt();
    }
}

/// Writes to Xen's debug port.
pub(crate) fn debug_write(bytes: &[u8]) {
    let mut port = x86_64::instructions::port::PortWriteOnly::<u8>::new(DEBUG_PORT);
    for &byte in bytes {
        // SAFETY: Xen takes the byte for its console; nothing else listens on this port.
        unsafe { port.write(byte) };
    }
}

/// Prints a line on Xen's debug port.
pub(crate) fn debug_print(text: fmt::Arguments<'_>) {
    debug_write(Line::new(text).as_bytes());
}

/// An HVM parameter's value.
pub(super) fn hvm_param(param: HvmParam) -> Result<u64, Errno> {
    let mut argument = xen_hvm_param {
        domid: DOMID_SELF,
        pad: 0,
        index: param as u32,
        value: 0,
    };
    // SAFETY: Xen reads the struct and writes `value`.
    unsafe { call(xen_sys::__HYPERVISOR_hvm_op, HVMOP_GET_PARAM, &mut argument)? };
    Ok(argument.value)
}

/// Notifies the other end of an event channel.
pub(super) fn evtchn_send(port: u32) -> Result<(), Errno> {
    let mut argument = xen_sys::evtchn_send { port };
    // SAFETY: Xen reads the struct.
    unsafe {
        call(
            xen_sys::__HYPERVISOR_event_channel_op,
            u64::from(xen_sys::EVTCHNOP_send),
            &mut argument,
        )?
    };
    Ok(())
}

/// A ring for last words, and its port; `None` if there is no ring, or no hypercall can be made.
///
/// Xen is asked for it again, so it does not depend on the state of the ring's driver.
fn last_ring(page: HvmParam, port: HvmParam) -> Option<(SharedPage, u32)> {
    if !HYPERCALL_PAGE_IS_FILLED.load(Ordering::Relaxed) {
        return None;
    }
    let pfn = hvm_param(page).ok()?;
    let port = u32::try_from(hvm_param(port).ok()?).ok()?;
    if port == 0 || pfn == 0 || pfn >= 1 << 20 {
        return None;
    }
    // SAFETY: below 4 GiB and not page 0, by the test above, and Xen says that it is a ring. Its driver may have a
    // handle too, but the driver's code does not run again.
    Some((unsafe { shared_page(pfn * PAGE_SIZE as u64) }, port))
}

/// Puts a crash line into the console ring, as much as fits, and wakes its reader.
pub(crate) fn console_last_words(bytes: &[u8]) {
    let Some((ring, port)) = last_ring(HvmParam::ConsolePfn, HvmParam::ConsoleEvtchn) else {
        return;
    };
    let consumed = ring.load_acquire(xencons_interface::OUT_CONS);
    let mut produced = ring.load_acquire(xencons_interface::OUT_PROD);
    for &byte in bytes {
        if produced.wrapping_sub(consumed) >= xencons_interface::OUT_SIZE {
            break;
        }
        let at = (produced % xencons_interface::OUT_SIZE) as usize;
        ring.copy_in(xencons_interface::OUT + at, &[byte]);
        produced = produced.wrapping_add(1);
    }
    ring.store_release(xencons_interface::OUT_PROD, produced);
    let _ = evtchn_send(port);
}

/// Writes the reason for which the domain ends to xenstore, and waits until xenstored has taken it, at most 2^32 ticks
/// of the TSC: one to four seconds.
pub(crate) fn xenstore_last_words(text: &[u8]) {
    const PATIENCE: u64 = 1 << 32;
    let Some((ring, port)) = last_ring(HvmParam::StorePfn, HvmParam::StoreEvtchn) else {
        return;
    };
    let start = tsc();
    last_words::write(
        &ring,
        text,
        &mut || {
            let _ = evtchn_send(port);
        },
        &mut || {
            give_way();
            tsc().wrapping_sub(start) < PATIENCE
        },
    );
}

/// `SCHEDOP_yield`: lets others run on this CPU.
fn give_way() {
    // SAFETY: Xen takes no argument.
    let _ = unsafe {
        call(
            xen_sys::__HYPERVISOR_sched_op,
            u64::from(xen_sys::SCHEDOP_yield),
            &mut 0_u32,
        )
    };
}

/// The time stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: RDTSC is allowed in ring 0 and changes two registers.
    unsafe { core::arch::x86_64::_rdtsc() }
}
