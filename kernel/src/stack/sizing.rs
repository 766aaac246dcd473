//! Sizes the stack by the guest's memory.

use mayfly_handoff::sizing::Buffers;
use smoltcp::iface::SocketStorage;

use mayfly_dns::Server;
use mayfly_http::LOANS;
use mayfly_site::RENDERED_MAX;

/// How much the stack may hold.
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
    /// Bytes of each TCP receive buffer, which bounds a request head.
    pub tcp_rx: usize,
    /// Bytes of the send buffer of an HTTP connection.
    pub http_tx: usize,
    /// Bytes of the send buffer of the first [`LARGE`] HTTP connections: who is alone
    /// gets a window that a long way takes.
    pub http_tx_large: usize,
    /// Bytes of the send buffer of a DNS connection; an answer has half of it.
    pub dns_tx: usize,
    /// Bytes of the send buffer of the first [`LARGE`] DNS connections.
    pub dns_tx_large: usize,
    /// Bytes of heap that suffice when all of that is in use at once.
    pub heap: usize,
}

/// Connections of a service with a larger send buffer.
pub const LARGE: usize = 8;
/// Bytes of a slot for a connection at most, which `tcp/slot.rs` asserts.
pub(super) const SLOT_SIZE: usize = 1080;
/// The front ends' queues and messages, and what fragmentation wastes.
const FRONT_ENDS: usize = 64 * 1024;

impl Sizing {
    /// Sizes for `free` bytes of RAM: a quarter for receive pages, an eighth for transmit
    /// pages, a quarter for sockets or more where that is ample, all within bounds. A
    /// socket's buffers are taken when it is first needed.
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
        // A slot's own size counts when there are many.
        let share = if is_ample { free / 5 * 2 } else { free / 4 };
        let most = share / (tcp_rx + http_tx + SLOT_SIZE);
        let http = (most * 3 / 4).clamp(4, 1200);
        let dns_tcp = (most / 4).clamp(2, 128);
        // Each socket and connection in its table, and some of the pages made for a request.
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
