//! The interface in dom0: a port of its bridge.

/// What can go wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
