//! The cost of one more guest when there are many: the job and its results.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{MARK, Maker};

/// The numbers of guests to make, and their makers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Path of their common configuration in dom0.
    pub config: String,
    /// Memory of each, in MiB.
    pub memory: u32,
    /// dom0's IPv4 address on the bridge. Those of the guests follow it.
    pub dom0: Ipv4Addr,
    /// The prefix length of their network.
    pub prefix: u8,
    /// The number of guests that run at once, for each maker in turn. `xl` is started for each guest, `hatch` once.
    pub counts: Vec<(Maker, u32)>,
    /// Births and deaths beside the guests on the switch.
    pub storm: Option<Storm>,
    /// The time limit of every single wait, in seconds.
    pub bound_s: u64,
}

/// Guests that are made, asked for their page and destroyed at a rate, while the others serve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Storm {
    /// Births in a second.
    pub per_second: u32,
    /// Its length, in seconds.
    pub seconds: u32,
}

/// The results of a storm, in ns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StormOutcome {
    /// The times from a request to a guest that stays until the end of its page, before the storm.
    pub alone: Vec<u64>,
    /// The same during the storm.
    pub beside: Vec<u64>,
    /// The time to make and unpause each guest of the storm.
    pub create: Vec<u64>,
    /// The time to destroy each.
    pub destroy: Vec<u64>,
    /// The length of the storm.
    pub took: u64,
    /// The CPU time that the processes of each name in dom0 have used during it.
    pub cpu: Vec<(String, u64)>,
}

/// The results for the guests of one maker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The maker.
    pub maker: Maker,
    /// The time to make and unpause each guest, in ns, in order. `hatch`, which makes all of them, reports it; for `xl`
    /// it is the run time of the program.
    pub create: Vec<u64>,
    /// For guests on the switch: the time to introduce each to xenstored, after its first answer, in ns.
    #[serde(default)]
    pub introduce: Vec<u64>,
    /// The CPU time of xenstored for all births, in ns.
    pub xenstored: u64,
    /// The time from the request for each guest's page to the end of the page, in ns, while all guests ran.
    pub serve: Vec<u64>,
    /// The run time of the program that destroyed each guest, in ns, in the same order.
    pub destroy: Vec<u64>,
    /// The host's memory that all of them used, in MiB.
    pub memory: u64,
    /// For guests on the switch: the memory of the switch after each birth, in KiB.
    #[serde(default)]
    pub switch: Vec<u64>,
    /// For guests on the switch: births and deaths beside them.
    #[serde(default)]
    pub storm: Option<Box<StormOutcome>>,
}

/// A line of output, which follows [`MARK`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A result.
    Outcome(Outcome),
    /// The measurement failed.
    Failed(String),
    /// The end of the output.
    End,
}

/// Collects the outcomes from a console's output.
///
/// # Errors
/// The program's own error; a line that is cut or is not JSON; output without an end.
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
            introduce: Vec::new(),
            xenstored: 3,
            serve: vec![4, 5],
            destroy: vec![6, 7],
            memory: 8,
            switch: vec![10],
            storm: None,
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
