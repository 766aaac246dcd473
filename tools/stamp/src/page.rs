//! What measurements of many guests have in common: their addresses, their page, and the time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mayfly_stamp::density::Job;

use crate::raw_ns;
use crate::sys::ticks;
use crate::wait::Bound;

/// Asks a guest for its page on a new connection; gives the ticks that it took.
pub(crate) fn asked(address: Ipv4Addr, bound: Bound) -> Result<u64> {
    let start = ticks();
    let stream = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), bound.0);
    let asked = stream.map_err(Into::into).and_then(|s| page(s, bound.0));
    asked.with_context(|| address.to_string())?;
    Ok(ticks() - start)
}

/// The addresses of the first guests.
pub(crate) fn addresses(job: &Job, count: u32) -> impl Iterator<Item = Ipv4Addr> + use<> {
    let first = job.dom0.to_bits().saturating_add(1);
    (first..first.saturating_add(count)).map(Ipv4Addr::from_bits)
}

/// Requests a guest's page, and reads all of it. Returns the time at which its first byte was there, in ticks.
pub(crate) fn page(mut stream: TcpStream, bound: Duration) -> Result<u64> {
    stream.set_read_timeout(Some(bound))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: mayfly.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![0; 1 << 12];
    let length = stream.read(&mut answer)?;
    let first = ticks();
    answer.truncate(length);
    stream.take(1 << 20).read_to_end(&mut answer)?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "the answer is {:?}",
        String::from_utf8_lossy(answer.get(..80).unwrap_or(&answer))
    );
    Ok(first)
}

/// Converts ticks to ns. Linux' clock over a longer time gives the frequency of the counter.
pub(crate) struct Clock {
    hz: u128,
}

impl Clock {
    /// Reads both clocks over a while.
    pub(crate) fn start() -> Self {
        let (start, ns) = (ticks(), raw_ns());
        sleep(Duration::from_secs(1));
        let (ticks, ns) = (ticks() - start, raw_ns() - ns);
        Self {
            hz: u128::from(ticks) * 1_000_000_000 / ns.max(1),
        }
    }

    pub(crate) fn all_ns(&self, ticks: Vec<u64>) -> Vec<u64> {
        ticks.into_iter().map(|ticks| self.ns(ticks)).collect()
    }

    pub(crate) fn ns(&self, ticks: u64) -> u64 {
        let ns = u128::from(ticks) * 1_000_000_000 / self.hz.max(1);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}
