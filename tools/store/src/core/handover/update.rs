//! CONTROL `live-update`, in the steps of `xenstore-control`: `-f PROGRAM`, `-c COMMAND-LINE`, then `-s` to start, or
//! `-a` to give up. The answer to `-s` comes from the successor, or from this server if there is none.

use std::time::Duration;

use mayfly_xenstore::ErrorCode;
use mayfly_xenstore::wire::{Asked, MessageKind};

use super::super::connection::{ClientMessage, ConnectionId};
use super::super::path::{number, strings};
use super::super::perms::Who;
use super::super::server::Server;
use super::session::{LiveUpdate, Start};

const COMMAND: &[u8] = b"live-update";

impl Server {
    /// Returns the live update that has been started.
    #[must_use]
    pub fn started_update(&self) -> Option<&LiveUpdate> {
        self.update.as_ref().filter(|update| update.start.is_some())
    }

    /// Returns what a live update has to wait for, if there is anything: open transactions, which the state does not
    /// hold, and for the C xenstored nodes of a domain that is not introduced, which it cannot restore.
    #[must_use]
    pub fn awaited(&self, is_for_c: bool) -> Option<String> {
        let mut open: Vec<(u16, usize)> = self
            .connections
            .values()
            .map(|connection| (connection.who.domid, connection.transactions.len()))
            .filter(|(_, count)| *count > 0)
            .collect();
        open.sort_unstable();
        let open: Vec<String> = open
            .iter()
            .map(|(domid, count)| format!("{count} of domain {domid}"))
            .collect();
        if !open.is_empty() {
            return Some(format!("Transactions are open: {}", open.join(", ")));
        }
        let is_new = |domid: &u16| {
            let domain = self.domains.get(*domid);
            domain.is_some_and(|domain| !domain.is_introduced && domain.usage.nodes > 0)
        };
        let new = self.domains.numbers().into_iter().find(is_new);
        new.filter(|_| is_for_c).map(|domid| {
            format!("Domain {domid} owns nodes and is not introduced, which the C xenstored cannot restore")
        })
    }

    /// Answers the request that has started a live update with the reason for which there is none.
    pub fn refuse_update(&mut self, reason: &str) {
        if let Some(update) = self.update.take() {
            let answer = update.answer(reason);
            self.send(update.by, answer, &Who::domain(0), ClientMessage::None);
        }
    }

    /// Takes a request that starts a live update. It is answered later.
    pub(in super::super) fn starts_update(&mut self, id: ConnectionId, asked: &Asked<'_>) -> bool {
        let connection = self.connections.get(&id);
        let is_privileged = connection.is_some_and(|connection| connection.who.is_privileged());
        let words = strings(asked.payload);
        let (Some(update), [COMMAND, b"-s", options @ ..]) = (&mut self.update, &*words) else {
            return false;
        };
        if asked.kind != MessageKind::Control as u32 || !is_privileged || update.by != id {
            return false;
        }
        let mut start = Start {
            request: asked.request,
            transaction: asked.transaction,
            patience: Duration::ZERO,
            is_forced: false,
        };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match (*option, options.len()) {
                (b"-F", _) => start.is_forced = true,
                (b"-t", 1..) => {
                    let seconds = options.next().map_or(0, |text| number(text));
                    let seconds = u64::try_from(seconds.min(3600)).unwrap_or(0);
                    start.patience = Duration::from_secs(seconds);
                }
                _ => return false,
            }
        }
        update.start = Some(start);
        true
    }

    /// Answers the other steps.
    pub(in super::super) fn prepare_update(
        &mut self,
        by: ConnectionId,
        words: &[&[u8]],
    ) -> Result<String, ErrorCode> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| ErrorCode::EINVAL);
        let own = self.update.as_mut().filter(|update| update.by == by);
        let refusal = match (words, own) {
            ([b"-f", _], Some(_)) => "live-update session already active.",
            ([b"-f", program], None) => {
                if self.update.is_some() {
                    return Ok("live-update session already active.".to_owned());
                }
                self.update = Some(LiveUpdate {
                    by,
                    program: text(program)?,
                    arguments: None,
                    start: None,
                });
                "OK"
            }
            ([b"-c", line], Some(update)) => {
                let line = text(line)?;
                let words = line.split_ascii_whitespace().map(str::to_owned);
                update.arguments = Some(words.collect());
                "OK"
            }
            ([b"-a"], Some(_)) => {
                self.update = None;
                "OK"
            }
            ([b"-a"], None) => "No live-update session active.",
            ([b"-c", _] | [b"-s", ..], None) => "Not in live-update session.",
            _ => return Err(ErrorCode::EINVAL),
        };
        Ok(refusal.to_owned())
    }
}
