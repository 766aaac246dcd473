//! The uniqueness of names and MAC addresses.
//!
//! Those of hatch's guests are in the index, and a lookup there is one read. Guests of other toolstacks are not in it:
//! their names are read one by one, all in one round trip. Meanwhile `xl create` is kept out by its own lock; if `xl`
//! holds the lock already, the names are read again at the end.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, fcntl_lock};

use super::config::GuestConfig;
use super::index::{Claimant, IndexEntry, IndexRecord};
use super::making::MakingProcess;
use crate::host::{Store, Xen};
use crate::paths;
use mayfly_xenstore::{ErrorCode, Request, RequestId, TransactionId};

/// The lock of `xl` (tools/xl/xl.h, XL_LOCK_FILE); `/var/lock` is most often a link to `/run/lock`.
const XL_LOCK: &str = "/var/lock/xl";

/// The name of dom0 (tools/helpers/init-dom0.c).
const DOM0: &str = "Domain-0";

/// A name or MAC address that is taken, and the owner as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Taken {
    /// The name.
    #[error("the name {0:?} is taken by {1}")]
    Name(String, String),
    /// The MAC address.
    #[error("the MAC address {0} is taken by {1}")]
    Mac(String, String),
}

/// The lock of `xl`; `None` if another process holds it.
pub(crate) struct XlLock(Option<File>);

impl XlLock {
    /// Takes the lock if it is free.
    pub(crate) fn take() -> Self {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(XL_LOCK)
            .ok();
        Self(file.filter(|file| fcntl_lock(file, FlockOperation::NonBlockingLockExclusive).is_ok()))
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.0.is_some()
    }
}

/// Begins the transaction of the claim, if the name and the MAC address are free. They are read inside the transaction,
/// and the writes are sent only when those reads are answered: so a claim by another process, before or after, is
/// either seen here or a conflict at the end, with both implementations of xenstored.
///
/// A domain that is gone, because `xl` destroyed it, or that is dying owns nothing, whatever the index has.
pub(crate) fn begin(
    store: &mut dyn Store,
    xen: &mut dyn Xen,
    config: &GuestConfig,
) -> Result<TransactionId, super::ToolstackError> {
    let transaction = store.send(Request::transaction_start())?;
    let transaction = store.transaction(transaction)?;
    let mut stale = Vec::new();
    let free = (|| {
        let name =
            store.send(Request::read(&paths::name_path(&config.name)).within(transaction))?;
        let mac = match &config.vif {
            Some(vif) => {
                Some(store.send(Request::read(&paths::mac_path(&vif.mac)).within(transaction))?)
            }
            None => None,
        };
        let domains = store.send(Request::directory(paths::HOMES))?;
        let ours = store.send(Request::directory(paths::RECORDS))?;
        let name = owner(xen, store.answer(name), &mut stale)?;
        let mac = mac
            .map(|mac| owner(xen, store.answer(mac), &mut stale))
            .transpose()?
            .flatten();
        let domains = numbers(store, domains, paths::HOMES)?;
        let ours = numbers(store, ours, paths::RECORDS)?;
        if config.name.eq_ignore_ascii_case(DOM0) {
            return Err(Taken::Name(config.name.clone(), "domain 0".to_owned()).into());
        }
        if let Some(owner) = name {
            return Err(Taken::Name(config.name.clone(), owner).into());
        }
        if let (Some(owner), Some(vif)) = (mac, &config.vif) {
            return Err(Taken::Mac(paths::mac_text(&vif.mac), owner).into());
        }
        // The stale record must not lead others to a domain of this name.
        for entry in stale {
            let path = paths::domain_path(entry.domid);
            let read = store.send(Request::read(&path).within(transaction))?;
            let record = store.answer(read).ok().and_then(record);
            if record.is_some_and(|record| record.uuid == entry.uuid) {
                let gone = store.send(Request::rm(&path).within(transaction))?;
                store.answer(gone)?;
            }
        }
        strangers(store, xen, &domains, &ours, config)
    })();
    if free.is_err() {
        let end = store.send(Request::transaction_end(transaction, false))?;
        store.answer(end)?;
    }
    free.map(|()| transaction)
}

/// Checks the guests of other toolstacks once more.
pub(crate) fn again(
    store: &mut dyn Store,
    xen: &mut dyn Xen,
    config: &GuestConfig,
) -> Result<(), super::ToolstackError> {
    let domains = store.send(Request::directory(paths::HOMES))?;
    let ours = store.send(Request::directory(paths::RECORDS))?;
    let domains = numbers(store, domains, paths::HOMES)?;
    let ours = numbers(store, ours, paths::RECORDS)?;
    strangers(store, xen, &domains, &ours, config)
}

