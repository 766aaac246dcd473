//! The cache of tails does not change answers.

use super::*;

/// Questions that share labels with one another and with the name servers of the zones.
fn questions(zones: &Model) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = zones.names().map(|(name, _)| name.to_vec()).collect();
    for name in names.clone() {
        for label in [&b"\x03www"[..], b"\x02ns", b"\x02nx", b"\x01*", b"\x03NoT"] {
            names.push([label, &name].concat());
        }
        names.push(name.to_ascii_uppercase());
    }
    let mut questions = Vec::new();
    for name in names.iter().filter(|name| name.len() <= 255) {
        for qtype in [A, AAAA, TXT, MX, NS, CNAME, SOA, PTR, DS, ANY] {
            for class in [IN, class::ANY] {
                let question = [&name[..], &qtype.to_be_bytes(), &class.to_be_bytes()].concat();
                questions.push([header(0, [1, 0, 0, 0]), question.clone()].concat());
                let opts = [opt(1232, DO, b""), opt(1232, 0, b"")];
                questions.extend(
                    opts.map(|opt| [header(0, [1, 0, 0, 1]), question.clone(), opt].concat()),
                );
            }
        }
    }
    questions
}

/// The answer with this much room.
fn answer(server: &mut Server, zones: &Model, query: &[u8], from: IpAddr, room: usize) -> Vec<u8> {
    let client = Client {
        address: from,
        transport: Transport::Udp,
    };
    let mut out = std::vec![0xee; room];
    let written = server.answer(zones, 0, 0, client, query, &mut out);
    out.truncate(written.unwrap_or(0));
    out
}

#[test]
fn an_answer_is_the_same_after_others() {
    let zones = zones();
    let questions = questions(&zones);
    let mut warm = server();
    let mut hits = 0;
    let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
    // A step that is a prime and no factor of their number visits all of them.
    let step = [7919, 7927]
        .into_iter()
        .find(|step| !questions.len().is_multiple_of(*step));
    for number in 0..2 * questions.len() {
        let at = number * step.unwrap() % questions.len();
        let query = &questions[at];
        let from = if number % 3 == 0 { v6 } else { ADDRESS };
        let room = [1232, 512, query.len() + 60 + number % 128][number % 5 % 3];
        let cold = answer(&mut server(), &zones, query, from, room);
        let before = warm.tails.hits;
        let same = answer(&mut warm, &zones, query, from, room);
        hits += usize::from(warm.tails.hits != before);
        assert_eq!(same, cold, "{}", query.escape_ascii());
    }
    assert!(hits * 20 > questions.len(), "{hits} of {}", questions.len());
}

#[test]
fn a_name_server_that_is_a_wildcard_is_not_added_to_itself() {
    let text = "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\n* A 192.0.2.1\nwww A 192.0.2.2\n";
    let zones = Model::default().with("wild.test.", text, false);
    let mut warm = server();
    for name in [
        "www.wild.test.",
        "*.wild.test.",
        "x.wild.test.",
        "ns.wild.test.",
        "Nxs.wild.test.",
    ] {
        for _ in 0..2 {
            let query = query(name, A);
            let cold = answer(&mut server(), &zones, &query, ADDRESS, 512);
            assert_eq!(
                answer(&mut warm, &zones, &query, ADDRESS, 512),
                cold,
                "{name}"
            );
        }
    }
}
