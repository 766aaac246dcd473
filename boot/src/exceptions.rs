//! Exception handlers: each prints one line that says where, and ends the domain.
//!
//! There are no interrupts in this guest, so every exception that the CPU has goes to one
//! handler on one IST stack (the code that was interrupted may own a red zone
//! below its stack pointer, or have no stack left). Other vectors are absent: one of them
//! would be a #GP, and so a line of its own.

use core::fmt;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::{Entry, InterruptDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::layout;

unsafe extern "C" {
    /// The 32 stubs of entry.s, 16 bytes each.
    static exception_stubs: [[u8; 16]; 32];
}

/// The frame that the stubs of entry.s leave on the stack, lowest address first.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "the registers' names say it")]
pub struct ExceptionFrame {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}
const _: () = assert!(size_of::<ExceptionFrame>() == 22 * 8);

impl fmt::Display for ExceptionFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.vector {
            0 => "#DE divide error",
            1 => "#DB debug",
            2 => "NMI",
            3 => "#BP breakpoint",
            6 => "#UD invalid opcode",
            8 => "#DF double fault",
            12 => "#SS stack fault",
            13 => "#GP general protection",
            14 => "#PF page fault",
            16 => "#MF x87 error",
            18 => "#MC machine check",
            19 => "#XM SSE error",
            _ => "exception",
        };
        write!(
            f,
            "{name} (vector {} error {:#x}) at rip {:#x}",
            self.vector, self.error_code, self.rip
        )?;
        if self.vector == 14 {
            let address = x86_64::registers::control::Cr2::read_raw();
            write!(f, " address {address:#x}")?;
        }
        write!(
            f,
            " rsp {:#x} rflags {:#x} rax {:#x} rbx {:#x} rcx {:#x} rdx {:#x} rsi {:#x} rdi {:#x} \
             rbp {:#x} r8 {:#x} r9 {:#x} r10 {:#x} r11 {:#x} r12 {:#x} r13 {:#x} r14 {:#x} r15 {:#x}",
            self.rsp,
            self.rflags,
            self.rax,
            self.rbx,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.rbp,
            self.r8,
            self.r9,
            self.r10,
            self.r11,
            self.r12,
            self.r13,
            self.r14,
            self.r15,
        )
    }
}

struct Tables {
    gdt: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    tss: SegmentSelector,
}

static TSS: Once<TaskStateSegment> = Once::new();
static TABLES: Once<Tables> = Once::new();
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads the descriptor tables; from here on an exception is reported.
///
/// The binary defines `extern "C" fn mayfly_exception(&ExceptionFrame) -> !`.
pub fn init() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        tss.interrupt_stack_table[0] = VirtAddr::new(layout::exception_stack_top());
        tss
    });
    let tables = TABLES.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let tss = gdt.append(Descriptor::tss_segment(tss));
        Tables {
            gdt,
            code,
            data,
            tss,
        }
    });
    tables.gdt.load();
    // SAFETY: the selector names the 64-bit code segment of the GDT just loaded.
    unsafe { CS::set_reg(tables.code) };
    // SAFETY: the selector names the data segment of that GDT.
    unsafe { SS::set_reg(tables.data) };
    // SAFETY: the selector names the TSS of that GDT, which is static.
    unsafe { load_tss(tables.tss) };
    // Its entries take the code segment that is loaded now.
    IDT.call_once(idt).load();
}

/// Points an entry at its stub, on the exception stack. (Inlined, it would be 3 KiB for all of them.)
#[inline(never)]
fn point<F>(entry: &mut Entry<F>, vector: u64) {
    let stubs = (&raw const exception_stubs).addr() as u64;
    // SAFETY: the address is a stub of entry.s, which saves the
    // registers and never returns, so the handler's type does not matter.
    let options = unsafe { entry.set_handler_addr(VirtAddr::new(stubs + 16 * vector)) };
    // SAFETY: IST slot 0 was filled in `init` with the top of a stack that is used for nothing else.
    unsafe { options.set_stack_index(0) };
}

fn idt() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    macro_rules! set {
        ($($field:ident: $vector:expr),* $(,)?) => {$( point(&mut idt.$field, $vector); )*};
    }
    set! {
        divide_error: 0, debug: 1, non_maskable_interrupt: 2, breakpoint: 3, overflow: 4,
        bound_range_exceeded: 5, invalid_opcode: 6, device_not_available: 7, double_fault: 8,
        invalid_tss: 10, segment_not_present: 11, stack_segment_fault: 12,
        general_protection_fault: 13, page_fault: 14, x87_floating_point: 16, alignment_check: 17,
        machine_check: 18, simd_floating_point: 19, virtualization: 20, cp_protection_exception: 21,
        hv_injection_exception: 28, vmm_communication_exception: 29, security_exception: 30,
    }
    idt
}
