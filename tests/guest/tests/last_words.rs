//! The reason for its end that a guest writes to xenstore, with a xenstored that reads it byte by byte.
#![allow(clippy::unwrap_used, reason = "test code")]

use mayfly::last_words::{TEXT_MAX, write};
use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::xenstore_domain_interface as ring;

/// A xenstored that takes `pace` bytes in each wait of the guest, and answers when it has the whole request.
struct Store<'p> {
    page: &'p SharedPage,
    pace: u32,
    taken: Vec<u8>,
    waits: u32,
}

impl Store<'_> {
    fn run(&mut self) -> bool {
        let mut consumed = self.page.load_acquire(ring::REQ_CONS);
        let produced = self.page.load_acquire(ring::REQ_PROD);
        for _ in 0..self.pace.min(produced.wrapping_sub(consumed)) {
            let mut byte = [0];
            let at = (consumed % ring::RING_SIZE) as usize;
            self.page.copy_out(ring::REQ + at, &mut byte);
            self.taken.extend(byte);
            consumed = consumed.wrapping_add(1);
        }
        self.page.store_release(ring::REQ_CONS, consumed);
        let is_whole = self.taken.last() == Some(&b'.');
        if is_whole && consumed == produced {
            let answered = self.page.load_acquire(ring::RSP_PROD);
            self.page
                .store_release(ring::RSP_PROD, answered.wrapping_add(19));
        }
        self.waits += 1;
        self.waits < 10_000
    }
}

fn told(start: u32, held: u32, pace: u32, text: &[u8]) -> (bool, Vec<u8>, u32) {
    let page = SharedPage::leak();
    page.store_release(ring::REQ_CONS, start.wrapping_sub(held));
    page.store_release(ring::REQ_PROD, start);
    let mut store = Store {
        page: &page,
        pace,
        taken: Vec::new(),
        waits: 0,
    };
    let mut notified = 0;
    let is_told = write(&page, text, &mut || notified += 1, &mut || store.run());
    (is_told, store.taken, notified)
}

#[test]
fn the_request_is_as_xenstored_reads_it() {
    for (start, held, pace) in [(0, 0, 4096), (u32::MAX - 5, 0, 7), (1000, 1024, 50)] {
        let (is_told, taken, notified) = told(start, held, pace, b"command line: x.");
        assert!(is_told && notified > 0, "{start}");
        let request = &taken[held as usize..];
        let numbers: Vec<u32> = request[..16]
            .chunks(4)
            .map(|number| u32::from_le_bytes(number.try_into().unwrap()))
            .collect();
        assert_eq!(numbers, [11, u32::MAX, 0, 18 + 16], "{start}");
        assert_eq!(&request[16..], b"data/mayfly/error\0command line: x.");
    }
}

#[test]
fn a_long_text_is_cut() {
    let text = [b'.'; 5000];
    let (is_told, taken, _) = told(0, 0, 100, &text);
    assert!(is_told);
    assert_eq!(taken.len(), 16 + "data/mayfly/error\0".len() + TEXT_MAX);
}

#[test]
fn a_store_that_does_not_answer_is_not_waited_for_without_end() {
    // xenstored takes nothing: the ring is empty, or full, or the index is invalid.
    for held in [0, 1024, 70_000] {
        let (is_told, taken, _) = told(100_000, held, 0, b"why.");
        assert!(!is_told && taken.is_empty());
    }
}
