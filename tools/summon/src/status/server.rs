//! Threads that serve the status at the local socket and over HTTP. No client can delay the daemon.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::Duration;

use super::{CommandDoer, Question, StatusReader, http};
use mayfly_toolstack::line;

/// The number of clients served at the same time. Further ones are turned away.
pub(super) const CLIENTS_MAX: usize = 16;
/// The time that a client of the local socket has to send, and again to receive.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause in accepting clients when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Starts to serve the page and the metrics over HTTP. Returns the address.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(address: SocketAddr, source: impl StatusReader) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    serve_at(listener, source)?;
    Ok(address)
}

/// Starts to serve the page and the metrics at a listener.
///
/// # Errors
/// No thread can be started.
pub fn serve_at(listener: TcpListener, source: impl StatusReader) -> io::Result<()> {
    let answer = move |stream: &TcpStream| http::answer(stream, &source());
    let accept = move || Ok(listener.accept()?.0);
    spawn("http", accept, answer)
}

/// Starts to answer [`super::ask`] and [`super::request`]. Returns `false` if another daemon does so already.
///
/// # Errors
/// The socket cannot be made.
pub fn tell(socket: &Path, source: impl StatusReader, doer: impl CommandDoer) -> io::Result<bool> {
    let Some(listener) = line::listen(socket)? else {
        return Ok(false);
    };
    let answer = move |stream: &UnixStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        match line::receive(stream)? {
            Question::Status => line::send(stream, &*source()),
            Question::Do(request) => line::send(stream, &doer(request)),
        }
    };
    let accept = move || Ok(listener.accept()?.0);
    spawn("status", accept, answer)?;
    Ok(true)
}

/// Starts a thread that accepts clients, and another one for each client.
fn spawn<S: Send + 'static>(
    name: &'static str,
    accept: impl Fn() -> io::Result<S> + Send + 'static,
    answer: impl Fn(&S) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    let named = move || Builder::new().name(name.to_owned());
    let answer = Arc::new(answer);
    // Each client that is being served holds a reference.
    let clients = Arc::new(());
    let accepting = move || {
        loop {
            let Ok(stream) = accept() else {
                thread::sleep(REST);
                continue;
            };
            if Arc::strong_count(&clients) > CLIENTS_MAX {
                continue;
            }
            let (client, answer) = (Arc::clone(&clients), Arc::clone(&answer));
            // Without a thread the client is turned away. Errors concern this client only.
            let _ = named().spawn(move || {
                let _ = answer(&stream);
                drop(client);
            });
        }
    };
    named().spawn(accepting).map(drop)
}
