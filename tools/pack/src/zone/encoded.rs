//! Binary fields in base 16, 32 and 64.

use std::fmt::Write as _;

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

use super::cursor::{Cursor, decimal, not};
use super::kinds::Field;
use super::scan::{Place, Wrong, shown};

const BASE_64: &str = "bytes in base 64";
const BASE_16: &str = "bytes in base 16, two digits each";

/// Reads a binary field.
pub(super) fn scan(
    field: Field,
    from: &mut Cursor<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    match field {
        Field::OptionalBase64 if from.peek().is_none() => {}
        Field::DashedBase64 if from.peek().is_some_and(|token| token.is("-")) => {
            from.take();
        }
        Field::Base64 | Field::OptionalBase64 | Field::DashedBase64 => {
            let (place, text) = from.rest(BASE_64)?;
            out.extend(base64(place, &text)?);
        }
        Field::Hex | Field::Digest => {
            let (place, text) = from.rest(BASE_16)?;
            match text.as_slice() {
                b"0" if matches!(field, Field::Digest) => out.push(0),
                text => out.extend(hex(place, text)?),
            }
        }
        Field::Salt if from.peek().is_some_and(|token| token.is("-")) => {
            from.take();
            out.push(0);
        }
        Field::Salt => {
            let expected = "a salt: 1 to 255 bytes in base 16, or `-`";
            let salt = from.parse(expected, |text| bytes(&HEXLOWER_PERMISSIVE, text))?;
            out.push(u8::try_from(salt.len()).unwrap_or(u8::MAX));
            out.extend(salt);
        }
        Field::Hash => {
            let expected = "a hash in base 32 with the extended hex alphabet";
            let parse = |text: &str| bytes(&BASE32HEX_NOPAD, &text.to_ascii_uppercase());
            let hash = from.parse(expected, parse)?;
            out.push(u8::try_from(hash.len()).unwrap_or(u8::MAX));
            out.extend(hash);
        }
        Field::Nsap => {
            let expected = "`0x` and bytes in base 16";
            let parse = |text: &str| {
                let digits = text
                    .strip_prefix("0x")
                    .or_else(|| text.strip_prefix("0X"))?;
                bytes(&HEXLOWER_PERMISSIVE, &digits.replace('.', ""))
            };
            out.extend(from.parse(expected, parse)?);
        }
        Field::Eui(bytes) => {
            let expected = format!("{bytes} bytes in base 16 with hyphens between");
            let parse = |text: &str| parts(text, '-', bytes, 2);
            out.extend(from.parse(&expected, parse)?);
        }
        _ => {
            let expected = "four numbers of up to four digits in base 16, with colons between";
            let parse = |text: &str| {
                let all: Vec<_> = text.split(':').map(group).collect::<Option<_>>()?;
                (all.len() == 4).then(|| all.concat())
            };
            out.extend(from.parse(expected, parse)?);
        }
    }
    Ok(())
}

/// Decodes 1 to 255 bytes.
fn bytes(base: &data_encoding::Encoding, text: &str) -> Option<Vec<u8>> {
    let bytes = base.decode(text.as_bytes()).ok()?;
    (1..=255).contains(&bytes.len()).then_some(bytes)
}

/// Decodes `count` parts of `digits` digits each.
fn parts(text: &str, between: char, count: usize, digits: usize) -> Option<Vec<u8>> {
    let all: Vec<&str> = text.split(between).collect();
    let right = all.len() == count && all.iter().all(|part| part.len() == digits);
    bytes(&HEXLOWER_PERMISSIVE, &all.concat()).filter(|_| right)
}

/// 16 bits, as up to four hexadecimal digits.
fn group(text: &str) -> Option<[u8; 2]> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.len() <= 4;
    let number = u16::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(number.to_be_bytes())
}

/// Decodes at least one byte in base 64.
pub(super) fn base64(place: Place, text: &[u8]) -> Result<Vec<u8>, Wrong> {
    let bytes = BASE64.decode(text).ok().filter(|bytes| !bytes.is_empty());
    bytes.ok_or_else(|| bad(place, BASE_64, text))
}

/// Decodes at least one byte in base 16.
pub(super) fn hex(place: Place, text: &[u8]) -> Result<Vec<u8>, Wrong> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text).ok();
    let bytes = bytes.filter(|bytes| !bytes.is_empty());
    bytes.ok_or_else(|| bad(place, BASE_16, text))
}

fn bad(place: Place, expected: &str, text: &[u8]) -> Wrong {
    let found = match text {
        [] => "and the record ends".to_owned(),
        text => format!("found `{}`", shown(text)),
    };
    Wrong::new(place, format!("expected {expected}, {found}"))
}

/// Reads the data after `\#`: a length, and that number of bytes in base 16 (RFC 3597 section 5).
pub(super) fn scan_generic(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let expected = "a length from 0 to 65535";
    let token = from.word(expected)?;
    let length = decimal(token.text).filter(|length| *length <= 65_535);
    let length = length.ok_or_else(|| not(token, expected))?;
    let (place, text) = from.rest(BASE_16)?;
    if length > 0 || !text.is_empty() {
        out.extend(hex(place, &text)?);
    }
    if out.len() as u64 != length {
        let what = format!("expected {length} bytes, found {}", out.len());
        return Err(Wrong::new(place, what));
    }
    Ok(())
}

/// Prints a binary field.
pub(super) fn print(field: Field, part: &[u8], out: &mut String) {
    match field {
        Field::DashedBase64 if part.is_empty() => out.push('-'),
        Field::Base64 | Field::OptionalBase64 | Field::DashedBase64 => {
            out.push_str(&BASE64.encode(part));
        }
        Field::Hex | Field::Digest => out.push_str(&HEXLOWER.encode(part)),
        Field::Salt if part.len() <= 1 => out.push('-'),
        Field::Salt => out.push_str(&HEXLOWER.encode(&part[1..])),
        Field::Hash => {
            let hash = part.get(1..).unwrap_or_default();
            out.push_str(&BASE32HEX_NOPAD.encode(hash).to_ascii_lowercase());
        }
        Field::Nsap => {
            out.push_str("0x");
            out.push_str(&HEXLOWER.encode(part));
        }
        Field::Eui(_) => joined(part.chunks(1), '-', out),
        _ => joined(part.chunks(2), ':', out),
    }
}

fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>, between: char, out: &mut String) {
    for (index, part) in parts.enumerate() {
        if index > 0 {
            out.push(between);
        }
        for byte in part {
            let _ = write!(out, "{byte:02x}");
        }
    }
}
