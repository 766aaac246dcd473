//! netback: connects when xenstore says so, moves frames, and misbehaves on request.

use core::mem::size_of;
use std::collections::VecDeque;
use std::string::{String, ToString};
use std::vec::Vec;

mod packet;
mod plug;
mod script;

use super::machine::Machine;
use super::offload;
use super::store::FakeStore;
use crate::abi::{
    NET_RX_RING_SIZE, NET_TX_RING_SIZE, NETIF_RSP_NULL, NETIF_RSP_OKAY, NetRxFlags, XenbusState,
    netif_rx_request, netif_rx_response, netif_tx_response, sring,
};
use crate::{EventPort, SharedPage};
pub use packet::Packet;
use packet::{packet, tx_entry};

/// The back end's directory in xenstore, until [`FakeNetback::remake`] names another.
pub const BACKEND: &str = "/local/domain/0/backend/vif/1/0";
const FRONTEND: &str = "device/vif/0";

/// One of the two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// The transmit ring, from guest to back end.
    Tx,
    /// The receive ring, from back end to guest.
    Rx,
}

#[derive(Debug)]
struct Connection {
    tx_port: EventPort,
    rx_port: EventPort,
    tx: SharedPage,
    tx_ref: u32,
    tx_cons: u32,
    tx_prod: u32,
    /// Ids of requests without a response, `None` for extra-info slots.
    tx_pending: VecDeque<Option<u16>>,
    rx: SharedPage,
    rx_ref: u32,
    /// The number of requests taken, which is also the number of responses given.
    rx_cons: u32,
    rx_published: u32,
    tx_published: u32,
}

/// netback.
#[derive(Debug)]
pub struct FakeNetback {
    state: XenbusState,
    connection: Option<Connection>,
    kicked: bool,
    /// Knows only the key `event-channel`, like a back end without feature-split-event-channels.
    pub one_channel: bool,
    /// Does not connect, whatever the front end writes.
    pub never_connect: bool,
    /// Takes transmit requests but holds their responses back.
    pub hold_tx: bool,
    /// Answers transmit requests in reverse order.
    pub reorder_tx: bool,
    /// The status of transmit responses.
    pub tx_status: i16,
    /// Keeps its mapping of the rings when it closes.
    pub keep_mapped: bool,
    /// Also maps all granted buffers, and keeps those mappings when it closes.
    pub map_all: bool,
    /// The grants that it kept mapped.
    kept: Vec<u32>,
    /// The grants of transmit requests of the present connection.
    tx_grants: Vec<u32>,
    /// Its directory in xenstore.
    path: String,
    /// Frames that the guest sent, oldest first, as they leave the machine: cut into segments,
    /// with their checksums.
    pub transmitted: VecDeque<Vec<u8>>,
    /// Packets that were cut into segments.
    pub segmented: u64,
    /// The greatest number of slots of a packet.
    pub most_slots: usize,
    to_guest: VecDeque<Packet>,
    /// The number of connections.
    pub connections: u64,
    /// The number of connections that failed because keys were missing.
    pub refusals: u64,
    /// The number of notifications sent.
    pub notifications: u64,
    /// The number of looks at the rings after a notification by the guest.
    pub kicks: u64,
}

impl FakeNetback {
    pub(super) fn new() -> Self {
        Self {
            state: XenbusState::Unknown,
            connection: None,
            kicked: false,
            never_connect: false,
            one_channel: false,
            hold_tx: false,
            reorder_tx: false,
            tx_status: NETIF_RSP_OKAY,
            keep_mapped: false,
            map_all: false,
            kept: Vec::new(),
            tx_grants: Vec::new(),
            path: BACKEND.to_string(),
            transmitted: VecDeque::new(),
            segmented: 0,
            most_slots: 0,
            to_guest: VecDeque::new(),
            connections: 0,
            refusals: 0,
            notifications: 0,
            kicks: 0,
        }
    }

