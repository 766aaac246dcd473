//! The console ring, for output only.
//!
//! Source: Xen 4.17 public/io/console.h. Bytes that do not fit are dropped and counted, so a console daemon that does
//! not read never blocks the guest.

use crate::abi::xencons_interface as ring;
use crate::{EventPort, Hypervisor, SharedPage};

/// The output half of a console.
#[derive(Debug)]
pub struct Console<'h, H: Hypervisor> {
    xen: &'h H,
    page: SharedPage,
    port: EventPort,
    dropped: u64,
}

impl<'h, H: Hypervisor> Console<'h, H> {
    /// A console over the ring that the HVM parameters name.
    pub fn new(xen: &'h H, page: SharedPage, port: EventPort) -> Self {
        Self {
            xen,
            page,
            port,
            dropped: 0,
        }
    }

    /// Goes on with the port of the new domain in which the guest was resumed. The ring's page stays.
    pub fn resumed(&mut self, port: EventPort) {
        self.port = port;
    }

    /// Writes as many bytes as fit, with one notification at most.
    pub fn write(&mut self, bytes: &[u8]) {
        let page = &self.page;
        // Read each time: another writer (a panic handler) may have used the ring meanwhile.
        let prod = page.load_acquire(ring::OUT_PROD);
        let used = prod.wrapping_sub(page.load_acquire(ring::OUT_CONS));
        // An invalid consumer index counts as a full ring.
        let space = ring::OUT_SIZE.saturating_sub(used) as usize;
        let (bytes, rest) = bytes.split_at(bytes.len().min(space));
        self.dropped += rest.len() as u64;
        if bytes.is_empty() {
            return;
        }
        let at = (prod % ring::OUT_SIZE) as usize;
        let (head, tail) = bytes.split_at(bytes.len().min(ring::OUT_SIZE as usize - at));
        page.copy_in(ring::OUT + at, head);
        page.copy_in(ring::OUT, tail);
        #[allow(clippy::cast_possible_truncation, reason = "at most one ring")]
        page.store_release(ring::OUT_PROD, prod.wrapping_add(bytes.len() as u32));
        // This fails if the other end is not bound; the bytes stay in the ring.
        let _ = self.xen.evtchn_send(self.port);
    }

    /// The number of bytes dropped so far because the ring was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeXen;
    use crate::{Gfn, HvmParam};
    use std::vec;

    fn console(xen: &FakeXen) -> Console<'_, FakeXen> {
        let gfn = Gfn(xen.hvm_param(HvmParam::ConsolePfn).unwrap());
        let port = xen.hvm_param(HvmParam::ConsoleEvtchn).unwrap();
        let port = EventPort::try_new(u32::try_from(port).unwrap()).unwrap();
        Console::new(xen, xen.special_page(gfn).unwrap(), port)
    }

    fn sends(xen: &FakeXen) -> u64 {
        xen.with(|world| world.machine.counts.evtchn_send)
    }

    #[test]
    fn what_fits_is_written_and_the_rest_is_counted() {
        let xen = FakeXen::new();
        let mut console = console(&xen);
        let page = xen.with(|world| world.machine.console());
        // Free-running indices that wrap in the ring and at 2^32.
        for start in [0, 2000, u32::MAX - 1000] {
            page.store_release(ring::OUT_PROD, start);
            page.store_release(ring::OUT_CONS, start);
            let text = vec![b'x'; 3000];
            let (before, dropped) = (sends(&xen), console.dropped());
            console.write(&text[..1500]);
            console.write(&text[..1500]);
            console.write(b"nobody reads");
            assert_eq!(sends(&xen), before + 2, "one for each write that wrote");
            assert_eq!(console.dropped() - dropped, 952 + 12);
            assert_eq!(page.load_acquire(ring::OUT_PROD), start.wrapping_add(2048));
            let mut out = vec![0; 2048];
            page.copy_out(ring::OUT, &mut out);
            assert_eq!(out, text[..2048]);
            // Neither the input ring nor the indices before the output's were touched.
            let mut input = vec![0; 1024];
            page.copy_out(0, &mut input);
            assert_eq!(input, [0; 1024]);
            assert_eq!(page.load64(3072), 0);
            page.zero();
        }
    }

    #[test]
    fn an_index_out_of_range_is_a_full_ring() {
        let xen = FakeXen::new();
        let mut console = console(&xen);
        let page = xen.with(|world| world.machine.console());
        page.store_release(ring::OUT_CONS, 5);
        console.write(b"text");
        assert_eq!((console.dropped(), sends(&xen)), (4, 0));
    }

    #[test]
    fn whatever_the_indices_are_nothing_is_overrun() {
        let xen = FakeXen::new();
        let mut console = console(&xen);
        let page = xen.with(|world| world.machine.console());
        let values = [0, 1, 5, 2047, 2048, 2049, 1 << 31, u32::MAX - 3, u32::MAX];
        for prod in values {
            for cons in values {
                page.zero();
                page.store_release(ring::OUT_PROD, prod);
                page.store_release(ring::OUT_CONS, cons);
                let (before, used) = (console.dropped(), prod.wrapping_sub(cons));
                console.write(&[b'x'; 3000]);
                let fits = 2048_u32.saturating_sub(used);
                assert_eq!(console.dropped() - before, u64::from(3000 - fits));
                assert_eq!(page.load_acquire(ring::OUT_PROD), prod.wrapping_add(fits));
                assert_eq!(page.load_acquire(ring::OUT_CONS), cons, "it is not ours");
                let mut all = vec![0; 4096];
                page.copy_out(0, &mut all);
                let written = all.iter().filter(|&&byte| byte == b'x').count();
                let beyond = all[..1024].iter().chain(&all[3072..3080]);
                assert!(beyond.into_iter().all(|&byte| byte == 0));
                assert!(written as u64 >= u64::from(fits), "{prod} {cons}");
            }
        }
        // It goes on when the index is right again.
        page.store_release(ring::OUT_PROD, 7);
        page.store_release(ring::OUT_CONS, 7);
        let before = console.dropped();
        console.write(b"text");
        assert_eq!(console.dropped(), before);
    }
}
