//! Guests that are only shared memory, and a bridge that is a list of frames, for tests and fuzzers, which write
//! anything into the rings.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "test code stops at the first surprise"
)]

pub mod script;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::ManuallyDrop;
use std::net::Ipv4Addr;
use std::rc::Rc;

use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::{netif_rx_request, netif_rx_response, netif_tx_request, sring};
use zerocopy::{Immutable, IntoBytes};

use crate::port::{Features, Rings};
use crate::switch::{Guard, Guest, Mac, SendLimits};
use crate::vnet;
use crate::xen::{Access, Direction, PAGE, Pages, Piece, Segment, Wire, Xen};
use crate::xenbus::Interface;

/// The grant reference of the transmit ring.
pub const TX_RING: u32 = 8;
/// The grant reference of the receive ring.
pub const RX_RING: u32 = 9;
/// The grant reference of the first buffer. The others follow it.
pub const BUFFERS: u32 = 10;
/// The event channel of both rings.
pub const PORT: u32 = 3;
/// The number of buffers.
pub const COUNT: u32 = 64;
/// The bridge of all guests.
pub const BRIDGE: &str = "xenbr0";
/// dom0's address on it.
pub const HOST: Mac = [0x52, 0x54, 0, 0, 0, 1];

/// A guest's memory and grants.
#[derive(Debug)]
pub struct Memory {
    /// The page of each grant reference, and whether it may be written.
    pub grants: BTreeMap<u32, (SharedPage, bool)>,
    /// The number of mappings of each page.
    mapped: BTreeMap<u32, usize>,
    is_bound: bool,
    /// The number of notifications so far.
    pub notified: usize,
    /// The number of requests written so far.
    tx_prod: u32,
    rx_prod: u32,
    /// The number of receive responses read so far.
    rx_cons: u32,
}

impl Memory {
    fn new() -> Self {
        let references = [TX_RING, RX_RING]
            .into_iter()
            .chain(BUFFERS..BUFFERS + COUNT);
        let grants = references.map(|reference| (reference, (SharedPage::leak(), true)));
        let mut memory = Self {
            grants: grants.collect(),
            mapped: BTreeMap::new(),
            is_bound: false,
            notified: 0,
            tx_prod: 0,
            rx_prod: 0,
            rx_cons: 0,
        };
        memory.reset();
        memory
    }

    /// Resets the memory for a new guest.
    fn reset(&mut self) {
        for (page, is_writable) in self.grants.values_mut() {
            *is_writable = true;
            page.zero();
        }
        for ring in [TX_RING, RX_RING] {
            let page = self.page(ring);
            page.store_release(sring::REQ_EVENT, 1);
            page.store_release(sring::RSP_EVENT, 1);
        }
        self.notified = 0;
        self.is_bound = false;
        (self.tx_prod, self.rx_prod, self.rx_cons) = (0, 0, 0);
    }

    /// The page of a grant reference.
    #[must_use]
    pub fn page(&self, reference: u32) -> &SharedPage {
        &self.grants[&reference].0
    }

    /// Writes a transmit slot. It is published by [`Memory::publish`].
    pub fn transmit<T: IntoBytes + Immutable>(&mut self, slot: &T) {
        let at = sring::RING + self.tx_prod as usize % 256 * size_of::<netif_tx_request>();
        self.page(TX_RING).write(at, slot);
        self.tx_prod = self.tx_prod.wrapping_add(1);
    }

    /// Writes a frame into a buffer and a request for it.
    pub fn send(&mut self, buffer: u32, frame: &[u8]) {
        self.page(BUFFERS + buffer).copy_in(0, frame);
        self.transmit(&netif_tx_request {
            gref: BUFFERS + buffer,
            offset: 0,
            flags: 0,
            id: u16::try_from(buffer).unwrap(),
            size: u16::try_from(frame.len()).unwrap(),
        });
    }

    /// Posts a receive buffer.
    pub fn post(&mut self, buffer: u32) {
        let at = sring::RING + self.rx_prod as usize % 256 * size_of::<netif_rx_request>();
        let request = netif_rx_request {
            id: u16::try_from(buffer).unwrap(),
            pad: 0,
            gref: BUFFERS + buffer,
        };
        self.page(RX_RING).write(at, &request);
        self.rx_prod = self.rx_prod.wrapping_add(1);
    }

    /// Publishes the requests that were written.
    pub fn publish(&self) {
        self.page(TX_RING)
            .store_release(sring::REQ_PROD, self.tx_prod);
        self.page(RX_RING)
            .store_release(sring::REQ_PROD, self.rx_prod);
    }

