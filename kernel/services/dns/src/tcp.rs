//! DNS on a TCP connection: messages with a 16-bit length before each (RFC 1035 section 4.2.2), pipelined as the client
//! likes, and answered in order (RFC 7766).

use core::net::IpAddr;

use super::transfer::Transfer;
use super::wire::HEADER_LEN;
use super::{Client, Server, Transport, count};
use mayfly_site::Zones;
use mayfly_stream::{Input, Millis, Next, Progress};

/// The longest query that is accepted over TCP, in bytes.
pub const TCP_QUERY_MAX: usize = 1024;
/// The time, in milliseconds, in which the next whole query has to arrive, or an answer has to find room.
pub const TCP_TIMEOUT: Millis = 10_000;
/// The longest message of a zone transfer, in bytes: compression pointers do not reach further.
const TRANSFER_MAX: usize = 16 * 1024;

/// The start of a client's bytes.
enum Framed<'i> {
    /// A whole query, without its length.
    Whole(&'i [u8]),
    /// The rest of it has not come yet.
    Incomplete,
    /// A length that no query has.
    Wrong,
}

impl<'i> Framed<'i> {
    fn read(bytes: &'i [u8]) -> Self {
        let Some((length, rest)) = bytes.split_first_chunk() else {
            return Self::Incomplete;
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if !(HEADER_LEN..=TCP_QUERY_MAX).contains(&length) {
            return Self::Wrong;
        }
        rest.get(..length).map_or(Self::Incomplete, Self::Whole)
    }
}

/// A connection from a client to a server of zones with such nodes ([`Zones::Node`]).
#[derive(Debug)]
pub struct Connection<N> {
    /// The time by which the client must have sent the rest of a query, or have taken an answer.
    deadline: Millis,
    closed: bool,
    /// The zone transfer that is being sent.
    transfer: Option<Transfer<N>>,
}

impl<N: Copy + Eq> Connection<N> {
    /// A connection that was accepted now.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self {
            deadline: now.saturating_add(TCP_TIMEOUT),
            closed: false,
            transfer: None,
        }
    }

    /// The time at which `process` must be called again if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Answers the queries in `input` for whose answers `out` has room.
    ///
    /// An answer is written when `out` has `room` bytes or more, and is at most that long (with its length). An answer
    /// that does not fit is SERVFAIL. `room` is at most the size of the send buffer, and at least
    /// [`ROOM_MIN`](super::ROOM_MIN) and 2; `input` must be able to grow to [`TCP_QUERY_MAX`] and 2.
    #[expect(
        clippy::too_many_arguments,
        reason = "a server, a client, and two buffers"
    )]
    pub fn process(
        &mut self,
        server: &mut Server,
        zones: &impl Zones<Node = N>,
        now: Millis,
        unix_seconds: u64,
        address: IpAddr,
        input: Input<'_>,
        out: &mut [u8],
        room: usize,
    ) -> Progress {
        let (mut consumed, mut written) = (0, 0);
        // Whether bytes of the peer are missing; otherwise there is no room for the answer.
        let mut starved = true;
        while !self.closed {
            let mut query = None;
            if self.transfer.is_none() {
                match Framed::read(input.bytes.get(consumed..).unwrap_or_default()) {
                    Framed::Whole(whole) => query = Some(whole),
                    Framed::Incomplete => break,
                    Framed::Wrong => return self.abort(server, input, written),
                }
            }
            let space = out.get_mut(written..);
            let space = space.and_then(|space| space.get_mut(..room));
            let Some((prefix, space)) = space.and_then(<[u8]>::split_first_chunk_mut) else {
                starved = false;
                break;
            };
            if let Some(query) = query {
                consumed += 2 + query.len();
                self.transfer = Transfer::begin(zones, query);
                let begun = &mut server.stats.transfers;
                *begun = begun.wrapping_add(self.transfer.is_some().into());
            }
            let length = match (&mut self.transfer, query) {
                (Some(transfer), _) => {
                    let (space, _) = space.split_at_mut(space.len().min(TRANSFER_MAX));
                    let Ok(length) = transfer.write(zones, space) else {
                        count(&mut server.stats.broken);
                        return self.abort(server, input, written);
                    };
                    if transfer.is_done() {
                        self.transfer = None;
                        server.count_transfer();
                    }
                    Some(length)
                }
                (None, Some(query)) => {
                    let client = Client {
                        address,
                        transport: Transport::Tcp,
                    };
                    server.answer(zones, now, unix_seconds, client, query, space)
                }
                (None, None) => None,
            };
            if let Some(length) = length {
                *prefix = u16::try_from(length).unwrap_or(0).to_be_bytes();
                written += prefix.len() + length;
            }
            self.deadline = now.saturating_add(TCP_TIMEOUT);
        }
        let expired = now >= self.deadline;
        if !starved && expired {
            return self.abort(server, input, written);
        }
        self.closed |= starved && (input.ended || expired);
        let next = if self.closed {
            consumed = input.bytes.len();
            Next::Close
        } else {
            Next::Keep
        };
        Progress {
            consumed,
            written,
            next,
        }
    }

    fn abort(&mut self, server: &mut Server, input: Input<'_>, written: usize) -> Progress {
        self.closed = true;
        self.transfer = None;
        count(&mut server.stats.aborted);
        Progress {
            consumed: input.bytes.len(),
            written,
            next: Next::Abort,
        }
    }
}
