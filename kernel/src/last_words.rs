//! Writes the reason for which a guest ends to `data/mayfly/error` in xenstore, where its owner finds it with any
//! toolstack.
//!
//! The request goes straight into the ring, without the driver: the driver may have been interrupted, and there may be
//! no heap for it. (If the driver had published a part of a request, xenstored takes this one for the rest of it. Then
//! the reason is lost, and nothing else happens.) The caller bounds every wait.

use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::{xenstore_domain_interface as ring, xs, xsd_sockmsg};
use zerocopy::IntoBytes;

/// Relative to the domain's own directory; the NUL ends it in the request (docs/misc/xenstore.txt, WRITE).
const PATH: &[u8] = b"data/mayfly/error\0";
/// The longest text in bytes. The whole request has room in an empty ring.
pub const TEXT_MAX: usize = 768;

/// Writes `text` to the domain's `data/mayfly/error` through the xenstore ring at `page`, and waits until xenstored
/// has answered.
///
/// `notify` sends an event on the ring's event channel. `wait` lets time pass, and returns `false` when the time is up.
/// Returns whether the answer has come.
pub fn write(
    page: &SharedPage,
    text: &[u8],
    notify: &mut dyn FnMut(),
    wait: &mut dyn FnMut() -> bool,
) -> bool {
    let text = text.get(..TEXT_MAX).unwrap_or(text);
    let header = xsd_sockmsg {
        type_: xs::WRITE,
        req_id: u32::MAX,
        tx_id: 0,
        len: u32::try_from(PATH.len() + text.len()).unwrap_or(0),
    };
    let before = page.load_acquire(ring::RSP_PROD);
    let mut produced = page.load_acquire(ring::REQ_PROD);
    for part in [header.as_bytes(), PATH, text] {
        for byte in part {
            // The ring is full, or xenstored's index is invalid: the wait ends with its bound in either case.
            while produced.wrapping_sub(page.load_acquire(ring::REQ_CONS)) >= ring::RING_SIZE {
                publish(page, produced, notify);
                if !wait() {
                    return false;
                }
            }
            let at = (produced % ring::RING_SIZE) as usize;
            page.copy_in(ring::REQ + at, core::slice::from_ref(byte));
            produced = produced.wrapping_add(1);
        }
    }
    publish(page, produced, notify);
    loop {
        // Earlier answers are skipped, so that there is room for the next.
        let answered = page.load_acquire(ring::RSP_PROD);
        page.store_release(ring::RSP_CONS, answered);
        if page.load_acquire(ring::REQ_CONS) == produced && answered != before {
            return true;
        }
        if !wait() {
            return false;
        }
    }
}

fn publish(page: &SharedPage, produced: u32, notify: &mut dyn FnMut()) {
    page.store_release(ring::REQ_PROD, produced);
    notify();
}
