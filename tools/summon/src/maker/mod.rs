//! The thread that makes and removes guests, one after the other, because each takes milliseconds. It owns the
//! connections to Xen and xenstored, the open files, and the guests made ahead.

mod on_switch;
mod pool;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::bell::BellSender;
use super::channel::{FrontSender, Stance, ToFront};
use super::config::{Network, Service};
use super::fleet::ServiceId;
use super::guard::{self, Identity};
use super::made_of::MadeOf;
use super::wire::Witness;
use mayfly_links::Link;
use mayfly_toolstack::builder::report::Timeline;
use mayfly_toolstack::builder::{
    AboutToRun, Connect, CreateAs, Created, DestroyError, GuestConfig, Image, KnownGuest,
    NetbackThreads, Ramdisk, Ready, Toolstack, ToolstackError, random_uuid,
};
use mayfly_toolstack::pool::ShellPool;
use on_switch::OnSwitch;

/// The time limit for Xen, xenstored and the kernel.
const BOUND: Duration = Duration::from_secs(10);
/// The time without other work after which guests are made ahead.
const REST: Duration = Duration::from_millis(50);
/// The time between two checks whether xenstored has ended, and between two attempts at work that needs it.
const LOOK: Duration = Duration::from_secs(1);
/// The time for which no guest is made if dom0's kernel is not connected to xenstored.
const KERNEL_PATIENCE: Duration = Duration::from_secs(60);

/// An order to the thread.
pub(super) enum MakerOrder {
    /// Find the running guests of these services, by name and MAC address.
    Find(Vec<(ServiceId, String, [u8; 6])>),
    /// Make a guest; the flag says whether with the guard.
    Make(ServiceId, Arc<Service>, bool),
    /// Remove a guest.
    Remove(ServiceId, u16),
    /// Keep this number of guests ready for these services, for each image and size.
    Ready(Vec<Service>, usize),
    /// Let the guests made ahead have this much memory together, in MiB.
    Room(u64),
}

/// A report of the thread.
pub(super) enum MakerReport {
    /// A running guest of a service was found.
    Found(ServiceId, FoundGuest),
    /// The search is over.
    Searched,
    /// A guest's network is connected, and it is about to run.
    Made(ServiceId, MadeGuest),
    /// A guest runs and is complete, with the timeline of its making.
    Runs(ServiceId, Box<Timeline>),
    /// A guest could not be made, for this reason. Nothing of it is left.
    NotMade(ServiceId, String),
    /// A guest was removed. The text describes leftovers, if there are any.
    Removed(ServiceId, Option<String>),
    /// The number of guests in the pool.
    Waiting(usize),
    /// A problem that concerns no single guest.
    Trouble(String),
}

/// A running guest of an earlier daemon.
pub(super) struct FoundGuest {
    pub(super) domid: u16,
    /// The back end of its network.
    pub(super) network: Network,
    /// The record of what it was made of, if there is one.
    pub(super) of: Option<MadeOf>,
}

/// A guest that is about to run.
pub(super) struct MadeGuest {
    pub(super) domid: u16,
    /// Its interface, or the switch's port.
    pub(super) vif: Link,
    pub(super) network: Network,
    /// The time at which its making began.
    pub(super) began: Instant,
    pub(super) is_from_pool: bool,
    /// The record of what it was made of.
    pub(super) of: Option<MadeOf>,
    /// The packet socket at its vif.
    pub(super) witness: Option<Witness>,
    /// The front that was told of it; nobody has told one of a guest on the switch.
    pub(super) front: u64,
}

/// Opens a toolstack, at the start and after xenstored was lost.
type Open = Box<dyn Fn() -> Result<Toolstack, ToolstackError>>;

