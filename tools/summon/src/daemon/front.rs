//! The maker's side of the front: starts the process, sends and receives messages, and starts it again when it has
//! ended.
//!
//! Guests go on without a front. The packets that it held are lost with it; clients send them again.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;

use super::super::cause::WakeCause;
use super::super::channel::{
    self, ChannelError, FrontTable, Sender, ServiceAddresses, Stance, ToFront, ToMaker, Wake,
};
use super::super::config::{Network, SummonConfig};
use super::super::dns::Sockets;
use super::super::fleet::{FleetEvent, ServiceId, ServiceState};
use super::super::log::{Level, line};
use super::super::names::Names;
use super::super::status::SummonStatus;
use super::{Daemon, ServiceEntry};

/// The age at which a front counts as working.
const PROVEN: Duration = Duration::from_secs(60);
/// The number of fronts in a row that may end sooner. Then the daemon ends.
const FAILURES: u32 = 5;
/// The least time between two answers to the front's requests for the status.
const PAUSE: Duration = Duration::from_millis(10);
/// The least time between two ports that are made again because the front reports a loss.
const LOST: Duration = Duration::from_secs(1);

/// The front's listening sockets. The maker keeps them for the next front.
pub(super) struct Listening {
    pub(super) dns: Sockets,
    pub(super) page: Option<TcpListener>,
}

/// A running front.
pub(super) struct Front {
    child: Child,
    /// The channel's end from which its messages come.
    from: OwnedFd,
    since: Instant,
}

/// The maker's record about the fronts.
#[derive(Default)]
pub(super) struct Fronts {
    pub(super) current: Option<Front>,
    /// The stances that the present front was told.
    told: std::collections::BTreeMap<ServiceId, Stance>,
    failures: u32,
    /// The time at which a front last reported a lost port.
    lost: Option<Instant>,
}

/// The status, from any thread.
pub(super) type StatusSource = Arc<dyn Fn() -> Arc<SummonStatus> + Send + Sync>;

