//! Definitions of Xen's public headers that `xen-sys` lacks, under the headers' names.
//!
//! Source: Xen 4.17 `xen/include/public`. Every size and offset is asserted at
//! compile time below its struct. Nothing here touches memory: values are
//! copied in and out of shared pages by [`crate::shared::SharedPage`].
#![allow(non_camel_case_types, reason = "the headers' names")]

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in a frame that can be granted or mapped.
pub const PAGE_SIZE: usize = 4096;

// --- xen.h, memory.h, hvm/params.h, hvm/hvm_op.h --------------------------

/// `DOMID_SELF` (xen.h).
pub const DOMID_SELF: u16 = 0x7ff0;
/// `XENMEM_add_to_physmap` (memory.h).
pub const XENMEM_ADD_TO_PHYSMAP: u64 = 7;
/// `XENMEM_memory_map` (memory.h).
pub const XENMEM_MEMORY_MAP: u64 = 9;
/// `XENMAPSPACE_shared_info` (memory.h).
pub const XENMAPSPACE_SHARED_INFO: u32 = 0;
/// `XENMAPSPACE_grant_table` (memory.h).
pub const XENMAPSPACE_GRANT_TABLE: u32 = 1;
/// `HVMOP_get_param` (hvm/hvm_op.h).
pub const HVMOP_GET_PARAM: u64 = 1;

/// `struct xen_add_to_physmap` (memory.h).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct xen_add_to_physmap {
    /// The domain whose address space changes.
    pub domid: u16,
    /// Page count, for `gmfn_range` only.
    pub size: u16,
    /// `XENMAPSPACE_*`.
    pub space: u32,
    /// Index into the space.
    pub idx: u64,
    /// The gfn at which the page shall appear.
    pub gpfn: u64,
}
const _: () = assert!(size_of::<xen_add_to_physmap>() == 24);
const _: () = assert!(offset_of!(xen_add_to_physmap, idx) == 8);

/// `struct xen_hvm_param` (hvm/hvm_op.h).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct xen_hvm_param {
    /// The domain whose parameter is read or written.
    pub domid: u16,
    /// Padding that the compiler would add.
    pub pad: u16,
    /// `HVM_PARAM_*`.
    pub index: u32,
    /// The value: input of `HVMOP_set_param`, output of `HVMOP_get_param`.
    pub value: u64,
}
const _: () = assert!(size_of::<xen_hvm_param>() == 16);
const _: () = assert!(offset_of!(xen_hvm_param, value) == 8);

/// `struct xen_memory_map` (memory.h).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct xen_memory_map {
    /// In: the capacity of the buffer in entries. Out: the number of entries.
    pub nr_entries: u32,
    /// Padding that the compiler would add.
    pub pad: u32,
    /// The address of the E820 entries, 20 bytes each.
    pub buffer: u64,
}
const _: () = assert!(size_of::<xen_memory_map>() == 16);

// --- grant_table.h ---------------------------------------------------------

/// `struct grant_entry_v1` (grant_table.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct grant_entry_v1 {
    /// `GTF_*`.
    pub flags: u16,
    /// The domain that is granted access.
    pub domid: u16,
    /// The granted gfn.
    pub frame: u32,
}
const _: () = assert!(size_of::<grant_entry_v1>() == 8);
const _: () = assert!(offset_of!(grant_entry_v1, frame) == 4);

/// `GTF_permit_access`.
pub const GTF_PERMIT_ACCESS: u16 = 1;
/// `GTF_readonly`.
pub const GTF_READONLY: u16 = 1 << 2;
/// `GTF_reading`: Xen says the other domain has it mapped for reading.
pub const GTF_READING: u16 = 1 << 3;
/// `GTF_writing`: Xen says the other domain has it mapped for writing.
pub const GTF_WRITING: u16 = 1 << 4;
/// `GNTTAB_NR_RESERVED_ENTRIES`: entries that belong to the toolstack.
pub const GNTTAB_NR_RESERVED_ENTRIES: u32 = mayfly_handoff::network::GRANTS_RESERVED;

// --- io/ring.h, io/netif.h -------------------------------------------------

