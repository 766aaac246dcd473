//! A client of xenstored for dom0. Requests are queued, sent in one system call, and answered by id.
//!
//! ```no_run
//! use std::time::Duration;
//! use mayfly_xenstore::{Client, Request, Store as _};
//!
//! let mut xenstore = Client::connect(Duration::from_secs(5))?;
//! // One burst, one round trip.
//! let name = xenstore.send(Request::read("/local/domain/1/name"))?;
//! let ours = xenstore.send(Request::write("/tool/hatch/seen", "1"))?;
//! xenstore.flush()?;
//! let name = xenstore.answer(name)?;
//! xenstore.answer(ours)?;
//! // One at a time.
//! let domains = xenstore.directory("/local/domain")?;
//! # Ok::<(), mayfly_xenstore::Error>(())
//! ```
//!
//! Wire format and requests are those of Xen's `public/io/xs_wire.h` and `docs/misc/xenstore.txt` (4.17; the parts used
//! here are unchanged up to 4.20). The client connects to the C xenstored and to oxenstored over their socket, or
//! through the kernel's `/dev/xen/xenbus` if xenstored runs in another domain; the device takes one request at a time.
//!
//! xenstored is not trusted: a length beyond the protocol's, an answer to no request or of another type, and an event
//! that is not two strings break the connection for good ([`Error::Protocol`]). Every wait has a time limit.
#![forbid(unsafe_code)]

mod client;
mod device;
mod directory;
mod error;
mod path;
mod request;
mod store;
mod transaction;
pub mod wire;

#[cfg(feature = "fake")]
pub mod memory;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::{Error, ErrorCode};
pub use path::{PathError, check as check_path};
pub use request::{Access, Perm, Request, RequestId, TransactionId};
pub use store::Store;
pub use transaction::Transaction;
pub use wire::WatchEvent;
