//! Parameters of SVCB and HTTPS (RFC 9460 section 2).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::BASE64;

use super::cursor::{Cursor, bytes, decimal, not};
use super::plain::address;
use super::scan::{Token, Wrong};
use super::text::quoted;
use super::types::numbered;

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;
const DOHPATH: u16 = 7;
const OHTTP: u16 = 8;
const TLS_SUPPORTED_GROUPS: u16 = 9;
/// "Invalid key" (RFC 9460 section 14.3.2).
const INVALID: u16 = 65_535;

/// Keys with names (IANA's registry "DNS SVCB Service Parameter Keys (SvcParamKeys)").
const KEYS: [(u16, &str); 10] = [
    (MANDATORY, "mandatory"),
    (ALPN, "alpn"),
    (NO_DEFAULT_ALPN, "no-default-alpn"),
    (PORT, "port"),
    (IPV4HINT, "ipv4hint"),
    (ECH, "ech"),
    (IPV6HINT, "ipv6hint"),
    (DOHPATH, "dohpath"),
    (OHTTP, "ohttp"),
    (TLS_SUPPORTED_GROUPS, "tls-supported-groups"),
];

/// A key, and whether its value has the form of the key. A key that is given by its number has a value of bytes
/// (section 2.1).
fn key(text: &[u8]) -> Option<(u16, bool)> {
    let named = KEYS.iter().find(|(_, name)| name.as_bytes() == text);
    if let Some((number, _)) = named {
        return Some((*number, true));
    }
    let digits = text.strip_prefix(b"key")?;
    let canonical = digits.len() == 1 || !digits.starts_with(b"0");
    let number = numbered(text, "key").filter(|_| canonical && !digits.is_empty())?;
    (number != INVALID).then_some((number, false))
}

fn key_name(number: u16) -> String {
    let named = KEYS.iter().find(|(known, _)| *known == number);
    named.map_or_else(|| format!("key{number}"), |(_, name)| (*name).to_owned())
}

