//! One thread that moves frames: its guests, and the devices and ports by which it serves them. The first thread is also
//! the one that answers clients; the others carry out what it passes on to them.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use mayfly_links::Tap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::dom0::{BridgePort, Devices};
use crate::switch::{Bell, FEW, Mac, Notice, Peers, Rest, Switch};

/// A switch over dom0's devices.
pub(super) type Dom0Switch = Switch<Devices, BridgePort>;

/// The number of turns in a row with work, after which the descriptors are polled. Before, only the bridges' ports are
/// read: to poll all costs more than to read one that has nothing.
const TURNS: u32 = 8;

/// A bridge's port, by which one thread gets frames.
pub(super) struct Queue {
    pub(super) bridge: String,
    /// dom0's own MAC address on the bridge.
    pub(super) host: Mac,
    pub(super) mtu: usize,
    pub(super) tap: Tap,
}

/// What a thread needs.
pub(super) struct Equipment {
    pub(super) devices: Devices,
    pub(super) queues: Vec<Queue>,
    /// The other threads, if there are any.
    pub(super) peers: Option<Peers>,
    pub(super) start: Instant,
}

/// One thread's part.
pub(super) struct Lane {
    pub(super) switch: Dom0Switch,
    bell: Option<Bell>,
    start: Instant,
    rest: Rest,
    turns: u32,
}

/// A turn that was taken.
pub(super) struct Turn {
    /// Whether there is probably more to do.
    is_busy: bool,
    /// When it began, in ns.
    pub(super) now: u64,
    /// Which of the caller's descriptors are ready; none if they were not looked at.
    pub(super) others: Vec<bool>,
}

/// What there is to do.
struct Ready {
    events: bool,
    wires: Vec<bool>,
    others: Vec<bool>,
}

impl Lane {
    /// The thread's part, in this thread. Returns also why frames are written one by one, if they are.
    pub(super) fn of(equipment: Equipment) -> (Self, Option<String>) {
        let mut switch = Switch::new(equipment.devices);
        let mut trouble = None;
        for queue in equipment.queues {
            let (wire, error) = BridgePort::of(queue.tap);
            if let Some(error) = error {
                trouble = Some(format!(
                    "frames to {} are written one by one: no io_uring: {error}",
                    queue.bridge
                ));
            }
            switch.add_bridge(&queue.bridge, queue.host, queue.mtu, wire);
        }
        let bell = equipment.peers.as_ref().map(|peers| peers.bell().clone());
        if let Some(peers) = equipment.peers {
            switch.join(peers);
        }
        let lane = Self {
            switch,
            bell,
            start: equipment.start,
            rest: Rest::Busy,
            turns: TURNS,
        };
        (lane, trouble)
    }

    /// By this the thread is woken, if there are others.
    pub(super) fn bell(&self) -> Option<Bell> {
        self.bell.clone()
    }

