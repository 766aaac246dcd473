//! Guests that are born when somebody asks for them: `hatch summon FILE.toml`.
//!
//! A service costs nothing while nobody asks. A DNS query for one of its names, or the first packet to its address, makes its
//! guest; what has come before its network is connected is held and given to it, so that the guest itself answers the very
//! packet that woke it. When nobody has asked for a while, the guest goes.
//!
//! | module | |
//! |---|---|
//! | [`config`] | the file: what is a service, and within which limits |
//! | [`guard`] | what a guest may send: a filter at its interface, so that nobody takes another's address |
//! | [`status`] | what the daemon tells of itself: a table, Prometheus' text, a page with pictures |

pub mod config;
pub mod guard;
pub mod status;
