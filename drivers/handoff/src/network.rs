//! The structure that describes a network interface which the toolstack has connected before the guest runs.
//!
//! The toolstack allocates the event channels, writes the grant entries, makes both rings, posts the receive buffers
//! and writes the front end's xenstore keys on the guest's behalf, so that the back end is `Connected` when the guest
//! executes its first instruction. The toolstack describes all of it to the guest in one structure, which is a module
//! of the PVH start info. The guest recognises the module by its first eight bytes.
//!
//! All numbers are little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 4 | version: [`VERSION`] |
//! | 12 | 4 | bytes of the structure, at least [`SIZE_MIN`]; bytes after [`SIZE`] are ignored |
//! | 16 | 8 | gfn of the first page of consecutive pages: transmit ring, receive ring, receive buffers |
//! | 24 | 4 | number of receive buffers: a power of two, 1 to 256 |
//! | 28 | 4 | grant reference of the transmit ring |
//! | 32 | 4 | grant reference of the receive ring |
//! | 36 | 4 | grant reference of the first receive buffer; those of the other buffers follow it |
//! | 40 | 4 | the first free grant reference; the guest may use it and all above it |
//! | 44 | 4 | event channel of the transmit ring, unbound or bound to the back end |
//! | 48 | 4 | event channel of the receive ring |
//! | 52 | 2 | domain of the back end |
//! | 54 | 6 | MAC address |
//! | 60 | 4 | event channel of the xenstore ring |
//! | 64 | 8 | gfn of the xenstore ring |
//! | 72 | 56 | path of the back end in xenstore, padded with NULs |
//! | 128 | 32 | random bytes for this guest alone, from `getrandom` in the toolstack; all 0 when there are none |
//!
//! The rings are in the state in which a back end expects them when it connects (Xen 4.17 public/io/ring.h and
//! io/netif.h). The transmit ring has no request. The receive ring has one request for each buffer: request `i` has id
//! `i` and the grant of buffer `i`, and `req_prod` is the number of buffers. `rsp_event` is 1 on both. All grants allow
//! reading and writing. By the time the guest runs, the back end may have written responses.
//!
//! [The crate's first page](crate) says how a field is added.

pub use crate::note::VERSION;
use crate::sizing::RX_BUFFERS_MAX;
use crate::{DomId, EventPort, Gfn, GrantRef};

/// The first eight bytes of the structure.
pub const MAGIC: [u8; 8] = *b"mayflyN1";
/// Size in bytes of the structure that this crate writes.
pub const SIZE: usize = 160;
/// The smallest size of a structure of this version, in bytes.
pub const SIZE_MIN: usize = 128;
/// The longest path of a back end, in bytes.
pub const PATH_MAX: usize = SIZE_MIN - PATH;
/// The number of ring pages, which precede the receive buffers.
pub const RINGS: usize = 2;

const PATH: usize = 72;
const RANDOM: usize = 128;
/// Entries of the first frame of the grant table.
pub const GRANTS_MAX: u32 = 512;
/// `GNTTAB_NR_RESERVED_ENTRIES` of public/grant_table.h: entries that belong to the toolstack.
pub const GRANTS_RESERVED: u32 = 8;

/// An error in the structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoffError {
    /// The version is not [`VERSION`].
    Version(u32),
    /// The module is shorter than its length field says, or than [`SIZE_MIN`].
    Length,
    /// The field of this name has a value that is out of range.
    Field(&'static str),
}

impl core::fmt::Display for HandoffError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Version(found) => write!(f, "version {found}, where {VERSION} is known"),
            Self::Length => f.write_str("it is cut short"),
            Self::Field(name) => write!(f, "{name} is out of range"),
        }
    }
}

/// A connected network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preconnected {
    /// The first of [`Preconnected::pages`] consecutive pages: transmit ring, receive ring, receive buffers.
    pub first: Gfn,
    /// The number of posted receive buffers, a power of two.
    pub rx_buffers: usize,
    /// The transmit ring's grant.
    pub tx_ring: GrantRef,
    /// The receive ring's grant.
    pub rx_ring: GrantRef,
    /// The first receive buffer's grant.
    pub rx_first: GrantRef,
    /// The first grant reference that is not in use.
    pub free: GrantRef,
    /// The transmit ring's event channel.
    pub tx_port: EventPort,
    /// The receive ring's event channel.
    pub rx_port: EventPort,
    /// The xenstore ring's event channel.
    pub store_port: EventPort,
    /// The xenstore ring.
    pub store: Gfn,
    /// The back end's domain.
    pub domain: DomId,
    /// The interface's MAC address.
    pub mac: [u8; 6],
    /// The path of the back end in xenstore, with NULs behind it.
    pub backend: [u8; PATH_MAX],
    /// The seed of the guest's secrets; `None` if the toolstack hands none over.
    pub random: Option<Random>,
}

/// Random bytes that only this guest knows. `Debug` does not print them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Random(pub [u8; 32]);

