//! Process 1 of the trimmed Linux guest: loads the network driver, brings its one interface up with a fixed address,
//! answers HTTP. It mounts nothing and starts nothing: what is left of the boot is the kernel's.
#![forbid(unsafe_code)]

mod netlink;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 82);
const PREFIX: u8 = 24;
/// Paths of the modules to load, in their order, one in a line.
const MODULES: &str = "/modules";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nlinux\n";
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    if let Err(e) = run() {
        eprintln!("linux-guest: {e:#}");
    }
    // The kernel panics when process 1 ends, which is the clearest sign that there is.
}

fn run() -> Result<()> {
    // Listening comes first: the first frame tells the world that the guest is there.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).context("cannot listen")?;
    let mut network = netlink::Route::open()?;
    for path in fs::read_to_string(MODULES).context(MODULES)?.lines() {
        let module = File::open(path).with_context(|| path.to_owned())?;
        rustix::system::finit_module(&module, c"", 0).with_context(|| path.to_owned())?;
    }
    let interface = network.wait_for_interface()?;
    network.add_address(interface, ADDRESS, PREFIX)?;
    network.up(interface)?;
    for stream in listener.incoming().flatten() {
        // A client that breaks off is no reason to stop serving the others.
        let _ = serve(stream);
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut part = [0; 512];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 8192 {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            n => request.extend_from_slice(part.get(..n).unwrap_or_default()),
        }
    }
    Ok(stream.write_all(ANSWER)?)
}
