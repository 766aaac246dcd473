//! Starts the switch: opens devices and ports, takes over guests from the journal, drops privileges.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use mayfly_links::{Link, Links, Offers, Tap};
use rustix::io::Errno;

use super::Program;
use crate::dom0::{BridgePort, Devices};
use crate::journal::{Journal, JournalEntry};
use crate::switch::Switch;

/// The options of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartOptions {
    /// The bridges on which it has ports.
    pub bridges: Vec<String>,
    /// The path of the control socket.
    pub socket: PathBuf,
    /// The path of the journal.
    pub journal: PathBuf,
}

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
    /// A port on a bridge cannot be made.
    #[error("cannot make the port {0} of {1}: {2}")]
    Port(String, String, io::Error),
    /// The bridge cannot be used.
    #[error(transparent)]
    Links(#[from] mayfly_links::Error),
}

impl Program {
    /// Opens everything that a switch needs, and takes over the guests of the switch before it. No privilege is needed
    /// afterwards.
    ///
    /// # Errors
    /// The first file, device or port that cannot be opened.
    pub fn start(options: &StartOptions, report: &mut dyn FnMut(&str)) -> Result<Self, StartError> {
        let listener = listen(&options.socket)?;
        let file = |error| StartError::File(options.journal.clone(), error);
        let mut journal = Journal::open(&options.journal).map_err(file)?;
        let devices = Devices::open().map_err(StartError::Device)?;
        let start = Instant::now();
        let mut switch = Switch::new(devices);
        let mut links = Links::asking()?;
        let mut ports = Vec::new();
        for name in &options.bridges {
            let (tap, link) = port(&mut links, name)?;
            let (wire, error) = BridgePort::of(tap);
            if let Some(error) = error {
                report(&format!(
                    "frames to {name} are written one by one: no io_uring: {error}"
                ));
            }
            // A bridge may have taken its address from its new port.
            let bridge = links.bridge(name)?;
            let mtu = usize::try_from(bridge.mtu).unwrap_or(usize::MAX);
            switch.add_bridge(name, bridge.mac, mtu, wire);
            ports.push((name.clone(), link));
        }
        let known = journal.known().clone();
        for guest in known.guests {
            let (name, domain, mac) = (guest.name.clone(), guest.rings.domain, guest.mac);
            let port = ports.iter().find(|(bridge, _)| *bridge == guest.bridge);
            if let Some((_, link)) = port {
                links.direct(link, mac)?;
            }
            // Its rings are looked at in the first turn.
            match switch.attach(guest, 0) {
                Ok(()) => report(&format!("{name} (domain {domain}) is taken over")),
                Err(error) => {
                    report(&format!("{name} (domain {domain}) is left alone: {error}"));
                    journal.write(JournalEntry::Detach(domain)).map_err(file)?;
                }
            }
        }
        let links = ports.into_iter().map(|(bridge, link)| (bridge, link.name));
        Ok(Self {
            switch,
            links: links.collect(),
            journal,
            listener,
            clients: Vec::new(),
            next_client: 0,
            recordings: Vec::new(),
            start,
        })
    }
}

/// Makes a port on a bridge. Its name contains the bridge's index, so that two switches on one bridge collide.
fn port(links: &mut Links, name: &str) -> Result<(Tap, Link), StartError> {
    let bridge = links.bridge(name)?;
    let port = crate::port_name(bridge.index);
    let tap = Tap::open(&port, Offers::Checksums).map_err(|error| {
        let error = match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => io::Error::other("another switch has it"),
            _ => error,
        };
        StartError::Port(port.clone(), name.to_owned(), error)
    })?;
    let mut link = links.find(&port)?;
    links.attach_own(&mut link, &bridge)?;
    Ok((tap, link))
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
