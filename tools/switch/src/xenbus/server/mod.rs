//! Serves the handshakes of all guests: looks at the keys of those with an event, and does what [`step`] says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use mayfly_drivers::abi::XenbusState;
use mayfly_xenstore::{Error, Request, Store, WatchEvent};

use super::handshake::{BackAction, mirrored, step};
use super::keys::{self, Interface};
use crate::control::{SwitchOrder, SwitchReply};

/// The longest time for which a transaction is tried again.
const BOUND: Duration = Duration::from_secs(2);
/// A guest is looked at no more often than this, and its rings are connected no more often than that: it may write its
/// keys as often as it likes.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// The time from a domain's end until the switch's guests are looked at: of many ends at a time, one look is enough.
const END_PAUSE: Duration = Duration::from_millis(100);
/// The number of guests that the switch looks at between two turns: each costs it some 5 us.
const AT_A_TIME: usize = 32;
/// The interval of such looks without an event.
const PERIOD: Duration = Duration::from_secs(10);

/// The tokens of the watches. Those of guests are their domids.
const ROOT: &str = "switch";
const END: &str = "end";

/// Why the handshakes are not served any more.
#[derive(Debug, thiserror::Error)]
pub enum XenbusError {
    /// xenstored's.
    #[error(transparent)]
    Store(#[from] Error),
    /// The switch is gone.
    #[error("the switch: {0}")]
    Switch(#[from] io::Error),
}

/// Asks the switch.
pub type AskSwitch<'a> = &'a mut dyn FnMut(&SwitchOrder) -> io::Result<SwitchReply>;

/// A guest with a directory below [`keys::ROOT`].
#[derive(Debug, Default)]
struct Known {
    /// The paths that are watched for it.
    watched: Vec<String>,
    looked_at: Option<Instant>,
    connected_at: Option<Instant>,
    /// Whether the switch serves it, by its keys.
    is_served: bool,
    /// The last line about it, which is not repeated.
    said: String,
}

/// The side of the switch that reads and writes xenstore.
pub struct Xenbus<'a> {
    store: &'a mut dyn Store,
    switch: AskSwitch<'a>,
    report: &'a mut dyn FnMut(&str),
    guests: BTreeMap<u16, Known>,
    /// The guests that are to be looked at, and when.
    due: BTreeMap<u16, Instant>,
    /// When ends of domains are looked for.
    reap_at: Instant,
}

/// The keys of a guest at one time.
struct Seen {
    interface: Interface,
    /// The directory that the front end watches.
    shown: String,
    netback: Option<String>,
    front: XenbusState,
    back: XenbusState,
}

impl<'a> Xenbus<'a> {
    /// Begins: guests that have directories already are looked at in the first turn.
    ///
    /// # Errors
    /// xenstored's.
    pub fn begin(
        store: &'a mut dyn Store,
        switch: AskSwitch<'a>,
        report: &'a mut dyn FnMut(&str),
    ) -> Result<Self, XenbusError> {
        store.watch("@releaseDomain", END)?;
        store.watch(keys::ROOT, ROOT)?;
        Ok(Self {
            store,
            switch,
            report,
            guests: BTreeMap::new(),
            due: BTreeMap::new(),
            reap_at: Instant::now(),
        })
    }

    /// Serves until xenstored or the switch is gone.
    ///
    /// # Errors
    /// Which of the two it is.
    pub fn serve(&mut self) -> Result<Infallible, XenbusError> {
        loop {
            self.turn()?;
        }
    }

    /// Waits for something to do, and does it.
    ///
    /// # Errors
    /// xenstored or the switch is gone.
    pub fn turn(&mut self) -> Result<(), XenbusError> {
        let next = self.due.values().min().copied();
        let next = next.map_or(self.reap_at, |due| due.min(self.reap_at));
        let timeout = next.saturating_duration_since(Instant::now());
        if let Some(event) = self.store.event(timeout)? {
            self.note(&event)?;
            while let Some(event) = self.store.take_event() {
                self.note(&event)?;
            }
        }
        let now = Instant::now();
        let ready = self.due.extract_if(.., |_, due| *due <= now);
        let ready: Vec<u16> = ready.map(|(domid, _)| domid).collect();
        for domid in ready {
            self.look(domid, now)?;
        }
        if self.reap_at <= now {
            self.reap()?;
            self.reap_at = Instant::now() + PERIOD;
        }
        Ok(())
    }

