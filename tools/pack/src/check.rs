//! Checks a whole pack with the guest's own reader.

use mayfly_site::pack::{OpenError, TRAILER, canonical_order};
use mayfly_site::{Broken, File, Node, Pack, Pages, Resource, Zone, Zones, records};
use sha2::{Digest, Sha256};

use super::zone::{presentation, rdata, types};

const NS: u16 = 2;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;

/// The greatest number of problems that are reported.
const TOLD: usize = 100;

/// The figures of a valid pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The number of zones.
    pub zones: usize,
    /// The number of nodes in all zones.
    pub nodes: usize,
    /// The number of records at all nodes, signatures included.
    pub records: usize,
    /// The number of paths of all hosts.
    pub paths: usize,
}

/// Checks a pack: the header, the checksum, and that all of its content can be found and read as the guest does it.
///
/// # Errors
///
/// The problems, one line each, a hundred at most.
pub fn check(bytes: &[u8]) -> Result<Checked, Vec<String>> {
    let pack = Pack::open(bytes).map_err(|error: OpenError| vec![error.to_string()])?;
    let mut check = Check {
        wrong: Vec::new(),
        seen: Checked::default(),
        pack,
    };
    if bytes.len() > pack.bytes().len() {
        let more = bytes.len() - pack.bytes().len();
        check.wrong(format!("{more} bytes follow the end of the pack"));
    }
    let (body, digest) = pack.bytes().split_at(pack.bytes().len() - TRAILER);
    if Sha256::digest(body)[..] != *digest {
        check.wrong("the checksum does not match: the pack was changed or cut".to_owned());
    }
    check.zones();
    check.pages();
    if check.wrong.is_empty() {
        Ok(check.seen)
    } else {
        Err(check.wrong)
    }
}

struct Check<'a> {
    pack: Pack<'a>,
    wrong: Vec<String>,
    seen: Checked,
}

