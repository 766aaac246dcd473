//! Finds what a killed hatch left behind, and nothing else.
//!
//! What hatch makes has its mark before it is there (`/hatch/making/UUID`, see [`crate::builder::making_path`]; a file of that name for a
//! guest that runs before xenstored is told of it) and its place in the index
//! (`/hatch/name`, `/hatch/mac`, `/hatch/domain`) while it lives. So there are remains of two kinds:
//!
//! - **half-made**: a mark whose maker runs no more. A domain of that UUID is ours to end when hatch's index has it, or when it has
//!   never run and has no home of its own yet: another toolstack, which writes that first, may have been given the same UUID since. A
//!   mark that is a file says which domain it is, as soon as there is one.
//! - **half-removed**: an index entry whose domain is gone, or dying. All keys under that domain's number go with it, unless another
//!   domain has the number by now: then the entry goes alone.
//!
//! [`decide`] is a pure function of a [`Snapshot`]. xenstore is read before Xen is asked for its domains, because hatch writes
//! the index after there is a domain: an entry without one is then really without.

mod carry_out;
mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::builder::index::{Claimant, Record};
use crate::builder::{domain_path, keys};
pub use carry_out::carry_out;
pub use snapshot::SnapshotError;

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Xen's domains.
    pub domains: BTreeMap<u16, Domain>,
    /// The marks, by UUID.
    pub marks: BTreeMap<String, Maker>,
    /// The marks that are files, by UUID.
    pub births: BTreeMap<String, Birth>,
    /// Names of the index, as they are below `/hatch/name`, and who has them.
    pub names: BTreeMap<String, Claimant>,
    /// The same for MAC addresses, below `/hatch/mac`.
    pub macs: BTreeMap<String, Claimant>,
    /// The index's domains, and what it has of them, if that can be understood.
    pub index: BTreeMap<u16, Option<Record>>,
    /// What `/local/domain/DOMID/vm` says of each home.
    pub homes: BTreeMap<u16, Option<String>>,
    /// Domains with a directory below `/libxl`.
    pub libxl: BTreeSet<u16>,
    /// Domains with a directory below `/local/domain/0/backend/vif`.
    pub backends: BTreeSet<u16>,
    /// Domains with a directory below `/local/domain/0/switch`, where hatch alone writes.
    pub switched: BTreeSet<u16>,
    /// UUIDs below `/vm`.
    pub vms: BTreeSet<String>,
}

/// A domain of Xen's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its UUID.
    pub uuid: String,
    /// It is being taken apart.
    pub dying: bool,
    /// It has never been on a CPU.
    pub unborn: bool,
}

/// Who left a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// A process that runs.
    Runs,
    /// A process that runs no more.
    Gone,
    /// The mark says nothing that could be understood.
    Unknown,
}

