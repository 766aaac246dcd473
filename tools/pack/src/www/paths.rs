//! The paths of a host.

use std::collections::BTreeMap;

/// The resource at a path.
#[derive(Clone)]
pub(super) enum Entry {
    /// The file with this number.
    File(usize),
    Redirect {
        status: u16,
        location: String,
    },
}

/// The resources of a host by path; error pages have a path of their own.
pub(super) type Paths = BTreeMap<Vec<u8>, Entry>;
