//! The lies: requests, responses, indices and grants that no sound front end writes.

use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::{
    GTF_PERMIT_ACCESS, GTF_READONLY, NET_TX_RING_SIZE, NetTxFlags, PAGE_SIZE,
    XEN_NETIF_EXTRA_FLAG_MORE, grant_entry_v1, netif_extra_gso, netif_rx_request, netif_tx_request,
    sring,
};
use mayfly_handoff::network::{GRANTS_MAX, Preconnected};
use mayfly_handoff::sizing::RX_BUFFERS_MAX;

use crate::frames;
use crate::hypercall::{give_way, notify, print, tsc};
use crate::random::Random;

/// Entries of a ring.
const RING: u32 = NET_TX_RING_SIZE;
/// Ticks of the TSC from one report to the next: a fraction of a second.
const REPORT: u64 = 1 << 28;
/// A lie for which a back end shuts the port is told in one of so many rounds.
const FATAL: u32 = 64;
/// How often this guest gives way to others while its requests are not answered.
const PATIENCE: u32 = 50;

/// The pages that the guest shares.
pub(crate) struct Pages {
    pub(crate) tx: SharedPage,
    pub(crate) rx: SharedPage,
    pub(crate) buffers: [Option<SharedPage>; RX_BUFFERS_MAX],
    /// The first frame of the grant table.
    pub(crate) grants: SharedPage,
}

/// A lie for which a back end shuts the port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fatal {
    /// The transmit ring's index of requests jumps.
    Sent,
    /// The receive ring's does.
    Posted,
    /// The whole page of a ring is overwritten.
    Overwritten,
    /// A request has any flags, and any size: slots that are missing or cross their page, or too many.
    Request,
    /// Extra-info slots are missing, of unknown types, or ask for impossible segments.
    Extra,
    /// Any request is changed after its index was published.
    Changed,
}

impl Fatal {
    /// One of four guests tells none, so that it lives longer.
    fn of(seed: u64) -> Option<Self> {
        match seed % 8 {
            1 => Some(Self::Request),
            2 => Some(Self::Sent),
            3 => Some(Self::Extra),
            4 => Some(Self::Posted),
            6 => Some(Self::Overwritten),
            7 => Some(Self::Changed),
            _ => None,
        }
    }
}

/// The guest.
pub(crate) struct Liar {
    network: Preconnected,
    pages: Pages,
    random: Random,
    seed: u64,
    /// The lie for which a back end shuts the port, if this guest tells one, and whether it is told in this round.
    fatal: Option<Fatal>,
    is_due: bool,
    /// The producer indices of the transmit and the receive ring.
    sent: u32,
    posted: u32,
    /// Requests to transmit that were answered.
    requests: u64,
    /// Requests to receive.
    offered: u64,
    notifications: u64,
    overwritten: u64,
    changed: u64,
    silent: u64,
}

/// The offset of an entry of the transmit ring.
fn entry_at(index: u32) -> usize {
    sring::RING + (index % RING) as usize * size_of::<netif_tx_request>()
}

impl Liar {
    /// A guest whose lies depend on the seed.
    pub(crate) fn new(network: Preconnected, pages: Pages, seed: u64) -> Self {
        Self {
            posted: u32::try_from(network.rx_buffers).unwrap_or(0),
            network,
            pages,
            random: Random::new(seed),
            seed,
            fatal: Fatal::of(seed),
            is_due: false,
            sent: 0,
            requests: 0,
            offered: 0,
            notifications: 0,
            overwritten: 0,
            changed: 0,
            silent: 0,
        }
    }

    /// Lies until the domain is destroyed.
    pub(crate) fn lie(mut self) -> ! {
        let mut last = tsc();
        loop {
            self.round();
            if tsc().wrapping_sub(last) > REPORT {
                last = tsc();
                print(format_args!(
                    "seed {} requests {} offered {} notifications {} overwritten {} changed {} silent {}",
                    self.seed,
                    self.requests,
                    self.offered,
                    self.notifications,
                    self.overwritten,
                    self.changed,
                    self.silent
                ));
            }
        }
    }

    /// Whether this lie is told now. It is told once.
    fn tells(&mut self, lie: Fatal) -> bool {
        let tells = self.is_due && self.fatal == Some(lie);
        self.is_due &= !tells;
        tells
    }

