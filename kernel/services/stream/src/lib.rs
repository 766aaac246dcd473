//! The interface of a service over TCP: bytes in, bytes out.
//!
//! A connection of a service is a state machine that knows no socket. It looks at the receive buffer
//! in place, says how much of it is done with, and writes into the send buffer:
//!
//! ```text
//! progress = connection.process(now, ..., Input { bytes, ended }, out, ...)
//! ```
//!
//! Time is whatever the caller says it is. All input is hostile.
#![no_std]
#![forbid(unsafe_code)]

/// A point in time: milliseconds on a clock that does not go backwards.
pub type Millis = u64;

/// When a service is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For deadlines.
    pub now: Millis,
    /// The time of day in seconds since 1970; `None` where nobody knows it.
    pub unix_seconds: Option<u64>,
}

/// What a TCP socket has received and not yet given up.
#[derive(Clone, Copy, Debug)]
pub struct Input<'i> {
    /// Bytes that were received and not consumed.
    pub octets: &'i [u8],
    /// Whether the peer has said that nothing follows them (FIN).
    pub ended: bool,
}

/// What one call of a connection's `process` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Bytes written to the start of the output.
    pub written: usize,
    /// What is to become of the connection.
    pub next: Next,
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Call again when there is more input, more room, or at the deadline.
    Keep,
    /// Send what was written, then close (FIN). Further calls consume all input and say this again.
    Close,
    /// Reset: the peer has broken a rule or a deadline with bytes still to be sent to it.
    Abort,
}
