//! The timeline of a creation: each step with its time, and the steps that ran beside it.

use serde::Serialize;

/// A step or another event that took time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The name of a step, or of the work of another process.
    pub what: &'static str,
    /// The process: `hatch`, `xenstored` or `netback`. For the latter two the span ends when hatch sees that the work
    /// is done.
    pub who: &'static str,
    /// The beginning, in ns since the start of the creation.
    pub start_ns: u64,
    /// The end, in ns since the start of the creation.
    pub end_ns: u64,
    /// The spans of other processes at the same time.
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

/// The timeline of a creation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// The spans, in the order in which they were recorded.
    pub spans: Vec<Span>,
    /// The total duration, in ns.
    pub total_ns: u64,
}

impl Timeline {
    /// Fills in [`Span::beside`].
    pub(crate) fn compare(&mut self) {
        let all = self.spans.clone();
        for span in &mut self.spans {
            let overlap =
                |other: &&Span| other.start_ns < span.end_ns && span.start_ns < other.end_ns;
            let beside = all.iter().filter(overlap);
            let others = beside.filter(|other| other.who != span.who);
            span.beside = others.map(|other| other.what).collect();
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
