//! Differences that are nobody's error, or an error of NSD's, each with the RFC that says so.

use crate::answer::Answer;
use crate::compare::{Case, Difference, Field};
use crate::questions::Transport;

/// A difference that is allowed.
pub struct Rule {
    /// What differs.
    pub name: &'static str,
    /// Why it may.
    pub why: &'static str,
    /// Whether this is one.
    is: fn(&Case<'_>, &Difference) -> bool,
}

const AA: u16 = 0x0400;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const Z: u16 = 0x0040;
const CD: u16 = 0x0010;
const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;
const BADVERS: u16 = 16;
const ANY: u16 = 255;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;
const RRSIG: u16 = 46;
const DNAME: u16 = 39;

/// All rules; the first that allows a difference counts.
pub const ALL: &[Rule] = &[
    Rule {
        name: "who a server says it is",
        why: "RFC 4892 section 3: the text is the implementation's own, and need not be given",
        is: |case, difference| {
            let chaos = case
                .both()
                .is_some_and(|(a, _)| a.question.ends_with(&[0, 3]));
            chaos && difference.field == Field::Answer
        },
    },
    Rule {
        name: "NSD explains its errors",
        why: "RFC 8914 section 2: extended errors are optional",
        is: |case, difference| {
            difference.field == Field::Options
                && case.both().is_some_and(|(a, b)| {
                    let mut b = b.clone();
                    if let Some(opt) = &mut b.opt {
                        opt.options.retain(|(code, _)| *code != 15);
                    }
                    a.options_text() == b.options_text()
                })
        },
    },
    Rule {
        name: "NSD leaves the question out of an error",
        why: "RFC 1035 section 4.1 and 4.1.2: a message has the question, which shows what the answer is to",
        is: |case, difference| {
            difference.field == Field::Question && case.both().is_some_and(is_bare_error)
        },
    },
    Rule {
        name: "NSD leaves EDNS out of an error",
        why: "RFC 6891 section 7: who understands the OPT of a query must answer with one",
        is: |case, difference| {
            matches!(difference.field, Field::Edns | Field::Options)
                && case.both().is_some_and(|(a, b)| {
                    is_bare_error((a, b)) && a.opt.is_some() && b.opt.is_none()
                })
        },
    },
    Rule {
        name: "NSD refuses a query whose RCODE is not 0",
        why: "RFC 1035 section 4.1.1: RCODE is set as part of responses; what it is in a query means nothing",
        is: |case, _| {
            let refused = |b: &Answer| b.rcode() == FORMERR;
            case.query_flags() & 0xf != 0 && case.reference.as_ref().is_none_or(refused)
        },
    },
    Rule {
        name: "NSD gives back flags of a query in an error",
        why: "RFC 1035 section 4.1.1: AA, TC and RA are a response's own, and Z is zero; RFC 4035 section 3.1.6: CD is cleared",
        is: |case, difference| {
            difference.field == Field::Flags
                && case.both().is_some_and(|(a, b)| {
                    let given_back = b.flags & !a.flags & 0xfff0;
                    b.rcode() != 0
                        && a.flags & !b.flags & 0xfff0 == 0
                        && given_back & !(AA | TC | RA | Z | CD) == 0
                        && given_back & !case.query_flags() == 0
                })
        },
    },
    Rule {
        name: "NSD clears RD where it cannot read the question",
        why: "RFC 1035 section 4.1.1: RD is copied into the response",
        is: |case, difference| {
            difference.field == Field::Flags
                && case.query_flags() & RD != 0
                && case.both().is_some_and(|(a, b)| {
                    a.flags & 0xfff0 == b.flags & 0xfff0 | RD
                        && a.rcode() == FORMERR
                        && b.rcode() == FORMERR
                })
        },
    },
    Rule {
        name: "NSD does not copy DO with BADVERS",
        why: "RFC 3225 section 3: DO is copied from the query",
        is: |case, difference| {
            difference.field == Field::Edns
                && case.both().is_some_and(|(a, b)| {
                    let flags = |answer: &Answer| answer.opt.as_ref().map(|opt| opt.flags);
                    b.rcode() == BADVERS && flags(a) == Some(0x8000) && flags(b) == Some(0)
                })
        },
    },
    Rule {
        name: "NOTIFY and UPDATE are not implemented",
        why: "RFC 1035 section 4.1.1: NOTIMP is for a kind of query that is not supported, as RFC 1996 and 2136 leave to the server",
        is: |case, difference| {
            difference.field == Field::Rcode
                && matches!(case.opcode(), 4 | 5)
                && case.both().is_some_and(|(a, _)| a.rcode() == NOTIMP)
        },
    },
    Rule {
        name: "which of two errors is told",
        why: "RFC 7873 section 5.2.2: a malformed cookie is FORMERR, and no RFC says what goes first",
        is: |case, difference| {
            difference.field == Field::Rcode
                && case.opcode() != 0
                && case
                    .both()
                    .is_some_and(|(a, b)| a.rcode() == FORMERR && b.rcode() != 0)
        },
    },
    Rule {
        name: "NSD does not answer what it cannot read on a connection",
        why: "RFC 1035 section 4.1.1: FORMERR is for a query that cannot be interpreted, NOTIMP for one of another kind",
        is: |case, difference| {
            difference.field == Field::Message
                && case.question.transport == Transport::Tcp
                && case.reference.is_none()
                && case
                    .tested
                    .as_ref()
                    .is_some_and(|a| matches!(a.rcode(), FORMERR | NOTIMP))
        },
    },
    Rule {
        name: "which set is given for ANY",
        why: "RFC 8482 section 4.1: one or a larger subset of the sets, of the responder's choice",
        is: |case, difference| {
            difference.field == Field::Answer
                && case.qtype() == Some(ANY)
                && case.both().is_some_and(|(a, b)| {
                    a.sections.iter().take(1).all(|s| !s.is_empty())
                        == b.sections.iter().take(1).all(|s| !s.is_empty())
                })
        },
    },
    Rule {
        name: "NSD does not follow an alias for NSEC3",
        why: "RFC 1034 section 4.3.2 step 3a: a CNAME is followed unless the type is CNAME or matches",
        is: |case, _| {
            case.qtype() == Some(NSEC3)
                && case.both().is_some_and(|(a, b)| {
                    let cname = |answer: &Answer| answer.has(0, |rtype| rtype == 5);
                    cname(a) && !cname(b)
                })
        },
    },
    Rule {
        name: "NSD takes the owner of an NSEC3 record for a name of the zone",
        why: "RFC 5155 section 7.2.8: it is answered as if it were not there, and neither is it a closest encloser",
        is: |case, difference| {
            let names_only = |a: &Answer, b: &Answer| {
                [a, b]
                    .iter()
                    .all(|answer| answer.all(1, |rtype| matches!(rtype, NSEC3 | RRSIG | 6)))
            };
            case.below_hash()
                && match difference.field {
                    Field::Authority => case.both().is_some_and(|(a, b)| names_only(a, b)),
                    // The proof that is whole is longer.
                    Field::Flags => case.both().is_some_and(|(a, b)| a.flags == b.flags | TC),
                    _ => false,
                }
        },
    },
    Rule {
        name: "NSD leaves out the proof that what a DNAME leads to is not there",
        why: "RFC 4035 sections 3.1.3.2 and 3.1.3.3: NSEC for the name and for the wildcard, also at an alias's end",
        is: |case, difference| {
            difference.field == Field::Authority
                && case.both().is_some_and(|(a, b)| {
                    a.has(0, |rtype| rtype == DNAME)
                        && a.rcode() == b.rcode()
                        && b.within(a, 1)
                        && a.lacking(b, 1, |rtype| matches!(rtype, NSEC | NSEC3 | RRSIG))
                })
        },
    },
    Rule {
        name: "NSD proves more than is asked of a wildcard that is asked for by its own name",
        why: "RFC 5155 section 7.2.3: the NSEC3 record that matches the name, which is there",
        is: |case, difference| {
            difference.field == Field::Authority
                && case.question.octets.get(12..14) == Some(b"\x01*")
                && case
                    .both()
                    .is_some_and(|(a, b)| a.within(b, 1) && b.lacking(a, 1, is_nsec3))
        },
    },
    Rule {
        name: "NSD proves less of an empty non-terminal that opt-out has left without an NSEC3 record",
        why: "RFC 5155 sections 7.2.1 and 7.2.4: the closest encloser that can be proven, and what covers the next closer name",
        is: |case, difference| {
            let octets = case.question.octets.to_ascii_lowercase();
            let below = octets.windows(12).any(|w| w == b"\x04down\x06optout");
            below
                && case.both().is_some_and(|(a, b)| match difference.field {
                    Field::Authority => b.within(a, 1) && a.lacking(b, 1, is_nsec3),
                    // The proof that is whole is longer.
                    Field::Flags => a.flags == b.flags | TC,
                    _ => false,
                })
        },
    },
    Rule {
        name: "it fits",
        why: "RFC 2181 section 9: TC only when what is required does not fit; shorter names leave more room",
        is: |case, difference| {
            difference.field == Field::Flags
                && case.both().is_some_and(|(a, b)| {
                    b.flags & !a.flags == TC && a.flags & !b.flags == 0 && a.length <= case.room()
                })
        },
    },
    Rule {
        name: "how far an answer got before it was cut",
        why: "RFC 2181 section 9: a client ignores a truncated answer and asks again over TCP",
        is: |case, difference| {
            difference.field == Field::Rcode
                && case
                    .both()
                    .is_some_and(|(a, b)| a.truncated() && b.truncated())
        },
    },
];

fn is_nsec3(rtype: u16) -> bool {
    matches!(rtype, NSEC3 | RRSIG)
}

/// Whether the reference's answer is an error without its question.
fn is_bare_error((_, reference): (&Answer, &Answer)) -> bool {
    reference.rcode() != 0 && reference.question == [0, 0]
}

/// The rule that allows a difference.
#[must_use]
pub fn allowing(case: &Case<'_>, difference: &Difference) -> Option<&'static Rule> {
    ALL.iter().find(|rule| (rule.is)(case, difference))
}