pub(super) struct GuestMaker {
    told: BellSender<MakerReport>,
    front: FrontSender,
    /// Opens the connections to Xen, xenstored and the links.
    open: Open,
    builder: Option<Toolstack>,
    /// Running guests, to restore a lost index in xenstore.
    known: BTreeMap<u16, KnownGuest>,
    /// The records of what they were made of, and whether these are in xenstore.
    made_of: BTreeMap<u16, (MadeOf, bool)>,
    /// The records of services' next guests, valid as long as the open files and the daemon's file are the same.
    next_of: BTreeMap<ServiceId, MadeOf>,
    /// Guests that are to be removed when xenstored is there again.
    left: Vec<(ServiceId, u16)>,
    look_at: Instant,
    /// Whether xenstored is lost, and that was reported.
    is_gone: bool,
    /// Whether dom0's kernel was connected to xenstored before, and the time since which it is not.
    had_kernel: bool,
    kernel_lost: Option<Instant>,
    images: BTreeMap<PathBuf, Image>,
    sites: BTreeMap<PathBuf, Ramdisk>,
    /// The guests made ahead. Each is on the bridge of one of the services that may get it, and moves to the bridge of the one that does.
    pool: ShellPool,
    switch: OnSwitch,
}

impl GuestMaker {
    /// A maker whose guests' threads of netback are scheduled like this.
    pub(super) fn new(
        told: BellSender<MakerReport>,
        front: FrontSender,
        threads: NetbackThreads,
    ) -> Self {
        let open = move || Ok(Toolstack::open(BOUND)?.with_netback(threads));
        Self::over(told, front, Box::new(open))
    }

