//! The command lines of `hatch pack`, `hatch summon` and `hatch switch`.
//!
//! All are programs of their own, `hatch-pack`, `hatch-summon` and `hatch-switch`, which `hatch` becomes. They read their command lines by these
//! descriptions, and `hatch` shows the same in its help, its completions and its manual, without being linked with what they do.
#![forbid(unsafe_code)]

mod exit;
mod message;
mod pack;
mod summon;
mod switch;

pub use exit::Exit;
pub use message::message;
pub use pack::Pack;
pub use summon::{SOCKET, Services, Status, Summon, Verb};
pub use switch::{SWITCH_SOCKET, Switch, SwitchVerb};
