//! Asks two authoritative name servers the same questions, and compares their answers: header, question, the records of
//! every section as sets, and EDNS. If an answer over UDP was truncated, the complete ones are compared. A difference
//! must be allowed by a [rule](rules), which names the RFC; any other difference is an error in one of the servers. And
//! all denials of the tested server in a signed zone must have a [proof].
//!
//! The questions are generated from the zones of `site/`. The same seed gives the same questions.
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

/// The signed zones.
pub const SIGNED: [&str; 3] = ["nsec.test", "nsec3.test", "optout.test"];
/// An empty name above an unsigned delegation, which opt-out leaves without an NSEC3 record. It is the only such name
/// in these zones.
pub const LEFT_OUT: &str = "down.optout.test";

/// The folder of the site, on the machine where this was built.
pub const SITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/site");
/// The zones that anyone may transfer, as `site/mayfly.toml` says.
pub const TRANSFERS: &[&str] = &["plain.test"];
/// The default number of questions of a comparison.
pub const COUNT: usize = 20_000;
/// The default seed of the generator.
pub const SEED: u64 = 20_260_101;
