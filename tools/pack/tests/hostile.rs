//! Changed, cut and random packs: nothing panics or runs for ever, and `check` finds the damage.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use mayfly_pack::{check, list};
use mayfly_site::pack::read::hash;
use mayfly_site::pack::{HEADER, HEADER_SUMMED, OpenError, Section, TRAILER};
use mayfly_site::{Broken, Node, Pack, Pages, Resource, Zone, Zones, records};
use proptest::prelude::*;
use proptest::sample::Index;

/// Corrects the checksum of the header, so that the change behind it is reached.
fn sum_up(bytes: &mut [u8]) {
    if let Some(header) = bytes.get_mut(..HEADER) {
        let sum = hash(0, &header[..HEADER_SUMMED]);
        header[HEADER_SUMMED..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads all that the guest may read; any of it may be broken.
fn use_all(bytes: &[u8]) {
    let Ok(pack) = Pack::open(bytes) else {
        return;
    };
    for name in [
        "",
        "test",
        "example.test",
        "a.b.c.deep.example.test",
        "x.wild.example.test",
        "x.signed.test",
        "www.hashed.test",
        "x.cut.example.test",
    ] {
        let name = common::wire(name);
        if let Ok(Some(zone)) = pack.zone(&name) {
            let _ = in_zone(&pack, zone, &name);
        }
    }
    for index in 0..6 {
        if let Ok(Some(zone)) = pack.nth_zone(index) {
            let _ = in_zone(&pack, zone, b"\x01x\0");
        }
    }
    for host in ["", "www.example.test", "other.test", "x"] {
        for path in [
            "/",
            "/a/b",
            "/a/b/",
            "/404.html",
            "/old",
            "/a/data.bin",
            "/missing",
        ] {
            if let Ok(Some(resource)) = pack.resource(host.as_bytes(), path.as_bytes()) {
                read(resource);
            }
        }
        let _ = pack.error_page(host.as_bytes(), 404);
    }
    for index in 0..30 {
        if let Ok(Some((host, path, resource))) = pack.nth_resource(index) {
            read(resource);
            let _ = pack.resource_of(host, path);
        }
        let _ = pack.nth_host(index);
    }
}

fn in_zone(pack: &Pack<'_>, zone: Zone<Node>, name: &[u8]) -> Result<(), Broken> {
    let _ = pack.nsec(zone, name);
    let _ = pack.nsec3_parameters(zone);
    let _ = pack.nsec3(zone, &[0x55; 20]);
    for index in 0..40 {
        if let Ok(Some(node)) = pack.nth_node(zone, index) {
            let _ = at_node(pack, node);
        }
    }
    let found = pack.closest_encloser(zone, name)?;
    assert!(found.at < name.len());
    at_node(pack, found.node)
}

fn at_node(pack: &Pack<'_>, node: Node) -> Result<(), Broken> {
    let _ = pack.wildcard(node);
    let _ = pack.delegation(node);
    let _ = pack.rrset(node, 1);
    for index in 0..10 {
        if let Some(set) = pack.nth_rrset(node, index)? {
            records(set.rdata)
                .chain(records(set.signatures))
                .for_each(drop);
        }
    }
    let name = pack.name(node)?;
    assert!(name.len() <= 255 && name.last() == Some(&0));
    Ok(())
}

fn read(resource: Resource<'_>) {
    if let Resource::File(file) = resource {
        for variant in file.variants.iter().flatten() {
            let _ = &variant.lines[..variant.common];
            let _ = &variant.lines[variant.common..variant.encoded];
            let _ = &variant.lines[variant.encoded..variant.typed];
        }
    }
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(300))]

    #[test]
    fn changed_packs(
        changes in prop::collection::vec((any::<Index>(), prop_oneof![Just(0), Just(0xff), any::<u8>()], 1..5_usize), 1..20),
        cut in prop::option::weighted(0.1, any::<Index>()),
        metadata: bool,
    ) {
        let mut bytes = SAMPLE.with(Clone::clone);
        // Most of a pack is bodies, in which nothing can go wrong.
        let end = if metadata {
            let pack = Pack::open(&bytes).unwrap();
            pack.section(Section::Bodies).as_ptr() as usize - bytes.as_ptr() as usize
        } else {
            bytes.len()
        };
        for (at, value, length) in changes {
            let at = at.index(end);
            let end = (at + length).min(bytes.len());
            bytes[at..end].fill(value);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        sum_up(&mut bytes);
        use_all(&bytes);
        if let Ok(pack) = Pack::open(&bytes) {
            let _ = list(&pack);
        }
        if bytes != SAMPLE.with(Clone::clone) {
            prop_assert!(check(&bytes).is_err());
        }
    }

    #[test]
    fn made_up_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        use_all(&bytes);
        let mut headed = SAMPLE.with(|sample| sample[..HEADER].to_vec());
        headed.extend(bytes);
        use_all(&headed);
        prop_assert!(check(&headed).is_err());
    }
}

thread_local! {
    static SAMPLE: Vec<u8> = common::packed(&common::sample());
}

#[test]
fn check_finds_every_changed_byte() {
    let (mut bytes, _) = common::pack(&[
        (
            "zones/t.zone",
            "@ SOA n. h. 1 2 3 4 5\n@ NS n.\na A 10.0.0.1\n",
        ),
        ("www/index.html", "hello"),
    ])
    .unwrap();
    assert!(check(&bytes).is_ok());
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        assert!(check(&bytes).is_err(), "byte {at}");
        bytes[at] ^= 1 << (at % 8);
    }
    for length in 0..bytes.len() {
        assert!(check(&bytes[..length]).is_err());
        assert!(Pack::open(&bytes[..length]).is_err());
    }
    bytes.push(0);
    let more = check(&bytes).unwrap_err();
    assert_eq!(more, ["1 bytes follow the end of the pack"]);
    assert!(Pack::open(&bytes).is_ok(), "a module may be padded");
}

