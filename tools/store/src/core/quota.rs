//! What an unprivileged domain may use at most, with the C xenstored's names and defaults.

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
    /// Transactions that are open (`-t`).
    pub transactions: usize,
    /// Entries of a node's permissions (`-A`).
    pub perms: usize,
    /// Bytes of a path below a domain's home (`-M`).
    pub path: usize,
    /// Nodes that a transaction reads or writes (`-Q transaction-nodes`).
    pub transaction_nodes: usize,
    /// Answers and events that wait for others to take them (`-Q outstanding`).
    pub outstanding: usize,
    /// Bytes that xenstored keeps for a domain (`-Q memory`).
    pub memory: usize,
    /// How long an event may wait for a domain to read it (`-w watch-event`).
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
    /// The names by which `-Q` and CONTROL's `quota` know the bounds, and the bounds.
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

    /// Sets a bound by its name; says whether there is such a one.
    pub fn set(&mut self, name: &str, value: usize) -> bool {
        let mut all = self.named().into_iter();
        let Some((_, bound)) = all.find(|(known, _)| *known == name) else {
            return false;
        };
        *bound = value;
        true
    }
}