    fn over(told: BellSender<MakerReport>, front: FrontSender, open: Open) -> Self {
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
            kernel_lost: None,
            images: BTreeMap::new(),
            sites: BTreeMap::new(),
            pool: pool::empty(),
            switch: OnSwitch::default(),
        }
    }

    /// Carries out orders until the sender is gone. Then removes the guests made ahead.
    pub(super) fn work(mut self, orders: &Receiver<MakerOrder>) {
        loop {
            let now = Instant::now();
            if self.look_at <= now {
                self.look_at = now + LOOK;
                self.look();
            }
            let lacking = self.pool.lacking();
            let fill = lacking.map(|(kind, at)| (kind.clone(), at.max(now + REST)));
            let has_guests = !self.known.is_empty() || !self.left.is_empty();
            let look_at = has_guests.then_some(self.look_at);
            let announce_at = self.announce(now);
            let introduce_at = self.introduce_at(now);
            let until = fill.iter().map(|(_, at)| *at).chain(look_at);
            let until = until.chain(announce_at).chain(introduce_at).min();
            let order = match until {
                Some(until) => match orders.recv_timeout(until.saturating_duration_since(now)) {
                    Err(RecvTimeoutError::Timeout) => {
                        if introduce_at.is_some_and(|at| at <= Instant::now()) {
                            self.introduce();
                        } else if let Some((kind, at)) = fill
                            && at <= Instant::now()
                        {
                            self.fill(&kind);
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
        self.pool.keep(BTreeMap::new());
        self.clear_out();
    }

    fn carry_out(&mut self, order: MakerOrder) {
        match order {
            MakerOrder::Find(wanted) => {
                self.find(&wanted);
                self.tell(MakerReport::Searched);
            }
            MakerOrder::Make(id, service, guard) => {
                if let Err(why) = self.make(id, &service, guard) {
                    self.tell(MakerReport::NotMade(id, why));
                }
            }
            MakerOrder::Remove(id, domid) => self.remove(id, domid),
            MakerOrder::Room(room) => self.pool.limits.memory = room,
            MakerOrder::Ready(services, ready) => {
                // The files may have been replaced.
                self.next_of.clear();
                self.images.clear();
                self.sites.clear();
                self.keep_ready(&services, ready);
                if services.iter().any(|one| one.network == Network::Switch) {
                    self.make_mark_ahead();
                }
            }
        }
    }

    fn tell(&self, told: MakerReport) {
        self.told.send(told);
    }

    fn make(&mut self, id: ServiceId, service: &Service, guard: bool) -> Result<(), String> {
        let began = Instant::now();
        let made_of = self.open_files(id, service)?;
        let uuid = match &self.builder {
            Some(builder) if service.network == Network::Switch => builder.next_uuid(),
            _ => random_uuid(),
        };
        let config = config(service, uuid.map_err(|error| error.to_string())?);
        if service.network == Network::Switch {
            return self.bear(id, service, (config, guard, began, made_of));
        }
        let shell = self.shell_for(service, &config);
        let is_from_pool = shell.is_some();
        if !is_from_pool {
            self.check_kernel().map_err(|error| error.to_string())?;
        }
        self.make_room(service.memory);
        self.builder().map_err(|error| error.to_string())?;
        let image = self.images.get(&service.image);
        let site = service.site.as_ref().and_then(|path| self.sites.get(path));
        let (Some(builder), Some(image)) = (&mut self.builder, image) else {
            return Err("its image is not there".into());
        };
        let (told, front) = (&self.told, &self.front);
        // Called when its network is connected: the bridge leads to the guest, and the front gives it the held frames,
        // perhaps before it runs.
        let ready: Ready<'_> = &mut |soon| {
            let AboutToRun {
                domid, port, links, ..
            } = soon;
            let Some((vif, bridge)) = port else {
                return Err(ToolstackError::Backend("has no interface"));
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
            // Opened first, so that it sees the first frame to the guest.
            let witness = Witness::open(vif).ok();
            links.direct(vif, service.mac)?;
            let front = front.say_now(&ToFront::Is(id, Stance::Takes));
            // Lets the front run first if it shares this CPU, so that the held frames are in the guest's ring when it
            // starts.
            std::thread::yield_now();
            let made = MadeGuest {
                domid,
                vif: vif.clone(),
                network: Network::Netback,
                began,
                is_from_pool,
                of: made_of,
                witness,
                front,
            };
            told.send(MakerReport::Made(id, made));
            Ok(())
        };
        let created = match shell {
            Some(shell) => builder.give_for(shell, &config, site, Some(ready)),
            None => builder.create_for(&config, image, site, CreateAs::Running, ready),
        };
        if is_from_pool {
            self.count();
        }
        match created {
            Ok(created) => self.runs(id, service, made_of, created),
            Err(error) => {
                self.lost(&error.failure.cause);
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    /// Keeps what is known of a guest that runs, and reports it.
    fn runs(&mut self, id: ServiceId, service: &Service, of: Option<MadeOf>, created: Created) {
        self.made_of
            .extend(of.map(|of| (created.domid, (of, false))));
        if let Err(cause) = self.know(created.domid, &service.name, service.mac) {
            self.lost(&cause);
        }
        self.tell(MakerReport::Runs(id, Box::new(created.timeline)));
    }

    /// Opens the files of a service's guest, unless they are open and unchanged. Returns the record of what the guest
    /// is made of.
    fn open_files(&mut self, id: ServiceId, service: &Service) -> Result<Option<MadeOf>, String> {
        let is_open = self.has_open(service);
        if is_open && let Some(known) = self.next_of.get(&id) {
            return Ok(Some(*known));
        }
        // Read first, so that a file that is replaced at this moment shows as changed later.
        let now = MadeOf::now(service).ok();
        if is_open {
            // The same before and after opening, so also in between.
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
            // No service can use guests that were made ahead from the old image.
            self.images.remove(&service.image);
            self.discard_image(&service.image);
            let image =
                Image::open_and_keep(&service.image).map_err(|e| error(&service.image, &e))?;
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

    /// Whether a service's image and site are open, and still the files at their paths.
    fn has_open(&self, service: &Service) -> bool {
        let image = self.images.get(&service.image);
        let site = |path| self.sites.get(path).is_some_and(Ramdisk::is_current);
        image.is_some_and(Image::is_current) && service.site.as_ref().is_none_or(site)
    }

    /// Removes a guest, now or when xenstored is there again.
    fn remove(&mut self, id: ServiceId, domid: u16) {
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
        self.tell(MakerReport::Removed(id, trouble));
    }
}

/// The configuration of a service's guest.
fn config(service: &Service, uuid: [u8; 16]) -> GuestConfig {
    GuestConfig {
        name: service.name.clone(),
        uuid,
        cmdline: service.command_line(),
        connect: Connect::Auto,
        ..pool::template(service)
    }
}
