//! Parsers that several kinds of fields share: addresses, types, names.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::cursor::Cursor;
use super::scan::Wrong;
use super::{name, types};

/// Takes an IPv4 address.
pub(super) fn ipv4(from: &mut Cursor<'_, '_>) -> Result<Ipv4Addr, Wrong> {
    from.parse("an IPv4 address", |text| text.parse().ok())
}

/// Takes an IPv6 address.
pub(super) fn ipv6(from: &mut Cursor<'_, '_>) -> Result<Ipv6Addr, Wrong> {
    from.parse("an IPv6 address", |text| text.parse().ok())
}

/// Takes a record type, by its name or as `TYPE` and a number.
pub(super) fn record_type(from: &mut Cursor<'_, '_>) -> Result<u16, Wrong> {
    from.parse("a record type", |text| types::number(text.as_bytes()))
}

/// Prints names in wire form, separated by spaces.
pub(super) fn names(mut part: &[u8], out: &mut String) {
    while let Ok(bytes) = name::extent(part) {
        out.push_str(&name::presentation(&part[..bytes]));
        part = &part[bytes..];
        if !part.is_empty() {
            out.push(' ');
        }
    }
}

/// Prints an address of 4 or 16 bytes.
pub(super) fn address(part: &[u8], out: &mut String) {
    if let Ok(bytes) = <[u8; 4]>::try_from(part) {
        out.push_str(&Ipv4Addr::from(bytes).to_string());
    } else if let Ok(bytes) = <[u8; 16]>::try_from(part) {
        out.push_str(&Ipv6Addr::from(bytes).to_string());
    }
}
