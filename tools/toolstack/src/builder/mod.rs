//! The domain builder: PVH guests made from dom0, on the network before their first instruction.
//!
//! ```text
//!            ┌ names ┐ domain ┐┌ memory ─ rings ┐┌ load ─ context ┐        ┌ unpause ─ finish
//! hatch      │       │        ││                ││                │ port ─ │           │
//! xenstored  └───────┘        └┤ name, back end └┤ front end               │           └ the rest
//! netback                      └ makes the vif ──┴─── connects ────────────┘
//! guest                                                                    └ answers
//! ```
//!
//! [`image`] and [`layout`] decide everything before a domain exists. `info` and `rings` are the bytes that are
//! written to its memory, `keys` those that are written to xenstore. `create` carries all of it out, step by step
//! (`steps`), and undoes it when a step fails; `destroy` removes a domain, whatever state it is in. [`report`] has
//! the duration of each step.
//!
//! xenstore is written in three bursts, each of them one system call. The answers of the first two are not waited for
//! before the network is connected, and the third is written while the guest runs, which does not need it for its first
//! answer. Between them are two requests that start other programs: netback, when the interface is up, and xenstored's
//! side of the guest, right before it runs. Only the claim of the name and the MAC address is a transaction, and a
//! small one.

mod acpi;
mod actions;
mod config;
mod create;
mod destroy;
pub mod image;
pub mod index;
mod info;
pub(crate) mod keys;
pub mod layout;
mod lost;
pub(crate) mod making;
mod moves;
mod names;
mod netback;
pub mod report;
mod rings;
mod start_info;
mod steps;
mod switch;
mod toolstack;

pub use actions::{EndAction, EndActions, Watched, reason};
pub use config::{
    Connect, GuestConfig, GuestConfigError, GuestVif, NAME_MAX, Network, check_name, random_uuid,
};
pub use create::{AboutToRun, CreateAs, Created, Newborn, Ready, Shell, WantedOnSwitch};
pub use create::{FilledMemory, GuestContents};
pub(crate) use create::{RestoredGuest, populate};
pub use destroy::{DestroyError, Destroyed};
pub use image::{Image, Ramdisk};

pub use lost::KnownGuest;
pub use making::MakingProcess;
pub use names::Taken;
pub use netback::NetbackThreads;
pub use steps::CreateStep;
pub(crate) use steps::CreateSteps;
pub use toolstack::Toolstack;

#[cfg(test)]
pub(crate) mod tests;

use std::io;

/// An error of the toolstack: of a description, of Xen, xenstored, the kernel or the switch.
#[derive(Debug, thiserror::Error)]
pub enum ToolstackError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] GuestConfigError),
    /// The image does not fit into the guest's memory.
    #[error(transparent)]
    Layout(#[from] layout::LayoutError),
    /// Another guest has the name or the MAC address.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// Xen refused a request.
    #[error(transparent)]
    Xen(#[from] mayfly_xen::Error),
    /// xenstored refused a request, or does not run.
    #[error(transparent)]
    Store(#[from] mayfly_xenstore::Error),
    /// A file could not be read, or a page could not be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The interface did not appear, or could not be made a port of the bridge.
    #[error(transparent)]
    Net(#[from] mayfly_links::Error),
    /// The kernel has no watches in this xenstored.
    #[error(
        "dom0's kernel is not connected to this xenstored, which was started after another one"
    )]
    KernelLost,
    /// The guest was destroyed before it was complete.
    #[error("it was destroyed meanwhile")]
    Destroyed,
    /// The back end closed, or has not connected in time.
    #[error("the back end {0}")]
    Backend(&'static str),
    /// The switch refused a request.
    #[error("the switch: {0}")]
    Switch(String),
    /// The file of a saved guest is not valid, or has what is not supported.
    #[error("the file: {0}")]
    Saved(#[from] mayfly_savefile::Error),
    /// A guest does not suspend, or a file does not fit what restores it.
    #[error("{0}")]
    Refused(String),
    /// A fault that a test injected.
    #[cfg(feature = "faults")]
    #[error("HATCH_FAIL_AT")]
    Fault,
}

/// A step that failed.
#[derive(Debug)]
pub struct FailedStep {
    /// The step.
    pub step: CreateStep,
    /// The cause.
    pub cause: ToolstackError,
}

/// The error of a creation.
#[derive(Debug)]
pub struct CreateError {
    /// The failed step and its cause.
    pub failure: FailedStep,
    /// The parts that could not be undone, as text. `hatch gc` removes them.
    pub left: Vec<String>,
}

impl std::fmt::Display for CreateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let FailedStep { step, cause } = &self.failure;
        let advice = match cause {
            ToolstackError::Taken(_) => "choose another, or remove that guest with `hatch destroy`",
            ToolstackError::KernelLost => {
                "restart dom0: until then the kernel makes no new interface"
            }
            _ => step.advice(),
        };
        write!(f, "step `{step}`: {cause}; {advice}")?;
        if !self.left.is_empty() {
            write!(
                f,
                "; not all of it could be undone ({}): run `hatch gc`",
                self.left.join("; ")
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for CreateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure.cause)
    }
}

impl From<FailedStep> for CreateError {
    fn from(failure: FailedStep) -> Self {
        Self {
            failure,
            left: Vec::new(),
        }
    }
}
