//! Compares two answers to one question.

use std::collections::BTreeSet;

use domain::base::Message;
use domain::base::iana::Rtype;

use crate::answer::{Answer, Record};
use crate::questions::{Question, Transport};
use crate::{SIGNED, ZONES, proof};

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Whether there is a readable answer.
    Message,
    /// Opcode and flags.
    Flags,
    /// RCODE, with the upper bits of EDNS.
    Rcode,
    /// The question section, compared byte for byte.
    Question,
    /// The answer section.
    Answer,
    /// The authority section.
    Authority,
    /// The additional section, but for OPT.
    Additional,
    /// OPT: whether there is one, its version and flags.
    Edns,
    /// OPT: its options.
    Options,
}

/// A question with the answers of both servers.
pub struct Case<'a> {
    /// The question.
    pub question: &'a Question,
    /// The tested server's answers.
    pub tested: Said,
    /// The reference server's answers.
    pub reference: Said,
}

/// A server's answers to a question.
#[derive(Default)]
pub struct Said {
    /// Its answer.
    pub first: Option<Answer>,
    /// Its answer over TCP, if the first was truncated.
    pub whole: Option<Answer>,
    /// An unreadable answer: the reason, and the bytes.
    pub unreadable: Option<(String, Vec<u8>)>,
}

impl Said {
    /// A short description.
    fn text(&self) -> String {
        match (&self.unreadable, &self.first) {
            (Some((why, bytes)), _) => format!("unreadable, {why}: {}", hex(bytes)),
            (None, Some(a)) => format!("{}, RCODE {}", a.flags_text(), a.rcode()),
            (None, None) => "no answer".to_owned(),
        }
    }

    /// The complete answer.
    #[must_use]
    pub fn whole(&self) -> Option<&Answer> {
        self.whole.as_ref().or(self.first.as_ref())
    }
}

/// A difference.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The part that differs.
    pub field: Field,
    /// The tested server's value.
    pub tested: String,
    /// The reference server's value.
    pub reference: String,
}

impl Case<'_> {
    /// The queried type.
    #[must_use]
    pub fn qtype(&self) -> Option<u16> {
        self.question.name_and_type().map(|(_, rtype)| rtype)
    }

    /// The query, if it is readable.
    #[must_use]
    pub fn query(&self) -> Option<Answer> {
        Answer::parse(&self.question.bytes).ok()
    }

    /// The third and fourth byte of the query.
    #[must_use]
    pub fn query_flags(&self) -> u16 {
        let bytes = self.question.bytes.get(2..4);
        bytes.map_or(0, |bytes| {
            bytes.iter().fold(0, |all, o| all << 8 | u16::from(*o))
        })
    }

    /// The kind of query.
    #[must_use]
    pub fn opcode(&self) -> u16 {
        self.query_flags() >> 11 & 0xf
    }

    /// The greatest size of an answer that the client accepts, in bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.question.transport == Transport::Tcp {
            return 65535;
        }
        let message = Message::from_octets(self.question.bytes.as_slice());
        let opt = message.ok().and_then(|message| message.opt());
        opt.map_or(512, |opt| {
            usize::from(opt.udp_payload_size().clamp(512, 1232))
        })
    }

    /// Whether the queried name is at or below the owner of an NSEC3 record.
    #[must_use]
    pub fn below_hash(&self) -> bool {
        let Some((name, _)) = self.question.name_and_type() else {
            return false;
        };
        ZONES.iter().any(|(origin, text)| {
            let owner = suffix(&name, wire(origin).len() + 33);
            let Some((32, label)) = owner.and_then(|owner| owner.split_first()) else {
                return false;
            };
            let label = String::from_utf8_lossy(label.get(..32).unwrap_or_default());
            let line = format!("\n{label}.{origin}.");
            self.is_below(origin) && text.to_ascii_lowercase().contains(&line)
        })
    }

    /// Whether the queried name is at or below a name.
    #[must_use]
    pub fn is_below(&self, name: &str) -> bool {
        let asked = self.question.name_and_type();
        let name = wire(name);
        asked.is_some_and(|(asked, _)| suffix(&asked, name.len()) == Some(&name))
    }

    /// Whether all denials in a server's answers have a valid proof.
    #[must_use]
    pub fn is_proven(&self, said: &Said) -> bool {
        let (Some((name, rtype)), Some(answer)) = (self.question.name_and_type(), said.whole())
        else {
            return false;
        };
        proof::check(answer, &name, rtype).is_ok()
    }

    /// Whether a proof is required, and this server can give one.
    pub(crate) fn wants_proof(&self, answer: &Answer) -> bool {
        let dnssec = self.query().and_then(|query| query.opt);
        let signed = |name: &[u8]| SIGNED.iter().any(|zone| name.ends_with(&wire(zone)));
        // The SOA record of a denial, a proof, or a signature that may be a wildcard's.
        let mut authority = answer.sections[1].iter();
        let is_denied = authority.any(|r| matches!(r.rtype, 6 | 47 | 50) && signed(&r.owner));
        let is_signed = answer.has(0, |rtype| rtype == 46);
        dnssec.is_some_and(|opt| opt.flags & 0x8000 != 0) && (is_denied || is_signed)
    }

    /// Both answers, if there are two.
    #[must_use]
    pub fn both(&self) -> Option<(&Answer, &Answer)> {
        self.tested
            .first
            .as_ref()
            .zip(self.reference.first.as_ref())
    }

    /// The complete answers of both.
    #[must_use]
    pub fn wholes(&self) -> Option<(&Answer, &Answer)> {
        self.tested.whole().zip(self.reference.whole())
    }

    /// Every difference between the two answers.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        let mut all = Vec::new();
        let is_readable = self.tested.unreadable.is_none() && self.reference.unreadable.is_none();
        let (tested, reference) = match (&self.tested.first, &self.reference.first) {
            (Some(tested), Some(reference)) if is_readable => (tested, reference),
            (None, None) if is_readable => return all,
            _ => {
                all.push(Difference {
                    field: Field::Message,
                    tested: self.tested.text(),
                    reference: self.reference.text(),
                });
                return all;
            }
        };
        let mut note = |field, a: String, b: String| {
            if a != b {
                all.push(Difference {
                    field,
                    tested: a,
                    reference: b,
                });
            }
        };
        note(Field::Flags, tested.flags_text(), reference.flags_text());
        note(
            Field::Rcode,
            tested.rcode().to_string(),
            reference.rcode().to_string(),
        );
        let question = |a: &Answer| a.question.escape_ascii().to_string();
        note(Field::Question, question(tested), question(reference));
        // The content of a truncated answer does not count (RFC 2181 section 9); that of the complete one does.
        if let Some((whole, other)) = self.wholes() {
            // Only one of them had enough room.
            let is_short =
                |said: &Said| self.question.transport == Transport::Udp && said.whole.is_none();
            let unequal = is_short(&self.tested) != is_short(&self.reference);
            let fields = [Field::Answer, Field::Authority, Field::Additional];
            for ((field, a), b) in fields.into_iter().zip(&whole.sections).zip(&other.sections) {
                let (mut a, mut b) = (a.clone(), b.clone());
                if unequal {
                    drop_optional(field, whole, &mut a, &mut b);
                }
                note(field, lines(&a, &b), lines(&b, &a));
            }
        }
        let edns = |a: &Answer| match &a.opt {
            None => "none".to_owned(),
            Some(opt) => format!("version {} flags {:#06x}", opt.version, opt.flags),
        };
        note(Field::Edns, edns(tested), edns(reference));
        let options = Answer::options_text;
        note(Field::Options, options(tested), options(reference));
        all
    }
}

