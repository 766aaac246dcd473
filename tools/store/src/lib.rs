//! `hatch xenstored`: a xenstored for dom0 that takes the place of the C xenstored or oxenstored.
//!
//! [`core`] is the store: requests in, answers and events out, as bytes. [`daemon`] runs it in dom0: it owns the
//! socket, the rings, their event channels and the queries to Xen about domains. [`keep`] replaces its process when that
//! ends, without a loss.
//!
//! The cost of a request does not grow with the number of domains:
//! - Versions of the tree share all equal nodes, so the snapshot of a transaction is one reference.
//! - Watches lie in a tree of the watched paths, so a change finds its watches on the way to the node.
//! - Connections with work are in a list, so no other connection is visited.
#![deny(unsafe_code)]

pub mod core;
pub mod daemon;
pub mod keep;
