//! Saves guests to files and restores them, in the format of `xl save` ([`mayfly_savefile`]).
//!
//! A guest is saved when it has suspended itself: it is asked to (`suspend`), and what it leaves is written (`save`).
//! Until the file is complete, a failure lets the guest go on where it was. A guest is restored by the steps of a
//! creation ([`crate::builder`]), with the file's contents in place of an image (`contents`).
//!
//! `config` translates libxl's JSON, in which the file has the guest's configuration, and `describe` takes that of a
//! running guest from xenstore.

mod config;
mod contents;
mod describe;
mod restore;
mod save;
mod suspend;
mod target;
pub(crate) mod xen;

pub use config::GuestDescription;
pub use restore::{RestoreError, SavedGuest};
pub use save::{AfterSave, SavedReport};
pub use target::SaveTarget;
pub use xen::{SuspendSignal, Suspended};

#[cfg(test)]
mod tests;
