//! Makes the daemon from its file, and changes it to a new file.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::super::bell;
use super::super::channel::FrontSender;
use super::super::clock::Clock;
use super::super::config::{Network, Service, SummonConfig};
use super::super::dns::{QueryCounts, Sockets};
use super::super::fleet::{Fleet, FleetEvent, ServiceId, ServiceSpec};
use super::super::log::{Level, line};
use super::super::made_of::MadeOf;
use super::super::maker::{FoundGuest, GuestMaker, MakerOrder, MakerReport};
use super::super::names::Names;
use super::super::status::FrameCounts;
use super::super::wire::FRAME_MAX;
use super::dom0::Ports;
use super::error::DaemonError;
use super::front::{Fronts, Listening};
use super::guests::RunningGuest;
use super::report::{self, Away};
use super::switched::Switched;
use super::{Daemon, ServiceEntry, Signals};
use mayfly_links::{Links, vif_name};
use mayfly_switch::control::SwitchOrder;
use mayfly_toolstack::host;
use mayfly_toolstack::readable::ready;
use mayfly_xen::Xen;

/// The time for finding an earlier daemon's guests.
const SEARCH: Duration = Duration::from_secs(60);

/// The time that an earlier daemon's front may need to end.
const LINGER: Duration = Duration::from_secs(1);

/// The parts of a daemon.
pub(super) struct DaemonParts {
    pub(super) path: PathBuf,
    pub(super) listening: Listening,
    pub(super) orders: mpsc::Sender<MakerOrder>,
    pub(super) told: bell::BellReceiver<MakerReport>,
    pub(super) way: FrontSender,
    pub(super) links: Box<dyn Ports>,
    pub(super) link_events: Links,
    pub(super) xen: Box<dyn host::Xen>,
    pub(super) signals: Signals,
    /// The control socket of the switch.
    pub(super) switch: PathBuf,
}

impl Daemon {
    /// Reads the file, opens all sockets and ports, and takes over the guests of an earlier daemon.
    ///
    /// # Errors
    /// [`DaemonError`]: the first step that fails.
    pub fn open(path: &Path) -> Result<Self, DaemonError> {
        let config = load(path)?;
        // Checked first, because everything may belong to another daemon.
        if UnixStream::connect(&config.daemon.socket).is_ok() {
            let socket = config.daemon.socket.display();
            return Err(DaemonError::Listen(format!(
                "{socket}: another daemon has it"
            )));
        }
        let listening = again(|| listen(&config))?;
        let (orders, received) = mpsc::channel();
        let (sender, told) = bell::channel()?;
        let way = FrontSender::default();
        let front = way.clone();
        let threads = config.daemon.netback_threads;
        let maker = std::thread::Builder::new()
            .name("maker".into())
            .spawn(move || GuestMaker::new(sender, front, threads).work(&received))?;
        let parts = DaemonParts {
            path: path.to_owned(),
            listening,
            orders,
            told,
            way,
            links: Box::new(Links::asking()?),
            link_events: Links::open()?,
            xen: Box::new(Xen::open()?),
            signals: Signals::catch()?,
            switch: mayfly_switch::control::SOCKET.into(),
        };
        let mut daemon = Self::new(parts, &config)?;
        daemon.maker = Some(maker);
        again(|| daemon.adopt(config.clone()))?;
        daemon.take_over()?;
        daemon.ready();
        daemon.tell();
        daemon.serve_status()?;
        daemon.start_front().map_err(DaemonError::Front)?;
        Ok(daemon)
    }

    /// A daemon without services.
    pub(super) fn new(parts: DaemonParts, config: &SummonConfig) -> Result<Self, DaemonError> {
        let (requesting, requests) = bell::channel()?;
        let (kept, is_looked_at) = (Arc::default(), Arc::default());
        let began = Instant::now();
        let status = report::source(&kept, &is_looked_at, (began, parts.switch.clone()))?;
        Ok(Self {
            path: parts.path,
            names: Names::default(),
            ids: BTreeMap::new(),
            next: 0,
            entries: BTreeMap::new(),
            fleet: Fleet::new(config.daemon.limits),
            actions: Vec::new(),
            buffer: vec![0; FRAME_MAX],
            queries: QueryCounts::default(),
            listening: parts.listening,
            fronts: Fronts::default(),
            way: parts.way,
            clock: Clock::new(),
            links: parts.links,
            link_events: parts.link_events,
            xen: parts.xen,
            ports: BTreeMap::new(),
            macs: BTreeMap::new(),
            orders: Some(parts.orders),
            maker: None,
            told: parts.told,
            signals: parts.signals,
            wakes: BTreeMap::new(),
            kept,
            status,
            requests,
            requesting,
            pool: 0,
            began,
            tick_at: began,
            files_at: began,
            tell_at: None,
            later: Default::default(),
            witness: None,
            is_looked_at,
            count_at: began,
            away: Away::default(),
            switch: None,
            switched: Switched::at(parts.switch),
            back_ends: Default::default(),
            complain_at: began,
            room: u64::MAX,
            is_searched: false,
            config: config.clone(),
        })
    }

