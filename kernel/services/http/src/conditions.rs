//! Preconditions (RFC 9110 section 13).

use super::request::Request;
use mayfly_site::date::parse_http_date;

/// The validators of a selected representation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validators<'a> {
    /// A strong entity tag, with its quotes.
    pub(super) etag: Option<&'a [u8]>,
    /// The date of the last modification, in seconds since 1970. Within one site, content cannot change twice in that
    /// second without another entity tag, so the date is a strong validator too (section 8.8.2.2).
    pub(super) modified: Option<u64>,
}

impl Validators<'_> {
    /// The validators of content that is made for each request: none.
    pub(super) const NONE: Self = Self {
        etag: None,
        modified: None,
    };
}

/// The result of the preconditions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The request is answered as if it had no precondition.
    Proceed,
    /// The answer is 304.
    NotModified,
    /// The answer is 412.
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD in the order of RFC 9110 section 13.2.2, but for `If-Range`.
pub(super) fn evaluate(
    request: &Request<'_, '_>,
    validators: Validators<'_>,
    unix_seconds: u64,
) -> Outcome {
    let date = |name| parse_http_date(request.value(name)?, unix_seconds);
    let mut tags = request.values("if-match").peekable();
    if tags.peek().is_some() {
        if !tags.any(|value| lists(value, validators.etag, Comparison::Strong)) {
            return Outcome::Failed;
        }
    } else if let (Some(date), Some(modified)) = (date("if-unmodified-since"), validators.modified)
        && modified > date
    {
        return Outcome::Failed;
    }
    let mut tags = request.values("if-none-match").peekable();
    if tags.peek().is_some() {
        if tags.any(|value| lists(value, validators.etag, Comparison::Weak)) {
            return Outcome::NotModified;
        }
    } else if let (Some(date), Some(modified)) = (date("if-modified-since"), validators.modified)
        && modified <= date
    {
        return Outcome::NotModified;
    }
    Outcome::Proceed
}

/// Whether `If-Range` lets `Range` have its effect (section 13.1.5).
pub(super) fn allows_range(
    request: &Request<'_, '_>,
    validators: Validators<'_>,
    unix_seconds: u64,
) -> bool {
    let mut values = request.values("if-range");
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value @ [b'"', ..]), None) => Some(value) == validators.etag,
        (Some(value), None) => {
            let date = parse_http_date(value, unix_seconds);
            date.is_some() && date == validators.modified
        }
        _ => false,
    }
}

/// The comparison of entity tags (section 8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags, or `*`, matches. Malformed values match nothing.
fn lists(value: &[u8], etag: Option<&[u8]>, comparison: Comparison) -> bool {
    if value == b"*" {
        return true;
    }
    let Some(etag) = etag else {
        return false;
    };
    let mut rest = value;
    loop {
        while let [b' ' | b'\t' | b',', tail @ ..] = rest {
            rest = tail;
        }
        let weak = rest.strip_prefix(b"W/");
        let tag = weak.unwrap_or(rest);
        let Some(end) = tag
            .strip_prefix(b"\"")
            .and_then(|opaque| opaque.iter().position(|&byte| byte == b'"'))
        else {
            return false;
        };
        let Some((tag, tail)) = tag.split_at_checked(end + 2) else {
            return false;
        };
        if tag == etag && (weak.is_none() || comparison == Comparison::Weak) {
            return true;
        }
        // After a tag comes a comma or the end.
        rest = tail.trim_ascii_start();
        if rest.first() != Some(&b',') {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags() {
        for (value, weak, strong) in [
            ("*", true, true),
            ("\"a\"", true, true),
            ("W/\"a\"", true, false),
            ("w/\"a\"", false, false),
            ("\"b\", \"a\"", true, true),
            ("\"b\",,\t,\"a\"", true, true),
            ("\"b,\"a\"", false, false),
            ("\"x, \"a\"", false, false),
            ("\", \", \"a\"", true, true),
            ("W/\"b\" , W/\"a\"", true, false),
            ("\"b\" \"a\"", false, false),
            ("a", false, false),
            ("\"a", false, false),
            ("a\"", false, false),
            ("*, \"a\"", false, false),
            ("\"A\"", false, false),
            ("", false, false),
            (", ,", false, false),
        ] {
            let lists = |comparison| lists(value.as_bytes(), Some(b"\"a\""), comparison);
            assert_eq!(lists(Comparison::Weak), weak, "{value}");
            assert_eq!(lists(Comparison::Strong), strong, "{value}");
        }
        assert!(lists(b"*", None, Comparison::Strong));
        assert!(!lists(b"\"a\"", None, Comparison::Weak));
    }
}
