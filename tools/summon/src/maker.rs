//! The thread that makes guests and removes them, one after the other, because that takes milliseconds. It owns the ways to
//! Xen and xenstored, the files, and guests made ahead.

mod on_switch;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::bell::Sender;
use super::channel::{Stance, ToFront, Way};
use super::config::{Asleep, Network, Service};
use super::fleet::Id;
use super::guard::{self, Identity};
use super::made_of::MadeOf;
use super::wire::Witness;
use mayfly_links::Link;
use mayfly_toolstack::builder::report::Timeline;
use mayfly_toolstack::builder::{
    Cause, Config, Connect, DestroyError, Image, Known, Ramdisk, Ready, Shell, Soon, Then,
    Toolstack, Vif, random_uuid,
};
use mayfly_toolstack::gc::{self, Snapshot};
use mayfly_xen::TscMode;
use on_switch::OnSwitch;

/// How long Xen, xenstored or the kernel may let us wait.
const BOUND: Duration = Duration::from_secs(10);
/// Guests are made ahead when nothing else was to be done for so long.
const REST: Duration = Duration::from_millis(50);
/// After a guest that could not be made ahead, the next is tried so much later; twice as much after each more.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// How often xenstored's end is looked for while nothing is asked of it, and how often what it is needed for is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// How long nothing is made for a kernel that would not notice.
const DEAF: Duration = Duration::from_secs(60);

/// What is to be done.
pub(super) enum Order {
    /// Find the guests of these services, which have these names and MAC addresses.
    Find(Vec<(Id, String, [u8; 6])>),
    /// Make a guest.
    Make(Id, Box<Service>, bool),
    /// Remove one.
    Remove(Id, u16),
    /// Keep guests ready for these services; so many for each image and size.
    Ready(Vec<Service>, usize),
    /// They may have so many MiB together from here on.
    Room(u64),
}

/// What was done.
pub(super) enum Told {
    /// A guest of a service runs already.
    Found(Id, Found),
    /// All were looked for.
    Searched,
    /// A guest's network is connected, and it is about to run.
    Made(Id, Made),
    /// It runs, and all of it is made. What took how long since it was begun.
    Runs(Id, Box<Timeline>),
    /// It was not made, or not to its end, and nothing of it is there.
    NotMade(Id, String),
    /// It was removed; what is left of it, if anything.
    Removed(Id, Option<String>),
    /// So many guests wait that were made ahead.
    Waiting(usize),
    /// Something that is nobody's fault in particular.
    Trouble(String),
}

/// A guest that runs already.
pub(super) struct Found {
    pub(super) domid: u16,
    /// What serves its network.
    pub(super) network: Network,
    /// What it was made of, if that is known.
    pub(super) of: Option<MadeOf>,
}

/// A guest that is about to run.
pub(super) struct Made {
    pub(super) domid: u16,
    /// Its interface, or the switch's port.
    pub(super) vif: Link,
    pub(super) network: Network,
    /// When it was begun.
    pub(super) began: Instant,
    pub(super) is_from_pool: bool,
    /// Of what.
    pub(super) of: Option<MadeOf>,
    /// A look at what goes through its vif.
    pub(super) witness: Option<Witness>,
    /// The front that was told of it.
    pub(super) front: u64,
}

/// What guests made ahead have to be alike in: the image, and MiB of memory.
type Make = (PathBuf, u64);

/// How a maker comes by a toolstack, at first and after xenstored has gone.
type Open = Box<dyn Fn() -> Result<Toolstack, Cause>>;

pub(super) struct Maker {
    told: Sender<Told>,
    front: Way,
    /// Opens the ways to Xen, xenstored and the links.
    open: Open,
    builder: Option<Toolstack>,
    /// Guests that run, for an index that is lost.
    known: BTreeMap<u16, Known>,
    /// What they were made of, and whether that is beside them in xenstore.
    made_of: BTreeMap<u16, (MadeOf, bool)>,
    /// Guests that are to be removed when xenstored is there again.
    left: Vec<(Id, u16)>,
    look_at: Instant,
    /// Whether xenstored has gone, and was told to have.
    is_gone: bool,
    /// Whether the kernel was once seen to know xenstored; and since when it does not.
    had_kernel: bool,
    deaf: Option<Instant>,
    images: BTreeMap<PathBuf, Image>,
    sites: BTreeMap<PathBuf, Ramdisk>,
    /// How many guests are to wait, of each make, and MiB that they may have.
    ready: usize,
    room: u64,
    /// The makes, and a bridge that one of their services is on: for the others a guest goes over to another one.
    makes: BTreeMap<Make, String>,
    shells: BTreeMap<Make, VecDeque<Shell>>,
    retry: Instant,
    back_off: Duration,
    switch: OnSwitch,
}