impl core::fmt::Debug for Random {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Random")
    }
}

impl Preconnected {
    /// Whether a module is such a structure, of any version.
    #[must_use]
    pub fn is_one(module: &[u8]) -> bool {
        module.starts_with(&MAGIC)
    }

    /// Reads the structure.
    ///
    /// # Errors
    /// [`HandoffError`]. The caller checks that the pages are RAM and otherwise unused.
    pub fn parse(module: &[u8]) -> Result<Self, HandoffError> {
        if !Self::is_one(module) {
            return Err(HandoffError::Length);
        }
        let header = Fields(module);
        let (version, length) = (header.u32(8)?, header.u32(12)?);
        if version != VERSION {
            return Err(HandoffError::Version(version));
        }
        let length = usize::try_from(length).map_err(|_| HandoffError::Length)?;
        if length < SIZE_MIN {
            return Err(HandoffError::Length);
        }
        let fields = Fields(module.get(..length).ok_or(HandoffError::Length)?);
        let rx_buffers = fields.u32(24)?;
        if !rx_buffers.is_power_of_two() || rx_buffers as usize > RX_BUFFERS_MAX {
            return Err(HandoffError::Field("the number of receive buffers"));
        }
        let free = fields.u32(40)?;
        let [tx_ring, rx_ring, rx_first] = [fields.u32(28)?, fields.u32(32)?, fields.u32(36)?];
        let in_use = GRANTS_RESERVED..free;
        let rx_last = rx_first.saturating_add(rx_buffers - 1);
        let distinct = tx_ring != rx_ring
            && ![tx_ring, rx_ring]
                .iter()
                .any(|ring| (rx_first..=rx_last).contains(ring));
        if free > GRANTS_MAX
            || !distinct
            || ![tx_ring, rx_ring, rx_first, rx_last]
                .iter()
                .all(|grant| in_use.contains(grant))
        {
            return Err(HandoffError::Field("a grant reference"));
        }
        let port =
            |at| EventPort::try_new(fields.u32(at)?).ok_or(HandoffError::Field("an event channel"));
        let (tx_port, rx_port, store_port) = (port(44)?, port(48)?, port(60)?);
        if tx_port == rx_port || store_port == tx_port || store_port == rx_port {
            return Err(HandoffError::Field("an event channel"));
        }
        let mac: [u8; 6] = fields.array(54).ok_or(HandoffError::Length)?;
        // A multicast address is never the address of an interface.
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(HandoffError::Field("the MAC address"));
        }
        let domain = DomId(u16::from_le_bytes(
            fields.array(52).ok_or(HandoffError::Length)?,
        ));
        let this = Self {
            first: Gfn(fields.u64(16)?),
            rx_buffers: rx_buffers as usize,
            tx_ring: GrantRef(tx_ring),
            rx_ring: GrantRef(rx_ring),
            rx_first: GrantRef(rx_first),
            free: GrantRef(free),
            tx_port,
            rx_port,
            store_port,
            store: Gfn(fields.u64(64)?),
            domain,
            mac,
            backend: fields.array(PATH).ok_or(HandoffError::Length)?,
            random: fields
                .array(RANDOM)
                .filter(|random| *random != [0; 32])
                .map(Random),
        };
        if domain_of(this.path()) != Some(domain) {
            return Err(HandoffError::Field("the back end's path"));
        }
        Ok(this)
    }

    /// The path of the back end in xenstore.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        let end = self.backend.iter().position(|&byte| byte == 0);
        self.backend
            .get(..end.unwrap_or(PATH_MAX))
            .unwrap_or_default()
    }

    /// The number of pages, from [`Preconnected::first`] on.
    #[must_use]
    pub fn pages(&self) -> usize {
        RINGS + self.rx_buffers
    }

    /// The bytes of the structure, as the toolstack writes them.
    #[must_use]
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        #[allow(clippy::cast_possible_truncation, reason = "160, and 256 at most")]
        let (size, rx_buffers) = (SIZE as u32, self.rx_buffers as u32);
        put(0, &MAGIC);
        put(16, &self.first.0.to_le_bytes());
        put(64, &self.store.0.to_le_bytes());
        for (at, number) in [
            (8, VERSION),
            (12, size),
            (24, rx_buffers),
            (28, self.tx_ring.0),
            (32, self.rx_ring.0),
            (36, self.rx_first.0),
            (40, self.free.0),
            (44, self.tx_port.get()),
            (48, self.rx_port.get()),
            (60, self.store_port.get()),
        ] {
            put(at, &number.to_le_bytes());
        }
        put(52, &self.domain.0.to_le_bytes());
        put(54, &self.mac);
        put(PATH, &self.backend);
        if let Some(Random(random)) = &self.random {
            put(RANDOM, random);
        }
        bytes
    }
}

/// The bytes of a structure, which may be shorter than [`SIZE`].
struct Fields<'m>(&'m [u8]);

