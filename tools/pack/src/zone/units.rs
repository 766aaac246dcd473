//! What is looked at in a master file before the parser has it.
//!
//! A free-standing `@` in RDATA becomes the origin (RFC 1035 section 5.1), which the parser knows of owners alone. Tokens that touch are parted. Times such as `1h30m`, which master files have by custom, become seconds: RFC 1035 knows seconds alone, and so does the parser; BIND, NSD and Knot read units where a time
//! stands: after `$TTL`, before a type, and in SOA.

use std::borrow::Cow;

/// A text that was looked at.
pub(super) struct Scanned<'a> {
    /// With origins in place, all times in seconds and tokens parted; lines stay the same.
    pub(super) text: Cow<'a, [u8]>,
    /// Where the entry begins that the text ends in, because a parenthesis or a quote is open, in the text as it
    /// was: the parser panics at such an end.
    pub(super) open: Option<usize>,
}

/// Looks at a text that begins below `origin`, a name with its last dot.
pub(super) fn scan<'a>(text: &'a [u8], origin: &str) -> Scanned<'a> {
    let mut origin = origin.as_bytes().to_vec();
    let mut out = Vec::new();
    let mut copied = 0;
    let mut start = 0;
    let mut quoted = false;
    let mut entry = Entry::default();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        match octet {
            b'\n' => {
                if depth == 0 {
                    entry = Entry::default();
                    entry.indented = matches!(text.get(at + 1), Some(b' ' | b'\t'));
                    start = at + 1;
                }
                at += 1;
            }
            b'(' => {
                depth += 1;
                at += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b';' => at += until(&text[at..], |octet| octet == b'\n'),
            b' ' | b'\t' | b'\r' => {
                entry.indented |= at == 0;
                at += 1;
            }
            b'"' => {
                let length = self::quoted(&text[at + 1..]);
                quoted = length.is_none();
                at = length.map_or(text.len(), |length| at + 1 + length);
                entry.token(b"");
                if touches(text, at, b"") {
                    out.extend_from_slice(&text[copied..at]);
                    out.push(b' ');
                    copied = at;
                }
            }
            _ => {
                let length = token(&text[at..]);
                let token = &text[at..at + length];
                let may_be_time = entry.token(token);
                if may_be_time && let Some(seconds) = seconds(token) {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(seconds.to_string().as_bytes());
                    copied = at + length;
                } else if token == b"@" && entry.has_names {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(&origin);
                    copied = at + length;
                } else if entry.is_origin && entry.tokens == 2 {
                    origin = below(token, &origin);
                }
                at += length;
                if touches(text, at, token) {
                    out.extend_from_slice(&text[copied..at]);
                    out.push(b' ');
                    copied = at;
                }
            }
        }
    }
    let open = (depth > 0 || quoted).then_some(start);
    if copied == 0 {
        let text = Cow::Borrowed(text);
        return Scanned { text, open };
    }
    out.extend_from_slice(&text[copied..]);
    let text = Cow::Owned(out);
    Scanned { text, open }
}

/// Whether another token begins right behind one: the parser takes them for two, but has no room for the
/// second. Only a value of SVCB belongs to what is before it (RFC 9460 section 2.1).
fn touches(text: &[u8], at: usize, token: &[u8]) -> bool {
    let next = text.get(at);
    let ends = |octet: &u8| b" \t\r\n();".contains(octet);
    next.is_some_and(|octet| !ends(octet)) && !token.ends_with(b"=")
}

/// How many octets come before one that ends something.
fn until(text: &[u8], ends: impl Fn(u8) -> bool) -> usize {
    let end = text.iter().position(|&octet| ends(octet));
    end.unwrap_or(text.len())
}

/// The octets of a token, escapes included.
fn token(text: &[u8]) -> usize {
    let mut length = 0;
    while let Some(octet) = text.get(length) {
        match octet {
            b'\\' => length += 2,
            b' ' | b'\t' | b'\r' | b'\n' | b'(' | b')' | b';' | b'"' => break,
            _ => length += 1,
        }
    }
    length.min(text.len())
}

