//! The timeline of a creation: each step with its time, and the steps that ran beside it.

use serde::Serialize;

/// Something that took time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// What: the name of a step, or what somebody else did.
    pub what: &'static str,
    /// Who: `hatch`, `xenstored` or `netback`. For the others it ends when hatch sees that it is done.
    pub who: &'static str,
    /// From, in ns since the start.
    pub start_ns: u64,
    /// To, in ns since the start.
    pub end_ns: u64,
    /// What others did at the same time.
    pub beside: Vec<&'static str>,
}

impl Span {
    pub(crate) fn new(what: &'static str, who: &'static str, start_ns: u64, end_ns: u64) -> Self {
        Self {
            what,
            who,
            start_ns,
            end_ns,
            beside: Vec::new(),
        }
    }
}

/// When everything happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// All that took time, in the order in which it was done.
    pub spans: Vec<Span>,
    /// From the start to the end.
    pub total_ns: u64,
}

impl Timeline {
    /// Fills in what ran beside what.
    pub(crate) fn compare(&mut self) {
        let all = self.spans.clone();
        for span in &mut self.spans {
            let others = all.iter().filter(|other| other.who != span.who);
            let beside =
                others.filter(|other| other.start_ns < span.end_ns && span.start_ns < other.end_ns);
            span.beside = beside.map(|other| other.what).collect();
        }
    }
}

impl std::fmt::Display for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |ns: u64| format!("{}.{:01}", ns / 1000, ns / 100 % 10);
        writeln!(f, "{:>10} {:>10}  what", "from us", "took us")?;
        for span in &self.spans {
            let took = span.end_ns.saturating_sub(span.start_ns);
            write!(f, "{:>10} {:>10}  ", us(span.start_ns), us(took))?;
            match span.who {
                "hatch" => write!(f, "{}", span.what)?,
                who => write!(f, "{} ({who})", span.what)?,
            }
            writeln!(f)?;
        }
        write!(f, "{:>10} {:>10}  all", "", us(self.total_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_beside() {
        let mut timeline = Timeline {
            spans: vec![
                Span::new("memory", "hatch", 10, 20),
                Span::new("load", "hatch", 20, 30),
                Span::new("vif appears", "netback", 15, 25),
                Span::new("port", "hatch", 30, 40),
            ],
            total_ns: 40,
        };
        timeline.compare();
        let beside: Vec<_> = timeline
            .spans
            .iter()
            .map(|span| span.beside.clone())
            .collect();
        assert_eq!(
            beside,
            [
                vec!["vif appears"],
                vec!["vif appears"],
                vec!["memory", "load"],
                vec![]
            ]
        );
    }
}
