//! The keys that are written for a guest, and those that are removed.

use super::*;
use crate::builder::{Connect, Network};
use mayfly_xen::TscMode;
use mayfly_xenstore::check_path;

fn config() -> GuestConfig {
    GuestConfig {
        name: "web.1".to_owned(),
        uuid: [0xab; 16],
        memory: 8,
        cmdline: String::new(),
        vif: Some(GuestVif {
            mac: [0, 0x16, 0x3e, 1, 2, 0xff],
            bridge: "xenbr0".to_owned(),
            ip: Some("10.0.2.80".to_owned()),
            rate: None,
            mtu: Some(1400),
        }),
        connect: Connect::Auto,
        console: true,
        tsc: TscMode::Default,
        network: Network::Netback,
        watched: None,
    }
}

fn all() -> Vec<StoreOp> {
    let ports = Ports {
        xenstore: 1,
        console: Some(2),
        network: Some((3, 4)),
    };
    let grants = Grants {
        tx_ring: 8,
        rx_ring: 9,
        rx_first: 10,
        free: 266,
    };
    let mut ops = claim(7, &config());
    ops.extend(birth(7, &config(), true));
    ops.extend(front(7, &ports, Some(&grants)));
    ops.push(connect(7));
    ops.extend(introduce(7, &ports));
    ops.extend(finish(7, &config(), &ports));
    ops
}

fn path(op: &StoreOp) -> Option<&str> {
    match op {
        StoreOp::Write(path, _)
        | StoreOp::Mkdir(path)
        | StoreOp::Perms(path, _)
        | StoreOp::Rm(path) => Some(path),
        StoreOp::Introduce { .. } | StoreOp::Release(_) => None,
    }
}

fn value<'a>(ops: &'a [StoreOp], wanted: &str) -> Option<&'a str> {
    // The last write counts.
    ops.iter().rev().find_map(|op| match op {
        StoreOp::Write(path, value) if path == wanted => Some(value.as_str()),
        _ => None,
    })
}

#[test]
fn every_path_is_one_that_xenstore_takes() {
    for op in all() {
        if let Some(path) = path(&op) {
            check_path(path).unwrap_or_else(|why| panic!("{path}: {why}"));
        }
    }
}

#[test]
fn what_xl_and_netback_look_for() {
    let ops = all();
    for (path, expected) in [
        (
            "/hatch/name/web@2e1",
            "7 abababab-abab-abab-abab-abababababab",
        ),
        (
            "/hatch/domain/7",
            "abababab-abab-abab-abab-abababababab 00:16:3e:01:02:ff web.1",
        ),
        (
            "/vm/abababab-abab-abab-abab-abababababab/uuid",
            "abababab-abab-abab-abab-abababababab",
        ),
        (
            "/hatch/mac/00163e0102ff",
            "7 abababab-abab-abab-abab-abababababab",
        ),
        ("/local/domain/7/name", "web.1"),
        (
            "/local/domain/7/vm",
            "/vm/abababab-abab-abab-abab-abababababab",
        ),
        ("/vm/abababab-abab-abab-abab-abababababab/name", "web.1"),
        ("/local/domain/7/memory/target", "8192"),
        ("/local/domain/7/console/port", "2"),
        (
            "/local/domain/7/device/vif/0/backend",
            "/local/domain/0/backend/vif/7/0",
        ),
        ("/local/domain/7/device/vif/0/event-channel-tx", "3"),
        ("/local/domain/7/device/vif/0/event-channel-rx", "4"),
        ("/local/domain/7/device/vif/0/tx-ring-ref", "8"),
        ("/local/domain/7/device/vif/0/state", "4"),
        (
            "/local/domain/0/backend/vif/7/0/frontend",
            "/local/domain/7/device/vif/0",
        ),
        ("/local/domain/0/backend/vif/7/0/mac", "00:16:3e:01:02:ff"),
        ("/local/domain/0/backend/vif/7/0/state", "1"),
        ("/local/domain/7/device/vif/0/mtu", "1400"),
        ("/libxl/7/type", "pvh"),
        (
            "/libxl/7/device/vif/0/backend",
            "/local/domain/0/backend/vif/7/0",
        ),
        ("/libxl/7/device/vif/0/bridge", "xenbr0"),
    ] {
        assert_eq!(value(&ops, path), Some(expected), "{path}");
    }
}

#[test]
fn a_guest_that_connects_by_itself_begins_at_the_beginning() {
    let ops = birth(7, &config(), false);
    assert_eq!(value(&ops, "/local/domain/7/device/vif/0/state"), Some("1"));
    let ports = Ports {
        xenstore: 1,
        console: None,
        network: None,
    };
    let later = front(7, &ports, None);
    assert_eq!(
        later
            .iter()
            .filter_map(path)
            .filter(|path| path.contains("/device/"))
            .count(),
        0
    );
}