impl Front {
    /// Starts a front and gives it its listening sockets.
    fn start(
        listening: &Listening,
        status: &StatusSource,
    ) -> Result<(Self, Sender<ToFront>), ChannelError> {
        let (ours, theirs) = channel::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg("front")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let mut to = Sender::new(ours.try_clone()?);
        let front = Self {
            child,
            from: ours,
            since: Instant::now(),
        };
        for socket in &listening.dns.udp {
            to.push(&ToFront::Udp, Some(clone(socket)?))?;
        }
        for listener in &listening.dns.listeners {
            to.push(&ToFront::Listener, Some(clone(listener)?))?;
        }
        if let Some(page) = &listening.page {
            to.push(&ToFront::Page, Some(clone(page)?))?;
            let (stream, theirs) = UnixStream::pair()?;
            to.push(&ToFront::Status, Some(theirs.into()))?;
            let status = Arc::clone(status);
            thread::Builder::new()
                .name("page".into())
                .spawn(move || tell_status(&stream, &status))?;
        }
        Ok((front, to))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl AsFd for Front {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}

impl Daemon {
    /// Starts a front, and sends it the table, the ports and the stances.
    pub(super) fn start_front(&mut self) -> Result<(), ChannelError> {
        // The old one goes first, because both would read the same sockets.
        self.fronts.current = None;
        let (front, mut to) = Front::start(&self.listening, &self.status)?;
        to.push(
            &ToFront::Table,
            Some(table(&self.config, &self.names, &self.ids)?),
        )?;
        for (bridge, port) in &self.ports {
            to.push(&ToFront::Port(bridge.clone()), Some(port.frames()?))?;
        }
        self.fronts.told.clear();
        for (id, _) in self.fleet.units() {
            let stance = self.fleet.stance(id);
            to.push(&ToFront::Is(id, stance), None)?;
            self.fronts.told.insert(id, stance);
        }
        to.flush()?;
        self.way.lead_to(to);
        self.fronts.current = Some(front);
        // Pending questions to guests get no answer any more.
        for entry in self.entries.values_mut() {
            if let Some(guest) = entry.guest.as_mut().filter(|guest| guest.is_asked) {
                guest.answered();
            }
        }
        Ok(())
    }

    /// Receives the front's messages. Starts another front if this one is gone.
    ///
    /// # Errors
    /// Too many fronts in a row have ended.
    pub(super) fn hear_front(&mut self) -> Result<(), ChannelError> {
        let Some(front) = &self.fronts.current else {
            return Ok(());
        };
        // Reads one packet; the next poll shows whether there is another one.
        let heard = channel::receive::<ToMaker>(front).and_then(|messages| {
            let mut messages = messages.into_iter().flatten();
            messages.try_for_each(|said| self.said(said))
        });
        match heard {
            Ok(()) => Ok(()),
            Err(error) => self.replace_front(&error),
        }
    }

    /// Sends the waiting messages. Starts another front if this one does not take them.
    ///
    /// # Errors
    /// Too many fronts in a row have ended.
    pub(super) fn mind_front(&mut self) -> Result<(), ChannelError> {
        self.way.flush();
        match self.way.trouble() {
            Some(error) => self.replace_front(&error),
            None => Ok(()),
        }
    }

    fn replace_front(&mut self, why: &ChannelError) -> Result<(), ChannelError> {
        let lived = self.fronts.current.take();
        let lived = lived.map_or(Duration::ZERO, |front| front.since.elapsed());
        self.fronts.failures = match lived >= PROVEN {
            true => 1,
            false => self.fronts.failures + 1,
        };
        line(Level::Error, "the front is started again")
            .with("why", why)
            .write();
        if self.fronts.failures > FAILURES {
            return Err(ChannelError::Ended);
        }
        self.start_front()
    }

    /// Sends the front the stances of services whose state has changed. [`Stance::Takes`] is not sent here, but when
    /// the bridge leads to the guest. All others are sent before their actions are carried out, so before a frame can
    /// come that the front would treat wrongly. Only the news that a sleeping service gets a guest waits for the next
    /// message: until then the front asks for each frame, and gets the same answer.
    pub(super) fn publish(&mut self) {
        let mut is_new = false;
        for (id, _) in self.fleet.units() {
            if self
                .entries
                .get(&id)
                .is_some_and(ServiceEntry::is_on_switch)
            {
                continue;
            }
            let stance = self.fleet.stance(id);
            let told = self.fronts.told.entry(id).or_default();
            if *told != stance && stance != Stance::Takes {
                let message = ToFront::Is(id, stance);
                match (*told, stance) {
                    (Stance::Sleeps, Stance::Holds) => self.way.put(&message),
                    _ => {
                        self.way.say(&message, None);
                        is_new = true;
                    }
                }
                *told = stance;
            }
        }
        if is_new {
            self.way.flush();
        }
    }

    /// Sends the front the stances of services on the switch. This may be late, because no frame for them comes to the
    /// front: until then, it asks for a wake at each query for their names.
    pub(super) fn publish_switched(&mut self) {
        for (id, _) in self.fleet.units() {
            let stance = self.fleet.stance(id);
            if self
                .entries
                .get(&id)
                .is_some_and(ServiceEntry::is_on_switch)
                && self.fronts.told.insert(id, stance) != Some(stance)
            {
                self.way.say(&ToFront::Is(id, stance), None);
            }
        }
    }

    /// Tells the front that the bridge leads to a service's guest.
    pub(super) fn takes(&mut self, id: ServiceId) {
        self.fronts.told.insert(id, Stance::Takes);
        self.way.say_now(&ToFront::Is(id, Stance::Takes));
    }

    /// Does the same if the thread that has made the guest has told only an earlier front.
    pub(super) fn takes_since(&mut self, id: ServiceId, front: u64) {
        if front == self.way.front() {
            self.fronts.told.insert(id, Stance::Takes);
        } else {
            self.takes(id);
        }
    }

    pub(super) fn forget_stance(&mut self, id: ServiceId) {
        self.fronts.told.remove(&id);
    }

    /// Sends the front the table of a new file.
    pub(super) fn tell_table(&self, config: &SummonConfig, names: &Names) -> io::Result<()> {
        let table = table(config, names, &self.ids)?;
        self.way.say(&ToFront::Table, Some(table));
        Ok(())
    }

    /// Handles one message of the front. An attacker may have taken over the front, so everything in it is checked.
    pub(super) fn said(&mut self, said: ToMaker) -> Result<(), ChannelError> {
        let now = Instant::now();
        self.is_news(now);
        match said {
            ToMaker::Wake(wake) => self.wanted(now, &wake)?,
            ToMaker::Heard(id) => {
                let state = self.fleet.unit(id).map(|unit| unit.state);
                if matches!(state, Some(ServiceState::Running(running)) if running.leaves()) {
                    self.step(now, FleetEvent::Heard(id));
                }
            }
            ToMaker::Replayed(id, from, to) => {
                let (from, to) = (self.clock.instant(from, now), self.clock.instant(to, now));
                if let Some(birth) = self.birth(id) {
                    birth.span_once("replay", from, to);
                }
            }
            ToMaker::Said(id, said) => {
                let guest = self.guest(id);
                if guest.is_some_and(|guest| guest.is_asked) {
                    self.asked(id, said);
                }
            }
            ToMaker::Queries(more) => self.queries = self.queries.and(&more),
            ToMaker::Counted(id, queries, frames) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.queries = super::super::status::sum(entry.queries, queries);
                    entry.frames = entry.frames.and(&frames);
                }
            }
            ToMaker::PortLost(bridge) => {
                let is_late = self.fronts.lost.is_none_or(|at| at + LOST <= now);
                if is_late && self.ports.contains_key(&bridge) {
                    self.fronts.lost = Some(now);
                    self.lose_port(&bridge);
                    self.mend_ports();
                }
            }
        }
        self.carry_out();
        Ok(())
    }

