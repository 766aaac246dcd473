//! A slot: a socket with its buffers, and the connection that uses it.

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, CongestionControl, State};
use smoltcp::time::Instant;
use smoltcp::wire::TcpPacket;

use crate::stack::late::LateServer;
use crate::stack::list::Links;
use crate::stack::path::Path;
use crate::stack::sizing::SLOT_SIZE;
use crate::timeline::{BootPhase, Timeline};
use mayfly_dns as dns;
use mayfly_http as http;
use mayfly_site::{Node, Pages, Site};
use mayfly_stream::{Input, Millis, Moment, Next, Progress};

/// The time in milliseconds in which a connection that the guest has closed must end, whatever the peer sends.
pub(super) const CLOSING: Millis = 20_000;
const _: () = assert!(size_of::<Slot<'_>>() <= SLOT_SIZE);

/// The service of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Dns,
    Http,
}

impl Service {
    pub(super) fn of_port(port: u16) -> Option<Self> {
        match port {
            53 => Some(Self::Dns),
            80 => Some(Self::Http),
            _ => None,
        }
    }

    pub(super) fn port(self) -> u16 {
        match self {
            Self::Dns => 53,
            Self::Http => 80,
        }
    }
}

/// A connection as its service sees it.
#[expect(
    clippy::large_enum_variant,
    reason = "a slot has room for either, for good"
)]
pub(super) enum Connection<'a> {
    None,
    Dns(dns::Connection<Node>),
    Http(http::Connection<'a>),
}

impl Connection<'_> {
    /// The latest time of its next turn.
    pub(super) fn deadline(&self) -> Option<Millis> {
        match self {
            Connection::Dns(connection) => Some(connection.deadline()),
            Connection::Http(connection) => Some(connection.deadline()),
            Connection::None => None,
        }
    }
}

/// The phase of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotPhase {
    Free,
    HalfOpen,
    Open,
    Closing,
}

/// A socket, and the connection that uses it.
pub(super) struct Slot<'a> {
    pub(super) sockets: SocketSet<'static>,
    pub(super) socket: SocketHandle,
    pub(super) service: Service,
    pub(super) connection: Connection<'a>,
    pub(super) path: Path,
    pub(super) phase: SlotPhase,
    pub(super) links: Links,
    /// The time since which the connection waits for its peer.
    pub(super) since: Millis,
    /// The latest time of its next turn.
    pub(super) wake: Instant,
    pub(super) is_active: bool,
    /// The MTU of the path to the peer; `usize::MAX` until a router reports a smaller one than the interface's.
    pub(super) mtu: usize,
    /// The sequence number after the last byte sent.
    pub(super) sent: u32,
    /// The peer's last acknowledgement, while only our FIN is not acknowledged.
    acknowledged: Option<u32>,
    flight: Flight,
}

/// The state of congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// The first flight: nothing of it was acknowledged. `window` bytes may be sent, and `queued` bytes were queued,
    /// the first of them at `since`.
    First {
        window: usize,
        queued: usize,
        since: Millis,
    },
    /// smoltcp's Reno controller bounds the bytes in flight.
    Controlled,
}

/// The first flight in bytes and in segments (RFC 6928 section 2).
const INITIAL_WINDOW: usize = 14_600;
const INITIAL_SEGMENTS: usize = 10;
/// The least MSS for computing the first flight: the default of IPv4 (RFC 9293 section 3.7.1).
const MSS_MIN: u16 = 536;
/// The time in milliseconds without an acknowledgement after which the first flight counts as lost: smoltcp's shortest
/// retransmission timeout.
const LOST: Millis = 1_000;

/// A time that never comes.
pub(super) const NEVER: Instant = Instant::from_micros_const(i64::MAX);

impl Slot<'_> {
    pub(super) fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    pub(super) fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// The services' state and content.
pub(in crate::stack) struct Services<'s, 'a, P> {
    pub(in crate::stack) dns: &'s mut LateServer,
    pub(in crate::stack) http: &'s mut http::Shared,
    pub(in crate::stack) zones: &'s Site<'a>,
    pub(in crate::stack) pages: &'a P,
    pub(in crate::stack) unix_seconds: Option<u64>,
    pub(in crate::stack) timeline: &'s Timeline,
}

