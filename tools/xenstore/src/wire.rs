//! Messages on the wire, in both directions: `struct xsd_sockmsg` of `public/io/xs_wire.h`, then a payload.
//!
//! A client encodes requests with [`put`] and parses messages with [`take`]. A server parses requests with
//! [`take_asked`], and encodes answers with [`Asked::answer`], [`Asked::refusal`] and [`put_event`].

/// The members of `enum xsd_sockmsg_type` that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MessageKind {
    /// A control command of the daemon.
    Control = 0,
    /// Lists the names directly below a node.
    Directory = 1,
    /// Reads a node's value.
    Read = 2,
    /// Reads a node's permissions.
    GetPerms = 3,
    /// Sets a watch.
    Watch = 4,
    /// Removes a watch.
    Unwatch = 5,
    /// Starts a transaction.
    TransactionStart = 6,
    /// Commits or aborts a transaction.
    TransactionEnd = 7,
    /// Introduces a domain.
    Introduce = 8,
    /// Releases a domain.
    Release = 9,
    /// The path of a domain's home.
    GetDomainPath = 10,
    /// Sets a node's value.
    Write = 11,
    /// Creates a node.
    Mkdir = 12,
    /// Removes a node.
    Rm = 13,
    /// Sets a node's permissions.
    SetPerms = 14,
    /// Whether a domain was introduced.
    IsDomainIntroduced = 17,
    /// A domain that was suspended runs again.
    Resume = 18,
    /// A domain has the rights of another as well.
    SetTarget = 19,
    /// Takes back all watches and transactions.
    ResetWatches = 21,
    /// A part of a long list of names.
    DirectoryPart = 22,
}

impl MessageKind {
    const ALL: [Self; 20] = [
        Self::Control,
        Self::Directory,
        Self::Read,
        Self::GetPerms,
        Self::Watch,
        Self::Unwatch,
        Self::TransactionStart,
        Self::TransactionEnd,
        Self::Introduce,
        Self::Release,
        Self::GetDomainPath,
        Self::Write,
        Self::Mkdir,
        Self::Rm,
        Self::SetPerms,
        Self::IsDomainIntroduced,
        Self::Resume,
        Self::SetTarget,
        Self::ResetWatches,
        Self::DirectoryPart,
    ];

    /// The request of this number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// Types that only xenstored sends.
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// `XENSTORE_PAYLOAD_MAX`.
pub const PAYLOAD_MAX: usize = 4096;
/// The longest accepted list, in bytes. oxenstored 4.17 sends lists over its socket that are longer than a message may
/// be, where the C xenstored answers E2BIG.
pub const LIST_MAX: usize = 1 << 20;
/// `sizeof(struct xsd_sockmsg)`.
pub const HEADER: usize = 16;

/// Appends a request to `out`. The caller has checked the payload's length.
pub fn put(out: &mut Vec<u8>, kind: MessageKind, request: u32, transaction: u32, payload: &[u8]) {
    put_message(out, [kind as u32, request, transaction], payload);
}

/// Adds a message of any type to `out`: its type, the request that it answers, and the transaction.
pub fn put_message(out: &mut Vec<u8>, [kind, request, transaction]: [u32; 3], payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    for word in [kind, request, transaction, length] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.extend_from_slice(payload);
}

/// Appends a watch event to `out`.
pub fn put_event(out: &mut Vec<u8>, event: &WatchEvent) {
    let payload = format!("{}\0{}\0", event.path, event.token);
    put_message(out, [WATCH_EVENT, 0, 0], payload.as_bytes());
}

/// A request as a server receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The type: the number of a [`MessageKind`], or an unknown one.
    pub kind: u32,
    /// The id by which the client finds the answer.
    pub request: u32,
    /// The transaction; 0 is none.
    pub transaction: u32,
    /// The payload.
    pub payload: &'a [u8],
}

