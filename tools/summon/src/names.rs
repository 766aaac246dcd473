//! The services' names: zones are made from the file and packed, and the guest's own DNS code answers from the pack.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use domain::base::iana::Rtype;
use domain::base::{Message, Name, ToName as _};
use mayfly_dns::{self as dns, Client};
use mayfly_site::pack::OpenError;
use mayfly_site::{Pack, Zones as _};
use mayfly_stream::Millis;

use super::config::{Service, SummonConfig};
use super::fleet::ServiceId;
use mayfly_pack::{self as pack, Options};

/// The length of a DNS message's header in bytes (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// The bit TC in its third byte: the answer is truncated.
const TC: u8 = 0x02;

/// The packed zones, and the services' names in them.
#[derive(Default)]
pub struct Names {
    pack: Vec<u8>,
    hosts: HashMap<Vec<u8>, ServiceId>,
}

/// The reason why the zones cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// There is no room for the zones.
    #[error("the zones: {0}")]
    Io(#[from] std::io::Error),
    /// The zones have mistakes.
    #[error("the zones: {0}")]
    Zones(String),
}

/// The result of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryOutcome {
    /// It was answered. The service is given if the query was for the address of one.
    Answered(Option<ServiceId>),
    /// The name is outside of our zones.
    Elsewhere,
    /// It gets no answer.
    Nothing,
}

impl Names {
    /// Packs the zones of all services.
    ///
    /// # Errors
    /// There is no room for the zones, or they contradict each other.
    pub fn new(
        config: &SummonConfig,
        ids: &BTreeMap<String, ServiceId>,
    ) -> Result<Self, NamesError> {
        let site = tempfile::tempdir()?;
        let folder = site.path().join("zones");
        std::fs::create_dir(&folder)?;
        let mut zones: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
        let mut hosts = HashMap::new();
        for service in &config.services {
            zones.entry(&service.zone).or_default().push(service);
            let Some(&id) = ids.get(&service.name) else {
                continue;
            };
            for host in &service.hosts {
                hosts.insert(wire(host)?, id);
            }
        }
        for (zone, services) in &zones {
            let own =
                match config.zones.get(*zone) {
                    Some(file) => Some(std::fs::read_to_string(file).map_err(|error| {
                        NamesError::Zones(format!("{}: {error}", file.display()))
                    })?),
                    None => None,
                };
            let text = zone_file(zone, services, config, own.as_deref());
            std::fs::write(folder.join(format!("{zone}.zone")), text)?;
        }
        let packed = pack::pack_dir(site.path(), &Options::default())
            .map_err(|problems| NamesError::Zones(problems.to_string()))?;
        let pack = packed.to_vec()?;
        Pack::open(&pack).map_err(|error: OpenError| NamesError::Zones(error.to_string()))?;
        Ok(Self { pack, hosts })
    }

    /// Names from the parts that the other process has packed.
    #[must_use]
    pub fn of(pack: Vec<u8>, hosts: Vec<(Vec<u8>, ServiceId)>) -> Self {
        let hosts = hosts.into_iter().collect();
        Self { pack, hosts }
    }

    /// The parts for [`Self::of`].
    #[must_use]
    pub fn parts(&self) -> (Vec<u8>, Vec<(Vec<u8>, ServiceId)>) {
        let hosts = self.hosts.iter().map(|(host, &id)| (host.clone(), id));
        (self.pack.clone(), hosts.collect())
    }

    /// Answers a query over UDP. Returns the result of the query and the length of the answer in `out`, in bytes. A
    /// name outside of our zones is refused.
    pub fn answer(
        &self,
        server: &mut dns::Server,
        now: Millis,
        unix_seconds: u64,
        client: Client,
        query: &[u8],
        out: &mut [u8],
    ) -> (QueryOutcome, usize) {
        let Ok(pack) = Pack::open(&self.pack) else {
            return (QueryOutcome::Nothing, 0);
        };
        let (service, is_ours) = self.asked(&pack, query);
        match server.answer(&pack, now, unix_seconds, client, query, out) {
            answer if !is_ours => (QueryOutcome::Elsewhere, answer.unwrap_or(0)),
            // The source of a query with a truncated answer may be forged, so it does not wake a service.
            Some(length) if out.get(2).is_some_and(|flags| flags & TC != 0) => {
                (QueryOutcome::Answered(None), length)
            }
            Some(length) => (QueryOutcome::Answered(service), length),
            None => (QueryOutcome::Nothing, 0),
        }
    }