#[test]
fn states_are_written_last() {
    let ops = all();
    let places = |part: &str| -> Vec<usize> {
        let holds = |op: &StoreOp| matches!(op, StoreOp::Write(path, _) if path.starts_with(part));
        ops.iter()
            .enumerate()
            .filter(|(_, op)| holds(op))
            .map(|(n, _)| n)
            .collect()
    };
    for folder in [
        "/local/domain/7/device/vif/0",
        "/local/domain/0/backend/vif/7/0",
    ] {
        let keys = places(folder);
        let last = keys.iter().filter_map(|n| path(&ops[*n])).rfind(|path| {
            let late = ["/mac", "/hotplug-status", "/online", "/type"];
            !late.iter().any(|key| path.ends_with(key))
        });
        assert_eq!(last, Some(format!("{folder}/state").as_str()));
    }
    assert!(ops.contains(&StoreOp::Introduce {
        domid: 7,
        gfn: XENSTORE_GFN,
        port: 1
    }));
    // As long as the mark exists, `hatch gc` takes the guest for incomplete.
    assert_eq!(
        made(&config()),
        StoreOp::Rm(paths::making_path(&[0xab; 16]))
    );
    assert!(!ops.contains(&made(&config())));
}

#[test]
fn there_is_a_front_end_before_netback_looks_for_one() {
    let ops = all();
    let at = |wanted: &str| ops.iter().position(|op| path(op) == Some(wanted));
    let (front, back) = (
        at("/local/domain/7/device/vif/0/state"),
        at("/local/domain/0/backend/vif/7/0/frontend"),
    );
    assert!(front.is_some() && front < back);
}

#[test]
fn rights_are_set_where_something_is_made_and_before_anything_is_in_it() {
    let ops = all();
    for (n, op) in ops.iter().enumerate() {
        let StoreOp::Perms(folder, _) = op else {
            continue;
        };
        let inside = format!("{folder}/");
        let is_maker =
            |op: &StoreOp| path(op).is_some_and(|path| path == folder || path.starts_with(&inside));
        let before = ops[..n].iter().filter(|op| is_maker(op)).count();
        assert_ne!(before, 0, "{folder} is not there yet");
        assert_eq!(before, 1, "{folder} has something in it already");
    }
}

/// The permissions of each directory, in full, in xenstore's text form: the first is the owner's entry, with the access
/// of all other domains.
#[test]
fn rights_are_no_more_than_each_needs() {
    let letter = |access: Access| match access {
        Access::None => 'n',
        Access::Read => 'r',
        Access::Write => 'w',
        Access::Both => 'b',
    };
    let all = all();
    let given = all.iter().filter_map(|op| match op {
        StoreOp::Perms(folder, perms) => {
            let perms = perms
                .iter()
                .map(|p| format!("{}{}", letter(p.access), p.domid));
            Some((folder.as_str(), perms.collect::<Vec<_>>().join(" ")))
        }
        _ => None,
    });
    let given: Vec<_> = given.collect();
    let expected = [
        // Keys made below it inherit its permissions: the guest reads, and writes nothing.
        ("/local/domain/7", "n0 r7"),
        // The guest's own half of the handshake, which netback reads.
        ("/local/domain/7/device/vif/0", "n7 r0"),
        ("/local/domain/0/backend/vif/7/0", "n0 r7"),
        // The guest may write it; dom0 may read and write everything in any case.
        ("/local/domain/7/data", "n7"),
        ("/local/domain/7/control", "n7"),
        // As libxl sets them: the guest reads its own identity.
        ("/vm/abababab-abab-abab-abab-abababababab", "n0 r7"),
    ];
    let given: Vec<_> = given
        .iter()
        .map(|(folder, perms)| (*folder, perms.as_str()))
        .collect();
    assert_eq!(given, expected);
    // Keys that the guest must not read are outside these directories, with dom0's own permissions.
    for op in &all {
        if let StoreOp::Write(path, _) | StoreOp::Mkdir(path) = op {
            let known = [
                "/local/domain/7/",
                "/local/domain/0/backend/vif/7/0/",
                "/vm/",
                "/libxl/7/",
                "/hatch/",
            ];
            assert!(
                path == "/local/domain/7" || known.iter().any(|folder| path.starts_with(folder)),
                "{path}"
            );
        }
    }
}

#[test]
fn all_that_was_written_is_removed() {
    let mut gone: Vec<String> = death(7, Some(&paths::uuid(&[0xab; 16])))
        .iter()
        .filter_map(path)
        .map(String::from)
        .collect();
    let claims = config().index().claims(7);
    gone.extend(claims.into_iter().map(|(path, _)| path));
    for op in all() {
        if let (Some(path), false) = (path(&op), matches!(op, StoreOp::Rm(_))) {
            let is_under = |gone: &String| path == gone || path.starts_with(&format!("{gone}/"));
            assert!(gone.iter().any(is_under), "{path} stays");
        }
    }
}
