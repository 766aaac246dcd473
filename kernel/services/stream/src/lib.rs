//! The interface of a service over TCP: bytes in, bytes out.
//!
//! A connection of a service is a state machine that knows no socket. It reads the receive buffer in place, returns the
//! number of bytes that it has consumed, and writes into the send buffer:
//!
//! ```text
//! progress = connection.process(now, ..., Input { bytes, ended }, out, ...)
//! ```
//!
//! The caller supplies the time. All input is hostile.
#![no_std]
#![forbid(unsafe_code)]

/// A point in time: milliseconds on a clock that does not go backwards.
pub type Millis = u64;

/// The time of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time in ms, for deadlines.
    pub now: Millis,
    /// The time of day in seconds since 1970; `None` when it is unknown.
    pub unix_seconds: Option<u64>,
}

/// The unread input of a TCP socket.
#[derive(Clone, Copy, Debug)]
pub struct Input<'i> {
    /// The bytes received and not yet consumed.
    pub bytes: &'i [u8],
    /// Whether the peer has closed its side after these bytes (FIN).
    pub ended: bool,
}

/// The result of one call of a connection's `process`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of bytes of the input that were consumed.
    pub consumed: usize,
    /// The number of bytes written to the start of the output.
    pub written: usize,
    /// Whether the connection goes on, closes or is reset.
    pub next: Next,
}

/// Whether a connection goes on, closes or is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Call again when there is more input, more room, or at the deadline.
    Keep,
    /// Send what was written, then close (FIN). Further calls consume all input and return this again.
    Close,
    /// Reset: the peer broke a rule or missed a deadline while bytes were still to be sent to it.
    Abort,
}
