//! Transmit path of the guest: turns its requests into frames.
//!
//! The checks are those of Linux' netback (drivers/net/xen-netback/netback.c, `xenvif_tx_build_gops`): a fault that a
//! front end can make only on purpose, or with a broken ring, shuts its port; a faulty frame is answered with an error,
//! dropped and counted.

mod frames;

use std::ops::Range;

use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::{
    NETIF_RSP_NULL, NETIF_RSP_OKAY, NetTxFlags, XEN_NETIF_EXTRA_FLAG_MORE,
    XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_NR_SLOTS_MIN, netif_extra_gso,
    netif_tx_request, netif_tx_response,
};

use super::groups::Groups;
use super::ring::Ring;
use super::window::Window;
use super::{PortCounters, Shut};
use crate::arena::Arena;
use crate::offload::{ETHERNET, Family};
use crate::xen::{Access, PAGE, Pages, Segment, Xen};

use frames::Copied;
pub(crate) use frames::{Tail, Taken};

/// `NETIF_RSP_ERROR` (io/netif.h).
const NETIF_RSP_ERROR: i16 = -1;
/// `XEN_NETIF_EXTRA_TYPE_MCAST_ADD` and `_DEL`, and the first unknown type.
const EXTRA_MCAST_ADD: u8 = 2;
const EXTRA_MCAST_DEL: u8 = 3;
const EXTRA_TYPE_MAX: u8 = 6;
/// `XEN_NETIF_GSO_TYPE_TCPV6`.
const GSO_TYPE_TCPV6: u8 = 2;
/// The slots of a frame from which the front end counts as malicious (netback's `fatal_skb_slots`).
const SLOTS_FATAL: usize = 20;

/// The most that is taken in one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Frames.
    pub(crate) frames: usize,
    /// Bytes. A further frame is begun below this number.
    pub(crate) bytes: usize,
    /// Whether the tails of long frames may be left in the guest's pages.
    pub(crate) may_leave: bool,
}

/// The response of a slot.
#[derive(Clone, Copy, Debug)]
struct Answer {
    id: u16,
    status: i16,
}

/// A frame whose requests were read.
struct Parsed {
    /// The index of its first response.
    first: usize,
    /// The number of its slots.
    slots: usize,
    /// Its bytes, as a range of [`Transmit::parts`].
    parts: Range<usize>,
    flags: NetTxFlags,
    gso: Option<(Family, u16)>,
    is_good: bool,
}

/// A range of bytes in one page.
#[derive(Clone, Copy)]
struct Part {
    reference: u32,
    offset: u16,
    size: u16,
}

impl Part {
    fn of(request: &netif_tx_request) -> Self {
        Self {
            reference: request.gref,
            offset: request.offset,
            size: request.size,
        }
    }

    /// The copy of it to an offset of the arena.
    fn segment(&self, at: usize) -> Segment {
        Segment {
            reference: self.reference,
            offset: self.offset,
            length: self.size,
            at,
            is_done: false,
        }
    }

    fn crosses_page(&self) -> bool {
        usize::from(self.offset) + usize::from(self.size) > PAGE
    }
}

/// The transmit ring.
pub(super) struct Transmit<M> {
    ring: Ring,
    window: Window<M>,
    answers: Vec<Answer>,
    /// The bytes of the frames that were taken last.
    parts: Vec<Part>,
    /// The frame of each waiting copy: its index in the list of frames, if it is in there.
    copies: Vec<usize>,
}

/// The parameters of [`Transmit::take`].
pub(super) struct Room<'r> {
    pub(super) page: &'r SharedPage,
    pub(super) domain: u16,
    pub(super) arena: &'r mut Arena,
    pub(super) groups: &'r mut Groups,
    pub(super) counters: &'r mut PortCounters,
}

impl<M: Pages> Transmit<M> {
    pub(super) fn adopt(page: &SharedPage, is_persistent: bool) -> Self {
        Self {
            ring: Ring::adopt(page, size_of::<netif_tx_request>()),
            window: Window::new(Access::Read, is_persistent),
            answers: Vec::new(),
            parts: Vec::new(),
            copies: Vec::new(),
        }
    }

