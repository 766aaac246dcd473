//! Xen's interfaces for dom0.
//!
//! `sys` makes the calls, `abi` has Xen's headers; `domctl`, `batch`, `look` and `state` are the calls as safe functions,
//! `interface` has the differences between versions of Xen, and `context` the initial state of a vCPU.
#![deny(unsafe_code)]

mod abi;
mod batch;
mod context;
mod domctl;
mod error;
mod evtchn;
pub mod filter;
mod gntdev;
#[cfg(test)]
mod golden;
mod inherited;
mod interface;
mod look;
pub mod privileges;
pub mod schedule;
mod state;
mod sys;
mod xenbus;

pub use abi::PAGE_SIZE;
pub use batch::DomainCall;
pub use domctl::{MapEntry, NewDomain, TscMode, Xen};
pub use error::Error;
pub use evtchn::Evtchn;
pub use gntdev::{Gntdev, GrantCopy, GrantMapping, MAP_MAX};
pub use inherited::inherit;
pub use look::DomainInfo;
pub use state::{CpuPolicy, TscInfo};
pub use sys::Mapping;
pub use xenbus::KernelRing;
