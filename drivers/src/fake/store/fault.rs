//! The faults that a test can inject into xenstored.

use std::vec::Vec;

/// A fault of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer is this many ns late; others overtake it.
    Late(u64),
    /// The answer is this error.
    Error(&'static str),
    /// The answer never comes.
    Silent,
    /// The answer has the id of no request.
    WrongId,
    /// The answer comes twice.
    Twice,
    /// The answer has a wrong type.
    WrongType,
    /// The header has a length above the protocol's limit.
    TooLong,
    /// The answer has this payload.
    Payload(Vec<u8>),
    /// These bytes are sent instead of the answer.
    Garbage(Vec<u8>),
    /// The producer index jumps by this much.
    Index(u32),
}
