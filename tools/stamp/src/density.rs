//! What one more guest costs when there are many: the job, and what was seen.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{MARK, Maker};

/// How many guests to make, and by whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Path of their common configuration in dom0.
    pub config: String,
    /// MiB of each.
    pub memory: u32,
    /// The first one's IPv4 address; the others' follow.
    pub first: Ipv4Addr,
    /// How many, all there at once, by each maker in turn. `xl` is started for each, `hatch` once.
    pub counts: Vec<(Maker, u32)>,
    /// Bound of every single wait, in seconds.
    pub bound_s: u64,
}

/// What was seen of the guests of one maker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Who made them.
    pub maker: Maker,
    /// ns that each took to be made and unpaused, in their order. `hatch`, which makes all of them, says it itself; of `xl` it is
    /// the program from its start to its end.
    pub create: Vec<u64>,
    /// ns of CPU that xenstored took for the births of all.
    pub xenstored: u64,
    /// ns from asking each for its page until all of it was there, when all of them ran.
    pub serve: Vec<u64>,
    /// ns of the program that destroyed each, in the same order.
    pub destroy: Vec<u64>,
    /// MiB of the host's memory that all of them had.
    pub memory: u64,
}

/// A part of the output, on a line of its own behind [`MARK`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// What was seen.
    Outcome(Outcome),
    /// It failed.
    Failed(String),
    /// Nothing follows.
    End,
}

/// Collects the outcomes out of everything that was on a console.
///
/// # Errors
/// The program's own, a line that is cut or is not JSON, and output without an end.
pub fn outcomes(text: &str) -> Result<Vec<Outcome>, String> {
    let mut outcomes = Vec::new();
    for line in text.lines() {
        let Some((_, json)) = line.split_once(MARK) else {
            continue;
        };
        match serde_json::from_str(json.trim_end()).map_err(|e| format!("{e} in {line:?}"))? {
            Line::Outcome(outcome) => outcomes.push(outcome),
            Line::Failed(e) => return Err(e),
            Line::End => return Ok(outcomes),
        }
    }
    Err("the measuring program did not come to its end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_output_counts() {
        let outcome = Outcome {
            maker: Maker::Xl,
            create: vec![1, 2],
            xenstored: 3,
            serve: vec![4, 5],
            destroy: vec![6, 7],
            memory: 8,
        };
        let line = |line: &Line| format!("{MARK}{}\r\n", serde_json::to_string(line).unwrap());
        let text = format!("(XEN) hello\r\n{}", line(&Line::Outcome(outcome.clone())));
        assert!(outcomes(&text).unwrap_err().contains("end"));
        let text = text + &line(&Line::End);
        assert_eq!(outcomes(&text), Ok(vec![outcome]));
        let failed = line(&Line::Failed("no vif".into()));
        assert_eq!(outcomes(&failed), Err("no vif".into()));
    }
}
