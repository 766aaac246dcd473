//! The interface between toolstack and guest, defined once for both.
//!
//! | what | where | who writes it | who reads it |
//! |---|---|---|---|
//! | an ELF note: the guest can take a connected network | [`note`] | the guest's image | the toolstack |
//! | a structure: the network that is connected | [`network`] | the toolstack | the guest |
//! | how many buffers a guest has, from its memory | [`sizing`] | both compute it | |
//! | a key in xenstore: the addresses of a copy | [`ADDRESSES`] | the toolstack | the guest |
//!
//! The guest's entry code, its front ends and the domain builder all take these definitions from here, so that they
//! agree.
//!
//! # How to extend the structure
//!
//! There are two ways. Prefer the first.
//!
//! **A field that an older guest may ignore** goes behind the last one. The version stays.
//! 1. Add a row to the table in [`network`], and a constant for its offset, which is the present [`network::SIZE`].
//! 2. Raise [`network::SIZE`] to the end of the field. [`network::SIZE_MIN`] stays at 128: a structure of an older
//!    toolstack ends there, and is still read.
//! 3. Give [`network::Preconnected`] a field of type `Option`, which `parse` fills from `Fields::array`: that is `None`
//!    beyond the end of the structure. `encode` writes it. All bytes zero should mean "absent", too.
//! 4. The builder reserves 256 bytes and asserts that the structure fits (`INFO_NETWORK` in its `layout.rs`).
//!
//! **A change that an older guest would misunderstand** (a field with another meaning, pages in another order) raises
//! [`note::VERSION`]. A toolstack that finds another version in an image's note than its own does not connect
//! the network beforehand; a guest that finds another version in the structure stops with a line that says so.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod network;
pub mod note;
pub mod sizing;
mod types;

/// The key below a guest's home in xenstore with `ip=` and `gw=` words, as on the command line: a guest that goes on in a
/// new domain uses these addresses and gateways in place of its own.
pub const ADDRESSES: &str = "vm-data/mayfly/addresses";

pub use types::{DomId, EventPort, Gfn, GrantRef};
