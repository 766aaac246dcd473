//! Snapshots, and the decisions that follow from them.

use super::*;
use crate::builder::index::IndexEntry;

const OURS: &str = "00000000-0000-4000-8000-000000000005";
const OTHER: &str = "00000000-0000-4000-8000-000000000009";

fn domain(uuid: &str) -> Domain {
    Domain {
        uuid: uuid.to_owned(),
        dying: false,
        unborn: false,
    }
}

fn entry(domid: u16, uuid: &str) -> Claimant {
    let uuid = uuid.to_owned();
    Claimant::Entry(IndexEntry { domid, uuid })
}

/// dom0, hatch's live guest 5, and guest 9, which xl made.
fn healthy() -> Snapshot {
    let zero = "00000000-0000-0000-0000-000000000000";
    let record = IndexRecord {
        uuid: OURS.to_owned(),
        mac: Some([0, 0x16, 0x3e, 0, 0, 5]),
        name: "ours".to_owned(),
    };
    Snapshot {
        domains: [(0, domain(zero)), (5, domain(OURS)), (9, domain(OTHER))].into(),
        names: [("ours".to_owned(), entry(5, OURS))].into(),
        macs: [("00163e000005".to_owned(), entry(5, OURS))].into(),
        index: [(5, Some(record))].into(),
        homes: [
            (0, None),
            (5, Some(OURS.to_owned())),
            (9, Some(OTHER.to_owned())),
        ]
        .into(),
        libxl: [0, 5, 9].into(),
        backends: [5, 9].into(),
        switched: [5].into(),
        vms: [OURS.to_owned(), OTHER.to_owned()].into(),
        ..Snapshot::default()
    }
}

fn removed(actions: &[GcAction]) -> Vec<&str> {
    actions
        .iter()
        .filter_map(|action| match action {
            GcAction::Remove { path, .. } | GcAction::Forget { path, .. } => Some(path.as_str()),
            _ => None,
        })
        .collect()
}

/// Asserts that nothing of dom0 or of xl's guest 9 is removed.
fn spares_others(actions: &[GcAction]) {
    for action in actions {
        match action {
            GcAction::Destroy { domid, .. } | GcAction::Release { domid } => assert_eq!(*domid, 5),
            GcAction::Remove { path, .. } | GcAction::Forget { path, .. } => {
                assert!(
                    path.contains("/5") || path.contains(OURS) || path.starts_with("/hatch/"),
                    "{path}"
                );
                assert!(!path.contains(OTHER), "{path}");
            }
            GcAction::Look { .. } | GcAction::Unlink { .. } => {}
        }
    }
}

#[test]
fn what_lives_is_left_alone() {
    assert_eq!(decide(&healthy()), []);
    assert_eq!(decide(&Snapshot::default()), []);
}

#[test]
fn what_is_being_made_is_left_alone() {
    let mut seen = healthy();
    seen.marks.insert(OURS.to_owned(), MakerState::Runs);
    assert_eq!(decide(&seen), []);
    // Before its domain, before its claim, and while it is undone.
    for step in 0..3 {
        let mut seen = seen.clone();
        seen.names.clear();
        seen.macs.clear();
        seen.index.clear();
        if step > 0 {
            seen.domains.remove(&5);
        }
        if step > 1 {
            seen.homes.remove(&5);
        }
        assert_eq!(decide(&seen), []);
    }
}

#[test]
fn a_half_made_domain_is_ended() {
    let mut seen = healthy();
    seen.marks.insert(OURS.to_owned(), MakerState::Gone);
    let actions = decide(&seen);
    assert_eq!(
        actions.first(),
        Some(&GcAction::Destroy {
            domid: 5,
            uuid: OURS.to_owned()
        })
    );
    assert_eq!(removed(&actions), [format!("/hatch/making/{OURS}")]);
    // Without the claim, it is destroyed because it has never run.
    seen.index.clear();
    seen.names.clear();
    seen.macs.clear();
    assert_eq!(removed(&decide(&seen)), [format!("/hatch/making/{OURS}")]);
    assert!(!matches!(
        decide(&seen).first(),
        Some(GcAction::Destroy { .. })
    ));
    seen.domains.get_mut(&5).unwrap().unborn = true;
    // A home directory of this UUID belongs to another toolstack, which has made the guest since: `xl create -p` of the
    // same file.
    assert_eq!(removed(&decide(&seen)), [format!("/hatch/making/{OURS}")]);
    assert!(!matches!(
        decide(&seen).first(),
        Some(GcAction::Destroy { .. })
    ));
    // hatch writes that last.
    seen.homes.insert(5, None);
    assert!(matches!(
        decide(&seen).first(),
        Some(GcAction::Destroy { domid: 5, .. })
    ));
}

