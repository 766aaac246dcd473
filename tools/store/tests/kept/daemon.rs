//! A kept daemon in processes of its own, with its clients and domains.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mayfly_store::core::Quota;
use mayfly_store::daemon::Daemon;
use mayfly_store::keep::{Side, keep};
use mayfly_xenstore::wire;
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{EXCEPTION, Files, REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD};

/// The environment variable with the folder of a daemon.
const FOLDER: &str = "KEPT_DAEMON";
/// The environment variable for a daemon that nobody keeps.
const ALONE: &str = "KEPT_ALONE";
/// The longest time for an answer.
const BOUND: Duration = Duration::from_secs(10);

/// Is the daemon's process, when the test program is started as that.
pub(crate) fn be_daemon() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let listener = UnixListener::bind(folder.join("socket")).unwrap();
    if std::env::var_os(ALONE).is_some() {
        let machine = Files::open(&folder);
        let mut daemon = Daemon::new(Quota::default(), false, machine, listener).unwrap();
        let (stop, _stopped) = UnixStream::pair().unwrap();
        fs::write(folder.join("ready"), "").unwrap();
        return daemon.run(stop.as_fd()).unwrap();
    }
    match keep().unwrap() {
        Side::Worker(kept) => {
            let machine = Files::open(&folder);
            let mut daemon = Daemon::new(Quota::default(), false, machine, listener).unwrap();
            daemon.run_kept(kept);
        }
        Side::Keeper(keeper) => {
            drop(listener);
            let (stop, _stopped) = UnixStream::pair().unwrap();
            let ready = || fs::write(folder.join("ready"), "").unwrap();
            let result = keeper.run(stop.as_fd(), ready);
            eprintln!("the keeper: {result:?}");
            std::process::exit(1);
        }
    }
}

/// Where a message goes to or comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A client over the socket.
    Client(usize),
    /// A domain's ring.
    Ring(u16),
}

/// The kind and payload of a message.
pub(crate) type Message = (u32, Vec<u8>);

pub(crate) struct Kept {
    pub(crate) keeper: Child,
    pub(crate) folder: tempfile::TempDir,
    events: File,
    clients: Vec<UnixStream>,
    number: u32,
    /// The longest time that an answer has taken.
    pub(crate) longest: Duration,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let ended = self.keeper.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            eprintln!("{ended:?}, it says: {}", log.unwrap_or_default());
        }
    }
}

impl Kept {
    pub(crate) fn start() -> Self {
        Self::start_as(true)
    }

