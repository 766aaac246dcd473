//! A question and its answer over a local socket: a line of JSON each way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Octets of the longest line.
const LINE_MAX: u64 = 16 << 20;

/// Makes a socket that only this user can open. One that nobody listens to any more is in nobody's way; `None` if somebody does.
pub fn listen(path: &Path) -> io::Result<Option<UnixListener>> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Ok(None);
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Some(listener))
}

/// Asks, and gives the answer; `None` when nobody listens.
pub fn ask<T: for<'de> Deserialize<'de>>(
    socket: &Path,
    question: &impl Serialize,
    bound: Duration,
) -> io::Result<Option<T>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        // Nobody has made it, or who did is gone.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    stream.set_read_timeout(Some(bound))?;
    stream.set_write_timeout(Some(bound))?;
    send(&stream, question)?;
    receive(&stream).map(Some)
}

/// Sends a line.
pub fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Receives a line.
pub fn receive<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_MAX)).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a line that is cut, or too long",
        ));
    }
    Ok(serde_json::from_str(&line)?)
}