    /// Finds running guests before any client is served, so that no service gets a second guest.
    fn take_over(&mut self) -> Result<(), DaemonError> {
        let wanted = self.entries.iter();
        let wanted = wanted.map(|(&id, entry)| (id, entry.service.name.clone(), entry.service.mac));
        self.send(MakerOrder::Find(wanted.collect()));
        let end = Instant::now() + SEARCH;
        while !self.is_searched {
            if Instant::now() >= end {
                return Err(DaemonError::Io(io::Error::other(format!(
                    "the search for earlier guests has not ended in {SEARCH:?}: does xenstored run?"
                ))));
            }
            ready([((), self.told.as_fd(), PollFlags::IN)], Some(end))?;
            for told in self.told.take() {
                self.told(told);
            }
            self.carry_out();
        }
        Ok(())
    }

    fn send(&self, order: MakerOrder) {
        if let Some(orders) = &self.orders {
            // The thread lives as long as the daemon.
            let _ = orders.send(order);
        }
    }

    /// Orders guests to be made ahead.
    fn ready(&mut self) {
        self.make_room();
        let services = self.config.services.clone();
        self.send(MakerOrder::Ready(services, self.config.daemon.pool));
    }

    /// Reads the file again. A file with mistakes changes nothing. A service that has not changed keeps its guest.
    pub(super) fn reload(&mut self) {
        let result = load(&self.path).and_then(|config| {
            let fixed = |config: &SummonConfig| {
                let daemon = &config.daemon;
                (daemon.listen.clone(), daemon.status, daemon.socket.clone())
            };
            if fixed(&config) != fixed(&self.config) {
                line(
                    Level::Warning,
                    "listen, status and socket stay as they were until a restart",
                )
                .write();
            }
            self.adopt(config)
        });
        match result {
            Ok(()) => {
                self.ready();
                line(Level::Info, "reloaded")
                    .with("services", self.config.services.len())
                    .write();
            }
            Err(error) => line(Level::Error, "not reloaded; nothing has changed")
                .with("why", error)
                .write(),
        }
    }

    /// Changes to a configuration. All steps that can fail come first.
    pub(super) fn adopt(&mut self, mut config: SummonConfig) -> Result<(), DaemonError> {
        self.choose_networks(&mut config);
        let mut ids = BTreeMap::new();
        let mut next = self.next;
        for service in &config.services {
            let id = self.ids.get(&service.name).copied();
            let id = id.unwrap_or_else(|| {
                next += 1;
                ServiceId(next)
            });
            ids.insert(service.name.clone(), id);
        }
        let names = Names::new(&config, &ids)?;
        let mut opened = BTreeMap::new();
        for service in &config.services {
            let bridge = &service.bridge;
            if service.network == Network::Switch {
                // The switch has a port there. Only the bridge's name is checked.
                self.links.bridge(bridge)?;
            } else if !self.ports.contains_key(bridge) && !opened.contains_key(bridge) {
                opened.insert(bridge.clone(), self.links.port(bridge)?);
            }
        }

        self.next = next;
        for (bridge, port) in opened {
            self.have_port(bridge, port);
        }
        self.fleet.limit(config.daemon.limits);
        let left = self.ids.iter().filter(|(name, _)| !ids.contains_key(*name));
        for id in left.map(|(_, &id)| id).collect::<Vec<_>>() {
            self.fleet.leave(id, &mut self.actions);
        }
        // Removed services keep their names until they are gone.
        self.ids.extend(ids);
        self.index(&config);
        self.tell_table(&config, &names)?;
        self.names = names;
        for service in &config.services {
            if let Some(&id) = self.ids.get(&service.name) {
                self.take(id, service);
            }
        }
        self.config = config;
        self.meet_switch();
        self.declare_all();
        self.carry_out();
        let ports = self.ports.keys();
        let idle = ports.filter(|bridge| !self.needs_port(bridge));
        for bridge in idle.cloned().collect::<Vec<_>>() {
            self.lose_port(&bridge);
        }
        Ok(())
    }

    /// Builds the index of services by MAC address.
    fn index(&mut self, config: &SummonConfig) {
        self.macs.clear();
        for service in &config.services {
            if let Some(&id) = self.ids.get(&service.name) {
                self.macs.insert((service.bridge.clone(), service.mac), id);
            }
        }
    }