/// The octets up to and with the closing quote.
fn quoted(text: &[u8]) -> Option<usize> {
    let mut length = 0;
    loop {
        length += match text.get(length)? {
            b'\\' => 2,
            b'"' => return Some(length + 1),
            _ => 1,
        };
    }
}

/// A name of a master file with its last dot.
fn below(name: &[u8], origin: &[u8]) -> Vec<u8> {
    let escapes = name
        .strip_suffix(b".")
        .map(|head| head.iter().rev().take_while(|&&o| o == b'\\').count());
    match escapes {
        Some(count) if count % 2 == 0 => name.to_vec(),
        _ if origin == b"." => [name, b"."].concat(),
        _ => [name, b".", origin].concat(),
    }
}

/// Where in an entry a token is.
#[derive(Default)]
struct Entry {
    indented: bool,
    tokens: usize,
    place: Place,
    /// It is `$ORIGIN`.
    is_origin: bool,
    /// Names follow, in which `@` is the origin; elsewhere it is a text.
    has_names: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// After `$TTL`.
    Ttl,
    /// Before the type.
    Front,
    /// In SOA, after so many tokens.
    Soa(usize),
    /// Where there is no time.
    Elsewhere,
}

impl Entry {
    /// Takes the next token; whether it may be a time.
    fn token(&mut self, token: &[u8]) -> bool {
        self.tokens += 1;
        match self.place {
            Place::Start if token.first() == Some(&b'$') => {
                self.is_origin = token.eq_ignore_ascii_case(b"$ORIGIN");
                self.has_names = self.is_origin || token.eq_ignore_ascii_case(b"$INCLUDE");
                self.place = if token.eq_ignore_ascii_case(b"$TTL") {
                    Place::Ttl
                } else {
                    Place::Elsewhere
                };
                false
            }
            Place::Start if !self.indented => {
                self.place = Place::Front;
                false
            }
            Place::Start | Place::Front => {
                self.place = Place::Front;
                self.has_names = has_names(token);
                if token.eq_ignore_ascii_case(b"SOA") {
                    self.place = Place::Soa(0);
                } else if !is_class(token) && seconds(token).is_none() && !is_number(token) {
                    self.place = Place::Elsewhere;
                }
                true
            }
            Place::Ttl => {
                self.place = Place::Elsewhere;
                true
            }
            Place::Soa(before) => {
                self.place = Place::Soa(before + 1);
                // MNAME, RNAME and the serial are no times.
                before >= 3
            }
            Place::Elsewhere => false,
        }
    }
}

/// Whether RDATA of a type has a name in it that may be `@`.
fn has_names(rtype: &[u8]) -> bool {
    let types = [
        "NS", "CNAME", "DNAME", "PTR", "MX", "SRV", "SOA", "RP", "AFSDB", "KX", "RT", "MB", "MD",
        "MF", "MG", "MR", "MINFO", "NAPTR", "SVCB", "HTTPS", "NSEC", "RRSIG",
    ];
    types
        .iter()
        .any(|name| rtype.eq_ignore_ascii_case(name.as_bytes()))
}

fn is_class(token: &[u8]) -> bool {
    [&b"IN"[..], b"CH", b"HS"]
        .iter()
        .any(|class| token.eq_ignore_ascii_case(class))
}

fn is_number(token: &[u8]) -> bool {
    token.iter().all(u8::is_ascii_digit)
}

