//! What the network front end is configured by, and what it says: features, errors,
//! notices and counters.

use crate::Errno;
use crate::grant::GrantError;
use crate::xenstore::StoreError;

/// Bytes of an Ethernet header: no frame is shorter, and netback refuses such a one.
pub const ETHERNET_HEADER: usize = 14;

/// How many buffers each ring may have, 1 to 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Receive buffers, all of them posted at once; rounded down to a power of two.
    pub rx_buffers: usize,
    /// Pages that frames are composed in.
    pub tx_buffers: usize,
}

/// What is known of a received frame's transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is not filled in: the frame has not left this machine (`NETRXF_csum_blank`).
    Blank,
    /// The back end has verified it (`NETRXF_data_validated`).
    Validated,
    /// Nothing: it has to be verified.
    Unknown,
}

/// A received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RxFrame {
    /// Bytes, at the start of the caller's buffer.
    pub len: usize,
    /// State of the transport checksum.
    pub checksum: Checksum,
}

/// What the back end has to do with a frame before it leaves the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: its checksums are right.
    None,
    /// Its TCP or UDP checksum field holds the sum of the pseudo-header, not inverted
    /// (`NETTXF_csum_blank`).
    Checksum,
    /// The same, and it is to be cut into TCP segments of so many bytes, over IPv4
    /// (`XEN_NETIF_GSO_TYPE_TCPV4`).
    Segment(u16),
}

/// What a back end can do with the frames that we send; nothing, until it has said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// It fills TCP and UDP checksums in over IPv4.
    pub checksum4: bool,
    /// It fills them in over IPv6.
    pub checksum6: bool,
    /// It cuts TCP over IPv4 into segments.
    pub segment: bool,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// All slots are in flight, or there is no link.
    Full,
    /// Shorter than an Ethernet header or longer than the MTU allows.
    Size,
}

/// What a back end did to a ring that can't be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingError {
    /// Its response index went back, or past our requests.
    Index,
}

/// Why the rings could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkError {
    /// No page for a ring or buffer.
    NoMemory,
    /// No grant for it.
    Grant(GrantError),
    /// No event channel.
    Port(Errno),
    /// Earlier back ends keep too many pages mapped.
    Kept,
}

/// What the kernel should know, each with one line for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Frames move.
    Carrier,
    /// xenstore has no `device/vif/0`.
    NoVif,
    /// What xenstore says of the interface makes no sense.
    BadConfig,
    /// The rings could not be made.
    Link(LinkError),
    /// xenstored refused a key.
    Refused,
    /// xenstored can't be used.
    Store(StoreError),
    /// The state's time is up: no answer from xenstored, or no connection by the back end.
    Late,
    /// The back end has left; it will be connected again when it is back.
    Left,
    /// The back end has broken a ring; the link is taken down.
    Broken(RingError),
    /// The toolstack has plugged the interface anew.
    Replugged,
    /// xenstored does not say what the interface is.
    Unreadable,
    /// A back end has left pages of ours mapped. They are used for nothing until it lets go.
    Kept,
    /// Too many links in a row have failed early; from now on attempts are rare.
    GivenUp,
}

impl Notice {
    /// One line for the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Carrier => "vif: connected",
            Self::NoVif => "vif: no network interface is configured",
            Self::BadConfig => "vif: backend or mac in xenstore makes no sense",
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

/// What the interface has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames queued, one that is cut into segments counted once.
    pub tx_frames: u64,
    /// Frames not queued: see [`SendError`].
    pub tx_dropped: u64,
    /// Bytes in them.
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
    /// Requests to xenstored that found no room for too long.
    pub lost_questions: u64,
    /// Looks at a back end that had left or was given up, or at an absent interface.
    pub retries: u64,
}