#[test]
fn a_birth_that_xenstored_knows_nothing_of_is_ended() {
    let file = PathBuf::from(format!("/run/hatch/making/{OURS}"));
    let birth = |maker, domid| FileMark {
        maker,
        domid,
        file: file.clone(),
    };
    let mut seen = healthy();
    seen.births
        .insert(OURS.to_owned(), birth(MakerState::Runs, Some(5)));
    seen.names.clear();
    seen.macs.clear();
    seen.index.clear();
    seen.homes.insert(5, None);
    assert_eq!(decide(&seen), []);
    seen.vms.remove(OURS);
    // It runs, and only the file has its maker.
    seen.births
        .insert(OURS.to_owned(), birth(MakerState::Gone, Some(5)));
    let unlink = GcAction::Unlink {
        file: file.clone(),
        why: "its maker is gone",
    };
    let destroy = GcAction::Destroy {
        domid: 5,
        uuid: OURS.to_owned(),
    };
    assert_eq!(decide(&seen), [destroy.clone(), unlink.clone()]);
    // Killed after the domain was created, and before its domid was in the file.
    seen.births
        .insert(OURS.to_owned(), birth(MakerState::Gone, None));
    assert_eq!(decide(&seen), std::slice::from_ref(&unlink));
    seen.domains.get_mut(&5).unwrap().unborn = true;
    assert_eq!(decide(&seen), [destroy, unlink.clone()]);
    // Another domain has the domid by now, or none has it.
    seen.births
        .insert(OURS.to_owned(), birth(MakerState::Gone, Some(5)));
    seen.domains.insert(5, domain(OTHER));
    assert_eq!(decide(&seen), std::slice::from_ref(&unlink));
    // Complete except for the removal of the file.
    let mut seen = healthy();
    seen.births
        .insert(OURS.to_owned(), birth(MakerState::Gone, Some(5)));
    assert_eq!(decide(&seen), [unlink]);
    seen.births
        .insert(OURS.to_owned(), birth(MakerState::Unknown, None));
    assert!(matches!(decide(&seen).as_slice(), [GcAction::Look { .. }]));
}

#[test]
fn keys_of_a_domain_that_was_never_or_is_no_more() {
    let mut seen = healthy();
    seen.marks.insert(OURS.to_owned(), MakerState::Gone);
    seen.domains.remove(&5);
    let everything = [
        "/local/domain/0/backend/vif/5",
        "/local/domain/0/switch/5",
        "/local/domain/5",
        "/libxl/5",
        &format!("/vm/{OURS}"),
        "/hatch/name/ours",
        "/hatch/mac/00163e000005",
        "/hatch/domain/5",
    ];
    let mark = format!("/hatch/making/{OURS}");
    let actions = decide(&seen);
    spares_others(&actions);
    assert_eq!(removed(&actions)[..8], everything);
    assert_eq!(removed(&actions).last(), Some(&mark.as_str()));
    // Half-removed: the same without a mark. Dying counts as gone.
    seen.marks.clear();
    assert_eq!(removed(&decide(&seen)), everything);
    seen.domains.insert(
        5,
        Domain {
            dying: true,
            ..domain(OURS)
        },
    );
    assert_eq!(removed(&decide(&seen)), everything);
    // Half-made without a claim: only the mark leads to the keys.
    seen.index.clear();
    seen.names.clear();
    seen.macs.clear();
    seen.domains.remove(&5);
    assert_eq!(decide(&seen), []);
    seen.marks.insert(OURS.to_owned(), MakerState::Gone);
    assert_eq!(removed(&decide(&seen))[..4], everything[..4]);
}