/// A time with units, in seconds.
fn seconds(token: &[u8]) -> Option<u32> {
    if !token.first()?.is_ascii_digit() || is_number(token) {
        return None;
    }
    let mut all = 0_u32;
    let mut number = 0_u32;
    let mut digits = false;
    for octet in token {
        if octet.is_ascii_digit() {
            number = number
                .checked_mul(10)?
                .checked_add(u32::from(octet - b'0'))?;
            digits = true;
            continue;
        }
        let unit = match octet.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        if !digits {
            return None;
        }
        all = all.checked_add(number.checked_mul(unit)?)?;
        (number, digits) = (0, false);
    }
    all.checked_add(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_times_are() {
        for (text, wanted) in [
            ("$TTL 1h\n", "$TTL 3600\n"),
            ("$ttl 1H30m5 ; 2h\n", "$ttl 5405 ; 2h\n"),
            ("$ORIGIN 1h\n", "$ORIGIN 1h\n"),
            ("1h 1d IN A 1.2.3.4\n", "1h 86400 IN A 1.2.3.4\n"),
            ("a IN 1w TXT 1h \"1h\"\n", "a IN 604800 TXT 1h \"1h\"\n"),
            ("  2m A 1.2.3.4\n", "  120 A 1.2.3.4\n"),
            ("a A 1.2.3.4\n 2m A 1.2.3.4", "a A 1.2.3.4\n 120 A 1.2.3.4"),
            (
                "@ SOA 1h 1d ( 1\n 1h ; (\n 1m 1w 5 ) ; 1h\na 1h A 1.1.1.1",
                "@ SOA 1h 1d ( 1\n 3600 ; (\n 60 604800 5 ) ; 1h\na 3600 A 1.1.1.1",
            ),
            ("a 99999999w A 1.1.1.1", "a 99999999w A 1.1.1.1"),
            ("a TYPE99 \\# 1 1d", "a TYPE99 \\# 1 1d"),
            ("a CNAME 1h\n", "a CNAME 1h\n"),
            (
                "a TXT x\"y\"\"\"z(\"1\")\n",
                "a TXT x \"y\" \"\" z(\"1\")\n",
            ),
            ("a SVCB 1 . alpn=\"h2\"\n", "a SVCB 1 . alpn=\"h2\"\n"),
            (
                "a TXT \"\\\"\n1h\" 1h\nb 1h A 1.1.1.1",
                "a TXT \"\\\"\n1h\" 1h\nb 3600 A 1.1.1.1",
            ),
        ] {
            let got = scan(text.as_bytes(), "test.");
            assert_eq!(String::from_utf8_lossy(&got.text), wanted);
            assert_eq!(got.open, None);
        }
    }

    #[test]
    fn the_origin_where_names_are() {
        for (text, wanted) in [
            ("www CNAME @\n", "www CNAME test.\n"),
            ("@ 1d IN MX 10 @", "@ 86400 IN MX 10 test."),
            (
                "@ SOA @ @ ( 1\n@ 1 1 1 )",
                "@ SOA test. test. ( 1\ntest. 1 1 1 )",
            ),
            ("@ TXT @ \"@\"", "@ TXT @ \"@\""),
            ("a CNAME \\@", "a CNAME \\@"),
            ("a CNAME @b", "a CNAME @b"),
            (
                "$ORIGIN a\n@ NS @\n$ORIGIN b.test.\n@ NS @\n$ORIGIN @\n NS @",
                "$ORIGIN a\n@ NS a.test.\n$ORIGIN b.test.\n@ NS b.test.\n$ORIGIN b.test.\n NS b.test.",
            ),
            ("$ORIGIN a\\.\n@ NS @", "$ORIGIN a\\.\n@ NS a\\..test."),
            ("$ORIGIN .\na NS @", "$ORIGIN .\na NS ."),
            ("$INCLUDE f @", "$INCLUDE f test."),
        ] {
            let got = scan(text.as_bytes(), "test.");
            assert_eq!(String::from_utf8_lossy(&got.text), wanted);
        }
        assert_eq!(
            &*scan(b"$ORIGIN a\n@ NS @", ".").text,
            b"$ORIGIN a\n@ NS a."
        );
    }

    #[test]
    fn entries_that_stay_open() {
        for (text, open) in [
            ("a ( A", Some(0)),
            ("b A\na ( ( ) A ; )\n\")\"", Some(4)),
            ("b A\na ( \n ) A (", Some(4)),
            ("b (\n) A\na \"\n\\\"", Some(8)),
            ("a \\( A", None),
            ("a ) A", None),
            ("a \"(\" ; (", None),
        ] {
            assert_eq!(scan(text.as_bytes(), "test.").open, open, "{text}");
        }
    }
}