    /// Whether it is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Sends a frame to the guest, once there is a buffer for it.
    pub fn deliver(&mut self, packet: Packet) {
        self.to_guest.push_back(packet);
        self.kicked = true;
    }

    /// The number of frames that wait for a receive buffer of the guest.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.to_guest.len()
    }

    /// The number of transmit requests without a response.
    #[must_use]
    pub fn held(&self) -> usize {
        self.connection
            .as_ref()
            .map_or(0, |connection| connection.tx_pending.len())
    }

    /// The number of receive buffers that the guest has posted.
    #[must_use]
    pub fn posted(&self) -> u32 {
        self.connection.as_ref().map_or(0, |connection| {
            connection
                .rx
                .load_acquire(sring::REQ_PROD)
                .wrapping_sub(connection.rx_cons)
        })
    }

    pub(super) fn kick(&mut self) {
        self.kicked = true;
        self.kicks += 1;
    }

    pub(super) fn step(&mut self, machine: &mut Machine, store: &mut FakeStore) -> bool {
        let mut progress = self.follow(machine, store);
        if core::mem::take(&mut self.kicked) && self.connection.is_some() {
            self.work(machine);
            progress = true;
        }
        progress
    }

    /// Follows the front end's state, like `frontend_changed` in Linux' xen-netback/xenbus.c.
    fn follow(&mut self, machine: &mut Machine, store: &mut FakeStore) -> bool {
        if self.state == XenbusState::Unknown {
            return false;
        }
        let frontend = XenbusState::parse(
            store
                .get([FRONTEND, "/state"].concat().as_bytes())
                .unwrap_or_default(),
        );
        let before = self.state;
        match (frontend, self.state) {
            (XenbusState::Connected, XenbusState::InitWait) if !self.never_connect => {
                // A failed connection is fatal: xenbus_dev_fatal closes the device.
                let connected = self.connect(machine, store);
                self.switch(
                    store,
                    if connected {
                        XenbusState::Connected
                    } else {
                        XenbusState::Closing
                    },
                );
                self.kicked = connected;
            }
            (XenbusState::Closing, XenbusState::Connected | XenbusState::InitWait) => {
                self.disconnect(machine);
                self.switch(store, XenbusState::Closing);
            }
            (
                XenbusState::Closed,
                XenbusState::Connected | XenbusState::InitWait | XenbusState::Closing,
            ) => {
                self.disconnect(machine);
                self.switch(store, XenbusState::Closed);
            }
            (XenbusState::Initialising, XenbusState::Closed) => {
                self.switch(store, XenbusState::InitWait);
            }
            _ => {}
        }
        self.state != before
    }

    fn switch(&mut self, store: &mut FakeStore, state: XenbusState) {
        self.state = state;
        self.set(store, "state", &(state as u8).to_string());
    }

    fn connect(&mut self, machine: &mut Machine, store: &FakeStore) -> bool {
        let number = |key: &str| -> Option<u32> {
            let path: String = [FRONTEND, "/", key].concat();
            core::str::from_utf8(store.get(path.as_bytes())?)
                .ok()?
                .parse()
                .ok()
        };
        let (tx_key, rx_key) = if self.one_channel {
            ("event-channel", "event-channel")
        } else {
            ("event-channel-tx", "event-channel-rx")
        };
        let (Some(tx_ref), Some(rx_ref), Some(tx_port), Some(rx_port), Some(1), Some(1)) = (
            number("tx-ring-ref"),
            number("rx-ring-ref"),
            number(tx_key),
            number(rx_key),
            number("request-rx-copy"),
            number("feature-rx-notify"),
        ) else {
            self.refusals += 1;
            return false;
        };
        let (Some(tx), Some(rx)) = (machine.map_grant(tx_ref), machine.map_grant(rx_ref)) else {
            return false;
        };
        let Some(tx_port) = machine.bind(tx_port) else {
            return false;
        };
        let rx_port = if self.one_channel {
            tx_port
        } else {
            let Some(rx_port) = machine.bind(rx_port) else {
                machine.unbind(tx_port);
                return false;
            };
            rx_port
        };
        self.connection = Some(Connection {
            tx_port,
            rx_port,
            tx_cons: tx.load_acquire(sring::RSP_PROD),
            tx_prod: tx.load_acquire(sring::RSP_PROD),
            tx_published: tx.load_acquire(sring::RSP_PROD),
            tx,
            tx_ref,
            tx_pending: VecDeque::new(),
            rx_cons: rx.load_acquire(sring::RSP_PROD),
            rx_published: rx.load_acquire(sring::RSP_PROD),
            rx,
            rx_ref,
        });
        self.connections += 1;
        true
    }

    fn disconnect(&mut self, machine: &mut Machine) {
        if let Some(connection) = self.connection.take() {
            let rings = [connection.tx_ref, connection.rx_ref];
            if self.keep_mapped {
                self.kept.extend(rings);
            } else {
                self.unmap(machine, &rings);
            }
            if self.map_all {
                let slots = connection
                    .rx
                    .load_acquire(sring::REQ_PROD)
                    .min(NET_RX_RING_SIZE);
                let posted = (0..slots).map(|slot| -> netif_rx_request {
                    // The slot may hold a response already, which has no grant.
                    connection.rx.read(rx_entry(slot))
                });
                let grants = posted.map(|request| request.gref);
                for gref in grants.chain(self.tx_grants.drain(..)) {
                    if machine.keep_mapped(gref) {
                        self.kept.push(gref);
                    }
                }
            }
            self.tx_grants.clear();
            machine.unbind(connection.tx_port);
            machine.unbind(connection.rx_port);
        }
    }

    /// Disables the interface for good when a ring has more requests without a response than slots: for the transmit
    /// ring, Linux' netback reports "Impossible number of requests" (`xenvif_tx_build_gops`), and a slot that is
    /// written again before its response is lost (`RING_REQUEST_PROD_OVERFLOW`, io/ring.h).
    fn overflowed(&mut self, machine: &mut Machine) -> bool {
        let Some(connection) = &self.connection else {
            return false;
        };
        let requests =
            |page: &SharedPage, answered| page.load_acquire(sring::REQ_PROD).wrapping_sub(answered);
        let fault = if requests(&connection.tx, connection.tx_prod) > NET_TX_RING_SIZE {
            "the guest overran the transmit ring"
        } else if requests(&connection.rx, connection.rx_cons) > NET_RX_RING_SIZE {
            "the guest overran the receive ring"
        } else {
            return false;
        };
        machine.violation(fault);
        self.disconnect(machine);
        true
    }

    fn work(&mut self, machine: &mut Machine) {
        // RING_FINAL_CHECK_FOR_REQUESTS: look again after asking to be notified.
        loop {
            if self.overflowed(machine) {
                return;
            }
            self.consume_tx(machine);
            self.produce_rx(machine);
            let Some(connection) = &mut self.connection else {
                return;
            };
            connection
                .tx
                .store_fence(sring::REQ_EVENT, connection.tx_cons.wrapping_add(1));
            let more_tx = connection.tx.load_acquire(sring::REQ_PROD) != connection.tx_cons;
            let mut more_rx = false;
            if !self.to_guest.is_empty() {
                connection
                    .rx
                    .store_fence(sring::REQ_EVENT, connection.rx_cons.wrapping_add(1));
                more_rx = connection.rx.load_acquire(sring::REQ_PROD) != connection.rx_cons;
            }
            if !more_tx && !more_rx {
                break;
            }
        }
        self.publish(machine);
    }

    fn consume_tx(&mut self, machine: &mut Machine) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let prod = connection.tx.load_acquire(sring::REQ_PROD);
        while connection.tx_cons != prod {
            match packet(connection, machine, prod) {
                Ok(packet) => match offload::finish(packet.bytes, packet.flags, packet.gso) {
                    Ok(frames) => {
                        self.tx_grants.extend(packet.grants);
                        self.most_slots = self.most_slots.max(packet.slots);
                        self.segmented += u64::from(packet.gso.is_some());
                        self.transmitted.extend(frames);
                    }
                    Err(fault) => machine.violation(fault),
                },
                Err(fault) => machine.violation(fault),
            }
        }
        if !self.hold_tx {
            self.answer_pending();
        }
    }

    /// Answers all transmit requests that it has taken.
    fn answer_pending(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let status = self.tx_status;
        while let Some(id) = if self.reorder_tx {
            connection.tx_pending.pop_back()
        } else {
            connection.tx_pending.pop_front()
        } {
            let response = match id {
                Some(id) => netif_tx_response { id, status },
                // An extra-info slot is answered too; the id of that answer is arbitrary.
                None => netif_tx_response {
                    id: 0x5a5a,
                    status: NETIF_RSP_NULL,
                },
            };
            put_tx(connection, response);
        }
    }

    fn produce_rx(&mut self, machine: &mut Machine) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        while !self.to_guest.is_empty() {
            let Some(request) = next_rx(connection) else {
                return;
            };
            let Some(packet) = self.to_guest.pop_front() else {
                return;
            };
            let size = packet.bytes.len();
            if let Some(page) = machine.copy_grant(request.gref, true) {
                page.copy_in(usize::from(packet.offset), &packet.bytes);
            }
            put_rx(
                connection,
                netif_rx_response {
                    id: request.id,
                    offset: packet.offset,
                    flags: packet.flags & !NetRxFlags::MORE_DATA.bits(),
                    status: size as i16,
                },
            );
        }
    }

    /// Publishes responses and notifies as the event indices ask.
    fn publish(&mut self, machine: &mut Machine) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let tx = push(
            &connection.tx,
            &mut connection.tx_published,
            connection.tx_prod,
        );
        let rx = push(
            &connection.rx,
            &mut connection.rx_published,
            connection.rx_cons,
        );
        for (wanted, port) in [(tx, connection.tx_port), (rx, connection.rx_port)] {
            if wanted {
                self.notifications += 1;
                machine.notify_guest(port);
            }
        }
    }
}

