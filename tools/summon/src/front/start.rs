//! The start of the front: it enters its sandbox before it reads anything, then takes the maker's descriptors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use mayfly_toolstack::readable::ready;
use rustix::event::PollFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::super::bell;
use super::super::channel::{ChannelError, FrontTable, Sender, ToFront, receive_with};
use super::super::clock::Clock;
use super::super::dns::{Dns, QueryCounts, Sockets};
use super::super::held::Bounds;
use super::super::names::Names;
use super::super::status::{self, SummonStatus};
use super::super::wire::FRAME_MAX;
use super::{Front, asker, sandbox};

/// The longest table, and the longest status, in bytes.
const FILE_MAX: u64 = 64 << 20;

/// Runs the front on its end of the channel, until the maker is gone.
///
/// # Errors
/// The reason for which the front ends.
pub fn run(socket: OwnedFd) -> Result<(), ChannelError> {
    // A terminal or systemd sends these signals to both processes. The front ignores them, because it ends with the
    // maker.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    // The name in `ps`.
    rustix::thread::set_name(c"summon-front").map_err(std::io::Error::from)?;
    sandbox::enter()?;
    let mut front = Front::start(socket)?;
    match front.serve() {
        ChannelError::Ended => Ok(()),
        error => Err(error),
    }
}

impl Front {
    /// Takes the maker's descriptors, up to the first table.
    fn start(socket: OwnedFd) -> Result<Self, ChannelError> {
        let mut sockets = Sockets::default();
        let (mut page, mut status) = (None, None);
        loop {
            ready([((), socket.as_fd(), PollFlags::IN)], None)?;
            let Some((messages, mut descriptors)) = receive_with(&socket)? else {
                continue;
            };
            let mut messages = messages.into_iter();
            while let Some(message) = messages.next() {
                let descriptor = descriptors.pop_front().ok_or(ChannelError::Malformed)?;
                match message {
                    ToFront::Udp => sockets.udp.push(descriptor.into()),
                    ToFront::Listener => sockets.listeners.push(descriptor.into()),
                    ToFront::Page => page = Some(TcpListener::from(descriptor)),
                    ToFront::Status => status = Some(UnixStream::from(descriptor)),
                    ToFront::Table => {
                        if let (Some(page), Some(status)) = (page, status) {
                            status::serve_at(page, asked(status))?;
                        }
                        let mut front = Self::new(socket, sockets)?;
                        front.adopt(read_table(descriptor)?)?;
                        for message in messages {
                            front.take(message, &mut descriptors)?;
                        }
                        return Ok(front);
                    }
                    _ => return Err(ChannelError::Malformed),
                }
            }
        }
    }

    /// A front without services.
    pub(super) fn new(socket: OwnedFd, sockets: Sockets) -> Result<Self, ChannelError> {
        let (questions, asked) = mpsc::channel();
        let (sender, answers) = bell::channel()?;
        std::thread::Builder::new()
            .name("asker".into())
            .spawn(move || asker::work(&asked, &sender))?;
        Ok(Self {
            clock: Clock::new(),
            to: Sender::new(socket.try_clone()?),
            from: socket,
            dns: Dns::over(sockets)?,
            names: Names::default(),
            bounds: Bounds {
                frames: 0,
                bytes: 0,
            },
            entries: BTreeMap::new(),
            ports: BTreeMap::new(),
            macs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            buffer: vec![0; FRAME_MAX],
            questions,
            answers,
            told: QueryCounts::default(),
            count_at: None,
        })
    }
}

/// Reads a table from a file without a name, into which the maker has written it.
pub(super) fn read_table(file: OwnedFd) -> Result<FrontTable, ChannelError> {
    let mut bytes = Vec::new();
    File::from(file).take(FILE_MAX).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(|_| ChannelError::Malformed)
}

/// Asks the maker for the status each time that the page is read. Without an answer, gives the last status.
fn asked(stream: UnixStream) -> impl status::StatusReader {
    let stream = Mutex::new((BufReader::new(stream), Arc::<SummonStatus>::default()));
    move || {
        let mut kept = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, last) = &mut *kept;
        let mut line = Vec::new();
        let asked = stream.get_mut().write_all(&[0]).and_then(|()| {
            stream.take(FILE_MAX).read_until(b'\n', &mut line)?;
            Ok(serde_json::from_slice(&line)?)
        });
        if let Ok(status) = asked {
            *last = Arc::new(status);
        }
        Arc::clone(last)
    }
}
