//! The journal: all that the core has taken in since the last copy of the worker, in its order.

use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::sys::{FREE, Memory};

/// The kind of a record. The comment says what its fields are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// A client has connected; `number` is its file descriptor.
    Accepted = 1,
    /// The connection `id` has ended.
    Ended,
    /// The payload was received from the client `id`.
    Received,
    /// `number` bytes were sent to the client `id`, or a few of its messages taken from the queue.
    Sent,
    /// The payload was taken from the ring of the connection `id`; `number` is the consumer index behind it.
    RingRead,
    /// The payload has the number of bytes that were written to the ring of the connection `id`, as a `u32`; `number` is
    /// the producer index behind them.
    RingWritten,
    /// The connection `id` was emptied.
    Silenced,
    /// The ring of the connection `id` was shut; `number` is the reason.
    Shut,
    /// The states of all domains were read.
    Checked,
    /// The waiting messages of the connection `id` are no longer charged.
    Forgiven,
    /// A live update was refused with the payload's text.
    Refused,

    // Answers of the machine, which follow the record that has asked.
    /// The domain `id` has the state `number`. Without this record it was there and ran.
    State,
    /// The domain `id` was attached at the local port `number`, or could not be ([`NO_PORT`]).
    Attached,
    /// The same for a domain that had been attached; [`NO_PORT`] means that it has no event channel now.
    AttachedAgain,
    /// The domain `id` was detached.
    Detached,
}

/// The `number` of [`Kind::Attached`] when there is no port.
pub(crate) const NO_PORT: u64 = u64::MAX;

const KINDS: [Kind; 15] = [
    Kind::Accepted,
    Kind::Ended,
    Kind::Received,
    Kind::Sent,
    Kind::RingRead,
    Kind::RingWritten,
    Kind::Silenced,
    Kind::Shut,
    Kind::Checked,
    Kind::Forgiven,
    Kind::Refused,
    Kind::State,
    Kind::Attached,
    Kind::AttachedAgain,
    Kind::Detached,
];

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where it begins in its log.
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) payload: Vec<u8>,
}

/// What comes next where a successor reads the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upcoming {
    /// Nothing: what happens now, happens for the first time.
    Nothing,
    /// A record of this kind about this connection or domain.
    Record(Kind, u64),
}

/// The length of a record's head: kind and length of the payload as `u32`, then `id` and `number`.
const HEAD: usize = 24;
/// The length of a log in bytes. Memory that no record reaches is never used.
const LOG: usize = 4 << 20;
/// With this many bytes in it, the log is to be begun anew. It bounds the time that a successor needs to repeat it. What
/// one connection adds in its turn fits behind this bound many times.
const LOW: usize = 512 << 10;
/// The most bytes received at a time.
pub(crate) const RECEIVE: usize = 16 << 10;

// Offsets of the words.
const LENGTHS: [usize; 2] = [FREE, FREE + 8];
/// Where the last call's record begins, or [`NOWHERE`].
const CALL_AT: usize = FREE + 16;
/// Where the record begins that the core is just processing, plus one; 0 when it processes none.
const BEGUN: usize = FREE + 24;
/// The value of `BEGUN` of a record that has ended its worker each time.
const POISON: usize = FREE + 32;
/// The first offset that other parts of [`super`] may use, up to [`LOGS`].
pub(super) const WORDS: usize = FREE + 40;
const LOGS: usize = 4096;
/// The number of bytes of all of it.
pub(super) const SIZE: usize = LOGS + 2 * LOG;

const NOWHERE: u64 = u64::MAX;

fn offset(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A journal in shared memory: two logs, one of which is in use.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(super) memory: Rc<Memory>,
    log: usize,
    /// Where the next record will be written, in this process or by a predecessor.
    tail: usize,
    /// Where the next record will be read. It is the tail but while records are repeated.
    next: usize,
    /// Where the last record that is no answer of the machine begins.
    main: usize,
    /// Whether a successor repeats it.
    is_repeated: bool,
}

