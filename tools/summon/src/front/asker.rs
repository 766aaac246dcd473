//! A thread that asks guests for the number of their connections and for their counters.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Weak;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::super::bell::BellSender;
use super::super::channel::GuestReport;
use super::super::fleet::ServiceId;

/// The time that a guest has for an answer.
const BOUND: Duration = Duration::from_secs(1);
/// The longest answer in bytes.
const ANSWER_MAX: usize = 256 * 1024;
const REQUEST: &str = "GET /.mayfly/metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n";

/// A question for a guest.
pub(super) struct ConnectionsQuestion {
    pub(super) service: ServiceId,
    pub(super) address: IpAddr,
    /// Dead as soon as the guest is gone: then the question is not sent, because it would wake the service again.
    pub(super) guest: Weak<()>,
}

/// A service and its guest's answer, `None` without one.
pub(super) type ConnectionsAnswer = (ServiceId, Option<GuestReport>);

pub(super) fn work(
    questions: &Receiver<ConnectionsQuestion>,
    answers: &BellSender<ConnectionsAnswer>,
) {
    for ConnectionsQuestion {
        service,
        address,
        guest,
    } in questions
    {
        if guest.strong_count() > 0 {
            let text = ask((address, 80).into());
            answers.send((service, text.ok().and_then(|text| said(&text))));
        }
    }
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let end = Instant::now() + BOUND;
    let stream = TcpStream::connect_timeout(&address, BOUND)?;
    // The connection ends with a reset, so the guest sends nothing more on it that would count as traffic.
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.set_write_timeout(Some(BOUND))?;
    (&stream).write_all(REQUEST.as_bytes())?;
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while text.len() < ANSWER_MAX {
        // A timeout of zero would mean no timeout.
        let left = end.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match (&stream).read(&mut part)? {
            0 => break,
            _ if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            length => text.extend_from_slice(part.get(..length).unwrap_or_default()),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads a guest's metrics. Closing connections do not count: their clients need nothing any more.
fn said(text: &str) -> Option<GuestReport> {
    let (mut connections, mut requests) = (None, 0);
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let (name, label) = name.split_once('{').unwrap_or((name, ""));
        let value = || value.trim().parse::<u64>().ok();
        if name.ends_with("tcp_connections") {
            if label.contains("\"open\"") || label.contains("\"half_open\"") {
                connections = Some(u64::saturating_add(connections.unwrap_or(0), value()?));
            }
        } else if name.ends_with("dns_answers_total") || name.ends_with("http_requests_total") {
            requests = u64::saturating_add(requests, value()?);
        }
    }
    Some(GuestReport {
        connections: u32::try_from(connections?.saturating_sub(1)).ok()?,
        requests,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_but_our_own_and_requests() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE mayfly_tcp_connections gauge\n\
            mayfly_tcp_connections{state=\"half_open\"} 2\n\
            mayfly_tcp_connections{state=\"open\"} 3\n\
            mayfly_tcp_connections{state=\"closing\"} 9\n\
            mayfly_dns_answers_total{transport=\"udp\"} 5\n\
            mayfly_dns_answers_total{transport=\"tcp\"} 1\n\
            mayfly_http_requests_total{method=\"GET\"} 7\n";
        let all = GuestReport {
            connections: 4,
            requests: 13,
        };
        assert_eq!(said(text), Some(all));
        assert_eq!(said("HTTP/1.1 404 Not Found\r\n\r\n"), None);
        assert_eq!(said("x_tcp_connections{state=\"open\"} many\n"), None);
    }
}