/// Reads parameters up to the end of the record, in any order.
pub(super) fn scan(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut parameters: BTreeMap<u16, (Token<'_>, Vec<u8>)> = BTreeMap::new();
    while from.peek().is_some() {
        let token = from.word("a parameter as KEY or KEY=VALUE")?;
        let (name, value) = match token.text.iter().position(|byte| *byte == b'=') {
            Some(at) => (&token.text[..at], Some(&token.text[at + 1..])),
            None => (token.text, None),
        };
        let Some((number, by_name)) = key(name) else {
            let expected =
                "the name of a parameter in lower case, or `key` and a number below 65535";
            return Err(not(token, expected));
        };
        // A value in quotes is a token of its own.
        let value = match value {
            Some([]) if from.peek().is_some_and(|next| next.quoted && next.joined) => {
                from.take().copied()
            }
            Some(text) => Some(Token { text, ..*token }),
            None => None,
        };
        let value = value.as_ref().map(bytes).transpose()?;
        let name = key_name(number);
        let wire = match (by_name, value) {
            (true, value) => from_text(number, value.as_deref()),
            (false, value) => Ok(value.unwrap_or_default()),
        };
        let wire = wire.and_then(|wire| valid(number, &wire).map(|()| wire));
        let wire = wire.map_err(|what| Wrong::new(token.place, format!("`{name}` {what}")))?;
        if parameters.insert(number, (*token, wire)).is_some() {
            return Err(Wrong::new(token.place, format!("`{name}` is repeated")));
        }
    }
    consistent(&parameters)?;
    for (number, (token, value)) in parameters {
        let length = u16::try_from(value.len());
        let length = length.map_err(|_| Wrong::new(token.place, "its value is too long"))?;
        out.extend(number.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(value);
    }
    Ok(())
}

/// Checks the dependencies between parameters (RFC 9460 sections 7.1.1 and 8).
fn consistent(parameters: &BTreeMap<u16, (Token<'_>, Vec<u8>)>) -> Result<(), Wrong> {
    if let Some((token, mandatory)) = parameters.get(&MANDATORY) {
        for number in numbers(mandatory) {
            if !parameters.contains_key(&number) {
                let what = format!(
                    "`mandatory` names `{}`, which is not there",
                    key_name(number)
                );
                return Err(Wrong::new(token.place, what));
            }
        }
    }
    match parameters.get(&NO_DEFAULT_ALPN) {
        Some((token, _)) if !parameters.contains_key(&ALPN) => Err(Wrong::new(
            token.place,
            "`no-default-alpn` needs `alpn` beside it",
        )),
        _ => Ok(()),
    }
}

/// Encodes the value of a key that was written by its name.
fn from_text(number: u16, value: Option<&[u8]>) -> Result<Vec<u8>, String> {
    if matches!(number, NO_DEFAULT_ALPN | OHTTP) {
        let empty = value.is_none_or(<[u8]>::is_empty);
        return empty
            .then(Vec::new)
            .ok_or_else(|| "has no value".to_owned());
    }
    let value = value
        .filter(|value| !value.is_empty())
        .ok_or("needs a value")?;
    let text = std::str::from_utf8(value);
    let each = |one: &dyn Fn(&str) -> Option<Vec<u8>>| {
        let parts = text.ok()?.split(',').map(one);
        parts
            .collect::<Option<Vec<_>>>()
            .map(|parts| parts.concat())
    };
    let port = |text: &str| number16(text).map(|number| number.to_be_bytes().to_vec());
    let found = match number {
        MANDATORY => {
            let mut keys = Vec::new();
            for name in value.split(|byte| *byte == b',') {
                keys.push(
                    key(name)
                        .ok_or("lists keys by their names, with commas between")?
                        .0,
                );
            }
            keys.sort_unstable();
            Some(keys.into_iter().flat_map(u16::to_be_bytes).collect())
        }
        ALPN => Some(protocols(value)?),
        PORT => text.ok().and_then(port),
        IPV4HINT => each(&|text| Some(text.parse::<Ipv4Addr>().ok()?.octets().to_vec())),
        IPV6HINT => each(&|text| Some(text.parse::<Ipv6Addr>().ok()?.octets().to_vec())),
        TLS_SUPPORTED_GROUPS => each(&port),
        ECH => BASE64.decode(value).ok(),
        _ => Some(value.to_vec()),
    };
    found.ok_or_else(|| {
        let expected = match number {
            PORT => "a number from 0 to 65535",
            IPV4HINT => "IPv4 addresses with commas between",
            IPV6HINT => "IPv6 addresses with commas between",
            TLS_SUPPORTED_GROUPS => "numbers from 0 to 65535 with commas between",
            _ => "bytes in base 64",
        };
        format!("expects {expected}")
    })
}

fn number16(text: &str) -> Option<u16> {
    decimal(text.as_bytes()).and_then(|number| u16::try_from(number).ok())
}

/// Encodes a list of protocols, in which `\,` and `\\` are a comma and a backslash (RFC 9460 appendix A.1).
fn protocols(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut items = vec![Vec::new()];
    let mut rest = value.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b',' => items.push(Vec::new()),
            b'\\' => match rest.next() {
                Some(escaped @ (b',' | b'\\')) => push(&mut items, *escaped),
                _ => return Err("has `\\` before another than `,` and `\\`".to_owned()),
            },
            byte => push(&mut items, *byte),
        }
    }
    let mut out = Vec::new();
    for item in items {
        let length = u8::try_from(item.len()).ok().filter(|length| *length > 0);
        out.push(length.ok_or("lists protocols of 1 to 255 bytes")?);
        out.extend(item);
    }
    Ok(out)
}

fn push(items: &mut [Vec<u8>], byte: u8) {
    if let Some(last) = items.last_mut() {
        last.push(byte);
    }
}

/// Checks that bytes are a value of a key.
fn valid(number: u16, value: &[u8]) -> Result<(), String> {
    let whole = |size: usize| !value.is_empty() && value.len().is_multiple_of(size);
    let right = match number {
        MANDATORY => {
            let keys: Vec<u16> = numbers(value).collect();
            whole(2)
                && keys.first() != Some(&MANDATORY)
                && keys.is_sorted_by(|one, other| one < other)
        }
        ALPN => {
            let mut rest = value;
            while let [length @ 1..=255, tail @ ..] = rest {
                match tail.get(usize::from(*length)..) {
                    Some(after) => rest = after,
                    None => break,
                }
            }
            rest.is_empty() && !value.is_empty()
        }
        NO_DEFAULT_ALPN | OHTTP => value.is_empty(),
        PORT => value.len() == 2,
        IPV4HINT => whole(4),
        IPV6HINT => whole(16),
        TLS_SUPPORTED_GROUPS => whole(2),
        ECH => !value.is_empty(),
        DOHPATH => std::str::from_utf8(value).is_ok_and(|text| text.contains("dns")),
        _ => true,
    };
    let what = match number {
        MANDATORY => "lists other keys, each once",
        DOHPATH => "is a URI template in UTF-8 with the variable `dns` (RFC 9461)",
        _ => "has a value that is not of its form",
    };
    right.then_some(()).ok_or_else(|| what.to_owned())
}

/// Pairs of bytes as numbers.
fn numbers(value: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let pairs = value.chunks_exact(2);
    pairs.map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// The first parameter (key and value), and the bytes after it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let [high, low, length_high, length_low, rest @ ..] = bytes else {
        return None;
    };
    let length = u16::from_be_bytes([*length_high, *length_low]);
    let (value, rest) = rest.split_at_checked(length.into())?;
    Some((u16::from_be_bytes([*high, *low]), value, rest))
}

