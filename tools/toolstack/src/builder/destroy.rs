//! Removes a guest at once and completely.
//!
//! The back end's directory is removed before all other keys: netback then releases the interface and the guest's pages
//! without waiting for a front end.

use std::time::{Duration, Instant};

use super::index::{self, IndexEntry, IndexRecord, Named};
use super::keys::{self, StoreOp};
use super::toolstack::Toolstack;
use super::{Taken, ToolstackError};
use crate::paths;
use mayfly_xen::DomainInfo;
use mayfly_xenstore::RequestId;

/// The first pause before Xen is asked again.
const FIRST: Duration = Duration::from_micros(100);

/// The pause before xenstored is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest wait for netback, or for a xenstored that has gone, before a guest whose creation failed is removed.
const QUIET: Duration = Duration::from_secs(2);

/// A removed domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Destroyed {
    /// The domid.
    pub domid: u16,
    /// The name, if hatch made it.
    pub name: Option<String>,
}

/// Why a guest was not removed.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// There is no domain with this domid, nor any remains of one.
    #[error("there is no domain {0}")]
    NoSuchDomain(u16),
    /// The domain is dom0.
    #[error("domain 0 is dom0, where hatch runs")]
    Dom0,
    /// The domain is not in hatch's index.
    #[error("domain {0} was not made by hatch: remove it with `xl destroy`, or with --force")]
    NotOurs(u16),
    /// The domain has devices that hatch cannot remove.
    #[error(
        "domain {0} was not made by hatch, and has {1}: remove it with `xl destroy`, which ends these, too"
    )]
    Devices(u16, String),
    /// Parts of the domain are left.
    #[error("parts of domain {domid} are left: {}", left.join("; "))]
    Left {
        /// The domid.
        domid: u16,
        /// The parts that are left, as text.
        left: Vec<String>,
    },
    /// Xen or xenstored refused.
    #[error(transparent)]
    Cause(#[from] ToolstackError),
}

impl Toolstack {
    /// Removes the domain with this domid. A domain that hatch did not make is left alone unless `force` is set. The
    /// kernel may still be at work afterwards; [`Self::settle`] waits for that.
    ///
    /// # Errors
    /// There is no such domain; parts of it are left.
    pub fn destroy(&mut self, domid: u16, force: bool) -> Result<Destroyed, DestroyError> {
        if domid == 0 {
            return Err(DestroyError::Dom0);
        }
        let (info, record) = self.look(domid)?;
        match (&info, &record) {
            (None, None) if !force => return Err(DestroyError::NoSuchDomain(domid)),
            (Some(info), record) => {
                let is_ours = record.as_ref().is_some_and(|record| record.is_of(info));
                if !is_ours && !force {
                    return Err(DestroyError::NotOurs(domid));
                }
                if !is_ours {
                    self.only_vifs(domid)?;
                }
            }
            (None, _) => {}
        }
        self.take_apart(domid, info.as_ref(), record)
    }

    /// Removes the domain with this domid and this UUID. If another domain has the domid by now, only this one's
    /// entries in the index are removed.
    ///
    /// # Errors
    /// There is no such domain; parts of it are left.
    pub fn destroy_known(
        &mut self,
        domid: u16,
        handle: &[u8; 16],
    ) -> Result<Destroyed, DestroyError> {
        let uuid = paths::uuid(handle);
        self.destroy_entry(&IndexEntry { domid, uuid })
    }

    /// The same for an entry of the index.
    ///
    /// # Errors
    /// As [`Self::destroy_known`]'s.
    pub fn destroy_entry(&mut self, entry: &IndexEntry) -> Result<Destroyed, DestroyError> {
        let domid = entry.domid;
        if domid == 0 {
            return Err(DestroyError::Dom0);
        }
        let (info, record) = self.look(domid)?;
        let record = record.filter(|record| record.uuid == entry.uuid);
        let has_successor = entry.has_successor(info.as_ref());
        match &record {
            Some(record) if has_successor => {
                let left: Vec<_> = self.forget(domid, record).into_iter().collect();
                let name = Some(record.name.clone());
                return match left.is_empty() {
                    true => Ok(Destroyed { domid, name }),
                    false => Err(DestroyError::Left { domid, left }),
                };
            }
            None if has_successor || info.is_none() => {
                return Err(DestroyError::NoSuchDomain(domid));
            }
            _ => {}
        }
        self.take_apart(domid, info.as_ref(), record)
    }