    /// Notes who is to be looked at because of an event.
    fn note(&mut self, event: &WatchEvent) -> Result<(), XenbusError> {
        let now = Instant::now();
        match event.token.as_str() {
            END => self.reap_at = self.reap_at.min(now + END_PAUSE),
            ROOT => {
                let below = event.path.strip_prefix(keys::ROOT).unwrap_or_default();
                let mut parts = below.splitn(3, '/').skip(1);
                match (parts.next().map(str::parse), parts.next()) {
                    (None, _) => self.all(now)?,
                    // A toolstack writes it last, so the other keys are there.
                    (Some(Ok(domid)), Some("interface")) if !self.guests.contains_key(&domid) => {
                        self.meet(domid)?;
                    }
                    (Some(Ok(domid)), None | Some("interface" | "state" | "netback"))
                        if self.guests.contains_key(&domid) =>
                    {
                        self.soon(domid, now);
                    }
                    _ => {}
                }
            }
            guest => {
                if let Ok(domid) = guest.parse() {
                    self.soon(domid, now);
                }
            }
        }
        Ok(())
    }

    /// Watches a new guest's front end. The first event of the watch, which xenstored sends at once, has the guest looked
    /// at: so it is looked at once.
    fn meet(&mut self, domid: u16) -> Result<(), XenbusError> {
        let path = format!("{}/state", keys::front(domid));
        self.store.watch(&path, &domid.to_string())?;
        self.guests.entry(domid).or_default().watched.push(path);
        Ok(())
    }

    fn soon(&mut self, domid: u16, now: Instant) {
        let last = self.guests.get(&domid).and_then(|known| known.looked_at);
        let due = last.map_or(now, |last| now.max(last + LOOK_PAUSE));
        self.due.entry(domid).or_insert(due);
    }

    /// Looks at all guests that have a directory, and at those that had one.
    fn all(&mut self, now: Instant) -> Result<(), XenbusError> {
        let names = match self.store.directory(keys::ROOT) {
            Err(error) if error.is_absent() => Vec::new(),
            names => names?,
        };
        let there = names.iter().filter_map(|name| name.parse().ok());
        let known: Vec<u16> = there.chain(self.guests.keys().copied()).collect();
        for domid in known {
            self.soon(domid, now);
        }
        Ok(())
    }

    /// Says a line about a guest, unless it was the last one.
    fn say(&mut self, domid: u16, line: String) {
        let known = self.guests.entry(domid).or_default();
        if known.said != line {
            (self.report)(&format!("domain {domid}: {line}"));
            known.said = line;
        }
    }

