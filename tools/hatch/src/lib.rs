//! What mayfly needs on the host beside packing sites.
#![deny(unsafe_code)]

pub mod builder;
pub mod config;
pub mod gc;
mod line;
pub mod pool;
pub mod privileges;
mod readable;
pub mod summon;
pub mod watch;
