//! TCP connections: segments that fit them, and their updates by the guest's answers.

use super::super::{mutate, payload};
use super::{Connection, MAX_CONNECTIONS, Peers};
use crate::frames::{self, ACK, FIN, PSH, RST, SYN, Seen, Segment};
use crate::random::Random;

impl Peers {
    /// The SYN of a new connection.
    pub(super) fn syn(&mut self) -> Vec<u8> {
        self.next_port = self.next_port.wrapping_add(1).max(1024);
        let connection = Connection {
            path: self.path(),
            from_port: self.next_port,
            to_port: self.random.pick(&[80, 80, 80, 53, 53, 81]),
            seq: self.random.long(),
            ack: 0,
            window: self.random.pick(&[65_535, 8192, 1000, 100, 1, 0]),
            established: false,
            rest: Vec::new(),
        };
        let segment = Segment {
            from_port: connection.from_port,
            to_port: connection.to_port,
            seq: connection.seq,
            flags: SYN,
            window: connection.window,
            options: payload::options(&mut self.random),
            ..Segment::default()
        };
        let frame = frames::tcp(&connection.path, &segment);
        let connection = Connection {
            seq: connection.seq.wrapping_add(1),
            ..connection
        };
        if self.connections.len() < MAX_CONNECTIONS {
            self.connections.push(connection);
        } else {
            let at = self.random.below(MAX_CONNECTIONS);
            self.connections[at] = connection;
        }
        frame
    }

    /// A segment of a live connection.
    pub(super) fn segment(&mut self) -> Vec<u8> {
        if self.connections.is_empty() {
            return self.syn();
        }
        // The newest connections are most likely still open.
        let newest = self.connections.len().min(6);
        let at = if self.random.one_in(4) {
            self.random.below(self.connections.len())
        } else {
            self.connections.len() - 1 - self.random.below(newest)
        };
        let kind = self.random.below(16);
        self.refill(at);
        let random = &mut self.random;
        let connection = &mut self.connections[at];
        let mut segment = Segment {
            from_port: connection.from_port,
            to_port: connection.to_port,
            seq: connection.seq,
            ack: connection.ack,
            flags: ACK,
            window: connection.window,
            options: Vec::new(),
            payload: Vec::new(),
        };
        match kind {
            // A whole request or half of it, in order.
            0..=6 => {
                let most = connection.rest.len().min(1400);
                let count = if random.one_in(3) {
                    random.below(most) + 1
                } else {
                    most
                };
                segment.payload = connection.rest.drain(..count.min(most)).collect();
                segment.flags |= PSH;
            }
            7 | 8 => {}
            9 => {
                segment.flags |= FIN;
                if random.one_in(3) {
                    segment.payload = b"GET".to_vec();
                }
            }
            10 => segment.flags = random.pick(&[RST, RST | ACK]),
            11 => {
                connection.window = random.pick(&[0, 0, 1, 50, 65_535]);
                segment.window = connection.window;
            }
            _ => deviate(random, kind, &mut segment),
        }
        if kind <= 9 {
            // Counted as delivered. If the segment is lost, the next ones are out of order, which is also a case to
            // test.
            let fin = u32::from(segment.flags & FIN != 0);
            let length = u32::try_from(segment.payload.len()).unwrap_or(0);
            connection.seq = connection.seq.wrapping_add(length + fin);
        }
        if kind == 10 {
            let path = connection.path;
            self.connections.swap_remove(at);
            return frames::tcp(&path, &segment);
        }
        frames::tcp(&connection.path, &segment)
    }

    /// Gives a connection a new request, if the last one was sent.
    fn refill(&mut self, at: usize) {
        if !self.connections[at].rest.is_empty() {
            return;
        }
        let rest = if self.connections[at].to_port == 53 {
            let query = payload::query(&mut self.random);
            let mut framed = frames::framed(&query);
            if self.random.one_in(8) {
                mutate::bytes(&mut self.random, &mut framed);
            }
            framed
        } else {
            payload::request(&mut self.random)
        };
        self.connections[at].rest = rest;
    }

    /// Updates a connection by a segment of the guest.
    pub(super) fn follow(&mut self, seen: &Seen) {
        let Some(at) = self.connections.iter().position(|connection| {
            connection.from_port == seen.to_port && connection.to_port == seen.from_port
        }) else {
            return;
        };
        if seen.flags & RST != 0 {
            self.connections.swap_remove(at);
            return;
        }
        let connection = &mut self.connections[at];
        let bits = u32::from(seen.flags & SYN != 0) + u32::from(seen.flags & FIN != 0);
        let length = u32::try_from(seen.payload.len()).unwrap_or(0);
        let next = seen.seq.wrapping_add(length + bits);
        if seen.flags & SYN != 0 || next.wrapping_sub(connection.ack) < 1 << 30 {
            connection.ack = next;
        }
        if seen.flags & SYN == 0 && !connection.established {
            connection.established = true;
            self.established += 1;
        }
        // Sends lost or dropped data again, from the guest's acknowledgement on.
        if self.random.one_in(4) {
            connection.seq = seen.ack;
        }
    }
}

/// Changes a segment so that it does not fit its connection.
fn deviate(random: &mut Random, kind: usize, segment: &mut Segment) {
    match kind {
        // Out of the window, or out of order.
        12 => {
            let jump = random.pick(&[
                1,
                10,
                1000,
                3000,
                100_000,
                1 << 31,
                u32::MAX,
                u32::MAX - 500,
            ]);
            segment.seq = segment.seq.wrapping_add(jump);
            let count = random.below(1400);
            segment.payload = random.bytes(count);
        }
        13 => {
            let jump = random.pick(&[1, 1000, 100_000, 1 << 31, u32::MAX, u32::MAX - 5000]);
            segment.ack = segment.ack.wrapping_add(jump);
        }
        14 => {
            segment.flags = random.byte();
            segment.options = random.noise(40);
            segment.payload = random.noise(100);
        }
        _ => {
            // The guest ignores an urgent pointer, but not a SYN on an open connection.
            segment.flags |= SYN;
        }
    }
}
