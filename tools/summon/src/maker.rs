//! The thread that makes guests and removes them, one after the other, because that takes milliseconds. It owns the ways to
//! Xen and xenstored, the files, and guests made ahead.

mod on_switch;
mod pool;
mod store;
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
    /// What a service's next guest is made of, as long as its files are those that are open, and the daemon's file is the same.
    next_of: BTreeMap<Id, MadeOf>,
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
            next_of: BTreeMap::new(),
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
                self.find(&wanted);
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
                self.next_of.clear();
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

    fn make(&mut self, id: Id, service: &Service, guard: bool) -> Result<(), String> {
        let began = Instant::now();
        let made_of = self.open_files(id, service)?;
        let config = config(service).map_err(|error| error.to_string())?;
        if service.network == Network::Switch {
            return self.bear(id, service, (config, guard, began, made_of));
        }
        let shell = self.shell_for(service);
        let is_from_pool = shell.is_some();
        if !is_from_pool {
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
            // It sees the first frame that is given to the guest.
            let witness = Witness::open(vif).ok();
            links.direct(vif, service.mac)?;
            let front = front.say_now(&ToFront::Is(id, Stance::Takes));
            // Where the front shares a CPU with this thread, it goes first: then what is held is in the guest's ring when it begins.
            std::thread::yield_now();
            let made = Made {
                domid,
                vif: vif.clone(),
                network: Network::Netback,
                began,
                is_from_pool,
                of: made_of,
                witness,
                front,
            };
            told.send(Told::Made(id, made));
            Ok(())
        };
        let created = match shell {
            Some(shell) => builder.give_for(shell, &config, site, Some(ready)),
            None => builder.create_for(&config, image, site, Then::Running, ready),
        };
        if is_from_pool {
            self.count();
        }
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

    /// A guest that was made ahead, if the service takes such.
    fn shell_for(&mut self, service: &Service) -> Option<Shell> {
        match service.asleep {
            Asleep::Pool => {
                let key = (service.image.clone(), service.memory);
                self.shells.get_mut(&key)?.pop_front()
            }
            Asleep::Destroy | Asleep::Suspend => None,
        }
    }

    /// Opens what a service's guest is made from, unless that is open and still the same. Returns what it is.
    fn open_files(&mut self, id: Id, service: &Service) -> Result<Option<MadeOf>, String> {
        let is_open = self.has_open(service);
        if is_open && let Some(known) = self.next_of.get(&id) {
            return Ok(Some(*known));
        }
        // First: a file that is replaced in this moment is found to be another one later.
        let now = MadeOf::now(service).ok();
        if is_open {
            // Looked at twice, and the same both times: so it was in between.
            if let Some(now) = now
                && self.has_open(service)
            {
                self.next_of.insert(id, now);
            }
            return Ok(now);
        }
        let error =
            |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        self.next_of.clear();
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
        Ok(now)
    }

    /// Whether a service's image and site are open, and still what is at their paths.
    fn has_open(&self, service: &Service) -> bool {
        let image = self.images.get(&service.image);
        let site = |path| self.sites.get(path).is_some_and(Ramdisk::is_current);
        image.is_some_and(Image::is_current) && service.site.as_ref().is_none_or(site)
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
