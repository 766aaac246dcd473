//! Messages as they cross the socket, in both directions: `struct xsd_sockmsg` of `public/io/xs_wire.h`, then a payload.
//!
//! A client puts requests together with [`put`] and takes messages with [`take`]; a server takes requests with [`take_asked`], and
//! puts answers together with [`Asked::answer`], [`Asked::refusal`] and [`put_event`].

/// `enum xsd_sockmsg_type`, as far as it is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A command of the daemon's own.
    Control = 0,
    /// The names right below a node.
    Directory = 1,
    /// A node's value.
    Read = 2,
    /// A node's permissions.
    GetPerms = 3,
    /// To be told of changes.
    Watch = 4,
    /// Not to be told any more.
    Unwatch = 5,
    /// A new transaction.
    TransactionStart = 6,
    /// Commits a transaction, or not.
    TransactionEnd = 7,
    /// There is a domain.
    Introduce = 8,
    /// A domain is to be let go of.
    Release = 9,
    /// Where a domain's home is.
    GetDomainPath = 10,
    /// Sets a node's value.
    Write = 11,
    /// Makes a node.
    Mkdir = 12,
    /// Removes a node.
    Rm = 13,
    /// Sets a node's permissions.
    SetPerms = 14,
    /// Whether there is a domain.
    IsDomainIntroduced = 17,
    /// A part of a long list of names.
    DirectoryPart = 22,
}

impl Kind {
    const ALL: [Self; 17] = [
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
/// The longest list that is believed: oxenstored 4.17 sends over its socket what is longer than a message may be, where
/// the C xenstored says E2BIG.
pub const LIST_MAX: usize = 1 << 20;
/// `sizeof(struct xsd_sockmsg)`.
pub const HEADER: usize = 16;

/// Adds one request to `out`. The payload's length has been checked.
pub fn put(out: &mut Vec<u8>, kind: Kind, request: u32, transaction: u32, payload: &[u8]) {
    put_message(out, [kind as u32, request, transaction], payload);
}

fn put_message(out: &mut Vec<u8>, [kind, request, transaction]: [u32; 3], payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    for word in [kind, request, transaction, length] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.extend_from_slice(payload);
}

/// Adds the news that what is watched with this token may have changed to `out`.
pub fn put_event(out: &mut Vec<u8>, event: &Event) {
    let payload = format!("{}\0{}\0", event.path, event.token);
    put_message(out, [WATCH_EVENT, 0, 0], payload.as_bytes());
}

/// A request as a server gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// What is asked for: the number of a [`Kind`], or of what is none.
    pub kind: u32,
    /// By which the client knows the answer.
    pub request: u32,
    /// Of which transaction it is a part; 0 is none.
    pub transaction: u32,
    /// What it is about.
    pub payload: &'a [u8],
}

impl Asked<'_> {
    /// Adds its answer to `out`.
    pub fn answer(&self, out: &mut Vec<u8>, payload: &[u8]) {
        let words = [self.kind, self.request, self.transaction];
        put_message(out, words, payload);
    }

    /// Adds to `out` that it is refused, with the error's name (`EINVAL`).
    pub fn refusal(&self, out: &mut Vec<u8>, name: &str) {
        let payload = [name.as_bytes(), &[0]].concat();
        put_message(out, [ERROR, self.request, self.transaction], &payload);
    }
}

/// Takes the first request, or `None` while it is not complete; with it, how many bytes it took.
///
/// # Errors
/// It is longer than a request may be.
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
        return Err("a request is longer than any may be");
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

/// How long the first message in `bytes` is, its header included, or `None` while its header is not there.
#[must_use]
pub fn length(bytes: &[u8]) -> Option<usize> {
    let payload = word(bytes, 3)?;
    usize::try_from(payload).ok()?.checked_add(HEADER)
}

/// Whose first message is in `bytes`.
#[must_use]
pub fn request(bytes: &[u8]) -> Option<u32> {
    word(bytes, 1)
}

/// Something has been watched and may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The path that changed, at or below what is watched.
    pub path: String,
    /// What the watch was set with.
    pub token: String,
}

/// A message of xenstored's.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// What is watched may have changed.
    Event(Event),
    /// A request was refused.
    Error {
        /// Which.
        request: u32,
        /// The error's name.
        payload: &'a [u8],
    },
    /// A request was answered.
    Answer {
        /// Which.
        request: u32,
        /// Its type.
        kind: u32,
        /// What it asked for.
        payload: &'a [u8],
    },
}

/// Takes the first message, or `None` while it is not complete; with it, how many bytes it took.
///
/// # Errors
/// xenstored breaks the protocol.
pub fn take(bytes: &[u8]) -> Result<Option<(Message<'_>, usize)>, &'static str> {
    let Some(end) = length(bytes) else {
        return Ok(None);
    };
    let (Some(kind), Some(request)) = (word(bytes, 0), word(bytes, 1)) else {
        return Ok(None);
    };
    let bound = if kind == Kind::Directory as u32 {
        LIST_MAX
    } else {
        PAYLOAD_MAX
    };
    if end > HEADER + bound {
        return Err("a message is longer than any may be");
    }
    let Some(payload) = bytes.get(HEADER..end) else {
        return Ok(None);
    };
    let message = match kind {
        WATCH_EVENT => Message::Event(event(payload).ok_or("a watch event is not two strings")?),
        ERROR => Message::Error { request, payload },
        kind => Message::Answer {
            request,
            kind,
            payload,
        },
    };
    Ok(Some((message, end)))
}

fn event(payload: &[u8]) -> Option<Event> {
    let mut strings = std::str::from_utf8(payload).ok()?.split('\0');
    let event = Event {
        path: strings.next()?.to_owned(),
        token: strings.next()?.to_owned(),
    };
    // The token has its NUL as well; what later protocols may add behind it is of no interest.
    strings.next()?;
    Some(event)
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let at = index * 4;
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