    /// Looks at a guest.
    fn look(&mut self, domid: u16, now: Instant) -> Result<(), XenbusError> {
        let Some(seen) = self.read(domid)? else {
            return Ok(());
        };
        let known = self.guests.entry(domid).or_default();
        known.looked_at = Some(now);
        known.is_served = seen.netback.is_none() && seen.back == XenbusState::Connected;
        if let Some(netback) = seen.netback {
            let netback = state(&mut *self.store, &netback)?;
            return match mirrored(seen.front, seen.back, netback) {
                Some(state) => self.write(domid, vec![written(&seen.shown, state)]),
                None => Ok(()),
            };
        }
        let actions = step(seen.front, seen.back);
        if actions.contains(&BackAction::Attach) {
            let last = known.connected_at;
            if let Some(due) = last.map(|at| at + CONNECT_PAUSE).filter(|due| *due > now) {
                self.due.insert(domid, due);
                return Ok(());
            }
            known.connected_at = Some(now);
        }
        let mut keys = Vec::new();
        for action in actions {
            match action {
                BackAction::Offer => keys.extend(offered(&seen.shown)),
                BackAction::Attach => {
                    if let Err(why) = self.attach(domid, &seen.interface)? {
                        self.say(domid, why);
                        // As netback does; the front end may leave and come back.
                        keys.push(written(&seen.shown, XenbusState::Closing));
                        break;
                    }
                }
                BackAction::Detach => self.detach(domid)?,
                BackAction::Write(state) => keys.push(written(&seen.shown, *state)),
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        let served = written(&seen.shown, XenbusState::Connected);
        let is_served = keys.contains(&served);
        if let Some(known) = self.guests.get_mut(&domid) {
            known.is_served = is_served;
        }
        self.write(domid, keys)
    }

    /// Reads a guest's keys; `None` if there is nothing to serve.
    fn read(&mut self, domid: u16) -> Result<Option<Seen>, XenbusError> {
        let [interface, shown, netback] = find(
            &mut *self.store,
            [
                keys::interface(domid),
                keys::shown(domid),
                keys::netback(domid),
            ],
        )?;
        let Some(interface) = interface else {
            if let Some(known) = self.guests.remove(&domid) {
                for path in known.watched {
                    let unwatched = self
                        .store
                        .send(Request::unwatch(&path, &domid.to_string()))?;
                    self.store.forget(unwatched);
                }
                self.detach(domid)?;
            }
            return Ok(None);
        };
        let interface = match serde_json::from_str(&interface) {
            Ok(interface) => interface,
            Err(error) => {
                self.say(domid, format!("{}: {error}", keys::interface(domid)));
                return Ok(None);
            }
        };
        let shown = shown.unwrap_or_else(|| keys::directory(domid));
        let front = keys::front(domid);
        for directory in [Some(&front), Some(&shown), netback.as_ref()] {
            let path = directory.map(|directory| format!("{directory}/state"));
            let known = self.guests.entry(domid).or_default();
            // Its own directory is watched with the others.
            if let Some(path) = path.filter(|path| !path.starts_with(keys::ROOT))
                && !known.watched.contains(&path)
            {
                self.store.watch(&path, &domid.to_string())?;
                known.watched.push(path);
            }
        }
        let front = state(&mut *self.store, &front)?;
        let back = state(&mut *self.store, &shown)?;
        Ok(Some(Seen {
            interface,
            shown,
            netback,
            front,
            back,
        }))
    }

    /// Gives the switch a guest as its front end says; or says why not.
    fn attach(
        &mut self,
        domid: u16,
        interface: &Interface,
    ) -> Result<Result<(), String>, XenbusError> {
        let (rings, features) = match keys::read_front(&mut *self.store, domid)? {
            Ok(said) => said,
            Err(fault) => return Ok(Err(fault.to_string())),
        };
        // If this process ended between the attachment and its report, the switch has the guest already.
        self.detach(domid)?;
        let guest = Box::new(interface.guest(rings, features));
        Ok(match (self.switch)(&SwitchOrder::Attach(guest))? {
            SwitchReply::Attached { .. } => Ok(()),
            SwitchReply::Error(why) => Err(why),
            _ => Err("the switch does not answer what it was asked".to_owned()),
        })
    }

    fn detach(&mut self, domid: u16) -> Result<(), XenbusError> {
        // The switch may have no such guest.
        (self.switch)(&SwitchOrder::Detach(domid))?;
        Ok(())
    }

    /// Writes keys of a guest, as long as it has its directory: a toolstack may be removing it.
    fn write(&mut self, domid: u16, keys: Vec<(String, String)>) -> Result<(), XenbusError> {
        let interface = keys::interface(domid);
        let written: Result<(), Error> = self.store.transact(BOUND, |transaction| {
            transaction.ask(Request::read(&interface))?;
            let mut asked = Vec::with_capacity(keys.len());
            for (path, value) in &keys {
                asked.push(transaction.send(Request::write(path, value))?);
            }
            transaction.answers(asked)
        });
        match written {
            Err(error) if error.is_absent() => Ok(()),
            written => Ok(written?),
        }
    }

    /// Has the switch release guests that have ended without a request to it. As long as their pages are mapped, Xen
    /// keeps them.
    fn reap(&mut self) -> Result<(), XenbusError> {
        let SwitchReply::Frames(guests) = (self.switch)(&SwitchOrder::Frames)? else {
            return Ok(());
        };
        let guests: Vec<u16> = guests.into_iter().map(|(domid, _)| domid).collect();
        for some in guests.chunks(AT_A_TIME) {
            if let SwitchReply::Ended(ended) = (self.switch)(&SwitchOrder::Ended(some.to_vec()))? {
                for domid in ended {
                    self.detach(domid)?;
                }
            }
        }
        Ok(())
    }
}

fn offered(directory: &str) -> impl Iterator<Item = (String, String)> {
    let keys = keys::OFFERED.into_iter();
    keys.map(move |(key, value)| (format!("{directory}/{key}"), value.to_owned()))
}

fn written(directory: &str, state: XenbusState) -> (String, String) {
    (format!("{directory}/state"), (state as u8).to_string())
}

/// The values of some keys, `None` for each that is not there. A value that is not text is as good as none.
fn find<const N: usize>(
    store: &mut dyn Store,
    paths: [String; N],
) -> Result<[Option<String>; N], Error> {
    let mut values = store.values(&paths)?.into_iter();
    Ok(paths.map(|_| String::from_utf8(values.next()??).ok()))
}

fn state(store: &mut dyn Store, directory: &str) -> Result<XenbusState, Error> {
    let [state] = find(store, [format!("{directory}/state")])?;
    Ok(XenbusState::parse(state.unwrap_or_default().as_bytes()))
}

#[cfg(test)]
mod tests;
