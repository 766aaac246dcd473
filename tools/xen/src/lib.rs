//! Xen, as dom0 speaks to it.
//!
//! `sys` is the way there and the only file with `unsafe`, `abi` Xen's headers; `domctl` and `look` are the calls as safe
//! functions, `context` is what a vCPU starts with.
#![deny(unsafe_code)]

mod abi;
mod context;
mod domctl;
mod error;
#[cfg(test)]
mod golden;
mod look;
mod sys;

pub use abi::PAGE_SIZE;
pub use domctl::{MapEntry, NewDomain, TscMode, Xen};
pub use error::Error;
pub use look::DomainInfo;
pub use sys::Mapping;