    pub(super) fn mapped(&self) -> usize {
        self.window.mapped()
    }

    /// Asks to be notified of the next request; returns whether there is one already.
    pub(super) fn rest(&self, page: &SharedPage) -> Result<bool, Shut> {
        Ok(self.ring.ask(page, 1)? != 0)
    }

    /// Takes frames, copied into the arena, but for the tails of long ones if `budget` allows that. They are answered by
    /// [`Transmit::finish`].
    pub(super) fn take(
        &mut self,
        xen: &impl Xen<Mapping = M>,
        room: &mut Room<'_>,
        budget: Budget,
        frames: &mut Vec<Taken>,
    ) -> Result<(), Shut> {
        let mut left = self.ring.waiting(room.page)?;
        if left == 0 {
            return Ok(());
        }
        self.parts.clear();
        let mut copied: Vec<Copied> = Vec::with_capacity(budget.frames.min(left as usize));
        let mut bytes = 0;
        let mut slots = 0;
        let mut shut = None;
        while slots < left && copied.len() < budget.frames && bytes < budget.bytes {
            if !room.arena.has_room() {
                break;
            }
            let answers = self.answers.len();
            let parsed = match self.parse(room, slots, left) {
                Ok(parsed) => parsed,
                Err(reason) => {
                    // The frames before it were valid.
                    self.answers.truncate(answers);
                    shut = Some(reason);
                    break;
                }
            };
            #[allow(clippy::cast_possible_truncation, reason = "no more than the ring has")]
            {
                slots += parsed.slots as u32;
            }
            if parsed.is_good
                && let Some(one) = self.copy(xen, room, (parsed, copied.len()), budget.may_leave)
            {
                bytes += one.taken.frame.range.len();
                copied.push(one);
            }
            if slots == left {
                left = self.ring.waiting(room.page).unwrap_or(left);
            }
        }
        let done = self.window.flush(xen, room.domain, room.arena.bytes());
        for (frame, is_done) in self.copies.drain(..).zip(done) {
            if let Some(one) = copied.get_mut(frame) {
                one.is_good &= is_done;
            }
        }
        for one in copied {
            self.judge(one, room, frames);
        }
        shut.map_or(Ok(()), Err)
    }

    /// Reads the requests of one frame, each of them once.
    fn parse(&mut self, room: &mut Room<'_>, at: u32, left: u32) -> Result<Parsed, Shut> {
        let request: netif_tx_request = self.ring.read(room.page, at);
        let flags = NetTxFlags::from_bits_truncate(request.flags);
        let mut parsed = Parsed {
            first: self.answers.len(),
            slots: 1,
            parts: self.parts.len()..self.parts.len(),
            flags,
            gso: None,
            is_good: true,
        };
        self.answers.push(Answer {
            id: request.id,
            status: NETIF_RSP_OKAY,
        });
        let mut at = at + 1;
        if flags.contains(NetTxFlags::EXTRA_INFO)
            && let Some(is_accepted) = self.extras(room, &mut at, left, &mut parsed)?
        {
            // A request about multicast groups, without a frame.
            parsed.is_good = false;
            if !is_accepted {
                self.refuse(&parsed);
            }
            return Ok(parsed);
        }
        self.parts(room, &request, at, left, parsed)
    }

