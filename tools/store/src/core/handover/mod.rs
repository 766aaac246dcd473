//! The state of a xenstored, as it hands it over to its successor in the same process: the format that Xen's
//! `docs/designs/xenstore-migration.md` describes, which the C xenstored writes and reads as well.

mod format;
mod restore;
mod save;
mod session;
#[cfg(test)]
mod tests;
mod update;

pub use format::{SavedState, StateFault};
pub use restore::Restored;
pub use save::Descriptors;
pub use session::LiveUpdate;