impl<'a> Slot<'a> {
    /// A free slot.
    pub(super) fn new(sockets: SocketSet<'static>, socket: SocketHandle, service: Service) -> Self {
        Self {
            sockets,
            socket,
            service,
            connection: Connection::None,
            path: Path::NOWHERE,
            phase: SlotPhase::Free,
            links: Links::ALONE,
            since: 0,
            wake: NEVER,
            is_active: false,
            mtu: usize::MAX,
            sent: 0,
            acknowledged: None,
            flight: Flight::Controlled,
        }
    }

    /// Starts congestion control, for a peer with this MSS.
    ///
    /// smoltcp's controller starts with 2 KiB, which cannot be changed. RFC 6928 allows ten segments, which most pages
    /// fit into. So an HTTP connection starts without the controller and may queue ten segments. The controller takes
    /// over when some of that is acknowledged or must be lost. It is set again for each connection, because smoltcp
    /// keeps the controller of a socket's last connection.
    pub(super) fn start(&mut self, mss: u16) {
        // The head of a response has to fit into the window, however small the peer's MSS is.
        let mss = usize::from(mss.max(MSS_MIN));
        self.flight = match self.service {
            Service::Dns => Flight::Controlled,
            Service::Http => Flight::First {
                window: (INITIAL_SEGMENTS * mss).min(INITIAL_WINDOW.max(2 * mss)),
                queued: 0,
                since: 0,
            },
        };
        let control = match self.flight {
            Flight::First { .. } => CongestionControl::None,
            Flight::Controlled => CongestionControl::Reno,
        };
        self.socket().set_congestion_control(control);
    }

    /// Whether a segment only repeats the peer's last acknowledgement, while only our FIN is not acknowledged. Such a
    /// segment must not reach smoltcp.
    ///
    /// smoltcp 0.14 takes the third one for a loss of data and stops its timer. It finds no data to send again, and
    /// then it would never send the FIN again either.
    pub(super) fn only_repeats_acknowledgement(&mut self, message: &[u8]) -> bool {
        let socket = self.socket();
        let is_only_fin_left = socket.send_queue() == 0
            && matches!(
                socket.state(),
                State::FinWait1 | State::Closing | State::LastAck
            );
        if !is_only_fin_left {
            self.acknowledged = None;
            return false;
        }
        let segment = TcpPacket::new_unchecked(message);
        if segment.segment_len() > 0 || segment.rst() || !segment.ack() {
            return false;
        }
        let number = segment.ack_number().0.cast_unsigned();
        self.acknowledged.replace(number) == Some(number)
    }

    /// Lets the controller take over when the first flight is over. Returns the number of bytes that may be queued.
    fn control(&mut self, now: Millis) -> usize {
        let socket: &mut tcp::Socket<'static> = self.sockets.get_mut(self.socket);
        let here = socket.send_queue();
        match &mut self.flight {
            Flight::Controlled => usize::MAX,
            Flight::First { queued, since, .. }
                if here < *queued || *queued > 0 && now >= since.saturating_add(LOST) =>
            {
                socket.set_congestion_control(CongestionControl::Reno);
                self.flight = Flight::Controlled;
                usize::MAX
            }
            Flight::First { window, .. } => window.saturating_sub(here),
        }
    }

    /// Records the bytes queued in the first flight.
    fn queued(&mut self, now: Millis) {
        let here = self.socket().send_queue();
        if let Flight::First { queued, since, .. } = &mut self.flight {
            if *queued == 0 {
                *since = now;
            }
            *queued = here;
        }
    }

    /// Whether dropping the connection loses no request.
    pub(super) fn is_idle(&self) -> bool {
        let socket: &tcp::Socket<'_> = self.sockets.get(self.socket);
        let quiet = socket.recv_queue() == 0 && socket.send_queue() == 0;
        quiet
            && match &self.connection {
                Connection::Http(connection) => connection.is_idle(),
                Connection::Dns(_) => true,
                Connection::None => false,
            }
    }

