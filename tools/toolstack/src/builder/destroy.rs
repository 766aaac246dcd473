//! Removing a guest: quickly, without asking it, and wholly.
//!
//! The back end's directory goes first of all keys, because netback then lets go of the interface and of the guest's pages
//! without waiting for a front end.

use std::time::{Duration, Instant};

use super::create::Toolstack;
use super::keys::{self, Op};
use super::{Cause, Taken};
use mayfly_xenstore::{Error, Id, Request};

/// The first of the pauses after which Xen is asked again.
const FIRST: Duration = Duration::from_micros(100);

/// The pause after which xenstored is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long netback, or a xenstored that has gone, may take before a guest is removed that could not be made.
const QUIET: Duration = Duration::from_secs(2);

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Destroyed {
    /// Its number.
    pub domid: u16,
    /// Its name, if hatch made it.
    pub name: Option<String>,
}

/// Why a guest was not removed.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// There is none of this number, nor any trace of one.
    #[error("there is no domain {0}")]
    NoSuchDomain(u16),
    /// dom0.
    #[error("domain 0 is the one that this runs in")]
    Dom0,
    /// It is not in hatch's index.
    #[error(
        "domain {0} was not made by hatch: `xl destroy` removes it, or hatch when told to (--force)"
    )]
    NotOurs(u16),
    /// It is not quite removed.
    #[error("domain {domid} is not quite removed: {}", left.join("; "))]
    Left {
        /// Its number.
        domid: u16,
        /// What is left.
        left: Vec<String>,
    },
    /// Xen or xenstored refused.
    #[error(transparent)]
    Cause(#[from] Cause),
}

impl Toolstack {
    /// Removes a guest. One that hatch did not make is left alone unless `force` says otherwise. What is then still under
    /// way in the kernel, [`Self::settle`] waits for.
    ///
    /// # Errors
    /// There is no such domain; what of it is left.
    pub fn destroy(&mut self, domid: u16, force: bool) -> Result<Destroyed, DestroyError> {
        if domid == 0 {
            return Err(DestroyError::Dom0);
        }
        let cause = |error: Error| DestroyError::Cause(error.into());
        let name = self
            .store
            .send(Request::read(&keys::domain_path(domid)))
            .map_err(cause)?;
        let mac = self
            .store
            .send(Request::read(&format!("{}/mac", keys::backend(domid))))
            .map_err(cause)?;
        let state = self
            .store
            .send(Request::read(&format!("{}/state", keys::backend(domid))))
            .map_err(cause)?;
        self.store.flush().map_err(cause)?;
        let info = self
            .xen
            .info(domid)
            .map_err(|error| DestroyError::Cause(error.into()))?;
        let name = optional(self.store.answer(name)).map_err(cause)?;
        let mac = optional(self.store.answer(mac)).map_err(cause)?;
        let mac = mac.as_deref().and_then(keys::parse_mac);
        let state = optional(self.store.answer(state)).map_err(cause)?;
        if name.is_none() && !force {
            return Err(if info.is_none() {
                DestroyError::NoSuchDomain(domid)
            } else {
                DestroyError::NotOurs(domid)
            });
        }
        if state.as_deref() == Some("1") {
            // Made by halves: netback is about to look at it.
            self.quiet(domid, false);
        }
        let mut left = Vec::new();
        if info.is_some()
            && let Err(error) = self.xen.pause(domid)
            && !error.is_no_such_domain()
        {
            left.push(error.to_string());
        }
        let mut ops = keys::death(domid, info.as_ref().map(|info| &info.handle));
        // The kernel lets go of the interface while Xen takes the memory back.
        let mut ids = self.send(&ops).map_err(cause)?;
        self.store.flush().map_err(cause)?;
        if info.is_some()
            && let Err(error) = self.xen.destroy(domid)
            && !error.is_no_such_domain()
        {
            left.push(error.to_string());
        }
        if state.is_none()
            && let Err(error) = super::lost::unbind(domid)
        {
            left.push(format!("its interface: {error}"));
        }
        // Only now: by these `hatch gc` would find it if this process ended before.
        let forget = keys::forget(domid, name.as_deref(), mac.as_ref());
        ids.extend(self.send(&forget).map_err(cause)?);
        ops.extend(forget);
        left.extend(self.removed(&ops, ids));
        // A back end that was neither connected nor without a front end may have been at work.
        if state.is_some_and(|state| state != "4") {
            left.extend(self.settle(domid).err().map(|error| error.to_string()));
        }
        if left.is_empty() {
            Ok(Destroyed { domid, name })
        } else {
            Err(DestroyError::Left { domid, left })
        }
    }