/// Offsets in `struct netif_{tx,rx}_sring` (io/ring.h, DEFINE_RING_TYPES).
pub mod sring {
    /// `req_prod`.
    pub const REQ_PROD: usize = 0;
    /// `req_event`.
    pub const REQ_EVENT: usize = 4;
    /// `rsp_prod`.
    pub const RSP_PROD: usize = 8;
    /// `rsp_event`.
    pub const RSP_EVENT: usize = 12;
    /// The entries, each as large as the larger of request and response.
    pub const RING: usize = 64;
}

/// `struct netif_tx_request` (io/netif.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct netif_tx_request {
    /// Grant reference of the buffer.
    pub gref: u32,
    /// Offset of the frame in the buffer page.
    pub offset: u16,
    /// `NETTXF_*`.
    pub flags: u16,
    /// Echoed in the response.
    pub id: u16,
    /// Frame size in bytes (of the whole packet in its first request).
    pub size: u16,
}
const _: () = assert!(size_of::<netif_tx_request>() == 12);
const _: () = assert!(offset_of!(netif_tx_request, id) == 8);

/// `struct netif_tx_response` (io/netif.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct netif_tx_response {
    /// The request's id.
    pub id: u16,
    /// `NETIF_RSP_*`.
    pub status: i16,
}
const _: () = assert!(size_of::<netif_tx_response>() == 4);

/// `struct netif_rx_request` (io/netif.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct netif_rx_request {
    /// Echoed in the response.
    pub id: u16,
    /// Zero.
    pub pad: u16,
    /// Grant reference of the buffer.
    pub gref: u32,
}
const _: () = assert!(size_of::<netif_rx_request>() == 8);

/// `struct netif_rx_response` (io/netif.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct netif_rx_response {
    /// The request's id.
    pub id: u16,
    /// Offset of the frame in the buffer page.
    pub offset: u16,
    /// `NETRXF_*`.
    pub flags: u16,
    /// Negative `NETIF_RSP_*`, or the size in bytes.
    pub status: i16,
}
const _: () = assert!(size_of::<netif_rx_response>() == 8);
const _: () = assert!(offset_of!(netif_rx_response, status) == 6);

/// `struct netif_extra_info` (io/netif.h) of type `XEN_NETIF_EXTRA_TYPE_GSO`, as long as a slot of the transmit ring.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct netif_extra_gso {
    /// `XEN_NETIF_EXTRA_TYPE_GSO`.
    pub type_: u8,
    /// `XEN_NETIF_EXTRA_FLAG_MORE` or nothing.
    pub flags: u8,
    /// `u.gso.size`: bytes of TCP payload in each segment.
    pub size: u16,
    /// `u.gso.type`: `XEN_NETIF_GSO_TYPE_*`.
    pub gso_type: u8,
    /// `u.gso.pad`.
    pub pad: u8,
    /// `u.gso.features`: no feature is defined.
    pub features: u16,
    /// Padding to the size of a transmit request.
    pub unused: u32,
}
const _: () = assert!(size_of::<netif_extra_gso>() == size_of::<netif_tx_request>());
const _: () = assert!(offset_of!(netif_extra_gso, size) == 2);
const _: () = assert!(offset_of!(netif_extra_gso, gso_type) == 4);

/// `XEN_NETIF_EXTRA_TYPE_GSO`.
pub const XEN_NETIF_EXTRA_TYPE_GSO: u8 = 1;
/// `XEN_NETIF_EXTRA_FLAG_MORE`.
pub const XEN_NETIF_EXTRA_FLAG_MORE: u8 = 1;
/// `XEN_NETIF_GSO_TYPE_TCPV4`.
pub const XEN_NETIF_GSO_TYPE_TCPV4: u8 = 1;
/// `XEN_NETIF_NR_SLOTS_MIN`: the number of slots that every back end accepts in one packet.
pub const XEN_NETIF_NR_SLOTS_MIN: usize = 18;

/// Entries in a one-page transmit ring: (4096 - 64) / 12, rounded down to a power of two.
pub const NET_TX_RING_SIZE: u32 = 256;
/// Entries in a one-page receive ring: (4096 - 64) / 8, rounded down to a power of two.
pub const NET_RX_RING_SIZE: u32 = 256;
const _: () = assert!(mayfly_handoff::sizing::RX_BUFFERS_MAX == NET_RX_RING_SIZE as usize);

