//! The bodies of the fuzzers: a function of any bytes for each, which panics when something is wrong.
//!
//! They stand apart from `tests/fuzz`, which only libFuzzer's toolchain builds, so that every build checks them and
//! every test run gives them the inputs of `tests/fuzz/seeds`.
#![forbid(unsafe_code)]
#![allow(
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a panic is the finding"
)]

pub mod dns;
pub mod dns_tcp;
pub mod http;
#[path = "../../../../kernel/services/dns/src/tests/model.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the zones of the server's unit tests, of which not everything is needed here"
)]
mod model;
pub mod pack;
pub mod savefile;
pub mod store;
pub mod switch;
