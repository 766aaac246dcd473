//! The back end of one guest: two rings, the event channels, and the counters of its frames.
//!
//! Source of the protocol: Xen 4.17 public/io/netif.h. The guest is not trusted: each request is copied once and
//! checked, the switch's own indices are kept here, and pages are only reached through the guest's grants. A fault in
//! one frame makes that frame be dropped and counted. A fault that no sound front end can make shuts the port, with the
//! reason, and releases all grants of the guest.

mod counters;
mod groups;
mod receive;
mod ring;
mod transmit;
mod window;

use std::collections::VecDeque;
use std::io;

use serde::{Deserialize, Serialize};

pub use counters::{PortCounters, Traffic};
pub(crate) use groups::Groups;
pub(crate) use transmit::{Budget, Tail, Taken};

use crate::arena::{Arena, Frame};
use crate::offload::{Checksum, Family, Offload};
use crate::xen::{Access, PAGE, Pages, Piece, Xen};
use receive::Receive;
use transmit::{Room, Transmit};

/// The features of the guest's front end (io/netif.h, the keys of these names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "a front end's keys")]
pub struct Features {
    /// `feature-sg`: frames of several pages.
    #[serde(skip_serializing_if = "is_false")]
    pub sg: bool,
    /// `feature-gso-tcpv4`: TCP over IPv4 that is not segmented.
    #[serde(skip_serializing_if = "is_false")]
    pub gso_tcpv4: bool,
    /// `feature-gso-tcpv6`: the same over IPv6.
    #[serde(skip_serializing_if = "is_false")]
    pub gso_tcpv6: bool,
    /// Not `feature-no-csum-offload`: blank checksums over IPv4.
    #[serde(skip_serializing_if = "is_true")]
    pub csum4: bool,
    /// `feature-ipv6-csum-offload`: the same over IPv6.
    #[serde(skip_serializing_if = "is_false")]
    pub csum6: bool,
    /// Grants are valid for the lifetime of the link, so that the pages may be mapped.
    #[serde(skip_serializing_if = "is_false")]
    pub persistent: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            sg: false,
            gso_tcpv4: false,
            gso_tcpv6: false,
            csum4: true,
            csum6: false,
            persistent: false,
        }
    }
}

/// What a field has by default is left out of messages: a client waits while they are written and parsed.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_true(flag: &bool) -> bool {
    *flag
}

impl Features {
    /// Whether the front end takes such a frame unchanged.
    #[must_use]
    pub fn take(&self, frame: &Frame) -> bool {
        match frame.offload.cut {
            Some((Family::V4, _)) => self.sg && self.gso_tcpv4,
            Some((Family::V6, _)) => self.sg && self.gso_tcpv6,
            None => self.sg || frame.range.len() <= PAGE,
        }
    }

    /// Whether the front end takes a blank checksum.
    #[must_use]
    pub fn take_blank(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.csum4,
            Family::V6 => self.csum6,
        }
    }
}

/// The grant references and event channels of the guest's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rings {
    /// The guest.
    pub domain: u16,
    /// The transmit ring's grant reference.
    pub tx_ring: u32,
    /// The receive ring's grant reference.
    pub rx_ring: u32,
    /// The transmit ring's event channel, as the guest's port. It serves both rings if there is no other.
    pub tx_port: u32,
    /// The receive ring's event channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_port: Option<u32>,
}

/// The reason why a port was shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shut {
    /// A request index went backwards, or is further ahead than the ring has entries.
    #[error("its request index is not within the ring")]
    Index,
    /// A frame's extra-info slot is missing.
    #[error("an extra-info slot is missing")]
    MissingExtra,
    /// Extra info of an unknown type.
    #[error("an extra-info slot has an unknown type")]
    BadExtra,
    /// Segmentation with size 0, or of an unknown protocol.
    #[error("an extra-info slot asks for segments that there cannot be")]
    BadGso,
    /// A frame's further slots are missing.
    #[error("slots of a frame are missing")]
    MissingSlots,
    /// A frame has more slots than any front end makes.
    #[error("a frame has too many slots")]
    TooManySlots,
    /// The bytes of a slot cross the end of a page.
    #[error("a slot crosses its page")]
    CrossesPage,
    /// An event channel that was named cannot be bound.
    #[error("its event channel cannot be bound")]
    Channel,
}

/// The most frames, and bytes of frames, that wait for a guest whose ring is full.
const QUEUE_FRAMES: usize = 256;
const QUEUE_BYTES: usize = 512 * 1024;
/// The time without room, in ns, after which all waiting frames are dropped (netback's `rx_drain_timeout_msecs`).
const QUEUE_PATIENCE: u64 = 10_000_000_000;

/// A frame that waits for room in the ring.
#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    offload: Offload,
    since: u64,
}

/// The rings, while the port is open.
struct Link<M> {
    pages: M,
    tx: Transmit<M>,
    rx: Receive<M>,
    /// The switch's end of each event channel, transmit and receive, once they are bound.
    local: Option<[u32; 2]>,
    /// Whether the guest asked for a notification before they were.
    is_notification_due: bool,
}

