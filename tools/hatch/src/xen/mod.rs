//! Xen, as dom0 speaks to it.
//!
//! [`sys`] is the way there and the only file with `unsafe`, [`abi`] Xen's headers, [`domctl`] the calls as safe functions,
//! [`context`] what a vCPU starts with.

pub(crate) mod abi;
mod context;
mod domctl;
pub(crate) mod sys;

pub use domctl::{DomainInfo, Error, MapEntry, NewDomain, TscMode, Xen};