    /// Lets the connection read and write.
    pub(super) fn serve<P: Pages>(
        &mut self,
        now: Millis,
        services: &mut Services<'_, 'a, P>,
        scratch: &mut [u8],
        head_max: usize,
    ) {
        if matches!(
            self.socket().state(),
            State::Listen | State::SynReceived | State::Closed
        ) {
            return;
        }
        let room = self.control(now);
        self.serve_connection(now, services, scratch, head_max, room);
        self.queued(now);
    }

    /// Lets the connection read, and write a bounded number of bytes.
    fn serve_connection<P: Pages>(
        &mut self,
        now: Millis,
        services: &mut Services<'_, 'a, P>,
        scratch: &mut [u8],
        head_max: usize,
        window: usize,
    ) {
        let socket: &mut tcp::Socket<'static> = self.sockets.get_mut(self.socket);
        if self.phase == SlotPhase::HalfOpen && matches!(self.connection, Connection::None) {
            self.since = now;
            self.connection = match self.service {
                Service::Dns => Connection::Dns(dns::Connection::new(now)),
                Service::Http => Connection::Http(http::Connection::new(now, head_max)),
            };
        }
        let address = self.path.from.into();
        let next = match &mut self.connection {
            Connection::None => {
                // The service has ended the connection. Only TCP's closing is left; TIME-WAIT ends by itself.
                if socket.state() != State::TimeWait && now >= self.since.saturating_add(CLOSING) {
                    socket.abort();
                }
                return;
            }
            Connection::Dns(connection) => {
                let (dns, zones) = (services.dns.get(), services.zones);
                let unix_seconds = services.unix_seconds.unwrap_or(0);
                let room = socket.send_capacity() / 2;
                converse(socket, scratch, window, |input, out| {
                    let progress = connection.process(
                        dns,
                        zones,
                        now,
                        unix_seconds,
                        address,
                        input,
                        out,
                        room,
                    );
                    if progress.written > 0 {
                        services.timeline.first(BootPhase::FirstDns);
                        // The client has got its answer. From now on the connection waits for the next query.
                        self.since = now;
                    }
                    progress
                })
            }
            Connection::Http(connection) => {
                let pages = services.pages;
                let unix_seconds = services.unix_seconds;
                let moment = Moment { now, unix_seconds };
                let next = converse(socket, scratch, window, |input, out| {
                    let progress = connection.process(moment, input, out, pages, services.http);
                    if progress.written > 0 {
                        services.timeline.first(BootPhase::FirstHttp);
                    }
                    progress
                });
                self.since = connection.waiting_since();
                next
            }
        };
        match next {
            Next::Keep => return,
            Next::Close => socket.close(),
            Next::Abort => socket.abort(),
        }
        self.connection = Connection::None;
        self.since = now;
    }
}

/// Lets a connection read and write until it can do neither, or until the window is full.
fn converse(
    socket: &mut tcp::Socket<'static>,
    scratch: &mut [u8],
    mut window: usize,
    mut process: impl FnMut(Input<'_>, &mut [u8]) -> Progress,
) -> Next {
    loop {
        let received = socket.peek_slice(scratch).unwrap_or(0);
        // `may_recv` is also true in CLOSE-WAIT, as long as there are bytes to read.
        let may_come = matches!(
            socket.state(),
            tcp::State::Established | tcp::State::FinWait1 | tcp::State::FinWait2
        );
        let ended = !may_come && received == socket.recv_queue();
        let input = Input {
            bytes: scratch.get(..received).unwrap_or(&[]),
            ended,
        };
        let progress = socket.send(|out| {
            let most = out.len().min(window);
            let progress = process(input, out.get_mut(..most).unwrap_or(&mut []));
            (progress.written, progress)
        });
        // The send half is closed, so nothing can be answered any more.
        let Ok(progress) = progress else {
            return Next::Abort;
        };
        window = window.saturating_sub(progress.written);
        // Two parts, because the ring buffer may wrap.
        let mut left = progress.consumed;
        while left > 0 {
            let taken = socket.recv(|bytes| {
                let n = left.min(bytes.len());
                (n, n)
            });
            match taken {
                Ok(n) if n > 0 => left -= n,
                _ => break,
            }
        }
        let moved = progress.consumed > 0 || progress.written > 0;
        if progress.next != Next::Keep || !moved {
            return progress.next;
        }
    }
}
