//! The store as pure code, without Xen, sockets or a clock: it takes the bytes of requests and gives the bytes of
//! answers and events.

mod connection;
mod control;
mod domains;
mod events;
mod handover;
mod nodes;
mod path;
mod perms;
mod quota;
mod requests;
mod server;
#[cfg(test)]
mod tests;
mod transaction;
mod tree;
mod view;
mod watches;

pub use connection::ConnectionId;
pub use domains::{DomainState, Host};
pub use handover::{Descriptors, LiveUpdate, Restored, SavedState, StateFault};
pub use perms::Who;
pub use quota::Quota;
pub use server::{Broken, Server};