impl Asked<'_> {
    /// Appends its answer to `out`.
    pub fn answer(&self, out: &mut Vec<u8>, payload: &[u8]) {
        let words = [self.kind, self.request, self.transaction];
        put_message(out, words, payload);
    }

    /// Appends its refusal to `out`, with the error's name (`EINVAL`).
    pub fn refusal(&self, out: &mut Vec<u8>, name: &str) {
        let payload = [name.as_bytes(), &[0]].concat();
        put_message(out, [ERROR, self.request, self.transaction], &payload);
    }
}

/// Parses the first request; `None` while it is incomplete. Also returns its length in bytes.
///
/// # Errors
/// The request is longer than the protocol allows.
pub fn take_asked(bytes: &[u8]) -> Result<Option<(Asked<'_>, usize)>, &'static str> {
    let (Some(end), Some(kind), Some(request), Some(transaction)) = (
        length(bytes),
        word(bytes, 0),
        word(bytes, 1),
        word(bytes, 2),
    ) else {
        return Ok(None);
    };
    if end > HEADER + PAYLOAD_MAX {
        return Err("a request is longer than the protocol allows");
    }
    let Some(payload) = bytes.get(HEADER..end) else {
        return Ok(None);
    };
    let asked = Asked {
        kind,
        request,
        transaction,
        payload,
    };
    Ok(Some((asked, end)))
}

/// The length of the first message in `bytes`, its header included; `None` while its header is incomplete.
#[must_use]
pub fn length(bytes: &[u8]) -> Option<usize> {
    let payload = word(bytes, 3)?;
    usize::try_from(payload).ok()?.checked_add(HEADER)
}

/// The request id of the first message in `bytes`.
#[must_use]
pub fn request(bytes: &[u8]) -> Option<u32> {
    word(bytes, 1)
}

/// A watch event: something may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The path that changed, at or below the watched path.
    pub path: String,
    /// The token of the watch.
    pub token: String,
}

/// A message from xenstored.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerMessage<'a> {
    /// A watch event.
    Event(WatchEvent),
    /// A request was refused.
    Error {
        /// Its id.
        request: u32,
        /// The error's name.
        payload: &'a [u8],
    },
    /// A request was answered.
    Answer {
        /// Its id.
        request: u32,
        /// Its type.
        kind: u32,
        /// The payload of the answer.
        payload: &'a [u8],
    },
}

/// Parses the first message; `None` while it is incomplete. Also returns its length in bytes.
///
/// # Errors
/// xenstored breaks the protocol.
pub fn take(bytes: &[u8]) -> Result<Option<(ServerMessage<'_>, usize)>, &'static str> {
    let Some(end) = length(bytes) else {
        return Ok(None);
    };
    let (Some(kind), Some(request)) = (word(bytes, 0), word(bytes, 1)) else {
        return Ok(None);
    };
    let bound = if kind == MessageKind::Directory as u32 {
        LIST_MAX
    } else {
        PAYLOAD_MAX
    };
    if end > HEADER + bound {
        return Err("a message is longer than the protocol allows");
    }
    let Some(payload) = bytes.get(HEADER..end) else {
        return Ok(None);
    };
    let message = match kind {
        WATCH_EVENT => {
            ServerMessage::Event(event(payload).ok_or("a watch event is not two strings")?)
        }
        ERROR => ServerMessage::Error { request, payload },
        kind => ServerMessage::Answer {
            request,
            kind,
            payload,
        },
    };
    Ok(Some((message, end)))
}

fn event(payload: &[u8]) -> Option<WatchEvent> {
    let mut strings = std::str::from_utf8(payload).ok()?.split('\0');
    let event = WatchEvent {
        path: strings.next()?.to_owned(),
        token: strings.next()?.to_owned(),
    };
    // The token ends in a NUL too. What later protocols may add after it is ignored.
    strings.next()?;
    Some(event)
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let at = index * 4;
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
