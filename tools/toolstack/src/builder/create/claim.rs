//! Claims a name and a MAC address: the one transaction of a creation.

use std::time::{Duration, Instant};

use super::super::ToolstackError;
use super::super::config::GuestConfig;
use super::super::keys::{self, Ports};
use super::super::making::MakingProcess;
use super::super::names::{self, XlLock};
use super::super::toolstack::Toolstack;
use super::DoneSteps;
use crate::host::Store;
use crate::paths;
use mayfly_xenstore::{ErrorCode, Request, RequestId, TransactionId};

/// The time for which the claim of a name is retried when it conflicts with other transactions.
const CLAIM_BOUND: Duration = Duration::from_secs(2);

/// A claim that xenstored has not answered yet.
pub(super) struct Claim {
    writes: Vec<RequestId>,
    end: RequestId,
}

impl Claim {
    /// Waits for all answers; returns whether the claim succeeded.
    pub(super) fn ended(self, store: &mut dyn Store) -> bool {
        let _ = store.answers(self.writes);
        store.answer(self.end).is_ok()
    }
}

impl Toolstack {
    /// Leaves the mark that a guest is being made, and checks that its name and MAC address are free.
    pub(super) fn names(
        &mut self,
        config: &GuestConfig,
        done: &mut DoneSteps,
    ) -> Result<TransactionId, ToolstackError> {
        let path = paths::making_path(&config.uuid);
        let mark = self
            .store
            .send(Request::write(&path, &MakingProcess::this().to_string()))?;
        done.making = true;
        let transaction = names::begin(&mut *self.store, &mut *self.xen, config)?;
        done.open = Some(transaction);
        self.store.answer(mark)?;
        Ok(transaction)
    }

    pub(super) fn claim(
        &mut self,
        config: &GuestConfig,
        domid: u16,
        transaction: TransactionId,
    ) -> Result<Claim, ToolstackError> {
        let mut writes = Vec::new();
        for op in keys::claim(domid, config) {
            writes.push(self.store.send(op.request().within(transaction))?);
        }
        let end = self
            .store
            .send(Request::transaction_end(transaction, true))?;
        Ok(Claim { writes, end })
    }

    /// Checks that the claim succeeded. A change by others at the same time makes it void; it is then made again.
    pub(super) fn claimed(
        &mut self,
        config: &GuestConfig,
        domid: u16,
        done: &mut DoneSteps,
    ) -> Result<(), ToolstackError> {
        let end = Instant::now() + CLAIM_BOUND;
        while let Some(claim) = done.claim.take() {
            let written = self.store.answers(claim.writes);
            match self.store.answer(claim.end) {
                Ok(_) => {
                    done.claimed = true;
                    written?;
                }
                Err(error) if error.is(&ErrorCode::EAGAIN) && Instant::now() < end => {
                    let transaction = names::begin(&mut *self.store, &mut *self.xen, config)?;
                    done.claim = Some(self.claim(config, domid, transaction)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Introduces a guest to xenstored and checks that its claim, and all requests with these answers, succeeded. They
    /// are read only now, when most have arrived: waiting earlier would mean more wake-ups.
    pub(super) fn introduced(
        &mut self,
        (config, domid, ports): (&GuestConfig, u16, &Ports),
        mut answers: Vec<RequestId>,
        (lock, done): (&XlLock, &mut DoneSteps),
    ) -> Result<(), ToolstackError> {
        for op in keys::introduce(domid, ports) {
            answers.push(self.store.send(op.request())?);
        }
        self.claimed(config, domid, done)?;
        self.store.answers(answers)?;
        if !lock.is_ours() {
            names::again(&mut *self.store, &mut *self.xen, config)?;
        }
        Ok(())
    }
}
