//! A scripted xenstored at the other end of a socket pair, for tests.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::Client;
use super::device::Framing;
use super::wire;

/// A request from the client.
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
        let mut out = Vec::new();
        self.on_the_wire().answer(&mut out, payload);
        out
    }

    pub(super) fn error(&self, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        self.on_the_wire().refusal(&mut out, name);
        out
    }

    fn on_the_wire(&self) -> wire::Asked<'_> {
        wire::Asked {
            kind: self.kind,
            request: self.id,
            transaction: self.transaction,
            payload: &self.payload,
        }
    }
}

/// A message of any type, even of an undefined one.
pub(super) fn message(kind: u32, request: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let any = wire::Asked {
        kind,
        request,
        transaction,
        payload: &[],
    };
    let mut out = Vec::new();
    any.answer(&mut out, payload);
    out
}

pub(super) fn event(path: &str, token: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (path, token) = (path.to_owned(), token.to_owned());
    wire::put_event(&mut out, &wire::WatchEvent { path, token });
    out
}

/// A client and the other end of its socket.
pub(super) fn pair(bound: Duration) -> (Client, UnixStream) {
    framed(bound, Framing::Stream)
}

/// The same with the framing of the kernel's device or of a socket.
pub(super) fn framed(bound: Duration, framing: Framing) -> (Client, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Client::over(ours.into(), framing, bound), theirs)
}

/// Answers every request by `script`. Returns all requests when the client is gone.
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

/// Reads the next request; `None` when the client is gone.
pub(super) fn take(stream: &mut UnixStream) -> Option<Asked> {
    let mut bytes = vec![0; wire::HEADER];
    stream.read_exact(&mut bytes).ok()?;
    let length = wire::length(&bytes).unwrap();
    bytes.resize(length, 0);
    stream.read_exact(bytes.get_mut(wire::HEADER..)?).ok()?;
    let (asked, taken) = wire::take_asked(&bytes).unwrap().unwrap();
    assert_eq!(taken, length);
    Some(Asked {
        kind: asked.kind,
        id: asked.request,
        transaction: asked.transaction,
        payload: asked.payload.to_vec(),
    })
}
