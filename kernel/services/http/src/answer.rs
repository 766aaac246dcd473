//! Makes the response to a request from a site.

use core::fmt::{self, Write};

use super::body::Body;
use super::conditions::{self, Outcome, Validators};
use super::loan::Loan;
use super::negotiate;
use super::range;
use super::request::{Expect, Framing, Method, Refusal, Request};
use super::response::{Content, Made, Response, Text};
use super::status::Status;
use super::target::{self, Target};
use super::{RENDERED_MAX, Shared};
use mayfly_site::{Broken, File, Pages, Resource, Variant};

const ALLOW: &[u8] = b"Allow: GET, HEAD, OPTIONS\r\n";
const NO_STORE: &[u8] = b"Cache-Control: no-store\r\n";

/// The state from which a response is made.
pub(super) struct Answer<'r, 'a, S: ?Sized> {
    pub(super) response: &'r mut Response<'a>,
    pub(super) site: &'a S,
    pub(super) shared: &'r mut Shared,
    pub(super) unix_seconds: Option<u64>,
    framing: Framing,
    /// The site's own header lines for the path.
    extra: &'a [u8],
    /// The part of the request's content that is skipped before the response is sent.
    body: Body,
}

impl<'r, 'a, S: Pages + ?Sized> Answer<'r, 'a, S> {
    pub(super) fn new(
        response: &'r mut Response<'a>,
        site: &'a S,
        shared: &'r mut Shared,
        unix_seconds: Option<u64>,
    ) -> Self {
        let framing = Framing {
            head_only: false,
            close: true,
            http10: false,
        };
        Self {
            response,
            site,
            shared,
            unix_seconds,
            framing,
            extra: b"",
            body: Body::None,
        }
    }

    /// Answers a request that cannot be served. The connection closes after the response.
    pub(super) fn refuse(mut self, refusal: Refusal) {
        self.framing.head_only = refusal.head_only;
        self.error(b"", refusal.status, b"");
    }

    /// Answers a request. Returns the part of its content that is skipped before the response is sent.
    pub(super) fn request(mut self, request: &Request<'_, '_>) -> Body {
        self.framing = request.framing;
        self.body = request.body;
        let lower;
        let host = if request.host.iter().any(u8::is_ascii_uppercase) {
            lower = target::lower_case(request.host);
            lower.bytes()
        } else {
            request.host
        };
        let done = match request.method {
            Method::Connect => {
                // A client that expected a tunnel may send bytes that are not requests.
                self.close();
                Err(Status::MethodNotAllowed)
            }
            Method::Refused => Err(Status::MethodNotAllowed),
            Method::Unknown => Err(Status::NotImplemented),
            Method::Get | Method::Head | Method::Options if request.body == Body::TooLong => {
                Err(Status::ContentTooLarge)
            }
            Method::Get | Method::Head | Method::Options if request.expect == Expect::Unknown => {
                self.close();
                Err(Status::ExpectationFailed)
            }
            Method::Get | Method::Head | Method::Options => self.serve(request, host),
        };
        if let Err(status) = done {
            // A client that waits for 100 may or may not send its content now (RFC 9110 section 10.1.1), so the next
            // bytes cannot be interpreted.
            if request.body == Body::TooLong || request.expect == Expect::Continue {
                self.close();
            }
            let line = match status {
                Status::MethodNotAllowed => ALLOW,
                _ => b"",
            };
            self.look_up_lines(request, host);
            self.error(host, status, line);
        }
        self.body
    }

    /// Looks up the site's own header lines for the path of a request.
    fn look_up_lines(&mut self, request: &Request<'_, '_>, host: &[u8]) {
        let Target::Resource { path, plain, .. } = request.target else {
            return;
        };
        let decoded = (!plain).then(|| target::decode(path));
        let path = match &decoded {
            None => path,
            Some(Ok(decoded)) => decoded.bytes(),
            Some(Err(_)) => return,
        };
        self.extra = self.site.lines(host, path).unwrap_or_else(|Broken| {
            self.shared.stats.broken += 1;
            b""
        });
    }

    /// Closes the connection after this response, whatever the rest of the request is.
    fn close(&mut self) {
        self.framing.close = true;
        self.body = Body::None;
    }

    fn begin(&mut self, status: Status) {
        let stamp = self.shared.stamp(self.unix_seconds);
        self.response.begin(status, self.framing, stamp);
    }

