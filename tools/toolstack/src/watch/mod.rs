//! `hatch watch`: carries out, at the end of each guest, the action of its configuration: `on_poweroff`, `on_reboot`,
//! `on_crash`, `on_watchdog`.
//!
//! `hatch watch` sleeps until xenstored reports a domain's end (its special watch `@releaseDomain`). As long as there
//! is a watch, `hatch create` records the actions with the guest; guests that were made before are left alone. All
//! state is in xenstore, so that a watch that is killed loses nothing and the next one continues:
//!
//! | path | value |
//! |---|---|
//! | `/hatch/domain/DOMID/watched` | the guest's [configuration](GuestConfig), as JSON |
//! | `/hatch/restart/NAME` | the same, from its end until it has been made again |

mod pace;
mod presence;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::builder::{
    CreateAs, DestroyError, EndAction, GuestConfig, Image, MakingProcess, Ramdisk, Toolstack,
    ToolstackError, reason,
};
use crate::host::Store;
use crate::paths;
use crate::readable::readable;
use crate::words;
use mayfly_xen::DomainInfo;
use mayfly_xenstore as xenstore;

use pace::Pace;
use presence::Lock;
pub use presence::{Presence, presence};

/// The interval at which a guest that ended before it was complete is looked at again.
const MAKING: Duration = Duration::from_millis(50);

/// The delay before the removal of a domain is retried. It doubles after each failure, up to the second value.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// A report of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum WatchReport {
    /// A guest has ended, and this action follows.
    Ended {
        /// Its name.
        name: String,
        /// The domid.
        domid: u16,
        /// The reason of its shutdown.
        reason: &'static str,
        /// Its own last words, if it has written any.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The action.
        action: EndAction,
    },
    /// A guest was made again.
    Restarted {
        /// Its name.
        name: String,
        /// The new domid.
        domid: u16,
    },
    /// An action failed.
    Trouble {
        /// The guest's name.
        name: String,
        /// The error, as text.
        what: String,
    },
}

impl fmt::Display for WatchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended {
                name,
                domid,
                reason,
                error,
                action,
            } => {
                let reason = match error {
                    Some(error) => format!("{reason}: {error}"),
                    None => (*reason).to_owned(),
                };
                let action = match action {
                    EndAction::Destroy => "is destroyed",
                    EndAction::Restart => "is to be made again",
                    EndAction::Preserve => "stays as it is",
                };
                write!(
                    f,
                    "{name} (domain {domid}) has ended ({reason}): it {action}"
                )
            }
            Self::Restarted { name, domid } => write!(f, "{name} is domain {domid}"),
            Self::Trouble { name, what } => write!(f, "{name}: {what}"),
        }
    }
}

