//! A dom0 for the switch: guests with the real front end, and bridges that tests write frames to.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "each test uses a part of it, and stops at the first surprise"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;

use mayfly_drivers::SharedPage;
use mayfly_drivers::fake::FakeXen;
use mayfly_drivers::netfront::BufferCounts;
use mayfly_handoff::network::Preconnected;
use mayfly_model_tests::Guest as Front;
use mayfly_model_tests::frames::{sum, tcp_between};
use mayfly_switch::fake::Tap;
use mayfly_switch::port::{Features, Rings};
use mayfly_switch::switch::{Guard, Guest, Rest, SendLimits};
use mayfly_switch::xen::{Access, Direction, Pages, Segment, Xen};

pub type Switch<'x> = mayfly_switch::Switch<TestXen<'x>, Tap>;

pub const BRIDGE: &str = "xenbr0";
pub const HOST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// dom0's ports of a domain: the domain's own port plus this number times the domid.
const PORTS: u32 = 10_000;

/// dom0's devices, over the machines of some guests.
#[derive(Clone, Default)]
pub struct TestXen<'x> {
    guests: Rc<RefCell<HashMap<u16, &'x FakeXen>>>,
    pub counts: Rc<RefCell<Counts>>,
}

#[derive(Default, Debug)]
pub struct Counts {
    pub copies: usize,
    pub segments: usize,
    pub maps: usize,
    pub notifications: usize,
    pub unmasked: Vec<u32>,
}

pub struct Mapping<'x> {
    xen: &'x FakeXen,
    references: Vec<u32>,
    pages: Vec<SharedPage>,
}

impl Drop for Mapping<'_> {
    fn drop(&mut self) {
        for reference in &self.references {
            self.xen.process().unmap(*reference);
        }
    }
}

impl Pages for Mapping<'_> {
    fn page(&self, index: usize) -> Option<&SharedPage> {
        self.pages.get(index)
    }
}

impl<'x> TestXen<'x> {
    fn guest(&self, domain: u16) -> io::Result<&'x FakeXen> {
        let guests = self.guests.borrow();
        guests
            .get(&domain)
            .copied()
            .ok_or(io::ErrorKind::NotFound.into())
    }

    pub fn add(&self, domain: u16, xen: &'x FakeXen) {
        self.guests.borrow_mut().insert(domain, xen);
    }

    /// The ports on which the guests have notified.
    fn raised(&self) -> Vec<u32> {
        let guests = self.guests.borrow();
        let raised = guests.iter().flat_map(|(domain, xen)| {
            let ports = xen.process().raised();
            ports
                .into_iter()
                .map(|port| u32::from(*domain) * PORTS + port)
        });
        raised.collect()
    }
}

impl<'x> Xen for TestXen<'x> {
    type Mapping = Mapping<'x>;

    fn map(&self, domain: u16, references: &[u32], access: Access) -> io::Result<Mapping<'x>> {
        let xen = self.guest(domain)?;
        self.counts.borrow_mut().maps += 1;
        let mut mapping = Mapping {
            xen,
            references: Vec::new(),
            pages: Vec::new(),
        };
        for reference in references {
            let page = xen.process().map(*reference, access == Access::Write);
            mapping.pages.push(page.ok_or(io::ErrorKind::InvalidInput)?);
            mapping.references.push(*reference);
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
        let xen = self.guest(domain)?;
        let mut counts = self.counts.borrow_mut();
        counts.copies += 1;
        counts.segments += segments.len();
        for segment in segments {
            let (offset, length) = (usize::from(segment.offset), usize::from(segment.length));
            assert!(offset + length <= 4096, "{segment:?}");
            let local = &mut buffer[segment.at..segment.at + length];
            let is_written = direction == Direction::ToGuest;
            if let Some(page) = xen.process().page(segment.reference, is_written) {
                match direction {
                    Direction::FromGuest => page.copy_out(offset, local),
                    Direction::ToGuest => page.copy_in(offset, local),
                }
                segment.is_done = true;
            }
        }
        Ok(())
    }

    fn bind(&self, domain: u16, port: u32) -> io::Result<u32> {
        let bound = self.guest(domain)?.process().bind(port);
        let bound = bound.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(u32::from(domain) * PORTS + bound)
    }

    fn unbind(&self, port: u32) {
        if let Ok(xen) = self.guest(u16::try_from(port / PORTS).unwrap()) {
            xen.process().unbind(port % PORTS);
        }
    }

    fn notify(&self, port: u32) {
        self.counts.borrow_mut().notifications += 1;
        if let Ok(xen) = self.guest(u16::try_from(port / PORTS).unwrap()) {
            xen.process().notify(port % PORTS);
        }
    }

