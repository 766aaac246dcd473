//! Zones in memory, from master files that the `domain` crate reads: slow, and plain to see.

extern crate std;

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use domain::base::iana::Class;
use domain::base::name::{Name, ToName};
use domain::base::rdata::ComposeRecordData;
use domain::dep::octseq::OctetsFrom;
use domain::zonefile::inplace::{Entry, Zonefile};

use mayfly_site::{Broken, Encloser, Nsec3Parameters, RrSet, Zone, Zones};

/// A name as its labels from the root down, in lower case: their order is the canonical one.
type Path = Vec<Vec<u8>>;

#[derive(Debug, Default)]
struct Set {
    ttl: u32,
    rdata: Vec<u8>,
    signatures: Vec<u8>,
}

#[derive(Debug)]
struct Node {
    path: Path,
    name: Vec<u8>,
    sets: BTreeMap<u16, Set>,
}

#[derive(Debug)]
struct Served {
    transfer: bool,
    nodes: Vec<Node>,
    nsec3: Option<(u16, Vec<u8>)>,
    /// Hashes in order, and the nodes named after them.
    hashes: Vec<([u8; 20], usize)>,
}

/// Some zones.
#[derive(Debug, Default)]
pub(crate) struct Model(Vec<Served>);

/// A node of the n-th zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    zone: usize,
    node: usize,
}

fn path(name: &[u8]) -> Path {
    let mut labels = Vec::new();
    let mut rest = name;
    while let Some((length, tail)) = rest.split_first()
        && *length > 0
    {
        let (label, tail) = tail.split_at((*length).into());
        labels.push(label.to_ascii_lowercase());
        rest = tail;
    }
    labels.reverse();
    labels
}

fn push(bytes: &mut Vec<u8>, rdata: &[u8]) {
    bytes.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
    bytes.extend(rdata);
}

fn base32hex(text: &[u8]) -> Option<[u8; 20]> {
    let mut value = num(text.first_chunk::<16>()?)?.to_be_bytes()[6..].to_vec();
    value.extend(&num(text.get(16..)?.first_chunk::<16>()?)?.to_be_bytes()[6..]);
    return (text.len() == 32).then_some(value.try_into().ok()?);

    fn num(text: &[u8; 16]) -> Option<u128> {
        text.iter().try_fold(0, |sum, digit| {
            let digit = char::from(*digit).to_digit(32)?;
            Some(sum << 5 | u128::from(digit))
        })
    }
}

impl Model {
    /// Adds a zone; names are relative to `origin` until its file says otherwise.
    pub(crate) fn with(mut self, origin: &str, text: &str, transfer: bool) -> Self {
        let mut file = Zonefile::from(text);
        let origin: Name<Vec<u8>> = origin.parse().unwrap();
        file.set_default_class(Class::IN);
        file.set_origin(Name::octets_from(origin.clone()));
        let apex = path(origin.as_slice());
        let mut nodes: BTreeMap<Path, Node> = BTreeMap::new();
        let mut signatures = Vec::new();
        while let Some(entry) = file.next_entry().unwrap() {
            let Entry::Record(record) = entry else {
                panic!("$INCLUDE");
            };
            let name = record.owner().to_vec().as_slice().to_vec();
            let path = path(&name);
            assert!(path.starts_with(&apex), "{}", name.escape_ascii());
            let mut rdata = Vec::new();
            record.data().compose_rdata(&mut rdata).unwrap();
            for length in apex.len()..=path.len() {
                let skipped: usize = path[length..].iter().map(|label| label.len() + 1).sum();
                nodes
                    .entry(path[..length].to_vec())
                    .or_insert_with(|| Node {
                        path: path[..length].to_vec(),
                        name: name[skipped..].to_vec(),
                        sets: BTreeMap::new(),
                    });
            }
            let rtype = record.rtype().to_int();
            if rtype == 46 {
                let covered = u16::from_be_bytes([rdata[0], rdata[1]]);
                signatures.push((path, covered, rdata));
                continue;
            }
            let node = nodes.get_mut(&path).unwrap();
            let set = node.sets.entry(rtype).or_default();
            set.ttl = record.ttl().as_secs();
            push(&mut set.rdata, &rdata);
        }
        for (path, covered, rdata) in signatures {
            let set = nodes.get_mut(&path).unwrap().sets.get_mut(&covered);
            push(&mut set.unwrap().signatures, &rdata);
        }
        let nodes: Vec<Node> = nodes.into_values().collect();
        let nsec3 = nodes[0].sets.get(&51).map(|set| {
            let rdata = &set.rdata[2..];
            (
                u16::from_be_bytes([rdata[2], rdata[3]]),
                rdata[5..].to_vec(),
            )
        });
        let mut hashes = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            if node.sets.contains_key(&50) {
                hashes.push((base32hex(node.path.last().unwrap()).unwrap(), index));
            }
        }
        hashes.sort_unstable();
        self.0.push(Served {
            transfer,
            nodes,
            nsec3,
            hashes,
        });
        self
    }

    fn node(&self, handle: Handle) -> &Node {
        &self.0[handle.zone].nodes[handle.node]
    }

    fn find(&self, zone: usize, path: &[Vec<u8>]) -> Option<Handle> {
        let nodes = &self.0[zone].nodes;
        let node = nodes.binary_search_by(|node| node.path.as_slice().cmp(path));
        node.ok().map(|node| Handle { zone, node })
    }

    /// All names, and what types they have.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&[u8], impl Iterator<Item = u16>)> {
        self.0
            .iter()
            .flat_map(|zone| &zone.nodes)
            .map(|node| (&*node.name, node.sets.keys().copied()))
    }
}

