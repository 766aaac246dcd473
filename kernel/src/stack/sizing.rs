//! The sizes of the stack, which follow from the guest's memory.

use mayfly_handoff::sizing::Buffers;
use smoltcp::iface::SocketStorage;

use mayfly_dns::Server;
use mayfly_http::LOANS;
use mayfly_site::RENDERED_MAX;

/// The numbers and sizes of the stack's buffers and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// Receive buffers on the netif ring.
    pub rx_pages: usize,
    /// Pages to compose frames in.
    pub tx_pages: usize,
    /// HTTP connections.
    pub http: usize,
    /// DNS connections over TCP.
    pub dns_tcp: usize,
    /// The size in bytes of each TCP receive buffer, which bounds the head of an HTTP request.
    pub tcp_rx: usize,
    /// The size in bytes of an HTTP connection's send buffer.
    pub http_tx: usize,
    /// The size in bytes of the send buffers of the first [`LARGE`] HTTP connections: a client that is alone gets a
    /// window for a path with a long delay.
    pub http_tx_large: usize,
    /// The size in bytes of a DNS connection's send buffer. An answer has at most half of it.
    pub dns_tx: usize,
    /// The size in bytes of the send buffers of the first [`LARGE`] DNS connections.
    pub dns_tx_large: usize,
    /// The size in bytes of a heap that suffices when all of these are in use at once.
    pub heap: usize,
}

/// The number of connections of a service that have a larger send buffer.
pub const LARGE: usize = 8;
/// The greatest size of a connection's slot in bytes, which `tcp/slot.rs` asserts.
pub(super) const SLOT_SIZE: usize = 1080;
/// The part of the heap for the front ends' queues and messages, and for fragmentation, in bytes.
const FRONT_ENDS: usize = 64 * 1024;

impl Sizing {
    /// The sizes for `free` bytes of RAM: a quarter for receive pages, an eighth for transmit pages, and a quarter for
    /// sockets (two fifths from 32 MiB on), all within bounds. A socket's buffers are taken when it is first needed.
    #[must_use]
    pub fn for_memory(free: u64) -> Self {
        const KIB: usize = 1024;
        let buffers = Buffers::for_memory(free);
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        let is_ample = free >= 32 << 20;
        let tcp_rx = if is_ample { 4 * KIB } else { 2 * KIB };
        let (http_tx, http_tx_large) = match free {
            0x0600_0000.. => (64 * KIB, 256 * KIB),
            0x0200_0000.. => (32 * KIB, 128 * KIB),
            _ => (8 * KIB, 8 * KIB),
        };
        let (dns_tx, dns_tx_large) = match free {
            0x0200_0000.. => (32 * KIB, 128 * KIB),
            0x0040_0000.. => (4 * KIB, 32 * KIB),
            _ => (4 * KIB, 4 * KIB),
        };
        // The size of the slots themselves matters, because there are many.
        let share = if is_ample { free / 5 * 2 } else { free / 4 };
        let most = share / (tcp_rx + http_tx + SLOT_SIZE);
        let http = (most * 3 / 4).clamp(4, 1200);
        let dns_tcp = (most / 4).clamp(2, 128);
        // Each connection's slot and socket, and a part of the pages that are made for a request.
        let slots = (http + dns_tcp) * (SLOT_SIZE + size_of::<SocketStorage<'_>>() + 64);
        let rendered = RENDERED_MAX * LOANS.min(http);
        Self {
            rx_pages: buffers.rx,
            tx_pages: buffers.tx,
            http,
            dns_tcp,
            tcp_rx,
            http_tx,
            http_tx_large,
            dns_tx,
            dns_tx_large,
            heap: slots + rendered + size_of::<Server>() + FRONT_ENDS,
        }
    }
}
