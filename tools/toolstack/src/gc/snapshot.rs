//! Reads the state of Xen, xenstore and the marks: lists in one round trip, values in another.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{Domain, FileMark, MakerState, Snapshot};
use crate::builder::index::Claimant;
use crate::builder::{self, Toolstack, making};
use crate::host::Store;
use crate::paths;
use mayfly_xen as xen;

/// The error of reading the state.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Xen refused a request.
    #[error(transparent)]
    Xen(#[from] xen::Error),
    /// xenstored refused a request.
    #[error(transparent)]
    Store(#[from] mayfly_xenstore::Error),
    /// The marks that are files could not be read.
    #[error("the marks of births: {0}")]
    Io(#[from] io::Error),
}

impl Snapshot {
    /// Reads the state.
    ///
    /// # Errors
    /// The errors of Xen, xenstored and the marks' folder.
    pub fn read(toolstack: &mut Toolstack) -> Result<Self, SnapshotError> {
        let births = making::marks(&toolstack.marks())?;
        let births = births.into_iter().map(|(uuid, marked)| {
            let birth = FileMark {
                maker: maker(marked.map(|marked| marked.maker)),
                domid: marked.and_then(|marked| marked.domid),
                file: toolstack.marks().join(&uuid),
            };
            (uuid, birth)
        });
        let births = births.collect();
        let (store, xen) = toolstack.ways();
        let marks = values(store, paths::MARKS, "")?;
        let names = values(store, paths::NAMES, "")?;
        let macs = values(store, paths::MACS, "")?;
        let index = values(store, paths::RECORDS, "")?;
        let homes = values(store, paths::HOMES, "/vm")?;
        let libxl = numbers(&list(store, paths::LIBXL)?);
        let backends = numbers(&list(store, paths::BACKENDS)?);
        let switched = numbers(&list(store, paths::SWITCHED)?);
        let vms = list(store, paths::VMS)?.into_iter().collect();
        let mut domains = BTreeMap::new();
        for info in xen.list()? {
            let domain = Domain {
                uuid: paths::uuid(&info.handle),
                dying: info.is_dying(),
                unborn: info.cpu_ns == 0,
            };
            domains.insert(info.domid, domain);
        }
        let numbered = |all: BTreeMap<String, Option<String>>| {
            all.into_iter()
                .filter_map(|(key, value)| Some((key.parse::<u16>().ok()?, value)))
        };
        let entries = |all: BTreeMap<String, Option<String>>| {
            let claimant =
                |value: Option<String>| value.as_deref().map_or(Claimant::Unknown, Claimant::of);
            all.into_iter()
                .map(|(key, value)| (key, claimant(value)))
                .collect()
        };
        Ok(Self {
            domains,
            marks: marks
                .into_iter()
                .map(|(key, value)| (key, maker(value.and_then(|mark| mark.parse().ok()))))
                .collect(),
            births,
            names: entries(names),
            macs: entries(macs),
            index: numbered(index)
                .map(|(domid, value)| (domid, value.and_then(|value| value.parse().ok())))
                .collect(),
            homes: numbered(homes)
                .map(|(domid, vm)| {
                    (
                        domid,
                        vm.and_then(|vm| Some(vm.strip_prefix("/vm/")?.to_owned())),
                    )
                })
                .collect(),
            libxl,
            backends,
            switched,
            vms,
        })
    }
}

fn maker(mark: Option<builder::MakingProcess>) -> MakerState {
    match mark {
        Some(maker) if maker.runs() => MakerState::Runs,
        Some(_) => MakerState::Gone,
        None => MakerState::Unknown,
    }
}

fn list(store: &mut dyn Store, path: &str) -> Result<Vec<String>, mayfly_xenstore::Error> {
    match store.directory(path) {
        Err(error) if error.is_absent() => Ok(Vec::new()),
        other => other,
    }
}

/// The values of the nodes right below a path, or of the node `below` in each.
fn values(
    store: &mut dyn Store,
    path: &str,
    below: &str,
) -> Result<BTreeMap<String, Option<String>>, mayfly_xenstore::Error> {
    let keys = list(store, path)?;
    let paths: Vec<_> = keys
        .iter()
        .map(|key| format!("{path}/{key}{below}"))
        .collect();
    // One that is missing may have gone since.
    let values = store.values(&paths)?;
    let values = values
        .into_iter()
        .map(|value| String::from_utf8(value?).ok());
    Ok(keys.into_iter().zip(values).collect())
}

fn numbers(keys: &[String]) -> BTreeSet<u16> {
    keys.iter().filter_map(|key| key.parse().ok()).collect()
}
