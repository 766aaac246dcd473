//! The operations of a xenstored as a trait.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::directory;
use super::error::{Error, ErrorCode};
use super::request::{Perm, Request, RequestId, TransactionId};
use super::wire::WatchEvent;

/// A xenstored. Requests are queued, sent together, and answered by id.
pub trait Store {
    /// Queues a request.
    ///
    /// # Errors
    /// A path or a length that cannot be sent. Nothing is queued then.
    fn send(&mut self, request: Request<'_>) -> Result<RequestId, Error>;

    /// Writes all queued requests, in one system call if the socket accepts that. Answers that come meanwhile are kept.
    /// Through the kernel's device, each request waits for the answer to the one before.
    ///
    /// # Errors
    /// xenstored reads nothing within the time limit, or the connection is broken.
    fn flush(&mut self) -> Result<(), Error>;

    /// Takes the answer of a request. Waits for it if need be.
    ///
    /// # Errors
    /// xenstored refuses the request, or does not answer within the time limit; a late answer is then dropped.
    fn answer(&mut self, id: RequestId) -> Result<Vec<u8>, Error>;

    /// The answer if it has come, without waiting. `None` leaves the request pending.
    fn answered(&mut self, id: &RequestId) -> Option<Result<Vec<u8>, Error>>;

    /// Drops the answer of a request when it comes.
    fn forget(&mut self, id: RequestId);

    /// The next watch event, or `None` when there is none within `timeout`.
    ///
    /// # Errors
    /// The connection is broken.
    fn event(&mut self, timeout: Duration) -> Result<Option<WatchEvent>, Error>;

    /// A watch event that has been received already. A caller that polls the descriptor along with others must empty
    /// this first, because events that were read along with an answer do not make the descriptor readable again.
    fn take_event(&mut self) -> Option<WatchEvent>;

    /// Reads all received messages, without waiting.
    ///
    /// # Errors
    /// The connection is broken.
    fn receive(&mut self) -> Result<(), Error>;

    /// Whether the connection is unusable.
    #[must_use]
    fn is_lost(&self) -> bool;

    /// The same, but checks the connection first: an idle client would not notice its end otherwise.
    fn has_ended(&mut self) -> bool;

    /// Connects again, as after an end. Pending requests are lost.
    ///
    /// # Errors
    /// There is no xenstored, or no permission to connect.
    fn reconnect(&mut self) -> Result<(), Error>;

    /// The descriptor, which is readable when a message has come.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Takes all these answers, and returns the first error. After a time-out, it does not wait for the others.
    ///
    /// # Errors
    /// As [`Self::answer`].
    fn answers(&mut self, ids: Vec<RequestId>) -> Result<(), Error> {
        let mut first = Ok(());
        for id in ids {
            if let Err(Error::Timeout { .. }) = first {
                self.forget(id);
                continue;
            }
            let answer = self.answer(id).map(drop);
            if first.is_ok() {
                first = answer;
            }
        }
        first
    }

    /// Takes the opened transaction from the answer to [`Request::transaction_start`].
    ///
    /// # Errors
    /// As [`Self::answer`].
    fn transaction(&mut self, id: RequestId) -> Result<TransactionId, Error> {
        let answer = self.answer(id)?;
        let what = || "a transaction".to_owned();
        match text(&answer, what)?.parse() {
            // 0 means "no transaction".
            Ok(0) | Err(_) => Err(Error::Answer {
                what: what(),
                why: "not a transaction's number",
            }),
            Ok(id) => Ok(TransactionId(id)),
        }
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::answer`].
    fn ask(&mut self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        let id = self.send(request)?;
        self.answer(id)
    }

    /// A node's value as text.
    ///
    /// # Errors
    /// As [`Self::ask`]; a value that is not UTF-8.
    fn read(&mut self, path: &str) -> Result<String, Error> {
        let value = self.ask(Request::read(path))?;
        String::from_utf8(value).map_err(|_| Error::Answer {
            what: Request::read(path).what(),
            why: "it is not UTF-8",
        })
    }

    /// As [`Self::read`]; `None` if there is no such node.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn find(&mut self, path: &str) -> Result<Option<String>, Error> {
        absent(self.read(path))
    }

    /// The values of several nodes, asked for together; `None` for each that is not there.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn values(&mut self, paths: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut asked = Vec::with_capacity(paths.len());
        for path in paths {
            asked.push(self.send(Request::read(path))?);
        }
        asked
            .into_iter()
            .map(|id| absent(self.answer(id)))
            .collect()
    }

    /// Sets a node's value.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn write(&mut self, path: &str, value: &str) -> Result<(), Error> {
        self.ask(Request::write(path, value)).map(drop)
    }

    /// Creates a node.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn mkdir(&mut self, path: &str) -> Result<(), Error> {
        self.ask(Request::mkdir(path)).map(drop)
    }

    /// Removes a node with all below it. A missing node is no error.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn rm(&mut self, path: &str) -> Result<(), Error> {
        // xenstored refuses only if the parent is missing as well.
        absent(self.ask(Request::rm(path))).map(drop)
    }

    /// A node's permissions.
    ///
    /// # Errors
    /// As [`Self::ask`]; an answer that is not a list of permissions.
    fn get_perms(&mut self, path: &str) -> Result<Vec<Perm>, Error> {
        let answer = self.ask(Request::get_perms(path))?;
        let what = || Request::get_perms(path).what();
        let perms: Option<Vec<_>> = text(&answer, what)?.split('\0').map(Perm::parse).collect();
        perms.ok_or_else(|| Error::Answer {
            what: what(),
            why: "it is not a list of permissions",
        })
    }

    /// Sets a node's permissions.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn set_perms(&mut self, path: &str, perms: &[Perm]) -> Result<(), Error> {
        self.ask(Request::set_perms(path, perms)).map(drop)
    }

    /// Watches a path. Its first event comes at once.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn watch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.ask(Request::watch(path, token)).map(drop)
    }

    /// Introduces a domain to xenstored.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn introduce(&mut self, domid: u16, gfn: u64, port: u32) -> Result<(), Error> {
        self.ask(Request::introduce(domid, gfn, port)).map(drop)
    }

    /// Releases a domain.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn release(&mut self, domid: u16) -> Result<(), Error> {
        self.ask(Request::release(domid)).map(drop)
    }

    /// Sends a control command to the daemon, which must answer OK.
    ///
    /// # Errors
    /// As [`Self::ask`]; another answer than OK.
    fn control(&mut self, words: &[&str]) -> Result<(), Error> {
        let answer = self.ask(Request::control(words))?;
        let what = || Request::control(words).what();
        match text(&answer, what)? {
            "OK" => Ok(()),
            _ => Err(Error::Answer {
                what: what(),
                why: "it is not OK",
            }),
        }
    }

    /// The names directly below a node.
    ///
    /// # Errors
    /// As [`Self::ask`]; a list that keeps changing.
    fn directory(&mut self, path: &str) -> Result<Vec<String>, Error> {
        match self.ask(Request::directory(path)) {
            Ok(list) => directory::names(path, &list),
            Err(error) if error.is(&ErrorCode::E2BIG) => {
                match directory::in_parts(path, |part| self.ask(part)) {
                    // oxenstored 4.17 does not support parts. Its socket does not need them; the kernel's device would.
                    Err(other) if other.is(&ErrorCode::ENOSYS) => Err(error),
                    parts => parts,
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// Turns the error of a missing node into `None`.
fn absent<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer that must be text, without its final NUL.
fn text(answer: &[u8], what: impl Fn() -> String) -> Result<&str, Error> {
    let text = std::str::from_utf8(answer).map_err(|_| Error::Answer {
        what: what(),
        why: "it is not UTF-8",
    })?;
    Ok(text.strip_suffix('\0').unwrap_or(text))
}
