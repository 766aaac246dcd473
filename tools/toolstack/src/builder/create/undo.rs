//! Undoes a creation that failed.

use mayfly_xenstore::{Request, TransactionId};

use super::super::config::GuestConfig;
use super::super::index;
use super::super::keys::{self, StoreOp};
use super::super::making::Mark;
use super::super::switch;
use super::super::toolstack::Toolstack;
use super::claim::Claim;
use crate::paths;

/// The completed parts of a creation, which a failure has to undo.
#[derive(Default)]
pub(super) struct DoneSteps {
    pub(super) making: bool,
    /// The mark of a birth that xenstored has not been told of yet.
    pub(super) mark: Option<Mark>,
    /// The transaction of the claim, as long as nothing was written in it.
    pub(super) open: Option<TransactionId>,
    pub(super) domain: Option<u16>,
    pub(super) keys: bool,
    /// The guest does the handshake with the switch.
    pub(super) switched: bool,
    pub(super) connecting: bool,
    pub(super) claim: Option<Claim>,
    pub(super) claimed: bool,
}

impl Toolstack {
    /// Ends the transaction that is open, and learns whether the claim succeeded: if a failure came first, that is not
    /// known yet.
    pub(super) fn end_claim(&mut self, done: &mut DoneSteps) {
        if let Some(open) = done.open
            && let Ok(end) = self.store.send(Request::transaction_end(open, false))
        {
            self.store.forget(end);
        }
        if let Some(claim) = done.claim.take() {
            done.claimed |= claim.ended(&mut *self.store);
        }
    }

    /// Undoes the completed parts, and returns what could not be undone.
    pub(super) fn undo(&mut self, config: &GuestConfig, mut done: DoneSteps) -> Vec<String> {
        let mut left = Vec::new();
        self.end_claim(&mut done);
        let is_lost = self.store.is_lost();
        if is_lost {
            left.extend(self.reconnect().err().map(|error| error.to_string()));
            let record = done
                .domain
                .map(|domid| index::record(&mut *self.store, domid));
            done.claimed = matches!(record, Some(Ok(Some(record))) if record == config.index());
        }
        if let Some(domid) = done.domain {
            if done.keys && config.vif.is_some() && !done.switched {
                self.quiet(domid, done.connecting);
            }
            if let Err(error) = self.xen.destroy(domid)
                && !error.is_no_such_domain()
            {
                left.push(format!("domain {domid}: {error}"));
            }
            let mut ops = Vec::new();
            if done.keys {
                ops = keys::death(domid, Some(&paths::uuid(&config.uuid)));
            }
            if done.switched {
                // Its directory first, so that the switch is not given the guest again.
                left.extend(self.remove(&[keys::unswitched(domid)]));
                left.extend(switch::let_go(&self.run, domid, self.bound).err());
            }
            if done.claimed {
                ops.push(StoreOp::Release(domid));
            }
            left.extend(self.remove(&ops));
            left.extend(self.settle(domid).err().map(|error| error.to_string()));
            // Requests that were sent earlier may have arrived after the removal, as may those of xenconsoled, which
            // writes for a guest that it was just told of.
            left.extend(self.remove(&ops));
            if done.claimed || is_lost {
                left.extend(self.forget(domid, &config.index()));
            }
        }
        // Last, and only when nothing else is left: `hatch gc` finds the remains by this mark.
        if done.making && left.is_empty() {
            left.extend(self.remove(&[StoreOp::Rm(paths::making_path(&config.uuid))]));
        }
        left
    }
}