#[test]
fn each_error_of_open() {
    let bytes = SAMPLE.with(Clone::clone);
    let length = u32::try_from(bytes.len()).unwrap();
    let changed = |at: usize, value: &[u8], right: bool| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        if right {
            sum_up(&mut bytes);
        }
        Pack::open(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(
        Pack::open(&bytes[..100]).unwrap_err(),
        OpenError::Short(100)
    );
    assert_eq!(changed(0, b"\x7fELF", true), OpenError::Magic);
    assert_eq!(changed(16, &[0; 8], false), OpenError::Checksum);
    assert_eq!(changed(8, &[2], false), OpenError::Version(2));
    assert_eq!(
        changed(12, &(length + 1).to_le_bytes(), true),
        OpenError::Cut(length + 1, bytes.len())
    );
    assert_eq!(
        changed(12, &[1, 0, 0, 0], true),
        OpenError::Cut(1, bytes.len())
    );
    for (index, section) in Section::ALL.into_iter().enumerate() {
        let at = 32 + 8 * index;
        let offset = bytes[at..at + 4].to_vec();
        let beyond = (length - u32::try_from(TRAILER).unwrap()).next_multiple_of(64) + 64;
        for (at, value) in [
            (at, 0_u32),
            (at, 64),
            (at, !7),
            (at, u32::from_le_bytes(offset.try_into().unwrap()) + 1),
            (at, beyond),
            (at + 4, u32::MAX),
            (at + 4, length),
        ] {
            assert_eq!(
                changed(at, &value.to_le_bytes(), true),
                OpenError::Section(section)
            );
        }
    }
    assert_eq!(
        changed(12, &(length + 1).to_le_bytes(), true).to_string(),
        format!(
            "it is cut short: {length} of its {} bytes are present",
            length + 1
        )
    );
}

/// A file has the identity, each coding once, and header lines in their order.
#[test]
fn files_that_contradict_themselves() {
    let (bytes, _) = common::pack(&[("www/a.txt", "x".repeat(5000))]).unwrap();
    let resources = Pack::open(&bytes).unwrap().section(Section::Resources);
    // The first resource is after 8 bytes, its first variant (the smallest) after 16 more.
    let first = resources.as_ptr() as usize - bytes.as_ptr() as usize + 8;
    assert_eq!(bytes[first..first + 8], [0, 0, 0, 0, 6, 0, 1, 4]);
    let variant = first + 16;
    for (at, value) in [
        // No variant, and too many.
        (first + 7, 0),
        (first + 7, 5),
        // An unknown coding.
        (variant, 4),
        // Header lines: a part longer than the next one, and a tag beyond the end.
        (variant + 11, 1),
        (variant + 13, 1),
        (variant + 15, 1),
        (variant + 3, 1),
        // A body at another place or of another length.
        (variant + 19, 1),
        (variant + 23, 1),
    ] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        let pack = Pack::open(&bytes).unwrap();
        assert!(pack.nth_resource(0).is_err(), "{at} {value}");
    }
    let (bytes, _) = common::pack(&[("www/a", "x")]).unwrap();
    let resources = Pack::open(&bytes).unwrap().section(Section::Resources);
    let first = resources.as_ptr() as usize - bytes.as_ptr() as usize + 8;
    for (coding, right) in [(0, true), (1, false), (2, false), (3, false)] {
        let mut bytes = bytes.clone();
        bytes[first + 16] = coding;
        let pack = Pack::open(&bytes).unwrap();
        assert_eq!(pack.resource(b"", b"/a").is_ok(), right);
    }
}

/// Writes the seeds of the fuzz target `pack`.
#[test]
fn seeds() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds/pack");
    std::fs::create_dir_all(&folder).unwrap();
    let sample = common::sample();
    let only = |parts: &[&str]| -> Vec<_> {
        let some = sample.iter().filter(|(path, content)| {
            content.len() < 10_000 && parts.iter().any(|part| path.contains(part))
        });
        some.cloned().collect()
    };
    for (name, asked, path, files) in [
        (
            "plain",
            "x.wild.example.test",
            "/",
            only(&["zones/example", "sub.example", "www/a/b"]),
        ),
        ("nsec", "x.signed.test", "/", only(&["signed"])),
        ("nsec3", "www.hashed.test", "/", only(&["hashed"])),
        (
            "www",
            "",
            "/a/b/",
            only(&["www/", "zones/example", "mayfly.toml"]),
        ),
    ] {
        let asked = common::wire(asked);
        let mut seed = vec![u8::try_from(asked.len()).unwrap()];
        seed.extend(asked);
        seed.push(u8::try_from(path.len()).unwrap());
        seed.extend(path.as_bytes());
        seed.extend(common::packed(&files));
        let file = folder.join(name);
        if std::fs::read(&file).ok() != Some(seed.clone()) {
            std::fs::write(file, seed).unwrap();
        }
    }
}
