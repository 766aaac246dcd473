//! The thread that asks quiet guests how many connections they have.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::bell::Sender;
use super::fleet::Id;

/// How long each step of it may take.
const BOUND: Duration = Duration::from_secs(1);
/// What a closed connection takes to its end: the guest's last frames are its answer to us, and no sign of anybody else.
const LAST_FRAMES: Duration = Duration::from_millis(50);
/// Octets of the longest answer.
const ANSWER_MAX: u64 = 256 * 1024;
const REQUEST: &str = "GET /.mayfly/metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n";

/// Whom to ask.
pub(super) struct Question {
    pub(super) service: Id,
    pub(super) address: IpAddr,
}

/// What they say: connections beside our own, if they tell.
pub(super) type Answer = (Id, Option<u32>);

pub(super) fn work(questions: &Receiver<Question>, answers: &Sender<Answer>) {
    for Question { service, address } in questions {
        let text = ask((address, 80).into());
        std::thread::sleep(LAST_FRAMES);
        answers.send((service, text.ok().and_then(|text| connections(&text))));
    }
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_write_timeout(Some(BOUND))?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut text = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Connections that are open or half open in a guest's metrics, but for the one that asks. A connection that is closing has
/// nobody at its other end who would miss it.
fn connections(text: &str) -> Option<u32> {
    let values = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        let (name, label) = name.split_once('{')?;
        let is_open = name.ends_with("tcp_connections")
            && (label.contains("\"open\"") || label.contains("\"half_open\""));
        is_open.then(|| value.trim().parse::<u32>().ok())
    });
    let all = values.collect::<Option<Vec<u32>>>()?;
    (!all.is_empty()).then(|| all.iter().sum::<u32>().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_but_our_own() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE mayfly_tcp_connections gauge\n\
            mayfly_tcp_connections{state=\"half_open\"} 2\n\
            mayfly_tcp_connections{state=\"open\"} 3\n\
            mayfly_tcp_connections{state=\"closing\"} 9\n";
        assert_eq!(connections(text), Some(4));
        assert_eq!(connections("HTTP/1.1 404 Not Found\r\n\r\n"), None);
        assert_eq!(
            connections("x_tcp_connections{state=\"open\"} many\n"),
            None
        );
    }
}
