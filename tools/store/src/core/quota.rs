//! Quotas of unprivileged domains, with the C xenstored's names and defaults.

use std::time::Duration;

/// The bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Nodes that a domain owns (`-E`).
    pub nodes: usize,
    /// Bytes of one node (`-S`).
    pub node_size: usize,
    /// Watches (`-W`).
    pub watches: usize,
    /// Open transactions (`-t`).
    pub transactions: usize,
    /// Entries of a node's permissions (`-A`).
    pub perms: usize,
    /// Bytes of a path below a domain's home (`-M`).
    pub path: usize,
    /// Nodes that a transaction reads or writes (`-Q transaction-nodes`).
    pub transaction_nodes: usize,
    /// Answers and events that the domain has caused and that wait for their receivers to take them (`-Q outstanding`).
    pub outstanding: usize,
    /// Bytes that the server keeps for a domain (`-Q memory`).
    pub memory: usize,
    /// The time that events may wait for a domain before their causes are no longer charged (`-w watch-event`).
    pub event_timeout: Duration,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            node_size: 2048,
            watches: 128,
            transactions: 10,
            perms: 5,
            path: 2048,
            transaction_nodes: 1024,
            outstanding: 20,
            memory: (2 << 20) + (1 << 19),
            event_timeout: Duration::from_secs(20),
        }
    }
}

impl Quota {
    /// Returns the bounds with their names in `-Q` and in CONTROL's `quota`.
    pub(super) fn named(&mut self) -> [(&'static str, &mut usize); 9] {
        [
            ("nodes", &mut self.nodes),
            ("watches", &mut self.watches),
            ("transactions", &mut self.transactions),
            ("outstanding", &mut self.outstanding),
            ("transaction-nodes", &mut self.transaction_nodes),
            ("memory", &mut self.memory),
            ("node-size", &mut self.node_size),
            ("path-max", &mut self.path),
            ("permissions", &mut self.perms),
        ]
    }

    /// Sets the bound with a name. Returns whether there is one.
    pub fn set(&mut self, name: &str, value: usize) -> bool {
        let mut all = self.named().into_iter();
        let Some((_, bound)) = all.find(|(known, _)| *known == name) else {
            return false;
        };
        *bound = value;
        true
    }
}
