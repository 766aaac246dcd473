//! A packed site: opened, asked for names and paths, and walked through.
//!
//! Input: bytes of the name, the name; bytes of the path, the path; the pack, whose header gets the
//! checksum that it needs.

use mayfly_site::pack::read::hash;
use mayfly_site::pack::{HEADER, HEADER_SUMMED};
use mayfly_site::{Broken, File, Node, Pack, Pages, Resource, Zone, Zones, records};

/// No more of anything is looked at, so that a run is short.
const MANY: usize = 24;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((name, data)) = part(data) else {
        return;
    };
    let Some((path, data)) = part(data) else {
        return;
    };
    let mut bytes = data.to_vec();
    if let Some(header) = bytes.get_mut(..HEADER) {
        let sum = hash(0, &header[..HEADER_SUMMED]);
        header[HEADER_SUMMED..].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(pack) = Pack::open(&bytes) else {
        return;
    };
    assert!(bytes.starts_with(pack.bytes()));

    let name = name.to_ascii_lowercase();
    if let Ok(Some(zone)) = pack.zone(&name) {
        assert!(zone.at < name.len());
        let _ = ask(&pack, zone, &name);
    }
    for index in 0..MANY {
        if let Ok(Some(zone)) = pack.nth_zone(index) {
            let _ = ask(&pack, zone, &name);
            for index in 0..MANY {
                if let Ok(Some(node)) = pack.nth_node(zone, index) {
                    let _ = look(&pack, node);
                }
                let _ = pack.nth_nsec3(zone, index);
            }
        }
        let _ = pack.nth_host(index);
        if let Ok(Some((host, path, resource))) = pack.nth_resource(index) {
            read(&pack, resource);
            let _ = pack.resource_of(host, path);
        }
    }
    for host in [&b""[..], b"www.example.test", path] {
        for path in [b"/", path] {
            if let Ok(Some(resource)) = pack.resource(host, path) {
                read(&pack, resource);
            }
        }
        if let Ok(Some(file)) = pack.error_page(host, 404) {
            variants(&pack, file);
        }
    }
}

/// Bytes after their number, and the rest.
fn part(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, data) = data.split_first()?;
    data.split_at_checked(usize::from(*length))
}

/// Makes the look-ups of a query.
fn ask(pack: &Pack<'_>, zone: Zone<Node>, name: &[u8]) -> Result<(), Broken> {
    let _ = pack.nsec(zone, name);
    let _ = pack.nsec3_parameters(zone);
    let mut hash = [0; 20];
    for (byte, from) in hash.iter_mut().zip(name) {
        *byte = *from;
    }
    if let Ok(Some((node, _))) = pack.nsec3(zone, &hash) {
        let _ = look(pack, node);
    }
    let found = pack.closest_encloser(zone, name)?;
    assert!(found.at < name.len());
    look(pack, found.node)
}

fn look(pack: &Pack<'_>, node: Node) -> Result<(), Broken> {
    let _ = pack.wildcard(node);
    let _ = pack.delegation(node);
    let name = pack.name(node)?;
    assert!(name.len() <= 255 && name.last() == Some(&0));
    for index in 0..MANY {
        let Some(set) = pack.nth_rrset(node, index)? else {
            break;
        };
        let all = set.rdata.len() + set.signatures.len();
        let of_records = records(set.rdata).chain(records(set.signatures));
        assert!(of_records.map(<[u8]>::len).sum::<usize>() <= all);
        let _ = pack.rrset(node, set.rtype);
    }
    Ok(())
}

fn read(pack: &Pack<'_>, resource: Resource<'_>) {
    match resource {
        Resource::File(file) => variants(pack, file),
        Resource::Redirect { status, location } => {
            assert!(matches!(status, 301 | 302 | 307 | 308));
            assert!(location.len() <= pack.bytes().len());
        }
        _ => panic!("a pack has no such resource"),
    }
}

fn variants(pack: &Pack<'_>, file: File<'_>) {
    assert!(file.variants.iter().flatten().count() > 0);
    for variant in file.variants.iter().flatten() {
        let ends = [
            variant.common,
            variant.encoded,
            variant.typed,
            variant.lines.len(),
        ];
        assert!(ends.is_sorted());
        assert!(variant.body.len() <= pack.bytes().len());
        assert!(variant.etag.len() <= variant.lines.len());
    }
}
