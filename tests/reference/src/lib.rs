//! Two authoritative name servers are asked the same questions, and their answers compared: header, question, the records
//! of every section as sets, and EDNS. Where an answer over UDP was truncated, the whole ones are compared. Where they
//! differ, a [rule](rules) must say which RFC allows it; what no rule allows is an error in one of them. And whatever the
//! tested server denies in a signed zone, it must [prove](proof).
//!
//! The questions are made up from the zones of `site/`, by a generator that gives the same ones for the same seed.
#![forbid(unsafe_code)]

pub mod answer;
pub mod client;
pub mod compare;
mod names;
pub mod proof;
pub mod questions;
pub mod report;
pub mod rules;

/// The zones that both servers must serve: file name without `.zone`, which is the origin, and content.
pub const ZONES: [(&str, &str); 6] = [
    ("plain.test", include_str!("../site/zones/plain.test.zone")),
    (
        "kids.plain.test",
        include_str!("../site/zones/kids.plain.test.zone"),
    ),
    ("short", include_str!("../site/zones/short.zone")),
    ("nsec.test", include_str!("../site/zones/nsec.test.zone")),
    ("nsec3.test", include_str!("../site/zones/nsec3.test.zone")),
    (
        "optout.test",
        include_str!("../site/zones/optout.test.zone"),
    ),
];

/// Those of them that are signed.
pub const SIGNED: [&str; 3] = ["nsec.test", "nsec3.test", "optout.test"];
/// An empty name above an unsigned delegation, which opt-out leaves without an NSEC3 record: nothing else is left out of these zones.
pub const LEFT_OUT: &str = "down.optout.test";

/// The folder of the site, on the machine where this was built.
pub const SITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/site");
/// The zones that everybody may have whole, as `site/mayfly.toml` says.
pub const TRANSFERS: &[&str] = &["plain.test"];
/// How many questions a comparison asks unless told otherwise.
pub const COUNT: usize = 20_000;
/// Where the generator starts unless told otherwise.
pub const SEED: u64 = 20_260_101;