    /// Starts a daemon that is kept, or one that is not.
    pub(crate) fn start_as(is_kept: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("domains"), vec![1; 1 << 16]).unwrap();
        let made = Command::new("mkfifo").arg(at("events")).status();
        assert!(made.unwrap().success());
        let keeper = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_daemon", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .envs((!is_kept).then_some((ALONE, "1")))
            .stdout(Stdio::null())
            .stderr(File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !at("ready").exists() {
            let log = fs::read_to_string(at("log")).unwrap();
            assert!(start.elapsed() < BOUND, "no daemon: {log}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let events = File::options().read(true).write(true).open(at("events"));
        Self {
            events: events.unwrap(),
            clients: Vec::new(),
            number: 0,
            longest: Duration::ZERO,
            keeper,
            folder,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap()
    }

    /// Returns the processes that the keeper has started and that live.
    pub(crate) fn children(&self) -> Vec<i32> {
        let keeper = self.keeper.id();
        let threads = fs::read_dir(format!("/proc/{keeper}/task")).unwrap();
        let children = threads.map(|thread| {
            let path = thread.unwrap().path().join("children");
            fs::read_to_string(path).unwrap()
        });
        let children: String = children.collect();
        children
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect()
    }

    /// Returns the worker.
    pub(crate) fn worker(&self) -> Option<i32> {
        let is_worker = |process: &i32| {
            let name = fs::read_to_string(format!("/proc/{process}/comm"));
            name.is_ok_and(|name| name == "store-worker\n")
        };
        self.children().into_iter().find(is_worker)
    }

    pub(crate) fn kill_worker(&self) {
        let start = Instant::now();
        loop {
            if let Some(worker) = self.worker().and_then(Pid::from_raw) {
                let _ = kill_process(worker, Signal::KILL);
                return;
            }
            assert!(start.elapsed() < BOUND, "no worker: {}", self.log());
        }
    }

    /// Has the process end that comes to a place next.
    pub(crate) fn end_at(&self, place: &str) {
        fs::write(self.at(&format!("end-{place}")), "").unwrap();
    }

    pub(crate) fn is_to_end_at(&self, place: &str) -> bool {
        self.at(&format!("end-{place}")).exists()
    }

    pub(crate) fn connect(&mut self) -> Peer {
        let stream = UnixStream::connect(self.at("socket")).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        self.clients.push(stream);
        Peer::Client(self.clients.len() - 1)
    }

    pub(crate) fn disconnect(&mut self, client: Peer) {
        if let Peer::Client(client) = client {
            let stream = &self.clients[client];
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    /// Makes the ring of a domain that will be introduced.
    pub(crate) fn make_ring(&self, domid: u16) {
        fs::write(self.at(&format!("ring-{domid}")), [0; 4096]).unwrap();
    }

    pub(crate) fn set_state(&mut self, domid: u16, state: u8) {
        let file = File::options().write(true).open(self.at("domains"));
        file.unwrap()
            .write_all_at(&[state], u64::from(domid))
            .unwrap();
        self.event(EXCEPTION);
    }

    pub(crate) fn event(&mut self, number: u16) {
        self.events.write_all(&number.to_ne_bytes()).unwrap();
    }

    fn ring(&self, domid: u16) -> File {
        let path = self.at(&format!("ring-{domid}"));
        File::options().read(true).write(true).open(path).unwrap()
    }

    pub(crate) fn word(&self, domid: u16, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.ring(domid).read_exact_at(&mut bytes, offset).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// Sends a request. Returns its number.
    pub(crate) fn send(&mut self, peer: Peer, kind: u32, transaction: u32, payload: &[u8]) -> u32 {
        self.number += 1;
        let mut message = Vec::new();
        wire::put_message(&mut message, [kind, self.number, transaction], payload);
        match peer {
            // A connection that the daemon has ended is seen when its answer is read.
            Peer::Client(client) => drop(self.clients[client].write_all(&message)),
            Peer::Ring(domid) => {
                let ring = self.ring(domid);
                let produced = self.word(domid, REQ_PROD);
                let room = 1024 - produced.wrapping_sub(self.word(domid, REQ_CONS));
                assert!(message.len() <= room as usize, "the ring is full");
                for (byte, at) in message.iter().zip(produced..) {
                    ring.write_all_at(&[*byte], u64::from(at % 1024)).unwrap();
                }
                let produced = produced.wrapping_add(message.len() as u32);
                ring.write_all_at(&produced.to_ne_bytes(), REQ_PROD)
                    .unwrap();
                self.event(domid);
            }
        }
        self.number
    }

    /// Reads bytes; `None` if the connection has ended.
    fn read(&mut self, peer: Peer, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        match peer {
            Peer::Client(client) => match self.clients[client].read_exact(&mut bytes) {
                Ok(()) => Some(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("no answer: {}", self.log())
                }
                Err(_) => None,
            },
            Peer::Ring(domid) => {
                let ring = self.ring(domid);
                let start = Instant::now();
                for byte in &mut bytes {
                    let consumed = self.word(domid, RSP_CONS);
                    while self.word(domid, RSP_PROD) == consumed {
                        if self.word(domid, crate::machine::ERROR) != 0 {
                            return None;
                        }
                        assert!(start.elapsed() < BOUND, "no answer: {}", self.log());
                        std::thread::yield_now();
                    }
                    let at = 1024 + u64::from(consumed % 1024);
                    ring.read_exact_at(std::slice::from_mut(byte), at).unwrap();
                    let consumed = consumed.wrapping_add(1);
                    ring.write_all_at(&consumed.to_ne_bytes(), RSP_CONS)
                        .unwrap();
                }
                self.event(domid);
                Some(bytes)
            }
        }
    }

    /// Reads up to the answer to a request. Returns the events before it, and it. `None` if the connection has ended.
    pub(crate) fn answer(&mut self, peer: Peer, number: u32) -> Option<Vec<Message>> {
        let start = Instant::now();
        let mut seen = Vec::new();
        loop {
            let header = self.read(peer, wire::HEADER)?;
            let length = wire::length(&header).unwrap() - wire::HEADER;
            let kind = u32::from_ne_bytes(header[..4].try_into().unwrap());
            let payload = self.read(peer, length)?;
            seen.push((kind, payload));
            if wire::request(&header) == Some(number) && kind != 15 {
                self.longest = self.longest.max(start.elapsed());
                return Some(seen);
            }
        }
    }

    pub(crate) fn ask(&mut self, peer: Peer, kind: u32, payload: &[u8]) -> Vec<Message> {
        let number = self.send(peer, kind, 0, payload);
        self.answer(peer, number).unwrap()
    }
}

/// Returns the number of open file descriptors of a process.
pub(crate) fn descriptors(process: i32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Returns the KiB of memory that a process has for itself.
pub(crate) fn memory(process: i32) -> usize {
    let text = fs::read_to_string(Path::new(&format!("/proc/{process}/status"))).unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}
