//! The fake xenstored: a tree, watches, and a ring with the faults that a test asks for.

mod fault;
mod renewal;

use core::mem::size_of;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;
use zerocopy::{FromBytes, IntoBytes};

pub use fault::Fault;

use super::machine::{Machine, Remote};
use crate::abi::xenstore_domain_interface as ring;
use crate::abi::{
    XENSTORE_CONNECTED, XENSTORE_PAYLOAD_MAX, XENSTORE_RECONNECT,
    XENSTORE_SERVER_FEATURE_RECONNECTION, xs, xsd_sockmsg,
};
use crate::{EventPort, SharedPage};

/// The guest's directory in xenstore.
pub const HOME: &[u8] = b"/local/domain/1/";
const HEADER: usize = size_of::<xsd_sockmsg>();

/// A received request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `XS_*`
    pub kind: u32,
    /// The path as the guest wrote it.
    pub path: Vec<u8>,
}

/// xenstored.
#[derive(Debug)]
pub struct FakeStore {
    page: SharedPage,
    port: EventPort,
    given: bool,
    kicked: bool,
    /// The ring was full: sleeps until the guest notifies that it has read.
    blocked: bool,
    tree: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Absolute path, path as the guest gave it, token.
    watches: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>,
    input: Vec<u8>,
    output: VecDeque<u8>,
    late: Vec<(u64, Vec<u8>)>,
    faults: VecDeque<Option<Fault>>,
    /// The greatest number of output bytes for each look at the ring; `None` is no limit.
    pub piece: Option<usize>,
    /// A path that the guest may not write.
    pub refuse: Option<Vec<u8>>,
    /// Whether the server ignores the ring.
    pub dead: bool,
    /// The number of times that it emptied the ring at the guest's request.
    pub reconnections: u64,
    /// The requests received so far.
    pub requests: Vec<Request>,
    /// The number of notifications sent.
    pub notifications: u64,
}

impl FakeStore {
    pub(super) fn new(machine: &mut Machine) -> Self {
        let page = machine.own_page();
        let port = machine.open_port(Remote::Store).expect("a free port");
        Self {
            page,
            port,
            given: false,
            kicked: false,
            blocked: false,
            tree: BTreeMap::new(),
            watches: Vec::new(),
            input: Vec::new(),
            output: VecDeque::new(),
            late: Vec::new(),
            faults: VecDeque::new(),
            piece: None,
            refuse: None,
            dead: false,
            reconnections: 0,
            requests: Vec::new(),
            notifications: 0,
        }
    }

    /// Another handle on the ring page.
    #[must_use]
    pub fn page(&self) -> SharedPage {
        self.page.alias()
    }

    /// The guest's port.
    #[must_use]
    pub fn port(&self) -> EventPort {
        self.port
    }

    pub(super) fn hand_out(&mut self) -> Option<SharedPage> {
        (!core::mem::replace(&mut self.given, true)).then(|| self.page.alias())
    }

    pub(super) fn kick(&mut self) {
        self.kicked = true;
    }

    /// Queues the fault of the next request; `None` answers that request normally.
    pub fn fault(&mut self, fault: Option<Fault>) {
        self.faults.push_back(fault);
    }

