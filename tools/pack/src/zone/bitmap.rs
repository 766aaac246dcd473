//! Sets of types and of services as bitmaps.

use std::collections::BTreeSet;

use super::cursor::Cursor;
use super::mnemonics::{PROTOCOLS, SERVICES};
use super::plain::record_type;
use super::scan::Wrong;
use super::types;

/// Reads types up to the end of the record, and writes them in windows of 256 (RFC 4034 section 4.1.2).
pub(super) fn scan(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut known = BTreeSet::new();
    while from.peek().is_some() {
        known.insert(record_type(from)?);
    }
    let known: Vec<u16> = known.into_iter().collect();
    for window in known.chunk_by(|one, other| one >> 8 == other >> 8) {
        let [high, _] = window[0].to_be_bytes();
        let bits = bits(window.iter().map(|number| number & 255));
        out.extend([high, u8::try_from(bits.len()).unwrap_or(32)]);
        out.extend(bits);
    }
    Ok(())
}

/// A bitmap of numbers; number 0 is the highest bit of the first byte.
fn bits(numbers: impl Iterator<Item = u16>) -> Vec<u8> {
    let mut bits = Vec::new();
    for number in numbers {
        let byte = usize::from(number / 8);
        if bits.len() <= byte {
            bits.resize(byte + 1, 0);
        }
        bits[byte] |= 0x80 >> (number % 8);
    }
    bits
}

/// The numbers of the bits that are set.
fn numbers(bits: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let all = bits.iter().zip(0_u16..);
    all.flat_map(|(byte, index)| {
        (0..8).filter_map(move |bit| (byte & 0x80 >> bit != 0).then_some(index * 8 + bit))
    })
}

/// Checks that the bytes to the end are whole windows in order. Returns their number.
pub(super) fn extent(rest: &[u8]) -> Result<usize, String> {
    let mut left = rest;
    let mut before = None;
    while !left.is_empty() {
        match left {
            [window, length @ 1..=32, tail @ ..]
                if before < Some(*window) && tail.len() >= usize::from(*length) =>
            {
                before = Some(*window);
                left = &tail[usize::from(*length)..];
            }
            _ => return Err("have no whole bitmap of types where one is".to_owned()),
        }
    }
    Ok(rest.len())
}

pub(super) fn print(part: &[u8], out: &mut String) {
    let mut rest = part;
    let mut first = true;
    while let [window, length, tail @ ..] = rest {
        let (bits, after) = tail
            .split_at_checked((*length).into())
            .unwrap_or((tail, &[]));
        for low in numbers(bits) {
            if !std::mem::take(&mut first) {
                out.push(' ');
            }
            out.push_str(&types::name(u16::from(*window) << 8 | low));
        }
        rest = after;
    }
}

/// Reads types below 128, in one bitmap (RFC 2535 section 5.2).
pub(super) fn scan_old(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut known = BTreeSet::new();
    while from.peek().is_some() {
        let number = from.parse("a record type below 128", |text| {
            types::number(text.as_bytes()).filter(|number| *number < 128)
        })?;
        known.insert(number);
    }
    out.extend(bits(known.into_iter()));
    Ok(())
}

pub(super) fn print_old(part: &[u8], out: &mut String) {
    let names: Vec<String> = numbers(part).map(types::name).collect();
    out.push_str(&names.join(" "));
}

/// Reads a protocol and its services, by name or number (RFC 1035 section 3.4.2).
pub(super) fn scan_services(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let [_, protocol] = from.named(&PROTOCOLS, 255)?.to_be_bytes();
    let mut known = BTreeSet::new();
    while from.peek().is_some() {
        known.insert(from.named(&SERVICES, u16::MAX)?);
    }
    out.push(protocol);
    out.extend(bits(known.into_iter()));
    Ok(())
}

pub(super) fn print_services(part: &[u8], out: &mut String) {
    let Some((protocol, bits)) = part.split_first() else {
        return;
    };
    out.push_str(&protocol.to_string());
    for service in numbers(bits) {
        out.push_str(&format!(" {service}"));
    }
}