/// `RING_PUSH_RESPONSES_AND_CHECK_NOTIFY` (io/ring.h).
fn push(page: &SharedPage, published: &mut u32, prod: u32) -> bool {
    let old = core::mem::replace(published, prod);
    if old == prod {
        return false;
    }
    page.store_fence(sring::RSP_PROD, prod);
    let event = page.load_acquire(sring::RSP_EVENT);
    prod.wrapping_sub(event) < prod.wrapping_sub(old)
}

fn rx_entry(index: u32) -> usize {
    sring::RING + (index % NET_RX_RING_SIZE) as usize * size_of::<netif_rx_request>()
}

/// The next receive request, which stays in the ring.
fn next_rx(connection: &Connection) -> Option<netif_rx_request> {
    (connection.rx.load_acquire(sring::REQ_PROD) != connection.rx_cons)
        .then(|| connection.rx.read(rx_entry(connection.rx_cons)))
}

/// Answers the next receive request.
fn put_rx(connection: &mut Connection, response: netif_rx_response) {
    connection.rx.write(rx_entry(connection.rx_cons), &response);
    connection.rx_cons = connection.rx_cons.wrapping_add(1);
}

fn put_tx(connection: &mut Connection, response: netif_tx_response) {
    connection.tx.write(tx_entry(connection.tx_prod), &response);
    connection.tx_prod = connection.tx_prod.wrapping_add(1);
}

pub(in crate::fake) fn set_frontend(store: &mut FakeStore, key: &str, value: &str) {
    store.set([FRONTEND, "/", key].concat().as_bytes(), value.as_bytes());
}
