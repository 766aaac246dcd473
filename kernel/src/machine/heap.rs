//! The heap, for objects whose number or size is not known at boot. It is small, and no packet needs it.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use linked_list_allocator::Heap;
use spin::Mutex;

struct GuestHeap(Mutex<Heap>);

#[global_allocator]
static HEAP: GuestHeap = GuestHeap(Mutex::new(Heap::empty()));

// SAFETY: `Heap` gives out disjoint blocks of the region that [`init`] gave
// it, aligned as asked; the lock makes each call exclusive.
unsafe impl GlobalAlloc for GuestHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.0.lock().allocate_first_fit(layout) {
            Ok(block) => block.as_ptr(),
            Err(()) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: by this function's contract the block came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(block, layout) }
        }
    }
}

/// Makes `size` bytes at `start` the heap.
///
/// # Safety
/// The bytes are RAM that is used for nothing else from now on, and this is the only call.
pub(super) unsafe fn init(start: *mut u8, size: usize) {
    // SAFETY: by this function's contract.
    unsafe { HEAP.0.lock().init(start, size) };
}

/// The size of the heap and its free bytes.
pub(super) fn usage() -> (u64, u64) {
    let heap = HEAP.0.lock();
    (heap.size() as u64, heap.free() as u64)
}
