//! netback: connects when xenstore says so, moves frames, and misbehaves on request.

use core::mem::size_of;
use std::collections::VecDeque;
use std::string::{String, ToString};
use std::vec::Vec;

use super::machine::Machine;
use super::store::FakeStore;
use crate::abi::{
    NET_RX_RING_SIZE, NET_TX_RING_SIZE, NETIF_RSP_OKAY, NetRxFlags, PAGE_SIZE, XenbusState,
    netif_rx_request, netif_rx_response, netif_tx_request, netif_tx_response, sring,
};
use crate::{EventPort, SharedPage};

const BACKEND: &str = "/local/domain/0/backend/vif/1/0";
const FRONTEND: &str = "device/vif/0";

/// One of the two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Guest to back end.
    Tx,
    /// Back end to guest.
    Rx,
}

/// A frame on its way to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The Ethernet frame.
    pub bytes: Vec<u8>,
    /// `NETRXF_*` of its slot.
    pub flags: u16,
    /// Where in the page it is put.
    pub offset: u16,
}

impl Packet {
    /// A frame without flags at the start of its page.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            flags: 0,
            offset: 0,
        }
    }
}

#[derive(Debug)]
struct Connection {
    port: EventPort,
    tx: SharedPage,
    tx_ref: u32,
    tx_cons: u32,
    tx_prod: u32,
    /// Ids of requests without a response.
    tx_pending: VecDeque<u16>,
    rx: SharedPage,
    rx_ref: u32,
    /// Requests taken, and with them responses given.
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
    /// Does not connect, whatever the front end writes.
    pub never_connect: bool,
    /// Takes transmit requests but keeps their responses back.
    pub hold_tx: bool,
    /// Answers transmit requests last first.
    pub reorder_tx: bool,
    /// The status of transmit responses.
    pub tx_status: i16,
    /// Keeps its mapping of the rings when it closes.
    pub keep_mapped: bool,
    /// Frames that the guest sent, oldest first.
    pub transmitted: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Packet>,
    /// Times that it connected.
    pub connections: u64,
    /// Times that keys were missing when it was to connect.
    pub refusals: u64,
    /// Notifications sent.
    pub notifications: u64,
    /// Looks at the rings because the guest had notified.
    pub kicks: u64,
}

impl FakeNetback {
    pub(super) fn new() -> Self {
        Self {
            state: XenbusState::Unknown,
            connection: None,
            kicked: false,
            never_connect: false,
            hold_tx: false,
            reorder_tx: false,
            tx_status: NETIF_RSP_OKAY,
            keep_mapped: false,
            transmitted: VecDeque::new(),
            to_guest: VecDeque::new(),
            connections: 0,
            refusals: 0,
            notifications: 0,
            kicks: 0,
        }
    }

    /// The toolstack adds the interface and netback gets ready.
    pub fn plug(&mut self, store: &mut FakeStore) {
        if self.state != XenbusState::Unknown {
            return;
        }
        set_backend(store, "frontend-id", "1");
        set_backend(store, "online", "1");
        set_backend(store, "mtu", "1500");
        set_frontend(store, "backend-id", "0");
        set_frontend(store, "mac", "00:16:3e:00:00:01");
        set_frontend(store, "state", "1");
        set_frontend(store, "backend", BACKEND);
        self.switch(store, XenbusState::InitWait);
    }

    /// The toolstack removes the interface by force.
    pub fn unplug(&mut self, machine: &mut Machine, store: &mut FakeStore) {
        self.disconnect(machine);
        self.state = XenbusState::Unknown;
        store.remove(BACKEND.as_bytes());
        store.remove(FRONTEND.as_bytes());
    }

    /// The toolstack asks for the interface to be closed (`xl network-detach`).
    pub fn begin_close(&mut self, store: &mut FakeStore) {
        if self.state == XenbusState::Unknown {
            return;
        }
        set_backend(store, "online", "0");
        self.switch(store, XenbusState::Closing);
    }

    /// The module is unloaded: it closes without waiting for the front end.
    pub fn unload(&mut self, machine: &mut Machine, store: &mut FakeStore) {
        if self.state != XenbusState::Unknown {
            self.disconnect(machine);
            self.switch(store, XenbusState::Closed);
            self.state = XenbusState::Unknown;
        }
    }

    /// The module is loaded again.
    pub fn load(&mut self, store: &mut FakeStore) {
        let there = store.get([BACKEND, "/state"].concat().as_bytes()).is_some();
        if there && self.state == XenbusState::Unknown {
            self.switch(store, XenbusState::InitWait);
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

    /// Frames that wait for a buffer of the guest.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.to_guest.len()
    }

    /// Transmit requests without a response.
    #[must_use]
    pub fn held(&self) -> usize {
        self.connection
            .as_ref()
            .map_or(0, |connection| connection.tx_pending.len())
    }

    /// Receive buffers that the guest has posted.
    #[must_use]
    pub fn posted(&self) -> u32 {
        self.connection.as_ref().map_or(0, |connection| {
            connection
                .rx
                .load_acquire(sring::REQ_PROD)
                .wrapping_sub(connection.rx_cons)
        })
    }

    /// Answers the next receive request with this response, whatever it says;
    /// `data` is put at the start of the page. Says whether there was a request.
    pub fn answer_rx(
        &mut self,
        machine: &mut Machine,
        response: impl FnOnce(u16) -> netif_rx_response,
        data: &[u8],
    ) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let Some(request) = next_rx(connection) else {
            return false;
        };
        if let Some(page) = machine.copy_grant(request.gref, true) {
            page.copy_in(0, &data[..data.len().min(PAGE_SIZE)]);
        }
        put_rx(connection, response(request.id));
        self.publish(machine);
        true
    }

