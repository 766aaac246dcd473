//! The names that records point to, whose addresses an answer may carry.

use heapless::Vec;

use super::compose::{Owner, Writer};
use super::wire::rtype;

/// Names whose addresses go into the additional section.
pub(super) const TARGETS_MAX: usize = 32;
pub(super) type Targets<'z> = Vec<Target<'z>, TARGETS_MAX>;

/// A name in RDATA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'z> {
    pub(super) name: &'z [u8],
    /// Where it is in the message.
    pub(super) at: usize,
    /// Whether addresses beyond a delegation will do.
    pub(super) allows_glue: bool,
}

impl<'z> Target<'z> {
    pub(super) fn owner(&self) -> Owner<'z> {
        if Writer::can_point_to(self.at) {
            Owner::At(self.at)
        } else {
            Owner::Name(self.name)
        }
    }
}

/// Where in RDATA of a type a name is that has addresses worth to be added, and whether it is that
/// of a name server.
pub(super) fn target(rtype: u16) -> Option<(usize, bool)> {
    match rtype {
        rtype::NS => Some((0, true)),
        rtype::MB => Some((0, false)),
        rtype::MX | rtype::KX | rtype::RT | rtype::SVCB | rtype::HTTPS => Some((2, false)),
        rtype::SRV => Some((6, false)),
        _ => None,
    }
}
