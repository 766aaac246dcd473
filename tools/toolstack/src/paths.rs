//! The paths of the keys in xenstore that hatch writes and reads, and how names, UUIDs and MAC addresses stand in them.
//!
//! Beside the keys of guests and back ends, which are libxl's, there are hatch's own:
//!
//! | path | value |
//! |---|---|
//! | `/hatch/name/NAME` | domid and UUID; characters that a path cannot have are written as `@` and two hexadecimal
//! digits |
//! | `/hatch/mac/MAC` | domid and UUID; twelve hexadecimal digits |
//! | `/hatch/domain/DOMID` | UUID, MAC address and name: see [`crate::builder::index`] |
//! | `/hatch/domain/DOMID/watched` | the configuration as JSON, if `hatch watch` handles the guest's end |
//! | `/hatch/restart/NAME` | the same, of a guest that has ended and is to be made again |
//! | `/hatch/making/UUID` | PID and start time (`/proc/PID/stat`) of the process that makes the guest, for as long as
//! it does |
//!
//! xenstored has answered the write of the mark below `/hatch/making` before there is a domain. So a domain of this UUID whose maker is
//! gone is a leftover.

use uuid::Uuid;

/// The directory of the domains' home directories.
pub const HOMES: &str = "/local/domain";
/// The directory of libxl's own keys.
pub const LIBXL: &str = "/libxl";
/// The directory of what lives as long as a guest, whatever its domid.
pub const VMS: &str = "/vm";
/// The directory of netback's directories.
pub const BACKENDS: &str = "/local/domain/0/backend/vif";
/// The directory of the index's entries by name.
pub const NAMES: &str = "/hatch/name";
/// The directory of the index's entries by MAC address.
pub const MACS: &str = "/hatch/mac";
/// The directory of the index's records of domains.
pub const RECORDS: &str = "/hatch/domain";
/// The directory of the configurations of guests that are to be made again.
pub const RESTARTS: &str = "/hatch/restart";
/// The directory of the marks of guests that are being made.
pub const MARKS: &str = "/hatch/making";
/// The directory of the back ends that are the switch.
pub const SWITCHED: &str = mayfly_switch::xenbus::keys::ROOT;

/// A UUID as text.
#[must_use]
pub fn uuid(handle: &[u8; 16]) -> String {
    Uuid::from_bytes(*handle).to_string()
}

/// A MAC address with colons, as back ends and `xl` write it.
#[must_use]
pub fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A MAC address as a part of a path.
fn mac_key(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).concat()
}

/// The path of a name's entry in the index.
#[must_use]
pub fn name_path(name: &str) -> String {
    format!("{NAMES}/{}", name_key(name))
}

/// The path of the configuration of a guest of this name that is to be made again.
#[must_use]
pub fn restart_path(name: &str) -> String {
    format!("{RESTARTS}/{}", name_key(name))
}

/// A name as a part of a path.
fn name_key(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => key.push(char::from(byte)),
            _ => key += &format!("@{byte:02x}"),
        }
    }
    key
}

/// The path of a MAC address's entry in the index.
#[must_use]
pub fn mac_path(mac: &[u8; 6]) -> String {
    format!("{MACS}/{}", mac_key(mac))
}

/// The path of a domain's record in the index.
#[must_use]
pub fn domain_path(domid: u16) -> String {
    format!("{RECORDS}/{domid}")
}

/// The path of the data for `hatch watch`, which is removed with the domain's record.
#[must_use]
pub fn watched_path(domid: u16) -> String {
    format!("{}/watched", domain_path(domid))
}

/// The path of the mark that a domain of this UUID is being made.
#[must_use]
pub fn making_path(handle: &[u8; 16]) -> String {
    format!("{MARKS}/{}", uuid(handle))
}

/// The guest's home directory.
#[must_use]
pub fn home(domid: u16) -> String {
    format!("{HOMES}/{domid}")
}

/// The back end's directory of all vifs of a domain.
#[must_use]
pub fn backends(domid: u16) -> String {
    format!("{BACKENDS}/{domid}")
}

/// The back end's directory.
#[must_use]
pub fn backend(domid: u16) -> String {
    format!("{BACKENDS}/{domid}/0")
}

/// The directory of a back end that is the switch.
#[must_use]
pub fn switched(domid: u16) -> String {
    mayfly_switch::xenbus::keys::directory(domid)
}

/// The path of the port by which the guest is asked to suspend.
#[must_use]
pub fn suspend_channel(domid: u16) -> String {
    format!("{}/device/suspend/event-channel", home(domid))
}

/// The path by which the guest is asked to shut down or to suspend.
#[must_use]
pub fn shutdown(domid: u16) -> String {
    format!("{}/control/shutdown", home(domid))
}

/// The path of netback's state.
#[must_use]
pub fn state(domid: u16) -> String {
    format!("{}/state", backend(domid))
}

/// The front end's directory.
#[must_use]
pub fn front(domid: u16) -> String {
    format!("{}/device/vif/0", home(domid))
}

/// The key of a domain's name, for other programs.
#[must_use]
pub fn domain_name(domid: u16) -> String {
    format!("{}/name", home(domid))
}

/// libxl's directory of a domain.
#[must_use]
pub fn libxl(domid: u16) -> String {
    format!("{LIBXL}/{domid}")
}

/// libxl's copy of a domain's network interface.
#[must_use]
pub fn libxl_vif(domid: u16) -> String {
    format!("{}/device/vif/0", libxl(domid))
}

/// The directory of what lives as long as a guest, by its UUID as text.
#[must_use]
pub fn vm(uuid: &str) -> String {
    format!("{VMS}/{uuid}")
}

/// The path of a guest's command line, by its UUID as text.
#[must_use]
pub fn cmdline(uuid: &str) -> String {
    format!("{}/image/cmdline", vm(uuid))
}

/// The path of the addresses that a restored guest is to use, as words of a command line.
#[must_use]
pub fn addresses(domid: u16) -> String {
    format!("{}/{}", home(domid), mayfly_handoff::ADDRESSES)
}

/// The path of what `hatch summon` has made a guest of, by which its guests are known. The guest can read it but not
/// write it.
#[must_use]
pub fn summon(domid: u16) -> String {
    format!("{}/summon", home(domid))
}

/// The path at which a guest reports that it serves: `1` when its first packet has left.
#[must_use]
pub fn ready(domid: u16) -> String {
    format!("{}/data/mayfly/ready", home(domid))
}

/// The path at which a guest reports why it has ended.
#[must_use]
pub fn error(domid: u16) -> String {
    format!("{}/data/mayfly/error", home(domid))
}

/// Parses a MAC address, with colons or without.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |all, digit| all << 4 | digit))
        .collect();
    (digits.len() == 12).then(|| bytes.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_back() {
        let mac = [0, 0x16, 0x3e, 1, 2, 0xff];
        for text in [mac_key(&mac), mac_text(&mac)] {
            assert_eq!(parse_mac(&text), Some(mac));
        }
        for wrong in [
            "",
            "00163e0102f",
            "00163e0102fff",
            "00163e0102fg",
            "00:16:3e:01:",
        ] {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}
