//! The comparison on the host: NSD from Debian's package, and mayfly's own code in this process.
#![allow(clippy::unwrap_used)]

mod server;

use std::path::Path;

use mayfly_lab::nsd::Nsd;
use mayfly_reference::client::Heard;
use mayfly_reference::questions::{Question, Questions, Transport};
use mayfly_reference::report::Report;
use mayfly_reference::{COUNT, SEED, SITE, TRANSFERS};
use server::mayfly;

fn questions() -> Vec<Question> {
    let seed = mayfly_seeds::named_seed().unwrap_or(SEED);
    // These tests are built only with the feature.
    println!("{} --features nsd", mayfly_seeds::repeat(seed));
    let count = usize::try_from(mayfly_seeds::scaled(COUNT as u64)).unwrap();
    Questions::new(seed).unwrap().take(count).collect()
}

#[test]
fn mayfly_agrees_with_nsd() {
    let nsd = Nsd::start(Path::new(SITE), TRANSFERS, &|_| {}).unwrap();
    let questions = questions();
    let reference = Heard::from_reference(nsd.address(), &questions).unwrap();
    let tested = Heard::new(&questions, |some| Ok(mayfly(some))).unwrap();
    let report = Report::new(&questions, &tested, &reference).unwrap();
    println!("{}", report.text());
    assert!(report.answered > COUNT * 9 / 10, "{}", report.answered);
    // Denials must occur, or the check of proofs would check nothing.
    assert!(report.denials > COUNT / 20, "{}", report.denials);
    assert!(report.is_clean());
}

/// A difference between NSD and itself would be an error of the comparison.
#[test]
fn nsd_agrees_with_itself() {
    let nsd = Nsd::start(Path::new(SITE), TRANSFERS, &|_| {}).unwrap();
    let mut questions = questions();
    // NSD's answer to IXFR without a SOA record can't be read (`rules.rs`).
    questions.retain(|question| !(question.is_transfer() && question.transport == Transport::Udp));
    let first = Heard::from_reference(nsd.address(), &questions).unwrap();
    let second = Heard::from_reference(nsd.address(), &questions).unwrap();
    let report = Report::new(&questions, &first, &second).unwrap();
    assert!(report.forbidden.is_empty(), "{}", report.text());
    assert!(report.allowed.is_empty(), "{:?}", report.allowed);
}
