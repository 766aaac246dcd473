//! Finds what a killed hatch left behind, and nothing else.
//!
//! A guest has a mark before its domain exists (`/hatch/making/UUID`, see [`crate::paths::making_path`]; a file of
//! that name for a guest that runs before xenstored is told of it), and entries in the index (`/hatch/name`,
//! `/hatch/mac`, `/hatch/domain`) while it lives. So there are two kinds of remains:
//!
//! - **half-made**: a mark whose maker does not run any more. A domain of that UUID is destroyed when hatch's index has
//!   it, or when it has never run and has no home directory of its own: another toolstack, which writes that first, may
//!   have been given the same UUID since. A mark that is a file has the domid as soon as there is one.
//! - **half-removed**: an index entry whose domain is gone, or dying. All keys under that domain's domid are removed
//!   with it. If another domain has the domid by now, only the entry is removed.
//!
//! [`decide`] is a pure function of a [`Snapshot`]. xenstore is read before Xen is asked for its domains: hatch writes
//! the index after there is a domain, so an entry whose domain is missing then has none.

mod carry_out;
mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::builder::index::{Claimant, IndexRecord};
use crate::paths;
pub use carry_out::carry_out;
pub use snapshot::SnapshotError;

/// The state of xenstore, Xen and the marks' folder that decisions are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Xen's domains.
    pub domains: BTreeMap<u16, Domain>,
    /// The marks, by UUID.
    pub marks: BTreeMap<String, MakerState>,
    /// The marks that are files, by UUID.
    pub births: BTreeMap<String, FileMark>,
    /// The names of the index, as they are below `/hatch/name`, with their owners.
    pub names: BTreeMap<String, Claimant>,
    /// The MAC addresses of the index, below `/hatch/mac`, with their owners.
    pub macs: BTreeMap<String, Claimant>,
    /// The domids of the index with their records; `None` for a record that cannot be parsed.
    pub index: BTreeMap<u16, Option<IndexRecord>>,
    /// The value of `/local/domain/DOMID/vm` in each home directory.
    pub homes: BTreeMap<u16, Option<String>>,
    /// The domids with a directory below `/libxl`.
    pub libxl: BTreeSet<u16>,
    /// The domids with a directory below `/local/domain/0/backend/vif`.
    pub backends: BTreeSet<u16>,
    /// The domids with a directory below `/local/domain/0/switch`, where only hatch writes.
    pub switched: BTreeSet<u16>,
    /// The UUIDs below `/vm`.
    pub vms: BTreeSet<String>,
}

/// A domain of Xen's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The UUID.
    pub uuid: String,
    /// Whether it is dying.
    pub dying: bool,
    /// Whether it has never been on a CPU.
    pub unborn: bool,
}

/// The maker of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MakerState {
    /// A process that runs.
    Runs,
    /// A process that does not run any more.
    Gone,
    /// The mark cannot be parsed.
    Unknown,
}

/// A mark that is a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMark {
    /// The maker.
    pub maker: MakerState,
    /// The domid, if there was a domain by then.
    pub domid: Option<u16>,
    /// The file.
    pub file: PathBuf,
}

/// An action of `hatch gc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum GcAction {
    /// Destroys a half-made domain and removes its keys.
    Destroy {
        /// The domid.
        domid: u16,
        /// The UUID.
        uuid: String,
    },
    /// Makes xenstored release a domain that is gone.
    Release {
        /// The domid.
        domid: u16,
    },
    /// Removes a node with everything below it.
    Remove {
        /// The node.
        path: String,
        /// The reason: what left it.
        why: &'static str,
    },
    /// Removes a file.
    Unlink {
        /// The file.
        file: PathBuf,
        /// The reason: what left it.
        why: &'static str,
    },
    /// Removes an entry of the index if it still has this value.
    Forget {
        /// The entry.
        path: String,
        /// The value.
        value: String,
        /// The error in it.
        why: &'static str,
    },
    /// Does nothing; the user should look at the node.
    Look {
        /// The node.
        path: String,
        /// The oddity.
        why: &'static str,
    },
}

impl fmt::Display for GcAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destroy { domid, uuid } => {
                write!(f, "destroy the half-made domain {domid} ({uuid})")
            }
            Self::Release { domid } => write!(f, "release domain {domid}"),
            Self::Remove { path, why } | Self::Forget { path, why, .. } => {
                write!(f, "remove {path}: {why}")
            }
            Self::Unlink { file, why } => write!(f, "remove {}: {why}", file.display()),
            Self::Look { path, why } => write!(f, "left alone: {path}: {why}"),
        }
    }
}

