//! A slot: a socket with its buffers, and the connection that it is used for.

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, CongestionControl, State};
use smoltcp::time::Instant;
use smoltcp::wire::TcpPacket;

use crate::stack::frame::Path;
use crate::stack::late::LateServer;
use crate::stack::list::Links;
use crate::stack::sizing::SLOT_SIZE;
use crate::timeline::{BootPhase, Timeline};
use mayfly_dns as dns;
use mayfly_http as http;
use mayfly_site::{Node, Pages, Site};
use mayfly_stream::{Input, Millis, Moment, Next, Progress};

/// Time in which a connection that the guest has closed must come to its
/// end, whatever the peer sends meanwhile.
pub(super) const CLOSING: Millis = 20_000;
const _: () = assert!(size_of::<Slot<'_>>() <= SLOT_SIZE);

/// Which service a slot is for.
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
    /// When it wants its turn at the latest.
    pub(super) fn deadline(&self) -> Option<Millis> {
        match self {
            Connection::Dns(connection) => Some(connection.deadline()),
            Connection::Http(connection) => Some(connection.deadline()),
            Connection::None => None,
        }
    }
}

/// What has become of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotPhase {
    Free,
    HalfOpen,
    Open,
    Closing,
}

/// A socket, and the connection that it is used for.
pub(super) struct Slot<'a> {
    pub(super) sockets: SocketSet<'static>,
    pub(super) socket: SocketHandle,
    pub(super) service: Service,
    pub(super) connection: Connection<'a>,
    pub(super) path: Path,
    pub(super) phase: SlotPhase,
    pub(super) links: Links,
    /// Since when the peer has had to do something.
    pub(super) since: Millis,
    /// When it wants its turn at the latest.
    pub(super) wake: Instant,
    pub(super) is_active: bool,
    /// The MTU of the way to the peer, where a router has said that it is less than the interface's.
    pub(super) mtu: usize,
    /// The sequence number behind the last octet that was sent.
    pub(super) sent: u32,
    /// What the peer has acknowledged last, while nothing but our FIN is left to be acknowledged.
    acknowledged: Option<u32>,
    flight: Flight,
}

/// What has been sent so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// Nothing of it has been acknowledged: so many octets may be sent, are queued, and have been since then.
    First {
        window: usize,
        queued: usize,
        since: Millis,
    },
    /// Reno's controller says how much may be sent.
    Controlled,
}

/// Octets and segments that may be sent before anything is acknowledged (RFC 6928 section 2).
const INITIAL_WINDOW: usize = 14_600;
const INITIAL_SEGMENTS: usize = 10;
/// The least MSS that is reckoned with: the default of IPv4 (RFC 9293 section 3.7.1).
const MSS_MIN: u16 = 536;
/// What is not acknowledged within the shortest time after which smoltcp sends again is lost.
const LOST: Millis = 1_000;

/// A time that does not come.
pub(super) const NEVER: Instant = Instant::from_micros_const(i64::MAX);

impl Slot<'_> {
    pub(super) fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    pub(super) fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// What connections are served with.
pub(in crate::stack) struct Services<'s, 'a, P> {
    pub(in crate::stack) dns: &'s mut LateServer,
    pub(in crate::stack) http: &'s mut http::Shared,
    pub(in crate::stack) zones: &'s Site<'a>,
    pub(in crate::stack) pages: &'a P,
    pub(in crate::stack) unix_seconds: Option<u64>,
    pub(in crate::stack) timeline: &'s Timeline,
}

impl<'a> Slot<'a> {
    /// A free one.
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

    /// Begins to send to a peer with this MSS.
    ///
    /// smoltcp's controller begins with 2 KiB, and can't be told otherwise; RFC 6928 allows ten segments, which most pages fit into. So
    /// a connection of HTTP begins without the controller, and may queue that much; as soon as something of it has been acknowledged, or
    /// must have been lost, the controller takes over. It is set anew each time, because smoltcp keeps that of a
    /// socket's last connection.
    pub(super) fn start(&mut self, mss: u16) {
        // A head has to fit into the window, whatever a peer says of itself.
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

    /// Whether a segment only says once more that all data has come, and our FIN has not.
    ///
    /// smoltcp 0.14 takes the third of them for a loss of data and stops its timer. Then it finds no data to send again,
    /// and so the FIN would never be sent again either.
    pub(super) fn waits_for_fin_still(&mut self, message: &[u8]) -> bool {
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

    /// Has the controller take over when the first flight is over; how much more may be queued.
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

    /// Takes note of what was queued in the first flight.
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

    /// Lets the connection read, and write so many octets at most.
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
                // Its connection has ended; only TCP's own closing is left, and TIME-WAIT ends by itself.
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
                        // The client has had its answer, and owes the next query.
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

/// Lets a connection read and write until it can do neither, or has written as much as the window takes.
fn converse(
    socket: &mut tcp::Socket<'static>,
    scratch: &mut [u8],
    mut window: usize,
    mut process: impl FnMut(Input<'_>, &mut [u8]) -> Progress,
) -> Next {
    loop {
        let received = socket.peek_slice(scratch).unwrap_or(0);
        // `may_recv` says that octets can be read, which is so in CLOSE-WAIT as long as some are left.
        let may_come = matches!(
            socket.state(),
            tcp::State::Established | tcp::State::FinWait1 | tcp::State::FinWait2
        );
        let ended = !may_come && received == socket.recv_queue();
        let input = Input {
            octets: scratch.get(..received).unwrap_or(&[]),
            ended,
        };
        let progress = socket.send(|out| {
            let most = out.len().min(window);
            let progress = process(input, out.get_mut(..most).unwrap_or(&mut []));
            (progress.written, progress)
        });
        // The send half is closed: nothing can be answered any more.
        let Ok(progress) = progress else {
            return Next::Abort;
        };
        window = window.saturating_sub(progress.written);
        // In two parts, where the ring buffer wraps.
        let mut left = progress.consumed;
        while left > 0 {
            let taken = socket.recv(|octets| {
                let n = left.min(octets.len());
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