    fn unmask(&self, ports: &[u32]) {
        self.counts.borrow_mut().unmasked.extend(ports);
    }
}

/// dom0.
pub struct Dom0<'x> {
    pub xen: TestXen<'x>,
    pub tap: Tap,
    pub switch: Switch<'x>,
    pub now: u64,
}

impl<'x> Dom0<'x> {
    pub fn new() -> Self {
        let xen = TestXen::default();
        let tap = Tap::default();
        let switch = fresh(&xen, &tap);
        Self {
            xen,
            tap,
            switch,
            now: 1,
        }
    }

    /// Kills the process: the kernel releases its mappings and ports, and the next one starts.
    pub fn kill(&mut self) {
        let guests: Vec<Guest> = self.switch.guests().cloned().collect();
        for guest in &guests {
            // The ports are unbound when the process' descriptor is closed.
            for port in [Some(guest.rings.tx_port), guest.rings.rx_port]
                .into_iter()
                .flatten()
            {
                self.xen
                    .guest(guest.rings.domain)
                    .unwrap()
                    .process()
                    .unbind(port);
            }
        }
        self.switch = fresh(&self.xen, &self.tap);
        for guest in guests {
            self.attach(guest);
        }
    }

    /// Serves a guest, until its event channels are bound.
    pub fn attach(&mut self, guest: Guest) {
        self.switch.attach(guest, self.now).unwrap();
        self.bind();
    }

    /// The time passes until event channels are bound.
    fn bind(&mut self) {
        self.now += 1_000_000;
        self.run();
    }

    /// Runs the loop until there is no work left.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            self.now += 1_000;
            for port in self.xen.raised() {
                self.switch.event(port);
            }
            self.switch.readable(0);
            let is_busy = self.switch.turn(self.now);
            self.switch.bind(self.now, is_busy);
            if !is_busy && self.switch.rest(self.now) != Rest::Busy && self.xen.raised().is_empty()
            {
                return;
            }
        }
        panic!("the switch does not come to rest");
    }
}

fn fresh<'x>(xen: &TestXen<'x>, tap: &Tap) -> Switch<'x> {
    let mut switch = Switch::new(xen.clone());
    switch.add_bridge(BRIDGE, HOST, 1500, tap.clone());
    switch
}

pub fn mac(number: u8) -> [u8; 6] {
    [0, 0x16, 0x3e, 0, 0, number]
}

pub fn ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, number)
}

/// The guest as the builder gives it to the switch, for one that is connected before it runs.
pub fn guest(domain: u16, network: &Preconnected) -> Guest {
    let number = u8::try_from(domain).unwrap();
    Guest {
        name: format!("guest{domain}"),
        bridge: BRIDGE.to_owned(),
        mac: mac(number),
        ipv4: Some(ip(number)),
        ipv6: None,
        guard: Guard::Off,
        rings: Rings {
            domain,
            tx_ring: network.tx_ring.0,
            rx_ring: network.rx_ring.0,
            tx_port: network.tx_port.get(),
            rx_port: None,
        },
        features: Features {
            persistent: true,
            ..Features::default()
        },
        limits: SendLimits::default(),
    }
}

/// Boots the front end of a guest that the switch serves already.
pub fn boot<'x>(xen: &'x FakeXen, network: &Preconnected, config: BufferCounts) -> Front<'x> {
    xen.process().store(|store| {
        for (key, value) in [
            ("feature-sg", "1"),
            ("feature-gso-tcpv4", "1"),
            ("feature-no-csum-offload", "0"),
            ("feature-ipv6-csum-offload", "1"),
            ("online", "1"),
        ] {
            let path = format!("/local/domain/0/backend/vif/1/0/{key}");
            store.set(path.as_bytes(), value.as_bytes());
        }
    });
    Front::adopt(xen, config, network).unwrap()
}

/// A TCP packet between two guests with `payload` bytes of payload and a blank checksum.
pub fn tcp(from: u8, to: [u8; 6], seq: u32, payload: usize) -> Vec<u8> {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&to);
    macs[6..].copy_from_slice(&mac(from));
    tcp_between(macs, [ip(from).octets(), [10, 0, 2, 200]], seq, payload)
}

/// Whether the checksums of a TCP packet over IPv4 are right.
pub fn is_right(frame: &[u8]) -> bool {
    let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let length = u16::try_from(end - 34).unwrap().to_be_bytes();
    sum(&frame[14..34]) == 0xffff
        && sum(&[&frame[26..34], &[0, 6], &length, &frame[34..end]].concat()) == 0xffff
}
