//! Fields whose form depends on a preceding field: gateways of IPSECKEY, relays of AMTRELAY, the first fields of HIP,
//! A6.

use data_encoding::{BASE64, HEXLOWER};

use super::cursor::{Cursor, not};
use super::encoded::{base64, hex};
use super::name;
use super::plain::{address, ipv4, ipv6, names};
use super::scan::Wrong;

/// Kinds of gateways (RFC 4025 section 2.3) and relays (RFC 8777 section 4.2.3).
const NONE: u8 = 0;
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const NAME: u8 = 3;

/// Reads a gateway or relay of a kind.
fn scan_kind(from: &mut Cursor<'_, '_>, kind: u8, out: &mut Vec<u8>) -> Result<(), Wrong> {
    match kind {
        NONE => {
            let expected = "`.`, as there is none";
            let token = from.word(expected)?;
            if token.text != b"." {
                return Err(not(token, expected));
            }
        }
        IPV4 => out.extend(ipv4(from)?.octets()),
        IPV6 => out.extend(ipv6(from)?.octets()),
        _ => from.name(out)?,
    }
    Ok(())
}

fn extent_of(kind: u8, rest: &[u8]) -> Result<usize, String> {
    match kind {
        NONE => Ok(0),
        IPV4 => Ok(4),
        IPV6 => Ok(16),
        NAME => name::extent(rest),
        _ => Err(format!(
            "have a gateway or relay of the unknown type {kind}"
        )),
    }
}

fn print_kind(kind: u8, part: &[u8], out: &mut String) {
    match kind {
        NONE => out.push('.'),
        IPV4 | IPV6 => address(part, out),
        _ => names(part, out),
    }
}

/// The second byte of IPSECKEY.
fn kind_of(data: &[u8]) -> u8 {
    data.get(1).copied().unwrap_or(NONE)
}

/// Reads the gateway of IPSECKEY; `out` has precedence, gateway type and algorithm.
pub(super) fn scan_gateway(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let kind = kind_of(out);
    match from.peek() {
        Some(token) if kind > NAME => Err(Wrong::new(
            token.place,
            format!("expected a gateway type from 0 to 3 before this, found {kind}"),
        )),
        _ => scan_kind(from, kind, out),
    }
}

pub(super) fn extent(data: &[u8], at: usize) -> Result<usize, String> {
    extent_of(kind_of(data), data.get(at..).unwrap_or_default())
}

pub(super) fn has_name(data: &[u8]) -> bool {
    kind_of(data) == NAME
}

pub(super) fn print(data: &[u8], part: &[u8], out: &mut String) {
    print_kind(kind_of(data), part, out);
}

/// Reads discovery, type and relay of AMTRELAY. The first two are in one byte.
pub(super) fn scan_relay(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let discovery = u8::try_from(from.number(1)?).unwrap_or(1);
    let kind = u8::try_from(from.number(NAME.into())?).unwrap_or(NAME);
    out.push(discovery << 7 | kind);
    scan_kind(from, kind, out)
}

pub(super) fn extent_relay(rest: &[u8]) -> Result<usize, String> {
    let (kind, relay) = rest.split_first().ok_or("are too few")?;
    Ok(1 + extent_of(kind & 127, relay)?)
}

pub(super) fn relay_has_name(part: &[u8]) -> bool {
    part.first().is_some_and(|kind| kind & 127 == NAME)
}

pub(super) fn print_relay(part: &[u8], out: &mut String) {
    if let Some((kind, relay)) = part.split_first() {
        out.push_str(&format!("{} {} ", kind >> 7, kind & 127));
        print_kind(kind & 127, relay, out);
    }
}

/// Reads algorithm, host identity tag and public key of HIP. In wire form, their two lengths come before and between
/// them.
pub(super) fn scan_identity(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let algorithm = from.u8()?;
    let token = from.word("a host identity tag in base 16")?;
    let tag = hex(token.place, token.text)?;
    let length = u8::try_from(tag.len()).map_err(|_| not(token, "at most 255 bytes"))?;
    let token = from.word("a public key in base 64")?;
    let key = base64(token.place, token.text)?;
    let key_length = u16::try_from(key.len()).map_err(|_| not(token, "at most 65535 bytes"))?;
    out.extend([length, algorithm]);
    out.extend(key_length.to_be_bytes());
    out.extend(tag);
    out.extend(key);
    Ok(())
}

/// Algorithm, tag and key.
fn identity(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [length, algorithm, high, low, rest @ ..] = bytes else {
        return None;
    };
    let (tag, rest) = rest.split_at_checked((*length).into())?;
    let key = rest.get(..u16::from_be_bytes([*high, *low]).into())?;
    (!tag.is_empty() && !key.is_empty()).then_some((*algorithm, tag, key))
}

pub(super) fn extent_identity(rest: &[u8]) -> Result<usize, String> {
    let (_, tag, key) = identity(rest).ok_or("have no whole host identity")?;
    Ok(4 + tag.len() + key.len())
}

pub(super) fn print_identity(part: &[u8], out: &mut String) {
    if let Some((algorithm, tag, key)) = identity(part) {
        let (tag, key) = (HEXLOWER.encode(tag), BASE64.encode(key));
        out.push_str(&format!("{algorithm} {tag} {key}"));
    }
}

/// Reads A6: the length of the prefix, the address bits after the prefix, and the name of the prefix unless its length
/// is 0.
pub(super) fn scan_a6(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let prefix = u8::try_from(from.number(128)?).unwrap_or(128);
    out.push(prefix);
    let own = own_bytes(prefix);
    if prefix < 128 {
        let address = ipv6(from)?.octets();
        let start = out.len();
        out.extend(&address[16 - own..]);
        if prefix % 8 != 0 {
            out[start] &= 0xff >> (prefix % 8);
        }
    }
    if prefix > 0 {
        from.name(out)?;
    }
    Ok(())
}

/// The number of bytes of an address that are not wholly prefix.
fn own_bytes(prefix: u8) -> usize {
    usize::from((128 - prefix.min(128)).div_ceil(8))
}

pub(super) fn extent_a6(rest: &[u8]) -> Result<usize, String> {
    let prefix = *rest.first().ok_or("are too few")?;
    if prefix > 128 {
        return Err("have a prefix longer than an address".to_owned());
    }
    let own = 1 + own_bytes(prefix);
    let name = rest.get(own..).ok_or("are too few")?;
    Ok(own + if prefix > 0 { name::extent(name)? } else { 0 })
}

pub(super) fn a6_name_at(part: &[u8]) -> Option<usize> {
    let prefix = *part.first()?;
    (prefix > 0).then_some(1 + own_bytes(prefix))
}

pub(super) fn print_a6(part: &[u8], out: &mut String) {
    let Some((&prefix, rest)) = part.split_first() else {
        return;
    };
    let (own, name) = rest
        .split_at_checked(own_bytes(prefix))
        .unwrap_or((rest, &[]));
    out.push_str(&prefix.to_string());
    if prefix < 128 {
        let mut whole = [0; 16];
        whole[16 - own.len()..].copy_from_slice(own);
        out.push(' ');
        address(&whole, out);
    }
    if prefix > 0 {
        out.push(' ');
        names(name, out);
    }
}
