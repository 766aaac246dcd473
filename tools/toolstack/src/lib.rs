//! Makes PVH guests from dom0, watches and removes them: what `hatch` and `hatch summon` are programs of.
#![forbid(unsafe_code)]

pub mod builder;
pub mod config;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod gc;
pub mod host;
pub mod line;
pub mod pool;
pub mod privileges;
mod readable;
pub mod watch;
pub mod words;
