//! Hostile and slow clients. Each runs for some seconds and prints its counts; the caller judges them.
#![forbid(unsafe_code)]

mod frames;
mod queries;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, setrlimit};
use smoltcp::wire::EthernetAddress;

/// Hostile or slow clients.
#[derive(Parser)]
struct Arguments {
    /// The guest
    guest: Ipv4Addr,
    /// The duration in seconds
    seconds: u64,
    /// The seed of random addresses, ports and bytes
    #[arg(long, default_value_t = 20_260_101)]
    seed: u64,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// SYN segments from addresses that do not exist
    Syn(Raw),
    /// Frames with some wrong bytes
    Frames(Raw),
    /// DNS queries, as many as possible
    Queries {
        /// The name to query; a `*` in it is replaced by a new word each time
        name: String,
        /// The number of queries a second
        #[arg(long)]
        rate: Option<u32>,
    },
    /// ARP requests and SYN packets for all addresses of a /24, from senders that do not exist
    Sweep {
        /// The interface to send ARP requests from
        interface: String,
    },
    /// Connections that send half a request and no more
    Half {
        /// The number of connections
        count: usize,
    },
    /// Connections that ask for much and read little of it
    Readers {
        /// The number of connections
        count: usize,
    },
    /// Connections that send a request byte by byte
    Writers {
        /// The number of connections
        count: usize,
    },
}

#[derive(Parser)]
struct Raw {
    /// The guest's link address
    #[arg(value_parser = mac)]
    mac: EthernetAddress,
    /// The interface to send from
    interface: String,
}

fn mac(text: &str) -> Result<EthernetAddress, String> {
    text.parse()
        .map_err(|_| format!("{text} is no link address"))
}

/// The time limit of a connection attempt; attempts are made one at a time, which is what the client's own queue takes.
const CONNECT: Duration = Duration::from_secs(5);
/// The interval at which a slow client acts.
const PACE: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    fastrand::seed(arguments.seed);
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let guest = arguments.guest;
    match &arguments.what {
        What::Syn(raw) => {
            let sent = frames::syn(&raw.interface, raw.mac, guest, end)?;
            println!("{sent} SYN");
        }
        What::Frames(raw) => {
            let sent = frames::malformed(&raw.interface, raw.mac, guest, end)?;
            println!("{sent} frames");
        }
        What::Queries { name, rate } => {
            let (sent, answered) = queries::flood(guest, name, *rate, end)?;
            let seconds = arguments.seconds.max(1);
            println!(
                "{sent} queries, {answered} answers: {} and {} a second",
                sent / seconds,
                answered / seconds
            );
        }
        What::Sweep { interface } => {
            let (asked, syns) = frames::sweep(interface, guest, end)?;
            println!("{asked} ARP requests, {syns} SYN");
        }
        What::Half { count } => {
            hold(guest, *count, end, b"GET / HTTP/1.1\r\nHost: half", take)?;
        }
        What::Readers { count } => {
            let request = b"GET /.mayfly/payload/10000000 HTTP/1.1\r\nHost: slow\r\n\r\n";
            hold(guest, *count, end, request, take)?;
        }
        What::Writers { count } => {
            let start = b"GET / HTTP/1.1\r\nHost: ";
            hold(guest, *count, end, start, |stream| stream.write_all(b"a"))?;
        }
    }
    Ok(())
}

/// Reads a few of the received bytes.
fn take(stream: &mut TcpStream) -> std::io::Result<()> {
    match stream.read(&mut [0; 16])? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Opens connections, sends `first` on each, and calls `then` on them until the end. A connection that the guest closes
/// is opened again.
fn hold(
    guest: Ipv4Addr,
    count: usize,
    end: Instant,
    first: &[u8],
    then: impl Fn(&mut TcpStream) -> std::io::Result<()>,
) -> Result<()> {
    let address = SocketAddr::from((guest, 80));
    // The default limit is about 1,000 files, so more are requested; 16 are for all else.
    let files = u64::try_from(count)?.saturating_add(16);
    let limit = Rlimit {
        current: Some(files),
        maximum: Some(files),
    };
    setrlimit(Resource::Nofile, limit).with_context(|| format!("no room for {files} files"))?;
    let (mut opened, mut refused, mut ended, mut most) = (0_u64, 0_u64, 0_u64, 0);
    let mut open: Vec<TcpStream> = Vec::new();
    while Instant::now() < end {
        while open.len() < count && Instant::now() < end {
            let stream = TcpStream::connect_timeout(&address, CONNECT).and_then(|mut stream| {
                stream.set_nonblocking(true)?;
                stream.write_all(first)?;
                Ok(stream)
            });
            match stream {
                Ok(stream) => {
                    opened += 1;
                    open.push(stream);
                }
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
        sleep(PACE.min(end.saturating_duration_since(Instant::now())));
        let before = open.len();
        most = most.max(before);
        open.retain_mut(|stream| match then(stream) {
            Ok(()) => true,
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        });
        ended += u64::try_from(before - open.len())?;
    }
    println!(
        "{opened} connections, {refused} refused, {ended} ended by the guest, at most {most} at a time and {} at the end",
        open.len()
    );
    ensure!(opened > 0, "no connection was ever opened");
    Ok(())
}
