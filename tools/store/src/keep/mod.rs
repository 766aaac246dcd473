//! A worker that may end at any moment without a loss.
//!
//! Three processes of one program:
//!
//! - The **worker** serves. It does all input and output itself, so that a request costs no switch between processes.
//!   Before it processes an input it has added it to the *journal*, which lies in memory that all three share.
//! - The **copy** is a copy of the worker, made by clone(2) at a moment between two inputs, and sleeps. Its memory is the
//!   snapshot of the worker's state, which needs no format: transactions with their trees, hash tables with their
//!   seeds. It shares the table of file descriptors with the worker (`CLONE_FILES`): what the worker has accepted or
//!   closed is open or closed there, and stays open when the worker ends.
//! - The **keeper** is the parent of both and has the pid file. It holds nothing, and waits for the worker's end. Then it
//!   wakes the copy, which copies itself again: that is the next worker. It repeats the journal, takes over what only
//!   the kernel knows (below), makes a copy of itself, and serves. If it ends too, the copy that made it is still there.
//!   For a live update the keeper executes the successor's program, so that the process with the pid file stays.
//!
//! When the journal has grown to half a MiB, or the copy has ended, the worker makes a new copy with the other one of two
//! logs, and announces process and log in one word. The former copy ends when it sees that it is not the announced one.
//!
//! # Why nothing is lost or done twice
//!
//! The core is a function of the journal's records: it knows no clock, and no result depends on the order in a hash
//! table. What remains are the instructions around each input and output, between any two of which the worker may end.
//!
//! - **Received from a socket.** recvmmsg(2) puts the bytes behind the log's end, and the kernel itself writes their
//!   number into shared memory within that system call, which a signal does not cut. The record counts from the moment
//!   at which the log's length is stored. Ended before the call: the socket has the bytes. Between the call and that
//!   store: the number is there, and the place of the call is the log's end; so the successor stores the length. After it:
//!   the place is not the log's end.
//! - **Sent on a socket.** The same with sendmmsg(2). The bytes themselves need not be kept, because the core makes them
//!   again. Without a number none were sent, and they are still in the successor's queue.
//! - **Read from a ring.** The bytes and the new consumer index are a record before the index is stored in the page. If
//!   that record is the last one, the successor stores the index (again). Until then the domain cannot overwrite them.
//! - **Written to a ring.** The bytes are copied behind the producer index, the record with the new index is added, and
//!   the index is stored. Again the successor of one that ended after the record stores it; before that, the domain does
//!   not see the bytes. The successor notifies each domain whose ring the journal names.
//! - **A new client.** A file descriptor that nobody knows, and which is a connection, was accepted by a worker that
//!   ended before it added the record. The successor takes it as new. **An ended one** is closed before its record is
//!   added, so that it cannot be such a one; a client without an open file descriptor is ended by the successor.
//! - **Domains attached and detached.** The answers of Xen are records behind that of the request. If the request is the
//!   last record, the successor asks Xen for the first time, or again: a port that was bound, and that nobody knows,
//!   is found and closed first. The ring is emptied only after the record of the answer, and the page itself shows
//!   whether that was completed.
//! - **Events** of event channels are not in the journal. The successor unmasks all ports, looks at each ring, and reads
//!   the state of all domains.
//! - **A new copy** counts from the store of one word. Ended before it: the former copy and the whole log are there, and
//!   the new copy ends as soon as another worker is wanted. After it: the log is empty, and so it has to be.
//!
//! A record that ends three workers in a row is not processed a fourth time: its connection is closed, or its ring shut.
//!
//! If the keeper is killed, so are the others: its number is the daemon's.

mod copies;
mod journal;
mod keeper;
mod sys;
mod words;

pub(crate) use copies::{Copies, Renewed};
pub(crate) use journal::{Journal, Kind, NO_PORT, RECEIVE, Record, Upcoming};
pub(crate) use keeper::words as command_line;
pub use keeper::{Keeper, Kept, Side, keep};
