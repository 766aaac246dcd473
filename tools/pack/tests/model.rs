//! Compares packed zones with a model that is slow and simple.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use mayfly_site::{Node, Pack, Zone, Zones, records};
use proptest::prelude::*;

/// Labels from the top down, in lower case: their order is the canonical one.
type Name = Vec<Vec<u8>>;

const A: u16 = 1;
const NS: u16 = 2;
const TXT: u16 = 16;
const NSEC: u16 = 47;

/// Records by name and type.
#[derive(Debug, Default)]
struct Model {
    names: BTreeMap<Name, BTreeMap<u16, BTreeSet<Vec<u8>>>>,
}

impl Model {
    fn add(&mut self, name: &Name, apex: usize, rtype: u16, rdata: Vec<u8>) {
        for labels in apex..name.len() {
            self.names.entry(name[..labels].to_vec()).or_default();
        }
        let types = self.names.entry(name.clone()).or_default();
        types.entry(rtype).or_default().insert(rdata);
    }
}

/// A label that needs escapes, differs in case, or sorts in odd places.
fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec![&b"a"[..], b"A", b"b", b"ab", b"aB", b"*", b"a-", b"1"])
            .prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
        1 => prop::collection::vec(prop::sample::select(vec![0, 1, 2, b'.', b'\\', b'"', 255]), 1..3),
    ]
}

/// Labels below an apex, from the top down.
fn below() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(label(), 0..5)
}

fn lower(name: &[Vec<u8>]) -> Name {
    name.iter()
        .map(|label| label.to_ascii_lowercase())
        .collect()
}