fn view(rtype: u16, set: &Set) -> RrSet<'_> {
    RrSet {
        rtype,
        ttl: set.ttl,
        rdata: &set.rdata,
        signatures: &set.signatures,
    }
}

impl Zones for Model {
    type Node = Handle;

    fn zone(&self, name: &[u8]) -> Result<Option<Zone<Handle>>, Broken> {
        assert_eq!(name, name.to_ascii_lowercase());
        let path = path(name);
        let served = self.0.iter().enumerate();
        let belongs = served.filter(|(_, zone)| path.starts_with(&zone.nodes[0].path));
        Ok(belongs
            .max_by_key(|(_, zone)| zone.nodes[0].path.len())
            .map(|(index, zone)| Zone {
                apex: Handle {
                    zone: index,
                    node: 0,
                },
                at: name.len() - zone.nodes[0].name.len(),
                transfer: zone.transfer,
                signed: zone.nodes[0].sets.contains_key(&48),
            }))
    }

    fn closest_encloser(
        &self,
        zone: Zone<Handle>,
        name: &[u8],
    ) -> Result<Encloser<Handle>, Broken> {
        assert_eq!(name, name.to_ascii_lowercase());
        let path = path(name);
        assert!(path.starts_with(&self.node(zone.apex).path));
        assert_eq!(name.len() - zone.at, self.node(zone.apex).name.len());
        let mut at = 0;
        for length in (0..=path.len()).rev() {
            if let Some(node) = self.find(zone.apex.zone, &path[..length]) {
                return Ok(Encloser { node, at });
            }
            at += 1 + path[length - 1].len();
        }
        panic!("the apex is an encloser");
    }

    fn unchanging(&self, zone: Zone<Handle>) -> Option<u32> {
        u32::try_from(zone.apex.zone).ok()
    }

    fn wildcard(&self, node: Handle) -> Result<Option<Handle>, Broken> {
        let mut path = self.node(node).path.clone();
        path.push(b"*".to_vec());
        Ok(self.find(node.zone, &path))
    }

    fn delegation(&self, node: Handle) -> Result<Option<Handle>, Broken> {
        let path = &self.node(node).path;
        let apex = self.0[node.zone].nodes[0].path.len();
        let mut above = (apex + 1..=path.len()).map(|length| &path[..length]);
        Ok(above.find_map(|path| {
            let node = self.find(node.zone, path)?;
            self.node(node).sets.contains_key(&2).then_some(node)
        }))
    }

    fn name(&self, node: Handle) -> Result<&[u8], Broken> {
        Ok(&self.node(node).name)
    }

    fn rrset(&self, node: Handle, rtype: u16) -> Result<Option<RrSet<'_>>, Broken> {
        let set = self.node(node).sets.get(&rtype);
        Ok(set.map(|set| view(rtype, set)))
    }

    fn nth_rrset(&self, node: Handle, index: usize) -> Result<Option<RrSet<'_>>, Broken> {
        let set = self.node(node).sets.iter().nth(index);
        Ok(set.map(|(rtype, set)| view(*rtype, set)))
    }

    fn nth_node(&self, zone: Zone<Handle>, index: usize) -> Result<Option<Handle>, Broken> {
        let Handle { zone, .. } = zone.apex;
        Ok((index < self.0[zone].nodes.len()).then_some(Handle { zone, node: index }))
    }

    fn nsec(&self, zone: Zone<Handle>, name: &[u8]) -> Result<Option<Handle>, Broken> {
        assert_eq!(name, name.to_ascii_lowercase());
        let path = path(name);
        let Handle { zone, .. } = zone.apex;
        let nodes = self.0[zone].nodes.iter().enumerate().rev();
        let mut before = nodes.filter(|(_, node)| node.path <= path);
        let node = before.find(|(_, node)| node.sets.contains_key(&47));
        Ok(node.map(|(node, _)| Handle { zone, node }))
    }

    fn nsec3_parameters(&self, zone: Zone<Handle>) -> Result<Option<Nsec3Parameters<'_>>, Broken> {
        let nsec3 = self.0[zone.apex.zone].nsec3.as_ref();
        Ok(nsec3.map(|(iterations, salt)| Nsec3Parameters {
            iterations: *iterations,
            salt,
        }))
    }

    fn nsec3(&self, zone: Zone<Handle>, hash: &[u8; 20]) -> Result<Option<(Handle, bool)>, Broken> {
        let Handle { zone, .. } = zone.apex;
        let hashes = &self.0[zone].hashes;
        let before = hashes.iter().rev().find(|(known, _)| known <= hash);
        Ok(before.or(hashes.last()).map(|(known, node)| {
            let node = Handle { zone, node: *node };
            (node, known == hash)
        }))
    }
}

/// All zones of the tests.
pub(crate) fn zones() -> Model {
    let mut model = Model::default()
        .with("example.test.", include_str!("zones/plain.zone"), false)
        .with(
            "child.example.test.",
            include_str!("zones/child.zone"),
            true,
        );
    for (origin, text) in [
        ("nsec.test.", include_str!("zones/nsec.zone")),
        ("nsec3.test.", include_str!("zones/nsec3.zone")),
        ("optout.test.", include_str!("zones/optout.zone")),
    ] {
        model = model.with(origin, text, true);
    }
    model
}

/// A name in wire form; `\.` is not needed here.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The text of a name in wire form.
pub(crate) fn text(name: &[u8]) -> String {
    let labels = path(name).into_iter().rev();
    labels
        .map(|label| String::from_utf8(label).unwrap() + ".")
        .collect()
}