impl<M> Link<M> {
    /// Notifies the guest through the event channel of one of the rings.
    fn notify(&mut self, xen: &impl Xen, ring: usize) {
        match self.local.and_then(|local| local.get(ring).copied()) {
            Some(port) => xen.notify(port),
            None => self.is_notification_due = true,
        }
    }
}

/// The numbers of the rings in [`Link::local`].
const TX: usize = 0;
const RX: usize = 1;

/// The back end of one guest.
pub(crate) struct Port<X: Xen> {
    pub(crate) domain: u16,
    rings: Rings,
    pub(crate) features: Features,
    pub(crate) groups: Groups,
    pub(crate) counters: PortCounters,
    link: Option<Link<X::Mapping>>,
    queue: VecDeque<Waiting>,
    queued_bytes: usize,
    shut: Option<Shut>,
}

impl<X: Xen> Port<X> {
    /// Maps the rings. It continues at their present indices. The event channels are bound by [`Port::bind`].
    ///
    /// # Errors
    /// The guest has not granted its rings.
    pub(crate) fn open(xen: &X, rings: &Rings, features: Features) -> io::Result<Self> {
        let references = [rings.tx_ring, rings.rx_ring];
        let pages = xen.map(rings.domain, &references, Access::Write)?;
        let (Some(tx), Some(rx)) = (pages.page(0), pages.page(1)) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let tx = Transmit::adopt(tx, features.persistent);
        let rx = Receive::adopt(rx, features.persistent);
        Ok(Self {
            domain: rings.domain,
            rings: *rings,
            features,
            groups: Groups::default(),
            counters: PortCounters::default(),
            link: Some(Link {
                pages,
                tx,
                rx,
                local: None,
                is_notification_due: false,
            }),
            queue: VecDeque::new(),
            queued_bytes: 0,
            shut: None,
        })
    }

    /// Binds the event channels, and makes up for a notification that the guest asked for before. Until then the guest
    /// has to be looked at without an event. If that fails, the port is shut.
    pub(crate) fn bind(&mut self, xen: &X) {
        let Some(link) = self.link.as_mut().filter(|link| link.local.is_none()) else {
            return;
        };
        let Ok(tx_port) = xen.bind(self.rings.domain, self.rings.tx_port) else {
            self.shut = Some(Shut::Channel);
            return self.close(xen);
        };
        let rx_port = match self.rings.rx_port {
            None => Ok(tx_port),
            Some(port) => xen.bind(self.rings.domain, port),
        };
        let Ok(rx_port) = rx_port else {
            xen.unbind(tx_port);
            self.shut = Some(Shut::Channel);
            return self.close(xen);
        };
        link.local = Some([tx_port, rx_port]);
        if std::mem::take(&mut link.is_notification_due) {
            xen.notify(tx_port);
            if rx_port != tx_port {
                xen.notify(rx_port);
            }
        }
    }

    /// The grant references and event channels of its rings.
    pub(crate) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Whether it was opened with these.
    pub(crate) fn is_of(&self, rings: &Rings, features: Features) -> bool {
        self.rings == *rings && self.features == features
    }

    /// The switch's ends of its event channels, once they are bound.
    pub(crate) fn ports(&self) -> Option<[u32; 2]> {
        self.link.as_ref()?.local
    }

    /// The reason why it was shut, if it was.
    pub(crate) fn reason(&self) -> Option<Shut> {
        self.shut
    }

    /// The number of mapped pages of buffers.
    pub(crate) fn mapped(&self) -> usize {
        let link = self.link.as_ref();
        link.map_or(0, |link| link.tx.mapped() + link.rx.mapped())
    }

    /// The number of frames that wait for room in its ring.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Takes the frames that wait for room in its ring.
    pub(crate) fn unqueue(&mut self) -> impl Iterator<Item = (Vec<u8>, Offload)> {
        self.queued_bytes = 0;
        let queue = std::mem::take(&mut self.queue).into_iter();
        queue.map(|waiting| (waiting.bytes, waiting.offload))
    }

    /// Releases all grants of the guest.
    pub(crate) fn close(&mut self, xen: &X) {
        if let Some([tx_port, rx_port]) = self.link.take().and_then(|link| link.local) {
            xen.unbind(tx_port);
            if rx_port != tx_port {
                xen.unbind(rx_port);
            }
        }
        self.counters.dropped_full += self.queue.len() as u64;
        self.queue.clear();
        self.queued_bytes = 0;
    }