    /// Answers a held transmit request with this response, whatever it says.
    /// Says whether there was a request.
    pub fn answer_tx(
        &mut self,
        machine: &mut Machine,
        response: impl FnOnce(u16) -> netif_tx_response,
    ) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let Some(id) = connection.tx_pending.pop_front() else {
            return false;
        };
        put_tx(connection, response(id));
        self.publish(machine);
        true
    }

    /// Writes a response index off by `jump`, and notifies.
    pub fn jump(&mut self, machine: &mut Machine, ring: Ring, jump: u32) {
        if let Some(connection) = &self.connection {
            let (page, index) = match ring {
                Ring::Tx => (&connection.tx, connection.tx_prod),
                Ring::Rx => (&connection.rx, connection.rx_cons),
            };
            page.store_release(sring::RSP_PROD, index.wrapping_add(jump));
            self.notifications += 1;
            machine.notify_guest(connection.port);
        }
    }

    /// Notifies the guest for nothing.
    pub fn notify(&mut self, machine: &mut Machine) {
        if let Some(connection) = &self.connection {
            machine.notify_guest(connection.port);
        }
    }

    /// Lets go of what [`FakeNetback::keep_mapped`] kept.
    pub fn unmap(&mut self, machine: &mut Machine, grefs: &[u32]) {
        for &gref in grefs {
            machine.unmap_grant(gref);
        }
    }

    /// The grant references of the rings, transmit first.
    #[must_use]
    pub fn ring_refs(&self) -> Option<[u32; 2]> {
        self.connection
            .as_ref()
            .map(|connection| [connection.tx_ref, connection.rx_ref])
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

    /// Follows the front end's state, as `frontend_changed` in Linux' xen-netback/xenbus.c.
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
                // What it can't connect to is fatal to it: xenbus_dev_fatal closes the device.
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
        set_backend(store, "state", &(state as u8).to_string());
    }

    fn connect(&mut self, machine: &mut Machine, store: &FakeStore) -> bool {
        let number = |key: &str| -> Option<u32> {
            let path: String = [FRONTEND, "/", key].concat();
            core::str::from_utf8(store.get(path.as_bytes())?)
                .ok()?
                .parse()
                .ok()
        };
        let (Some(tx_ref), Some(rx_ref), Some(port), Some(1), Some(1)) = (
            number("tx-ring-ref"),
            number("rx-ring-ref"),
            number("event-channel"),
            number("request-rx-copy"),
            number("feature-rx-notify"),
        ) else {
            self.refusals += 1;
            return false;
        };
        let (Some(tx), Some(rx)) = (machine.map_grant(tx_ref), machine.map_grant(rx_ref)) else {
            return false;
        };
        let Some(port) = machine.bind(port) else {
            return false;
        };
        self.connection = Some(Connection {
            port,
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
            if !self.keep_mapped {
                machine.unmap_grant(connection.tx_ref);
                machine.unmap_grant(connection.rx_ref);
            }
            machine.unbind(connection.port);
        }
    }

    fn work(&mut self, machine: &mut Machine) {
        // RING_FINAL_CHECK_FOR_REQUESTS: look again after asking to be notified.
        loop {
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
        let waiting = prod.wrapping_sub(connection.tx_cons);
        if waiting > NET_TX_RING_SIZE - connection.tx_pending.len() as u32 {
            machine.violation("the guest overran the transmit ring");
            connection.tx_cons = prod;
            return;
        }
        for _ in 0..waiting {
            let request: netif_tx_request = connection.tx.read(tx_entry(connection.tx_cons));
            connection.tx_cons = connection.tx_cons.wrapping_add(1);
            let (offset, size) = (usize::from(request.offset), usize::from(request.size));
            if request.flags != 0 || size < 14 || offset + size > PAGE_SIZE {
                machine.violation("a transmit request that netback refuses");
            } else if machine.is_writable(request.gref) {
                machine.violation("a transmit page that the back end may write");
            } else if let Some(page) = machine.copy_grant(request.gref, false) {
                let mut frame = std::vec![0; size];
                page.copy_out(offset, &mut frame);
                self.transmitted.push_back(frame);
            }
            if connection.tx_pending.contains(&request.id) {
                machine.violation("a transmit id that is in flight already");
            }
            connection.tx_pending.push_back(request.id);
        }
        if self.hold_tx {
            return;
        }
        let status = self.tx_status;
        while let Some(id) = if self.reorder_tx {
            connection.tx_pending.pop_back()
        } else {
            connection.tx_pending.pop_front()
        } {
            put_tx(connection, netif_tx_response { id, status });
        }
    }

    fn produce_rx(&mut self, machine: &mut Machine) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        while !self.to_guest.is_empty() {
            let prod = connection.rx.load_acquire(sring::REQ_PROD);
            if prod.wrapping_sub(connection.rx_cons) > NET_RX_RING_SIZE {
                machine.violation("the guest overran the receive ring");
                return;
            }
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
        for _ in 0..u8::from(tx) + u8::from(rx) {
            self.notifications += 1;
            machine.notify_guest(connection.port);
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

fn tx_entry(index: u32) -> usize {
    sring::RING + (index % NET_TX_RING_SIZE) as usize * size_of::<netif_tx_request>()
}

fn rx_entry(index: u32) -> usize {
    sring::RING + (index % NET_RX_RING_SIZE) as usize * size_of::<netif_rx_request>()
}

/// The next receive request, without taking it.
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

fn set_backend(store: &mut FakeStore, key: &str, value: &str) {
    store.set([BACKEND, "/", key].concat().as_bytes(), value.as_bytes());
}

fn set_frontend(store: &mut FakeStore, key: &str, value: &str) {
    store.set([FRONTEND, "/", key].concat().as_bytes(), value.as_bytes());
}
