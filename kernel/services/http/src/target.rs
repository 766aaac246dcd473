//! Request targets and hosts (RFC 9112 section 3.2, RFC 9110 section 4, RFC 3986).

use super::bytes::{NAME, SPECIAL, is};
use super::status::Status;

/// The longest decoded path that had escapes, dot segments or empty segments, in bytes.
const DECODED_MAX: usize = 1024;
/// The longest host name, in bytes.
const HOST_MAX: usize = 255;

/// The target of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'i> {
    /// The server as a whole (`*`).
    Asterisk,
    /// A path on a host.
    Resource {
        /// The host, when the target has one.
        host: Option<&'i [u8]>,
        /// The path, still escaped.
        path: &'i [u8],
        /// Whether [`decode`] would change nothing.
        plain: bool,
        /// The query, after the question mark, if there is one.
        query: Option<&'i [u8]>,
    },
}

/// Parses origin-form, absolute-form and asterisk-form.
pub(super) fn parse(target: &[u8]) -> Result<Target<'_>, Status> {
    match target {
        [b'/', ..] => resource(None, target),
        b"*" => Ok(Target::Asterisk),
        _ => absolute(target),
    }
}

fn absolute(target: &[u8]) -> Result<Target<'_>, Status> {
    let colon = target.iter().position(|&byte| byte == b':');
    let (scheme, rest) = colon
        .and_then(|colon| target.split_at_checked(colon))
        .ok_or(Status::BadRequest)?;
    let rest = rest.strip_prefix(b"://").ok_or(Status::BadRequest)?;
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    if !scheme.first().is_some_and(u8::is_ascii_alphabetic) || !scheme.iter().all(is_scheme) {
        return Err(Status::BadRequest);
    }
    let end = rest.iter().position(|byte| b"/?#".contains(byte));
    let (host, path) = rest
        .split_at_checked(end.unwrap_or(rest.len()))
        .ok_or(Status::BadRequest)?;
    // RFC 9110 section 4.2.1: an `http` URI without a host is invalid.
    let host = authority(host)
        .filter(|host| !host.is_empty())
        .ok_or(Status::BadRequest)?;
    // RFC 9110 section 7.4: a request with another scheme was meant for another server.
    if !scheme.eq_ignore_ascii_case(b"http") {
        return Err(Status::MisdirectedRequest);
    }
    resource(Some(host), path)
}

fn resource<'i>(host: Option<&'i [u8]>, target: &'i [u8]) -> Result<Target<'i>, Status> {
    let mut plain = true;
    let mut mark = None;
    for (at, &byte) in target.iter().enumerate() {
        if !is(byte, SPECIAL) {
            continue;
        }
        match byte {
            b'?' if mark.is_none() => mark = Some(at),
            _ if mark.is_some() && b"?/%".contains(&byte) => {}
            b'/' => plain &= !matches!(target.get(at + 1), Some(b'/' | b'.')),
            b'%' => plain = false,
            // White space, a control character, or a fragment, which is never sent.
            _ => return Err(Status::BadRequest),
        }
    }
    let (path, query) = match mark {
        None => (target, None),
        Some(mark) => (
            target.get(..mark).unwrap_or_default(),
            target.get(mark + 1..),
        ),
    };
    Ok(Target::Resource {
        host,
        // RFC 9110 section 4.2.3.
        path: if path.is_empty() { b"/" } else { path },
        plain,
        query,
    })
}

