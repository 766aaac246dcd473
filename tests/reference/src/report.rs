//! The result of a comparison, and how it is printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use domain::base::Message;

use crate::answer::Answer;
use crate::client::Heard;
use crate::compare::{Case, Difference, Said, hex};
use crate::proof::Held;
use crate::questions::Question;
use crate::{LEFT_OUT, proof, rules};

/// The results of a comparison.
#[derive(Default)]
pub struct Report {
    /// The number of uses of each rule.
    pub allowed: BTreeMap<&'static str, usize>,
    /// Differences that no rule allows, by a short description; the first cases of each are in full.
    pub forbidden: BTreeMap<String, (usize, Vec<String>)>,
    /// Questions that both servers answered.
    pub answered: usize,
    /// Answers of the tested server that needed a proof.
    pub denials: usize,
    /// Denials without a valid proof; the first cases of each are in full.
    pub unproven: BTreeMap<String, (usize, Vec<String>)>,
    /// Answers of the reference by RCODE.
    pub rcodes: BTreeMap<u16, usize>,
    /// The number of questions.
    pub asked: usize,
}

/// The number of cases of one description that are shown in full.
const SHOWN: usize = 2;

impl Report {
    /// Compares the answers of two servers.
    ///
    /// # Errors
    /// There are fewer answers than questions.
    pub fn new(questions: &[Question], tested: &Heard, reference: &Heard) -> Result<Self> {
        ensure!(questions.len() == tested.first.len() && questions.len() == reference.first.len());
        let mut report = Self::default();
        for (index, question) in questions.iter().enumerate() {
            let said = |heard: &Heard| {
                let mut said = Said::default();
                let mut parse = |answers: &[Option<Vec<u8>>]| {
                    let bytes = answers.get(index).and_then(Option::as_deref)?;
                    let answer = Answer::parse(bytes);
                    answer
                        .inspect_err(|e| {
                            said.unreadable = Some((format!("{e:#}"), bytes.to_vec()));
                        })
                        .ok()
                };
                let (first, whole) = (parse(&heard.first), parse(&heard.whole));
                Said {
                    first,
                    whole,
                    ..said
                }
            };
            let (tested, reference) = (said(tested), said(reference));
            report.add(&Case {
                question,
                tested,
                reference,
            });
        }
        Ok(report)
    }

    /// Whether there is no error.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.forbidden.is_empty() && self.unproven.is_empty()
    }

    fn add(&mut self, case: &Case<'_>) {
        self.asked += 1;
        self.answered += usize::from(case.both().is_some());
        if let Some(reference) = &case.reference.first {
            *self.rcodes.entry(reference.rcode()).or_default() += 1;
        }
        if let Some(answer) = case.tested.whole().filter(|a| case.wants_proof(a))
            && let Some((name, rtype)) = case.question.name_and_type()
        {
            self.denials += 1;
            let held = proof::check(answer, &name, rtype);
            // Opt-out leaves only these out of the zones of the site.
            let may_be_left_out = rtype == 43 || case.is_below(LEFT_OUT);
            let what = match held {
                Err(what) => Some(what),
                Ok(Held::LeftOut) if !may_be_left_out => Some("opt-out says nothing of this name"),
                Ok(_) => None,
            };
            if let Some(what) = what {
                let (count, shown) = self.unproven.entry(what.to_owned()).or_default();
                *count += 1;
                if shown.len() < SHOWN {
                    shown.push(format!("  {}\n", asked(case.question)));
                }
            }
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

    /// The whole report as text.
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
        let _ = writeln!(
            text,
            "{} answers of the tested server had to prove something, and {} did not",
            self.denials,
            self.unproven
                .values()
                .map(|(count, _)| count)
                .sum::<usize>()
        );
        for (what, (count, shown)) in &self.unproven {
            let _ = writeln!(text, "\n{count} times: {what}\n{}", shown.concat());
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

/// A question as text.
fn asked(question: &Question) -> String {
    use domain::base::ToName;
    let bytes = &question.bytes;
    let mut text = format!("{:?}, {}", question.transport, question.about);
    if let Ok(message) = Message::from_octets(bytes.as_slice()) {
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
    let _ = write!(text, "\n    bytes {}", hex(bytes));
    text
}
