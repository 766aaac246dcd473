//! Several guests from one file: `hatch create -n 100 --template`.
//!
//! Guest number N, from 1, is made from the file with these changes:
//!
//! - `{n}` in its name is replaced by N; a name without it gets `-N` at its end;
//! - `{n}` is replaced in the command line as well;
//! - every address in an `ip=ADDRESS/PREFIX` word of its command line is N-1 higher, and has to be in the same network
//!   (not its last address, for IPv4);
//! - so is the address of `--ip`, which replaces `{ip}` in the command line;
//! - the vif's MAC address, if the file has one, is N-1 higher in its last three bytes; otherwise it is derived from
//!   the name.

use std::net::IpAddr;

use super::guest::{ADDRESS, GuestFile};

/// The reason why a template cannot make that many guests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// All guests would have the same UUID.
    #[error("the file gives a uuid, which only one guest can have")]
    Uuid,
    /// The network has no more addresses.
    #[error("guest {number} would have an address outside of the network of {address}")]
    Address {
        /// The number of the guest.
        number: u32,
        /// The address of the first guest.
        address: String,
    },
    /// There are no more MAC addresses with the same OUI.
    #[error("guest {0} would have a MAC address of another OUI")]
    Mac(u32),
    /// The configuration of a guest is not valid.
    #[error("guest {number}: {error}")]
    Config {
        /// The number of the guest.
        number: u32,
        /// The error.
        error: crate::builder::GuestConfigError,
    },
    /// The command line has become too long.
    #[error("guest {0} would have a command line of more than 4095 bytes")]
    TooLong(u32),
}

/// Guest number `number`, from 1.
///
/// # Errors
/// A value that would be the same for two guests, or a range that has run out.
pub fn derived(template: &GuestFile, number: u32) -> Result<GuestFile, TemplateError> {
    let mut guest = template.clone();
    guest.name = name_of(&template.name, number);
    if template.uuid.is_some() {
        return Err(TemplateError::Uuid);
    }
    guest.cmdline = words_of(&fill(&template.cmdline, number), number)?;
    if template.cmdline.contains(ADDRESS)
        && let Some(first) = &template.address
    {
        guest.address = Some(address_of(first, number)?);
    }
    if guest.cmdline().len() > 4095 {
        return Err(TemplateError::TooLong(number));
    }
    if let Some(vif) = &mut guest.vif
        && let Some(mac) = vif.mac
    {
        vif.mac = Some(mac_of(mac, number)?);
    }
    guest
        .config([0; 16])
        .check()
        .map_err(|error| TemplateError::Config { number, error })?;
    Ok(guest)
}

fn fill(text: &str, number: u32) -> String {
    text.replace("{n}", &number.to_string())
}

/// The name of guest number `number`.
pub(crate) fn name_of(template: &str, number: u32) -> String {
    match template.contains("{n}") {
        true => fill(template, number),
        false => format!("{template}-{number}"),
    }
}

/// The MAC address of guest number `number`.
pub(crate) fn mac_of([a, b, c, d, e, f]: [u8; 6], number: u32) -> Result<[u8; 6], TemplateError> {
    let own = u32::from_be_bytes([0, d, e, f]).checked_add(number.saturating_sub(1));
    let own = own
        .filter(|own| *own < 1 << 24)
        .ok_or(TemplateError::Mac(number))?;
    let [_, d, e, f] = own.to_be_bytes();
    Ok([a, b, c, d, e, f])
}

fn address_of(text: &str, number: u32) -> Result<String, TemplateError> {
    further(text, number.saturating_sub(1)).ok_or_else(|| TemplateError::Address {
        number,
        address: text.to_owned(),
    })
}

/// A command line with the addresses of guest number `number`. Only words with addresses are changed: other white space
/// stays as it is.
pub(crate) fn words_of(cmdline: &str, number: u32) -> Result<String, TemplateError> {
    let words = cmdline
        .split(' ')
        .map(|word| match word.strip_prefix("ip=") {
            Some(value) if is_address(value) => Ok(format!("ip={}", address_of(value, number)?)),
            _ => Ok(word.to_owned()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(words.join(" "))
}

fn split(text: &str) -> Option<(IpAddr, Option<u32>)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
        None => (text, None),
    };
    Some((address.parse().ok()?, prefix))
}

/// Whether this is an address, with the length of a prefix or without.
pub(crate) fn is_address(text: &str) -> bool {
    split(text).is_some()
}

/// The address that is `step` higher, in the same network.
fn further(text: &str, step: u32) -> Option<String> {
    let (address, prefix) = split(text)?;
    let (start, bits) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let moved = start.checked_add(u128::from(step))?;
    let host_bits = bits - prefix.unwrap_or(0).min(bits);
    let same_network = host_bits >= 128 || start >> host_bits == moved >> host_bits;
    // A network of one or two addresses has no broadcast address (RFC 3021).
    let is_broadcast =
        bits == 32 && host_bits > 1 && moved % (1 << host_bits) == (1 << host_bits) - 1;
    if step > 0 && (!same_network || is_broadcast) {
        return None;
    }
    let address = match address {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(moved).ok()?.into()),
        IpAddr::V6(_) => IpAddr::V6(moved.into()),
    };
    Some(match prefix {
        Some(prefix) => format!("{address}/{prefix}"),
        None => address.to_string(),
    })
}
