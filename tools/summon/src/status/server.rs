//! Threads that answer: at a local socket, and over HTTP. Nothing that a client does or leaves undone reaches the daemon.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::Duration;

use super::{Doer, Question, Source, http};
use mayfly_toolstack::line;

/// Clients that are served at a time; who comes then is turned away.
pub(super) const CLIENTS_MAX: usize = 16;
/// How long a client of the local socket may take for each way.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long nobody is accepted when the process has no descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Serves the page and the metrics over HTTP from here on, and gives the address.
///
/// # Errors
/// The address is not to be had.
pub fn serve(address: SocketAddr, source: impl Source) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    serve_at(listener, source)?;
    Ok(address)
}

/// The same with a listener that is there already.
///
/// # Errors
/// There is no thread to be had.
pub fn serve_at(listener: TcpListener, source: impl Source) -> io::Result<()> {
    let answer = move |stream: &TcpStream| http::answer(stream, &source());
    let accept = move || Ok(listener.accept()?.0);
    spawn("http", accept, answer)
}

/// Answers [`super::ask`] and [`super::request`] from here on; `false` when another daemon does.
///
/// # Errors
/// The socket can't be made.
pub fn tell(socket: &Path, source: impl Source, doer: impl Doer) -> io::Result<bool> {
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

/// A thread that accepts, and one for each client.
fn spawn<S: Send + 'static>(
    name: &'static str,
    accept: impl Fn() -> io::Result<S> + Send + 'static,
    answer: impl Fn(&S) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    let named = move || Builder::new().name(name.to_owned());
    let answer = Arc::new(answer);
    // Whoever is served has one of these.
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
            // A thread that can't be had is a client that is turned away, and what goes wrong is the client's.
            let _ = named().spawn(move || {
                let _ = answer(&stream);
                drop(client);
            });
        }
    };
    named().spawn(accepting).map(drop)
}
