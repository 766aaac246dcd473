//! Debian's daemons, run as processes of this machine.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mayfly_lab::{Set, unpacked};
use mayfly_xenstore::wire;

use crate::script::{Ask, RINGS, SOCKETS};
use crate::{Message, Peer, handover};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    C,
    Ocaml,
}

pub(crate) const FOLDER: &str = "usr/lib/xen-4.17/bin";
pub(crate) const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const BOUND: Duration = Duration::from_secs(10);

/// A daemon with its socket and rings.
pub(crate) struct Debian {
    child: Child,
    folder: tempfile::TempDir,
    events: File,
    sockets: Vec<UnixStream>,
    rings: Vec<File>,
    number: u32,
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let ended = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            eprintln!("{ended:?}, it says: {}", log.unwrap_or_default());
        }
    }
}

impl Debian {
    pub(crate) fn start(kind: Kind) -> Self {
        let root = unpacked(Set::Dom0, &|step| eprintln!("{step}")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/standin.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-w", "-o"])
            .args([at("standin.so"), source])
            .status();
        assert!(compiled.unwrap().success());
        fs::create_dir_all(at("run/xenstored")).unwrap();
        let mut states = vec![0; 32768];
        states[0] = 1;
        fs::write(at("domains"), states).unwrap();
        fs::write(at("xsd_port"), "1").unwrap();
        fs::write(at("ring-0"), [0; 4096]).unwrap();
        let made = Command::new("mkfifo").arg(at("events")).status();
        assert!(made.unwrap().success());
        let configuration = include_str!("../oracle/oxenstored.conf");
        let folder_text = folder.path().to_str().unwrap();
        fs::write(at("conf"), configuration.replace("@D@", folder_text)).unwrap();
        let mut command = match kind {
            Kind::C => {
                let mut command = Command::new(root.join(FOLDER).join("xenstored"));
                // The test reads the rings one after another. A small quota could stop the ring that it reads last.
                command.args(["-N", "-Q", "outstanding=100000", "--pid-file"]);
                command.arg(at("pid"));
                command
            }
            Kind::Ocaml => {
                let mut command = Command::new(root.join(FOLDER).join("oxenstored"));
                command.args(["--no-fork", "--config-file"]).arg(at("conf"));
                command
            }
        };
        let child = command
            .env("LD_PRELOAD", at("standin.so"))
            .env("LD_LIBRARY_PATH", root.join(LIBRARIES))
            .env("STANDIN", folder.path())
            .env("XENSTORED_RUNDIR", at("run/xenstored"))
            .env("XENSTORED_ROOTDIR", at("run/xenstored"))
            .stdout(Stdio::null())
            .stderr(File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while UnixStream::connect(at("run/xenstored/socket")).is_err() {
            let log = fs::read_to_string(at("log")).unwrap();
            assert!(start.elapsed() < BOUND, "no xenstored: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let connect = |_| UnixStream::connect(at("run/xenstored/socket")).unwrap();
        let mut events = File::options();
        events.read(true).write(true).custom_flags(0o4000);
        let mut this = Self {
            events: events.open(at("events")).unwrap(),
            sockets: (0..SOCKETS).map(connect).collect(),
            rings: Vec::new(),
            number: 0,
            child,
            folder,
        };
        for domid in 1..=RINGS {
            this.make_ring(domid as u16);
        }
        this
    }

    fn make_ring(&mut self, domid: u16) {
        let path = self.folder.path().join(format!("ring-{domid}"));
        fs::write(&path, [0; 4096]).unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        self.rings.push(file);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/xenstored/socket")
    }

    /// Sets a watch from the ring of an introduced domain. Its events stay in the ring.
    pub(crate) fn watches(&mut self, domid: u16, path: &str) {
        let ring = usize::from(domid) - 1;
        while self.rings.len() <= ring {
            let folder = self.folder.path();
            let path = folder.join(format!("ring-{}", self.rings.len() + 1));
            self.rings
                .push(File::options().read(true).write(true).open(path).unwrap());
        }
        let kind = wire::MessageKind::Watch as u32;
        let number = self.asked(ring + SOCKETS, kind, 0, format!("{path}\0t\0").as_bytes());
        self.until(ring + SOCKETS, number, &mut Vec::new());
        // The event that every new watch gets.
        while self.word(ring, 2056) == self.word(ring, 2060) {
            std::thread::yield_now();
        }
        let produced = self.word(ring, 2060);
        self.set_word(ring, 2056, produced);
        self.notify(ring);
    }

    pub(crate) fn set_state(&self, domid: u16, state: u8) {
        let domains = self.folder.path().join("domains");
        let domains = File::options().write(true).open(domains).unwrap();
        domains.write_all_at(&[state], u64::from(domid)).unwrap();
    }

    fn word(&self, ring: usize, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.rings[ring].read_exact_at(&mut bytes, offset).unwrap();
        u32::from_ne_bytes(bytes)
    }

    fn set_word(&self, ring: usize, offset: u64, value: u32) {
        self.rings[ring]
            .write_all_at(&value.to_ne_bytes(), offset)
            .unwrap();
    }

    fn send(&mut self, connection: usize, message: &[u8]) {
        if connection < SOCKETS {
            self.sockets[connection].write_all(message).unwrap();
            return;
        }
        let ring = connection - SOCKETS;
        let mut sent = 0;
        let start = Instant::now();
        while sent < message.len() {
            let (consumed, produced) = (self.word(ring, 2048), self.word(ring, 2052));
            if produced.wrapping_sub(consumed) < 1024 {
                let at = u64::from(produced % 1024);
                self.rings[ring]
                    .write_all_at(&message[sent..=sent], at)
                    .unwrap();
                self.set_word(ring, 2052, produced.wrapping_add(1));
                sent += 1;
                if sent < message.len() && produced.wrapping_add(1).wrapping_sub(consumed) < 1024 {
                    continue;
                }
            }
            self.notify(ring);
            assert!(start.elapsed() < BOUND, "the ring stays full");
        }
    }

    fn notify(&mut self, ring: usize) {
        let port = 1001 + ring as u32;
        self.events.write_all(&port.to_ne_bytes()).unwrap();
    }

    fn receive(&mut self, connection: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        if connection < SOCKETS {
            let socket = &mut self.sockets[connection];
            socket.set_read_timeout(Some(BOUND)).unwrap();
            socket.read_exact(&mut bytes).unwrap();
            return bytes;
        }
        let ring = connection - SOCKETS;
        let start = Instant::now();
        let mut got = 0;
        while got < length {
            let (consumed, produced) = (self.word(ring, 2056), self.word(ring, 2060));
            if consumed == produced {
                assert!(
                    start.elapsed() < BOUND,
                    "no answer on the ring of {}",
                    ring + 1
                );
                std::thread::yield_now();
                continue;
            }
            let at = consumed % 1024;
            let there = produced.wrapping_sub(consumed).min(1024 - at) as usize;
            let some = there.min(length - got);
            let place = &mut bytes[got..got + some];
            self.rings[ring]
                .read_exact_at(place, 1024 + u64::from(at))
                .unwrap();
            got += some;
            self.set_word(ring, 2056, consumed.wrapping_add(some as u32));
            self.notify(ring);
        }
        bytes
    }

    /// Reads up to the answer to a request.
    fn until(&mut self, connection: usize, request: u32, seen: &mut Vec<Message>) -> Message {
        loop {
            let header = self.receive(connection, wire::HEADER);
            let payload = wire::length(&header).unwrap() - wire::HEADER;
            let number = wire::request(&header).unwrap();
            let kind = u32::from_ne_bytes(header[..4].try_into().unwrap());
            let message = (kind, self.receive(connection, payload));
            if number == request && kind != 15 {
                return message;
            }
            seen.push(message);
        }
    }

    fn asked(&mut self, connection: usize, kind: u32, transaction: u32, payload: &[u8]) -> u32 {
        self.number += 1;
        let mut message = Vec::new();
        wire::put_message(&mut message, [kind, self.number, transaction], payload);
        self.send(connection, &message);
        self.number
    }

    /// Takes the messages of all connections.
    fn settle(&mut self, seen: &mut [Vec<Message>]) {
        for (connection, seen) in seen.iter_mut().enumerate() {
            if connection >= SOCKETS && !self.is_introduced(connection - SOCKETS) {
                continue;
            }
            let number = self.asked(
                connection,
                wire::MessageKind::GetDomainPath as u32,
                0,
                b"0\0",
            );
            self.until(connection, number, seen);
        }
    }

    fn is_introduced(&mut self, ring: usize) -> bool {
        let domid = format!("{}\0", ring + 1);
        let kind = wire::MessageKind::IsDomainIntroduced as u32;
        let number = self.asked(0, kind, 0, domid.as_bytes());
        let mut events = Vec::new();
        let (_, payload) = self.until(0, number, &mut events);
        // They belong to the first connection, which has been settled before.
        assert!(events.is_empty(), "{events:?}");
        payload == b"T\0"
    }
}

impl Peer for Debian {
    fn ask(&mut self, ask: &Ask, transaction: u32) -> Vec<Vec<Message>> {
        let mut seen = vec![Vec::new(); SOCKETS + RINGS];
        let number = self.asked(ask.connection, ask.kind, transaction, &ask.payload);
        let mut before = Vec::new();
        let answer = self.until(ask.connection, number, &mut before);
        seen[ask.connection] = before;
        seen[ask.connection].push(answer);
        self.settle(&mut seen);
        seen
    }

    fn succeed(&mut self) -> Vec<Vec<Message>> {
        let program = handover::translator(self.folder.path());
        let program = program.to_str().unwrap();
        for words in [&["-f", program][..], &["-s", "-t", "10"]] {
            let payload = ["live-update"].iter().chain(words);
            let payload: String = payload.map(|word| format!("{word}\0")).collect();
            let number = self.asked(0, wire::MessageKind::Control as u32, 0, payload.as_bytes());
            let (_, answer) = self.until(0, number, &mut Vec::new());
            assert_eq!(answer, b"OK\0", "{words:?}");
        }
        let mut seen = vec![Vec::new(); SOCKETS + RINGS];
        self.settle(&mut seen);
        seen
    }

    fn domain(&mut self, domid: u16, state: u8) -> Vec<Vec<Message>> {
        self.set_state(domid, state);
        self.events.write_all(&3_u32.to_ne_bytes()).unwrap();
        let mut seen = vec![Vec::new(); SOCKETS + RINGS];
        // The daemon takes the event before or after the first request.
        std::thread::sleep(Duration::from_millis(3));
        self.settle(&mut seen);
        seen
    }
}