impl Maker {
    pub(super) fn new(told: Sender<Told>, front: Way) -> Self {
        Self::over(told, front, Box::new(|| Toolstack::open(BOUND)))
    }

    fn over(told: Sender<Told>, front: Way, open: Open) -> Self {
        Self {
            told,
            front,
            open,
            builder: None,
            known: BTreeMap::new(),
            made_of: BTreeMap::new(),
            left: Vec::new(),
            look_at: Instant::now(),
            is_gone: false,
            had_kernel: false,
            deaf: None,
            images: BTreeMap::new(),
            sites: BTreeMap::new(),
            ready: 0,
            room: u64::MAX,
            makes: BTreeMap::new(),
            shells: BTreeMap::new(),
            retry: Instant::now(),
            back_off: BACK_OFF,
            switch: OnSwitch::default(),
        }
    }

    /// Carries orders out until nobody gives any more. Then the guests made ahead are removed.
    pub(super) fn work(mut self, orders: &Receiver<Order>) {
        loop {
            let now = Instant::now();
            if self.look_at <= now {
                self.look_at = now + LOOK;
                self.look();
            }
            let fill = self
                .lacking()
                .map(|make| (make, self.retry.max(now + REST)));
            let has_guests = !self.known.is_empty() || !self.left.is_empty();
            let look_at = has_guests.then_some(self.look_at);
            let introduce_at = self.introduce_at(now);
            let until = fill.iter().map(|(_, at)| *at).chain(look_at);
            let until = until.chain(introduce_at).min();
            let order = match until {
                Some(until) => match orders.recv_timeout(until.saturating_duration_since(now)) {
                    Err(RecvTimeoutError::Timeout) => {
                        if introduce_at.is_some_and(|at| at <= Instant::now()) {
                            self.introduce();
                        } else if let Some((make, at)) = fill
                            && at <= Instant::now()
                        {
                            self.fill(make);
                        }
                        continue;
                    }
                    order => order.ok(),
                },
                None => orders.recv().ok(),
            };
            match order {
                Some(order) => self.carry_out(order),
                None => break,
            }
        }
        while self.introduce() {}
        self.makes.clear();
        self.clear_out();
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Find(wanted) => {
                if let Err(cause) = self.find(&wanted) {
                    self.lost(&cause);
                    self.tell(Told::Trouble(format!("takeover: {cause}")));
                }
                self.tell(Told::Searched);
            }
            Order::Make(id, service, guard) => {
                if let Err(why) = self.make(id, &service, guard) {
                    self.tell(Told::NotMade(id, why));
                }
            }
            Order::Remove(id, domid) => self.remove(id, domid),
            Order::Room(room) => self.room = room,
            Order::Ready(services, ready) => {
                // Files may be others by now.
                self.images.clear();
                self.sites.clear();
                self.ready = ready;
                let pooled = services
                    .into_iter()
                    .filter(|service| service.asleep == Asleep::Pool);
                self.makes = pooled
                    .map(|service| ((service.image, service.memory), service.bridge))
                    .collect();
                self.clear_out();
            }
        }
    }

    fn tell(&self, told: Told) {
        self.told.send(told);
    }

    fn builder(&mut self) -> Result<&mut Toolstack, Cause> {
        let mut kept = self.builder.take();
        if kept
            .as_mut()
            .is_some_and(|builder| builder.store().has_ended())
        {
            kept = None;
            if !std::mem::replace(&mut self.is_gone, true) {
                self.tell(Told::Trouble("xenstored has gone".to_owned()));
            }
        }
        let builder = match kept {
            Some(builder) => builder,
            None => {
                let mut builder = (self.open)()?;
                self.meet(&mut builder)?;
                builder
            }
        };
        Ok(self.builder.insert(builder))
    }

    /// Looks at a xenstored that was not spoken to yet. One that was started anew knows nothing of our guests, and the kernel nothing of it.
    fn meet(&mut self, builder: &mut Toolstack) -> Result<(), Cause> {
        let mut restored = 0_usize;
        for known in self.known.values() {
            restored += usize::from(builder.restore(known)?);
        }
        // They are told it again, when there is time.
        for (_, is_told) in self.made_of.values_mut() {
            *is_told = false;
        }
        for shell in self.shells.values().flatten() {
            restored += usize::from(builder.restore_shell(shell)?);
        }
        let has_kernel = builder.has_kernel()?;
        self.deaf = (self.had_kernel && !has_kernel).then(Instant::now);
        self.had_kernel |= has_kernel;
        if std::mem::take(&mut self.is_gone) {
            let what = format!("xenstored is there again; {restored} guests had to be told to it");
            self.tell(Told::Trouble(what));
        }
        if self.deaf.is_some() {
            self.tell(Told::Trouble(Cause::Deaf.to_string()));
        }
        Ok(())
    }

    /// Without the kernel there is no interface: who would wait for one is told so at once.
    fn hears(&mut self) -> Result<(), Cause> {
        if let Some(since) = self.deaf {
            if since.elapsed() < DEAF && !self.builder()?.has_kernel()? {
                return Err(Cause::Deaf);
            }
            self.deaf = None;
        }
        Ok(())
    }

    /// xenstored was perhaps started anew: the way to it is opened again the next time.
    fn lost(&mut self, cause: &Cause) {
        match cause {
            Cause::Store(_) => {
                let builder = self.builder.take();
                self.is_gone |= builder.is_some_and(|mut builder| builder.store().has_ended());
            }
            Cause::Deaf => self.deaf = Some(Instant::now()),
            _ => {}
        }
    }

    /// Sees whether xenstored is still there, and does what it is needed for.
    fn look(&mut self) {
        if self.known.is_empty() && self.left.is_empty() {
            return;
        }
        if self.builder().is_ok() {
            for (id, domid) in std::mem::take(&mut self.left) {
                self.remove(id, domid);
            }
            if let Err(error) = self.tell_made_of() {
                self.lost(&Cause::from(error));
            }
        }
    }

    /// Writes down what guests were made of, which no birth waits for.
    fn tell_made_of(&mut self) -> Result<(), mayfly_xenstore::Error> {
        let Some(builder) = &mut self.builder else {
            return Ok(());
        };
        for (domid, (made_of, is_told)) in &mut self.made_of {
            if !*is_told {
                builder
                    .store()
                    .write(&made_of_path(*domid), &made_of.to_string())?;
                *is_told = true;
            }
        }
        Ok(())
    }

    /// Remembers a guest that runs.
    fn know(&mut self, domid: u16, name: &str, mac: [u8; 6]) -> Result<(), Cause> {
        if let Some(info) = self.builder()?.xen().info(domid)? {
            let known = Known {
                domid,
                uuid: info.handle,
                name: name.to_owned(),
                mac,
            };
            self.known.insert(domid, known);
        }
        Ok(())
    }

    /// Removes what a killed daemon has left half-made, and finds the guests that run.
    fn find(&mut self, wanted: &[(Id, String, [u8; 6])]) -> Result<(), Cause> {
        let builder = self.builder()?;
        let snapshot = Snapshot::read(builder).map_err(|error| match error {
            gc::SnapshotError::Xen(error) => Cause::from(error),
            gc::SnapshotError::Store(error) => Cause::from(error),
            gc::SnapshotError::Io(error) => Cause::from(error),
        })?;
        let failures = gc::carry_out(builder, &gc::decide(&snapshot));
        let mut found = Vec::new();
        for (id, name, mac) in wanted {
            let builder = self.builder()?;
            let Some(domid) = builder.domid(name)? else {
                continue;
            };
            let Some(info) = builder.xen().info(domid)?.filter(|info| !info.is_dying()) else {
                continue;
            };
            // Killed right before it would have been let run.
            if info.is_paused() {
                builder.xen().unpause(domid)?;
            }
            let made_of = self.builder()?.store().find(&made_of_path(domid))?;
            let made_of = made_of.and_then(|text| text.parse().ok());
            self.made_of
                .extend(made_of.map(|made_of| (domid, (made_of, true))));
            self.know(domid, name, *mac)?;
            let network = match self.builder()?.is_switched(domid)? {
                true => Network::Switch,
                false => Network::Netback,
            };
            let was_found = Found {
                domid,
                network,
                of: made_of,
            };
            found.push(Told::Found(*id, was_found));
        }
        found.extend(failures.into_iter().map(Told::Trouble));
        for told in found {
            self.tell(told);
        }
        Ok(())
    }

    fn make(&mut self, id: Id, service: &Service, guard: bool) -> Result<(), String> {
        let began = Instant::now();
        // First: a file that is replaced in this moment is found to be another one later.
        let made_of = MadeOf::now(service).ok();
        self.open_files(service)?;
        let config = config(service).map_err(|error| error.to_string())?;
        if service.network == Network::Switch {
            return self.bear(id, service, (config, guard, began, made_of));
        }
        let key = (service.image.clone(), service.memory);
        let shell = match service.asleep {
            Asleep::Pool => self.shells.get_mut(&key).and_then(VecDeque::pop_front),
            Asleep::Destroy | Asleep::Suspend => None,
        };
        let is_from_pool = shell.is_some();
        if is_from_pool {
            self.count();
        } else {
            self.hears().map_err(|error| error.to_string())?;
        }
        // What it needs of the memory, others have to make room for.
        self.room = self.room.saturating_sub(service.memory);
        self.clear_out();
        self.builder().map_err(|error| error.to_string())?;
        let image = self.images.get(&service.image);
        let site = service.site.as_ref().and_then(|path| self.sites.get(path));
        let (Some(builder), Some(image)) = (&mut self.builder, image) else {
            return Err("its image is not there".into());
        };
        let (told, front) = (&self.told, &self.front);
        // When its network is connected the bridge leads to it, and the front gives it what is held: that may be before it runs.
        let ready: Ready<'_> = &mut |soon| {
            let Soon {
                domid, port, links, ..
            } = soon;
            let Some((vif, bridge)) = port else {
                return Err(Cause::Backend("has no interface"));
            };
            if guard {
                let identity = Identity {
                    mac: service.mac,
                    ipv4: service.ipv4.map(|address| address.address()),
                    ipv6: service.ipv6.map(|address| address.address()),
                    host: bridge.mac,
                };
                guard::protect(links, vif.index, &identity)?;
            }
            links.direct(vif, service.mac)?;
            let made = Made {
                domid,
                vif: vif.clone(),
                network: Network::Netback,
                began,
                is_from_pool,
                of: made_of,
                witness: Witness::open(vif).ok(),
                front: front.say_now(&ToFront::Is(id, Stance::Takes)),
            };
            told.send(Told::Made(id, made));
            Ok(())
        };
        let created = match shell {
            Some(shell) => builder.give_for(shell, &config, site, Some(ready)),
            None => builder.create_for(&config, image, site, Then::Running, ready),
        };
        match created {
            Ok(created) => {
                self.made_of
                    .extend(made_of.map(|made_of| (created.domid, (made_of, false))));
                if let Err(cause) = self.know(created.domid, &service.name, service.mac) {
                    self.lost(&cause);
                }
                self.tell(Told::Runs(id, Box::new(created.timeline)));
                Ok(())
            }
            Err(error) => {
                self.lost(&error.failure.cause);
                Err(error.to_string())
            }
        }
    }

    fn open_files(&mut self, service: &Service) -> Result<(), String> {
        let error =
            |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let image = self.images.get(&service.image);
        if image.is_none_or(|image| !image.is_current()) {
            // What was made ahead of another image is nobody's any more.
            self.images.remove(&service.image);
            self.discard(&service.image);
            let image = Image::open(&service.image).map_err(|e| error(&service.image, &e))?;
            self.images.insert(service.image.clone(), image);
        }
        if let Some(path) = &service.site
            && self.sites.get(path).is_none_or(|site| !site.is_current())
        {
            self.sites.remove(path);
            let site = Ramdisk::open(path).map_err(|e| error(path, &e))?;
            self.sites.insert(path.clone(), site);
        }
        Ok(())
    }

    /// Removes the guests that were made ahead of an image.
    fn discard(&mut self, image: &Path) {
        let stale = self.shells.extract_if(.., |(path, _), _| path == image);
        let stale: Vec<_> = stale.flat_map(|(_, shells)| shells).collect();
        self.remove_shells(stale);
    }

    /// Removes a guest, or sees to it that it is when xenstored is there again.
    fn remove(&mut self, id: Id, domid: u16) {
        while self.is_newborn(domid) && self.introduce() {}
        let uuid = self.known.get(&domid).map(|known| known.uuid);
        let destroyed = self
            .builder()
            .map_err(DestroyError::from)
            .and_then(|builder| match uuid {
                Some(uuid) => builder.destroy_known(domid, &uuid),
                None => builder.destroy(domid, false),
            });
        let trouble = match destroyed {
            Ok(_) | Err(DestroyError::NoSuchDomain(_)) => None,
            Err(error) => {
                let store = self.builder.as_mut().map(Toolstack::store);
                if store.is_none_or(|store| store.has_ended()) {
                    self.left.push((id, domid));
                    return;
                }
                if let DestroyError::Cause(cause) = &error {
                    self.lost(cause);
                }
                Some(error.to_string())
            }
        };
        self.known.remove(&domid);
        self.made_of.remove(&domid);
        self.tell(Told::Removed(id, trouble));
    }

    fn count(&self) {
        self.tell(Told::Waiting(self.shells.values().map(VecDeque::len).sum()));
    }

    /// A make of which too few guests wait.
    fn lacking(&self) -> Option<Make> {
        let waiting = |make: &Make| self.shells.get(make).map_or(0, VecDeque::len);
        let memory = self.memory();
        let mut makes = self.makes.keys();
        makes
            .find(|make| waiting(make) < self.ready && memory + make.1 <= self.room)
            .cloned()
    }

    /// MiB of guests made ahead.
    fn memory(&self) -> u64 {
        let shells = self.shells.iter();
        shells.map(|(make, all)| make.1 * all.len() as u64).sum()
    }

    /// Makes one guest ahead.
    fn fill(&mut self, make: Make) {
        if Instant::now() < self.retry {
            return;
        }
        match self.shell(&make) {
            Ok(shell) => {
                self.shells.entry(make).or_default().push_back(shell);
                self.back_off = BACK_OFF;
                self.count();
            }
            Err(why) => {
                self.retry = Instant::now() + self.back_off;
                self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
                self.tell(Told::Trouble(format!("the pool: {why}")));
            }
        }
    }

    fn shell(&mut self, make: &Make) -> Result<Shell, String> {
        let (path, memory) = make;
        if !self.images.contains_key(path) {
            let image = Image::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
            self.images.insert(path.clone(), image);
        }
        self.hears().map_err(|error| error.to_string())?;
        self.builder().map_err(|error| error.to_string())?;
        let (Some(builder), Some(image)) = (&mut self.builder, self.images.get(path)) else {
            return Err("its image is not there".into());
        };
        let bridge = self.makes.get(make).cloned().unwrap_or_default();
        let template = Config {
            name: "shell".into(),
            uuid: [0; 16],
            memory: *memory,
            cmdline: String::new(),
            // It gets a MAC address of its own.
            vif: Some(Vif {
                mac: [0x02, 0, 0, 0, 0, 0],
                bridge,
                ip: None,
                rate: None,
                mtu: None,
            }),
            connect: Connect::Before,
            console: false,
            tsc: TscMode::Native,
            watched: None,
        };
        builder.shell(&template, image).map_err(|error| {
            self.lost(&error.failure.cause);
            error.to_string()
        })
    }

    /// Removes guests made ahead that nobody can want any more, or that there is no room for.
    fn clear_out(&mut self) {
        let makes = self.makes.clone();
        let ready = self.ready;
        let mut gone = Vec::new();
        for (make, shells) in &mut self.shells {
            let keep = if makes.contains_key(make) { ready } else { 0 };
            gone.extend(shells.drain(keep.min(shells.len())..));
        }
        let mut memory = self.memory();
        for ((_, mib), shells) in &mut self.shells {
            while memory > self.room
                && let Some(shell) = shells.pop_back()
            {
                memory -= *mib;
                gone.push(shell);
            }
        }
        self.remove_shells(gone);
    }

    fn remove_shells(&mut self, gone: Vec<Shell>) {
        if gone.is_empty() {
            return;
        }
        self.count();
        for shell in gone {
            let removed = self
                .builder()
                .map_err(|error| error.to_string())
                .and_then(|builder| {
                    let discarded = builder.discard(&shell);
                    discarded.map_err(|error| error.to_string())
                });
            if let Err(why) = removed {
                self.tell(Told::Trouble(format!("the pool: {why}")));
            }
        }
    }
}

/// Where it is written down what a guest was made of: the guest can read it, and not write it.
fn made_of_path(domid: u16) -> String {
    format!("/local/domain/{domid}/summon")
}

/// What a service's guest is made from.
fn config(service: &Service) -> std::io::Result<Config> {
    Ok(Config {
        name: service.name.clone(),
        uuid: random_uuid()?,
        memory: service.memory,
        cmdline: service.command_line(),
        vif: Some(Vif {
            mac: service.mac,
            bridge: service.bridge.clone(),
            ip: None,
            rate: None,
            mtu: None,
        }),
        connect: Connect::Auto,
        console: false,
        tsc: TscMode::Native,
        watched: None,
    })
}
