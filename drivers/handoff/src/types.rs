//! Types for Xen's numbers: frame numbers, grant references, ports, domain numbers.

/// A domain, as Xen numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomId(pub u16);

/// A frame of guest memory: a guest physical address shifted right by 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gfn(pub u64);

/// A local event-channel port. Two-level event channels have ports 1 to 4095; 0 is never a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPort(u32);

impl EventPort {
    /// Ports that the two-level ABI can name (64 words of 64 bits).
    pub const LIMIT: u32 = 4096;

    /// The port of a number; `None` if the number is not between 1 and 4095.
    #[must_use]
    pub fn try_new(port: u32) -> Option<Self> {
        (port != 0 && port < Self::LIMIT).then_some(Self(port))
    }

    /// The port's number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

/// A grant reference: an index into the grant table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantRef(pub u32);
