//! Differences that are no errors, or errors of NSD, each with its RFC.
//!
//! A rule is as narrow as possible: it says which server differs, how, and in what situation. If NSD's proof of a
//! denial differs, the tested server's proof must be valid, and NSD's must not (`proof.rs`).

use crate::LEFT_OUT;
use crate::answer::Answer;
use crate::compare::{Case, Difference, Field};
use crate::questions::Transport;

/// A difference that is allowed.
pub struct Rule {
    /// A description of the difference.
    pub name: &'static str,
    /// The reason for which it is allowed.
    pub why: &'static str,
    /// Whether a difference is covered by this rule.
    is: fn(&Case<'_>, &Difference) -> bool,
}

const AA: u16 = 0x0400;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const Z: u16 = 0x0040;
const CD: u16 = 0x0010;
/// The header's bits without the RCODE.
const FLAGS: u16 = 0xfff0;

const NOERROR: u16 = 0;
const FORMERR: u16 = 1;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const BADVERS: u16 = 16;

const QUERY: u16 = 0;
const NOTIFY: u16 = 4;

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const DNAME: u16 = 39;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
const IXFR: u16 = 251;
const ANY: u16 = 255;
const CHAOS: u16 = 3;

/// All rules; the first that allows a difference counts.
pub const ALL: &[Rule] = &[
    Rule {
        name: "who a server says it is",
        why: "RFC 4892 section 2: the text is what its administrator, or else its author, has put there",
        is: |case, difference| {
            let text = |answer: &Answer| {
                let [records, others @ ..] = &answer.sections;
                let is_text = |r: &crate::answer::Record| r.rtype == TXT && r.class == CHAOS;
                records.len() <= 1
                    && records.iter().all(is_text)
                    && others.iter().all(Vec::is_empty)
                    && answer.rcode() == NOERROR
            };
            difference.field == Field::Answer
                && case.both().is_some_and(|(a, b)| text(a) && text(b))
        },
    },
    Rule {
        name: "NSD explains its errors",
        why: "RFC 8914 section 2: an extended error can be in a response, and need not",
        is: |case, difference| {
            difference.field == Field::Options
                && case.both().is_some_and(|(a, b)| {
                    let mut rest = b.clone();
                    if let Some(opt) = &mut rest.opt {
                        opt.options.retain(|(code, _)| *code != 15);
                    }
                    b.rcode() != NOERROR && a.options_text() == rest.options_text()
                })
        },
    },
    Rule {
        name: "NSD leaves the question out of an error",
        why: "RFC 1035 section 4.1.2: the question section says what the answer is to; RFC 6891 section 7 wants it in the least answer",
        is: |case, difference| {
            difference.field == Field::Question
                && case.both().is_some_and(|(a, b)| {
                    let asked = case.question.bytes.get(12..).unwrap_or_default();
                    let question = a.question.strip_prefix(&[0, 1]);
                    is_bare_error(b) && question.is_some_and(|q| asked.starts_with(q))
                })
        },
    },
    Rule {
        name: "NSD leaves EDNS out of an error",
        why: "RFC 6891 sections 6.1.1 and 7: a query with OPT is answered with one, also where it is in error",
        is: |case, difference| {
            matches!(difference.field, Field::Edns | Field::Options)
                && case.query().is_some_and(|query| query.opt.is_some())
                && case
                    .both()
                    .is_some_and(|(a, b)| is_bare_error(b) && a.opt.is_some() && b.opt.is_none())
        },
    },
    Rule {
        name: "NSD gives back flags of a query in an error",
        why: "RFC 1035 section 4.1.1: AA, TC and RA are a response's own, and Z is zero; RFC 4035 section 3.1.6: CD is cleared",
        is: |case, difference| {
            difference.field == Field::Flags
                && case.both().is_some_and(|(a, b)| {
                    let given_back = b.flags & !a.flags & FLAGS;
                    b.rcode() != NOERROR
                        && a.flags & !b.flags & FLAGS == 0
                        && given_back & !(AA | TC | RA | Z | CD) == 0
                        && given_back & !case.query_flags() == 0
                })
        },
    },
    Rule {
        name: "NSD clears RD where there is not one question",
        why: "RFC 1035 section 4.1.1: RD is copied into the response",
        is: |case, difference| {
            difference.field == Field::Flags
                && case.query_flags() & RD != 0
                && case.question.bytes.get(4..6) != Some(&[0, 1])
                && case.both().is_some_and(|(a, b)| {
                    a.flags == b.flags | RD && a.rcode() == FORMERR && b.rcode() == FORMERR
                })
        },
    },
    Rule {
        name: "NSD does not copy DO with BADVERS",
        why: "RFC 3225 section 3: DO is copied from the query",
        is: |case, difference| {
            difference.field == Field::Edns
                && case.both().is_some_and(|(a, b)| {
                    let flags = |answer: &Answer| answer.opt.as_ref().map(|opt| opt.flags & 0x8000);
                    a.rcode() == BADVERS
                        && b.rcode() == BADVERS
                        && case.query().as_ref().and_then(flags) == Some(0x8000)
                        && flags(a) == Some(0x8000)
                        && flags(b) == Some(0)
                })
        },
    },
    Rule {
        name: "NOTIFY is not implemented",
        why: "RFC 1035 section 4.1.1: NOTIMP is for a kind of query that is not supported",
        is: |case, difference| {
            difference.field == Field::Rcode
                && case.opcode() == NOTIFY
                && case.both().is_some_and(|(a, b)| {
                    // NSD is not a secondary here, and reads the question first.
                    let kind = match b.rcode() {
                        FORMERR => case.query().is_none(),
                        rcode => matches!(rcode, NXDOMAIN | REFUSED),
                    };
                    a.rcode() == NOTIMP && kind
                })
        },
    },
    Rule {
        name: "a malformed cookie is told before the kind of query",
        why: "RFC 7873 section 5.2.2: a malformed cookie is FORMERR; RFC 1035 section 4.1.1 does not say which error goes first",
        is: |case, difference| {
            let cookie = case.query().and_then(|query| query.opt).and_then(|opt| {
                let length = opt.option(10).map(<[u8]>::len);
                length.filter(|length| !matches!(length, 8 | 16..=40))
            });
            difference.field == Field::Rcode
                && case.opcode() != QUERY
                && cookie.is_some()
                && case.both().is_some_and(|(a, b)| {
                    let kind = match case.opcode() {
                        NOTIFY => &[NXDOMAIN, REFUSED][..],
                        _ => &[NOTIMP],
                    };
                    a.rcode() == FORMERR && kind.contains(&b.rcode())
                })
        },
    },
    Rule {
        name: "NSD looks at the version of an OPT record that it cannot read",
        why: "RFC 1035 section 4.1.1: FORMERR is for a query that cannot be interpreted, here for a record longer than the message",
        is: |case, _| {
            case.query().is_none()
                && case.both().is_some_and(|(a, b)| {
                    a.rcode() == FORMERR && a.opt.is_none() && b.rcode() == BADVERS
                })
        },
    },
    Rule {
        name: "NSD does not answer on a connection what is too short for a question",
        why: "RFC 1035 section 4.1.1: FORMERR is for a query that cannot be interpreted, NOTIMP for one of another kind",
        is: |case, difference| {
            let tested = case.tested.first.as_ref();
            difference.field == Field::Message
                && case.question.transport == Transport::Tcp
                && case.question.bytes.len() < 17
                && case.reference.first.is_none()
                && tested.is_some_and(|a| match case.opcode() {
                    QUERY => a.rcode() == FORMERR,
                    _ => a.rcode() == NOTIMP,
                })
        },
    },
    Rule {
        name: "NSD announces a question that it leaves out, for IXFR without the client's SOA record",
        why: "RFC 1995 section 2: over UDP one SOA record says that the transfer goes over TCP; RFC 1035 section 4.1.1: QDCOUNT",
        is: |case, difference| {
            let reference = case.reference.unreadable.as_ref();
            difference.field == Field::Message
                && case.qtype() == Some(IXFR)
                && case
                    .query()
                    .is_some_and(|query| query.sections[1].is_empty())
                && reference.is_some_and(|(_, bytes)| {
                    bytes.len() == 12 && bytes.get(3..6) == Some(&[1, 0, 1])
                })
                && case.tested.first.as_ref().is_some_and(|a| {
                    a.rcode() == NOERROR
                        && a.sections[0].len() == 1
                        && a.all(0, |rtype| rtype == SOA)
                })
        },
    },
    Rule {
        name: "NSD counts its NSID as often as it is asked for",
        why: "RFC 6891 section 6.1.2: RDLEN is the length of RDATA, and what NSD counts is not all there",
        is: |case, difference| {
            let count = |answer: &Answer| {
                let options = answer.opt.iter().flat_map(|opt| &opt.options);
                options.filter(|(code, _)| *code == 3).count()
            };
            difference.field == Field::Message
                && case.reference.unreadable.is_some()
                && case.query().is_some_and(|query| count(&query) > 1)
                && case.tested.first.as_ref().is_some_and(|a| count(a) == 1)
        },
    },
    Rule {
        name: "which set is given for ANY",
        why: "RFC 8482 section 4.1: one or a larger subset of the sets, of the responder's choice",
        is: |case, difference| {
            difference.field == Field::Answer
                && case.qtype() == Some(ANY)
                && case.wholes().is_some_and(|(a, b)| {
                    let (ours, theirs) = (a.only(b, 0), b.only(a, 0));
                    let is_set = |set: &[(&[u8], u16)]| {
                        let all: Vec<_> = set.iter().filter(|(_, rtype)| *rtype != RRSIG).collect();
                        all.first()
                            .filter(|one| all.iter().all(|other| other == *one))
                            .map(|(owner, _)| owner.to_vec())
                    };
                    let owner = is_set(&ours);
                    owner.is_some() && owner == is_set(&theirs)
                })
        },
    },
    Rule {
        name: "NSD does not follow an alias for NSEC3",
        why: "RFC 1034 section 4.3.2 step 3a: a CNAME is followed unless the type is CNAME or matches",
        is: |case, difference| {
            case.qtype() == Some(NSEC3)
                && case.wholes().is_some_and(|(a, b)| {
                    // The tested server goes on where NSD ends without data.
                    let ends =
                        b.rcode() == NOERROR && (all_classes(b) || b.has(1, |rtype| rtype == SOA));
                    let goes_on = a.lacking(b, 0, |rtype| matches!(rtype, CNAME | DNAME | RRSIG))
                        && !a.within(b, 0)
                        && b.within(a, 0);
                    let field = match difference.field {
                        Field::Rcode => matches!(a.rcode(), NOERROR | NXDOMAIN),
                        Field::Flags => is_cut_short(case),
                        field => {
                            matches!(field, Field::Answer | Field::Authority | Field::Additional)
                        }
                    };
                    field && ends && goes_on
                })
        },
    },
    Rule {
        name: "NSD takes the owner of an NSEC3 record for a name of the zone",
        why: "RFC 5155 section 7.2.8: it is answered as if it were not there, and neither is it a closest encloser",
        is: |case, difference| {
            difference.field == Field::Authority && case.below_hash() && proves_more(case)
        },
    },
    Rule {
        name: "NSD leaves out the proof that what a DNAME leads to is not there",
        why: "RFC 4035 sections 3.1.3.1 and 3.1.3.2: NSEC for what the answer denies, also at an alias's end (RFC 6604 section 3)",
        is: |case, difference| {
            difference.field == Field::Authority
                && proves_more(case)
                && case
                    .wholes()
                    .is_some_and(|(a, b)| a.has(0, |rtype| rtype == DNAME) && b.within(a, 1))
        },
    },
    Rule {
        name: "NSD proves more than is asked of a wildcard that is asked for by its own name",
        why: "RFC 5155 section 7.2.3: the NSEC3 record that matches the name, which is there",
        is: |case, difference| {
            difference.field == Field::Authority
                && case.question.bytes.get(12..14) == Some(b"\x01*")
                && case.is_proven(&case.tested)
                && case.wholes().is_some_and(|(a, b)| {
                    a.rcode() == NOERROR && a.within(b, 1) && b.lacking(a, 1, is_nsec3)
                })
        },
    },
    Rule {
        name: "NSD's proof begins with an empty non-terminal that opt-out has left without an NSEC3 record",
        why: "RFC 5155 section 7.2.1: the closest encloser has an NSEC3 record that matches it",
        is: |case, difference| {
            difference.field == Field::Authority && case.is_below(LEFT_OUT) && proves_more(case)
        },
    },
    Rule {
        name: "a proof that is whole does not fit",
        why: "RFC 2181 section 9: TC when what is required does not fit",
        is: |case, difference| {
            difference.field == Field::Flags && is_cut_short(case) && proves_more(case)
        },
    },
    Rule {
        name: "NSD has authority across a cut in all classes, beyond an alias",
        why: "RFC 1035 section 6.2: a response to QCLASS=* should never be authoritative",
        is: |case, difference| {
            difference.field == Field::Flags
                && case.both().is_some_and(|(a, b)| {
                    all_classes(a)
                        && b.flags == a.flags | AA
                        && b.has(0, |rtype| rtype == CNAME)
                        && b.has(1, |rtype| rtype == NS)
                        && !b.has(1, |rtype| rtype == SOA)
                })
        },
    },
    Rule {
        name: "NSD adds no addresses of what SVCB and HTTPS records point to",
        why: "RFC 9460 section 4.1: addresses of target names in the zone should be added",
        is: |case, difference| {
            difference.field == Field::Additional
                && case.wholes().is_some_and(|(a, b)| {
                    let mut targets = a.sections[0]
                        .iter()
                        .filter(|r| matches!(r.rtype, SVCB | HTTPS));
                    let names: Vec<_> = targets.by_ref().filter_map(|r| r.rdata.get(2..)).collect();
                    let is_of_target =
                        |owner: &[u8]| names.iter().any(|name| name.starts_with(owner));
                    let only = a.only(b, 2);
                    b.within(a, 2)
                        && only.iter().all(|(owner, rtype)| {
                            matches!(*rtype, A | AAAA | RRSIG) && is_of_target(owner)
                        })
                })
        },
    },
    Rule {
        name: "it fits",
        why: "RFC 2181 section 9: TC only when what is required does not fit; shorter names leave more room",
        is: |case, difference| {
            difference.field == Field::Flags
                && case
                    .both()
                    .is_some_and(|(a, b)| b.flags == a.flags | TC && a.length <= case.room())
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
                && case.wholes().is_some_and(|(a, b)| a.rcode() == b.rcode())
        },
    },
];

/// Whether an answer is to a question about all classes. Such an answer has no SOA record for negative caching.
fn all_classes(answer: &Answer) -> bool {
    answer.question.ends_with(&[0, 255])
}

fn is_nsec3(rtype: u16) -> bool {
    matches!(rtype, NSEC3 | RRSIG)
}

/// Whether an answer of the reference is an error with only a header.
fn is_bare_error(reference: &Answer) -> bool {
    let is_known = matches!(reference.rcode(), FORMERR | NXDOMAIN | NOTIMP | REFUSED);
    is_known && reference.question == [0, 0] && reference.sections.iter().all(Vec::is_empty)
}

/// Whether the answers differ only in the proof of the same denial, and only the tested server's proof is valid.
fn proves_more(case: &Case<'_>) -> bool {
    let is_proof = |rtype: u16| matches!(rtype, NSEC | NSEC3 | RRSIG);
    case.wholes().is_some_and(|(a, b)| {
        (all_classes(a) || a.has(1, |rtype| rtype == SOA))
            && a.rcode() == b.rcode()
            && a.lacking(b, 1, is_proof)
            && b.lacking(a, 1, is_proof)
    }) && case.is_proven(&case.tested)
        && !case.is_proven(&case.reference)
}

/// Whether only the tested server's answer was truncated, and had to be.
fn is_cut_short(case: &Case<'_>) -> bool {
    case.both()
        .is_some_and(|(a, b)| a.flags & FLAGS == b.flags & FLAGS | TC)
        && case
            .wholes()
            .is_some_and(|(a, b)| a.length > case.room() && b.length <= case.room())
}

/// The rule that allows a difference.
#[must_use]
pub fn allowing(case: &Case<'_>, difference: &Difference) -> Option<&'static Rule> {
    ALL.iter().find(|rule| (rule.is)(case, difference))
}
