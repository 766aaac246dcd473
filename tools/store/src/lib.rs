//! `hatch xenstored`: a xenstored for dom0, which takes the place of Debian's.
//!
//! [`core`] is the store: bytes in, bytes out. [`daemon`] is what is around it in dom0: the socket, the rings and their event channels,
//! and what Xen says of domains.
//!
//! What it costs does not grow with the number of domains. Versions of the tree share what is the same in them, so that a transaction
//! is a reference; watches lie at the nodes that they watch, so that a change finds them on its way down; whoever has something to do
//! is in a list, and nobody else is visited.
#![forbid(unsafe_code)]

pub mod core;
pub mod daemon;
