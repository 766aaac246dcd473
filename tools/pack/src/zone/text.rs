//! Fields of text.

use super::cursor::{Cursor, not};
use super::kinds::Field;
use super::scan::Wrong;

/// Reads a text field.
pub(super) fn scan(
    field: Field,
    from: &mut Cursor<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    match field {
        Field::Digits => limited(from, out, "at least four digits (RFC 1183)", |text| {
            text.len() >= 4 && text.bytes().all(|byte| byte.is_ascii_digit())
        }),
        Field::Degrees(most) => limited(from, out, "a decimal number (RFC 1712)", |text| {
            let whole = text.trim_start_matches(['-', '+']);
            let number = whole.parse::<f64>().ok();
            let plain = whole
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
            plain
                && text.len() <= whole.len() + 1
                && number.is_some_and(|number| number <= most.into())
        }),
        Field::OptionalText if from.peek().is_none() => Ok(()),
        Field::Texts => {
            from.string("a string", out)?;
            while from.peek().is_some() {
                from.string("a string", out)?;
            }
            Ok(())
        }
        Field::Tag => limited(from, out, "a tag of letters and digits", |text| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }),
        Field::LongText => {
            let (_, text) = from.bytes("a string")?;
            out.extend(text);
            Ok(())
        }
        _ => from.string("a string", out),
    }
}

/// Reads a string that must meet a condition.
fn limited(
    from: &mut Cursor<'_, '_>,
    out: &mut Vec<u8>,
    expected: &str,
    right: impl FnOnce(&str) -> bool,
) -> Result<(), Wrong> {
    let token = from.peek().copied();
    let start = out.len();
    from.string(expected, out)?;
    let text = out.get(start + 1..).unwrap_or_default();
    match token {
        Some(token) if !std::str::from_utf8(text).is_ok_and(right) => Err(not(&token, expected)),
        _ => Ok(()),
    }
}

/// The length of a text field in bytes.
pub(super) fn extent(field: Field, rest: &[u8]) -> Result<usize, String> {
    let one = |rest: &[u8]| {
        let length = rest.first().map(|length| 1 + usize::from(*length));
        length
            .filter(|length| *length <= rest.len())
            .ok_or_else(|| "end within a string".to_owned())
    };
    match field {
        Field::OptionalText if rest.is_empty() => Ok(0),
        Field::LongText => Ok(rest.len()),
        Field::Texts => {
            let mut all = one(rest)?;
            while all < rest.len() {
                all += one(&rest[all..])?;
            }
            Ok(all)
        }
        _ => one(rest),
    }
}

/// Prints a text field.
pub(super) fn print(field: Field, part: &[u8], out: &mut String) {
    match field {
        Field::LongText => quoted(part, out),
        Field::Tag => out.push_str(&String::from_utf8_lossy(part.get(1..).unwrap_or_default())),
        _ => {
            let mut rest = part;
            while let Some((&length, tail)) = rest.split_first() {
                let (text, after) = tail.split_at_checked(length.into()).unwrap_or((tail, &[]));
                quoted(text, out);
                rest = after;
                if !rest.is_empty() {
                    out.push(' ');
                }
            }
        }
    }
}

/// Prints bytes in quotes, unprintable ones as `\DDD`.
pub(super) fn quoted(text: &[u8], out: &mut String) {
    out.push('"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:03}")),
        }
    }
    out.push('"');
}
