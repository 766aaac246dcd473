//! `struct xenstore_domain_interface` (Xen 4.17 public/io/xs_wire.h): two rings of bytes in a page that the domain can
//! write at any time.

use mayfly_drivers::SharedPage;

/// `XENSTORE_RING_SIZE`.
pub(super) const SIZE: usize = 1024;
const REQUESTS: usize = 0;
const ANSWERS: usize = 1024;
const REQ_CONS: usize = 2048;
const REQ_PROD: usize = 2052;
const RSP_CONS: usize = 2056;
const RSP_PROD: usize = 2060;
const FEATURES: usize = 2064;
const CONNECTION: usize = 2068;
const ERROR: usize = 2072;

/// `XENSTORE_SERVER_FEATURE_RECONNECTION` and `_ERROR`.
const OFFERED: u32 = 1 | 2;
/// `XENSTORE_CONNECTED` and `XENSTORE_RECONNECT`.
const CONNECTED: u32 = 0;
const RECONNECT: u32 = 1;

/// The reason for which a ring is shut (`XENSTORE_ERROR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its indices differ by more than the ring's size.
    Indices = 2,
    /// A request is longer than the protocol allows.
    Protocol = 3,
}

/// Empties both rings, as INTRODUCE does, and offers the server's features. The last word is the one that a domain waits
/// for before it uses the rings.
pub(super) fn reset(page: &SharedPage) {
    for offset in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, ERROR] {
        page.store_release(offset, 0);
    }
    page.store_release(FEATURES, OFFERED);
    page.store_release(CONNECTION, CONNECTED);
}

/// Marks a page as one whose rings are to be emptied: it offers no features.
pub(super) fn announce_reset(page: &SharedPage) {
    page.store_release(FEATURES, 0);
}

/// Completes a [`reset`] of which [`announce_reset`] was done, and perhaps more.
pub(super) fn complete_reset(page: &SharedPage) {
    match page.load_acquire(FEATURES) {
        0 => reset(page),
        _ => page.store_release(CONNECTION, CONNECTED),
    }
}

/// Returns whether the domain asks for a new connection, which [`reset`] gives it.
pub(super) fn wants_reset(page: &SharedPage) -> bool {
    page.load_acquire(CONNECTION) == RECONNECT
}

/// Writes the reason for which the ring is shut into its error word.
pub(super) fn shut(page: &SharedPage, fault: Fault) {
    page.store_release(ERROR, fault as u32);
}

/// Returns whether a predecessor has shut the ring.
pub(super) fn is_shut(page: &SharedPage) -> bool {
    page.load_acquire(ERROR) != 0
}

/// Returns the number of bytes between two indices. The domain may have written either of them.
fn between(consumer: u32, producer: u32) -> Result<usize, Fault> {
    let bytes = usize::try_from(producer.wrapping_sub(consumer)).unwrap_or(usize::MAX);
    match bytes <= SIZE {
        true => Ok(bytes),
        false => Err(Fault::Indices),
    }
}

/// Copies all bytes of requests out of the ring. Returns their number, and the index behind them for [`consume`].
pub(super) fn read(page: &SharedPage, into: &mut [u8; SIZE]) -> Result<(usize, u32), Fault> {
    let consumer = page.load_acquire(REQ_CONS);
    let producer = page.load_acquire(REQ_PROD);
    let bytes = between(consumer, producer)?;
    let at = usize::try_from(consumer).unwrap_or(0) % SIZE;
    let (head, tail) = into.split_at_mut(bytes.min(SIZE - at));
    page.copy_out(REQUESTS + at, head);
    if let Some(tail) = tail.get_mut(..bytes - head.len()) {
        page.copy_out(REQUESTS, tail);
    }
    Ok((bytes, producer))
}

/// Takes the bytes up to an index out of the ring. From here on the domain may overwrite them.
pub(super) fn consume(page: &SharedPage, consumer: u32) {
    page.store_fence(REQ_CONS, consumer);
}

/// Copies as many bytes into the ring as it has room for. Returns their number, and the index behind them for
/// [`produce`].
pub(super) fn write(page: &SharedPage, bytes: &[u8]) -> Result<(usize, u32), Fault> {
    let consumer = page.load_acquire(RSP_CONS);
    let producer = page.load_acquire(RSP_PROD);
    let room = SIZE - between(consumer, producer)?;
    let bytes = bytes.get(..room).unwrap_or(bytes);
    let at = usize::try_from(producer).unwrap_or(0) % SIZE;
    let (head, tail) = bytes.split_at(bytes.len().min(SIZE - at));
    page.copy_in(ANSWERS + at, head);
    page.copy_in(ANSWERS, tail);
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    Ok((bytes.len(), producer.wrapping_add(length)))
}

/// Shows the bytes up to an index to the domain.
pub(super) fn produce(page: &SharedPage, producer: u32) {
    page.store_fence(RSP_PROD, producer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_around_the_end() {
        let page = SharedPage::leak();
        let mut into = [0; SIZE];
        for round in 0..50_u32 {
            let start = 990 + round;
            page.store_release(RSP_CONS, start);
            page.store_release(RSP_PROD, start);
            let written = |bytes: &[u8]| {
                let (length, producer) = write(&page, bytes).unwrap();
                produce(&page, producer);
                length
            };
            assert_eq!(written(&[7; 100]), 100);
            assert_eq!(written(&[8; 1000]), 924);
            assert_eq!(written(&[8; 1000]), 0);
            page.store_release(REQ_CONS, start);
            page.store_release(REQ_PROD, start + 100);
            for byte in 0..100 {
                let at = usize::try_from(start + byte).unwrap() % SIZE;
                page.copy_in(at, &[u8::try_from(byte).unwrap()]);
            }
            assert_eq!(read(&page, &mut into), Ok((100, start + 100)));
            consume(&page, start + 100);
            assert!(
                into[..100]
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| at == usize::from(*byte))
            );
            assert_eq!(read(&page, &mut into), Ok((0, start + 100)));
        }
    }

    #[test]
    fn a_reset_is_completed_from_any_step() {
        let page = SharedPage::leak();
        let start = || {
            page.store_release(CONNECTION, RECONNECT);
            page.store_release(REQ_PROD, 5);
            page.store_release(FEATURES, OFFERED);
            announce_reset(&page);
        };
        let is_done = || page.load_acquire(CONNECTION) == CONNECTED;
        start();
        complete_reset(&page);
        assert!(is_done() && page.load_acquire(REQ_PROD) == 0);
        start();
        reset(&page);
        // The domain has used the ring since.
        page.store_release(REQ_PROD, 7);
        complete_reset(&page);
        assert!(is_done() && page.load_acquire(REQ_PROD) == 7);
    }

    #[test]
    fn lying_indices_are_seen() {
        let page = SharedPage::leak();
        page.store_release(REQ_PROD, 1025);
        page.store_release(RSP_PROD, u32::MAX);
        assert_eq!(read(&page, &mut [0; SIZE]), Err(Fault::Indices));
        assert_eq!(write(&page, &[1]), Err(Fault::Indices));
    }
}
