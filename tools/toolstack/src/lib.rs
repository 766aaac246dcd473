//! The toolstack: creates, watches and removes PVH guests from dom0. `hatch` and `hatch summon` are built on it.
#![forbid(unsafe_code)]

pub mod builder;
pub mod config;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod gc;
pub mod host;
pub mod lifecycle;
pub mod line;
pub mod paths;
pub mod pool;
pub mod readable;
pub mod traffic;
pub mod watch;
pub mod words;

pub use mayfly_xen::privileges;