    /// Reads the further requests of a frame. The size in its first request is that of the whole frame, so the first
    /// part has the rest.
    fn parts(
        &mut self,
        room: &mut Room<'_>,
        request: &netif_tx_request,
        mut at: u32,
        left: u32,
        mut parsed: Parsed,
    ) -> Result<Parsed, Shut> {
        let mut rest = request.size;
        let mut fault = None;
        let mut others = 0;
        self.parts.push(Part::of(request));
        let mut more = parsed.flags.contains(NetTxFlags::MORE_DATA);
        while more {
            if at >= left {
                return Err(Shut::MissingSlots);
            }
            if others + 1 >= SLOTS_FATAL {
                return Err(Shut::TooManySlots);
            }
            let request: netif_tx_request = self.ring.read(room.page, at);
            at += 1;
            parsed.slots += 1;
            self.answers.push(Answer {
                id: request.id,
                status: NETIF_RSP_OKAY,
            });
            let part = Part::of(&request);
            if part.crosses_page() {
                return Err(Shut::CrossesPage);
            }
            match rest.checked_sub(part.size) {
                Some(remaining) => rest = remaining,
                None => fault = Some(&mut room.counters.bad_size),
            }
            self.parts.push(part);
            others += 1;
            more = request.flags & NetTxFlags::MORE_DATA.bits() != 0;
        }
        if others + 1 > XEN_NETIF_NR_SLOTS_MIN {
            fault = Some(&mut room.counters.too_many_slots);
        }
        let first = Part {
            size: rest,
            ..Part::of(request)
        };
        if fault.is_none() && usize::from(rest) < ETHERNET {
            fault = Some(&mut room.counters.bad_size);
        }
        if let Some(counter) = fault {
            *counter += 1;
            parsed.is_good = false;
            self.refuse(&parsed);
            return Ok(parsed);
        }
        if first.crosses_page() {
            return Err(Shut::CrossesPage);
        }
        if let Some(place) = self.parts.get_mut(parsed.parts.start) {
            *place = first;
        }
        parsed.parts.end = self.parts.len();
        Ok(parsed)
    }

    /// Reads the extra-info slots after a frame's first. If one of them is about a multicast group, returns whether it
    /// was accepted.
    fn extras(
        &mut self,
        room: &mut Room<'_>,
        at: &mut u32,
        left: u32,
        parsed: &mut Parsed,
    ) -> Result<Option<bool>, Shut> {
        let mut group = None;
        let mut more = true;
        while more {
            if *at >= left {
                return Err(Shut::MissingExtra);
            }
            let extra: netif_extra_gso = self.ring.read(room.page, *at);
            *at += 1;
            parsed.slots += 1;
            self.answers.push(Answer {
                id: 0,
                status: NETIF_RSP_NULL,
            });
            if extra.type_ == 0 || extra.type_ >= EXTRA_TYPE_MAX {
                return Err(Shut::BadExtra);
            }
            more = extra.flags & XEN_NETIF_EXTRA_FLAG_MORE != 0;
            match extra.type_ {
                XEN_NETIF_EXTRA_TYPE_GSO => {
                    let family = match extra.gso_type {
                        XEN_NETIF_GSO_TYPE_TCPV4 => Family::V4,
                        GSO_TYPE_TCPV6 => Family::V6,
                        _ => return Err(Shut::BadGso),
                    };
                    if extra.size == 0 {
                        return Err(Shut::BadGso);
                    }
                    parsed.gso = Some((family, extra.size));
                }
                EXTRA_MCAST_ADD => group = Some(room.groups.add(address(&extra))),
                EXTRA_MCAST_DEL => group = Some(room.groups.remove(address(&extra))),
                // A hash of the flow, or XDP's headroom, which this back end does not ask for.
                _ => {}
            }
        }
        Ok(group)
    }

    /// Answers a frame's data slots with an error.
    fn refuse(&mut self, parsed: &Parsed) {
        let slots = self
            .answers
            .get_mut(parsed.first..parsed.first + parsed.slots);
        for answer in slots.unwrap_or_default() {
            if answer.status == NETIF_RSP_OKAY {
                answer.status = NETIF_RSP_ERROR;
            }
        }
    }

    /// Answers the requests that were taken; returns whether the guest asked to be notified.
    pub(super) fn finish(&mut self, page: &SharedPage) -> bool {
        for answer in self.answers.drain(..) {
            // The rest of the slot is unchanged: the response is shorter than the request.
            let response = netif_tx_response {
                id: answer.id,
                status: answer.status,
            };
            self.ring.answer(page, &response);
        }
        self.ring.publish(page)
    }

    /// The number of slots that were taken and not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.answers.len()
    }
}

/// `u.mcast.addr`: the six bytes after type and flags.
fn address(extra: &netif_extra_gso) -> [u8; 6] {
    let [a, b] = extra.size.to_le_bytes();
    let [e, f] = extra.features.to_le_bytes();
    [a, b, extra.gso_type, extra.pad, e, f]
}
