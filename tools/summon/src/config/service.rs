//! Reads a service, and finds conflicts between two services.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use domain::base::Name;
use smoltcp::wire::IpCidr;

use super::table::{FileTable, FoundValue};
use super::values::{bridge, name, network, number, on_change, seconds, value};
use super::{Asleep, DaemonConfig, Ipv4Cidr, Ipv6Cidr, Named, Service};
use mayfly_toolstack::builder::check_name;
use mayfly_toolstack::builder::image::RAM_MAX;
use mayfly_toolstack::builder::layout::CMDLINE_MAX;
use mayfly_toolstack::config::{ConfigProblems, mac, own_mac, shown};
use mayfly_toolstack::paths::mac_text;

/// The default of `idle`, in seconds.
const IDLE: Duration = Duration::from_secs(60);
/// The default of `start_timeout`, in seconds. mayfly needs a fraction of it.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// The names and addresses of the services that were read before.
#[derive(Default)]
pub(super) struct SeenValues {
    /// Names and addresses that only one service can have, as text, with their lines.
    taken: BTreeMap<String, usize>,
    zones: BTreeMap<Name<Bytes>, usize>,
    /// The hosts, each with its zone and line.
    hosts: Vec<(Name<Bytes>, Name<Bytes>, usize)>,
    /// The networks, each with its bridge and line.
    networks: Vec<(String, IpCidr, usize)>,
    pub(super) named: Vec<(usize, Named, PathBuf)>,
}

impl SeenValues {
    /// Takes a name or an address. Reports a service that has it already.
    pub(super) fn take(
        &mut self,
        what: &str,
        value: &dyn Display,
        line: usize,
        problems: &mut ConfigProblems,
    ) {
        let text = format!("{what} {value}");
        match self.taken.get(&text) {
            Some(first) => problems.add(line, format!("the {text} is taken, in line {first}")),
            None => {
                self.taken.insert(text, line);
            }
        }
    }

    /// Reserves an address that no service can have.
    pub(super) fn reserve(&mut self, address: IpAddr, line: usize) {
        let text = format!("address {address}");
        self.taken.entry(text).or_insert(line);
    }

    /// Takes an address. Services on one bridge must agree on the prefix lengths of its networks.
    fn address(&mut self, bridge: &str, cidr: IpCidr, line: usize, problems: &mut ConfigProblems) {
        self.take("address", &cidr.address(), line, problems);
        let other = self.networks.iter().find(|(on, other, _)| {
            on == bridge
                && other.prefix_len() != cidr.prefix_len()
                && (other.contains_addr(&cidr.address()) || cidr.contains_addr(&other.address()))
        });
        if let Some((_, other, first)) = other {
            let what = format!(
                "{cidr} has another prefix length than {other} in line {first}, and both are in one network of {bridge}"
            );
            problems.add(line, what);
        }
        self.networks.push((bridge.to_owned(), cidr, line));
    }

    /// Whether a service is in this zone.
    pub(super) fn has_zone(&self, zone: &Name<Bytes>) -> bool {
        self.zones.contains_key(zone)
    }

    /// Reports hosts whose zone is not the closest one above them.
    pub(super) fn check_zones(&self, problems: &mut ConfigProblems) {
        for (host, zone, line) in &self.hosts {
            let closer = self.zones.iter().find(|(other, _)| {
                host.ends_with(other) && other.label_count() > zone.label_count()
            });
            if let Some((other, first)) = closer {
                let what =
                    format!("hosts: {host} is in the zone {other} of line {first}, not in {zone}");
                problems.add(*line, what);
            }
        }
    }
}

