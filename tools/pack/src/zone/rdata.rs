//! The data of records: conversion from text to wire form and back, by the table of types.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::cursor::Cursor;
use super::encoded;
use super::kinds::Field;
use super::scan::{Entry, Scanner, Wrong};
use super::types;

/// The longest data, in bytes.
const LONGEST: usize = 65_535;

/// Reads the data of a record of this type, in its own form or in the one of RFC 3597, to the end of the record.
///
/// # Errors
///
/// An error with its place.
pub(super) fn scan(rtype: u16, mut from: Cursor<'_, '_>) -> Result<Vec<u8>, Wrong> {
    let mut out = Vec::new();
    let start = from.peek().copied();
    if let Some(mark) = start.filter(|token| token.is("\\#")) {
        from.take();
        encoded::scan_generic(&mut from, &mut out)?;
        check(rtype, &out).map_err(|what| {
            let what = format!("its bytes {what}");
            Wrong::new(mark.place, what)
        })?;
        return Ok(out);
    }
    let Some(fields) = types::fields(rtype) else {
        let expected =
            "`\\#`, a length and bytes in base 16 (RFC 3597), as this type has no other form";
        let token = from.next(expected)?;
        return Err(super::cursor::not(token, expected));
    };
    for field in fields {
        field.scan(&mut from, &mut out)?;
        if out.len() > LONGEST {
            let place = start.map(|token| token.place).unwrap_or_default();
            let what = format!("its data has more than {LONGEST} bytes");
            return Err(Wrong::new(place, what));
        }
    }
    from.end()?;
    Ok(out)
}

/// Calls a function for each field of the data, with its offset and bytes.
///
/// # Errors
///
/// The reason for which the bytes are not data of the type.
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
        let bytes = field.extent(data, at)?;
        let part = data.get(at..at + bytes).ok_or("are too few")?;
        visit(*field, at, part);
        at += bytes;
    }
    match data.len() - at {
        0 => Ok(()),
        more => Err(format!("are {more} too many")),
    }
}

/// Checks that bytes are data of a type.
///
/// # Errors
///
/// The reason for which they are not, as the rest of "its bytes ...".
pub(crate) fn check(rtype: u16, data: &[u8]) -> Result<(), String> {
    walk(rtype, data, |_, _, _| {})
}

/// Data as a master file writes it: in the form of its type if that represents it fully, else in the form of RFC 3597.
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
    for (index, byte) in data.iter().enumerate() {
        let _ = write!(out, "{}{byte:02x}", if index == 0 { " " } else { "" });
    }
    out
}

/// Whether a text reads as exactly this data of a type. Zeros at the end of a bitmap, for example, have no text.
fn reads_as(rtype: u16, text: &str, data: &[u8]) -> bool {
    let mut entry = Entry::default();
    let scanned = Scanner::new(text.as_bytes()).next(&mut entry);
    let cursor = Cursor::new(&entry.tokens, entry.end, b"\0");
    scanned.is_ok() && scan(rtype, cursor).is_ok_and(|again| again == data)
}

/// Data with its names in lower case, so that comparing bytes compares names as RFC 4343 asks.
pub(crate) fn folded(rtype: u16, data: &[u8]) -> Cow<'_, [u8]> {
    let mut folded = Cow::Borrowed(data);
    // Data that is invalid for the type has no names.
    let _ = walk(rtype, data, |field, at, part| {
        if let Some(name) = field.name_at(data, part)
            && part[name..].iter().any(u8::is_ascii_uppercase)
        {
            // The lengths of labels are smaller than letters, so they stay unchanged.
            folded.to_mut()[at + name..at + part.len()].make_ascii_lowercase();
        }
    });
    folded
}
