//! Queries to a guest from the host, as any client would make them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
pub use domain::base::Rtype;
use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::AllRecordData;

/// The time for one answer before the query is repeated.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Queries over UDP until there is an answer. Returns its records as text.
///
/// # Errors
/// No answer within `bound`; an answer that is not DNS; an RCODE other than NOERROR.
pub fn dns(server: SocketAddr, name: &str, rtype: Rtype, bound: Duration) -> Result<Vec<String>> {
    let name: Name<Vec<u8>> = name.parse().context("not a domain name")?;
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ATTEMPT))?;
    let start = Instant::now();
    let mut id = 0x6d61u16;
    loop {
        let mut question = MessageBuilder::new_vec().question();
        question.header_mut().set_id(id);
        question.push((&name, rtype))?;
        socket.send(&question.finish())?;
        let mut buffer = [0; 4096];
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let answer = Message::from_octets(buffer.get(..length).unwrap_or_default())?;
                if answer.header().id() == id {
                    return records(&answer);
                }
            }
            // The host refuses the datagram while nothing listens at the other end of the forwarded port.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
                ) => {}
            Err(e) => return Err(e).context("asking by DNS"),
        }
        ensure!(
            start.elapsed() < bound,
            "no answer by DNS within {} s",
            bound.as_secs()
        );
        id = id.wrapping_add(1);
    }
}

fn records(answer: &Message<&[u8]>) -> Result<Vec<String>> {
    ensure!(
        answer.header().rcode() == Rcode::NOERROR,
        "DNS answers {}",
        answer.header().rcode()
    );
    answer
        .answer()?
        .limit_to::<AllRecordData<_, _>>()
        .map(|record| Ok(record.map(|record| format!("{} {}", record.rtype(), record.data()))?))
        .collect()
}

/// Gets a page, and tries again until there is an answer. Returns status and body.
///
/// # Errors
/// No answer within `bound`.
pub fn http(server: SocketAddr, path: &str, bound: Duration) -> Result<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ATTEMPT * 5))
        .http_status_as_error(false)
        .max_idle_connections(0)
        .build()
        .into();
    let start = Instant::now();
    loop {
        let answer = agent
            .get(format!("http://{server}{path}"))
            .call()
            .and_then(|mut response| {
                let body = response.body_mut().read_to_string()?;
                Ok((response.status().as_u16(), body))
            });
        match answer {
            Ok(answer) => return Ok(answer),
            Err(e) if start.elapsed() > bound => {
                return Err(e)
                    .with_context(|| format!("no answer by HTTP within {} s", bound.as_secs()));
            }
            // The forwarded port accepts and then closes while the guest is not there yet.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