    /// The domain that Xen has with this domid, and the index's record of the domid.
    fn look(
        &mut self,
        domid: u16,
    ) -> Result<(Option<DomainInfo>, Option<IndexRecord>), ToolstackError> {
        let record = index::record(&mut *self.store, domid)?;
        Ok((self.xen.info(domid)?, record))
    }

    /// Refuses a guest of another toolstack with devices other than interfaces and a console: only its maker knows how
    /// to end their back ends and the processes behind them.
    fn only_vifs(&mut self, domid: u16) -> Result<(), DestroyError> {
        let cause = |error: mayfly_xenstore::Error| DestroyError::Cause(error.into());
        let path = format!("{}/device", paths::libxl(domid));
        let kinds = match self.store.directory(&path) {
            Err(error) if error.is_absent() => Vec::new(),
            kinds => kinds.map_err(cause)?,
        };
        let model = format!("{}/dm-domid", paths::libxl(domid));
        let image = format!("{}/image/device-model-pid", paths::home(domid));
        let mut others: Vec<String> = kinds
            .into_iter()
            .filter(|kind| !matches!(kind.as_str(), "vif" | "console"))
            .collect();
        for path in [model, image] {
            if self.store.find(&path).map_err(cause)?.is_some() {
                others.push("a device model".to_owned());
            }
        }
        match others.is_empty() {
            true => Ok(()),
            false => Err(DestroyError::Devices(domid, others.join(", "))),
        }
    }

    fn take_apart(
        &mut self,
        domid: u16,
        info: Option<&DomainInfo>,
        record: Option<IndexRecord>,
    ) -> Result<Destroyed, DestroyError> {
        let cause = |error: mayfly_xenstore::Error| DestroyError::Cause(error.into());
        // Nobody moves it between back ends meanwhile. Where no lock can be made, nobody has one.
        let lock = match self.lock_netback(domid) {
            Err(ToolstackError::Io(_)) => None,
            lock => Some(lock?),
        };
        let (state, is_of_switch) = self.back_ends(domid).map_err(cause)?;
        if state.as_deref() == Some("1") {
            // Half made: netback is about to look at it.
            self.quiet(domid, false);
        }
        let mut left = Vec::new();
        if info.is_some()
            && let Err(error) = self.xen.pause(domid)
            && !error.is_no_such_domain()
        {
            left.push(error.to_string());
        }
        let uuid = self.uuid_of(info, record.as_ref())?;
        let mut ops = keys::death(domid, uuid.as_deref());
        // The switch lets go of a guest before that is destroyed, so that nothing holds its pages. If there is no vif
        // either, xenstore may not say that it is on the switch: its maker may have been killed before it wrote that.
        let mut is_switched = is_of_switch;
        if state.is_none() || is_of_switch {
            match super::switch::let_go(&self.run, domid, self.bound) {
                Ok(had) => is_switched |= had,
                Err(error) => left.push(error),
            }
            ops.push(keys::unswitched(domid));
        }
        // The kernel releases the interface while Xen takes the memory back.
        let mut ids = self.send(&ops).map_err(cause)?;
        self.store.flush().map_err(cause)?;
        if info.is_some()
            && let Err(error) = self.xen.destroy(domid)
            && !error.is_no_such_domain()
        {
            left.push(error.to_string());
        }
        if state.is_none()
            && !is_switched
            && let Err(error) = self.unbind(domid)
        {
            left.push(format!("its interface: {error}"));
        }
        // Not earlier: xenconsoled then checks whether the domain lives. If it still lived, xenconsoled would keep its page
        // for good, because no second event follows.
        let release = StoreOp::Release(domid);
        ids.extend(self.send(std::slice::from_ref(&release)).map_err(cause)?);
        ops.push(release);
        left.extend(self.removed(&ops, ids));
        if let Some(lock) = lock {
            lock.remove();
        }
        // Last: by these `hatch gc` finds the domain if this process is killed before.
        left.extend(
            record
                .as_ref()
                .and_then(|record| self.forget(domid, record)),
        );
        // A back end that was neither connected nor still waiting for its front end may have been at work.
        if state.is_some_and(|state| state != "4") {
            left.extend(self.settle(domid).err().map(|error| error.to_string()));
        }
        if left.is_empty() {
            let name = record.map(|record| record.name);
            Ok(Destroyed { domid, name })
        } else {
            Err(DestroyError::Left { domid, left })
        }
    }

