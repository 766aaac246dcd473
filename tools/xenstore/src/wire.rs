//! Messages as they cross the socket: `struct xsd_sockmsg` of `public/io/xs_wire.h`, then a payload.

/// `enum xsd_sockmsg_type`, as far as it is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Control = 0,
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Introduce = 8,
    Release = 9,
    GetDomainPath = 10,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
    IsDomainIntroduced = 17,
    DirectoryPart = 22,
}

/// Types that only xenstored sends.
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// `XENSTORE_PAYLOAD_MAX`.
pub(super) const PAYLOAD_MAX: usize = 4096;
/// The longest list that is believed: oxenstored 4.17 sends over its socket what is longer than a message may be, where
/// the C xenstored says E2BIG.
pub(super) const LIST_MAX: usize = 1 << 20;
/// `sizeof(struct xsd_sockmsg)`.
pub(super) const HEADER: usize = 16;

/// Adds one request to `out`. The payload's length has been checked.
pub(super) fn put(out: &mut Vec<u8>, kind: Kind, request: u32, transaction: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    for word in [kind as u32, request, transaction, length] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.extend_from_slice(payload);
}

/// How long the first message in `bytes` is, its header included, or `None` while its header is not there.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let payload = word(bytes, 3)?;
    usize::try_from(payload).ok()?.checked_add(HEADER)
}

/// Whose first message is in `bytes`.
pub(super) fn request(bytes: &[u8]) -> Option<u32> {
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
pub(super) enum Message<'a> {
    Event(Event),
    Error {
        request: u32,
        payload: &'a [u8],
    },
    Answer {
        request: u32,
        kind: u32,
        payload: &'a [u8],
    },
}

/// Takes the first message, or `None` while it is not complete; with it, how many bytes it took.
pub(super) fn take(bytes: &[u8]) -> Result<Option<(Message<'_>, usize)>, &'static str> {
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