/// The host in `uri-host [ ":" port ]`, without the dot of the root; empty when there is none.
/// User information is an error (RFC 9110 section 4.2.4).
pub(super) fn authority(value: &[u8]) -> Option<&[u8]> {
    let (host, port) = if value.first() == Some(&b'[') {
        let end = value.iter().position(|&byte| byte == b']')?;
        let (host, port) = value.split_at_checked(end + 1)?;
        let address = core::str::from_utf8(host.get(1..end)?).ok()?;
        address.parse::<core::net::Ipv6Addr>().ok()?;
        (host, port)
    } else {
        let end = value.iter().position(|&byte| byte == b':');
        let (host, port) = value.split_at_checked(end.unwrap_or(value.len()))?;
        if !is_reg_name(host) {
            return None;
        }
        (host.strip_suffix(b".").unwrap_or(host), port)
    };
    let port = match port {
        [b':', digits @ ..] => digits,
        [] => b"",
        _ => return None,
    };
    let is_port = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    let nowhere = host.is_empty() && value.first() == Some(&b':');
    (is_port && host.len() <= HOST_MAX && !nowhere).then_some(host)
}

/// `reg-name` of RFC 3986 section 3.2.2, which includes IPv4 addresses.
fn is_reg_name(value: &[u8]) -> bool {
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        rest = match (byte, tail) {
            (byte, tail) if is(*byte, NAME) => tail,
            (b'%', [high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                tail
            }
            _ => return false,
        };
    }
    true
}

/// A short buffer of converted bytes.
#[derive(Debug)]
pub(super) struct Short<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Short<N> {
    fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        Some(())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A host in lower case.
pub(super) fn lower_case(host: &[u8]) -> Short<HOST_MAX> {
    let mut made = Short::new();
    for byte in host {
        // There is room: `authority` accepts no longer host.
        let _ = made.push(byte.to_ascii_lowercase());
    }
    made
}

/// Decodes percent-encoding, but not that of `/`, which would change the path (it becomes `%2F`). Then removes dot
/// segments (RFC 3986 section 5.2.4) and empty segments. No path leads out of the root.
pub(super) fn decode(path: &[u8]) -> Result<Short<DECODED_MAX>, Status> {
    let mut made = Short::new();
    let push = |made: &mut Short<DECODED_MAX>, byte| made.push(byte).ok_or(Status::UriTooLong);
    push(&mut made, b'/')?;
    let mut segments = path
        .get(1..)
        .unwrap_or_default()
        .split(|&byte| byte == b'/');
    let mut next = segments.next();
    while let Some(segment) = next {
        next = segments.next();
        let start = made.length;
        let mut rest = segment;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            if byte != b'%' {
                push(&mut made, byte)?;
                continue;
            }
            let ([high, low], tail) = tail.split_first_chunk().ok_or(Status::BadRequest)?;
            rest = tail;
            match hex(*high)? << 4 | hex(*low)? {
                0 => return Err(Status::BadRequest),
                b'/' => b"%2F".iter().try_for_each(|&byte| push(&mut made, byte))?,
                byte => push(&mut made, byte)?,
            }
        }
        match made.bytes.get(start..made.length) {
            Some(b"" | b".") => made.length = start,
            Some(b"..") => {
                // Go back to just after the slash before the last.
                let above = made.bytes.get(..start.saturating_sub(1));
                let slash = above.and_then(|above| above.iter().rposition(|&o| o == b'/'));
                made.length = slash.ok_or(Status::BadRequest)? + 1;
            }
            _ if next.is_some() => push(&mut made, b'/')?,
            _ => {}
        }
    }
    Ok(made)
}

