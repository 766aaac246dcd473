//! Lists the contents of a pack, for people and programs.

use std::collections::BTreeMap;
use std::fmt;

use mayfly_site::date::imf_fixdate;
use mayfly_site::{Broken, Coding, Pack, Resource, Zones as _, records};
use serde::Serialize;

use super::zone::presentation;

/// The contents of a pack.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// The size of the pack in bytes.
    pub bytes: usize,
    /// Zones in the order of their files.
    pub zones: Vec<ZoneListing>,
    /// Hosts; the first one has no folder of its own.
    pub hosts: Vec<HostListing>,
}

/// A zone of a pack.
#[derive(Clone, Debug, Serialize)]
pub struct ZoneListing {
    /// The name of the zone.
    pub name: String,
    /// The serial number of its SOA.
    pub serial: Option<u32>,
    /// The number of names, including empty non-terminals and NSEC3 names.
    pub names: usize,
    /// Whether anyone may transfer the whole zone (AXFR).
    pub transfer: bool,
    /// `NSEC` or `NSEC3`; `None` when the zone is not signed.
    pub denial: Option<&'static str>,
}

/// A host of a pack.
#[derive(Clone, Debug, Serialize)]
pub struct HostListing {
    /// The names of the host.
    pub names: Vec<String>,
    /// Whether the host serves requests for an unknown host.
    pub default: bool,
    /// The paths of the host.
    pub paths: Vec<PathListing>,
}

/// A path of a host.
#[derive(Clone, Debug, Serialize)]
pub struct PathListing {
    /// The path; for an error page, its status.
    pub path: String,
    /// For a redirect: the status and the location.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<(u16, String)>,
    /// For a file: its modification time in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<u64>,
    /// For a file: its size in bytes, by coding.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub variants: BTreeMap<&'static str, usize>,
    /// For a file: its media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// A path as text; an error page has its status in place of the path.
pub(super) fn path(path: &[u8]) -> String {
    match path {
        [0, high, low] => format!("error {}", u16::from_be_bytes([*high, *low])),
        _ => String::from_utf8_lossy(path).into_owned(),
    }
}

/// Lists a pack.
///
/// # Errors
///
/// The pack is broken.
pub fn list(pack: &Pack<'_>) -> Result<Listing, Broken> {
    let mut zones = Vec::new();
    while let Some(zone) = pack.nth_zone(zones.len())? {
        let [names, nsec, nsec3] = pack.node_counts(zone)?;
        let soa = pack.rrset(zone.apex, 6)?;
        let soa = soa.and_then(|set| records(set.rdata).next());
        // The serial number is the first of five numbers at the end.
        let serial = soa.and_then(|soa| soa.len().checked_sub(20).and_then(|at| soa.get(at..)));
        let serial = serial.and_then(|serial| serial.first_chunk());
        zones.push(ZoneListing {
            name: presentation(pack.name(zone.apex)?),
            serial: serial.map(|serial| u32::from_be_bytes(*serial)),
            names,
            transfer: zone.transfer,
            denial: match (zone.signed, nsec, nsec3) {
                (false, ..) => None,
                (true, _, 1..) => Some("NSEC3"),
                (true, 1.., _) => Some("NSEC"),
                (true, ..) => Some("none"),
            },
        });
    }

    let mut hosts: BTreeMap<u32, HostListing> = BTreeMap::new();
    let host = |number| HostListing {
        names: Vec::new(),
        default: number == pack.default_host(),
        paths: Vec::new(),
    };
    let mut index = 0;
    while let Some((name, number)) = pack.nth_host(index)? {
        let names = &mut hosts.entry(number).or_insert_with(|| host(number)).names;
        names.push(String::from_utf8_lossy(name).into_owned());
        index += 1;
    }
    index = 0;
    while let Some((number, bytes, resource)) = pack.nth_resource(index)? {
        let paths = &mut hosts.entry(number).or_insert_with(|| host(number)).paths;
        paths.push(entry(path(bytes), resource));
        index += 1;
    }
    Ok(Listing {
        bytes: pack.bytes().len(),
        zones,
        hosts: hosts.into_values().collect(),
    })
}

fn entry(path: String, resource: Resource<'_>) -> PathListing {
    let mut entry = PathListing {
        path,
        redirect: None,
        modified: None,
        variants: BTreeMap::new(),
        content_type: None,
    };
    match resource {
        Resource::Redirect { status, location } => {
            let location = String::from_utf8_lossy(location).into_owned();
            entry.redirect = Some((status, location));
        }
        Resource::File(file) => {
            entry.modified = Some(file.modified);
            for variant in file.variants.iter().flatten() {
                let coding = match variant.coding {
                    Coding::Identity => "identity",
                    Coding::Gzip => "gzip",
                    Coding::Brotli => "br",
                    Coding::Zstd => "zstd",
                };
                entry.variants.insert(coding, variant.body.len());
                let line = variant.lines.get(variant.encoded..variant.typed);
                let line = line.and_then(|line| line.strip_prefix(b"Content-Type: "));
                entry.content_type =
                    line.map(|line| String::from_utf8_lossy(line).trim_end().to_owned());
            }
        }
        // The guest makes these; a pack has none.
        Resource::Rendered { .. } | Resource::Payload(_) => {}
    }
    entry
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for zone in &self.zones {
            write!(f, "zone {}", zone.name)?;
            if let Some(serial) = zone.serial {
                write!(f, "  serial {serial}")?;
            }
            write!(f, "  {} names", zone.names)?;
            if let Some(denial) = zone.denial {
                write!(f, "  signed, {denial}")?;
            }
            writeln!(f, "{}", if zone.transfer { "  AXFR" } else { "" })?;
        }
        for host in &self.hosts {
            let names = host.names.join(", ");
            let name = if names.is_empty() {
                "without a name"
            } else {
                &names
            };
            let default = if host.default { " (default)" } else { "" };
            writeln!(f, "host {name}{default}")?;
            let width = host.paths.iter().map(|path| path.path.chars().count());
            let width = width.max().unwrap_or(0).min(60);
            for path in &host.paths {
                write!(f, "  {:width$}", path.path)?;
                if let Some((status, location)) = &path.redirect {
                    write!(f, "  {status} to {location}")?;
                }
                if let Some(content_type) = &path.content_type {
                    write!(f, "  {content_type}")?;
                }
                let bytes = path.variants.get("identity");
                if let Some(bytes) = bytes {
                    write!(f, "  {bytes}")?;
                }
                for (coding, bytes) in path
                    .variants
                    .iter()
                    .filter(|(coding, _)| **coding != "identity")
                {
                    write!(f, "  {coding} {bytes}")?;
                }
                if let Some(modified) = path.modified {
                    let date = imf_fixdate(modified);
                    write!(f, "  {}", String::from_utf8_lossy(&date))?;
                }
                writeln!(f)?;
            }
        }
        write!(f, "{} bytes", self.bytes)
    }
}
