//! The data of records: from text to the wire and back, by the table of types.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::cursor::Cursor;
use super::encoded;
use super::kinds::Field;
use super::scan::{Entry, Scanner, Wrong};
use super::types;

/// Octets of the longest data.
const LONGEST: usize = 65_535;

/// Reads the data of a record of this type, in its own form or in the one of RFC 3597, to the end of the record.
///
/// # Errors
///
/// What is wrong, and where.
pub(super) fn scan(rtype: u16, mut from: Cursor<'_, '_>) -> Result<Vec<u8>, Wrong> {
    let mut out = Vec::new();
    let start = from.peek().copied();
    if let Some(mark) = start.filter(|token| token.is("\\#")) {
        from.take();
        encoded::scan_generic(&mut from, &mut out)?;
        check(rtype, &out).map_err(|what| {
            let what = format!("its octets {what}");
            Wrong::new(mark.place, what)
        })?;
        return Ok(out);
    }
    let Some(fields) = types::fields(rtype) else {
        let expected =
            "`\\#`, a length and octets in base 16 (RFC 3597), as this type has no other form";
        let token = from.next(expected)?;
        return Err(super::cursor::not(token, expected));
    };
    for field in fields {
        field.scan(&mut from, &mut out)?;
        if out.len() > LONGEST {
            let place = start.map(|token| token.place).unwrap_or_default();
            let what = format!("its data has more than {LONGEST} octets");
            return Err(Wrong::new(place, what));
        }
    }
    from.end()?;
    Ok(out)
}

/// Goes through the fields of data: each with its octets.
///
/// # Errors
///
/// What keeps the octets from being data of the type.
fn walk<'d>(
    rtype: u16,
    data: &'d [u8],
    mut visit: impl FnMut(Field, usize, &'d [u8]),
) -> Result<(), String> {
    let Some(fields) = types::fields(rtype) else {
        return Ok(());
    };
    let mut at = 0;
    for field in fields {
        let octets = field.extent(data, at)?;
        let part = data.get(at..at + octets).ok_or("are too few")?;
        visit(*field, at, part);
        at += octets;
    }
    match data.len() - at {
        0 => Ok(()),
        more => Err(format!("are {more} too many")),
    }
}

/// Whether octets are data of a type.
///
/// # Errors
///
/// What they are instead, as in "its octets ...".
pub(crate) fn check(rtype: u16, data: &[u8]) -> Result<(), String> {
    walk(rtype, data, |_, _, _| {})
}

/// Data as a master file has it: in the form of its type when that says all of it, else as RFC 3597 has it.
pub(crate) fn print(rtype: u16, data: &[u8]) -> String {
    let mut out = String::new();
    let walked = walk(rtype, data, |field, at, part| {
        let before = out.len();
        field.print(data, part, &mut out);
        if at > 0 && out.len() > before {
            out.insert(before, ' ');
        }
    });
    if types::fields(rtype).is_some() && walked.is_ok() && reads_as(rtype, &out, data) {
        return out;
    }
    let mut out = format!("\\# {}", data.len());
    for (index, octet) in data.iter().enumerate() {
        let _ = write!(out, "{}{octet:02x}", if index == 0 { " " } else { "" });
    }
    out
}

/// Whether a text stands for data of a type: zeros at the end of a bitmap, for example, have no text.
fn reads_as(rtype: u16, text: &str, data: &[u8]) -> bool {
    let mut entry = Entry::default();
    let scanned = Scanner::new(text.as_bytes()).next(&mut entry);
    let cursor = Cursor::new(&entry.tokens, entry.end, b"\0");
    scanned.is_ok() && scan(rtype, cursor).is_ok_and(|again| again == data)
}

/// Data with the names in it in lower case, so that octets compare as RFC 4343 wants.
pub(crate) fn folded(rtype: u16, data: &[u8]) -> Cow<'_, [u8]> {
    let mut folded = Cow::Borrowed(data);
    // What is no data of the type has no names.
    let _ = walk(rtype, data, |field, at, part| {
        if let Some(name) = field.name_at(data, part)
            && part[name..].iter().any(u8::is_ascii_uppercase)
        {
            // Lengths of labels are below the letters.
            folded.to_mut()[at + name..at + part.len()].make_ascii_lowercase();
        }
    });
    folded
}