    /// Answers with an error: with the site's error page, or else with a short text.
    fn error(&mut self, host: &[u8], status: Status, line: &[u8]) {
        self.begin(status);
        self.response.extra = self.extra;
        self.response.own.push(line);
        let page = self.error_page(host, status).unwrap_or_else(|Broken| {
            self.shared.stats.broken += 1;
            None
        });
        let content = match page {
            Some(page) => {
                self.response.lines = page.lines.get(page.common..page.typed).unwrap_or_default();
                page.body
            }
            None => {
                self.response.own.push(b"Content-Type: text/plain\r\n");
                status.text()
            }
        };
        self.response.own.push_length(content.len() as u64);
        self.response.set_content(Content::Site(content));
    }

    /// The site's error page. It is not subject to preconditions, ranges or caching as a file is, so the lines before
    /// `common` are not sent with it.
    fn error_page(&self, host: &[u8], status: Status) -> Result<Option<Variant<'a>>, Broken> {
        let Some(file) = self.site.error_page(host, status.code())? else {
            return Ok(None);
        };
        let page = *negotiate::identity(&file.variants).ok_or(Broken)?;
        let lines = page.lines.get(page.common..page.typed);
        lines.map(|_| Some(page)).ok_or(Broken)
    }

    fn serve(&mut self, request: &Request<'_, '_>, host: &[u8]) -> Result<(), Status> {
        let Target::Resource {
            path, plain, query, ..
        } = request.target
        else {
            self.options();
            return Ok(());
        };
        let decoded;
        let path = if plain {
            path
        } else {
            decoded = target::decode(path).inspect_err(|_| self.close())?;
            decoded.bytes()
        };
        let served = match self.site.resource(host, path) {
            Ok(None) => return Err(Status::NotFound),
            Ok(Some(Resource::Redirect { status, location })) => {
                self.look_up_lines(request, host);
                self.redirect(status, location, query)
            }
            Ok(Some(_)) if request.method == Method::Options => {
                self.look_up_lines(request, host);
                self.options();
                return Ok(());
            }
            Ok(Some(Resource::File(file))) => self.file(request, host, &file),
            Ok(Some(Resource::Rendered { content_type, text })) => {
                self.rendered(request, content_type, text)
            }
            Ok(Some(Resource::Payload(length))) => self.payload(request, length),
            Err(Broken) => Err(Status::InternalServerError),
        };
        if served == Err(Status::InternalServerError) {
            self.shared.stats.broken += 1;
        }
        served
    }

    fn options(&mut self) {
        self.begin(Status::NoContent);
        self.response.extra = self.extra;
        self.response.own.push(ALLOW);
    }

    fn file(
        &mut self,
        request: &Request<'_, '_>,
        host: &[u8],
        file: &File<'a>,
    ) -> Result<(), Status> {
        const BROKEN: Status = Status::InternalServerError;
        let variant = negotiate::choose(request, &file.variants).ok_or(BROKEN)?;
        let validators = Validators {
            etag: Some(variant.etag),
            modified: (file.modified != 0).then_some(file.modified),
        };
        if self.is_settled(request, validators)? {
            self.response.lines = variant.lines.get(..variant.common).ok_or(BROKEN)?;
            return Ok(());
        }
        let lines = variant.lines.get(..variant.typed).ok_or(BROKEN)?;
        let body = variant.body;
        // RFC 9110 section 14.2: for GET, after the other preconditions.
        let ranged = request.ranged && request.method == Method::Get;
        let range = ranged.then(|| request.value("range")).flatten();
        let range = range.filter(|_| {
            conditions::allows_range(request, validators, self.unix_seconds.unwrap_or(0))
        });
        let Some(parts) = range.and_then(|range| range::select(range, body.len())) else {
            self.begin(Status::Ok);
            self.response.own.push_length(body.len() as u64);
            self.response.set_content(Content::Site(body));
            self.response.lines = lines;
            return Ok(());
        };
        match parts.spans() {
            [] => {
                let mut line = Text::<48>::new();
                line.push(b"Content-Range: bytes */");
                line.push_decimal(body.len() as u64);
                line.push(b"\r\n");
                self.look_up_lines(request, host);
                self.error(host, Status::RangeNotSatisfiable, line.bytes());
            }
            [span] => {
                self.begin(Status::PartialContent);
                self.response.set_part(body, *span);
                self.response.lines = lines;
            }
            _ => {
                let content_type = lines.get(variant.encoded..).ok_or(BROKEN)?;
                let lines = lines.get(..variant.encoded).ok_or(BROKEN)?;
                self.begin(Status::PartialContent);
                let seed = self.shared.boundary(self.unix_seconds);
                self.response
                    .set_parts(lines, content_type, body, parts, seed);
            }
        }
        Ok(())
    }

    /// Evaluates the preconditions. Returns whether they have settled the response, with a 304.
    fn is_settled(
        &mut self,
        request: &Request<'_, '_>,
        validators: Validators<'_>,
    ) -> Result<bool, Status> {
        if !request.conditional {
            return Ok(false);
        }
        match conditions::evaluate(request, validators, self.unix_seconds.unwrap_or(0)) {
            Outcome::Proceed => Ok(false),
            Outcome::Failed => Err(Status::PreconditionFailed),
            Outcome::NotModified => {
                self.begin(Status::NotModified);
                Ok(true)
            }
        }
    }

    fn redirect(
        &mut self,
        status: u16,
        location: &'a [u8],
        query: Option<&[u8]>,
    ) -> Result<(), Status> {
        let status = match status {
            301 => Status::MovedPermanently,
            302 => Status::Found,
            307 => Status::TemporaryRedirect,
            308 => Status::PermanentRedirect,
            _ => return Err(Status::InternalServerError),
        };
        let text = status.text();
        let fragment = location.iter().position(|&byte| byte == b'#');
        let (address, fragment) = location
            .split_at_checked(fragment.unwrap_or(location.len()))
            .unwrap_or((location, b""));
        let made = match query {
            Some(query) if !address.contains(&b'?') => {
                let content = if self.framing.head_only { b"" } else { text };
                Some(self.make(&[b"?", query, fragment, b"\r\n\r\n", content])?)
            }
            _ => None,
        };
        self.begin(status);
        (self.response.extra, self.response.name) = (self.extra, b"Location: ");
        let own = &mut self.response.own;
        own.push(b"Content-Type: text/plain\r\n");
        own.push_length(text.len() as u64);
        match made {
            Some(made) => self.response.set_end(address, made),
            None => {
                self.response.lines = location;
                self.response.blank = b"\r\n\r\n";
                self.response.set_content(Content::Site(text));
            }
        }
        Ok(())
    }

    fn payload(&mut self, request: &Request<'_, '_>, length: u64) -> Result<(), Status> {
        if !self.is_settled(request, Validators::NONE)? {
            self.begin(Status::Ok);
            let own = &mut self.response.own;
            own.push(b"Content-Type: application/octet-stream\r\n");
            own.push(NO_STORE);
            own.push_length(length);
            self.response.set_content(Content::Payload(length));
        }
        Ok(())
    }

    fn rendered(
        &mut self,
        request: &Request<'_, '_>,
        content_type: &str,
        text: &dyn fmt::Display,
    ) -> Result<(), Status> {
        if self.is_settled(request, Validators::NONE)? {
            return Ok(());
        }
        let loan = self.memory(RENDERED_MAX)?;
        write!(Page(&loan), "{text}").map_err(|_| Status::ServiceUnavailable)?;
        let length = loan.bytes().map_or(0, |bytes| bytes.len());
        self.begin(Status::Ok);
        let own = &mut self.response.own;
        own.push(b"Content-Type: ");
        own.push(content_type.as_bytes());
        own.push(b"\r\n");
        own.push(NO_STORE);
        own.push_length(length as u64);
        self.response.set_content(Content::Made(Made::new(loan)));
        Ok(())
    }

    /// Borrows memory for content that is made for one response. Such a response does not wait for the content of its
    /// request: otherwise others would have to wait too.
    fn memory(&mut self, length: usize) -> Result<Loan, Status> {
        let loan = self.shared.loans.lend(length);
        let loan = loan.ok_or(Status::ServiceUnavailable)?;
        if self.body != Body::None {
            self.close();
        }
        Ok(loan)
    }

    fn make(&mut self, parts: &[&[u8]]) -> Result<Content<'a>, Status> {
        let length = parts.iter().map(|part| part.len()).sum();
        let loan = self.memory(length)?;
        for part in parts {
            loan.push(part).ok_or(Status::ServiceUnavailable)?;
        }
        Ok(Content::Made(Made::new(loan)))
    }
}

/// A page that is being written into a loan and does not grow beyond it.
struct Page<'l>(&'l Loan);

impl Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.0.push(text.as_bytes()) {
            Some(length) if length == text.len() => Ok(()),
            _ => Err(fmt::Error),
        }
    }
}