#[test]
fn a_number_that_is_anothers_by_now_keeps_all_but_the_entry() {
    let mut seen = healthy();
    seen.domains.insert(5, domain(OTHER));
    seen.domains.remove(&9);
    let entries = [
        "/hatch/name/ours",
        "/hatch/mac/00163e000005",
        "/hatch/domain/5",
    ];
    let actions = decide(&seen);
    assert_eq!(removed(&actions), entries);
    assert_eq!(actions.len(), 3, "{actions:?}");
    // Removed only as long as they have the same value: hatch may be making that domain.
    assert!(
        actions
            .iter()
            .all(|action| matches!(action, GcAction::Forget { value, .. } if value.contains(OURS)))
    );
    // Also when its maker left a mark.
    seen.marks.insert(OURS.to_owned(), MakerState::Gone);
    assert!(
        !decide(&seen)
            .iter()
            .any(|action| matches!(action, GcAction::Destroy { .. }))
    );
}

#[test]
fn an_address_that_the_domain_has_not_claimed_is_stray() {
    let mut seen = healthy();
    // A shell that was given away, and whose pool was killed right then.
    seen.macs.insert("0216aabbccdd".to_owned(), entry(5, OURS));
    assert_eq!(removed(&decide(&seen)), ["/hatch/mac/0216aabbccdd"]);
    // At once, although the guest is removed as well: it has its name, but is not complete.
    seen.marks.insert(OURS.to_owned(), MakerState::Gone);
    assert!(removed(&decide(&seen)).contains(&"/hatch/mac/0216aabbccdd"));
}

#[test]
fn a_uuid_that_lives_on_keeps_its_node() {
    let mut seen = healthy();
    seen.domains.remove(&5);
    seen.domains.insert(12, domain(OURS));
    let actions = decide(&seen);
    assert!(!removed(&actions).contains(&format!("/vm/{OURS}").as_str()));
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, GcAction::Destroy { .. }))
    );
}

#[test]
fn entries_that_lead_nowhere() {
    let mut seen = healthy();
    seen.names.insert("stale".to_owned(), entry(77, OURS));
    seen.names.insert("other".to_owned(), entry(5, OURS));
    seen.names.insert("foreign".to_owned(), entry(9, OTHER));
    seen.names.insert("odd".to_owned(), Claimant::Unknown);
    seen.macs.insert("00163e000077".to_owned(), entry(77, OURS));
    let actions = decide(&seen);
    spares_others(&actions);
    let expected = [
        "/hatch/name/foreign",
        "/hatch/name/other",
        "/hatch/name/stale",
        "/hatch/mac/00163e000077",
    ];
    assert_eq!(removed(&actions), expected);
    assert!(
        actions.iter().any(
            |action| matches!(action, GcAction::Look { path, .. } if path == "/hatch/name/odd")
        )
    );
}

/// Entries that hatch wrote before its index had UUIDs: the domid alone, and the name alone.
#[test]
fn what_an_older_hatch_wrote() {
    let mut seen = healthy();
    for (name, value) in [
        ("gone", "77"),
        ("taken", "5"),
        ("lives", "9"),
        ("odd", "09"),
    ] {
        seen.names.insert(name.to_owned(), Claimant::of(value));
    }
    seen.index.insert(77, None);
    let actions = decide(&seen);
    let expected = ["/hatch/domain/77", "/hatch/name/gone", "/hatch/name/taken"];
    assert_eq!(removed(&actions), expected);
    let looks: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            GcAction::Look { path, .. } => Some(path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(looks, ["/hatch/name/lives", "/hatch/name/odd"]);
    assert!(actions.iter().any(|action| {
        action
            .to_string()
            .contains("/hatch/name/gone: an older hatch wrote it")
    }));
}

#[test]
fn marks_that_say_nothing_are_told() {
    let mut seen = healthy();
    seen.marks.insert(OURS.to_owned(), MakerState::Unknown);
    assert!(matches!(decide(&seen).as_slice(), [GcAction::Look { .. }]));
}

#[test]
fn dom0_is_never_a_remainder() {
    let mut seen = healthy();
    let zero = seen.domains.get(&0).unwrap().uuid.clone();
    seen.marks.insert(zero.clone(), MakerState::Gone);
    seen.index.insert(0, None);
    seen.homes.insert(0, Some(zero.clone()));
    let actions = decide(&seen);
    assert_eq!(removed(&actions), [format!("/hatch/making/{zero}")]);
}
