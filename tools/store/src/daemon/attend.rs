//! The turn of one connection: its requests are read and answered, and its output is sent.

use std::os::fd::AsFd as _;
use std::time::Instant;

use crate::core::ConnectionId;

use super::clients::later;
use super::ring::{self, Fault};
use super::witness::Witness;
use super::{Daemon, Machine};
use crate::core::Broken;
use crate::keep::{Kind, RECEIVE};

/// The number of reads in a turn. A connection that never stops sending delays the others by this much only.
const ROUNDS: usize = 16;
/// The number of bytes sent on a socket at a time.
pub(super) const WRITE: usize = 64 << 10;

impl<M: Machine> Daemon<M> {
    /// Reads and answers a connection's requests, and sends its output.
    pub(super) fn attend(&mut self, id: ConnectionId) {
        if self.journal.is_low() {
            return self.next.push(id);
        }
        if self.clients.contains_key(&id) {
            return self.client(id);
        }
        if let Some(domid) = self.server.domain_of(id) {
            self.ring(id, domid);
        }
    }

    /// Has the server take bytes that the last record of the journal has.
    pub(super) fn take(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<(), Broken> {
        self.journal.begin();
        let mut witness = Witness {
            machine: &mut self.machine,
            journal: &mut self.journal,
        };
        let result = self.server.take(id, bytes, &mut witness);
        self.journal.finish();
        result
    }

    /// Serves a ring no more.
    pub(super) fn shut(&mut self, id: ConnectionId, domid: u16, fault: Fault) {
        // The connection's watches and transactions end. It stays, because INTRODUCE may attach the ring again.
        self.server.silence(id);
        if let Some(page) = self.machine.page(domid) {
            ring::shut(page, fault);
        }
        self.machine.shut(domid);
    }

    fn ring(&mut self, id: ConnectionId, domid: u16) {
        let mut is_notified = false;
        let result = self.serve_ring(id, domid, &mut is_notified);
        if let Err(fault) = result {
            self.journal.append(Kind::Shut, id, fault as u64, &[]);
            self.shut(id, domid, fault);
            is_notified = true;
        }
        if is_notified {
            self.machine.notify(domid);
        }
    }

    fn serve_ring(
        &mut self,
        id: ConnectionId,
        domid: u16,
        is_notified: &mut bool,
    ) -> Result<(), Fault> {
        let mut buffer = [0; ring::SIZE];
        for round in 0..=ROUNDS {
            if self.machine.is_shut(domid) {
                return Ok(());
            }
            let Some(page) = self.machine.page(domid) else {
                return Ok(());
            };
            if domid != 0 && ring::wants_reset(page) {
                self.journal.append(Kind::Silenced, id, 0, &[]);
                self.server.silence(id);
                ring::reset(page);
                *is_notified = true;
            }
            let mut taken = 0;
            if self.server.has_room(id) {
                let (length, consumer) = ring::read(page, &mut buffer)?;
                taken = length;
                if taken > 0 || self.server.has_input(id) {
                    let bytes = buffer.get(..taken).unwrap_or_default();
                    self.journal
                        .append(Kind::RingRead, id, consumer.into(), bytes);
                    ring::consume(page, consumer);
                    let result = self.take(id, bytes);
                    if result.is_err() && self.server.domain_of(id).is_some() {
                        return Err(Fault::Protocol);
                    }
                }
            }
            let written = self.flush_ring(id, domid)?;
            *is_notified |= taken > 0 || written > 0;
            if taken == 0 {
                return Ok(());
            }
            if round == ROUNDS {
                self.next.push(id);
            }
        }
        Ok(())
    }

    /// Writes as much output as the ring has room for. Returns the number of bytes written.
    fn flush_ring(&mut self, id: ConnectionId, domid: u16) -> Result<usize, Fault> {
        let mut written = 0;
        let had_output = self.server.has_output(id);
        let Some(page) = self.machine.page(domid) else {
            return Ok(0);
        };
        while self.server.has_output(id) {
            let bytes = self.server.output(id, ring::SIZE);
            let (length, producer) = ring::write(page, bytes)?;
            let said = u32::try_from(length).unwrap_or(0).to_ne_bytes();
            self.journal
                .append(Kind::RingWritten, id, producer.into(), &said);
            if length == 0 {
                break;
            }
            ring::produce(page, producer);
            self.server.sent(id, length);
            written += length;
        }
        if had_output {
            self.note_stalled(id, domid, written);
        }
        Ok(written)
    }

    fn note_stalled(&mut self, id: ConnectionId, domid: u16, written: usize) {
        let is_stalled = domid != 0 && self.server.has_output(id);
        if !is_stalled {
            self.stalled.remove(&id);
        } else if written > 0 || !self.stalled.contains_key(&id) {
            let now = Instant::now();
            self.stalled.insert(id, now);
            self.stalls.push_back((now, id));
        }
    }

    fn client(&mut self, id: ConnectionId) {
        let mut buffer = [0; RECEIVE];
        for round in 0..ROUNDS {
            let mut is_done = true;
            if self.server.has_room(id) {
                let Some(client) = self.clients.get(&id) else {
                    return;
                };
                match later(self.journal.receive(id, client.as_fd(), &mut buffer)) {
                    Ok(Some(0)) | Err(_) => return self.end(id),
                    Ok(Some(length)) => {
                        is_done = length < RECEIVE;
                        let bytes = buffer.get(..length).unwrap_or_default();
                        if self.take(id, bytes).is_err() {
                            return self.end(id);
                        }
                    }
                    Ok(None) => {}
                }
            }
            if !self.flush_client(id) || is_done {
                return;
            }
            if round + 1 == ROUNDS {
                self.next.push(id);
            }
        }
    }

    /// Sends as much output as the socket takes. Returns whether the client is still connected.
    pub(super) fn flush_client(&mut self, id: ConnectionId) -> bool {
        let has_room = self.server.has_room(id);
        let Some(client) = self.clients.get_mut(&id) else {
            return false;
        };
        let mut is_full = false;
        while self.server.has_output(id) && !is_full {
            let bytes = self.server.output(id, WRITE);
            match later(self.journal.send(id, client.as_fd(), bytes)) {
                Ok(Some(length)) => self.server.sent(id, length),
                Ok(None) => is_full = true,
                Err(_) => {
                    self.end(id);
                    return false;
                }
            }
        }
        if client
            .wait_for(id, has_room || !is_full, is_full, &self.epoll)
            .is_err()
        {
            self.end(id);
            return false;
        }
        true
    }

    pub(super) fn end(&mut self, id: ConnectionId) {
        // To close the file descriptor also removes it from the epoll set. Closed before the record is there: an open one
        // that nobody knows is a new client's.
        self.clients.remove(&id);
        self.journal.append(Kind::Ended, id, 0, &[]);
        self.server.disconnect(id);
        self.hear_again();
    }
}