    /// Reads the next receive response, and the contents of its buffer.
    pub fn receive(&mut self) -> Option<(netif_rx_response, Vec<u8>)> {
        let page = self.page(RX_RING);
        if page.load_acquire(sring::RSP_PROD) == self.rx_cons {
            return None;
        }
        let at = sring::RING + self.rx_cons as usize % 256 * size_of::<netif_rx_response>();
        let response: netif_rx_response = page.read(at);
        self.rx_cons = self.rx_cons.wrapping_add(1);
        let mut bytes = vec![0; usize::try_from(response.status).unwrap_or(0)];
        if let Some((buffer, _)) = self.grants.get(&(BUFFERS + u32::from(response.id))) {
            buffer.copy_out(0, &mut bytes);
        }
        Some((response, bytes))
    }

    /// The number of mapped pages.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.mapped.len()
    }
}

type Shared = Rc<RefCell<Memory>>;

thread_local! {
    /// The memory of earlier machines, for reuse: millions of machines need no more than one. Its pages and the list
    /// are leaked on purpose, so that a leak checker finds them in use.
    static POOL: RefCell<ManuallyDrop<Vec<Shared>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// The guests, by domid.
#[derive(Clone, Debug, Default)]
pub struct Machines(Rc<RefCell<BTreeMap<u16, Shared>>>);

/// Mapped pages of one guest.
#[derive(Debug)]
pub struct Mapping {
    memory: Shared,
    references: Vec<u32>,
    pages: Vec<SharedPage>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut memory = self.memory.borrow_mut();
        for reference in &self.references {
            let times = memory.mapped.get_mut(reference).unwrap();
            *times -= 1;
            if *times == 0 {
                memory.mapped.remove(reference);
            }
        }
    }
}

impl Pages for Mapping {
    fn page(&self, index: usize) -> Option<&SharedPage> {
        self.pages.get(index)
    }
}

impl Machines {
    /// Adds a guest, which the caller acts for.
    #[must_use]
    pub fn add(&self, domain: u16) -> Shared {
        let old = POOL.with_borrow_mut(|pool| {
            let free = pool.iter().position(|memory| Rc::strong_count(memory) == 1);
            free.map(|at| pool[at].clone())
        });
        let memory = old.unwrap_or_else(|| {
            let memory = Rc::new(RefCell::new(Memory::new()));
            POOL.with_borrow_mut(|pool| pool.push(memory.clone()));
            memory
        });
        memory.borrow_mut().reset();
        self.0.borrow_mut().insert(domain, memory.clone());
        memory
    }

