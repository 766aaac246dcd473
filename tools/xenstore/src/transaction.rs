//! Transactions that are retried after a conflict.

use std::time::{Duration, Instant};

use super::error::{Error, ErrorCode};
use super::request::{Request, RequestId, TransactionId};
use super::store::Store;

/// An open transaction. Requests through it are part of it.
pub struct Transaction<'a> {
    store: &'a mut dyn Store,
    id: TransactionId,
}

impl Transaction<'_> {
    /// Queues a request. Its answer must be taken: otherwise a refusal goes unnoticed and xenstored commits the rest.
    ///
    /// # Errors
    /// As [`Store::send`].
    pub fn send(&mut self, request: Request<'_>) -> Result<RequestId, Error> {
        self.store.send(request.within(self.id))
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// As [`Store::answer`].
    pub fn answer(&mut self, id: RequestId) -> Result<Vec<u8>, Error> {
        self.store.answer(id)
    }

    /// Takes all these answers, and returns the first error.
    ///
    /// # Errors
    /// As [`Store::answers`].
    pub fn answers(&mut self, ids: Vec<RequestId>) -> Result<(), Error> {
        self.store.answers(ids)
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub fn ask(&mut self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        self.store.ask(request.within(self.id))
    }
}

impl dyn Store + '_ {
    /// Runs `body` in a transaction and commits it. On a conflict with others' changes, it repeats all of that until
    /// `bound` is over. If `body` fails, the transaction is aborted.
    ///
    /// # Errors
    /// The error of `body`; [`Error::Contended`]; the errors of requests.
    pub fn transact<T, E: From<Error>>(
        &mut self,
        bound: Duration,
        mut body: impl FnMut(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let end = Instant::now() + bound;
        let mut tries = 0;
        loop {
            tries += 1;
            let start = self.send(Request::transaction_start())?;
            let id = self.transaction(start)?;
            let result = body(&mut Transaction { store: self, id });
            let ended = self.ask(Request::transaction_end(id, result.is_ok()));
            let value = result?;
            match ended {
                Ok(_) => return Ok(value),
                Err(error) if error.is(&ErrorCode::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= end {
                return Err(Error::Contended { tries, bound }.into());
            }
        }
    }
}