/// Checks that the bytes to the end are parameters in the order of keys, each with a valid value. Returns their number.
pub(super) fn extent(rest: &[u8]) -> Result<usize, String> {
    let mut left = rest;
    let mut before = None;
    while !left.is_empty() {
        let (number, value, after) = split(left).ok_or("end within a parameter")?;
        if before >= Some(number) {
            return Err("have parameters that are not in order".to_owned());
        }
        valid(number, value)
            .map_err(|what| format!("have `{}`, which {what}", key_name(number)))?;
        before = Some(number);
        left = after;
    }
    Ok(rest.len())
}

pub(super) fn print(part: &[u8], out: &mut String) {
    let mut left = part;
    while let Some((number, value, after)) = split(left) {
        if left.len() < part.len() {
            out.push(' ');
        }
        out.push_str(&key_name(number));
        if !value.is_empty() {
            out.push('=');
            print_value(number, value, out);
        }
        left = after;
    }
}

fn print_value(number: u16, value: &[u8], out: &mut String) {
    let texts: Vec<String> = match number {
        MANDATORY => numbers(value).map(key_name).collect(),
        PORT | TLS_SUPPORTED_GROUPS => numbers(value).map(|number| number.to_string()).collect(),
        IPV4HINT | IPV6HINT => {
            let parts = value.chunks(if number == IPV4HINT { 4 } else { 16 });
            parts.map(shown).collect()
        }
        ECH => vec![BASE64.encode(value)],
        ALPN => return quoted(&escaped_protocols(value), out),
        _ => return quoted(value, out),
    };
    out.push_str(&texts.join(","));
}

fn shown(bytes: &[u8]) -> String {
    let mut out = String::new();
    address(bytes, &mut out);
    out
}

/// A list of protocols as [`protocols`] reads it.
fn escaped_protocols(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = value;
    while let Some((&length, tail)) = rest.split_first() {
        if !out.is_empty() {
            out.push(b',');
        }
        let (item, after) = tail.split_at_checked(length.into()).unwrap_or((tail, &[]));
        for byte in item {
            if matches!(byte, b',' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_by_name_and_number() {
        for (text, wanted) in [
            ("alpn", Some((1, true))),
            ("key1", Some((1, false))),
            ("key0", Some((0, false))),
            ("key65399", Some((65_399, false))),
            ("key65534", Some((65_534, false))),
            ("key65535", None),
            ("key65536", None),
            ("key01", None),
            ("key", None),
            ("ALPN", None),
            ("", None),
        ] {
            assert_eq!(key(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn lists_of_protocols() {
        assert_eq!(protocols(b"h2,h3"), Ok(b"\x02h2\x02h3".to_vec()));
        assert_eq!(
            protocols(b"f\\\\oo\\,bar,h2"),
            Ok(b"\x08f\\oo,bar\x02h2".to_vec())
        );
        for wrong in [
            &b""[..],
            b",",
            b"h2,",
            b"h2,,h3",
            b"\\x",
            b"\\",
            &[b'x'; 256],
        ] {
            assert!(protocols(wrong).is_err());
        }
        assert_eq!(
            escaped_protocols(b"\x08f\\oo,bar\x02h2"),
            b"f\\\\oo\\,bar,h2"
        );
    }
}
