//! Types of the network front end: configuration, features, errors, notices and counters.

use crate::Errno;
use crate::grant::GrantError;
use crate::xenstore::StoreError;

/// The size of an Ethernet header in bytes. No frame is shorter: netback refuses it.
pub const ETHERNET_HEADER: usize = 14;

/// The number of buffers of each ring, 1 to 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferCounts {
    /// Receive buffers, all of them posted at once; rounded down to a power of two.
    pub rx_buffers: usize,
    /// Pages that frames are composed in.
    pub tx_buffers: usize,
}

/// The state of the transport checksum of a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is not filled in: the frame has not left this machine (`NETRXF_csum_blank`).
    Blank,
    /// The back end has verified it (`NETRXF_data_validated`).
    Validated,
    /// The checksum is present and has to be verified.
    Unknown,
}

/// A received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RxFrame {
    /// Length in bytes, from the start of the caller's buffer.
    pub len: usize,
    /// State of the transport checksum.
    pub checksum: Checksum,
}

/// The work that the back end has to do on a frame before it leaves the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: its checksums are right.
    None,
    /// The back end fills in the TCP or UDP checksum. The field holds the sum of the pseudo-header, not inverted
    /// (`NETTXF_csum_blank`).
    Checksum,
    /// The same, and the back end cuts the frame into TCP segments with this many bytes of payload, over IPv4
    /// (`XEN_NETIF_GSO_TYPE_TCPV4`).
    Segment(u16),
}

/// The transmit offloads of a back end; none until it has advertised them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// The back end fills in TCP and UDP checksums over IPv4.
    pub checksum4: bool,
    /// The back end fills in TCP and UDP checksums over IPv6.
    pub checksum6: bool,
    /// The back end cuts TCP over IPv4 into segments.
    pub segment: bool,
}

impl Features {
    /// Whether the back end completes transport checksums over IPv4, or over IPv6.
    #[must_use]
    #[inline]
    pub fn completes_checksum(self, ipv4: bool) -> bool {
        if ipv4 { self.checksum4 } else { self.checksum6 }
    }
}

/// The reason for which a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// All slots are in flight, or there is no link.
    Full,
    /// Shorter than an Ethernet header or longer than the MTU allows.
    Size,
}

/// An unrecoverable error of a back end on a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingError {
    /// The response index went back, or past our requests.
    Index,
}

/// The reason for which the rings could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkError {
    /// There is no free page for a ring or buffer.
    NoMemory,
    /// There is no grant for a ring or buffer.
    Grant(GrantError),
    /// Xen refused an event channel.
    Port(Errno),
    /// Earlier back ends keep too many pages mapped.
    Kept,
}

/// A notice to the kernel, with one line for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The back end works: frames move.
    Carrier,
    /// xenstore has no `device/vif/0`.
    NoVif,
    /// The keys `backend` or `mac` in xenstore are invalid.
    BadConfig,
    /// The rings could not be made.
    Link(LinkError),
    /// xenstored refused a key.
    Refused,
    /// The connection to xenstored cannot be used.
    Store(StoreError),
    /// The state's time is up: no answer from xenstored, or no connection by the back end.
    Late,
    /// The back end has left; the front end connects again when it is back.
    Left,
    /// The back end has broken a ring; the link is closed.
    Broken(RingError),
    /// The toolstack has plugged the interface anew.
    Replugged,
    /// xenstored failed to read the keys of the interface.
    Unreadable,
    /// A back end keeps pages of ours mapped. They are not used until it unmaps them.
    Kept,
    /// Too many links in a row have failed early; attempts are rare from now on.
    GivenUp,
}

impl Notice {
    /// One line for the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Carrier => "vif: connected",
            Self::NoVif => "vif: no network interface is configured",
            Self::BadConfig => "vif: backend or mac in xenstore is invalid",
            Self::Link(LinkError::NoMemory) => "vif: no memory for the rings",
            Self::Link(LinkError::Grant(_)) => "vif: no grant for the rings",
            Self::Link(LinkError::Port(_)) => "vif: no event channel",
            Self::Refused => "vif: xenstored refused the ring keys",
            Self::Store(error) => error.as_str(),
            Self::Late => "vif: the back end does not connect",
            Self::Left => "vif: the back end has left",
            Self::Broken(RingError::Index) => {
                "vif: the back end moved a ring index out of range; disconnected"
            }
            Self::Link(LinkError::Kept) => {
                "vif: the back end keeps too many pages; no link until it lets go"
            }
            Self::Replugged => "vif: plugged anew",
            Self::Unreadable => "vif: xenstored does not say what backend or mac is",
            Self::Kept => "vif: the back end keeps pages mapped; they are set aside",
            Self::GivenUp => "vif: too many failures; trying again now and then",
        }
    }
}

/// Counters of the interface since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames queued. A frame that the back end cuts into segments counts once.
    pub tx_frames: u64,
    /// Frames not queued: see [`SendError`].
    pub tx_dropped: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes queued.
    pub tx_bytes: u64,
    /// Notifications sent.
    pub notifications: u64,
    /// Receive responses with an error status.
    pub rx_errors: u64,
    /// Receive responses with an id that was not due.
    pub rx_bad_id: u64,
    /// Receive responses whose frame is shorter than a header, beyond its page, or too long for the caller.
    pub rx_bad_size: u64,
    /// Packets of several slots, dropped: we advertise no scatter-gather.
    pub rx_chains: u64,
    /// Extra-info slots, skipped.
    pub rx_extra: u64,
    /// Transmit responses with another status than okay.
    pub tx_errors: u64,
    /// Transmit responses with an id that was not in flight.
    pub tx_bad_id: u64,
    /// Links that a back end broke.
    pub broken: u64,
    /// Links made.
    pub links: u64,
    /// MTU values that make no sense, ignored.
    pub bad_mtu: u64,
    /// Notices that the kernel did not take in time.
    pub lost_notices: u64,
    /// Requests to xenstored that were dropped because the queue was full for too long.
    pub lost_questions: u64,
    /// Retries after a back end had left or was given up, or while the interface was absent.
    pub retries: u64,
}