    /// Adds or changes a service.
    fn take(&mut self, id: ServiceId, service: &Service) {
        let spec = ServiceSpec {
            memory: service.memory,
            idle: service.idle,
            idle_hard: service.idle_hard,
            start_timeout: service.start_timeout,
            lifetime: service.lifetime,
            asleep: service.asleep,
            on_demand: service.on_demand,
        };
        match self.entries.get_mut(&id) {
            Some(entry) if *entry.service == *service => {
                self.fleet.change(id, spec, false, &mut self.actions);
            }
            Some(entry) => {
                let was_on_switch = entry.is_on_switch();
                let old = std::mem::replace(&mut entry.service, Arc::new(service.clone()));
                let is_other = MadeOf::differs(&old, service);
                let has_moved = (&old.bridge, old.mac) != (&service.bridge, service.mac);
                if was_on_switch && (has_moved || service.network != Network::Switch) {
                    self.tell_switch(&SwitchOrder::Forget(old.name.clone()));
                }
                if has_moved
                    && !self.macs.contains_key(&(old.bridge.clone(), old.mac))
                    && let Some(port) = self.ports.get(&old.bridge)
                {
                    let _ = self.links.undirect(port.link(), old.mac);
                }
                self.fleet.change(id, spec, is_other, &mut self.actions);
                let is_led_elsewhere = has_moved || old.network != service.network;
                if is_led_elsewhere && !self.fleet.takes(id) {
                    self.shut(id);
                }
            }
            None => {
                let entry = ServiceEntry {
                    service: Arc::new(service.clone()),
                    frames: FrameCounts::default(),
                    birth: None,
                    guest: None,
                    queries: 0,
                    requests: None,
                    heard: None,
                };
                self.entries.insert(id, entry);
                self.fleet.add(id, spec);
                // At the start, an earlier daemon's guest may exist.
                if self.is_searched {
                    self.begin(Instant::now(), id);
                }
            }
        }
    }

    /// Starts a service without a guest.
    fn begin(&mut self, now: Instant, id: ServiceId) {
        self.shut(id);
        if self.fleet.unit(id).is_some_and(|unit| !unit.spec.on_demand) {
            self.step(now, FleetEvent::Wanted(id, None));
        }
    }

    /// Takes over a guest of an earlier daemon.
    pub(super) fn found(&mut self, now: Instant, id: ServiceId, found: &FoundGuest) {
        let domid = found.domid;
        self.step(now, FleetEvent::Found(id, domid));
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let told = |level, what| {
            line(level, what)
                .with("service", &entry.service.name)
                .with("domid", domid)
        };
        let name = match found.network {
            Network::Netback => Ok(vif_name(domid, 0)),
            Network::Switch => {
                let bridge = self.links.bridge(&entry.service.bridge);
                bridge.map(|bridge| mayfly_switch::port_name(bridge.index))
            }
        };
        let vif = name.and_then(|name| self.links.find(&name));
        let directed = vif.and_then(|vif| {
            // The guest may have been suspended.
            self.links.flood(&vif, true)?;
            self.links.direct(&vif, entry.service.mac)?;
            Ok(vif)
        });
        match directed {
            Ok(vif) => {
                told(Level::Info, "taken over").write();
                entry.guest = Some(RunningGuest::found(found, &vif, now));
                // A guest without a record may be of an earlier version.
                let mut service = Service::clone(&entry.service);
                if !service.is_network_named {
                    // It may have been made where there was another back end.
                    service.network = found.network;
                }
                let is_other = found.of.is_some_and(|of| !of.has_config_of(&service));
                self.takes(id);
                if is_other {
                    self.fleet.end(id, CHANGED, &mut self.actions);
                }
            }
            Err(error) => {
                let why = error.to_string();
                told(Level::Warning, "not taken over")
                    .with("why", &why)
                    .write();
                self.step(now, FleetEvent::Ended(id, true, why));
            }
        }
    }

    /// Goes on after all guests of an earlier daemon were found.
    pub(super) fn searched(&mut self, now: Instant) {
        self.is_searched = true;
        let ids: Vec<ServiceId> = self.entries.keys().copied().collect();
        for id in ids {
            if !self.fleet.takes(id) {
                self.begin(now, id);
            }
        }
    }
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let (reload, sender) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGHUP, sender)?;
        let (stop, sender) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGTERM, sender.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGINT, sender)?;
        Ok(Self { reload, stop })
    }
}

fn load(path: &Path) -> Result<SummonConfig, DaemonError> {
    SummonConfig::load(path).map_err(|problems| DaemonError::Config(problems.to_string()))
}

/// Repeats an attempt for a moment: the front of a killed daemon keeps its sockets and ports a little longer.
fn again<T>(mut open: impl FnMut() -> Result<T, DaemonError>) -> Result<T, DaemonError> {
    let end = Instant::now() + LINGER;
    loop {
        match open() {
            Err(_) if Instant::now() < end => std::thread::sleep(LINGER / 50),
            result => return result,
        }
    }
}

/// Opens the front's listening sockets.
fn listen(config: &SummonConfig) -> Result<Listening, DaemonError> {
    let dns = Sockets::open(&config.daemon.listen).map_err(DaemonError::Listen)?;
    let page = config.daemon.status.map(|address| {
        let page = TcpListener::bind(address);
        page.map_err(|error| DaemonError::Listen(format!("cannot listen on {address}: {error}")))
    });
    let page = page.transpose()?;
    Ok(Listening { dns, page })
}

/// The reason for removing a guest that does not fit the file any more.
const CHANGED: &str = "its service was changed while no daemon ran";
