//! Where two answers to one question differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use domain::base::Message;
use domain::base::iana::Rtype;

use crate::answer::{Answer, Record};
use crate::client::Answers;
use crate::questions::{Question, Transport, qtype};
use crate::rules;

/// Part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Whether there is an answer that can be read.
    Message,
    /// Opcode and flags.
    Flags,
    /// RCODE, with the upper bits of EDNS.
    Rcode,
    /// The question section, octet for octet.
    Question,
    /// The answer section.
    Answer,
    /// The authority section.
    Authority,
    /// The additional section, but for OPT.
    Additional,
    /// OPT: whether there is one, its version and flags.
    Edns,
    /// OPT: which options there are.
    Options,
}

/// A question with what both servers said.
pub struct Case<'a> {
    /// What was asked.
    pub question: &'a Question,
    /// The answer of the server that is tested.
    pub tested: Option<Answer>,
    /// The answer of the server it is compared with.
    pub reference: Option<Answer>,
}

/// A difference.
#[derive(Clone, Debug)]
pub struct Difference {
    /// In what.
    pub field: Field,
    /// What the tested server says.
    pub tested: String,
    /// What the reference says.
    pub reference: String,
}

impl Case<'_> {
    /// The type that is asked for.
    #[must_use]
    pub fn qtype(&self) -> Option<u16> {
        qtype(&self.question.octets)
    }

    /// The third and fourth octet of the query.
    #[must_use]
    pub fn query_flags(&self) -> u16 {
        let octets = self.question.octets.get(2..4);
        octets.map_or(0, |octets| {
            octets.iter().fold(0, |all, o| all << 8 | u16::from(*o))
        })
    }

    /// The kind of query.
    #[must_use]
    pub fn opcode(&self) -> u16 {
        self.query_flags() >> 11 & 0xf
    }

    /// Octets that the client has room for.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.question.transport == Transport::Tcp {
            return 65535;
        }
        let message = Message::from_octets(self.question.octets.as_slice());
        let opt = message.ok().and_then(|message| message.opt());
        opt.map_or(512, |opt| {
            usize::from(opt.udp_payload_size().clamp(512, 1232))
        })
    }

    /// Whether the name that is asked for, or the end of an alias, has a label that is an NSEC3 hash: 32 digits of base32hex.
    #[must_use]
    pub fn below_hash(&self) -> bool {
        let mut rest = self.question.octets.get(12..).unwrap_or_default();
        while let Some((length, tail)) = rest.split_first().filter(|(length, _)| **length > 0) {
            let Some((label, tail)) = tail.split_at_checked(usize::from(*length)) else {
                return false;
            };
            let digit = |o: &u8| matches!(o.to_ascii_lowercase(), b'0'..=b'9' | b'a'..=b'v');
            if label.len() == 32 && label.iter().all(digit) {
                return true;
            }
            rest = tail;
        }
        false
    }

    /// Both answers, where there are two.
    #[must_use]
    pub fn both(&self) -> Option<(&Answer, &Answer)> {
        self.tested.as_ref().zip(self.reference.as_ref())
    }

    /// Every difference between the two answers.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        let mut all = Vec::new();
        let (tested, reference) = match (&self.tested, &self.reference) {
            (Some(tested), Some(reference)) => (tested, reference),
            (None, None) => return all,
            (tested, reference) => {
                let text = |answer: &Option<Answer>| {
                    let text = |a: &Answer| format!("{}, RCODE {}", a.flags_text(), a.rcode());
                    answer.as_ref().map_or("no answer".to_owned(), text)
                };
                all.push(Difference {
                    field: Field::Message,
                    tested: text(tested),
                    reference: text(reference),
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
        // What is in an answer that was cut is nobody's business (RFC 2181 section 9).
        if !tested.truncated() && !reference.truncated() {
            let fields = [Field::Answer, Field::Authority, Field::Additional];
            for ((field, a), b) in fields
                .into_iter()
                .zip(&tested.sections)
                .zip(&reference.sections)
            {
                note(field, lines(a, b), lines(b, a));
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
    /// The difference in so few words that others of the same cause have the same.
    fn kind(&self, case: &Case<'_>) -> String {
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
            .both()
            .map_or_else(Default::default, |(a, b)| (types(a, b), types(b, a)));
        format!("{:?}: [{more}] not [{less}]", self.field)
    }
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

/// What a comparison has found.
#[derive(Default)]
pub struct Report {
    /// How often each rule was needed.
    pub allowed: BTreeMap<&'static str, usize>,
    /// What no rule allows, by a short description; the first cases of each in full.
    pub forbidden: BTreeMap<String, (usize, Vec<String>)>,
    /// Questions that both servers answered.
    pub answered: usize,
    /// Answers of the reference by RCODE.
    pub rcodes: BTreeMap<u16, usize>,
    /// Questions.
    pub asked: usize,
}

/// Cases of one description that are shown in full.
const SHOWN: usize = 2;

impl Report {
    /// Compares the answers of two servers.
    ///
    /// # Errors
    /// Fewer answers than questions.
    pub fn new(questions: &[Question], tested: &Answers, reference: &Answers) -> Result<Self> {
        ensure!(questions.len() == tested.len() && questions.len() == reference.len());
        let mut report = Self::default();
        for ((question, tested), reference) in questions.iter().zip(tested).zip(reference) {
            let mut parsed = [None, None];
            let mut unreadable = None;
            for (place, (who, octets)) in parsed
                .iter_mut()
                .zip([("tested", tested), ("reference", reference)])
            {
                match octets.as_deref().map(Answer::parse).transpose() {
                    Ok(answer) => *place = answer,
                    Err(e) => unreadable = Some(format!("the {who} answer is unreadable: {e:#}")),
                }
            }
            let [tested, reference] = parsed;
            let case = Case {
                question,
                tested,
                reference,
            };
            report.add(&case, unreadable);
        }
        Ok(report)
    }

    fn add(&mut self, case: &Case<'_>, unreadable: Option<String>) {
        self.asked += 1;
        self.answered += usize::from(case.both().is_some());
        if let Some(reference) = &case.reference {
            *self.rcodes.entry(reference.rcode()).or_default() += 1;
        }
        if let Some(what) = unreadable {
            self.forbid(what, case, &[]);
            return;
        }
        let all = case.differences();
        let (allowed, left): (Vec<_>, Vec<_>) = all
            .into_iter()
            .map(|difference| (rules::allowing(case, &difference), difference))
            .partition(|(rule, _)| rule.is_some());
        for (rule, _) in allowed {
            if let Some(rule) = rule {
                *self.allowed.entry(rule.name).or_default() += 1;
            }
        }
        if !left.is_empty() {
            let left: Vec<_> = left.into_iter().map(|(_, difference)| difference).collect();
            let kinds: Vec<_> = left.iter().map(|d| d.kind(case)).collect();
            self.forbid(kinds.join("; "), case, &left);
        }
    }

    fn forbid(&mut self, what: String, case: &Case<'_>, differences: &[Difference]) {
        let (count, shown) = self.forbidden.entry(what).or_default();
        *count += 1;
        if shown.len() < SHOWN {
            shown.push(full(case, differences));
        }
    }

    /// Everything, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} questions, {} answered by both; by RCODE of the reference: {:?}\n",
            self.asked, self.answered, self.rcodes
        );
        for rule in rules::ALL {
            let count = self.allowed.get(rule.name).copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "allowed {count:6} times: {} ({})",
                rule.name, rule.why
            );
        }
        let total: usize = self.forbidden.values().map(|(count, _)| count).sum();
        let _ = writeln!(
            text,
            "{total} questions with differences that no rule allows"
        );
        let mut forbidden: Vec<_> = self.forbidden.iter().collect();
        forbidden.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (what, (count, shown)) in forbidden {
            let _ = writeln!(text, "\n{count} times: {what}");
            for case in shown {
                text.push_str(case);
            }
        }
        text
    }
}

fn full(case: &Case<'_>, differences: &[Difference]) -> String {
    let mut text = format!("  {}\n", asked(case.question));
    for difference in differences {
        let _ = writeln!(
            text,
            "    {:?}\n      tested: {}\n      reference: {}",
            difference.field, difference.tested, difference.reference
        );
    }
    text
}

/// A question as a person reads it.
fn asked(question: &Question) -> String {
    use domain::base::ToName;
    let octets = &question.octets;
    let mut text = format!("{:?}, {}", question.transport, question.about);
    if let Ok(message) = Message::from_octets(octets.as_slice()) {
        for question in message.question().flatten() {
            let name = question.qname().to_vec();
            let _ = write!(text, ": {name} {} {}", question.qclass(), question.qtype());
        }
        if let Some(opt) = message.opt() {
            let _ = write!(
                text,
                ", EDNS version {} size {}{}",
                opt.version(),
                opt.udp_payload_size(),
                if opt.dnssec_ok() { " DO" } else { "" }
            );
        }
    }
    let _ = write!(
        text,
        "\n    octets {}",
        octets
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    );
    text
}
