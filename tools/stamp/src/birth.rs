//! One birth: a guest is made paused by `xl` or `hatch`, unpaused by the hypercall itself, watched, and destroyed by
//! its maker.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use mayfly_stamp::exits::{EVENTS, Trace};
use mayfly_stamp::{Birth, Guest, Job, Maker, Neighbour, Ready, TIMELINE, Traced, xenstored};
use mayfly_summon::wire::packet_socket;
use mayfly_toolstack::config::Overrides;
use mayfly_toolstack::paths::mac_text;
use mayfly_toolstack::pool::{PoolOrder, PoolReply, WantedGuest};
use mayfly_xen::Xen;
use mayfly_xenstore::{Client, Store as _};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde_json::Value;

use crate::look;
use crate::sys::ticks;
use crate::wait::{Bound, interrupt};

/// The path of `hatch` in dom0.
pub(crate) const HATCH: &str = "/bench/hatch";
const EXITS: &str = "/run/stamp-exits";
const REQUESTS: &str = "/run/stamp-requests";
/// Paths that do not exist: reading them leaves a mark in xenstored's trace.
const FIRST_FRAME: &str = "/stamp/first-frame";
const READY: &str = "/stamp/ready";
/// The time after which the kernel's workers have finished the work that a birth leaves to them.
const SETTLE: Duration = Duration::from_millis(100);
/// The interval at which a program is polled that does not notify.
const GLANCE: Duration = Duration::from_millis(10);
/// The system call poll, as `/proc/PID/syscall` names it.
const POLL: &str = "7 ";
/// The largest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;

pub(crate) struct Dom0 {
    xen: Xen,
    xenstore: Client,
    bound: Bound,
    neighbour: Neighbour,
    trace_pages: u32,
    /// The pool, which provides shells as long as it lives.
    _pool: Option<Pool>,
}

/// A running `hatch pool`.
struct Pool(Child);

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stamps {
    first_frame: Option<u64>,
    syn_ack: Option<u64>,
    ready: u64,
}

impl Dom0 {
    pub(crate) fn new(job: &Job) -> Result<Self> {
        let bound = Duration::from_secs(job.bound_s);
        let pooled = job.guests.iter().find(|guest| guest.maker == Maker::Pool);
        Ok(Self {
            _pool: pooled.map(pool).transpose()?,
            xen: Xen::open()?,
            xenstore: Client::connect(bound)?,
            bound: Bound(bound),
            neighbour: job.neighbour,
            trace_pages: job.trace_pages,
        })
    }

    /// Makes, stamps and destroys one guest.
    pub(crate) fn birth(&mut self, guest: &Guest, traced: bool) -> Result<Birth> {
        if guest.maker == Maker::Pool {
            self.filled()?;
        }
        sleep(SETTLE);
        if traced {
            fs::write(REQUESTS, "")?;
            self.xenstore.control(&["logfile", REQUESTS])?;
            self.xenstore.control(&["log", "on"])?;
        }
        // -e: no xl process stays behind to handle the guest's end, which would disturb the measurement.
        let xl = ["xl", "create", "-p", "-e", "-q", &guest.config];
        let mut hatch = vec![HATCH, "create", "-p", "--json", "--no-pool", &guest.config];
        hatch.extend(guest.console.then_some("--console"));
        let unmake = match guest.maker {
            Maker::Xl => ["xl", "destroy", &guest.name],
            Maker::Hatch | Maker::Pool | Maker::Switch => [HATCH, "destroy", &guest.name],
        };
        let order = match guest.maker {
            Maker::Pool => Some(wanted(guest)?),
            _ => None,
        };
        let create = ticks();
        let making = match (guest.maker, &order) {
            (Maker::Xl, _) => self.bound.run(&xl).map(|_| None)?,
            (_, None) => {
                let said = self.bound.run(&hatch)?;
                Some(serde_json::from_str(&said).context(said)?)
            }
            (_, Some(order)) => Some(self.taken(order)?),
        };
        let created = ticks();
        let is_connected = making.as_ref().is_some_and(|making: &Value| {
            guest.maker == Maker::Pool || making["preconnected"] == true
        });
        let result = self.life(guest, traced, is_connected, (create, created));
        let destroy = ticks();
        let destroyed = self.bound.run(&unmake);
        let end = ticks();
        let mut birth = result?;
        destroyed?;
        birth.gone = self.gone(birth.domid)?;
        birth.making = making;
        (birth.destroy, birth.destroyed) = (destroy, end);
        Ok(birth)
    }