/// A mark that is a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Who left it.
    pub maker: Maker,
    /// The domain, if it was there by then.
    pub domid: Option<u16>,
    /// The file.
    pub file: PathBuf,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Action {
    /// End a half-made domain and remove its keys.
    Destroy {
        /// Its number.
        domid: u16,
        /// Its UUID.
        uuid: String,
    },
    /// Have xenstored let go of a domain that is no more.
    Release {
        /// Its number.
        domid: u16,
    },
    /// Remove a node with all below it.
    Remove {
        /// The node.
        path: String,
        /// What it is left from.
        why: &'static str,
    },
    /// Remove a file.
    Unlink {
        /// The file.
        file: PathBuf,
        /// What it is left from.
        why: &'static str,
    },
    /// Remove an entry of the index, if it still says the same.
    Forget {
        /// The entry.
        path: String,
        /// What it says.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing, but somebody should look.
    Look {
        /// The node.
        path: String,
        /// What is odd.
        why: &'static str,
    },
}

impl fmt::Display for Action {
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

/// What is to be done, in its order.
#[must_use]
pub fn decide(seen: &Snapshot) -> Vec<Action> {
    const GONE: &str = "its maker is gone";
    let mut actions = Vec::new();
    let mut marks = Vec::new();
    let mut half_made = BTreeSet::new();
    let in_store = seen.marks.iter().map(|(uuid, maker)| {
        let path = format!("/hatch/making/{uuid}");
        let remove = Action::Remove {
            path: path.clone(),
            why: GONE,
        };
        (uuid, (*maker, None), path, remove)
    });
    let in_files = seen.births.iter().map(|(uuid, birth)| {
        let file = birth.file.clone();
        let path = file.display().to_string();
        let remove = Action::Unlink { file, why: GONE };
        (uuid, (birth.maker, Some(birth)), path, remove)
    });
    for (uuid, (maker, birth), path, remove) in in_store.chain(in_files) {
        match maker {
            Maker::Runs => {}
            Maker::Unknown => actions.push(Action::Look {
                path,
                why: "it does not say who makes the guest",
            }),
            Maker::Gone => {
                half_made.extend(half_made_domains(seen, uuid, birth));
                marks.push((uuid, remove));
            }
        }
    }
    // Domains first: without them, nobody uses what is removed below.
    for domid in &half_made {
        if let Some(domain) = seen.domains.get(domid) {
            actions.push(Action::Destroy {
                domid: *domid,
                uuid: domain.uuid.clone(),
            });
        }
    }
    let busy = |uuid: &str| makers(seen, uuid).any(|maker| maker == Maker::Runs);
    for domid in dead(seen) {
        // Somebody is at it.
        let uuid = seen.homes.get(&domid).and_then(Option::as_deref);
        if uuid.is_some_and(busy) {
            continue;
        }
        bury(seen, domid, uuid, &mut actions);
    }
    succeeded(seen, &mut actions);
    stray_entries(seen, &mut actions);
    // Last: until all is gone, the mark tells the next gc where to look.
    for (uuid, remove) in marks {
        let is_alive = seen.domains.values().any(|domain| domain.uuid == *uuid);
        if !is_alive && seen.vms.contains(uuid) {
            actions.push(Action::Remove {
                path: format!("/vm/{uuid}"),
                why: "of a guest that was never made",
            });
        }
        actions.push(remove);
    }
    // The same entry may be wrong for two reasons.
    let mut done = BTreeSet::new();
    actions.retain(|action| match action {
        Action::Forget { path, value, .. } => done.insert(format!("{path} {value}")),
        action => done.insert(action.to_string()),
    });
    actions
}

/// Who left marks of this UUID.
fn makers(seen: &Snapshot, uuid: &str) -> impl Iterator<Item = Maker> {
    let birth = seen.births.get(uuid).map(|birth| birth.maker);
    seen.marks.get(uuid).copied().into_iter().chain(birth)
}

/// Live domains that a maker who is gone has not finished. A mark that is a file may say which it is; one that is in the index by then has the other
/// mark for as long as it is not finished.
fn half_made_domains(seen: &Snapshot, uuid: &str, birth: Option<&Birth>) -> Vec<u16> {
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

fn record(seen: &Snapshot, domid: u16) -> Option<&Record> {
    seen.index.get(&domid)?.as_ref()
}

/// Numbers of our domains that are no more: in the index, or of a home whose UUID has a mark of a maker who is gone.
fn dead(seen: &Snapshot) -> BTreeSet<u16> {
    let lives = |domid: &u16| seen.domains.get(domid).is_some_and(|domain| !domain.dying);
    let marked = seen.homes.iter().filter(|(_, uuid)| {
        uuid.as_ref()
            .is_some_and(|uuid| makers(seen, uuid).any(|maker| maker == Maker::Gone))
    });
    let numbers = seen.index.keys().chain(marked.map(|(domid, _)| domid));
    numbers
        .copied()
        .filter(|domid| *domid != 0 && !lives(domid))
        .collect()
}

/// Takes the entry of a domain back whose number another one has by now.
fn succeeded(seen: &Snapshot, actions: &mut Vec<Action>) {
    for (domid, domain) in &seen.domains {
        if let Some(record) = record(seen, *domid)
            && !domain.dying
            && domain.uuid != record.uuid
        {
            forget_all(*domid, record, "another domain has its number", actions);
        }
    }
}

fn forget_all(domid: u16, record: &Record, why: &'static str, actions: &mut Vec<Action>) {
    let claims = record.claims(domid).into_iter();
    actions.extend(claims.map(|(path, value)| Action::Forget { path, value, why }));
}

/// Removes all that a dead domain has left, the back end first, because the kernel then lets go of its pages.
fn bury(seen: &Snapshot, domid: u16, uuid: Option<&str>, actions: &mut Vec<Action>) {
    const WHY: &str = "its domain is gone";
    let mut remove = |path: String| actions.push(Action::Remove { path, why: WHY });
    if seen.backends.contains(&domid) {
        remove(format!("/local/domain/0/backend/vif/{domid}"));
    }
    if seen.switched.contains(&domid) {
        remove(keys::switched(domid));
    }
    if seen.homes.contains_key(&domid) {
        remove(format!("/local/domain/{domid}"));
    }
    if seen.libxl.contains(&domid) {
        remove(format!("/libxl/{domid}"));
    }
    // The same UUID may live on as another domain.
    if let Some(uuid) = uuid
        && seen.vms.contains(uuid)
        && !seen
            .domains
            .values()
            .any(|domain| domain.uuid == uuid && !domain.dying)
    {
        remove(format!("/vm/{uuid}"));
    }
    actions.push(Action::Release { domid });
    match seen.index.get(&domid) {
        Some(Some(record)) => forget_all(domid, record, WHY, actions),
        Some(None) => actions.push(Action::Remove {
            path: domain_path(domid),
            why: WHY,
        }),
        None => {}
    }
}

/// Names and addresses that lead nowhere: to no domain of the index, or to one that has claimed another.
fn stray_entries(seen: &Snapshot, actions: &mut Vec<Action>) {
    for (folder, claims) in [("name", &seen.names), ("mac", &seen.macs)] {
        for (key, claimant) in claims {
            actions.extend(stray(seen, format!("/hatch/{folder}/{key}"), claimant));
        }
    }
}

/// What is to be done about one name or address, if anything is.
fn stray(seen: &Snapshot, path: String, claimant: &Claimant) -> Option<Action> {
    let (value, why) = match claimant {
        Claimant::Unknown => {
            let why = "it does not say whose it is";
            return Some(Action::Look { path, why });
        }
        Claimant::Number(domid) => {
            let lives = seen.domains.get(domid).is_some_and(|domain| !domain.dying);
            let why = match record(seen, *domid) {
                Some(_) => "an older hatch wrote it, and another domain has its number",
                None if !lives => "an older hatch wrote it, and its domain is gone",
                None => {
                    let why = "an older hatch wrote it, and a domain of this number lives: \
                        it can be removed after `hatch destroy --force`";
                    return Some(Action::Look { path, why });
                }
            };
            (domid.to_string(), why)
        }
        Claimant::Entry(entry) => {
            let value = entry.to_string();
            let why = match record(seen, entry.domid) {
                None => "there is no such domain in the index",
                Some(record) if record.uuid != entry.uuid => "another domain has its number",
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
    Some(Action::Forget { path, value, why })
}