    /// The time since this process began, in ns.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Waits for something to do, if there is nothing, and takes a turn: all but [`Lane::settle`]. `others` are further
    /// descriptors to wait for, and `until` is the latest time, in ns, to return.
    ///
    /// # Errors
    /// The kernel has no memory for the poll.
    pub(super) fn next<'fd>(
        &mut self,
        others: impl Iterator<Item = PollFd<'fd>>,
        until: Option<u64>,
        report: &mut dyn FnMut(&str),
    ) -> io::Result<Turn> {
        let ready = if self.rest == Rest::Busy && self.turns < TURNS {
            self.turns += 1;
            Ready {
                events: false,
                wires: vec![true; self.switch.wires().count()],
                others: Vec::new(),
            }
        } else {
            self.turns = 0;
            self.wait(others, until)?
        };
        if ready.events {
            self.events(report);
        }
        for (net, _) in ready.wires.iter().enumerate().filter(|(_, ready)| **ready) {
            self.switch.readable(net);
        }
        let now = self.now();
        let is_busy = self.switch.turn(now);
        // With more of them there is enough to do without the receivers, and the next turn is not delayed.
        if (1..=FEW).contains(&self.switch.sent()) {
            // The next frame is often an answer to what the receiver of these has to say first.
            std::thread::yield_now();
        }
        self.switch.bind(now, is_busy);
        Ok(Turn {
            is_busy: is_busy && !self.switch.is_calm(),
            now,
            others: ready.others,
        })
    }

    /// Ends a turn, after all else has been done: decides how long the thread may sleep.
    pub(super) fn settle(&mut self, turn: &Turn) {
        // While a guest sends, its ring is checked in each turn.
        self.rest = if turn.is_busy {
            Rest::Busy
        } else {
            self.switch.rest(turn.now)
        };
    }

    fn wait<'fd>(
        &self,
        others: impl Iterator<Item = PollFd<'fd>>,
        until: Option<u64>,
    ) -> io::Result<Ready> {
        let timeout = match self.rest {
            Rest::Busy => Some(0),
            Rest::Until(rest) => {
                let until = [rest, until].into_iter().flatten().min();
                until.map(|until| until.saturating_sub(self.now()))
            }
        };
        let timeout = timeout
            .map(|ns| Timespec::try_from(Duration::from_nanos(ns)))
            .transpose()
            .map_err(io::Error::other)?;
        let mut fds = vec![watched(self.switch.xen().as_fd())];
        fds.extend(self.switch.wires().map(|wire| watched(wire.as_fd())));
        let wires = 1..fds.len();
        let bell = fds.len();
        fds.extend(self.bell.iter().map(|bell| watched(bell.as_fd())));
        let first = fds.len();
        for other in others {
            fds.push(other);
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if let Some(own) = &self.bell
            && fds.get(bell).is_some_and(is_ready)
        {
            own.hear();
        }
        Ok(Ready {
            events: fds.first().is_some_and(is_ready),
            wires: fds
                .get(wires)
                .unwrap_or_default()
                .iter()
                .map(is_ready)
                .collect(),
            others: fds.iter().skip(first).map(is_ready).collect(),
        })
    }

    fn events(&mut self, report: &mut dyn FnMut(&str)) {
        let mut ports = Vec::new();
        if let Err(error) = self.switch.xen().events(|port| ports.push(port)) {
            report(&format!(
                "events were lost, all guests are looked at: {error}"
            ));
            self.switch.look_at_all();
        }
        for port in ports {
            self.switch.event(port);
        }
    }
}

fn watched(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

/// Something that another thread is to do with its switch, at this time in ns.
type Job = Box<dyn FnOnce(&mut Dom0Switch, u64) + Send>;

/// A thread beside the first one, as the first one sees it.
pub(super) struct Worker {
    jobs: Sender<Job>,
    bell: Bell,
}

impl Worker {
    /// Starts a thread. It restricts itself by `enter` first. Its notices go to `notices`, for each of which `first` is
    /// rung.
    ///
    /// # Errors
    /// The kernel has no room for a thread.
    pub(super) fn spawn(
        equipment: Equipment,
        (notices, first): (Sender<Notice>, Bell),
        enter: fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        let peers = equipment
            .peers
            .as_ref()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let bell = peers.bell().clone();
        let (jobs, waiting) = channel();
        let thread = std::thread::Builder::new().name("frames".to_owned());
        thread.spawn(move || {
            let (lane, _) = Lane::of(equipment);
            let ended = enter().and_then(|()| serve(lane, &waiting, &notices, &first));
            if let Err(error) = ended {
                eprintln!("hatch switch: a thread: {error}");
            }
            // Its guests are served by the next switch.
            std::process::exit(1);
        })?;
        Ok(Self { jobs, bell })
    }

    /// Has the thread do this, and returns the result. It takes no longer than a turn of the thread.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Dom0Switch, u64) -> T + Send + 'static,
    ) -> T {
        let (reply, result): (SyncSender<T>, Receiver<T>) = sync_channel(1);
        let job: Job = Box::new(move |switch, now| {
            // The other end waits for it.
            let _ = reply.send(work(switch, now));
        });
        let is_sent = self.jobs.send(job).is_ok();
        self.bell.ring();
        match result.recv() {
            Ok(result) if is_sent => result,
            // The thread has ended, and so will the process.
            _ => std::process::abort(),
        }
    }
}

/// The loop of a thread that is not the first.
fn serve(
    mut lane: Lane,
    jobs: &Receiver<Job>,
    notices: &Sender<Notice>,
    first: &Bell,
) -> io::Result<()> {
    let mut report = |text: &str| eprintln!("hatch switch: {text}");
    loop {
        let turn = lane.next(std::iter::empty(), None, &mut report)?;
        while let Ok(job) = jobs.try_recv() {
            let now = lane.now();
            job(&mut lane.switch, now);
        }
        while let Some(notice) = lane.switch.notice() {
            // The first thread ends only with the process.
            let _ = notices.send(notice);
            first.ring();
        }
        lane.settle(&turn);
    }
}
