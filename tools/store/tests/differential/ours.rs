//! Our server, in the test's process.

use std::collections::HashMap;

use mayfly_store::core::{ConnectionId, Descriptors, DomainState, Host, Quota, SavedState, Server};
use mayfly_xenstore::{ErrorCode, wire};

use crate::script::{Ask, RINGS, SOCKETS};
use crate::{Message, Peer};

#[derive(Default)]
pub(crate) struct Domains {
    pub(crate) states: HashMap<u16, u8>,
    /// The ports of the rings that were adopted.
    pub(crate) ports: HashMap<u16, u32>,
}

impl Host for Domains {
    fn state(&mut self, domid: u16) -> Option<DomainState> {
        let state = *self.states.get(&domid)?;
        (state != 0).then_some(DomainState {
            is_shutdown: state == 2,
            is_dying: state == 3,
        })
    }
    fn attach(&mut self, _: u16, _: u64, _: u32) -> Result<(), ErrorCode> {
        Ok(())
    }
    fn adopt(&mut self, domid: u16, port: u32) {
        self.ports.insert(domid, port);
    }
    fn attach_again(&mut self, _: u16, _: u32) {}
    fn detach(&mut self, _: u16) {}
}

pub(crate) struct Ours {
    server: Server,
    domains: Domains,
    sockets: Vec<ConnectionId>,
}

/// Quotas that no request of the script reaches by the order in which the test reads the answers.
pub(crate) fn quota() -> Quota {
    let mut quota = Quota::default();
    assert!(quota.set("outstanding", 100_000));
    quota
}

impl Ours {
    pub(crate) fn new() -> Self {
        let mut server = Server::new(quota(), false);
        let sockets = (0..SOCKETS).map(|_| server.connect()).collect();
        server.connect_ring(0);
        Self {
            server,
            domains: Domains {
                states: HashMap::from([(0, 1)]),
                ports: HashMap::new(),
            },
            sockets,
        }
    }

    fn id(&self, connection: usize) -> Option<ConnectionId> {
        match self.sockets.get(connection) {
            Some(id) => Some(*id),
            None => self.server.ring((connection + 1 - SOCKETS) as u16),
        }
    }

    fn all(&mut self) -> Vec<Vec<Message>> {
        let take = |connection| {
            let mut seen = Vec::new();
            let Some(id) = self.id(connection) else {
                return seen;
            };
            loop {
                let bytes = self.server.output(id, 1 << 20).to_vec();
                if bytes.is_empty() {
                    return seen;
                }
                self.server.sent(id, bytes.len());
                let mut rest = &bytes[..];
                while let Some(length) = wire::length(rest) {
                    let kind = u32::from_ne_bytes(rest[..4].try_into().unwrap());
                    seen.push((kind, rest[wire::HEADER..length].to_vec()));
                    rest = &rest[length..];
                }
            }
        };
        (0..SOCKETS + RINGS).map(take).collect()
    }
}

impl Peer for Ours {
    fn ask(&mut self, ask: &Ask, transaction: u32) -> Vec<Vec<Message>> {
        let mut message = Vec::new();
        wire::put_message(&mut message, [ask.kind, 1, transaction], &ask.payload);
        let id = self.id(ask.connection).unwrap();
        self.server.take(id, &message, &mut self.domains).unwrap();
        self.all()
    }

    fn succeed(&mut self) -> Vec<Vec<Message>> {
        let sockets = self.sockets.iter().zip(0..);
        let descriptors = Descriptors {
            sockets: sockets.map(|(id, number)| (*id, number)).collect(),
            ..Descriptors::default()
        };
        let bytes = self.server.save(&descriptors).unwrap();
        let state = SavedState::parse(&bytes).unwrap();
        let mut restored = Server::restored(quota(), false, &state, &mut self.domains).unwrap();
        restored.sockets.sort_by_key(|(_, number)| *number);
        self.server = restored.server;
        self.sockets = restored.sockets.iter().map(|(id, _)| *id).collect();
        self.server.check_domains(&mut self.domains);
        self.all()
    }

    fn domain(&mut self, domid: u16, state: u8) -> Vec<Vec<Message>> {
        self.domains.states.insert(domid, state);
        self.server.check_domains(&mut self.domains);
        self.all()
    }
}