/// The error that ends a watch.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Another watch runs.
    #[error("another `hatch watch` runs")]
    Another,
    /// The lock, or the wait for events, failed.
    #[error("/run/hatch/watch: {0}")]
    Io(#[from] io::Error),
    /// An error of Xen or xenstored.
    #[error(transparent)]
    Cause(#[from] ToolstackError),
}

impl From<xenstore::Error> for WatchError {
    fn from(error: xenstore::Error) -> Self {
        Self::Cause(error.into())
    }
}

/// A guest that is to be made again.
struct Pending {
    config: GuestConfig,
    due: Instant,
}

/// A domain that could not be removed yet.
struct Undead {
    domid: u16,
    uuid: [u8; 16],
    name: String,
    what: String,
    due: Instant,
    pause: Duration,
}

/// A running watch.
pub struct Watch {
    builder: Toolstack,
    lock: Lock,
    pending: Vec<Pending>,
    undead: Vec<Undead>,
    /// The guests that are to be made again, by name.
    paces: HashMap<String, Pace>,
    /// Domains, by domid and UUID, that need nothing more.
    settled: HashSet<(u16, [u8; 16])>,
}

impl Watch {
    /// Takes the lock of the watch.
    ///
    /// # Errors
    /// Another watch runs.
    pub fn new(builder: Toolstack) -> Result<Self, WatchError> {
        Ok(Self {
            builder,
            lock: Lock::take()?.ok_or(WatchError::Another)?,
            pending: Vec::new(),
            undead: Vec::new(),
            paces: HashMap::new(),
            settled: HashSet::new(),
        })
    }

    /// Watches until something can be read from `stop`.
    ///
    /// # Errors
    /// Xen or xenstored is gone, or refused a request.
    pub fn run(
        mut self,
        stop: BorrowedFd<'_>,
        report: &mut dyn FnMut(&WatchReport),
    ) -> Result<(), WatchError> {
        self.builder.store().watch("@releaseDomain", "watch")?;
        self.resume()?;
        loop {
            let in_the_making = self.ended(report)?;
            // A request to xenstored may have received the next event before its answer.
            if self.bury(report) | self.births(report)? | self.events() {
                continue;
            }
            let births = self.pending.iter().map(|pending| pending.due);
            let due = births
                .chain(self.undead.iter().map(|undead| undead.due))
                .min();
            let due = due.map(|due| due.saturating_duration_since(Instant::now()));
            let wait = due.into_iter().chain(in_the_making.then_some(MAKING)).min();
            match readable(&[self.builder.store().descriptor(), stop], wait)? {
                [_, true] => break,
                [true, _] => self.builder.store().receive()?,
                _ => {}
            }
        }
        self.lock.end();
        Ok(())
    }

    /// Takes all events of xenstored, and returns whether there were any. They are not told apart.
    fn events(&mut self) -> bool {
        let mut any = false;
        while self.builder.store().take_event().is_some() {
            any = true;
        }
        any
    }

    /// Takes over the guests that an earlier watch left.
    fn resume(&mut self) -> Result<(), WatchError> {
        let store = self.builder.store();
        let keys = match store.directory(paths::RESTARTS) {
            Err(error) if error.is_absent() => return Ok(()),
            keys => keys?,
        };
        let mut left = Vec::new();
        for key in keys {
            let path = format!("{}/{key}", paths::RESTARTS);
            if let Some(config) = config(store, &path)? {
                left.push(config);
            } else {
                store.rm(&path)?;
            }
        }
        let alive = self.builder.xen().list().map_err(ToolstackError::from)?;
        for config in left {
            // The guest was not removed yet, or has been made already.
            if alive
                .iter()
                .any(|info| info.handle == config.uuid && !info.is_dying())
            {
                self.builder
                    .store()
                    .rm(&paths::restart_path(&config.name))?;
            } else {
                let due = Instant::now();
                self.pending.push(Pending { config, due });
            }
        }
        Ok(())
    }

    /// Carries out the action of each domain that has ended. Returns whether one of them is still being made and has to
    /// be waited for.
    fn ended(&mut self, report: &mut dyn FnMut(&WatchReport)) -> Result<bool, WatchError> {
        let all = self.builder.xen().list().map_err(ToolstackError::from)?;
        let ended = all.iter().filter(|info| info.shutdown().is_some());
        let ended: HashSet<_> = ended.map(|info| (info.domid, info.handle)).collect();
        self.settled.retain(|seen| ended.contains(seen));
        let mut in_the_making = false;
        for info in &all {
            let Some(shutdown) = info.shutdown().filter(|_| !info.is_dying()) else {
                continue;
            };
            if self.settled.contains(&(info.domid, info.handle)) {
                continue;
            }
            let mark = self
                .builder
                .store()
                .find(&paths::making_path(&info.handle))?;
            if let Some(mark) = mark {
                // A guest runs before the last of its keys is written, and that key would stay if it were removed now.
                // A guest whose maker is gone is left to `hatch gc`.
                in_the_making |= mark
                    .parse::<MakingProcess>()
                    .is_ok_and(|maker| maker.runs());
                continue;
            }
            self.settled.insert((info.domid, info.handle));
            if let Some(config) = config(self.builder.store(), &paths::watched_path(info.domid))?
                && config.uuid == info.handle
            {
                self.end(info, shutdown, config, report)?;
            }
        }
        Ok(in_the_making)
    }

    fn end(
        &mut self,
        info: &DomainInfo,
        shutdown: u8,
        config: GuestConfig,
        report: &mut dyn FnMut(&WatchReport),
    ) -> Result<(), WatchError> {
        let Some(watched) = &config.watched else {
            return Ok(());
        };
        let (name, domid, action) = (
            config.name.clone(),
            info.domid,
            watched.actions.of(shutdown),
        );
        report(&WatchReport::Ended {
            name: name.clone(),
            domid,
            reason: reason(shutdown),
            // Read now: the removal of the domain removes this as well.
            error: words::last(self.builder.store(), domid)?,
            action,
        });
        if action == EndAction::Preserve {
            return Ok(());
        }
        if action == EndAction::Restart {
            // Written before the domain is removed: from then on this is all that is left of the guest.
            let path = paths::restart_path(&name);
            self.builder.store().write(&path, &config.record())?;
            let due = self
                .paces
                .get(&name)
                .map_or_else(Instant::now, |pace| pace.due());
            self.pending.retain(|pending| pending.config.name != name);
            self.pending.push(Pending { config, due });
        }
        self.undead.push(Undead {
            domid,
            uuid: info.handle,
            name,
            what: String::new(),
            due: Instant::now(),
            pause: AGAIN,
        });
        self.bury(report);
        Ok(())
    }

    /// Removes the domains that are due. A failure is reported once and retried later. Returns whether there were any.
    fn bury(&mut self, report: &mut dyn FnMut(&WatchReport)) -> bool {
        let now = Instant::now();
        let due: Vec<_> = self
            .undead
            .extract_if(.., |undead| undead.due <= now)
            .collect();
        let any = !due.is_empty();
        for mut undead in due {
            let what = match self.builder.destroy_known(undead.domid, &undead.uuid) {
                Ok(_) | Err(DestroyError::NoSuchDomain(_)) => continue,
                Err(error) => error.to_string(),
            };
            if undead.what != what {
                let name = undead.name.clone();
                let what = format!("{what}; it is tried again");
                report(&WatchReport::Trouble { name, what });
            }
            undead.what = what;
            undead.due = Instant::now() + undead.pause;
            undead.pause = (undead.pause * 2).min(AGAIN_MAX);
            self.undead.push(undead);
        }
        any
    }

    /// Makes the guests that are due, and returns whether there were any. A guest waits until the last domain of its
    /// name is removed, as it would find the name taken.
    fn births(&mut self, report: &mut dyn FnMut(&WatchReport)) -> Result<bool, WatchError> {
        let now = Instant::now();
        let undead = &self.undead;
        for pending in &mut self.pending {
            let last = undead
                .iter()
                .find(|undead| undead.name == pending.config.name);
            if let Some(last) = last {
                pending.due = pending.due.max(last.due);
            }
        }
        let due = self.pending.extract_if(.., |pending| {
            pending.due <= now
                && undead
                    .iter()
                    .all(|undead| undead.name != pending.config.name)
        });
        let due: Vec<_> = due.collect();
        let any = !due.is_empty();
        for Pending { config, .. } in due {
            let (name, path) = (config.name.clone(), paths::restart_path(&config.name));
            // `hatch destroy` has removed it meanwhile.
            if self.builder.store().find(&path)?.is_none() {
                continue;
            }
            let pace = Pace::born(self.paces.get(&name).copied(), now);
            self.paces.insert(name.clone(), pace);
            let again = match birth(&mut self.builder, &config) {
                Ok(domid) => {
                    report(&WatchReport::Restarted { name, domid });
                    false
                }
                Err(Trouble { what, is_lasting }) => {
                    let again = !is_lasting && !pace.is_slowest();
                    let what = match again {
                        true => format!("{what}; it is tried again"),
                        false => format!("{what}; it is given up"),
                    };
                    report(&WatchReport::Trouble { name, what });
                    again
                }
            };
            if again {
                let due = pace.due();
                self.pending.push(Pending { config, due });
            } else {
                self.builder.store().rm(&path)?;
            }
        }
        Ok(any)
    }
}

/// The reason why a guest was not made again.
struct Trouble {
    what: String,
    /// Whether a retry cannot succeed.
    is_lasting: bool,
}

fn birth(builder: &mut Toolstack, config: &GuestConfig) -> Result<u16, Trouble> {
    let trouble = |what: String| Trouble {
        what,
        is_lasting: true,
    };
    let Some(watched) = &config.watched else {
        return Err(trouble("there is no record of its configuration".into()));
    };
    let image = Image::open(&watched.kernel)
        .map_err(|error| trouble(format!("{}: {error}", watched.kernel.display())))?;
    let ramdisk = watched.ramdisk.as_ref().map(|path| {
        Ramdisk::open(path).map_err(|error| trouble(format!("{}: {error}", path.display())))
    });
    let created = builder.create(
        config,
        &image,
        ramdisk.transpose()?.as_ref(),
        CreateAs::Running,
    );
    created
        .map(|created| created.domid)
        .map_err(|error| Trouble {
            is_lasting: matches!(
                error.failure.cause,
                ToolstackError::Taken(_) | ToolstackError::Config(_) | ToolstackError::Layout(_)
            ),
            what: error.to_string(),
        })
}

/// The recorded configuration of a guest; `None` if there is none or it cannot be parsed.
fn config(store: &mut dyn Store, path: &str) -> Result<Option<GuestConfig>, xenstore::Error> {
    let text = store.find(path)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Removes the record by which a guest that has ended is made again. Returns whether there was one of this name.
///
/// # Errors
/// xenstored's.
pub fn cancel(store: &mut dyn Store, name: &str) -> Result<bool, xenstore::Error> {
    let path = paths::restart_path(name);
    let is_there = store.find(&path)?.is_some();
    if is_there {
        store.rm(&path)?;
    }
    Ok(is_there)
}
