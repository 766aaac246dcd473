//! A xenstored's core: bytes of sockets and rings to answers, with domains that come and go and with live updates.

use std::collections::HashMap;

use mayfly_store::core::{ConnectionId, Descriptors, DomainState, Host, Quota, SavedState, Server};
use mayfly_xenstore::ErrorCode;
use mayfly_xenstore::wire::{self, MessageKind};

/// The domains, whose numbers begin at 1, and dom0's clients.
const DOMAINS: u16 = 3;
const CLIENTS: usize = 2;

#[derive(Default)]
struct Domains(HashMap<u16, DomainState>);

impl Host for Domains {
    fn state(&mut self, domid: u16) -> Option<DomainState> {
        self.0.get(&domid).copied()
    }
    fn attach(&mut self, _: u16, _: u64, _: u32) -> Result<(), ErrorCode> {
        Ok(())
    }
    fn adopt(&mut self, _: u16, _: u32) {}
    fn attach_again(&mut self, _: u16, _: u32) {}
    fn detach(&mut self, _: u16) {}
}

struct Store {
    server: Server,
    domains: Domains,
    clients: Vec<ConnectionId>,
}

impl Store {
    fn new() -> Self {
        let mut server = Server::new(Quota::default(), false);
        let clients = (0..CLIENTS).map(|_| server.connect()).collect();
        server.connect_ring(0);
        Self {
            server,
            domains: Domains(HashMap::from([(0, DomainState::default())])),
            clients,
        }
    }

    /// A client, dom0's ring or a domain's ring.
    fn connection(&self, number: u8) -> Option<ConnectionId> {
        let number = usize::from(number) % (CLIENTS + 1 + usize::from(DOMAINS));
        match self.clients.get(number) {
            Some(id) => Some(*id),
            None => self.server.ring(u16::try_from(number - CLIENTS).ok()?),
        }
    }

    fn take(&mut self, id: ConnectionId, bytes: &[u8]) {
        if self.server.has_room(id) && self.server.take(id, bytes, &mut self.domains).is_err() {
            match self.clients.iter_mut().find(|client| **client == id) {
                Some(client) => {
                    self.server.disconnect(id);
                    *client = self.server.connect();
                }
                None => self.server.silence(id),
            }
        }
    }

    fn request(&mut self, id: ConnectionId, kind: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        wire::put_message(&mut bytes, [kind, 1, 0], payload);
        self.take(id, &bytes);
    }

    /// A domain comes and is introduced, shuts down, or goes.
    fn change_domain(&mut self, number: u8) {
        let domid = 1 + u16::from(number) % DOMAINS;
        match self.domains.0.get_mut(&domid) {
            None => {
                self.domains.0.insert(domid, DomainState::default());
                let payload = format!("{domid}\x001\x001\0");
                self.request(
                    self.clients[0],
                    MessageKind::Introduce as u32,
                    payload.as_bytes(),
                );
            }
            Some(state) if !state.is_shutdown => state.is_shutdown = true,
            Some(_) => drop(self.domains.0.remove(&domid)),
        }
        self.server.check_domains(&mut self.domains);
    }

    /// Sends at most so many bytes of output.
    fn send(&mut self, id: ConnectionId, most: usize) {
        let bytes = self.server.output(id, most).len().min(most);
        self.server.sent(id, bytes);
    }

    fn save(&self) -> Vec<u8> {
        let clients = self.clients.iter().zip(0..);
        let descriptors = Descriptors {
            sockets: clients.map(|(id, number)| (*id, number)).collect(),
            ..Descriptors::default()
        };
        // Every state fits: a connection keeps at most 64 KiB of input.
        self.server.save(&descriptors).unwrap()
    }

    fn hand_over(&mut self) {
        let bytes = self.save();
        let state = SavedState::parse(&bytes).unwrap();
        let restored = Server::restored(Quota::default(), false, &state, &mut self.domains);
        let mut restored = restored.unwrap();
        restored.sockets.sort_by_key(|(_, number)| *number);
        self.clients = restored.sockets.iter().map(|(id, _)| *id).collect();
        self.server = restored.server;
        assert_eq!(
            self.save(),
            bytes,
            "a successor's state is its predecessor's"
        );
    }

    /// Asks whether the domains' accounts agree with their nodes.
    fn check(&mut self) {
        let id = self.server.connect();
        self.request(id, MessageKind::Control as u32, b"check\0");
        let answer = self.server.output(id, 1).to_vec();
        assert_eq!(answer.get(wire::HEADER..), Some(&b"OK\0"[..]));
        self.server.disconnect(id);
    }
}

/// Runs one input: a sequence of a connection, an action, and what the action needs.
pub fn run(data: &[u8]) {
    let mut store = Store::new();
    let mut rest = data;
    while let [connection, action, length, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let Some(id) = store.connection(*connection) else {
            store.change_domain(*connection);
            continue;
        };
        match action % 32 {
            0 => store.take(id, bytes),
            1 => store.change_domain(*length),
            2 => store.hand_over(),
            3 => store.send(id, (*length).into()),
            kind => store.request(id, u32::from(kind) - 4, bytes),
        }
    }
    store.check();
    store.hand_over();
    store.check();
}

/// Runs one input: the state of a predecessor.
pub fn run_state(data: &[u8]) {
    let Ok(state) = SavedState::parse(data) else {
        return;
    };
    let mut domains = Domains::default();
    let restored = Server::restored(Quota::default(), false, &state, &mut domains);
    if let Ok(restored) = restored {
        let mut store = Store::new();
        store.server = restored.server;
        store.domains = domains;
        store.clients.clear();
        store.check();
    }
}
