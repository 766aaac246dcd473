//! Receive path of the guest: puts frames into the buffers that it posted.

use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::{
    NETIF_RSP_OKAY, NetRxFlags, XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4,
    netif_rx_request, netif_rx_response,
};
use zerocopy::{Immutable, IntoBytes};

use super::ring::{Ring, SIZE};
use super::window::Window;
use super::{PortCounters, Shut};
use crate::arena::{Arena, Frame};
use crate::offload::{Checksum, Family};
use crate::xen::{Access, PAGE, Pages, Segment, Xen};

/// `NETIF_RSP_ERROR` (io/netif.h).
const NETIF_RSP_ERROR: i16 = -1;
/// `XEN_NETIF_GSO_TYPE_TCPV6`.
const GSO_TYPE_TCPV6: u8 = 2;

/// `struct netif_extra_info` (io/netif.h) of type GSO, as long as a slot of the receive ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct ExtraGso {
    type_: u8,
    flags: u8,
    size: u16,
    gso_type: u8,
    pad: u8,
    features: u16,
}
const _: () = assert!(size_of::<ExtraGso>() == size_of::<netif_rx_response>());

/// A response that waits for the copies of its frame.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Data(netif_rx_response),
    Extra(ExtraGso),
}

/// A frame whose copies wait.
#[derive(Clone, Copy, Debug)]
struct Placed {
    first: usize,
    slots: usize,
}

/// The receive ring.
pub(super) struct Receive<M> {
    ring: Ring,
    window: Window<M>,
    answers: Vec<Answer>,
    placed: Vec<Placed>,
    /// The frame of each waiting copy.
    copies: Vec<usize>,
}

/// The number of slots that a frame takes.
pub(super) fn slots(frame: &Frame) -> usize {
    frame.range.len().div_ceil(PAGE).max(1) + usize::from(frame.offload.cut.is_some())
}

impl<M: Pages> Receive<M> {
    pub(super) fn adopt(page: &SharedPage, is_persistent: bool) -> Self {
        Self {
            ring: Ring::adopt(page, size_of::<netif_rx_request>()),
            window: Window::new(Access::Write, is_persistent),
            answers: Vec::new(),
            placed: Vec::new(),
            copies: Vec::new(),
        }
    }

    pub(super) fn mapped(&self) -> usize {
        self.window.mapped()
    }

    /// The number of buffers that are posted and not used yet.
    fn room(&self, page: &SharedPage) -> Result<usize, Shut> {
        let waiting = self.ring.waiting(page)? as usize;
        Ok(waiting.saturating_sub(self.answers.len()))
    }

    /// Whether a frame that takes this many slots can be put now. If not, the guest is asked to notify when it can.
    pub(super) fn has_room(&self, page: &SharedPage, slots: usize) -> Result<bool, Shut> {
        if self.room(page)? >= slots {
            return Ok(true);
        }
        // After the requests that wait to be answered.
        let wanted = u32::try_from(self.answers.len() + slots).unwrap_or(SIZE);
        Ok(self.ring.ask(page, wanted)? >= wanted)
    }

    /// Puts a frame, for which there must be room. The guest sees it after [`Receive::flush`].
    pub(super) fn put(
        &mut self,
        xen: &impl Xen<Mapping = M>,
        page: &SharedPage,
        domain: u16,
        arena: &mut Arena,
        frame: &Frame,
    ) {
        let first = self.answers.len();
        let number = self.placed.len();
        let mut at = frame.range.start;
        let mut flags = match frame.offload.checksum {
            Checksum::Unknown => NetRxFlags::empty(),
            Checksum::Valid => NetRxFlags::DATA_VALIDATED,
            Checksum::Blank => NetRxFlags::CSUM_BLANK | NetRxFlags::DATA_VALIDATED,
        };
        flags.set(NetRxFlags::EXTRA_INFO, frame.offload.cut.is_some());
        loop {
            let length = (frame.range.end - at).min(PAGE);
            let request = self.next(page);
            flags.set(NetRxFlags::MORE_DATA, at + length < frame.range.end);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                reason = "no more than a page"
            )]
            let (size, status) = (length as u16, length as i16);
            let segment = Segment {
                reference: request.gref,
                offset: 0,
                length: size,
                at,
                is_done: false,
            };
            let copy = self.window.copy(xen, domain, segment, arena.bytes());
            if copy.is_some() {
                self.copies.push(number);
            }
            self.answers.push(Answer::Data(netif_rx_response {
                id: request.id,
                offset: 0,
                flags: flags.bits(),
                status,
            }));
            if at == frame.range.start
                && let Some((family, size)) = frame.offload.cut
            {
                // The extra-info slot takes a request as well, whose buffer stays empty.
                self.answers.push(Answer::Extra(ExtraGso {
                    type_: XEN_NETIF_EXTRA_TYPE_GSO,
                    flags: 0,
                    size,
                    gso_type: match family {
                        Family::V4 => XEN_NETIF_GSO_TYPE_TCPV4,
                        Family::V6 => GSO_TYPE_TCPV6,
                    },
                    pad: 0,
                    features: 0,
                }));
            }
            at += length;
            if at >= frame.range.end {
                break;
            }
            flags = NetRxFlags::empty();
        }
        self.placed.push(Placed {
            first,
            slots: self.answers.len() - first,
        });
    }

    /// The request after those that wait to be answered.
    fn next(&self, page: &SharedPage) -> netif_rx_request {
        #[allow(clippy::cast_possible_truncation, reason = "no more than the ring has")]
        let ahead = self.answers.len() as u32;
        self.ring.read(page, ahead)
    }

    /// Makes the waiting copies and publishes their responses; returns whether the guest asked to be notified.
    pub(super) fn flush(
        &mut self,
        xen: &impl Xen<Mapping = M>,
        page: &SharedPage,
        domain: u16,
        arena: &mut Arena,
        counters: &mut PortCounters,
    ) -> bool {
        if self.answers.is_empty() {
            return false;
        }
        let done = self.window.flush(xen, domain, arena.bytes());
        for (frame, is_done) in self.copies.drain(..).zip(done) {
            if is_done {
                continue;
            }
            if let Some(placed) = self.placed.get(frame)
                && let Some(answers) = self
                    .answers
                    .get_mut(placed.first..placed.first + placed.slots)
            {
                fail(answers, counters);
            }
        }
        self.placed.clear();
        for answer in self.answers.drain(..) {
            match answer {
                Answer::Data(response) => self.ring.answer(page, &response),
                Answer::Extra(extra) => self.ring.answer(page, &extra),
            }
        }
        self.ring.publish(page)
    }
}

/// Marks a frame as failed: a part of it could not be copied.
fn fail(answers: &mut [Answer], counters: &mut PortCounters) {
    let mut is_new = false;
    for answer in answers {
        if let Answer::Data(response) = answer
            && response.status >= NETIF_RSP_OKAY
        {
            response.status = NETIF_RSP_ERROR;
            is_new = true;
        }
    }
    counters.bad_grant += u64::from(is_new);
}
