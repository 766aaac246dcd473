//! The kinds of fields in record data: conversion from text to wire form and back.

use super::cursor::Cursor;
use super::kinds::Field;
use super::plain::{address, ipv4, ipv6, names, record_type};
use super::scan::Wrong;
use super::{bitmap, encoded, gateway, location, name, prefixes, service, text, time, types};

impl Field {
    /// Reads a field and appends it to `out`, which has the preceding fields of the data.
    pub(crate) fn scan(self, from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
        match self {
            Self::U8 => out.push(from.u8()?),
            Self::U16 => out.extend(from.u16()?.to_be_bytes()),
            Self::U32 => out.extend(from.u32()?.to_be_bytes()),
            Self::U64 => out.extend(from.number(u64::MAX)?.to_be_bytes()),
            Self::Named8(names) => {
                let [_, number] = from.named(names, 255)?.to_be_bytes();
                out.push(number);
            }
            Self::Named16(names) => out.extend(from.named(names, u16::MAX)?.to_be_bytes()),
            Self::Time => out.extend(from.time()?.to_be_bytes()),
            Self::Date => {
                let expected = "a date as YYYYMMDDHHmmSS, or seconds since 1970";
                out.extend(from.parse(expected, time::date)?.to_be_bytes());
            }
            Self::RecordType => out.extend(record_type(from)?.to_be_bytes()),
            Self::Name => from.name(out)?,
            Self::Names => {
                while from.peek().is_some() {
                    from.name(out)?;
                }
            }
            Self::Ipv4 => out.extend(ipv4(from)?.octets()),
            Self::Ipv6 => out.extend(ipv6(from)?.octets()),
            Self::Text
            | Self::Digits
            | Self::Degrees(_)
            | Self::OptionalText
            | Self::Texts
            | Self::Tag
            | Self::LongText => text::scan(self, from, out)?,
            Self::Base64
            | Self::OptionalBase64
            | Self::DashedBase64
            | Self::Hex
            | Self::Digest
            | Self::Salt
            | Self::Hash
            | Self::Nsap
            | Self::Eui(_)
            | Self::Locator => encoded::scan(self, from, out)?,
            Self::Bitmap => bitmap::scan(from, out)?,
            Self::OldBitmap => bitmap::scan_old(from, out)?,
            Self::Services => bitmap::scan_services(from, out)?,
            Self::Location => location::scan(from, out)?,
            Self::Prefixes => prefixes::scan(from, out)?,
            Self::Gateway => gateway::scan_gateway(from, out)?,
            Self::Relay => gateway::scan_relay(from, out)?,
            Self::HostIdentity => gateway::scan_identity(from, out)?,
            Self::Prefixed => gateway::scan_a6(from, out)?,
            Self::ServiceParameters => service::scan(from, out)?,
        }
        Ok(())
    }

    /// The length in bytes of the field that begins at `at`.
    ///
    /// # Errors
    ///
    /// The bytes there are not a field of this kind.
    pub(super) fn extent(self, data: &[u8], at: usize) -> Result<usize, String> {
        let rest = data.get(at..).unwrap_or_default();
        let fixed = match self {
            Self::U8 | Self::Named8(_) => 1,
            Self::U16 | Self::Named16(_) | Self::RecordType => 2,
            Self::U32 | Self::Time | Self::Date | Self::Ipv4 => 4,
            Self::U64 | Self::Locator => 8,
            Self::Ipv6 => 16,
            Self::Eui(bytes) => bytes,
            Self::Name => return name::extent(rest),
            Self::Names => {
                let mut names = 0;
                while names < rest.len() {
                    names += name::extent(&rest[names..])?;
                }
                return Ok(names);
            }
            Self::Text
            | Self::Digits
            | Self::Degrees(_)
            | Self::OptionalText
            | Self::Texts
            | Self::Tag
            | Self::LongText => return text::extent(self, rest),
            Self::OptionalBase64 | Self::DashedBase64 => return Ok(rest.len()),
            Self::Base64 | Self::Hex | Self::Digest | Self::Nsap => rest.len().max(1),
            Self::Salt | Self::Hash => 1 + usize::from(rest.first().copied().unwrap_or(0)),
            Self::Bitmap => return bitmap::extent(rest),
            Self::OldBitmap if rest.len() <= 16 => rest.len(),
            Self::Services if (1..=8193).contains(&rest.len()) => rest.len(),
            Self::OldBitmap | Self::Services => {
                return Err("have more bits than there are numbers".to_owned());
            }
            Self::Location => return location::extent(rest),
            Self::Prefixes => return prefixes::extent(rest),
            Self::Gateway => return gateway::extent(data, at),
            Self::Relay => return gateway::extent_relay(rest),
            Self::HostIdentity => return gateway::extent_identity(rest),
            Self::Prefixed => return gateway::extent_a6(rest),
            Self::ServiceParameters => return service::extent(rest),
        };
        if fixed > rest.len() {
            return Err(format!(
                "are too few: {} more are needed",
                fixed - rest.len()
            ));
        }
        Ok(fixed)
    }

    /// Prints a field as a master file writes it; `part` is the field in `data`.
    pub(super) fn print(self, data: &[u8], part: &[u8], out: &mut String) {
        let number = || {
            part.iter()
                .fold(0_u64, |all, byte| all << 8 | u64::from(*byte))
        };
        let short = || u16::try_from(number()).unwrap_or(u16::MAX);
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 | Self::Named8(_) | Self::Time => {
                out.push_str(&number().to_string())
            }
            Self::Named16(names) => match names.name(short()) {
                Some(name) => out.push_str(name),
                None => out.push_str(&number().to_string()),
            },
            Self::Date => {
                let seconds = u32::try_from(number()).unwrap_or(u32::MAX);
                out.push_str(&time::shown(seconds));
            }
            Self::RecordType => out.push_str(&types::name(short())),
            Self::Name | Self::Names => names(part, out),
            Self::Ipv4 | Self::Ipv6 => address(part, out),
            Self::Text
            | Self::Digits
            | Self::Degrees(_)
            | Self::OptionalText
            | Self::Texts
            | Self::Tag
            | Self::LongText => text::print(self, part, out),
            Self::Base64
            | Self::OptionalBase64
            | Self::DashedBase64
            | Self::Hex
            | Self::Digest
            | Self::Salt
            | Self::Hash
            | Self::Nsap
            | Self::Eui(_)
            | Self::Locator => encoded::print(self, part, out),
            Self::Bitmap => bitmap::print(part, out),
            Self::OldBitmap => bitmap::print_old(part, out),
            Self::Services => bitmap::print_services(part, out),
            Self::Location => location::print(part, out),
            Self::Prefixes => prefixes::print(part, out),
            Self::Gateway => gateway::print(data, part, out),
            Self::Relay => gateway::print_relay(part, out),
            Self::HostIdentity => gateway::print_identity(part, out),
            Self::Prefixed => gateway::print_a6(part, out),
            Self::ServiceParameters => service::print(part, out),
        }
    }

    /// The offset of the domain name in the field. The name reaches to the end of the field.
    pub(super) fn name_at(self, data: &[u8], part: &[u8]) -> Option<usize> {
        match self {
            Self::Name | Self::Names => Some(0),
            Self::Gateway => gateway::has_name(data).then_some(0),
            Self::Relay => gateway::relay_has_name(part).then_some(1),
            Self::Prefixed => gateway::a6_name_at(part),
            _ => None,
        }
    }
}