/// Reads a service. Returns `None` if something is missing, which is reported.
pub(super) fn service(
    mut table: FileTable<'_>,
    daemon: &DaemonConfig,
    seen: &mut SeenValues,
    problems: &mut ConfigProblems,
) -> Option<Service> {
    let t = &mut table;
    let name = t.needed::<String>("name", r#""www""#, problems);
    if let Some(FoundValue { value, line }) = &name {
        if let Err(error) = check_name(value) {
            problems.add(*line, error.to_string());
        }
        seen.take("name", value, *line, problems);
    }
    let (hosts, zone) = names(t, seen, problems);
    let image = t.needed::<PathBuf>("image", r#""/guest/mayfly""#, problems);
    let site = t.get::<PathBuf>("site", problems);
    for (what, file) in [(Named::Image, &image), (Named::Site, &site)] {
        let file = file.iter();
        seen.named
            .extend(file.map(|file| (file.line, what, file.value.clone())));
    }
    let bridge = bridge(t, problems).unwrap_or_else(|| daemon.bridge.clone());
    let (ipv4, ipv6, gateway) = addresses(t, &bridge, seen, problems);
    let mac = own(t, name.as_ref(), seen, problems);
    let (idle, idle_hard) = idle(t, daemon.ttl, problems);
    let start_timeout = value(seconds(t, "start_timeout", problems)).unwrap_or(START_TIMEOUT);
    let lifetime = value(seconds(t, "lifetime", problems));
    let answer = value(t.get::<Vec<IpAddr>>("answer", problems)).unwrap_or_default();
    let network = value(network(t, problems)).or(daemon.network);
    let service = Service {
        memory: memory(t, daemon.limits.memory, problems),
        cmdline: value(t.get("cmdline", problems)).unwrap_or_default(),
        asleep: asleep(t, daemon.pool, problems),
        network: network.unwrap_or_default(),
        is_network_named: network.is_some(),
        on_demand: value(t.get("on_demand", problems)).unwrap_or(true),
        on_change: on_change(t, daemon.on_change, problems),
        name: value(name).unwrap_or_default(),
        zone: zone.unwrap_or_default(),
        image: value(image).unwrap_or_default(),
        site: value(site),
        mac: mac.unwrap_or_default(),
        hosts,
        ipv4,
        ipv6,
        gateway,
        bridge,
        idle,
        idle_hard,
        start_timeout,
        lifetime,
        answer,
    };
    let length = service.command_line().len();
    if length > CMDLINE_MAX {
        let what = format!(
            "its command line has {length} bytes with the addresses, and can have {CMDLINE_MAX}"
        );
        problems.add(table.line, what);
    }
    table.finish(problems);
    // Missing values were reported, so the file is not used.
    Some(service)
}

fn memory(table: &mut FileTable<'_>, most: u64, problems: &mut ConfigProblems) -> u64 {
    let memory = number(table, "memory", 1..=RAM_MAX >> 20, 8, problems);
    if memory > most {
        let what = format!(
            "its {memory} MiB of memory are more than all guests may have together, {most} (daemon.limits.memory)"
        );
        problems.add(table.line, what);
    }
    memory
}

fn asleep(table: &mut FileTable<'_>, pool: usize, problems: &mut ConfigProblems) -> Asleep {
    let Some(FoundValue { value, line }) = table.get::<String>("asleep", problems) else {
        return Asleep::default();
    };
    let wrong = match value.as_str() {
        "destroy" => return Asleep::Destroy,
        "suspend" => return Asleep::Suspend,
        "pool" if pool > 0 => return Asleep::Pool,
        "pool" => r#"there is no pool: [daemon] needs pool, like pool = 4"#.to_owned(),
        other => format!("{} is unknown", shown(other)),
    };
    problems.add(
        line,
        format!(r#"asleep: {wrong}; "destroy", "pool" and "suspend" are possible"#),
    );
    Asleep::default()
}

/// Reads `idle` and `idle_hard`. A client that keeps a DNS answer for its TTL must find the guest running, so `idle` is
/// at least twice the TTL.
fn idle(
    table: &mut FileTable<'_>,
    ttl: u32,
    problems: &mut ConfigProblems,
) -> (Duration, Option<Duration>) {
    let least = Duration::from_secs(u64::from(ttl) * 2);
    let found = seconds(table, "idle", problems);
    let idle = found.map_or(IDLE.max(least), |found| found.value);
    if let Some(FoundValue { line, .. }) = found
        && idle < least
    {
        let what = format!(
            "idle: {} s are less than twice daemon.ttl, {ttl} s",
            idle.as_secs_f64()
        );
        problems.add(line, what);
    }
    let hard = seconds(table, "idle_hard", problems);
    if let Some(FoundValue { value, line }) = hard
        && value < idle
    {
        let what = format!(
            "idle_hard: {} s are less than idle, {} s",
            value.as_secs_f64(),
            idle.as_secs_f64()
        );
        problems.add(line, what);
    }
    (idle, value(hard))
}

/// Reads the MAC address, or derives it from the name.
fn own(
    table: &mut FileTable<'_>,
    name: Option<&FoundValue<String>>,
    seen: &mut SeenValues,
    problems: &mut ConfigProblems,
) -> Option<[u8; 6]> {
    let (own, line) = match table.get::<String>("mac", problems) {
        Some(FoundValue { value, line }) => {
            let own = mac(&value);
            if own.is_none() {
                let what = format!(
                    "mac: {} is not the MAC address of one device, like 00:16:3e:01:02:03",
                    shown(&value)
                );
                problems.add(line, what);
            }
            (own?, line)
        }
        None => (own_mac(name?.value.as_bytes()), name?.line),
    };
    seen.take("MAC address", &mac_text(&own), line, problems);
    Some(own)
}

/// Reads the hosts and their zone.
fn names(
    table: &mut FileTable<'_>,
    seen: &mut SeenValues,
    problems: &mut ConfigProblems,
) -> (Vec<String>, Option<String>) {
    let zone = table.needed::<String>("zone", r#""example.test""#, problems);
    let zone = zone.and_then(|found| name("zone", &found, problems));
    if let Some(FoundValue { value, line }) = &zone {
        seen.zones.entry(value.clone()).or_insert(*line);
    }
    let listed = table.list::<String>("hosts", r#"["www.example.test"]"#, problems);
    if listed.as_ref().is_some_and(Vec::is_empty) {
        problems.add(table.line, "hosts: at least one is needed");
    }
    let mut hosts = Vec::new();
    for found in listed.into_iter().flatten() {
        let Some(FoundValue { value, line }) = name("hosts", &found, problems) else {
            continue;
        };
        seen.take("host", &value, line, problems);
        hosts.push(value.to_string());
        let Some(zone) = &zone else {
            continue;
        };
        if value.ends_with(&zone.value) {
            seen.hosts.push((value, zone.value.clone(), line));
        } else {
            let what = format!("hosts: {value} is not in the zone {}", zone.value);
            problems.add(line, what);
        }
    }
    (hosts, zone.map(|zone| zone.value.to_string()))
}

/// Reads the addresses and the gateway.
fn addresses(
    table: &mut FileTable<'_>,
    bridge: &str,
    seen: &mut SeenValues,
    problems: &mut ConfigProblems,
) -> (Option<Ipv4Cidr>, Option<Ipv6Cidr>, Option<Ipv4Addr>) {
    let is_missing = !table.has("ipv4") && !table.has("ipv6");
    let mut one = |key, example| {
        let FoundValue { value, line } = table.get::<String>(key, problems)?;
        let cidr = value.parse().ok().filter(is_host);
        match cidr {
            Some(cidr) if key == family(&cidr) => {
                seen.address(bridge, cidr, line, problems);
                Some(cidr)
            }
            _ => {
                let what = format!(
                    "{key}: {} is not a host's address with the prefix length of its network, like {example}",
                    shown(&value)
                );
                problems.add(line, what);
                None
            }
        }
    };
    let ipv4 = match one("ipv4", "192.0.2.80/24") {
        Some(IpCidr::Ipv4(cidr)) => Some(cidr),
        _ => None,
    };
    let ipv6 = match one("ipv6", "2001:db8::80/64") {
        Some(IpCidr::Ipv6(cidr)) => Some(cidr),
        _ => None,
    };
    if is_missing {
        let what = r#"[[services]] needs an address, like ipv4 = "192.0.2.80/24" or ipv6 = "2001:db8::80/64""#;
        problems.add(table.line, what);
    }
    let gateway = table.get::<Ipv4Addr>("gateway", problems);
    if let Some(FoundValue { value, line }) = &gateway
        && !ipv4.is_some_and(|cidr| cidr.contains_addr(value) && cidr.address() != *value)
    {
        let what = format!("gateway: {value} is not another address in the network of ipv4");
        problems.add(*line, what);
    }
    (ipv4, ipv6, value(gateway))
}

fn family(cidr: &IpCidr) -> &'static str {
    match cidr {
        IpCidr::Ipv4(_) => "ipv4",
        IpCidr::Ipv6(_) => "ipv6",
    }
}

/// Whether a host can have an address: not the network or broadcast address (except for RFC 3021), and not a link-local
/// address of IPv6, which every guest has anyway.
fn is_host(cidr: &IpCidr) -> bool {
    let address = IpAddr::from(cidr.address());
    let is_plain = !address.is_unspecified() && !address.is_loopback() && !address.is_multicast();
    is_plain
        && cidr.prefix_len() > 0
        && match cidr {
            IpCidr::Ipv4(cidr) => {
                let own = cidr.address();
                let is_outer = cidr.network().address() == own || cidr.broadcast() == Some(own);
                !own.is_broadcast() && (cidr.prefix_len() >= 31 || !is_outer)
            }
            IpCidr::Ipv6(cidr) => !cidr.address().is_unicast_link_local(),
        }
}