impl Fields<'_> {
    /// The bytes of a field; `None` when the structure ends before it does.
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    fn u32(&self, at: usize) -> Result<u32, HandoffError> {
        self.array(at)
            .map(u32::from_le_bytes)
            .ok_or(HandoffError::Length)
    }

    fn u64(&self, at: usize) -> Result<u64, HandoffError> {
        self.array(at)
            .map(u64::from_le_bytes)
            .ok_or(HandoffError::Length)
    }
}

/// The domain in a xenstore path, `/local/domain/N/...` (Xen's docs/misc/xenstore-paths).
#[must_use]
pub fn domain_of(path: &[u8]) -> Option<DomId> {
    let rest = path.strip_prefix(b"/local/domain/")?;
    let end = rest.iter().position(|&byte| byte == b'/')?;
    let digits = rest.get(..end).filter(|digits| !digits.is_empty())?;
    let id = digits.iter().try_fold(0_u16, |id, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        id.checked_mul(10)?.checked_add(digit.into())
    });
    id.map(DomId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right() -> Preconnected {
        let mut backend = [0; PATH_MAX];
        let path = b"/local/domain/0/backend/vif/7/0";
        backend[..path.len()].copy_from_slice(path);
        Preconnected {
            first: Gfn(0x700),
            rx_buffers: 64,
            tx_ring: GrantRef(8),
            rx_ring: GrantRef(9),
            rx_first: GrantRef(10),
            free: GrantRef(74),
            tx_port: EventPort::try_new(3).unwrap(),
            rx_port: EventPort::try_new(4).unwrap(),
            store_port: EventPort::try_new(1).unwrap(),
            store: Gfn(0xf_effc),
            domain: DomId(0),
            mac: [0, 0x16, 0x3e, 1, 2, 3],
            backend,
            random: Some(Random(*b"32 random bytes of the toolstack")),
        }
    }

    #[test]
    fn a_structure_without_random_bytes_is_read() {
        let none = Preconnected {
            random: None,
            ..right()
        };
        assert_eq!(Preconnected::parse(&none.encode()), Ok(none));
        // The structure of an older toolstack ends before the random bytes, or within them.
        for length in [SIZE_MIN, SIZE_MIN + 4, SIZE - 1] {
            let mut bytes = right().encode();
            bytes[12] = u8::try_from(length).unwrap();
            assert_eq!(Preconnected::parse(&bytes[..length]), Ok(none), "{length}");
        }
        assert!(
            !std::format!("{:?}", right()).contains("51"),
            "they are not printed"
        );
    }

    #[test]
    fn what_is_encoded_is_read() {
        let mut bytes = right().encode().to_vec();
        assert_eq!(Preconnected::parse(&bytes), Ok(right()));
        assert_eq!(right().path(), b"/local/domain/0/backend/vif/7/0");
        // A later revision of the same version is longer.
        bytes.extend_from_slice(&[0xff; 16]);
        bytes[12] += 16;
        assert_eq!(Preconnected::parse(&bytes), Ok(right()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        type Change = (fn(&mut Preconnected), &'static str);
        let changes: [Change; 11] = [
            (|p| p.rx_buffers = 0, "the number of receive buffers"),
            (|p| p.rx_buffers = 48, "the number of receive buffers"),
            (|p| p.rx_buffers = 512, "the number of receive buffers"),
            (|p| p.tx_ring = GrantRef(7), "a grant reference"),
            (|p| p.rx_ring = GrantRef(20), "a grant reference"),
            (|p| p.rx_first = GrantRef(u32::MAX), "a grant reference"),
            (|p| p.rx_port = p.tx_port, "an event channel"),
            (|p| p.store_port = p.rx_port, "an event channel"),
            (|p| p.free = GrantRef(513), "a grant reference"),
            (|p| p.mac[0] = 1, "the MAC address"),
            (|p| p.domain = DomId(3), "the back end's path"),
        ];
        for (change, name) in changes {
            let mut wrong = right();
            change(&mut wrong);
            assert_eq!(
                Preconnected::parse(&wrong.encode()),
                Err(HandoffError::Field(name)),
                "{wrong:?}"
            );
        }
        let bytes = right().encode();
        for length in 0..bytes.len() {
            assert_eq!(
                Preconnected::parse(&bytes[..length]),
                Err(HandoffError::Length),
                "{length}"
            );
        }
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(Preconnected::parse(&newer), Err(HandoffError::Version(2)));
    }

    proptest::proptest! {
        #![proptest_config(mayfly_seeds::cases(256))]

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: [u8; SIZE], keep: u8) {
            let from = right().encode();
            let keep = usize::from(keep) % SIZE;
            bytes[..keep].copy_from_slice(&from[..keep]);
            if let Ok(read) = Preconnected::parse(&bytes) {
                assert!(read.rx_first.0 as usize + read.rx_buffers <= read.free.0 as usize);
            }
        }
    }
}
