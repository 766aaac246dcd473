//! What mayfly needs on the host: packing sites.
//!
//! ```no_run
//! use std::path::Path;
//!
//! let options = hatch::pack::Options::default();
//! let packed = hatch::pack::pack_dir(Path::new("site"), &options)?;
//! eprintln!("{}", packed.summary);
//! packed.save(Path::new("site.mfs"))?; // or `packed.to_vec()?`, or `packed.write(&mut anything)?`
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The pack goes to the guest as its PVH module: `ramdisk=` of xl, `<initrd>` of libvirt. Its format is
//! documented with its reader, [`mayfly::services::site::pack`].
#![deny(unsafe_code)]

pub mod builder;
pub mod config;
pub mod gc;
mod line;
pub mod net;
pub mod pack;
pub mod pool;
pub mod privileges;
mod readable;
pub mod summon;
pub mod watch;
pub mod xen;
pub mod xenstore;