bitflags::bitflags! {
    /// `NETRXF_*` (io/netif.h).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct NetRxFlags: u16 {
        /// `NETRXF_data_validated`.
        const DATA_VALIDATED = 1 << 0;
        /// `NETRXF_csum_blank`.
        const CSUM_BLANK = 1 << 1;
        /// `NETRXF_more_data`.
        const MORE_DATA = 1 << 2;
        /// `NETRXF_extra_info`.
        const EXTRA_INFO = 1 << 3;
        /// `NETRXF_gso_prefix`.
        const GSO_PREFIX = 1 << 4;
    }

    /// `NETTXF_*` (io/netif.h).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct NetTxFlags: u16 {
        /// `NETTXF_csum_blank`.
        const CSUM_BLANK = 1 << 0;
        /// `NETTXF_data_validated`.
        const DATA_VALIDATED = 1 << 1;
        /// `NETTXF_more_data`.
        const MORE_DATA = 1 << 2;
        /// `NETTXF_extra_info`.
        const EXTRA_INFO = 1 << 3;
    }
}

/// `NETIF_RSP_OKAY`.
pub const NETIF_RSP_OKAY: i16 = 0;
/// `NETIF_RSP_NULL`: the answer to an auxiliary request.
pub const NETIF_RSP_NULL: i16 = 1;

// --- io/xs_wire.h ----------------------------------------------------------

/// `struct xsd_sockmsg` (io/xs_wire.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct xsd_sockmsg {
    /// `XS_*`.
    pub type_: u32,
    /// Echoed in the answer.
    pub req_id: u32,
    /// The transaction; always zero, because this client uses none.
    pub tx_id: u32,
    /// Payload bytes that follow.
    pub len: u32,
}
const _: () = assert!(size_of::<xsd_sockmsg>() == 16);

/// The members of `enum xsd_sockmsg_type` (io/xs_wire.h) that are used here.
pub mod xs {
    /// `XS_READ`.
    pub const READ: u32 = 2;
    /// `XS_WATCH`.
    pub const WATCH: u32 = 4;
    /// `XS_UNWATCH`.
    pub const UNWATCH: u32 = 5;
    /// `XS_WRITE`.
    pub const WRITE: u32 = 11;
    /// `XS_RM`.
    pub const RM: u32 = 13;
    /// `XS_WATCH_EVENT`.
    pub const WATCH_EVENT: u32 = 15;
    /// `XS_ERROR`.
    pub const ERROR: u32 = 16;
}

/// `XENSTORE_SERVER_FEATURE_RECONNECTION`: the server acts on [`XENSTORE_RECONNECT`].
pub const XENSTORE_SERVER_FEATURE_RECONNECTION: u32 = 1;
/// `XENSTORE_CONNECTED`, in the connection word: the steady state.
pub const XENSTORE_CONNECTED: u32 = 0;
/// `XENSTORE_RECONNECT`: the guest asks for the ring to be emptied and its connection to begin anew.
pub const XENSTORE_RECONNECT: u32 = 1;
/// `XENSTORE_PAYLOAD_MAX`.
pub const XENSTORE_PAYLOAD_MAX: usize = 4096;

/// Offsets in `struct xenstore_domain_interface` (io/xs_wire.h).
pub mod xenstore_domain_interface {
    /// `XENSTORE_RING_SIZE`, both ways.
    pub const RING_SIZE: u32 = 1024;
    /// `req`.
    pub const REQ: usize = 0;
    /// `rsp`.
    pub const RSP: usize = 1024;
    /// `req_cons`.
    pub const REQ_CONS: usize = 2048;
    /// `req_prod`.
    pub const REQ_PROD: usize = 2052;
    /// `rsp_cons`.
    pub const RSP_CONS: usize = 2056;
    /// `rsp_prod`.
    pub const RSP_PROD: usize = 2060;
    /// `server_features`.
    pub const SERVER_FEATURES: usize = 2064;
    /// `connection`.
    pub const CONNECTION: usize = 2068;
    /// `error`.
    pub const ERROR: usize = 2072;
}

// --- io/console.h ----------------------------------------------------------

/// Offsets in `struct xencons_interface` (io/console.h).
pub mod xencons_interface {
    /// Bytes in the output ring.
    pub const OUT_SIZE: u32 = 2048;
    /// `out`.
    pub const OUT: usize = 1024;
    /// `out_cons`.
    pub const OUT_CONS: usize = 3080;
    /// `out_prod`.
    pub const OUT_PROD: usize = 3084;
}

