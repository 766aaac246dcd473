//! Status codes and counters.

/// Makes [`Status`] and the texts that go with it.
macro_rules! statuses {
    ($($name:ident = $code:literal $reason:literal)*) => {
        /// A response status that this server sends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Status {
            $($name,)*
        }

        /// The number of statuses.
        const COUNT: usize = [$($code),*].len();
        const CODES: [u16; COUNT] = [$($code),*];
        const NAMES: [&str; COUNT] = [$(stringify!($code)),*];
        const LINES: [&str; COUNT] = [$(concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n")),*];
    };
}

statuses! {
    Continue = 100 "Continue"
    Ok = 200 "OK"
    NoContent = 204 "No Content"
    PartialContent = 206 "Partial Content"
    MovedPermanently = 301 "Moved Permanently"
    Found = 302 "Found"
    NotModified = 304 "Not Modified"
    TemporaryRedirect = 307 "Temporary Redirect"
    PermanentRedirect = 308 "Permanent Redirect"
    BadRequest = 400 "Bad Request"
    NotFound = 404 "Not Found"
    MethodNotAllowed = 405 "Method Not Allowed"
    RequestTimeout = 408 "Request Timeout"
    PreconditionFailed = 412 "Precondition Failed"
    ContentTooLarge = 413 "Content Too Large"
    UriTooLong = 414 "URI Too Long"
    RangeNotSatisfiable = 416 "Range Not Satisfiable"
    ExpectationFailed = 417 "Expectation Failed"
    MisdirectedRequest = 421 "Misdirected Request"
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large"
    InternalServerError = 500 "Internal Server Error"
    NotImplemented = 501 "Not Implemented"
    ServiceUnavailable = 503 "Service Unavailable"
    VersionNotSupported = 505 "HTTP Version Not Supported"
}

impl Status {
    pub(super) fn code(self) -> u16 {
        CODES.get(self as usize).copied().unwrap_or(500)
    }

    /// The status line, with its line end.
    pub(super) fn line(self) -> &'static [u8] {
        LINES
            .get(self as usize)
            .copied()
            .unwrap_or_default()
            .as_bytes()
    }

    /// Code and reason, as the content of a response that has no other content.
    pub(super) fn text(self) -> &'static [u8] {
        self.line().get("HTTP/1.1 ".len()..).unwrap_or_default()
    }
}

/// Methods as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MethodClass {
    Get,
    Head,
    Options,
    /// A refused method.
    Other,
    /// The input was not a request.
    Invalid,
}

const METHODS: [&str; 5] = ["GET", "HEAD", "OPTIONS", "other", "invalid"];

/// Counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    methods: [u64; METHODS.len()],
    statuses: [u64; COUNT],
    /// Bytes of content that were given to the connections, without the framing of multipart responses.
    pub content: u64,
    /// Connections that were closed or reset at a deadline, 408 included.
    pub expired: u64,
    /// Expired connections that were reset with bytes still to be sent.
    pub aborted: u64,
    /// Connections that the peer closed within a request.
    pub incomplete: u64,
    /// Inconsistencies found in the site.
    pub broken: u64,
}

impl RequestCounts {
    /// Requests by method: `GET`, `HEAD`, `OPTIONS`, `other` (refused), `invalid` (not a request).
    pub fn methods(&self) -> impl Iterator<Item = (&'static str, u64)> {
        METHODS.into_iter().zip(self.methods)
    }

    /// Responses by status code. `100` is counted too, and so are responses that were never sent.
    pub fn statuses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.statuses)
    }

    /// Responses with a status of one class: 2 for 2xx.
    #[must_use]
    pub fn class(&self, class: u16) -> u64 {
        let counts = CODES.iter().zip(self.statuses);
        counts
            .filter(|(code, _)| *code / 100 == class)
            .map(|(_, count)| count)
            .sum()
    }

    pub(super) fn method(&mut self, method: MethodClass) {
        if let Some(counter) = self.methods.get_mut(method as usize) {
            *counter += 1;
        }
    }

    pub(super) fn status(&mut self, status: Status) {
        if let Some(counter) = self.statuses.get_mut(status as usize) {
            *counter += 1;
        }
    }
}