    fn life(
        &mut self,
        guest: &Guest,
        traced: bool,
        is_connected: bool,
        (create, created): (u64, u64),
    ) -> Result<Birth> {
        let domid = self.domid(&guest.name)?;
        let vif = fs::read_to_string(format!("/sys/class/net/vif{domid}.0/ifindex"))
            .with_context(|| format!("{} has no vif", guest.name))?;
        let frames = packet_socket(vif.trim().parse()?).context("cannot watch the vif")?;
        // A separate connection, over which only the watch's events come.
        let mut releases = Client::connect(self.bound.0)?;
        if guest.ready == Ready::Shutdown {
            releases.watch("@releaseDomain", "stamp")?;
            // The first event of the watch, which comes at once.
            self.bound.event(&mut releases, "the watch")?;
        }
        let address = guest.address.to_string();
        match self.neighbour {
            Neighbour::Warm => {
                let mac = mac_text(&guest.mac);
                self.bound.run(&["arp", "-s", &address, &mac])?;
            }
            // This fails if the cache has no such entry, which is the wanted state.
            Neighbour::Cold => drop(self.bound.run(&["arp", "-d", &address])),
        }
        let tracer = if traced { Some(self.trace()?) } else { None };
        // If the guest's network is connected, the SYN waits in its ring.
        let early = match guest.ready {
            Ready::Http if is_connected => Some(dial(guest)?),
            _ => None,
        };
        let unpause = ticks();
        self.xen.unpause(domid)?;
        let stamps = match guest.ready {
            Ready::Http => self.answer(guest, &frames, early, traced),
            Ready::Shutdown => self.shutdown(domid, &mut releases),
        };
        if traced {
            let _ = self.xenstore.read(READY);
        }
        let exits = tracer.map(|tracer| self.end_trace(tracer)).transpose();
        let stamps = stamps.with_context(|| guest.name.clone())?;
        let cpu_ns = look(&mut self.xen, domid)?.cpu_ns;
        let timeline = guest.timeline.then(|| self.timeline(guest)).transpose()?;
        let counts =
            |exits: Vec<u8>| self.counts(guest, domid, &exits, unpause, &stamps, timeline.as_ref());
        let traced = exits?.map(counts).transpose()?;
        Ok(Birth {
            guest: guest.label.clone(),
            create,
            created,
            unpause,
            first_frame: stamps.first_frame,
            syn_ack: stamps.syn_ack,
            ready: stamps.ready,
            destroy: 0,
            destroyed: 0,
            gone: 0,
            domid,
            cpu_ns,
            traced,
            timeline,
            making: None,
        })
    }

    /// Takes a guest from the pool, as a long-running program would.
    fn taken(&self, order: &PoolOrder) -> Result<Value> {
        match mayfly_toolstack::pool::order(
            Path::new(mayfly_toolstack::pool::SOCKET),
            order,
            self.bound.0,
        )? {
            Some(PoolReply::Made(made)) => Ok(serde_json::to_value(made)?),
            other => bail!("the pool says {other:?}"),
        }
    }

    /// Waits until a guest is completely gone: otherwise the next one would wait for the kernel's remaining work.
    fn gone(&mut self, domid: u16) -> Result<u64> {
        let end = Instant::now() + self.bound.0;
        let vif = format!("/sys/class/net/vif{domid}.0");
        while Path::new(&vif).exists() || self.xen.info(domid)?.is_some() {
            ensure!(Instant::now() < end, "domain {domid} does not go");
            sleep(GLANCE / 10);
        }
        Ok(ticks())
    }