fn hex(digit: u8) -> Result<u8, Status> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Status::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/", Ok("/")),
            ("/a%20b", Ok("/a b")),
            ("/%61/%62/", Ok("/a/b/")),
            ("/a%2fb%2Fc", Ok("/a%2Fb%2Fc")),
            ("/a/./b/../c", Ok("/a/c")),
            ("/a/..", Ok("/")),
            ("/a/b/..", Ok("/a/")),
            ("/a/.", Ok("/a/")),
            ("/a/%2e%2E/b", Ok("/b")),
            ("//a///b//", Ok("/a/b/")),
            ("/...", Ok("/...")),
            ("/.a/..b", Ok("/.a/..b")),
            ("/..%2f..", Ok("/..%2F..")),
            ("/%252e", Ok("/%2e")),
            ("/..", Err(Status::BadRequest)),
            ("/a/../..", Err(Status::BadRequest)),
            ("/%2e%2e/etc", Err(Status::BadRequest)),
            ("/a//../../b", Err(Status::BadRequest)),
            ("/%", Err(Status::BadRequest)),
            ("/%0", Err(Status::BadRequest)),
            ("/%00", Err(Status::BadRequest)),
            ("/%0g", Err(Status::BadRequest)),
            ("/%-1", Err(Status::BadRequest)),
        ] {
            let made = decode(path.as_bytes());
            let bytes = made.as_ref().map(Short::bytes).map_err(|status| *status);
            assert_eq!(bytes, expected.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn decoded_paths_have_a_bound() {
        let mut path = [b'a'; DECODED_MAX];
        path[0] = b'/';
        assert_eq!(decode(&path).unwrap().bytes(), path);
        let mut longer = [b'a'; DECODED_MAX + 1];
        longer[0] = b'/';
        assert_eq!(decode(&longer).unwrap_err(), Status::UriTooLong);
    }

    #[test]
    fn hosts() {
        for (value, host) in [
            ("", Some("")),
            ("a", Some("a")),
            ("A.b:80", Some("A.b")),
            ("a.:", Some("a")),
            ("192.0.2.1:8080", Some("192.0.2.1")),
            ("[2001:db8::1]:80", Some("[2001:db8::1]")),
            ("[::]", Some("[::]")),
            ("%61", Some("%61")),
            (":80", None),
            ("[::1", None),
            ("[::g]", None),
            ("[::1]a", None),
            ("::1", None),
            ("a:b", None),
            ("a:123456", None),
            ("a:80:80", None),
            ("u@a", None),
            ("a/b", None),
            ("a b", None),
            ("a%6", None),
            ("\u{e4}", None),
        ] {
            assert_eq!(
                authority(value.as_bytes()),
                host.map(str::as_bytes),
                "{value}"
            );
        }
    }

    #[test]
    fn targets() {
        for (target, expected) in [
            ("/", Ok((None, "/", true, None))),
            ("/a?b?/..", Ok((None, "/a", true, Some("b?/..")))),
            ("/?", Ok((None, "/", true, Some("")))),
            ("//a", Ok((None, "//a", false, None))),
            ("/.a", Ok((None, "/.a", false, None))),
            ("http://a", Ok((Some("a"), "/", true, None))),
            ("HTTP://A:80?q", Ok((Some("A"), "/", true, Some("q")))),
            ("http://a/b%20", Ok((Some("a"), "/b%20", false, None))),
            ("https://a/", Err(Status::MisdirectedRequest)),
            ("http:///", Err(Status::BadRequest)),
            ("http://:80/", Err(Status::BadRequest)),
            ("http://u@a/", Err(Status::BadRequest)),
            ("http:/a", Err(Status::BadRequest)),
            ("1a://b", Err(Status::BadRequest)),
            ("a", Err(Status::BadRequest)),
            ("", Err(Status::BadRequest)),
            ("/#", Err(Status::BadRequest)),
            ("/?#", Err(Status::BadRequest)),
            ("/\t", Err(Status::BadRequest)),
            ("/?a\x7f", Err(Status::BadRequest)),
            ("/?a\r", Err(Status::BadRequest)),
            (
                "/\u{e4}?\u{e4}",
                Ok((None, "/\u{e4}", true, Some("\u{e4}"))),
            ),
            ("http://a#b", Err(Status::BadRequest)),
        ] {
            let expected = expected.map(|(host, path, plain, query)| Target::Resource {
                host: host.map(str::as_bytes),
                path: path.as_bytes(),
                plain,
                query: query.map(str::as_bytes),
            });
            assert_eq!(parse(target.as_bytes()), expected, "{target}");
        }
        assert_eq!(parse(b"*"), Ok(Target::Asterisk));
    }
}
