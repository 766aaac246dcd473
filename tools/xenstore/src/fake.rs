//! A xenstored that does as a test tells it, at the other end of a socket pair.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::Client;
use super::device::Framing;

/// What the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) transaction: u32,
    pub(super) payload: Vec<u8>,
}

impl Asked {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub(super) fn answer(&self, payload: &[u8]) -> Vec<u8> {
        message(self.kind, self.id, self.transaction, payload)
    }

    pub(super) fn error(&self, name: &str) -> Vec<u8> {
        message(
            16,
            self.id,
            self.transaction,
            &[name.as_bytes(), &[0]].concat(),
        )
    }
}

pub(super) fn message(kind: u32, id: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut bytes: Vec<u8> = [kind, id, transaction, length]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn event(path: &str, token: &str) -> Vec<u8> {
    message(15, 0, 0, format!("{path}\0{token}\0").as_bytes())
}

/// The socket's two ends, both as they are.
pub(super) fn pair(bound: Duration) -> (Client, UnixStream) {
    framed(bound, Framing::Stream)
}

/// The same as if it were the kernel's device, or a socket.
pub(super) fn framed(bound: Duration, framing: Framing) -> (Client, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Client::over(ours.into(), framing, bound), theirs)
}

/// Answers every request with what `script` makes of it; gives back all that was asked when the client is gone.
pub(super) fn serve(
    bound: Duration,
    mut script: impl FnMut(&Asked) -> Vec<u8> + Send + 'static,
) -> (Client, JoinHandle<Vec<Asked>>) {
    let (client, mut stream) = pair(bound);
    let server = thread::spawn(move || {
        let mut all = Vec::new();
        while let Some(asked) = take(&mut stream) {
            let answer = script(&asked);
            all.push(asked);
            if stream.write_all(&answer).is_err() {
                break;
            }
        }
        all
    });
    (client, server)
}

pub(super) fn take(stream: &mut UnixStream) -> Option<Asked> {
    let mut words = [[0; 4]; 4];
    for word in &mut words {
        stream.read_exact(word).ok()?;
    }
    let [kind, id, transaction, length] = words.map(u32::from_ne_bytes);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).ok()?;
    Some(Asked {
        kind,
        id,
        transaction,
        payload,
    })
}
