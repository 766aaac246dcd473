//! Xen front ends as pure state machines over one [`Hypervisor`] trait.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "fake"))]
extern crate std;

pub mod abi;
pub mod clock;
pub mod console;
pub mod control;
mod decimal;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod grant;
mod hypervisor;
pub mod netfront;
#[allow(unsafe_code, reason = "the one file that touches shared memory")]
pub mod shared;
pub mod suspend;
pub mod xenstore;

pub use hypervisor::{Errno, HvmParam, Hypervisor, Resumed, ShutdownReason, SystemTime};
pub use mayfly_handoff::{DomId, EventPort, Gfn, GrantRef};
pub use shared::{SharedPage, TransmitPages};
