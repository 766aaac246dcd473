//! One entry of `vif`: `mac=00:16:3e:01:02:03,bridge=xenbr0` (xl-network-configuration(5)).

use super::error::{ConfigProblems, shown};
use super::rate;
use super::settings::number;

/// A network interface as the file describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VifEntry {
    /// The MAC address, if the file has one.
    pub mac: Option<[u8; 6]>,
    /// The bridge, if the file names one.
    pub bridge: Option<String>,
    /// The rate limit, in netback's format (`BYTES,USECS`).
    pub rate: Option<String>,
    /// The MTU; `None` for the bridge's.
    pub mtu: Option<u32>,
}

/// Xen's hotplug scripts that do anything other than making the vif a port of a Linux bridge.
const OTHER_SCRIPTS: [&str; 4] = [
    "vif-route",
    "vif-nat",
    "vif-openvswitch",
    "colo-proxy-setup",
];

/// Parses an entry. `bridged` is whether the command line names the bridge.
pub(super) fn parse(
    line: usize,
    text: &str,
    bridged: bool,
    problems: &mut ConfigProblems,
    warnings: &mut ConfigProblems,
) -> VifEntry {
    let mut vif = VifEntry::default();
    let mut script = None;
    for part in text.split(',') {
        let part = part.trim_matches(' ');
        if part.is_empty() {
            continue;
        }
        let mut wrong = |why: &str| problems.add(line, format!("vif: {} {why}", shown(part)));
        let Some((key, value)) = part.split_once('=') else {
            if part != "trusted" {
                wrong("is not supported");
            }
            continue;
        };
        match key {
            "mac" => match mac(value) {
                Some(mac) => vif.mac = Some(mac),
                None => wrong("is no MAC address of a device"),
            },
            "bridge" => match mayfly_links::check_name(value) {
                Ok(()) => vif.bridge = Some(value.to_owned()),
                Err(_) => wrong("is not a name of a network link"),
            },
            // vif-bridge makes a rule from it by which the guest may send only from this address. Accepting it without
            // the rule would be a false promise.
            "ip" => wrong("asks for a filter of addresses, which only `hatch summon` sets"),
            "rate" => match rate::parse(value) {
                Some(rate) => vif.rate = Some(rate),
                None => wrong("is no rate like 10Mb/s or 1MB/s@20ms"),
            },
            // The least MTU: 68 bytes (RFC 791); RFC 894 has no other for Ethernet.
            "mtu" => match number(value).and_then(|mtu| u32::try_from(mtu).ok()) {
                Some(mtu @ 68..=65535) => vif.mtu = Some(mtu),
                _ => wrong("is not 68 to 65535"),
            },
            "script" => script = Some(value),
            "model" => warnings.add(
                line,
                format!(
                    "vif: {} is for emulated cards, and has no effect",
                    shown(part)
                ),
            ),
            "gatewaydev" | "netdev" => warnings.add(
                line,
                format!(
                    "vif: {} is for vif-route and vif-nat, and has no effect",
                    shown(part)
                ),
            ),
            "type" if value == "vif" => {}
            "devid" if number(value) == Some(0) => {}
            "backend" if matches!(value, "0" | "Domain-0") => {}
            _ => wrong("is not supported"),
        }
    }
    let bridged = bridged || vif.bridge.is_some();
    if let Some(script) = script {
        judge(line, script, bridged, problems, warnings);
    }
    vif
}

/// Warns of a script whose work hatch does itself, and refuses any other.
fn judge(
    line: usize,
    script: &str,
    bridged: bool,
    problems: &mut ConfigProblems,
    warnings: &mut ConfigProblems,
) {
    match script.rsplit('/').next().unwrap_or_default() {
        "" | "vif-bridge" => {}
        name if OTHER_SCRIPTS.contains(&name) => problems.add(
            line,
            format!(
                "vif: script {} is not run, and hatch only makes the vif a port of a bridge",
                shown(script)
            ),
        ),
        _ if bridged => warnings.add(
            line,
            format!(
                "vif: script {} is not run: hatch makes the vif a port of its bridge itself",
                shown(script)
            ),
        ),
        _ => problems.add(
            line,
            format!(
                "vif: script {} is not run; name the bridge that the vif is to be a port of",
                shown(script)
            ),
        ),
    }
}

/// Parses a unicast MAC address: six bytes in hexadecimal.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| matches!(part.len(), 1 | 2))?;
        *byte = u8::from_str_radix(part, 16)
            .ok()
            .filter(|_| !part.starts_with('+'))?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}