impl Check<'_> {
    fn wrong(&mut self, what: String) {
        if self.wrong.len() < TOLD {
            self.wrong.push(what);
        }
    }

    fn zones(&mut self) {
        for index in 0.. {
            match self.pack.nth_zone(index) {
                Ok(Some(zone)) => {
                    self.seen.zones += 1;
                    if let Err(Broken) = self.zone(zone) {
                        self.wrong(format!("zone {index} cannot be read to its end"));
                    }
                }
                Ok(None) => return,
                Err(Broken) => return self.wrong(format!("zone {index} cannot be read")),
            }
        }
    }

    fn zone(&mut self, zone: Zone<Node>) -> Result<(), Broken> {
        let pack = self.pack;
        let apex = pack.name(zone.apex)?.to_ascii_lowercase();
        let shown = presentation(&apex);
        let found = pack.zone(&apex)?;
        if found != Some(zone) {
            self.wrong(format!("zone {shown} is not found by its name"));
        }
        let [nodes, nsec, nsec3] = pack.node_counts(zone)?;
        let mut before: Option<Vec<u8>> = None;
        let mut with_nsec = 0;
        for index in 0..nodes {
            let Some(node) = pack.nth_node(zone, index)? else {
                break;
            };
            self.seen.nodes += 1;
            let name = pack.name(node)?.to_ascii_lowercase();
            let shown = presentation(&name);
            if let Some(before) = &before
                && !canonical_order(before, &name).ok_or(Broken)?.is_lt()
            {
                self.wrong(format!("{shown} is not in canonical order"));
            }
            if index == 0 && node != zone.apex {
                self.wrong(format!("{shown} is the first name and not the apex"));
            }
            let types = self.sets(node, &shown)?;
            self.ways(zone, node, &name, &types)?;
            if types.contains(&NSEC) && nsec > 0 {
                with_nsec += 1;
                if pack.nsec(zone, &name)? != Some(node) {
                    self.wrong(format!("NSEC of {shown} is not found"));
                }
            }
            before = Some(name);
        }
        if with_nsec != nsec {
            self.wrong(format!(
                "{with_nsec} names of {shown} have NSEC, and {nsec} are listed"
            ));
        }
        self.chain(zone, nsec3, &shown)
    }

    /// Checks the records of a node and returns their types.
    fn sets(&mut self, node: Node, shown: &str) -> Result<Vec<u16>, Broken> {
        let pack = self.pack;
        let mut types = Vec::new();
        while let Some(set) = pack.nth_rrset(node, types.len())? {
            if types.last().is_some_and(|last| *last >= set.rtype) {
                self.wrong(format!("types at {shown} are not in order"));
            }
            types.push(set.rtype);
            if pack.rrset(node, set.rtype)? != Some(set) {
                self.wrong(format!("type {} at {shown} is not found", set.rtype));
            }
            for (rtype, bytes) in [(set.rtype, set.rdata), (RRSIG, set.signatures)] {
                let whole: usize = records(bytes).map(|rdata| 2 + rdata.len()).sum();
                if whole != bytes.len() {
                    self.wrong(format!("records of {shown} are cut short"));
                }
                for data in records(bytes) {
                    self.seen.records += 1;
                    if let Err(what) = rdata::check(rtype, data) {
                        let name = types::name(rtype);
                        self.wrong(format!("the bytes of {shown} {name} {what}"));
                    }
                }
            }
        }
        Ok(types)
    }

    /// Checks the links to a node and from it: its name, the wildcard below, the delegation at or above it.
    fn ways(
        &mut self,
        zone: Zone<Node>,
        node: Node,
        name: &[u8],
        types: &[u16],
    ) -> Result<(), Broken> {
        let pack = self.pack;
        let shown = || presentation(name);
        let apex = pack.name(zone.apex)?;
        let at = name.len().checked_sub(apex.len()).ok_or(Broken)?;
        let found = pack.closest_encloser(Zone { at, ..zone }, name)?;
        let hashed = types == [NSEC3];
        if !hashed && (found.node, found.at) != (node, 0) {
            self.wrong(format!("{} is not found by its name", shown()));
        }
        if let Some(wildcard) = pack.wildcard(node)?
            && pack.name(wildcard)?.to_ascii_lowercase() != [b"\x01*", name].concat()
        {
            self.wrong(format!("the wildcard below {} has another name", shown()));
        }
        if let Some(cut) = pack.delegation(node)?
            && (pack.rrset(cut, NS)?.is_none()
                || !name.ends_with(&pack.name(cut)?.to_ascii_lowercase()))
        {
            self.wrong(format!("the delegation of {} is wrong", shown()));
        }
        Ok(())
    }

    /// Checks the NSEC3 chain, which has `names` names.
    fn chain(&mut self, zone: Zone<Node>, names: usize, shown: &str) -> Result<(), Broken> {
        let pack = self.pack;
        let mut before = None;
        for index in 0..names {
            let Some((hash, node)) = pack.nth_nsec3(zone, index)? else {
                break;
            };
            if before >= Some(hash) {
                self.wrong(format!("hashes of {shown} are not in order"));
            }
            if pack.nsec3(zone, &hash)? != Some((node, true)) || pack.rrset(node, NSEC3)?.is_none()
            {
                self.wrong(format!("an NSEC3 hash of {shown} is not found"));
            }
            before = Some(hash);
        }
        pack.nsec3_parameters(zone)?;
        Ok(())
    }

    fn pages(&mut self) {
        let mut before = None;
        for index in 0.. {
            match self.pack.nth_resource(index) {
                Ok(Some((host, path, resource))) => {
                    self.seen.paths += 1;
                    let shown = super::list::path(path);
                    if before.as_ref() >= Some(&(host, path)) {
                        self.wrong(format!("{shown} of host {host} is not in order"));
                    }
                    before = Some((host, path));
                    match self.pack.resource_of(host, path) {
                        Ok(Some(found)) if same(found, resource) => {}
                        _ => self.wrong(format!("{shown} of host {host} is not found")),
                    }
                    if let Resource::File(file) = resource {
                        self.file(&shown, file);
                    }
                }
                Ok(None) => break,
                Err(Broken) => {
                    self.wrong(format!("resource {index} cannot be read"));
                    break;
                }
            }
        }
        let mut before = None;
        for index in 0.. {
            match self.pack.nth_host(index) {
                Ok(Some((name, _))) => {
                    if !self.pack.lines(name, b"/\0").is_ok_and(are_fields) {
                        self.wrong("header lines of a host are malformed".to_owned());
                    }
                    if before >= Some(name) {
                        let shown = name.escape_ascii();
                        self.wrong(format!("host {shown} is not in order"));
                    }
                    before = Some(name);
                }
                Ok(None) => break,
                Err(Broken) => {
                    self.wrong(format!("host {index} cannot be read"));
                    break;
                }
            }
        }
        if self.pack.resource(b"", b"/").is_err() {
            self.wrong("the path / cannot be read".to_owned());
        }
    }

    fn file(&mut self, shown: &str, file: File<'_>) {
        for variant in file.variants.iter().flatten() {
            let parts = [
                &variant.lines[..variant.common],
                &variant.lines[variant.common..variant.encoded],
                &variant.lines[variant.encoded..variant.typed],
                &variant.lines[variant.typed..],
            ];
            let length = format!("Content-Length: {}\r\n", variant.body.len());
            let tag = variant.etag;
            if !parts.iter().all(|part| are_fields(part))
                || parts[3] != length.as_bytes()
                || !parts[2].starts_with(b"Content-Type: ")
                || !tag.starts_with(b"\"")
                || !tag.ends_with(b"\"")
                || tag.len() < 2
            {
                self.wrong(format!("header lines of {shown} are malformed"));
            }
        }
    }
}

/// Whether these are whole field lines and nothing else (RFC 9112, section 5). An empty line would end the head.
fn are_fields(lines: &[u8]) -> bool {
    let is_field = |line: &[u8]| {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return false;
        };
        let colon = line.iter().position(|byte| *byte == b':');
        colon.is_some_and(|at| at > 0) && !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
    };
    lines.split_inclusive(|byte| *byte == b'\n').all(is_field)
}

/// Whether two resources are the same, at the same address.
fn same(one: Resource<'_>, other: Resource<'_>) -> bool {
    match (one, other) {
        (Resource::File(one), Resource::File(other)) => {
            let places = |file: File<'_>| {
                file.variants
                    .map(|variant| variant.map(|variant| variant.lines.as_ptr()))
            };
            places(one) == places(other)
        }
        (
            Resource::Redirect { location: one, .. },
            Resource::Redirect {
                location: other, ..
            },
        ) => one.as_ptr() == other.as_ptr(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::are_fields;

    #[test]
    fn field_lines_are_whole_and_never_empty() {
        for right in ["", "A: b\r\n", "A: b\r\nC:\r\n"] {
            assert!(are_fields(right.as_bytes()), "{right:?}");
        }
        for wrong in [
            "\r\n",
            "A: b",
            "A: b\n",
            "A: b\r\n\r\n",
            "\r\nA: b\r\n",
            ": b\r\n",
            "A b\r\n",
            "A: b\r\r\n",
        ] {
            assert!(!are_fields(wrong.as_bytes()), "{wrong:?}");
        }
    }
}
