//! A live update that a client of dom0's prepares and starts.

use std::time::Duration;

use mayfly_xenstore::wire::{Asked, MessageKind};

use super::super::connection::ConnectionId;

/// A live update.
#[derive(Debug)]
pub struct LiveUpdate {
    pub(crate) by: ConnectionId,
    /// The successor's program.
    pub program: String,
    /// The successor's arguments. Without them it gets those of this process.
    pub arguments: Option<Vec<String>>,
    pub(super) start: Option<Start>,
}

/// The request that starts it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) request: u32,
    pub(super) transaction: u32,
    pub(super) patience: Duration,
    pub(super) is_forced: bool,
}

impl LiveUpdate {
    /// Returns how long the start may wait for transactions to end.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.start.map(|start| start.patience).unwrap_or_default()
    }

    /// Returns whether transactions that have not ended by then are given up.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.start.is_some_and(|start| start.is_forced)
    }

    pub(super) fn answer(&self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(start) = self.start {
            let asked = Asked {
                kind: MessageKind::Control as u32,
                request: start.request,
                transaction: start.transaction,
                payload: &[],
            };
            asked.answer(&mut bytes, format!("{text}\0").as_bytes());
        }
        bytes
    }

    /// Returns the answer that a successor gives.
    pub(super) fn success(&self) -> Vec<u8> {
        self.answer("OK")
    }
}