    fn round(&mut self) {
        self.is_due |= self.random.once_in(FATAL);
        self.receive();
        if self.random.once_in(16) {
            self.grant();
        }
        let taken = self.pages.tx.load_acquire(sring::RSP_PROD);
        // The page may hold this guest's own lies; then all entries count as free.
        let used = Some(self.sent.wrapping_sub(taken)).filter(|&used| used <= RING);
        let free = RING - used.unwrap_or(0);
        let first = self.sent;
        let wanted = (1 + self.random.below(128)).min(free);
        if wanted > 0 {
            self.question();
        }
        while self.sent.wrapping_sub(first) < wanted {
            let left = wanted - self.sent.wrapping_sub(first);
            self.frame(left);
        }
        let count = self.sent.wrapping_sub(first);
        self.publish();
        if count > 0 && self.random.once_in(8) {
            // A request is changed after its index was published.
            let index = first.wrapping_add(self.random.below(count));
            self.change(index);
        }
        let times = if self.random.once_in(64) { 32 } else { 1 };
        for _ in 0..times {
            notify(self.network.tx_port.get());
        }
        if self.random.once_in(16) {
            notify(self.network.rx_port.get());
        }
        self.notifications += times;
        if self.is_answered() {
            self.requests += u64::from(count);
        } else {
            self.silent += 1;
        }
    }

    /// Waits, with a bound, until the requests are answered. Returns whether they are.
    fn is_answered(&self) -> bool {
        (0..PATIENCE).any(|_| {
            give_way();
            self.pages.tx.load_acquire(sring::RSP_PROD) == self.sent
        })
    }

    /// Writes the indices of the transmit ring: its own, or others.
    fn publish(&mut self) {
        let tx = &self.pages.tx;
        if self.random.once_in(4) {
            tx.store_release(sring::RSP_EVENT, self.random.u32());
        }
        if self.random.once_in(8) {
            tx.store_release(sring::REQ_EVENT, self.random.u32());
        }
        if self.random.once_in(8) {
            tx.store_release(sring::RSP_PROD, self.random.u32());
        }
        if self.random.once_in(32) {
            // The rest of the head, and entries that were not published.
            for at in (16..sring::RING).step_by(4) {
                tx.store_release(at, self.random.u32());
            }
            for n in 0..self.random.below(RING / 4) {
                let request = self.single();
                self.put(self.sent.wrapping_add(n), &request);
            }
            self.overwritten += 1;
        }
        if self.tells(Fatal::Overwritten) {
            let is_tx = self.random.once_in(2);
            self.overwrite(is_tx);
        }
        if self.tells(Fatal::Sent) {
            self.sent = match self.random.below(3) {
                0 => self.random.u32(),
                1 => self.sent.wrapping_sub(RING),
                _ => self.sent.wrapping_add(2 * RING),
            };
        }
        self.pages.tx.store_fence(sring::REQ_PROD, self.sent);
    }

    /// Changes a request; mostly in fields that an extra-info slot does not have.
    fn change(&mut self, index: u32) {
        let mut request: netif_tx_request = self.pages.tx.read(entry_at(index));
        if self.tells(Fatal::Changed) {
            request = self.single();
        } else {
            request.id = self.random.u16();
            request.size = u16::from(self.random.u8());
        }
        self.put(index, &request);
        self.changed += 1;
    }

    /// Overwrites a ring page at random, its indices as well.
    fn overwrite(&mut self, is_tx: bool) {
        let page = if is_tx {
            &self.pages.tx
        } else {
            &self.pages.rx
        };
        for at in (0..PAGE_SIZE).step_by(8) {
            page.store64(at, self.random.u64());
        }
        self.overwritten += 1;
    }

    fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(&self, index: u32, entry: &T) {
        self.pages.tx.write(entry_at(index), entry);
    }

