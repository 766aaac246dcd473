//! Guests' configuration files, as `xl create` takes them: the syntax of xl.cfg(5), and those parameters that a
//! unikernel with one vCPU and one network device needs.
//!
//! | parameter | |
//! |---|---|
//! | `name` | needed |
//! | `type` | needed: `"pvh"` |
//! | `kernel` | needed |
//! | `ramdisk` | the site's pack |
//! | `cmdline`; or `root` and `extra` | the command line, at most 4095 bytes |
//! | `memory` | needed, in MiB, unless there is `maxmem`; a larger `maxmem` is of no effect |
//! | `vcpus`, `maxvcpus` | 1 |
//! | `uuid` | random without it |
//! | `vif` | a list of at most one; see below |
//! | `tsc_mode` | `"default"`, `"always_emulate"`, `"native"` |
//! | `on_poweroff`, `on_reboot`, `on_watchdog`, `on_crash`, `on_soft_reset` | `"destroy"`, `"restart"`, `"preserve"`, for [`crate::watch`]; `coredump-` before them is of no effect, and renaming is refused |
//! | `disk`, `pci`, `vfb` and the like | only as empty lists |
//!
//! A vif has `mac`, `bridge`, `rate` and `mtu`. It may have values that change nothing: `type=vif`, `devid=0`,
//! `backend=0`, `trusted`, `model`, `script=vif-bridge`, and, with a warning, another script beside `bridge`.
//!
//! Parameters that hatch does not act on are accepted as long as their values are what hatch does, as are those that xl
//! reads for other types of guests (`known`). Anything else in a file is an error with its line, and no guest is
//! made.
//!
//! hatch differs from `xl create` on purpose in these points:
//!
//! - xl accepts unknown names, and ignores a value of the wrong kind with a warning (`memory = "x"` makes a guest of 32
//!   MiB, `vif = "bridge=b"` one without network); hatch makes no guest.
//! - xl makes a PV guest without `type`, and one of 32 MiB without `memory`; hatch needs both.
//! - hatch takes a byte order mark, carriage returns, and a comment that ends with the file, where xl finds errors; and
//!   `builder = "generic"` beside `type = "pvh"`, which xl calls a contradiction.
//! - A vif's `ip` is refused: Xen's vif-bridge filters by it, and `hatch create` sets no filter.
//! - Values are UTF-8. `\101` in a string is refused: xl takes it and puts nothing in its place.

mod error;
mod guest;
mod known;
mod lexer;
mod rate;
mod settings;
mod syntax;
mod template;
mod vif;

#[cfg(test)]
mod tests;

pub use error::shown;
pub use error::{ConfigProblem, ConfigProblems};
pub use guest::{BRIDGE, own_mac};
pub use guest::{GuestFile, Overrides, load, parse, with_addresses};
pub use settings::FILE_MAX;
pub use settings::read as read_text;
pub use template::{TemplateError, derived};
pub(crate) use template::{is_address, mac_of, name_of, words_of};
pub use vif::VifEntry;
pub use vif::mac;
