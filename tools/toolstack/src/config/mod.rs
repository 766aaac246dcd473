//! Guests' configuration files, as `xl create` takes them: the syntax of xl.cfg(5), and those of its parameters that a
//! unikernel with one vCPU and one network device needs.
//!
//! | parameter | |
//! |---|---|
//! | `name` | needed |
//! | `type` | needed: `"pvh"` |
//! | `kernel` | needed |
//! | `ramdisk` | the site's pack |
//! | `cmdline`; or `root` and `extra` | the command line, at most 4095 bytes |
//! | `memory` | needed, in MiB; `maxmem` may only be the same |
//! | `vcpus`, `maxvcpus` | 1 |
//! | `uuid` | by chance without it |
//! | `vif` | a list of at most one; see below |
//! | `tsc_mode` | `"default"`, `"always_emulate"`, `"native"` |
//! | `on_poweroff`, `on_reboot`, `on_watchdog`, `on_crash`, `on_soft_reset` | `"destroy"`, `"restart"`, `"preserve"`, for [`crate::watch`]; `coredump-` before them is of no effect, and renaming is refused |
//! | `disk`, `pci`, `vfb` and the like | only as empty lists |
//!
//! A vif has `mac`, `bridge`, `ip`, `rate`, `mtu`, and may have what changes nothing: `type=vif`, `devid=0`, `backend=0`,
//! and `script`, with a warning. Whatever else there is in a file is named with its line, and nothing is made.

mod error;
mod guest;
mod lexer;
mod rate;
mod settings;
mod syntax;
mod template;
mod vif;

#[cfg(test)]
mod tests;

pub use error::shown;
pub use error::{Problem, Problems};
pub use guest::{BRIDGE, own_mac};
pub use guest::{Guest, Overrides, load, parse};
pub use settings::FILE_MAX;
pub use settings::read as read_text;
pub use template::{TemplateError, derived};
pub use vif::Vif;
pub use vif::mac;
