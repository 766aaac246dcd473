//! The comparison on the host: NSD from Debian's package, and mayfly's own code in this very process.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use hatch::pack::{Options, pack_dir};
use mayfly::services::dns::{Client, Config, Identity, Server, Transport as Way};
use mayfly::services::site::Pack;
use mayfly_lab::nsd::Nsd;
use mayfly_reference::client::{Answers, ask};
use mayfly_reference::compare::Report;
use mayfly_reference::questions::{Question, Questions, Transport};
use mayfly_reference::{COUNT, SEED, SITE, TRANSFERS};

/// Any time: cookies are as old as it.
const NOW: u64 = 1_767_225_600;

fn questions() -> Vec<Question> {
    let seed = std::env::var("MAYFLY_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    Questions::new(seed).unwrap().take(COUNT).collect()
}

/// What the guest would answer.
fn mayfly(questions: &[Question]) -> Answers {
    let pack = pack_dir(Path::new(SITE), &Options::default())
        .unwrap()
        .to_vec()
        .unwrap();
    let pack = Pack::open(&pack).unwrap();
    let mut server = Server::new(Config {
        identity: Identity::from_slice(b"reference").unwrap(),
        rate_limit: None,
        ..Config::new([7; 16])
    });
    let mut out = vec![0; 65535];
    let mut answer = |question: &Question| {
        let client = Client {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            transport: match question.transport {
                Transport::Udp => Way::Udp,
                Transport::Tcp => Way::Tcp,
            },
        };
        let length = server.answer(&pack, 0, NOW, client, &question.octets, &mut out)?;
        Some(out[..length].to_vec())
    };
    questions.iter().map(&mut answer).collect()
}

#[test]
fn mayfly_agrees_with_nsd() {
    let nsd = Nsd::start(Path::new(SITE), TRANSFERS, &|_| {}).unwrap();
    let questions = questions();
    let reference = ask(nsd.address(), &questions).unwrap();
    let report = Report::new(&questions, &mayfly(&questions), &reference).unwrap();
    println!("{}", report.text());
    assert!(report.answered > COUNT * 9 / 10, "{}", report.answered);
    assert!(report.forbidden.is_empty());
}

/// What differs between NSD and itself would be the comparison's own error.
#[test]
fn nsd_agrees_with_itself() {
    let nsd = Nsd::start(Path::new(SITE), TRANSFERS, &|_| {}).unwrap();
    let questions = questions();
    let first = ask(nsd.address(), &questions).unwrap();
    let second = ask(nsd.address(), &questions).unwrap();
    let report = Report::new(&questions, &first, &second).unwrap();
    assert!(report.forbidden.is_empty(), "{}", report.text());
    assert!(report.allowed.is_empty(), "{:?}", report.allowed);
}
