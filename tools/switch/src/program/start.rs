//! Starts the switch: opens devices and ports, and directs the frames for the guests of the journal to them.

use std::io;
use std::num::NonZero;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mayfly_links::{Link, Links, Offers, Steering, Tap};
use rustix::io::Errno;

use super::Program;
use super::lane::{Equipment, Lane, Queue};
use crate::dom0::Devices;
use crate::journal::Journal;
use crate::switch::Peers;

/// The time in which the kernel releases the port of a switch that was killed: its io_uring is closed by a worker of the
/// kernel, after the process is gone.
const RELEASE: Duration = Duration::from_secs(1);
/// The interval between two attempts to open a port.
const GLANCE: Duration = Duration::from_millis(2);

/// The options of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartOptions {
    /// The bridges on which it has ports.
    pub bridges: Vec<String>,
    /// The path of the control socket.
    pub socket: PathBuf,
    /// The path of the journal.
    pub journal: PathBuf,
    /// The number of threads that move frames. Without it, what fits the machine.
    pub threads: Option<usize>,
}

/// The most threads that are started without being asked for.
const THREADS_MAX: usize = 8;

/// The error of a start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another switch listens on the socket.
    #[error("{path}: another switch has it", path = .0.display())]
    InUse(PathBuf),
    /// A file or socket cannot be opened.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    File(PathBuf, io::Error),
    /// A device of Xen cannot be opened.
    #[error("{0}")]
    Device(io::Error),
    /// The kernel cannot be told which thread gets a frame.
    #[error("several threads need the kernel to choose one for each frame: {0}")]
    Steering(io::Error),
    /// A port on a bridge cannot be made.
    #[error("cannot make the port {0} of {1}: {2}")]
    Port(String, String, io::Error),
    /// The bridge cannot be used.
    #[error(transparent)]
    Links(#[from] mayfly_links::Error),
}

impl Program {
    /// Opens everything that a switch needs. No privilege is needed afterwards. [`Program::take_over`] comes next.
    ///
    /// # Errors
    /// The first file, device or port that cannot be opened.
    pub fn start(options: &StartOptions, report: &mut dyn FnMut(&str)) -> Result<Self, StartError> {
        let listener = listen(&options.socket)?;
        let file = |error| StartError::File(options.journal.clone(), error);
        let journal = Journal::open(&options.journal).map_err(file)?;
        let start = Instant::now();
        let mut links = Links::asking()?;
        let steering = steering(options.threads, report)?;
        let count = steering.as_ref().map_or(1, |(count, _)| *count);
        let mut equipment = Vec::new();
        let peers = match count {
            1 => Vec::new(),
            _ => Peers::of(count).map_err(StartError::Device)?,
        };
        let mut peers = peers.into_iter();
        for _ in 0..count {
            equipment.push(Equipment {
                devices: Devices::open().map_err(StartError::Device)?,
                queues: Vec::new(),
                peers: peers.next(),
                start,
            });
        }
        let mut ports = Vec::new();
        for name in &options.bridges {
            let (taps, link) = port(&mut links, name, steering.as_ref())?;
            // A bridge may have taken its address from its new port.
            let bridge = links.bridge(name)?;
            let mtu = usize::try_from(bridge.mtu).unwrap_or(usize::MAX);
            for (equipment, tap) in equipment.iter_mut().zip(taps) {
                equipment.queues.push(Queue {
                    bridge: name.clone(),
                    host: bridge.mac,
                    mtu,
                    tap,
                });
            }
            ports.push((name.clone(), link));
        }
        for guest in &journal.known().guests {
            let port = ports.iter().find(|(bridge, _)| *bridge == guest.bridge);
            if let Some((_, link)) = port {
                links.direct(link, guest.mac)?;
            }
        }
        let links = ports.into_iter().map(|(bridge, link)| (bridge, link.name));
        let others = equipment.split_off(1);
        let first = equipment.pop();
        let first = first.ok_or_else(|| StartError::Device(io::ErrorKind::InvalidInput.into()))?;
        let (lane, trouble) = Lane::of(first);
        if let Some(trouble) = trouble {
            report(&trouble);
        }
        Ok(Self {
            lane,
            others,
            workers: Vec::new(),
            notices: None,
            links: links.collect(),
            journal,
            listener,
            clients: Vec::new(),
            next_client: 0,
            recordings: Vec::new(),
        })
    }
}

/// The number of threads, if there are several, and what the kernel needs for them.
fn steering(
    asked: Option<usize>,
    report: &mut dyn FnMut(&str),
) -> Result<Option<(usize, Steering)>, StartError> {
    // One for every two CPUs, because guests and the receivers of frames need some as well.
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    let count = asked.unwrap_or((cpus / 2).min(THREADS_MAX));
    if count <= 1 {
        return Ok(None);
    }
    match Steering::load() {
        Ok(steering) => Ok(Some((count, steering))),
        Err(error) if asked.is_some() => Err(StartError::Steering(error)),
        Err(error) => {
            report(&format!(
                "one thread serves all guests: the kernel cannot be told which of several gets a frame: {error}"
            ));
            Ok(None)
        }
    }
}

/// Makes a port on a bridge, with a queue for each thread. Its name contains the bridge's index, so that two switches on
/// one bridge collide.
fn port(
    links: &mut Links,
    name: &str,
    steering: Option<&(usize, Steering)>,
) -> Result<(Vec<Tap>, Link), StartError> {
    let bridge = links.bridge(name)?;
    let port = crate::port_name(bridge.index);
    let end = Instant::now() + RELEASE;
    let taps = loop {
        let taps = match steering {
            None => Tap::open(&port, Offers::Checksums).map(|tap| vec![tap]),
            Some((count, steering)) => Tap::with_queues(&port, Offers::Checksums, *count, steering),
        };
        let error = match taps {
            Ok(taps) => break taps,
            Err(error) => error,
        };
        let error = match Errno::from_io_error(&error) {
            Some(Errno::BUSY) if Instant::now() < end => {
                sleep(GLANCE);
                continue;
            }
            Some(Errno::BUSY) => io::Error::other("another switch has it"),
            _ => error,
        };
        return Err(StartError::Port(port, name.to_owned(), error));
    };
    let mut link = links.find(&port)?;
    links.attach_own(&mut link, &bridge)?;
    Ok((taps, link))
}

/// Makes a socket that only this user can open. It replaces a socket that no process listens to.
fn listen(path: &Path) -> Result<UnixListener, StartError> {
    let file = |error| StartError::File(path.to_owned(), error);
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(file)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(StartError::InUse(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(file)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(file)?;
    listener.set_nonblocking(true).map_err(file)?;
    Ok(listener)
}
