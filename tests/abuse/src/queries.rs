//! DNS queries (RFC 1035 section 4.1), as many as possible or at a given rate.

use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// The number of queries in one system call.
const BATCH: usize = 64;

/// Queries a server for a name until the end, at most `rate` times a second. Returns the numbers of queries and of
/// answers.
pub(crate) fn flood(
    server: Ipv4Addr,
    name: &str,
    rate: Option<u32>,
    end: Instant,
) -> Result<(u64, u64)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((server, 53))?;
    socket.set_nonblocking(true)?;
    let (mut sent, mut answered) = (0_u64, 0);
    let mut answer = [0; 4096];
    let mut next = Instant::now();
    while next < end {
        let queries = (sent..).take(BATCH);
        let queries: Vec<_> = queries
            .map(|number| query(number, &name.replace('*', &format!("x{number}"))))
            .collect::<Result<_>>()?;
        // Queries that the kernel has no room for are not sent.
        sent += send(&socket, &queries)? as u64;
        while socket.recv(&mut answer).is_ok() {
            answered += 1;
        }
        next = match rate {
            Some(rate) => next + Duration::from_secs(BATCH as u64) / rate.max(1),
            None => Instant::now(),
        };
        sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok((sent, answered))
}

/// Sends queries in one system call. Returns the number of sent queries.
fn send(socket: &UdpSocket, queries: &[Vec<u8>]) -> Result<usize> {
    let slices: Vec<_> = queries.iter().map(|query| [IoSlice::new(query)]).collect();
    let mut controls: Vec<_> = queries
        .iter()
        .map(|_| SendAncillaryBuffer::default())
        .collect();
    let mut messages: Vec<_> = slices
        .iter()
        .zip(&mut controls)
        .map(|(slice, control)| MMsgHdr::new(slice, control))
        .collect();
    match sendmmsg(socket, &mut messages, SendFlags::empty()) {
        Ok(sent) => Ok(sent),
        // There is no listener at the moment, or no room.
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::AGAIN) => Ok(0),
        Err(error) => Err(error).context("cannot send queries"),
    }
}

/// A query for the IPv4 address of a name.
fn query(number: u64, name: &str) -> Result<Vec<u8>> {
    let [low, high, ..] = number.to_le_bytes();
    let mut bytes = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).context("a label is too long")?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    Ok(bytes)
}
