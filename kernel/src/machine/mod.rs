//! Code that runs only on the machine itself: hypercalls, RAM, the end of the domain.
//!
//! Every file here but this one may hold `unsafe`. Their interfaces to the rest of the guest are safe.

pub(crate) mod builder;
pub(crate) mod crash;
mod heap;
pub(crate) mod hypercall;
mod mem;
mod network;
pub(crate) mod ram;
pub(crate) mod xen;