    /// The pack, for connections.
    pub fn pack(&self) -> Option<Pack<'_>> {
        Pack::open(&self.pack).ok()
    }

    /// The service for whose address a query asks, and whether the name is in one of our zones. A malformed query
    /// counts as ours, so that it is answered here.
    fn asked(&self, pack: &Pack<'_>, query: &[u8]) -> (Option<ServiceId>, bool) {
        let Ok(message) = Message::from_octets(query) else {
            return (None, true);
        };
        let Ok(question) = message.sole_question() else {
            return (None, true);
        };
        let name: Name<Vec<u8>> = question.qname().to_name();
        let name = name.as_slice().to_ascii_lowercase();
        let is_ours = pack.zone(&name).is_ok_and(|zone| zone.is_some());
        let is_address = matches!(question.qtype(), Rtype::A | Rtype::AAAA | Rtype::ANY);
        let service = self.hosts.get(&name).filter(|_| is_address).copied();
        (service, is_ours)
    }

    /// Finds the first whole query over TCP for a name outside of our zones. Returns the number of bytes before it, and
    /// its own, its length field included.
    pub fn before_elsewhere(&self, stream: &[u8]) -> (usize, Option<usize>) {
        let mut before = 0;
        if let Some(pack) = self.pack() {
            while let Some((length, rest)) =
                stream.get(before..).and_then(<[u8]>::split_first_chunk)
                && let Some(query) = rest.get(..u16::from_be_bytes(*length).into())
            {
                let length = length.len() + query.len();
                // A response must not be forwarded as a query.
                let is_query =
                    query.len() >= HEADER && query.get(2).is_some_and(|flags| flags & 0x80 == 0);
                if is_query && !self.asked(&pack, query).1 {
                    return (before, Some(length));
                }
                before += length;
            }
        }
        (stream.len(), None)
    }

    /// The services for whose addresses whole queries over TCP ask. Each query has its length in 16 bits before it.
    pub fn asked_in(&self, mut stream: &[u8]) -> Vec<ServiceId> {
        let mut services = Vec::new();
        let Some(pack) = self.pack() else {
            return services;
        };
        while let Some((length, rest)) = stream.split_first_chunk() {
            let Some((query, rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into())
            else {
                break;
            };
            if query.len() >= HEADER {
                services.extend(self.asked(&pack, query).0);
            }
            stream = rest;
        }
        services
    }
}

/// A name in wire form, in lower case.
fn wire(name: &str) -> Result<Vec<u8>, NamesError> {
    let name: Name<Vec<u8>> = name
        .parse()
        .map_err(|error| NamesError::Zones(format!("{name:?}: {error}")))?;
    Ok(name.as_slice().to_ascii_lowercase())
}

/// A zone as a master file: the administrator's own file, or SOA and NS records that name the daemon; then the
/// services' addresses.
fn zone_file(
    zone: &str,
    services: &[&Service],
    config: &SummonConfig,
    own: Option<&str>,
) -> String {
    let ttl = config.daemon.ttl;
    let mut text = format!("$TTL {ttl}\n$ORIGIN {zone}.\n");
    match own {
        Some(own) => text.push_str(own),
        None => head(&mut text, config, services),
    }
    let _ = writeln!(text, "\n$ORIGIN {zone}.");
    for service in services {
        let own = [
            service.ipv4.map(|cidr| IpAddr::from(cidr.address())),
            service.ipv6.map(|cidr| IpAddr::from(cidr.address())),
        ];
        let own: Vec<IpAddr> = own.into_iter().flatten().collect();
        let told = match service.answer.as_slice() {
            [] => &own,
            answer => answer,
        };
        for host in &service.hosts {
            for &one in told {
                address(&mut text, &format!("{host}."), ttl, one);
            }
        }
    }
    text
}

/// Writes SOA and NS records. The name server's name is in the zone if it has an address to give. The serial number is the
/// time, so that it grows.
fn head(text: &mut String, config: &SummonConfig, services: &[&Service]) {
    let ttl = config.daemon.ttl;
    let told = own_addresses(config, services);
    let server = if told.is_empty() { "localhost." } else { "ns" };
    let serial = SystemTime::now().duration_since(UNIX_EPOCH);
    let serial = serial.map_or(1, |now| now.as_secs() & u64::from(u32::MAX));
    let _ = writeln!(
        text,
        "@ SOA {server} hostmaster {serial} 3600 600 604800 {ttl}"
    );
    let _ = writeln!(text, "@ NS {server}");
    for told in told {
        address(text, "ns", ttl, told);
    }
}

/// The addresses for queries to the daemon. If it listens on all of the host's, they are those from which the host reaches the
/// services.
fn own_addresses(config: &SummonConfig, services: &[&Service]) -> BTreeSet<IpAddr> {
    let listens = config.daemon.listen.iter().map(SocketAddr::ip);
    let mut told: BTreeSet<_> = listens.clone().collect();
    for any in listens.filter(IpAddr::is_unspecified) {
        for service in services {
            let ipv4 = service.ipv4.map(|cidr| IpAddr::from(cidr.address()));
            let ipv6 = service.ipv6.map(|cidr| IpAddr::from(cidr.address()));
            let reached = [ipv4, ipv6].into_iter().flatten();
            // A socket of IPv6 is asked over IPv4 as well (RFC 3493 section 3.7).
            let reached = reached.filter(|to| any.is_ipv6() || to.is_ipv4());
            told.extend(reached.filter_map(local_address));
        }
    }
    told.retain(|address| !address.is_loopback() && !address.is_unspecified());
    told
}

/// The host's address from which it would send to another address. Nothing is sent.
fn local_address(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 53)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn address(text: &mut String, name: &str, ttl: u32, address: IpAddr) {
    let rtype = if address.is_ipv4() { "A" } else { "AAAA" };
    let _ = writeln!(text, "{name} {ttl} {rtype} {address}");
}