    /// Waits until the pool is full.
    fn filled(&self) -> Result<()> {
        let end = Instant::now() + self.bound.0;
        loop {
            // This fails until the pool listens.
            let status = self.bound.run(&[HATCH, "pool", "--status", "--json"]);
            let status = status.and_then(|text| Ok(serde_json::from_str::<Value>(&text)?));
            match &status {
                Ok(status) if status["ready"] == status["size"] => return Ok(()),
                _ => ensure!(Instant::now() < end, "the pool is not filled: {status:?}"),
            }
            sleep(SETTLE);
        }
    }

    fn domid(&mut self, name: &str) -> Result<u16> {
        for domid in self.xenstore.directory("/local/domain")? {
            if self
                .xenstore
                .read(&format!("/local/domain/{domid}/name"))
                .is_ok_and(|found| found == name)
            {
                return Ok(domid.parse()?);
            }
        }
        bail!("xl has made no domain named {name}")
    }

    /// Waits for the first frame, the connection (which is requested at that frame unless it was before), and the first
    /// byte of the answer.
    fn answer(
        &mut self,
        guest: &Guest,
        frames: &OwnedFd,
        early: Option<OwnedFd>,
        traced: bool,
    ) -> Result<Stamps> {
        let mut frame = [0; 64];
        loop {
            self.bound.readable(frames, "the first frame")?;
            let length = match rustix::io::read(frames, &mut frame) {
                Ok(length) => length,
                Err(rustix::io::Errno::AGAIN) => continue,
                Err(e) => return Err(e).context("the vif"),
            };
            // Frames from dom0 to the guest are seen here as well.
            if length >= 12 && frame.get(6..12) == Some(&guest.mac) {
                break;
            }
        }
        let first_frame = ticks();
        if traced {
            let _ = self.xenstore.read(FIRST_FRAME);
        }
        let mut stream = match early {
            Some(socket) => self.connected(socket)?,
            None => self.connect(guest)?,
        };
        let syn_ack = ticks();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: mayfly.test\r\nConnection: close\r\n\r\n")?;
        self.bound.readable(&stream, "the first byte")?;
        let got = stream.read(&mut frame)?;
        let ready = ticks();
        ensure!(got > 0, "the connection was closed without an answer");
        let line = frame.get(..got).unwrap_or_default();
        ensure!(
            line.starts_with(b"HTTP/1.1 200 ") || line.starts_with(b"HTTP/1.0 200 "),
            "the answer is {:?}",
            String::from_utf8_lossy(line)
        );
        // Closing with unread data would reset the connection.
        std::io::copy(&mut stream.take(ANSWER_MAX), &mut std::io::sink())
            .context("the rest of the answer")?;
        Ok(Stamps {
            first_frame: Some(first_frame),
            syn_ack: Some(syn_ack),
            ready,
        })
    }

    fn connect(&self, guest: &Guest) -> Result<TcpStream> {
        self.connected(dial(guest)?)
    }

