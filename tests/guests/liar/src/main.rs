//! A guest that lies to its network's back end in every field of the rings, as fast as it can. `seed=N` on its command
//! line chooses the lies. It reports on Xen's debug port.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod frames;
#[allow(unsafe_code, reason = "hypercalls, and the debug port")]
mod hypercall;
mod lies;
#[allow(unsafe_code, reason = "the entry, and the pages of the builder")]
mod machine;
mod random;
