//! xenstored without Xen, sockets or a clock: bytes of requests in, bytes of answers and events out.

mod connection;
mod control;
mod domains;
mod events;
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

pub use connection::Id;
pub use domains::{Host, State};
pub use perms::Who;
pub use quota::Quota;
pub use server::{Broken, Server};