impl Journal {
    /// Makes a journal in new memory.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self::within(Rc::new(Memory::new(SIZE)?)))
    }

    pub(super) fn within(memory: Rc<Memory>) -> Self {
        memory.word(CALL_AT).store(NOWHERE, Ordering::Release);
        Self::within_as_is(memory)
    }

    fn within_as_is(memory: Rc<Memory>) -> Self {
        Self {
            memory,
            log: 0,
            tail: 0,
            next: 0,
            main: 0,
            is_repeated: false,
        }
    }

    fn place(&self, at: usize) -> usize {
        LOGS + self.log * LOG + at
    }

    /// Returns whether the log is to be begun anew.
    pub(crate) fn is_low(&self) -> bool {
        self.tail >= LOW
    }

    /// Empties the log that is not in use, for [`Journal::turn`].
    pub(super) fn empty_other(&self) -> usize {
        let other = 1 - self.log;
        let [first, second] = LENGTHS;
        let length = if other == 0 { first } else { second };
        self.memory.word(length).store(0, Ordering::Release);
        other
    }

    /// Goes on with another log: at its end, with no record to repeat.
    pub(super) fn turn(&mut self, log: usize) {
        self.memory.word(BEGUN).store(0, Ordering::Release);
        self.memory.word(POISON).store(0, Ordering::Release);
        self.log = log;
        self.tail = 0;
        self.next = 0;
        self.main = 0;
        self.is_repeated = false;
    }

    /// Begins the log anew, when nobody is to repeat it.
    pub(crate) fn clear(&mut self) {
        self.publish(0);
        self.turn(self.log);
    }

    fn length_word(&self) -> &std::sync::atomic::AtomicU64 {
        let [first, second] = LENGTHS;
        self.memory.word(if self.log == 0 { first } else { second })
    }

    /// Makes the record before `tail` a part of the log. All of it was written before.
    fn publish(&mut self, tail: usize) {
        self.tail = tail;
        self.next = tail;
        self.length_word().store(wide(tail), Ordering::Release);
    }

    fn head(&self, at: usize, kind: Kind, id: u64, number: u64, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let mut head = [0; HEAD];
        let parts = [
            &(kind as u32).to_ne_bytes()[..],
            &length.to_ne_bytes(),
            &id.to_ne_bytes(),
            &number.to_ne_bytes(),
        ];
        let mut rest = &mut head[..];
        for part in parts {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        self.memory.copy_in(self.place(at), &head);
    }

    /// Ends this process if the log is full. Its successor repeats the log and begins a new one.
    fn check_room(&self, length: usize) {
        if self.tail + HEAD + length > LOG {
            eprintln!("hatch xenstored: the journal is full");
            std::process::exit(1);
        }
    }

    /// Adds a record.
    pub(crate) fn append(&mut self, kind: Kind, id: u64, number: u64, payload: &[u8]) {
        self.check_room(payload.len().next_multiple_of(8));
        self.head(self.tail, kind, id, number, payload.len());
        self.memory.copy_in(self.place(self.tail + HEAD), payload);
        if (kind as u32) < Kind::State as u32 {
            self.main = self.tail;
        }
        self.publish(self.tail + HEAD + payload.len().next_multiple_of(8));
    }

    /// Receives bytes from a client's socket, as a record. Returns their number, 0 at the end of the stream. That leaves
    /// no record.
    pub(crate) fn receive(
        &mut self,
        id: u64,
        socket: BorrowedFd<'_>,
        into: &mut [u8; RECEIVE],
    ) -> io::Result<usize> {
        self.check_room(RECEIVE);
        self.begin_call(Kind::Received, id);
        let into_log = self.place(self.tail + HEAD);
        let result = self.memory.receive(socket, into_log, RECEIVE);
        if let Ok(length @ 1..) = result {
            if let Some(into) = into.get_mut(..length) {
                self.memory.copy_out(into_log, into);
            }
            self.main = self.tail;
            self.end_call(Kind::Received, id, length);
        }
        self.forget_call();
        result
    }

    /// Sends bytes on a client's socket, as a record, which is there even if none was sent. Returns their number.
    pub(crate) fn send(
        &mut self,
        id: u64,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
    ) -> io::Result<usize> {
        self.check_room(0);
        self.begin_call(Kind::Sent, id);
        let result = self.memory.send(socket, bytes);
        self.main = self.tail;
        self.end_call(Kind::Sent, id, *result.as_ref().unwrap_or(&0));
        self.forget_call();
        result
    }

    fn begin_call(&self, kind: Kind, id: u64) {
        self.head(self.tail, kind, id, 0, 0);
        self.memory.begin_call();
        let at = wide(self.tail);
        self.memory.word(CALL_AT).store(at, Ordering::Release);
    }

    fn end_call(&mut self, kind: Kind, id: u64, length: usize) {
        let (number, payload) = match kind {
            Kind::Sent => (length, 0),
            _ => (0, length),
        };
        self.head(self.tail, kind, id, wide(number), payload);
        self.publish(self.tail + HEAD + payload.next_multiple_of(8));
    }

    fn forget_call(&self) {
        self.memory.word(CALL_AT).store(NOWHERE, Ordering::Release);
    }

    /// Goes to the beginning of a predecessor's log, and completes its last record if a call of the kernel's had ended
    /// and the record was not yet a part of the log.
    pub(super) fn reopen(&mut self, log: usize) {
        self.log = log;
        self.tail = offset(self.length_word().load(Ordering::Acquire));
        let call_at = self.memory.word(CALL_AT).load(Ordering::Acquire);
        if call_at == wide(self.tail)
            && let Some(length) = self.memory.last_call()
            && let Some(record) = self.read(self.tail)
            && (record.kind == Kind::Sent || length > 0)
        {
            self.end_call(record.kind, record.id, length);
        }
        self.forget_call();
        self.next = 0;
        self.main = 0;
        self.is_repeated = true;
    }

    /// Returns whether this process repeats the journal of a predecessor.
    pub(crate) fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// Says that it has repeated all of it.
    pub(crate) fn end_repetition(&mut self) {
        self.is_repeated = false;
    }

    fn read(&self, at: usize) -> Option<Record> {
        let mut head = [0; HEAD];
        self.memory.copy_out(self.place(at), &mut head);
        let (words, longs) = head.split_at(8);
        let mut words = words.as_chunks::<4>().0.iter().copied();
        let mut longs = longs.as_chunks::<8>().0.iter().copied();
        let kind = words.next().map(u32::from_ne_bytes)?;
        let length = words.next().map(u32::from_ne_bytes)?;
        let mut payload = vec![0; usize::try_from(length).ok()?];
        self.memory.copy_out(self.place(at + HEAD), &mut payload);
        Some(Record {
            at,
            kind: *KINDS.iter().find(|known| **known as u32 == kind)?,
            id: longs.next().map(u64::from_ne_bytes)?,
            number: longs.next().map(u64::from_ne_bytes)?,
            payload,
        })
    }

    /// Returns what comes next where the log is repeated.
    pub(crate) fn upcoming(&self) -> Upcoming {
        match (self.next < self.tail).then(|| self.read(self.next)) {
            Some(Some(record)) => Upcoming::Record(record.kind, record.id),
            _ => Upcoming::Nothing,
        }
    }

    /// Takes the next record to repeat; `None` when all are repeated.
    pub(crate) fn repeat(&mut self) -> Option<Record> {
        let record = (self.next < self.tail).then(|| self.read(self.next))??;
        self.next += HEAD + record.payload.len().next_multiple_of(8);
        if (record.kind as u32) < Kind::State as u32 {
            self.main = record.at;
        }
        Some(record)
    }

    /// Says that the core begins to process the last record, which was received from a peer.
    pub(crate) fn begin(&self) {
        let begun = wide(self.main + 1);
        self.memory.word(BEGUN).store(begun, Ordering::Release);
    }

    /// Says that the core has done so.
    pub(crate) fn finish(&self) {
        self.memory.word(BEGUN).store(0, Ordering::Release);
    }

    /// Returns whether a record has ended each worker that has processed it.
    pub(crate) fn is_poison(&self, record: &Record) -> bool {
        self.memory.word(POISON).load(Ordering::Acquire) == wide(record.at + 1)
    }
}

/// Returns the record that a worker was just processing when it ended, 0 for none.
pub(super) fn begun(memory: &Memory) -> u64 {
    memory.word(BEGUN).load(Ordering::Acquire)
}

/// Tells the next worker to process this record no more.
pub(super) fn condemn(memory: &Memory, begun: u64) {
    memory.word(POISON).store(begun, Ordering::Release);
}

#[cfg(test)]
mod tests;
