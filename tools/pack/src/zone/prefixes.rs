//! Prefixes of addresses (APL, RFC 3123).

use std::net::IpAddr;

use super::cursor::Cursor;
use super::plain::address;
use super::scan::Wrong;

/// Reads prefixes up to the end of the record. There may be none.
pub(super) fn scan(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    while from.peek().is_some() {
        let expected = "a prefix as 1:192.0.2.0/24 or !2:2001:db8::/32";
        let (family, prefix, negated, address) = from.parse(expected, prefix)?;
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        // Zeros at the end are left out.
        let length = bytes.iter().rposition(|byte| *byte != 0);
        let bytes = &bytes[..length.map_or(0, |last| last + 1)];
        out.extend([0, family, prefix]);
        out.push(u8::from(negated) << 7 | u8::try_from(bytes.len()).unwrap_or(16));
        out.extend(bytes);
    }
    Ok(())
}

/// A prefix in wire form: family 1 or 2, length, whether it is negated, and its address without trailing zeros.
struct Prefix<'a> {
    family: u8,
    length: u8,
    negated: bool,
    address: &'a [u8],
}

/// Parses a prefix: family, length, whether it is negated, address.
fn prefix(text: &str) -> Option<(u8, u8, bool, IpAddr)> {
    let (negated, text) = text
        .strip_prefix('!')
        .map_or((false, text), |text| (true, text));
    let (family, rest) = text.split_once(':')?;
    let (address, length) = rest.split_once('/')?;
    let right = length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| right)?;
    match family {
        "1" if length <= 32 => Some((1, length, negated, IpAddr::V4(address.parse().ok()?))),
        "2" if length <= 128 => Some((2, length, negated, IpAddr::V6(address.parse().ok()?))),
        _ => None,
    }
}

/// The first prefix, and the bytes after it.
fn split(bytes: &[u8]) -> Option<(Prefix<'_>, &[u8])> {
    let [0, family @ 1..=2, length, address, rest @ ..] = bytes else {
        return None;
    };
    let negated = address & 128 != 0;
    let (address, rest) = rest.split_at_checked((address & 127).into())?;
    let longest = longest(*family);
    let right = address.len() <= longest
        && usize::from(*length) <= longest * 8
        && address.last() != Some(&0);
    let prefix = Prefix {
        family: *family,
        length: *length,
        negated,
        address,
    };
    right.then_some((prefix, rest))
}

/// The length of an address in bytes.
fn longest(family: u8) -> usize {
    if family == 1 { 4 } else { 16 }
}

pub(super) fn extent(rest: &[u8]) -> Result<usize, String> {
    let mut left = rest;
    while !left.is_empty() {
        let split = split(left);
        (_, left) = split.ok_or("have no whole prefix where one is")?;
    }
    Ok(rest.len())
}

pub(super) fn print(part: &[u8], out: &mut String) {
    let mut left = part;
    while let Some((prefix, rest)) = split(left) {
        if left.len() < part.len() {
            out.push(' ');
        }
        let mut whole = vec![0; longest(prefix.family)];
        whole[..prefix.address.len()].copy_from_slice(prefix.address);
        out.push_str(if prefix.negated { "!" } else { "" });
        out.push_str(&format!("{}:", prefix.family));
        address(&whole, out);
        out.push_str(&format!("/{}", prefix.length));
        left = rest;
    }
}
