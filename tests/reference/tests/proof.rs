//! mayfly proves its denials. A proof that lacks a part, or that belongs to another name, is invalid.
#![allow(clippy::unwrap_used)]

mod server;

use mayfly_reference::answer::Answer;
use mayfly_reference::proof::{Held, check};
use mayfly_reference::questions::{Question, Transport};

const A: u16 = 1;
const NS: u16 = 2;
const SOA: u16 = 6;
const TXT: u16 = 16;
const DS: u16 = 43;

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap();
        std::iter::once(length).chain(label.bytes())
    });
    labels.chain([0]).collect()
}

/// mayfly's answer to a question with DO.
fn ask(name: &str, qtype: u16) -> Answer {
    let mut bytes = b"\0\0\0\0\0\x01\0\0\0\0\0\x01".to_vec();
    bytes.extend(wire(name));
    bytes.extend(qtype.to_be_bytes());
    bytes.extend(b"\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0");
    let question = Question {
        transport: Transport::Tcp,
        bytes,
        about: "made here",
    };
    let answers = server::mayfly(&[question]);
    Answer::parse(answers[0].as_ref().unwrap()).unwrap()
}

/// Names below each signed zone's apex, a type, the RCODE, and the number of RRsets of the proof there: NSEC, NSEC3,
/// NSEC3 with opt-out.
const DENIED: [(&str, u16, u16, [usize; 3]); 10] = [
    // No such name, and no wildcard.
    ("nothing", A, 3, [2, 3, 3]),
    ("x.y.nothing", A, 3, [2, 3, 3]),
    ("exists.exists.wild", A, 3, [2, 3, 3]),
    // No such type.
    ("mail", TXT, 0, [1, 1, 1]),
    ("y.ent", A, 0, [1, 1, 1]),
    // No such type at the wildcard, for a name that the wildcard matches.
    ("any.wild", NS, 0, [2, 3, 3]),
    // Beyond a DNAME.
    ("nothing.dname", A, 3, [2, 3, 3]),
    // A wildcard matches.
    ("any.wild", A, 0, [1, 1, 1]),
    // The parent says that a delegation is unsigned; opt-out does not even prove that it exists.
    ("insecure", DS, 0, [1, 1, 2]),
    // An empty name above such a delegation.
    ("down", A, 0, [1, 1, 2]),
];

#[test]
fn every_part_of_a_proof_is_needed() {
    for (column, zone) in ["nsec.test", "nsec3.test", "optout.test"]
        .into_iter()
        .enumerate()
    {
        for (below, qtype, rcode, sets) in DENIED {
            let name = wire(&format!("{below}.{zone}"));
            let answer = ask(&format!("{below}.{zone}"), qtype);
            let about = format!("{below}.{zone} {qtype}: {answer:?}");
            assert_eq!(answer.rcode(), rcode, "{about}");
            let held = check(&answer, &name, qtype);
            let left_out = column == 2 && matches!(below, "insecure" | "down");
            let expected = if left_out { Held::LeftOut } else { Held::Whole };
            assert_eq!(held, Ok(expected), "{about}");
            let of_proof = |rtype: u16| matches!(rtype, 47 | 50);
            let mut owners: Vec<_> = answer.sections[1]
                .iter()
                .filter(|r| of_proof(r.rtype))
                .collect();
            owners.dedup_by_key(|r| &r.owner);
            // Two of the three records that RFC 5155 asks for may be the same.
            assert!((1..=sets[column]).contains(&owners.len()), "{about}");
            for owner in owners {
                let mut less = answer.clone();
                less.sections[1].retain(|r| r.owner != owner.owner || r.rtype == SOA);
                let held = check(&less, &name, qtype);
                // Where opt-out covers a name, a proof without the wildcard's part is weaker, but still valid.
                let is_less = column == 2 && held == Ok(Held::LeftOut) && expected == Held::Whole;
                assert!(held.is_err() || is_less, "without {owner}: {about}");
                let mut unsigned = answer.clone();
                unsigned.sections[1].retain(|r| r.owner != owner.owner || r.rtype != 46);
                assert!(check(&unsigned, &name, qtype).is_err(), "{about}");
            }
        }
    }
}

#[test]
fn a_proof_is_of_one_name_and_type() {
    for zone in ["nsec.test", "nsec3.test", "optout.test"] {
        let answer = ask(&format!("nothing.{zone}"), A);
        for other in ["mail", "h05", "any.wild", "x.y.ent"] {
            let other = wire(&format!("{other}.{zone}"));
            assert!(check(&answer, &other, A).is_err(), "{other:?}");
        }
        let answer = ask(&format!("mail.{zone}"), TXT);
        assert!(check(&answer, &wire(&format!("mail.{zone}")), A).is_err());
        assert!(check(&answer, &wire(&format!("h05.{zone}")), TXT).is_err());
    }
}