/// The actions for a snapshot, in order.
#[must_use]
pub fn decide(seen: &Snapshot) -> Vec<GcAction> {
    const GONE: &str = "its maker is gone";
    let mut actions = Vec::new();
    let mut marks = Vec::new();
    let mut half_made = BTreeSet::new();
    let in_store = seen.marks.iter().map(|(uuid, maker)| {
        let path = format!("{}/{uuid}", paths::MARKS);
        let remove = GcAction::Remove {
            path: path.clone(),
            why: GONE,
        };
        (uuid, (*maker, None), path, remove)
    });
    let in_files = seen.births.iter().map(|(uuid, birth)| {
        let file = birth.file.clone();
        let path = file.display().to_string();
        let remove = GcAction::Unlink { file, why: GONE };
        (uuid, (birth.maker, Some(birth)), path, remove)
    });
    for (uuid, (maker, birth), path, remove) in in_store.chain(in_files) {
        match maker {
            MakerState::Runs => {}
            MakerState::Unknown => actions.push(GcAction::Look {
                path,
                why: "it does not say who makes the guest",
            }),
            MakerState::Gone => {
                half_made.extend(half_made_domains(seen, uuid, birth));
                marks.push((uuid, remove));
            }
        }
    }
    // Domains first: the keys that are removed below are not used once they are gone.
    for domid in &half_made {
        if let Some(domain) = seen.domains.get(domid) {
            actions.push(GcAction::Destroy {
                domid: *domid,
                uuid: domain.uuid.clone(),
            });
        }
    }
    let busy = |uuid: &str| makers(seen, uuid).any(|maker| maker == MakerState::Runs);
    for domid in dead(seen) {
        // A running maker works on it.
        let uuid = seen.homes.get(&domid).and_then(Option::as_deref);
        if uuid.is_some_and(busy) {
            continue;
        }
        bury(seen, domid, uuid, &mut actions);
    }
    succeeded(seen, &mut actions);
    stray_entries(seen, &mut actions);
    // Last: until everything is gone, the mark shows the next gc where to look.
    for (uuid, remove) in marks {
        let is_alive = seen.domains.values().any(|domain| domain.uuid == *uuid);
        if !is_alive && seen.vms.contains(uuid) {
            actions.push(GcAction::Remove {
                path: paths::vm(uuid),
                why: "of a guest that was never made",
            });
        }
        actions.push(remove);
    }
    // An entry may be wrong for two reasons.
    let mut done = BTreeSet::new();
    actions.retain(|action| match action {
        GcAction::Forget { path, value, .. } => done.insert(format!("{path} {value}")),
        action => done.insert(action.to_string()),
    });
    actions
}

/// The makers of the marks of this UUID.
fn makers(seen: &Snapshot, uuid: &str) -> impl Iterator<Item = MakerState> {
    let birth = seen.births.get(uuid).map(|birth| birth.maker);
    seen.marks.get(uuid).copied().into_iter().chain(birth)
}

/// The live domains that a maker which is gone has not completed. A mark that is a file may have the domid; if that
/// domain is in the index by then, it has the other mark for as long as it is not complete.
fn half_made_domains(seen: &Snapshot, uuid: &str, birth: Option<&FileMark>) -> Vec<u16> {
    let ours = |domid: u16, domain: &Domain| {
        let is_indexed = record(seen, domid).is_some_and(|record| record.uuid == uuid);
        let home = seen.homes.get(&domid).and_then(Option::as_deref);
        let is_unborn = domain.unborn && home != Some(uuid);
        match birth {
            Some(birth) => !is_indexed && (birth.domid == Some(domid) || is_unborn),
            None => is_indexed || is_unborn,
        }
    };
    seen.domains
        .iter()
        .filter(|(domid, domain)| domain.uuid == uuid && **domid != 0 && ours(**domid, domain))
        .map(|(domid, _)| *domid)
        .collect()
}

fn record(seen: &Snapshot, domid: u16) -> Option<&IndexRecord> {
    seen.index.get(&domid)?.as_ref()
}