    /// The value at an absolute path, or one relative to the guest's home.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&[u8]> {
        self.tree.get(&absolute(path)).map(Vec::as_slice)
    }

    /// Writes a value and fires the watches.
    pub fn set(&mut self, path: &[u8], value: &[u8]) {
        let path = absolute(path);
        self.tree.insert(path.clone(), value.to_vec());
        self.fire(&path);
    }

    /// Removes a path and all below it, and fires the watches.
    pub fn remove(&mut self, path: &[u8]) {
        let path = absolute(path);
        self.tree.retain(|key, _| !is_below(key, &path));
        self.fire(&path);
        // A watch below what was removed fires as well.
        for at in 0..self.watches.len() {
            if self.watches[at].0 != path && is_below(&self.watches[at].0, &path) {
                self.watch_event(at, None);
            }
        }
    }

    /// Offers reconnection, as oxenstored does.
    pub fn offer_reconnection(&mut self) {
        let features = XENSTORE_SERVER_FEATURE_RECONNECTION;
        self.page.store_release(ring::SERVER_FEATURES, features);
    }

    /// The domain runs before it is introduced: xenstored does not look at its ring yet.
    pub fn unintroduced(&mut self) {
        self.dead = true;
        self.page
            .store_release(ring::CONNECTION, XENSTORE_RECONNECT);
    }

    /// Restarts xenstored: all watches and all half-read or half-answered requests are lost. `empty` says that the tree
    /// is lost too.
    pub fn restart(&mut self, empty: bool) {
        self.forget();
        self.dead = false;
        if empty {
            self.tree.clear();
        }
    }

    fn forget(&mut self) {
        self.watches.clear();
        self.input.clear();
        self.output.clear();
        self.late.clear();
        self.faults.clear();
        self.blocked = false;
    }

    /// The domain is introduced to the C xenstored (`do_introduce`, `domain_conn_reset`): it empties the
    /// ring, and notifies the guest if that has asked for a reconnection.
    pub fn introduce(&mut self, machine: &mut Machine) {
        self.dead = false;
        self.empty_ring();
        if self.page.load_acquire(ring::CONNECTION) == XENSTORE_RECONNECT {
            self.page
                .store_release(ring::CONNECTION, XENSTORE_CONNECTED);
            self.notify(machine);
        }
        // Binding an event channel raises an event on it.
        self.kicked = true;
    }

    /// The domain is introduced to oxenstored (`Domains.create`): it leaves the ring as it is, and offers reconnection.
    pub fn introduce_and_offer(&mut self) {
        self.dead = false;
        self.offer_reconnection();
        self.kicked = true;
    }

    fn empty_ring(&mut self) {
        for index in [
            ring::REQ_CONS,
            ring::REQ_PROD,
            ring::RSP_CONS,
            ring::RSP_PROD,
        ] {
            self.page.store_release(index, 0);
        }
    }

    /// Does what the connection word asks for (`Xb.reconnect` of oxenstored).
    fn reconnect(&mut self, machine: &mut Machine) {
        let asked = self.page.load_acquire(ring::CONNECTION) == XENSTORE_RECONNECT;
        let features = self.page.load_acquire(ring::SERVER_FEATURES);
        if asked && features & XENSTORE_SERVER_FEATURE_RECONNECTION != 0 {
            self.forget();
            self.empty_ring();
            self.page
                .store_release(ring::CONNECTION, XENSTORE_CONNECTED);
            self.reconnections += 1;
            self.notify(machine);
        }
    }

    /// Sends bytes that no request asked for.
    pub fn inject(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
    }

    /// The time at which the next late answer is due, in ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.late.iter().map(|(due, _)| *due).min()
    }

    fn fire(&mut self, path: &[u8]) {
        for at in 0..self.watches.len() {
            if is_below(path, &self.watches[at].0) {
                self.watch_event(at, Some(path));
            }
        }
    }

    /// Queues an event. Its path is relative or absolute, like the path of the watch.
    fn watch_event(&mut self, at: usize, path: Option<&[u8]>) {
        let (absolute, given, token) = &self.watches[at];
        let mut payload = given.clone();
        if let Some(path) = path {
            payload.extend_from_slice(&path[absolute.len()..]);
        }
        payload.push(0);
        payload.extend_from_slice(token);
        payload.push(0);
        let message = message(xs::WATCH_EVENT, 0, &payload);
        self.output.extend(message);
    }

    pub(super) fn step(&mut self, machine: &mut Machine) -> bool {
        if self.dead {
            return false;
        }
        let mut progress = false;
        if core::mem::take(&mut self.kicked) {
            self.blocked = false;
            self.reconnect(machine);
            progress |= self.receive(machine);
        }
        let now = machine.now();
        let mut at = 0;
        while at < self.late.len() {
            if self.late[at].0 <= now {
                let (_, bytes) = self.late.remove(at);
                self.output.extend(bytes);
                progress = true;
            } else {
                at += 1;
            }
        }
        if self.send(machine) {
            // With limited output, the next piece is sent at the next look at the ring.
            progress |= self.piece.is_none();
        }
        progress
    }

    fn receive(&mut self, machine: &mut Machine) -> bool {
        let cons = self.page.load_acquire(ring::REQ_CONS);
        let count = self.page.load_acquire(ring::REQ_PROD).wrapping_sub(cons);
        if count > ring::RING_SIZE {
            machine.violation("the guest overran the request ring");
            return false;
        }
        if count == 0 {
            return false;
        }
        for index in 0..count {
            let mut byte = [0];
            let at = cons.wrapping_add(index) % ring::RING_SIZE;
            self.page.copy_out(ring::REQ + at as usize, &mut byte);
            self.input.push(byte[0]);
        }
        self.page
            .store_release(ring::REQ_CONS, cons.wrapping_add(count));
        self.notify(machine);
        while let Ok((header, rest)) = xsd_sockmsg::read_from_prefix(&self.input) {
            let length = header.len as usize;
            if length > XENSTORE_PAYLOAD_MAX {
                machine.violation("a request that is too long");
                self.input.clear();
                break;
            }
            if rest.len() < length {
                break;
            }
            let payload = rest[..length].to_vec();
            self.input.drain(..HEADER + length);
            self.request(header, &payload, machine);
        }
        true
    }

    fn request(&mut self, header: xsd_sockmsg, payload: &[u8], machine: &mut Machine) {
        let (path, rest) = match payload.iter().position(|&byte| byte == 0) {
            Some(end) => (&payload[..end], &payload[end + 1..]),
            None => {
                machine.violation("a path without its NUL");
                (payload, [].as_slice())
            }
        };
        self.requests.push(Request {
            kind: header.type_,
            path: path.to_vec(),
        });
        if header.tx_id != 0 || header.req_id == 0 {
            machine.violation("a request in a transaction, or without an id");
        }
        let fault = self.faults.pop_front().flatten();
        let mut watched = None;
        let answer = match fault {
            Some(Fault::Error(error)) => Err(error),
            _ => self.perform(header.type_, path, rest, &mut watched),
        };
        let is_sent = self.answer(header, answer, fault, machine);
        if let Some(at) = watched.filter(|_| is_sent) {
            self.watch_event(at, None);
        }
    }

    /// Does what a request asks for. A new watch is noted, which has its first event after the answer.
    fn perform(
        &mut self,
        kind: u32,
        path: &[u8],
        rest: &[u8],
        watched: &mut Option<usize>,
    ) -> Result<Vec<u8>, &'static str> {
        let full = absolute(path);
        match kind {
            xs::READ => self.tree.get(&full).cloned().ok_or("ENOENT"),
            xs::WRITE if self.refuse.as_deref() == Some(path) => Err("EACCES"),
            xs::WRITE if full.starts_with(HOME) => {
                self.set(&full, rest);
                Ok(b"OK\0".to_vec())
            }
            xs::RM if full.starts_with(HOME) => {
                self.remove(&full);
                Ok(b"OK\0".to_vec())
            }
            xs::WRITE | xs::RM => Err("EACCES"),
            xs::WATCH if self.is_watched(&full, rest) => Err("EEXIST"),
            xs::WATCH => {
                let token = rest.strip_suffix(b"\0").unwrap_or(rest);
                self.watches.push((full, path.to_vec(), token.to_vec()));
                *watched = Some(self.watches.len() - 1);
                Ok(b"OK\0".to_vec())
            }
            xs::UNWATCH => {
                let token = rest.strip_suffix(b"\0").unwrap_or(rest);
                match self
                    .watches
                    .iter()
                    .position(|watch| watch.0 == full && watch.2 == token)
                {
                    Some(at) => {
                        self.watches.remove(at);
                        Ok(b"OK\0".to_vec())
                    }
                    None => Err("ENOENT"),
                }
            }
            _ => Err("ENOSYS"),
        }
    }

    /// Sends an answer, or what a fault makes of it; whether it goes out now.
    fn answer(
        &mut self,
        header: xsd_sockmsg,
        answer: Result<Vec<u8>, &str>,
        fault: Option<Fault>,
        machine: &mut Machine,
    ) -> bool {
        let (kind, mut payload) = match answer {
            Ok(payload) => (header.type_, payload),
            Err(error) => {
                let mut payload = error.as_bytes().to_vec();
                payload.push(0);
                (xs::ERROR, payload)
            }
        };
        if let Some(Fault::Payload(bytes)) = &fault {
            payload.clone_from(bytes);
        }
        let mut bytes = message(kind, header.req_id, &payload);
        match fault {
            Some(Fault::Late(delay)) => {
                self.late.push((machine.now() + delay, bytes));
                return false;
            }
            Some(Fault::Silent) => return false,
            Some(Fault::WrongId) => bytes = message(kind, header.req_id ^ 0x8000_0000, &payload),
            Some(Fault::Twice) => self.output.extend(&bytes),
            Some(Fault::WrongType) => bytes = message(kind ^ 1, header.req_id, &payload),
            Some(Fault::TooLong) => bytes[12..16].copy_from_slice(&5000_u32.to_le_bytes()),
            Some(Fault::Garbage(garbage)) => bytes = garbage,
            Some(Fault::Index(jump)) => {
                let prod = self.page.load_acquire(ring::RSP_PROD);
                self.page
                    .store_release(ring::RSP_PROD, prod.wrapping_add(jump));
                self.notify(machine);
                self.dead = true;
                return false;
            }
            Some(Fault::Error(_) | Fault::Payload(_)) | None => {}
        }
        self.output.extend(bytes);
        true
    }

    fn is_watched(&self, path: &[u8], token: &[u8]) -> bool {
        let token = token.strip_suffix(b"\0").unwrap_or(token);
        let mut watches = self.watches.iter();
        watches.any(|watch| watch.0 == path && watch.2 == token)
    }

    fn send(&mut self, machine: &mut Machine) -> bool {
        let prod = self.page.load_acquire(ring::RSP_PROD);
        let used = prod.wrapping_sub(self.page.load_acquire(ring::RSP_CONS));
        let Some(space) = ring::RING_SIZE.checked_sub(used) else {
            machine.violation("the guest moved the answer index out of range");
            return false;
        };
        let count = self
            .output
            .len()
            .min(space as usize)
            .min(self.piece.unwrap_or(usize::MAX));
        self.blocked |= space == 0 && !self.output.is_empty();
        if count == 0 || self.blocked {
            return false;
        }
        for (index, byte) in self.output.drain(..count).enumerate() {
            let at = prod.wrapping_add(index as u32) % ring::RING_SIZE;
            self.page.copy_in(ring::RSP + at as usize, &[byte]);
        }
        self.page
            .store_release(ring::RSP_PROD, prod.wrapping_add(count as u32));
        self.notify(machine);
        true
    }

    fn notify(&mut self, machine: &mut Machine) {
        self.notifications += 1;
        machine.notify_guest(self.port);
    }
}

fn absolute(path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") {
        path.to_vec()
    } else {
        [HOME, path].concat()
    }
}

/// Whether `path` is `parent` or below it.
fn is_below(path: &[u8], parent: &[u8]) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A message as it is on the wire.
fn message(type_: u32, req_id: u32, payload: &[u8]) -> Vec<u8> {
    let header = xsd_sockmsg {
        type_,
        req_id,
        tx_id: 0,
        len: payload.len() as u32,
    };
    [header.as_bytes(), payload].concat()
}
