//! Errors of a request and of the connection.

/// An error answer of xenstored (`xsd_errors`, io/xs_wire.h). Only errors that this client treats differently are told
/// apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrno {
    /// `ENOENT`
    NoEntry,
    /// `EACCES`
    Access,
    /// `EEXIST`
    Exists,
    /// Any other.
    Other,
}

impl StoreErrno {
    /// The error that a payload names, with or without its NUL.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Self {
        match payload.strip_suffix(b"\0").unwrap_or(payload) {
            b"ENOENT" => Self::NoEntry,
            b"EACCES" => Self::Access,
            b"EEXIST" => Self::Exists,
            _ => Self::Other,
        }
    }
}

/// The reason for which the connection cannot be used until it is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// A ring index moved backwards or by more than the ring.
    Index,
    /// An answer longer than `XENSTORE_PAYLOAD_MAX`.
    Length,
    /// An answer to a request that was never made or was answered before.
    UnknownId,
    /// An answer of another type than its request.
    Type,
    /// A watch event without a path and a token.
    Watch,
    /// Our indices were overwritten: the ring was emptied for a new xenstored.
    Reset,
    /// Requests have waited for an answer for too long.
    Silent,
    /// The toolstack has not yet introduced this domain to xenstored.
    Unintroduced,
}

impl Broken {
    /// One line for the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Index => "xenstore: xenstored moved a ring index out of range; reconnecting",
            Self::Length => "xenstore: an answer is longer than the protocol allows; reconnecting",
            Self::UnknownId => "xenstore: an answer to no request of ours; reconnecting",
            Self::Type => "xenstore: an answer of the wrong type; reconnecting",
            Self::Watch => "xenstore: a malformed watch event; reconnecting",
            Self::Reset => "xenstore: the ring was emptied; reconnecting",
            Self::Silent => "xenstore: xenstored does not answer; reconnecting",
            Self::Unintroduced => "xenstore: xenstored does not know this domain yet",
        }
    }
}

/// The reason for which a request was not made or a wait ended without a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// See [`Broken`].
    Broken(Broken),
    /// The deadline has passed.
    Timeout,
    /// Too many requests wait for an answer or for space.
    Full,
    /// The request is longer than `XENSTORE_PAYLOAD_MAX`.
    TooLong,
}

impl StoreError {
    /// One line for the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken(broken) => broken.as_str(),
            Self::Timeout => "xenstore: xenstored does not answer",
            Self::Full => "xenstore: too many requests are waiting",
            Self::TooLong => "xenstore: a request is too long",
        }
    }
}