    fn wanted(&mut self, now: Instant, wake: &Wake) -> Result<(), ChannelError> {
        // Commands of the administrator do not come from the front.
        if wake.cause == WakeCause::Command {
            return Err(ChannelError::Malformed);
        }
        let at = self.clock.instant(wake.at, now);
        self.wake(wake, at);
        if let Some(answered) = wake.answered {
            let answered = self.clock.instant(answered, now);
            if let Some(birth) = self.birth(wake.service)
                && birth.woken() == at
            {
                birth.span_once("answer", at, answered);
            }
        }
        Ok(())
    }
}

/// Sends a front the status whenever it asks, until the front is gone.
fn tell_status(mut stream: &UnixStream, status: &StatusSource) {
    while stream.read_exact(&mut [0]).is_ok()
        && mayfly_toolstack::line::send(stream, &*status()).is_ok()
    {
        thread::sleep(PAUSE);
    }
    let _ = stream.flush();
}

fn clone(descriptor: &impl AsFd) -> io::Result<OwnedFd> {
    descriptor.as_fd().try_clone_to_owned()
}

/// The front's table, in a file without a name.
fn table(
    config: &SummonConfig,
    names: &Names,
    ids: &std::collections::BTreeMap<String, ServiceId>,
) -> io::Result<OwnedFd> {
    let (pack, hosts) = names.parts();
    let places = config.services.iter().filter_map(|service| {
        let ipv4 = service.ipv4.map(|cidr| cidr.address().into());
        let ipv6 = service.ipv6.map(|cidr| cidr.address().into());
        Some(ServiceAddresses {
            service: *ids.get(&service.name)?,
            bridge: service.bridge.clone(),
            is_held_here: service.network == Network::Netback,
            mac: service.mac,
            addresses: ipv4.into_iter().chain(ipv6).collect(),
        })
    });
    let table = FrontTable {
        services: places.collect(),
        held_frames: config.daemon.limits.held_frames,
        held_bytes: config.daemon.limits.held_bytes,
        nsid: config.daemon.nsid.clone(),
        forward: config.daemon.forward,
        forward_for: config.daemon.forward_for.clone(),
        pack,
        hosts,
    };
    let bytes = postcard::to_allocvec(&table).map_err(io::Error::other)?;
    let mut file = File::from(rustix::fs::memfd_create("table", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    file.rewind()?;
    Ok(file.into())
}
