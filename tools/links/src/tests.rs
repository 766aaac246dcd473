//! Tests of parsing. `tests/links.rs` tests with the kernel.

use proptest::prelude::*;

use super::message::{self, Netlink};
use super::*;

fn told(bytes: &[u8]) -> Option<Netlink> {
    let (told, length) = message::take(bytes).unwrap();
    assert_eq!(length, bytes.len());
    told
}

/// A netlink message with attributes that are strings of bytes.
fn link(kind: u16, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut payload = vec![family, 0, 1, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    for (kind, value) in attributes {
        payload.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        payload.extend(kind.to_ne_bytes());
        payload.extend_from_slice(value);
        payload.resize(payload.len().next_multiple_of(4), 0);
    }
    let mut bytes = u32::try_from(payload.len() + 16)
        .unwrap()
        .to_ne_bytes()
        .to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(7u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

#[test]
fn links_are_read() {
    // An attribute that no kernel has yet, in the middle.
    let attributes: [(u16, &[u8]); 5] = [
        (3, b"vif5.0\0"),
        (999, b"new"),
        (4, &1400u32.to_ne_bytes()),
        (10, &3u32.to_ne_bytes()),
        (18, b"\x08\0\x01\0vif\0"),
    ];
    let link = match told(&link(16, 0, &attributes)) {
        Some(Netlink::Link {
            sequence: 7,
            change: LinkChange::Is(link),
            ..
        }) => link,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (link.index, link.name.as_str(), link.mtu, link.master),
        (9, "vif5.0", 1400, Some(3))
    );
    assert_eq!(
        (link.kind.as_deref(), link.up, link.running),
        (Some("vif"), true, false)
    );
    assert_eq!(
        link.vif(),
        Some(VifNumber {
            domid: 5,
            device: 0
        })
    );
}

#[test]
fn that_a_port_leaves_its_bridge_is_not_its_end() {
    let attributes: [(u16, &[u8]); 1] = [(3, b"vif5.0\0")];
    assert_eq!(told(&link(17, 7, &attributes)), None);
    let gone = LinkChange::Gone {
        index: 9,
        name: "vif5.0".to_owned(),
    };
    assert!(
        matches!(told(&link(17, 0, &attributes)), Some(Netlink::Link { change, .. }) if change == gone)
    );
}

#[test]
fn names_of_links() {
    let vif = |name: &str| {
        let attributes: [(u16, &[u8]); 1] = [(3, name.as_bytes())];
        match told(&link(16, 0, &attributes)) {
            Some(Netlink::Link {
                change: LinkChange::Is(link),
                ..
            }) => link.vif(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        vif("vif32751.12"),
        Some(VifNumber {
            domid: 32751,
            device: 12
        })
    );
    for other in [
        "eth0",
        "vif",
        "vif1",
        "vif01.0",
        "vif+1.0",
        "vif1.0-emu",
        "vif70000.0",
        "vif1.-1",
    ] {
        assert_eq!(vif(other), None, "{other}");
    }
    for good in ["xenbr0", "br-lan", "a.b", "fifteencharacte"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a\0b",
        "a:b",
        "sixteencharacter",
        "brücke",
    ] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    #[test]
    fn any_datagram(mut bytes in proptest::collection::vec(any::<u8>(), 0..128), sane in any::<bool>(), kind in 0u16..20) {
        if sane && bytes.len() >= 16 {
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        }
        if let Ok((_, taken)) = message::take(&bytes) {
            prop_assert!(taken > 0 && taken <= bytes.len());
        }
    }
}