impl Difference {
    /// A short description of the difference, the same for differences of the same cause.
    pub(crate) fn kind(&self, case: &Case<'_>) -> String {
        let index = match self.field {
            Field::Message | Field::Flags | Field::Rcode | Field::Edns => {
                return format!("{:?}: {} not {}", self.field, self.tested, self.reference);
            }
            Field::Question | Field::Options => return format!("{:?}", self.field),
            Field::Answer => 0,
            Field::Authority => 1,
            Field::Additional => 2,
        };
        let types = |these: &Answer, others: &Answer| {
            let (Some(these), Some(others)) =
                (these.sections.get(index), others.sections.get(index))
            else {
                return String::new();
            };
            let all: BTreeSet<_> = missing(these, others)
                .iter()
                .map(|r| Rtype::from_int(r.rtype).to_string())
                .collect();
            all.into_iter().collect::<Vec<_>>().join(" ")
        };
        let (more, less) = case
            .wholes()
            .map_or_else(Default::default, |(a, b)| (types(a, b), types(b, a)));
        format!("{:?}: [{more}] not [{less}]", self.field)
    }
}

/// Removes records that an answer may lack when there is no room (RFC 2181 section 9): additional records, and the
/// zone's name servers beside an answer.
fn drop_optional(field: Field, whole: &Answer, a: &mut Vec<Record>, b: &mut Vec<Record>) {
    let keep = |record: &Record, others: &[Record]| match field {
        Field::Additional => false,
        Field::Authority => {
            let is_servers =
                record.rtype == 2 || record.rtype == 46 && record.rdata.starts_with(&[0, 2]);
            let is_beside = whole.authoritative() && !whole.sections[0].is_empty();
            !(is_servers && is_beside) || others.contains(record)
        }
        _ => true,
    };
    let (all_a, all_b) = (a.clone(), b.clone());
    a.retain(|record| keep(record, &all_b));
    b.retain(|record| keep(record, &all_a));
}

/// The suffix of a name that has `length` bytes, if a label begins there.
fn suffix(name: &[u8], length: usize) -> Option<&[u8]> {
    let mut rest = name;
    while rest.len() > length {
        rest = rest.get(1 + usize::from(*rest.first()?)..)?;
    }
    (rest.len() == length).then_some(rest)
}

/// A name in wire form.
fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.extend(u8::try_from(label.len()));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// The records of `these` that `others` lacks.
fn missing<'a>(these: &'a [Record], others: &[Record]) -> Vec<&'a Record> {
    let mut left = others.to_vec();
    let mut lacks = |record: &&Record| match left.iter().position(|other| other == *record) {
        Some(index) => {
            left.swap_remove(index);
            false
        }
        None => true,
    };
    these.iter().filter(|record| lacks(record)).collect()
}

/// The records of `these` that `others` lacks, a line each.
fn lines(these: &[Record], others: &[Record]) -> String {
    let lacking = missing(these, others);
    lacking
        .iter()
        .map(|record| format!("\n      {record}"))
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
