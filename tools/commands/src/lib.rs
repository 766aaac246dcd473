//! The command lines of `hatch pack`, `hatch summon`, `hatch switch` and `hatch xenstored`.
//!
//! Each is a program of its own (`hatch-pack`, `hatch-summon`, `hatch-switch`, `hatch-xenstored`) that `hatch` executes. The
//! program parses its command line with the description here. `hatch` uses the same description for its help, completions and manual,
//! and so needs no code of the program.
#![forbid(unsafe_code)]

mod exit;
mod message;
mod pack;
mod summon;
mod switch;
mod xenstored;

pub use exit::Exit;
pub use message::message;
pub use pack::Pack;
pub use summon::{SOCKET, Services, Status, Summon, Verb};
pub use switch::{SWITCH_SOCKET, Switch, SwitchVerb};
pub use xenstored::{Takeover, Xenstored, XenstoredVerb};