    fn push<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, entry: &T) {
        self.put(self.sent, entry);
        self.sent = self.sent.wrapping_add(1);
    }

    /// A reference: of a buffer, of a ring, of nothing.
    fn reference(&mut self) -> u32 {
        match self.random.below(8) {
            0 => self.random.u32(),
            1 => self.random.below(2 * GRANTS_MAX),
            2 => self.network.tx_ring.0 + self.random.below(2),
            _ => self.buffer().0,
        }
    }

    /// The reference and the number of a buffer.
    fn buffer(&mut self) -> (u32, usize) {
        let count = u32::try_from(self.network.rx_buffers).unwrap_or(1);
        let n = self.random.below(count);
        (self.network.rx_first.0 + n, n as usize)
    }

    /// A request of one slot that lies within its page.
    fn single(&mut self) -> netif_tx_request {
        let offset = self.random.below(2048);
        let size = match self.random.below(4) {
            0 => self.random.below(64),
            _ => self.random.below(2048),
        };
        let [offset, size] = [offset, size].map(|value| u16::try_from(value).unwrap_or(0));
        let mut gref = self.reference();
        if self.random.once_in(2) {
            let (reference, n) = self.buffer();
            let frame = frames::compose(&mut self.random, self.network.mac);
            if let Some(Some(page)) = self.pages.buffers.get(n) {
                page.copy_in(usize::from(offset), &frame);
            }
            gref = reference;
        }
        // Flags that no header knows as well.
        let kept = NetTxFlags::MORE_DATA | NetTxFlags::EXTRA_INFO;
        let flags = self.random.u16() & !kept.bits();
        netif_tx_request {
            gref,
            offset,
            flags,
            id: self.random.u16(),
            size,
        }
    }

    fn question(&mut self) {
        let (gref, n) = self.buffer();
        let frame = frames::question(self.network.mac);
        if let Some(Some(page)) = self.pages.buffers.get(n) {
            page.copy_in(0, &frame);
        }
        self.push(&netif_tx_request {
            gref,
            offset: 0,
            flags: 0,
            id: 0,
            size: 60,
        });
    }

    /// Writes the requests of a frame, at most `left`.
    fn frame(&mut self, left: u32) {
        let mut request = self.single();
        if self.tells(Fatal::Request) {
            request.flags = self.random.u16();
            request.size = self.random.u16();
            return self.push(&request);
        }
        match self.random.below(8) {
            0 if left >= 20 => self.chain(request, 18),
            1 if left >= 4 => self.chain(request, 3),
            2 if left >= 2 => self.extra(request, left),
            _ => self.push(&request),
        }
    }

    /// A frame of `2..=most + 1` slots. The sizes of some of them add up.
    fn chain(&mut self, mut request: netif_tx_request, most: u32) {
        let others = 1 + self.random.below(most);
        let each = u16::try_from(self.random.below(100)).unwrap_or(0);
        if self.random.once_in(2) {
            let sum = u16::try_from(others).unwrap_or(0) * each;
            request.size = sum.saturating_add(u16::from(self.random.u8()));
        }
        request.flags |= NetTxFlags::MORE_DATA.bits();
        self.push(&request);
        for n in 1..=others {
            let mut next = self.single();
            next.size = each;
            if n < others {
                next.flags |= NetTxFlags::MORE_DATA.bits();
            }
            self.push(&next);
        }
    }

    /// A frame with extra-info slots of known types, whose other fields say anything.
    fn extra(&mut self, mut request: netif_tx_request, left: u32) {
        request.flags |= NetTxFlags::EXTRA_INFO.bits();
        self.push(&request);
        let count = 1 + self.random.below((left - 1).min(6));
        for n in 1..=count {
            let is_rash = self.tells(Fatal::Extra);
            let type_ = match is_rash {
                true => self.random.u8(),
                false => 1 + self.random.u8() % 5,
            };
            let more = if n < count || is_rash {
                XEN_NETIF_EXTRA_FLAG_MORE
            } else {
                0
            };
            let is_segments = type_ == 1 && !is_rash;
            let extra = netif_extra_gso {
                type_,
                flags: self.random.u8() & !XEN_NETIF_EXTRA_FLAG_MORE | more,
                size: self.random.u16() | u16::from(is_segments),
                gso_type: match is_segments {
                    true => 1 + self.random.u8() % 2,
                    false => self.random.u8(),
                },
                pad: self.random.u8(),
                features: self.random.u16(),
                unused: self.random.u32(),
            };
            self.push(&extra);
        }
    }

    /// Posts receive requests with wrong and duplicate references, and lies in the indices.
    fn receive(&mut self) {
        let taken = self.pages.rx.load_acquire(sring::RSP_PROD);
        let used = self.posted.wrapping_sub(taken);
        let free = RING.saturating_sub(used);
        for _ in 0..self.random.below(free + 1) {
            let request = netif_rx_request {
                id: self.random.u16(),
                pad: self.random.u16(),
                gref: self.reference(),
            };
            let index = (self.posted % RING) as usize;
            let at = sring::RING + index * size_of::<netif_rx_request>();
            self.pages.rx.write(at, &request);
            self.posted = self.posted.wrapping_add(1);
            self.offered += 1;
        }
        let rx = &self.pages.rx;
        if self.random.once_in(4) {
            rx.store_release(sring::RSP_EVENT, self.random.u32());
        }
        if self.random.once_in(8) {
            rx.store_release(sring::REQ_EVENT, self.random.u32());
        }
        if self.tells(Fatal::Posted) {
            self.posted = self.random.u32();
        }
        self.pages.rx.store_fence(sring::REQ_PROD, self.posted);
    }

    /// Ends a buffer's grant, gives it to another domain or another page, or makes it right again, while the back end
    /// may have it mapped.
    fn grant(&mut self) {
        let (reference, n) = self.buffer();
        let buffer = self.network.first.0 + 2 + n as u64;
        let mut entry = grant_entry_v1 {
            flags: GTF_PERMIT_ACCESS,
            domid: self.network.domain.0,
            frame: u32::try_from(buffer).unwrap_or(0),
        };
        match self.random.below(8) {
            0 => entry.flags = 0,
            1 => entry.flags |= GTF_READONLY,
            2 => entry.flags = self.random.u16(),
            3 => entry.domid = self.random.u16(),
            4 => entry.frame = self.random.u32(),
            _ => {}
        }
        self.pages
            .grants
            .write(reference as usize * size_of::<grant_entry_v1>(), &entry);
    }
}