fn wire(name: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.iter().rev() {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// A name as a master file writes it.
fn text(name: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for label in name.iter().rev() {
        for byte in label {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'*' | b'-' => text.push(char::from(*byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        text.push('.');
    }
    text
}

/// A record that a name is given.
#[derive(Clone, Debug)]
struct Wanted {
    name: Vec<Vec<u8>>,
    kind: u8,
    value: u8,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (below(), 0..4_u8, 0..3_u8).prop_map(|(name, kind, value)| Wanted { name, kind, value })
}

/// The text of a zone and its model; each name has NSEC when `signed`.
fn zone(apex: &[&str], wanted: &[Wanted], signed: bool) -> (String, Model) {
    let apex: Vec<Vec<u8>> = apex.iter().map(|label| label.as_bytes().to_vec()).collect();
    let mut model = Model::default();
    let mut file = format!(
        "$TTL 60\n{0} SOA ns.test. h.test. 1 2 3 4 5\n{0} NS ns.test.\n",
        text(&apex)
    );
    let soa = [
        &b"\x02ns\x04test\0\x01h\x04test\0"[..],
        &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5],
    ];
    model.add(&apex, apex.len(), 6, soa.concat());
    model.add(&apex, apex.len(), NS, b"\x02ns\x04test\0".to_vec());
    for wanted in wanted {
        let name = [&apex[..], &wanted.name].concat();
        if wire(&name).len() > 255 {
            continue;
        }
        let key = lower(&name);
        let owner = text(&name);
        let (rtype, line, rdata) = match wanted.kind {
            0 | 1 => (
                A,
                format!("A 10.0.0.{}", wanted.value),
                vec![10, 0, 0, wanted.value],
            ),
            2 => (
                TXT,
                format!("TXT x{}", wanted.value),
                vec![2, b'x', b'0' + wanted.value],
            ),
            _ => (NS, "NS ns.test.".to_owned(), b"\x02ns\x04test\0".to_vec()),
        };
        file.push_str(&format!("{owner} {line}\n"));
        model.add(&key, apex.len(), rtype, rdata);
    }
    if signed {
        let owners: Vec<Name> = model.names.keys().cloned().collect();
        for name in owners {
            if !model.names[&name].is_empty() {
                file.push_str(&format!("{} NSEC ns.test. A\n", text(&name)));
                model.add(
                    &name,
                    apex.len(),
                    NSEC,
                    b"\x02ns\x04test\0\x00\x01\x40".to_vec(),
                );
            }
        }
    }
    (file, model)
}

/// Compares look-ups in the pack with the model.
fn compare(pack: &Pack<'_>, zone: Zone<Node>, apex: usize, model: &Model, asked: &[Vec<u8>]) {
    let name = lower(asked);
    let bytes = wire(&name);
    let above = (apex..=name.len())
        .rev()
        .map(|labels| &name[..labels])
        .find(|name| model.names.contains_key(*name))
        .unwrap();
    let at = bytes.len() - wire(&name[..apex]).len();
    let found = pack.closest_encloser(Zone { at, ..zone }, &bytes).unwrap();
    assert_eq!(found.at, bytes.len() - wire(above).len());
    let stored = pack.name(found.node).unwrap();
    assert_eq!(stored.to_ascii_lowercase(), wire(above));

    let types = &model.names[above];
    for rtype in [1, 2, 6, 16, 28, 47, 65535] {
        let set = pack.rrset(found.node, rtype).unwrap();
        assert_eq!(set.is_some(), types.contains_key(&rtype));
        if let Some(set) = set {
            let there: Vec<_> = records(set.rdata).map(<[u8]>::to_vec).collect();
            assert_eq!(there.len(), types[&rtype].len());
            assert_eq!(there.into_iter().collect::<BTreeSet<_>>(), types[&rtype]);
            assert_eq!((set.ttl, set.rtype, set.signatures), (60, rtype, &[][..]));
        }
    }
    let wildcard = [above, &[b"*".to_vec()]].concat();
    let node = pack.wildcard(found.node).unwrap();
    assert_eq!(node.is_some(), model.names.contains_key(&wildcard));
    if let Some(node) = node {
        assert_eq!(
            pack.name(node).unwrap().to_ascii_lowercase(),
            wire(&wildcard)
        );
    }
    let cut = (apex + 1..=above.len())
        .map(|labels| &above[..labels])
        .find(|name| model.names[*name].contains_key(&NS));
    let node = pack.delegation(found.node).unwrap();
    let node = node.map(|node| pack.name(node).unwrap().to_ascii_lowercase());
    assert_eq!(node, cut.map(wire));

    let before = model.names.range(..=name.clone()).rev();
    let nsec = before.clone().find(|(_, types)| types.contains_key(&NSEC));
    let node = pack.nsec(zone, &bytes).unwrap();
    let node = node.map(|node| pack.name(node).unwrap().to_ascii_lowercase());
    assert_eq!(node, nsec.map(|(name, _)| wire(name)));
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(400))]

    #[test]
    fn names_are_found_as_in_the_model(
        outer in prop::collection::vec(wanted(), 0..40),
        inner in prop::collection::vec(wanted(), 0..20),
        asked in prop::collection::vec(below(), 0..40),
        signed: bool,
    ) {
        // The apex of the inner zone may be any name of the outer zone.
        let zones = [(&["t"][..], &outer), (&["t", "a"], &inner)];
        let made = zones.map(|(apex, wanted)| zone(apex, wanted, signed));
        let bytes = common::packed(&[
            ("zones/t.zone", &made[0].0),
            ("zones/a.t.zone", &made[1].0),
        ]);
        let pack = Pack::open(&bytes).unwrap();

        for ((apex, _), (_, model)) in zones.iter().zip(&made) {
            let apex: Name = apex.iter().map(|label| label.as_bytes().to_vec()).collect();
            let zone = pack.zone(&wire(&apex)).unwrap().unwrap();
            prop_assert_eq!(pack.name(zone.apex).unwrap(), wire(&apex));

            let nodes = (0..).map_while(|index| pack.nth_node(zone, index).unwrap());
            let names: Vec<_> = nodes
                .map(|node| pack.name(node).unwrap().to_ascii_lowercase())
                .collect();
            let wanted: Vec<_> = model.names.keys().map(|name| wire(name)).collect();
            prop_assert_eq!(names, wanted);

            for name in model.names.keys() {
                compare(&pack, zone, apex.len(), model, name);
            }
            for below in &asked {
                let name = [&apex[..], below].concat();
                if wire(&name).len() <= 255 {
                    compare(&pack, zone, apex.len(), model, &name);
                }
            }
        }
        for below in &asked {
            for top in ["t", "u"] {
                let name = lower(&[&[top.as_bytes().to_vec()], &below[..]].concat());
                let zone = pack.zone(&wire(&name)).unwrap();
                let inner = name.len() >= 2 && name[1] == b"a";
                let labels = match (top, inner) {
                    ("t", true) => Some(2),
                    ("t", false) => Some(1),
                    _ => None,
                };
                let at = labels.map(|labels| wire(&name).len() - wire(&name[..labels]).len());
                prop_assert_eq!(zone.map(|zone| zone.at), at);
                if let (Some(zone), Some(labels)) = (zone, labels) {
                    prop_assert_eq!(pack.name(zone.apex).unwrap(), wire(&name[..labels]));
                }
            }
        }
    }

    #[test]
    fn hashes_are_found_as_in_the_model(
        hashes in prop::collection::btree_set(any::<[u8; 20]>(), 0..30),
        asked in prop::collection::vec(any::<[u8; 20]>(), 0..30),
    ) {
        let mut file = "@ SOA n. h. 1 2 3 4 5\n@ NS n.\n@ NSEC3PARAM 1 0 3 ff00\n".to_owned();
        for hash in &hashes {
            let owner = domain::utils::base32::encode_string_hex(hash);
            file.push_str(&format!("{owner} NSEC3 1 1 3 ff00 {owner} A\n"));
            // Another chain, which is not served.
            file.push_str(&format!("{owner} NSEC3 1 1 4 ff00 {owner} A\n"));
        }
        let bytes = common::packed(&[("zones/t.zone", file)]);
        let pack = Pack::open(&bytes).unwrap();
        let zone = pack.zone(b"\x01t\0").unwrap().unwrap();
        let parameters = pack.nsec3_parameters(zone).unwrap();
        let parameters = parameters.map(|parameters| (parameters.iterations, parameters.salt));
        prop_assert_eq!(parameters, (!hashes.is_empty()).then_some((3, &[255, 0][..])));
        for hash in hashes.iter().chain(&asked) {
            let before = hashes.range(..=*hash).next_back().or(hashes.last());
            let found = pack.nsec3(zone, hash).unwrap();
            prop_assert_eq!(found.is_some(), before.is_some());
            if let (Some((node, equal)), Some(before)) = (found, before) {
                prop_assert_eq!(equal, before == hash);
                let name = pack.name(node).unwrap().to_vec();
                let owner = domain::utils::base32::encode_string_hex(before);
                prop_assert_eq!(&name, &[&[32][..], owner.as_bytes(), b"\x01t\0"].concat());
                // The name does not exist in the index of names.
                let zone = Zone { at: 33, ..zone };
                let found = pack.closest_encloser(zone, &name.to_ascii_lowercase()).unwrap();
                prop_assert_eq!(found.node, zone.apex);
            }
        }
    }
}

#[test]
fn the_longest_names() {
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "y".repeat(59));
    let deepest = vec!["a"; 126].join(".");
    let file =
        format!("@ SOA n. h. 1 2 3 4 5\n@ NS n.\n{longest} A 10.0.0.1\n{deepest} A 10.0.0.2\n");
    let bytes = common::packed(&[("zones/t.zone", file)]);
    let pack = Pack::open(&bytes).unwrap();
    for (name, last) in [(format!("{longest}.t"), 1), (format!("{deepest}.t"), 2)] {
        let name = common::wire(&name);
        assert_eq!(name.len(), 255);
        let zone = pack.zone(&name).unwrap().unwrap();
        let found = pack.closest_encloser(zone, &name).unwrap();
        assert_eq!(found.at, 0);
        let set = pack.rrset(found.node, 1).unwrap().unwrap();
        assert_eq!(set.rdata, [0, 4, 10, 0, 0, last]);
    }
}

#[test]
fn the_root_zone() {
    let file = "$ORIGIN .\n. SOA n. h. 1 2 3 4 5\n. NS n.\ntest NS n.test.\nn.test A 10.0.0.1\n";
    let bytes = common::packed(&[("zones/root.zone", file)]);
    let pack = Pack::open(&bytes).unwrap();
    for (name, at, cut) in [
        ("", 0, false),
        ("test", 0, true),
        ("x.n.test", 2, true),
        ("other", 6, false),
    ] {
        let name = common::wire(name);
        let zone = pack.zone(&name).unwrap().unwrap();
        assert_eq!(zone.at, name.len() - 1);
        let found = pack.closest_encloser(zone, &name).unwrap();
        assert_eq!(found.at, at);
        assert_eq!(pack.delegation(found.node).unwrap().is_some(), cut);
    }
}

#[test]
fn signatures_go_with_what_they_cover() {
    let bytes = common::packed(&common::sample());
    let pack = Pack::open(&bytes).unwrap();
    for (zone, denial) in [("signed.test", 47), ("hashed.test", 50)] {
        let zone = pack.zone(&common::wire(zone)).unwrap().unwrap();
        assert!(zone.signed);
        for index in 0.. {
            let Some(node) = pack.nth_node(zone, index).unwrap() else {
                break;
            };
            let cut = pack.delegation(node).unwrap();
            for index in 0.. {
                let Some(set) = pack.nth_rrset(node, index).unwrap() else {
                    break;
                };
                assert_ne!(set.rtype, 46);
                let signed = cut.is_none() || set.rtype == denial;
                assert_eq!(records(set.signatures).count(), usize::from(signed));
                for signature in records(set.signatures) {
                    assert_eq!(signature[..2], set.rtype.to_be_bytes());
                }
            }
        }
    }
    let plain = pack
        .zone(&common::wire("www.example.test"))
        .unwrap()
        .unwrap();
    assert!(!plain.signed && plain.transfer);
}
