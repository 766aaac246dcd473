//! Requests and replies over a local socket, one line of JSON each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest line, in bytes.
const LINE_MAX: u64 = 16 << 20;

/// Makes a socket that only this user can open. It replaces a socket that no process listens to; `None` if one does.
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
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            let what = "there is a file that is not a socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Some(listener))
}

/// Sends a request and returns the reply; `None` if no process listens.
pub fn ask<T: for<'de> Deserialize<'de>>(
    socket: &Path,
    question: &impl Serialize,
    bound: Duration,
) -> io::Result<Option<T>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        // The socket does not exist, or its process is gone.
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
            "the line is cut or too long",
        ));
    }
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/socket");
        let first = listen(&path).unwrap().unwrap();
        assert!(listen(&path).unwrap().is_none(), "somebody listens");
        drop(first);
        assert!(listen(&path).unwrap().is_some());
        // Any other file stays, and so does the target of a link.
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            assert!(listen(path).is_err());
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }
}