/// The owner of the name or address whose entry was read. An entry that leads to no live domain is stale, and its owner
/// has nothing.
fn owner(
    xen: &mut dyn Xen,
    answer: Result<Vec<u8>, mayfly_xenstore::Error>,
    stale: &mut Vec<IndexEntry>,
) -> Result<Option<String>, super::ToolstackError> {
    let value = match answer {
        Ok(value) => value,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match std::str::from_utf8(&value).map_or(Claimant::Unknown, Claimant::of) {
        Claimant::Entry(entry) if entry.leads_to(xen.info(entry.domid)?.as_ref()) => {
            Ok(Some(format!("domain {}", entry.domid)))
        }
        Claimant::Entry(entry) => {
            stale.push(entry);
            Ok(None)
        }
        // It is not known which domain has the domid by now.
        Claimant::Number(domid) => {
            let info = xen.info(domid)?.filter(|info| !info.is_dying());
            Ok(info.map(|_| format!("domain {domid}, according to an older hatch")))
        }
        Claimant::Unknown => {
            let value = value.escape_ascii().to_string();
            Ok(Some(format!("{value:?} in the index")))
        }
    }
}

fn record(value: Vec<u8>) -> Option<IndexRecord> {
    String::from_utf8(value).ok()?.parse().ok()
}

/// The numbers right below a path. A list that is too long for one answer is read in parts.
fn numbers(
    store: &mut dyn Store,
    id: RequestId,
    path: &str,
) -> Result<BTreeSet<u16>, mayfly_xenstore::Error> {
    let number = |name: &[u8]| std::str::from_utf8(name).ok()?.parse().ok();
    match store.answer(id) {
        Ok(names) => Ok(names.split(|byte| *byte == 0).filter_map(number).collect()),
        Err(error) if error.is_absent() => Ok(BTreeSet::new()),
        Err(error) if error.is(&ErrorCode::E2BIG) => Ok(store
            .directory(path)?
            .iter()
            .filter_map(|name| number(name.as_bytes()))
            .collect()),
        Err(error) => Err(error),
    }
}

/// Whether the answer is this value. A domain of another toolstack may go away at any time and may lack any key. A MAC
/// address may be written in capitals; names that differ only in case count as equal.
fn is(store: &mut dyn Store, id: RequestId, wanted: &str) -> Result<bool, mayfly_xenstore::Error> {
    match store.answer(id) {
        Ok(value) => Ok(value.eq_ignore_ascii_case(wanted.as_bytes())),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Compares the name and the MAC address with those of other toolstacks' guests.
fn strangers(
    store: &mut dyn Store,
    xen: &mut dyn Xen,
    domains: &BTreeSet<u16>,
    ours: &BTreeSet<u16>,
    config: &GuestConfig,
) -> Result<(), super::ToolstackError> {
    let mut asked = Vec::new();
    for domid in domains.difference(ours).filter(|domid| **domid != 0) {
        let name = store.send(Request::read(&paths::domain_name(*domid)))?;
        let mac = match &config.vif {
            Some(_) => {
                Some(store.send(Request::read(&format!("{}/mac", paths::libxl_vif(*domid))))?)
            }
            None => None,
        };
        asked.push((domid, name, mac));
    }
    let mut taken = Vec::new();
    for (domid, name, mac) in asked {
        let who = || format!("domain {domid}, which hatch did not make");
        if is(store, name, &config.name)? {
            taken.push((*domid, Taken::Name(config.name.clone(), who())));
        }
        if let (Some(mac), Some(vif)) = (mac, &config.vif) {
            let ours = paths::mac_text(&vif.mac);
            if is(store, mac, &ours)? {
                taken.push((*domid, Taken::Mac(ours, who())));
            }
        }
    }
    for (domid, taken) in taken {
        if owns(store, xen, domid)? {
            return Err(taken.into());
        }
    }
    Ok(())
}

/// Whether a domain that is not in the index owns the name that it has. A domain that is gone or dying owns nothing.
/// Neither does one that a running hatch is making: if each hatch gave way to the keys that the other has written so
/// far, neither would get the name. The claims decide that, and one of them is the first.
fn owns(
    store: &mut dyn Store,
    xen: &mut dyn Xen,
    domid: u16,
) -> Result<bool, super::ToolstackError> {
    let Some(info) = xen.info(domid)?.filter(|info| !info.is_dying()) else {
        return Ok(false);
    };
    let mark = store.find(&paths::making_path(&info.handle))?;
    let maker = mark.and_then(|mark| mark.parse::<MakingProcess>().ok());
    Ok(!maker.is_some_and(|maker| maker.runs()))
}