    /// The domain of a name in hatch's index.
    ///
    /// # Errors
    /// xenstored's.
    pub fn domid(&mut self, name: &str) -> Result<Option<u16>, Error> {
        let answer = self.store.send(Request::read(&keys::name_path(name)))?;
        Ok(optional(self.store.answer(answer))?.and_then(|domid| domid.parse().ok()))
    }

    /// Sends requests together and says which were refused. What is not there needs no removing.
    pub(super) fn remove(&mut self, ops: &[Op]) -> Vec<String> {
        let ids = match self.send(ops) {
            Ok(ids) => ids,
            Err(error) => return vec![error.to_string()],
        };
        self.removed(ops, ids)
    }

    fn removed(&mut self, ops: &[Op], ids: Vec<Id>) -> Vec<String> {
        let mut left = Vec::new();
        for (op, id) in ops.iter().zip(ids) {
            match self.store.answer(id) {
                Ok(_) => {}
                Err(error) if error.is_absent() => {}
                // It would take as long for each of them.
                Err(error @ Error::Timeout { .. }) => {
                    left.push(error.to_string());
                    break;
                }
                // xenstored says EINVAL of a domain that it was never told of, or has let go of by itself.
                Err(_) if matches!(op, Op::Release(_)) => {}
                Err(error) => left.push(error.to_string()),
            }
        }
        left
    }

    /// Speaks to xenstored anew, which may have been started anew.
    pub(super) fn reconnect(&mut self) -> Result<(), Error> {
        let end = Instant::now() + QUIET;
        loop {
            match self.store.reconnect() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Waits, but not for long, until netback has nothing to do any more for a guest that is to be removed: it takes badly to
    /// losing its directory while it works on it.
    pub(super) fn quiet(&mut self, domid: u16, is_connecting: bool) {
        let appeared = self
            .links
            .appeared(&mayfly_links::vif_name(domid, 0), QUIET);
        if appeared.is_ok() && is_connecting {
            // Until then it has not said that it is connected.
            let _ = self.remove(&[keys::plug(domid)]);
            let bound = std::mem::replace(&mut self.bound, QUIET);
            let _ = self.connected(domid);
            self.bound = bound;
        }
    }

    /// Waits until nothing of a destroyed guest is left: netback maps none of its pages any more, so that Xen has forgotten
    /// it, and the kernel has taken its interface away. They need nothing from anybody for that, but take their time
    /// (RCU grace periods).
    ///
    /// # Errors
    /// Something is left after the bound.
    pub fn settle(&mut self, domid: u16) -> Result<(), Cause> {
        let end = Instant::now() + self.bound;
        self.links
            .gone(&mayfly_links::vif_name(domid, 0), self.bound)?;
        // Xen tells only one listener of a domain's end, and that is xenstored.
        let mut pause = FIRST;
        while self.xen.info(domid)?.is_some() {
            if Instant::now() >= end {
                return Err(Cause::Backend("still maps pages of the domain"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        let _ = self.remove(&keys::remains(domid));
        Ok(())
    }
}

fn optional(answer: Result<Vec<u8>, Error>) -> Result<Option<String>, Error> {
    match answer {
        Ok(value) => Ok(String::from_utf8(value).ok()),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Taken {
    /// Whether it is the name that is taken.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Name(..))
    }
}