    fn connected(&self, socket: OwnedFd) -> Result<TcpStream> {
        self.bound.writable(&socket, "the SYN-ACK")?;
        sockopt::socket_error(&socket)?.context("the SYN-ACK")?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(self.bound.0))?;
        Ok(stream)
    }

    fn shutdown(&mut self, domid: u16, releases: &mut Client) -> Result<Stamps> {
        loop {
            self.bound.event(releases, "the shutdown")?;
            let ready = ticks();
            if look(&mut self.xen, domid)?.shutdown().is_some() {
                return Ok(Stamps {
                    first_frame: None,
                    syn_ack: None,
                    ready,
                });
            }
        }
    }

    fn trace(&self) -> Result<Child> {
        let tracer = Command::new("xentrace")
            .args([
                "-D",
                "-e",
                EVENTS,
                "-S",
                &self.trace_pages.to_string(),
                EXITS,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run xentrace")?;
        // xentrace does not report when tracing has started. Once it has, it waits for records in poll.
        let syscall = format!("/proc/{}/syscall", tracer.id());
        let end = Instant::now() + self.bound.0;
        while !fs::read_to_string(&syscall)?.starts_with(POLL) {
            ensure!(Instant::now() < end, "xentrace does not start to trace");
            sleep(GLANCE);
        }
        Ok(tracer)
    }

    fn end_trace(&self, mut tracer: Child) -> Result<Vec<u8>> {
        interrupt(&tracer)?;
        self.bound.exit(&mut tracer, "xentrace")?;
        Ok(fs::read(EXITS)?)
    }

    fn counts(
        &mut self,
        guest: &Guest,
        domid: u16,
        exits: &[u8],
        unpause: u64,
        stamps: &Stamps,
        timeline: Option<&Value>,
    ) -> Result<Traced> {
        self.xenstore.control(&["log", "off"])?;
        let trace = Trace::parse(exits).map_err(|e| anyhow!(e))?;
        let entry = trace
            .entry()
            .filter(|entry| *entry >= unpause)
            .context("Xen's trace lacks the first entry")?;
        let requests = fs::read(REQUESTS)?;
        let requests = String::from_utf8_lossy(&requests);
        let count = |marker| match guest.maker {
            // The guest was introduced as a shell, under whose name xenstored's trace has it.
            Maker::Pool => Ok(None),
            _ => xenstored::requests(&requests, domid, Some(marker))
                .map(Some)
                .map_err(|e| anyhow!(e)),
        };
        Ok(Traced {
            entry,
            to_first_frame: stamps.first_frame.map(|tick| trace.until(tick)),
            to_transmit: timeline
                .map(to_transmit)
                .transpose()?
                .map(|ticks| trace.until(entry + ticks)),
            to_ready: trace.until(stamps.ready),
            xenstore_to_first_frame: match stamps.first_frame {
                Some(_) => count(FIRST_FRAME)?,
                None => None,
            },
            xenstore_to_ready: count(READY)?,
        })
    }

    fn timeline(&self, guest: &Guest) -> Result<Value> {
        let mut stream = self.connect(guest)?;
        write!(
            stream,
            "GET {TIMELINE} HTTP/1.1\r\nHost: mayfly.test\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream
            .take(ANSWER_MAX)
            .read_to_string(&mut answer)
            .context(TIMELINE)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("the timeline's answer is cut")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{TIMELINE}: {head}");
        serde_json::from_str(body).with_context(|| format!("{TIMELINE}: {body}"))
    }
}

fn wanted(guest: &Guest) -> Result<PoolOrder> {
    let loaded = mayfly_toolstack::config::load(Path::new(&guest.config), &Overrides::default());
    let loaded = loaded.map_err(|problems| anyhow!("{problems}"))?;
    Ok(PoolOrder::Create(Box::new(WantedGuest {
        // A shell has its own UUID.
        config: loaded.config([0; 16]),
        kernel: loaded.kernel.clone(),
        ramdisk: loaded.ramdisk.clone(),
        has_uuid: false,
        unpause: false,
    })))
}

fn pool(guest: &Guest) -> Result<Pool> {
    let child = Command::new(HATCH)
        .args(["pool", "--size", "2", &guest.config])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run hatch pool")?;
    Ok(Pool(child))
}

/// Begins a connection to the guest's port 80, without waiting for it.
fn dial(guest: &Guest) -> Result<OwnedFd> {
    let address = SocketAddr::from((guest.address, 80));
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e).context("connect"),
    }
}

/// Ticks from the guest's entry to its first transmit request. The guest's counter runs as fast as dom0's, but started
/// at another time.
fn to_transmit(timeline: &Value) -> Result<u64> {
    let events = timeline["events"]
        .as_array()
        .context("the timeline has no events")?;
    let tsc = |phase: &str| {
        let event = events.iter().find(|event| event["phase"] == phase);
        event
            .and_then(|event| event["tsc"].as_u64())
            .with_context(|| format!("the timeline has no {phase}"))
    };
    tsc("first_tx_queued")?
        .checked_sub(tsc("entry")?)
        .context("the timeline runs backwards")
}
