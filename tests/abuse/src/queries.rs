//! DNS queries (RFC 1035 section 4.1), as many as go out.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Instant;

use anyhow::{Context, Result};

/// Asks a server for a name until the end; how many queries were sent, and how many answers came.
pub(crate) fn flood(server: Ipv4Addr, name: &str, end: Instant) -> Result<(u64, u64)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((server, 53))?;
    socket.set_nonblocking(true)?;
    let (mut sent, mut answered) = (0_u64, 0);
    let mut answer = [0; 4096];
    while Instant::now() < end {
        let name = name.replace('*', &format!("x{sent}"));
        // What the kernel has no room for is not sent.
        sent += u64::from(socket.send(&query(sent, &name)?).is_ok());
        while socket.recv(&mut answer).is_ok() {
            answered += 1;
        }
    }
    Ok((sent, answered))
}

/// A query for the IPv4 address of a name.
fn query(number: u64, name: &str) -> Result<Vec<u8>> {
    let [low, high, ..] = number.to_le_bytes();
    let mut octets = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        octets.push(u8::try_from(label.len()).context("a label is too long")?);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.extend_from_slice(&[0, 0, 1, 0, 1]);
    Ok(octets)
}
