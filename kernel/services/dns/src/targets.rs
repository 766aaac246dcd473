//! The names that records point to, whose addresses an answer may carry.

use heapless::Vec;

use super::pointer::{Owner, can_point_to};
use super::wire::rtype;

/// The most names whose addresses are added to the additional section.
pub(super) const TARGETS_MAX: usize = 32;
pub(super) type Targets<'z> = Vec<Target<'z>, TARGETS_MAX>;

/// A name in RDATA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'z> {
    pub(super) name: &'z [u8],
    /// Its offset in the message.
    pub(super) at: usize,
    /// Whether glue, addresses below a delegation, may be used.
    pub(super) allows_glue: bool,
}

impl<'z> Target<'z> {
    pub(super) fn owner(&self) -> Owner<'z> {
        if can_point_to(self.at) {
            Owner::At(self.at)
        } else {
            Owner::Name(self.name)
        }
    }
}

/// The offset of a name in a type's RDATA whose addresses are worth adding, and whether it is that of a name server.
pub(super) fn target(rtype: u16) -> Option<(usize, bool)> {
    match rtype {
        rtype::NS => Some((0, true)),
        rtype::MB => Some((0, false)),
        rtype::MX | rtype::KX | rtype::RT | rtype::SVCB | rtype::HTTPS => Some((2, false)),
        rtype::SRV => Some((6, false)),
        _ => None,
    }
}
