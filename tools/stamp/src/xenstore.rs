//! The few requests that are made of xenstored, over its socket (`public/io/xs_wire.h`).

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const CONTROL: u32 = 0;
const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const WATCH: u32 = 4;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;
/// `XENSTORE_PAYLOAD_MAX`.
const PAYLOAD_MAX: usize = 4096;

pub(crate) struct Xenstore(UnixStream);

impl Xenstore {
    pub(crate) fn open(bound: Duration) -> Result<Self> {
        let socket =
            UnixStream::connect("/run/xenstored/socket").context("cannot reach xenstored")?;
        socket.set_read_timeout(Some(bound))?;
        socket.set_write_timeout(Some(bound))?;
        Ok(Self(socket))
    }

    pub(crate) fn read(&mut self, path: &str) -> Result<String> {
        self.request(READ, &[path])
    }

    pub(crate) fn directory(&mut self, path: &str) -> Result<Vec<String>> {
        Ok(self
            .request(DIRECTORY, &[path])?
            .split_terminator('\0')
            .map(String::from)
            .collect())
    }

    /// A command of the daemon's own, as `xenstore-control` gives it.
    pub(crate) fn control(&mut self, words: &[&str]) -> Result<()> {
        let answer = self.request(CONTROL, words)?;
        ensure!(
            answer.trim_end_matches('\0') == "OK",
            "xenstored to {words:?}: {answer}"
        );
        Ok(())
    }

    /// Watches a path; the event that comes at once is taken.
    pub(crate) fn watch(&mut self, path: &str) -> Result<()> {
        self.request(WATCH, &[path, "stamp"])?;
        self.event()
    }

    /// Takes one event, waiting for it within the bound.
    pub(crate) fn event(&mut self) -> Result<()> {
        match self.message()? {
            (WATCH_EVENT, _) => Ok(()),
            (kind, _) => bail!("xenstored sent a message of type {kind} instead of a watch event"),
        }
    }

    fn request(&mut self, kind: u32, words: &[&str]) -> Result<String> {
        let payload: Vec<u8> = words
            .iter()
            .flat_map(|word| word.bytes().chain([0]))
            .collect();
        let length = u32::try_from(payload.len())?;
        let mut message: Vec<u8> = [kind, 0, 0, length]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        message.extend(payload);
        self.0.write_all(&message)?;
        match self.message()? {
            (ERROR, text) => bail!("xenstored to {words:?}: {}", text.trim_end_matches('\0')),
            (answer, text) if answer == kind => Ok(text),
            (answer, _) => bail!("xenstored answered {words:?} with a message of type {answer}"),
        }
    }

    fn message(&mut self) -> Result<(u32, String)> {
        let mut header = [[0; 4]; 4];
        for word in &mut header {
            self.0
                .read_exact(word)
                .context("xenstored does not answer")?;
        }
        let [kind, _, _, length] = header.map(u32::from_ne_bytes);
        let length = usize::try_from(length)?;
        ensure!(
            length <= PAYLOAD_MAX,
            "xenstored sent a message of {length} bytes"
        );
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok((kind, String::from_utf8_lossy(&payload).into_owned()))
    }
}

impl AsFd for Xenstore {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
