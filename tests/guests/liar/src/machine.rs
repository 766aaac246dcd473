//! The machine: the entry, the pages of the network, and the end.

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;
use core::ptr::NonNull;

use mayfly_boot::exceptions::{self, ExceptionFrame};
use mayfly_boot::layout;
use mayfly_boot::start_info::{PhysicalMemory, StartInfo};
use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::PAGE_SIZE;
use mayfly_handoff::network::{Preconnected, RINGS};
use mayfly_handoff::sizing::RX_BUFFERS_MAX;

use crate::hypercall::{GRANT_TABLE_GFN, end, init_hypercall_page, map_grant_table};
use crate::lies::{Liar, Pages};

core::arch::global_asm!(
    ".macro function name",
    ".global \\name",
    "\\name:",
    ".endm",
    include_str!("../../../../kernel/src/machine/mem.s"),
    options(att_syntax)
);

/// The drivers' crate asks for an allocator. What this guest uses of it does not allocate.
struct NoHeap;

// SAFETY: it gives no memory.
unsafe impl GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static NO_HEAP: NoHeap = NoHeap;

/// The builder's data. The guest reads it once, before it writes anything.
struct BuilderMemory;

impl PhysicalMemory<'static> for BuilderMemory {
    fn bytes(&self, address: u64, len: usize) -> Option<&'static [u8]> {
        let end = address.checked_add(len as u64)?;
        let image = layout::image();
        let in_image = address < image.end && end > image.start;
        if address < PAGE_SIZE as u64 || end > 1 << 32 || in_image {
            return None;
        }
        let base = core::ptr::with_exposed_provenance(usize::try_from(address).ok()?);
        // SAFETY: mapped by the static page tables and outside the image. The guest writes to the network's pages and
        // the grant table only, where the builder leaves no structure.
        Some(unsafe { core::slice::from_raw_parts(base, len) })
    }
}

/// Called by entry.s, once, on the boot stack.
#[unsafe(no_mangle)]
extern "C" fn mayfly_main(start_info: u32, _entry_tsc: u64, _long_mode_tsc: u64) -> ! {
    exceptions::init();
    init_hypercall_page();
    let Ok(info) = StartInfo::parse(&BuilderMemory, start_info.into()) else {
        end(format_args!("no start info"));
    };
    let mut modules = info.modules().filter_map(|range| {
        let length = usize::try_from(range.end - range.start).ok()?;
        BuilderMemory.bytes(range.start, length)
    });
    let Some(Ok(network)) = modules
        .find(|module| Preconnected::is_one(module))
        .map(Preconnected::parse)
    else {
        end(format_args!("no connected network"));
    };
    let words = info.cmdline.split(|&byte| byte == b' ');
    let seed = words.filter_map(|word| word.strip_prefix(b"seed=")).next();
    let seed = seed.and_then(|digits| core::str::from_utf8(digits).ok()?.parse().ok());
    let mut pages = [const { None }; RINGS + RX_BUFFERS_MAX];
    for (gfn, place) in (network.first.0..).zip(pages.iter_mut().take(network.pages())) {
        *place = page(gfn);
    }
    let [Some(tx), Some(rx), buffers @ ..] = pages else {
        end(format_args!("the network has no pages"));
    };
    map_grant_table();
    let Some(grants) = page(GRANT_TABLE_GFN) else {
        end(format_args!("no grant table"));
    };
    let pages = Pages {
        tx,
        rx,
        buffers,
        grants,
    };
    Liar::new(network, pages, seed.unwrap_or(1)).lie()
}

/// The page of a frame. It is called once for each.
fn page(gfn: u64) -> Option<SharedPage> {
    let address = usize::try_from(gfn.checked_mul(PAGE_SIZE as u64)?).ok()?;
    let base = NonNull::new(core::ptr::with_exposed_provenance_mut(address))?;
    // SAFETY: the page tables map the first 4 GiB. The builder has left the network's pages to the guest, Xen has put
    // the grant table where nothing was, no Rust object lies in either, and each is asked for once.
    Some(unsafe { SharedPage::from_raw(base) })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    end(format_args!("{info}"))
}

/// Called by entry.s with the registers of whatever was interrupted.
#[unsafe(no_mangle)]
extern "C" fn mayfly_exception(frame: &ExceptionFrame) -> ! {
    end(format_args!("{frame}"))
}

/// The precompiled `alloc` refers to the unwinder; with `panic = "abort"` nothing ever calls it.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    end(format_args!("unwinding"))
}