// --- io/xenbus.h -----------------------------------------------------------

/// `enum xenbus_state` (io/xenbus.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum XenbusState {
    /// The other end is gone, or its value is not a state.
    Unknown = 0,
    /// `XenbusStateInitialising`.
    Initialising = 1,
    /// `XenbusStateInitWait`: has finished early initialisation and waits for the peer.
    InitWait = 2,
    /// `XenbusStateInitialised`.
    Initialised = 3,
    /// `XenbusStateConnected`.
    Connected = 4,
    /// `XenbusStateClosing`: the device is being removed.
    Closing = 5,
    /// `XenbusStateClosed`.
    Closed = 6,
    /// `XenbusStateReconfiguring`.
    Reconfiguring = 7,
    /// `XenbusStateReconfigured`.
    Reconfigured = 8,
}

impl XenbusState {
    /// The state as it is written in xenstore: one digit.
    #[must_use]
    pub fn digit(self) -> &'static [u8] {
        match self {
            Self::Unknown => b"0",
            Self::Initialising => b"1",
            Self::InitWait => b"2",
            Self::Initialised => b"3",
            Self::Connected => b"4",
            Self::Closing => b"5",
            Self::Closed => b"6",
            Self::Reconfiguring => b"7",
            Self::Reconfigured => b"8",
        }
    }

    /// The state that a xenstore value names; `Unknown` for anything else.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        match value {
            b"1" => Self::Initialising,
            b"2" => Self::InitWait,
            b"3" => Self::Initialised,
            b"4" => Self::Connected,
            b"5" => Self::Closing,
            b"6" => Self::Closed,
            b"7" => Self::Reconfiguring,
            b"8" => Self::Reconfigured,
            _ => Self::Unknown,
        }
    }
}

// --- arch-x86/xen.h: offsets checked against xen-sys -------------------------

/// Offsets in `struct shared_info` (xen.h), taken from `xen-sys`.
pub mod shared_info {
    use core::mem::offset_of;
    use xen_sys::{shared_info, vcpu_info, vcpu_time_info};

    /// `vcpu_info[0].time`.
    pub const TIME: usize = offset_of!(shared_info, vcpu_info) + offset_of!(vcpu_info, time);
    /// `vcpu_time_info.version`, even when the rest is consistent.
    pub const TIME_VERSION: usize = TIME + offset_of!(vcpu_time_info, version);
    /// `vcpu_time_info.tsc_timestamp`.
    pub const TSC_TIMESTAMP: usize = TIME + offset_of!(vcpu_time_info, tsc_timestamp);
    /// `vcpu_time_info.system_time`.
    pub const SYSTEM_TIME: usize = TIME + offset_of!(vcpu_time_info, system_time);
    /// `vcpu_time_info.tsc_to_system_mul`.
    pub const TSC_TO_SYSTEM_MUL: usize = TIME + offset_of!(vcpu_time_info, tsc_to_system_mul);
    /// `vcpu_time_info.tsc_shift`, the low byte of this word.
    pub const TSC_SHIFT: usize = TIME + offset_of!(vcpu_time_info, tsc_shift);
    /// `evtchn_pending`, 64 words of 64 ports.
    pub const EVTCHN_PENDING: usize = offset_of!(shared_info, evtchn_pending);
    /// `evtchn_mask`, 64 words of 64 ports.
    pub const EVTCHN_MASK: usize = offset_of!(shared_info, evtchn_mask);
    /// `wc_version`, even when the wall clock is consistent.
    pub const WC_VERSION: usize = offset_of!(shared_info, wc_version);
    /// `wc_sec`: seconds of 1970-01-01 to the start of system time, low half.
    pub const WC_SEC: usize = offset_of!(shared_info, wc_sec);
    /// `wc_nsec`.
    pub const WC_NSEC: usize = offset_of!(shared_info, wc_nsec);
    /// `wc_sec_hi`.
    pub const WC_SEC_HI: usize = offset_of!(shared_info, wc_sec_hi);

    // xen.h and arch-x86/xen-x86_64.h, 64-bit guest.
    const _: () = assert!(TIME == 32);
    const _: () = assert!(EVTCHN_PENDING == 2048);
    const _: () = assert!(EVTCHN_MASK == 2560);
    const _: () = assert!(WC_VERSION == 3072 && WC_SEC == 3076 && WC_SEC_HI == 3084);
}