    fn check<T>(&mut self, xen: &X, result: Result<T, Shut>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(reason) => {
                self.shut = Some(reason);
                self.close(xen);
                None
            }
        }
    }

    /// Takes frames that the guest sends into the arena. They are answered by [`Port::answer`].
    pub(crate) fn take(
        &mut self,
        xen: &X,
        arena: &mut Arena,
        budget: Budget,
        frames: &mut Vec<Taken>,
    ) {
        let Some(link) = &mut self.link else {
            return;
        };
        let Some(page) = link.pages.page(0) else {
            return;
        };
        let mut room = Room {
            page,
            domain: self.domain,
            arena,
            groups: &mut self.groups,
            counters: &mut self.counters,
        };
        let taken = link.tx.take(xen, &mut room, budget, frames);
        if let Err(reason) = taken {
            // The frames before the fault are forwarded and answered; then the port is shut.
            self.shut = Some(reason);
        }
    }

    /// The tail of a frame that was taken last; nothing once the port is shut.
    pub(crate) fn left(&self, tail: &Tail) -> impl Iterator<Item = Piece<'_>> {
        let link = self.link.iter();
        link.flat_map(|link| link.tx.left(tail))
    }

    /// Copies the tail of a frame that was taken last to its place in the arena.
    pub(crate) fn fetch(&self, frame: &Frame, tail: &Tail, arena: &mut Arena) {
        let mut at = frame.range.start + tail.head;
        for piece in self.left(tail) {
            let end = at + piece.length();
            piece.copy_to(arena.frame_mut(&(at..end)));
            at = end;
        }
    }

    /// Answers the requests that were taken, and notifies the guest if it asked for that. Returns whether any were
    /// taken.
    pub(crate) fn answer(&mut self, xen: &X) -> bool {
        let mut is_any = false;
        if let Some(link) = &mut self.link
            && let Some(page) = link.pages.page(0)
        {
            is_any = link.tx.unanswered() != 0;
            if link.tx.finish(page) {
                self.counters.notifications += 1;
                link.notify(xen, TX);
            }
        }
        if self.shut.is_some() {
            self.close(xen);
        }
        is_any
    }

    /// Asks to be notified of the next request; returns whether there is one already.
    pub(crate) fn rest(&mut self, xen: &X) -> bool {
        let Some(link) = &self.link else {
            return false;
        };
        let Some(page) = link.pages.page(0) else {
            return false;
        };
        let result = link.tx.rest(page);
        self.check(xen, result).unwrap_or(false)
    }

    /// Puts a frame of the arena into the guest's ring, or queues it while the ring is full. The guest has to take it
    /// unchanged ([`Features::take`]). Returns whether there is something to flush now.
    pub(crate) fn give(&mut self, xen: &X, arena: &mut Arena, frame: &Frame, now: u64) -> bool {
        if self.link.is_none() {
            return false;
        }
        if self.queue.is_empty() && self.put(xen, arena, frame) {
            return true;
        }
        let length = frame.range.len();
        if self.link.is_none() {
            // The check of its ring has shut the port.
        } else if self.queue.len() >= QUEUE_FRAMES || self.queued_bytes + length > QUEUE_BYTES {
            self.counters.dropped_full += 1;
        } else {
            self.queued_bytes += length;
            self.queue.push_back(Waiting {
                bytes: arena.frame(&frame.range).to_vec(),
                offload: frame.offload,
                since: now,
            });
        }
        false
    }

    fn put(&mut self, xen: &X, arena: &mut Arena, frame: &Frame) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let Some(page) = link.pages.page(1) else {
            return false;
        };
        match link.rx.has_room(page, receive::slots(frame)) {
            Ok(true) => {
                link.rx.put(xen, page, self.domain, arena, frame);
                self.counters.to_guest.frames += 1;
                self.counters.to_guest.bytes += frame.range.len() as u64;
                true
            }
            Ok(false) => false,
            Err(reason) => {
                self.shut = Some(reason);
                self.close(xen);
                false
            }
        }
    }

    /// Puts waiting frames, as far as there is room in the ring and the arena. Returns whether there is something to
    /// flush now.
    pub(crate) fn drain(&mut self, xen: &X, arena: &mut Arena, now: u64) -> bool {
        let mut is_any = false;
        while let Some(first) = self.queue.front() {
            let Some(range) = arena.push(&first.bytes) else {
                break;
            };
            let (offload, since) = (first.offload, first.since);
            if !self.put(xen, arena, &Frame { range, offload }) {
                if now.saturating_sub(since) > QUEUE_PATIENCE {
                    // The senders do not wait for these frames any more.
                    self.counters.dropped_full += self.queue.len() as u64;
                    self.queue.clear();
                    self.queued_bytes = 0;
                }
                break;
            }
            is_any = true;
            if let Some(done) = self.queue.pop_front() {
                self.queued_bytes -= done.bytes.len();
            }
        }
        is_any
    }

    /// Publishes the frames that were put, and notifies the guest if it asked for that. The arena must not be cleared
    /// before this.
    pub(crate) fn flush(&mut self, xen: &X, arena: &mut Arena) {
        let Some(link) = &mut self.link else {
            return;
        };
        let Some(page) = link.pages.page(1) else {
            return;
        };
        if link
            .rx
            .flush(xen, page, self.domain, arena, &mut self.counters)
        {
            self.counters.notifications += 1;
            link.notify(xen, RX);
        }
    }
}

/// Whether a frame's checksum must be filled in for a front end.
pub(crate) fn must_complete(features: &Features, family: Family, offload: &Offload) -> bool {
    offload.checksum == Checksum::Blank && !features.take_blank(family)
}