/// The domids of hatch's domains that are gone: those in the index, and those of a home directory whose UUID has a mark
/// of a maker that is gone.
fn dead(seen: &Snapshot) -> BTreeSet<u16> {
    let lives = |domid: &u16| seen.domains.get(domid).is_some_and(|domain| !domain.dying);
    let marked = seen.homes.iter().filter(|(_, uuid)| {
        uuid.as_ref()
            .is_some_and(|uuid| makers(seen, uuid).any(|maker| maker == MakerState::Gone))
    });
    let numbers = seen.index.keys().chain(marked.map(|(domid, _)| domid));
    numbers
        .copied()
        .filter(|domid| *domid != 0 && !lives(domid))
        .collect()
}

/// Removes the entry of a domain whose domid another domain has by now.
fn succeeded(seen: &Snapshot, actions: &mut Vec<GcAction>) {
    for (domid, domain) in &seen.domains {
        if let Some(record) = record(seen, *domid)
            && !domain.dying
            && domain.uuid != record.uuid
        {
            forget_all(*domid, record, "another domain has its domid", actions);
        }
    }
}

fn forget_all(domid: u16, record: &IndexRecord, why: &'static str, actions: &mut Vec<GcAction>) {
    let claims = record.claims(domid).into_iter();
    actions.extend(claims.map(|(path, value)| GcAction::Forget { path, value, why }));
}

/// Removes everything that a dead domain has left, the back end first, because the kernel then releases its pages.
fn bury(seen: &Snapshot, domid: u16, uuid: Option<&str>, actions: &mut Vec<GcAction>) {
    const WHY: &str = "its domain is gone";
    let mut remove = |path: String| actions.push(GcAction::Remove { path, why: WHY });
    if seen.backends.contains(&domid) {
        remove(paths::backends(domid));
    }
    if seen.switched.contains(&domid) {
        remove(paths::switched(domid));
    }
    if seen.homes.contains_key(&domid) {
        remove(paths::home(domid));
    }
    if seen.libxl.contains(&domid) {
        remove(paths::libxl(domid));
    }
    // Another live domain may have the same UUID.
    if let Some(uuid) = uuid
        && seen.vms.contains(uuid)
        && !seen
            .domains
            .values()
            .any(|domain| domain.uuid == uuid && !domain.dying)
    {
        remove(paths::vm(uuid));
    }
    actions.push(GcAction::Release { domid });
    match seen.index.get(&domid) {
        Some(Some(record)) => forget_all(domid, record, WHY, actions),
        Some(None) => actions.push(GcAction::Remove {
            path: paths::domain_path(domid),
            why: WHY,
        }),
        None => {}
    }
}

/// The names and MAC addresses that lead to no domain of the index, or to one that has claimed another.
fn stray_entries(seen: &Snapshot, actions: &mut Vec<GcAction>) {
    for (folder, claims) in [("name", &seen.names), ("mac", &seen.macs)] {
        for (key, claimant) in claims {
            actions.extend(stray(seen, format!("/hatch/{folder}/{key}"), claimant));
        }
    }
}

/// The action for one name or MAC address, if there is one.
fn stray(seen: &Snapshot, path: String, claimant: &Claimant) -> Option<GcAction> {
    let (value, why) = match claimant {
        Claimant::Unknown => {
            let why = "it does not say which guest has it";
            return Some(GcAction::Look { path, why });
        }
        Claimant::Number(domid) => {
            let lives = seen.domains.get(domid).is_some_and(|domain| !domain.dying);
            let why = match record(seen, *domid) {
                Some(_) => "an older hatch wrote it, and another domain has its domid",
                None if !lives => "an older hatch wrote it, and its domain is gone",
                None => {
                    let why = "an older hatch wrote it, and a domain of this domid lives: \
                        it can be removed after `hatch destroy --force`";
                    return Some(GcAction::Look { path, why });
                }
            };
            (domid.to_string(), why)
        }
        Claimant::Entry(entry) => {
            let value = entry.to_string();
            let why = match record(seen, entry.domid) {
                None => "there is no such domain in the index",
                Some(record) if record.uuid != entry.uuid => "another domain has its domid",
                Some(record) => {
                    let claim = (path.clone(), value.clone());
                    if record.claims(entry.domid).contains(&claim) {
                        return None;
                    }
                    "the domain has claimed another"
                }
            };
            (value, why)
        }
    };
    Some(GcAction::Forget { path, value, why })
}
