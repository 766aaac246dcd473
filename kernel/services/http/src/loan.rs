//! Memory that a connection borrows: for an answer that is composed for one request, or for a head that is longer than
//! the receive buffer.
//!
//! All connections together have few loans, so that many clients cannot take much memory. A new loan is always granted:
//! if all are in use, the oldest is taken back. A client that reads its answer promptly returns its loan soon, so the
//! clients that lose a loan are slow ones.

use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Ref, RefCell};

/// The greatest number of loans at a time.
pub const LOANS: usize = 4;

/// The bytes of a loan; `None` when it was taken back.
type Bytes = RefCell<Option<Vec<u8>>>;

/// The loans of all connections of a server.
#[derive(Debug, Default)]
pub(super) struct Loans {
    /// The current loans with their serial numbers.
    made: [(u64, Weak<Bytes>); LOANS],
    last: u64,
}

/// Borrowed memory. Dropping it returns the memory.
#[derive(Debug)]
pub(super) struct Loan(Rc<Bytes>);

impl Loans {
    /// Lends room for `length` bytes; `None` when memory is exhausted, or when all loans are being read.
    pub(super) fn lend(&mut self, length: usize) -> Option<Loan> {
        let is_free = |loan: &Weak<Bytes>| match loan.upgrade() {
            None => true,
            Some(loan) => loan.try_borrow_mut().is_ok(),
        };
        let oldest = (self.made.iter_mut())
            .filter(|(_, loan)| is_free(loan))
            .min_by_key(|(number, loan)| (loan.strong_count() > 0, *number))?;
        if let Some(loan) = oldest.1.upgrade() {
            *loan.try_borrow_mut().ok()? = None;
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).ok()?;
        let loan = Rc::new(RefCell::new(Some(bytes)));
        self.last = self.last.wrapping_add(1);
        *oldest = (self.last, Rc::downgrade(&loan));
        Some(Loan(loan))
    }
}

impl Loan {
    /// Whether the loan was taken back.
    pub(super) fn is_lost(&self) -> bool {
        self.0.try_borrow().is_ok_and(|bytes| bytes.is_none())
    }

    /// The bytes written so far; `None` when the loan was taken back.
    pub(super) fn bytes(&self) -> Option<Ref<'_, [u8]>> {
        let bytes = self.0.try_borrow().ok()?;
        Ref::filter_map(bytes, |bytes| bytes.as_deref()).ok()
    }

    /// Appends as many bytes as fit. Returns their number; `None` when the loan was taken back.
    pub(super) fn push(&self, more: &[u8]) -> Option<usize> {
        let mut bytes = self.0.try_borrow_mut().ok()?;
        let bytes = bytes.as_mut()?;
        let length = more.len().min(bytes.capacity() - bytes.len());
        bytes.extend_from_slice(more.get(..length)?);
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn the_oldest_makes_way_and_what_is_read_does_not() {
        let mut loans = Loans::default();
        let held: Vec<Loan> = (0..LOANS).map(|_| loans.lend(8).unwrap()).collect();
        assert_eq!(held[0].push(b"0123456789"), Some(8));
        assert_eq!(held[0].push(b"x"), Some(0));
        let read = held[0].bytes().unwrap();
        // The oldest is being read, so the next one goes.
        let fifth = loans.lend(8).unwrap();
        assert!(!held[0].is_lost() && held[1].is_lost() && !held[2].is_lost());
        assert_eq!(
            (held[1].push(b"x"), held[1].bytes().is_none()),
            (None, true)
        );
        drop(read);
        // A returned loan is reused first.
        drop(fifth);
        let _sixth = loans.lend(8).unwrap();
        assert!(!held[0].is_lost() && !held[2].is_lost() && !held[3].is_lost());
        let _seventh = loans.lend(8).unwrap();
        assert!(held[0].is_lost());
    }
}