    /// The state of a domain's netback, and whether it has a directory of the switch.
    fn back_ends(&mut self, domid: u16) -> Result<(Option<String>, bool), mayfly_xenstore::Error> {
        let paths = [
            paths::state(domid),
            mayfly_switch::xenbus::keys::interface(domid),
        ];
        let [state, interface] = self.values(paths)?;
        Ok((state, interface.is_some()))
    }

    /// The UUID whose node below `/vm` is removed with a domain: Xen's; or the index's, if Xen does not have the domain
    /// any more and no other domain has the same UUID.
    fn uuid_of(
        &mut self,
        info: Option<&DomainInfo>,
        record: Option<&IndexRecord>,
    ) -> Result<Option<String>, DestroyError> {
        let (None, Some(record)) = (info, record) else {
            return Ok(info.map(|info| paths::uuid(&info.handle)));
        };
        let all = self.xen.list().map_err(ToolstackError::from)?;
        let has_heir = all
            .iter()
            .any(|info| paths::uuid(&info.handle) == record.uuid);
        Ok((!has_heir).then(|| record.uuid.clone()))
    }

    /// Removes a dead domain from the index; returns an error as text.
    pub(super) fn forget(&mut self, domid: u16, record: &IndexRecord) -> Option<String> {
        let forgotten = index::forget(&mut *self.store, &record.claims(domid));
        forgotten.err().map(|error| error.to_string())
    }

    /// The live domain with this name in hatch's index.
    ///
    /// # Errors
    /// Xen's or xenstored's.
    pub fn domid(&mut self, name: &str) -> Result<Option<u16>, ToolstackError> {
        let named = index::named(&mut *self.store, &mut *self.xen, name)?;
        Ok(match named {
            Some(Named::Domain(domid)) => Some(domid),
            Some(Named::Remainder(_)) | None => None,
        })
    }

    /// Sends requests together and returns those that were refused. A key that is missing is no error.
    pub(super) fn remove(&mut self, ops: &[StoreOp]) -> Vec<String> {
        let ids = match self.send(ops) {
            Ok(ids) => ids,
            Err(error) => return vec![error.to_string()],
        };
        self.removed(ops, ids)
    }

    fn removed(&mut self, ops: &[StoreOp], ids: Vec<RequestId>) -> Vec<String> {
        let mut left = Vec::new();
        for (op, id) in ops.iter().zip(ids) {
            match self.store.answer(id) {
                Ok(_) => {}
                Err(error) if error.is_absent() => {}
                // The others would take as long.
                Err(error @ mayfly_xenstore::Error::Timeout { .. }) => {
                    left.push(error.to_string());
                    break;
                }
                // xenstored answers EINVAL for a domain that it was never told of, or has released by itself.
                Err(_) if matches!(op, StoreOp::Release(_)) => {}
                Err(error) => left.push(error.to_string()),
            }
        }
        left
    }

    /// Opens a new connection to xenstored, which may have been restarted.
    pub(super) fn reconnect(&mut self) -> Result<(), mayfly_xenstore::Error> {
        let end = Instant::now() + QUIET;
        loop {
            match self.store.reconnect() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Waits, for a bounded time, until netback has finished its work for a guest that is to be removed: it fails badly
    /// if its directory goes while it works on it.
    pub(super) fn quiet(&mut self, domid: u16, is_connecting: bool) {
        let appeared = self
            .links
            .appeared(&mayfly_links::vif_name(domid, 0), QUIET);
        if appeared.is_ok() && is_connecting {
            // Before this write it has not reported that it is connected.
            let _ = self.remove(&[keys::plug(domid)]);
            let bound = std::mem::replace(&mut self.bound, QUIET);
            let _ = self.connected(domid);
            self.bound = bound;
        }
    }

    /// Waits until nothing of a destroyed guest is left: netback maps none of its pages, so that Xen has freed the
    /// domain, and the kernel has removed its interface. Both happen without further requests, but take some time (RCU
    /// grace periods).
    ///
    /// # Errors
    /// Something is left after the bound.
    pub fn settle(&mut self, domid: u16) -> Result<(), ToolstackError> {
        let end = Instant::now() + self.bound;
        self.links
            .gone(&mayfly_links::vif_name(domid, 0), self.bound)?;
        // Xen reports a domain's end to one listener only, which is xenstored.
        let mut pause = FIRST;
        while self.xen.info(domid)?.is_some() {
            if Instant::now() >= end {
                return Err(ToolstackError::Backend("still maps pages of the domain"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        let _ = self.remove(&keys::remains(domid));
        Ok(())
    }
}

impl Taken {
    /// Whether the name is taken, and not the MAC address.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Name(..))
    }
}