    fn get(&self, domain: u16) -> io::Result<Shared> {
        let machines = self.0.borrow();
        machines
            .get(&domain)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Xen for Machines {
    type Mapping = Mapping;

    fn map(&self, domain: u16, references: &[u32], access: Access) -> io::Result<Mapping> {
        let memory = self.get(domain)?;
        let mut mapping = Mapping {
            memory: memory.clone(),
            references: Vec::new(),
            pages: Vec::new(),
        };
        for reference in references {
            let mut memory = memory.borrow_mut();
            let (page, is_writable) = memory
                .grants
                .get(reference)
                .ok_or(io::ErrorKind::InvalidInput)?;
            if access == Access::Write && !is_writable {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            mapping.pages.push(page.alias());
            mapping.references.push(*reference);
            *memory.mapped.entry(*reference).or_default() += 1;
        }
        Ok(mapping)
    }

    fn copy(
        &self,
        domain: u16,
        direction: Direction,
        segments: &mut [Segment],
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let memory = self.get(domain)?;
        let memory = memory.borrow();
        for segment in segments {
            let (offset, length) = (usize::from(segment.offset), usize::from(segment.length));
            assert!(offset + length <= PAGE, "{segment:?}");
            let local = &mut buffer[segment.at..segment.at + length];
            match (memory.grants.get(&segment.reference), direction) {
                (Some((page, _)), Direction::FromGuest) => page.copy_out(offset, local),
                (Some((page, true)), Direction::ToGuest) => page.copy_in(offset, local),
                _ => continue,
            }
            segment.is_done = true;
        }
        Ok(())
    }

    fn bind(&self, domain: u16, port: u32) -> io::Result<u32> {
        let memory = self.get(domain)?;
        let mut memory = memory.borrow_mut();
        if port != PORT || memory.is_bound {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        memory.is_bound = true;
        Ok(u32::from(domain))
    }

    fn unbind(&self, port: u32) {
        let memory = self.get(u16::try_from(port).unwrap()).unwrap();
        memory.borrow_mut().is_bound = false;
    }

    fn notify(&self, port: u32) {
        let memory = self.get(u16::try_from(port).unwrap()).unwrap();
        memory.borrow_mut().notified += 1;
    }

    fn unmask(&self, _ports: &[u32]) {}
}

/// A port on a bridge. The caller is the bridge's side.
#[derive(Clone, Debug, Default)]
pub struct Tap(Rc<RefCell<Bridge>>);

#[derive(Debug, Default)]
struct Bridge {
    to_switch: VecDeque<Vec<u8>>,
    from_switch: VecDeque<Vec<u8>>,
    /// The number of frames that came in more than one piece.
    gathered: usize,
    is_lost: bool,
}

impl Tap {
    /// Sends a frame from the bridge.
    pub fn send(&self, frame: &[u8]) {
        self.send_with([0; vnet::SIZE], frame);
    }

    /// Sends a frame from the bridge with this header.
    pub fn send_with(&self, header: [u8; vnet::SIZE], frame: &[u8]) {
        let frame = [&header[..], frame].concat();
        self.0.borrow_mut().to_switch.push_back(frame);
    }

    /// The number of frames that the switch has not read yet.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.0.borrow().to_switch.len()
    }

    /// The next frame that went to the bridge, with its header.
    #[must_use]
    pub fn received(&self) -> Option<([u8; vnet::SIZE], Vec<u8>)> {
        let frame = self.0.borrow_mut().from_switch.pop_front()?;
        let (header, frame) = frame.split_first_chunk()?;
        Some((*header, frame.to_vec()))
    }

    /// All frames that went to the bridge, without their headers.
    #[must_use]
    pub fn frames(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.received())
            .map(|(_, frame)| frame)
            .collect()
    }

    /// The number of frames so far that the switch has not copied whole.
    #[must_use]
    pub fn gathered(&self) -> usize {
        self.0.borrow().gathered
    }

    /// Sets the port down.
    pub fn lose(&self) {
        self.0.borrow_mut().is_lost = true;
    }
}

impl Wire for Tap {
    fn read(
        &mut self,
        buffers: &mut [&mut [u8]],
        done: &mut dyn FnMut(usize, usize),
    ) -> io::Result<bool> {
        let mut bridge = self.0.borrow_mut();
        if bridge.is_lost {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for (index, buffer) in buffers.iter_mut().enumerate() {
            let Some(frame) = bridge.to_switch.pop_front() else {
                return Ok(false);
            };
            // A frame that does not fit is cut, as by the kernel.
            let length = frame.len().min(buffer.len());
            buffer[..length].copy_from_slice(&frame[..length]);
            done(index, length);
        }
        Ok(true)
    }

    fn write(&mut self, frames: &[&[Piece<'_>]], done: &mut dyn FnMut(usize, bool)) {
        for (index, pieces) in frames.iter().enumerate() {
            let mut frame = Vec::new();
            for piece in *pieces {
                let start = frame.len();
                frame.resize(start + piece.length(), 0);
                piece.copy_to(&mut frame[start..]);
            }
            let is_sent = frame.len() >= vnet::SIZE + 14;
            if is_sent {
                let mut bridge = self.0.borrow_mut();
                bridge.gathered += usize::from(pieces.len() > 1);
                bridge.from_switch.push_back(frame);
            }
            done(index, is_sent);
        }
    }
}

/// The MAC address of a guest.
#[must_use]
pub fn mac(domain: u16) -> Mac {
    let [high, low] = domain.to_be_bytes();
    [0, 0x16, 0x3e, 0, high, low]
}

/// The IPv4 address of a guest.
#[must_use]
pub fn ip(domain: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + u32::from(domain))
}

/// A guest as the builder gives it to the switch.
#[must_use]
pub fn guest(domain: u16) -> Guest {
    Guest {
        name: format!("guest{domain}"),
        bridge: BRIDGE.to_owned(),
        mac: mac(domain),
        ipv4: Some(ip(domain)),
        ipv6: None,
        guard: Guard::Full,
        rings: Rings {
            domain,
            tx_ring: TX_RING,
            rx_ring: RX_RING,
            tx_port: PORT,
            rx_port: None,
        },
        features: Features::default(),
        limits: SendLimits::default(),
    }
}

/// What dom0 knows of the interface of such a guest, which does the handshake itself.
#[must_use]
pub fn interface(domain: u16) -> Interface {
    let guest = guest(domain);
    Interface {
        name: guest.name,
        bridge: guest.bridge,
        mac: guest.mac,
        ipv4: guest.ipv4,
        ipv6: guest.ipv6,
        guard: guest.guard,
        limits: guest.limits,
        persistent: guest.features.persistent,
        connected: None,
    }
}

/// A UDP datagram from a guest to this MAC address.
#[must_use]
pub fn datagram(from: u16, to: Mac, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(28 + payload.len()).unwrap();
    let mut frame = [&to[..], &mac(from), &[8, 0, 0x45, 0]].concat();
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(ip(from).octets());
    frame.extend([10, 0, 2, 9]);
    frame.extend([0, 53, 0x30, 0x39]);
    frame.extend((length - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend_from_slice(payload);
    frame
}
