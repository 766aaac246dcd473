//! The files that `xl save` writes and `xl restore` reads, as streams: nothing seeks, so a file may be a pipe.
//!
//! ```text
//! xl       header, the guest's configuration (JSON of libxl, or the text of an xl.cfg)
//! libxl    header, record LIBXC_CONTEXT, then the stream of libxc, then record END
//! libxc    image header, domain header, records: static data, pages, the state of the vCPU and of the domain, END
//! ```
//!
//! [`SavefileWriter`] writes version 3 of libxc's stream, as Xen 4.14 and later do; [`open`] and [`SavedRecords`] read it. Sources: `docs/specs/libxl-migration-stream.pandoc` and
//! `docs/specs/libxc-migration-stream.pandoc` of Xen 4.17 to 4.20, and `struct save_file_header` of `tools/xl/xl.h`.
//!
//! Input is hostile. Every length is compared with the bytes that really come before memory is reserved for it; records
//! have the order that the specification gives them; only a PVH guest's records are taken. Nothing here panics.
#![forbid(unsafe_code)]

mod error;
mod format;
mod header;
mod pages;
mod read;
mod records;
mod write;

pub use error::Error;
pub use header::{SavedConfig, SavefileBody, open};
pub use pages::{PAGE, PFNS_MAX, PageBatch, SavedPage, SavedPages};
pub use records::{HvmParam, SavedRecord, SavedRecords, TscInfo};
pub use write::SavefileWriter;

#[cfg(test)]
mod tests;
