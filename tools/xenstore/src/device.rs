//! The socket of xenstored or the kernel's device. Both file descriptors are read and written alike.

use std::env;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::error::Error;

/// Whether several messages may be sent in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Stream,
    /// The kernel's device (drivers/xen/xenbus/xenbus_dev_frontend.c of Linux) takes one message a write, and keeps it
    /// in a buffer that the next write overwrites, even if it was not sent. So there is one pending request at a time.
    Messages,
}

const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

/// Opens the connection in the order of libxenstore: only the path in `XENSTORED_PATH` if it is set, or else the
/// sockets (in `XENSTORED_RUNDIR`, if set), or the device.
pub(super) fn open() -> Result<(OwnedFd, Framing), Error> {
    let candidates: Vec<PathBuf> = match env::var_os("XENSTORED_PATH") {
        Some(path) => vec![path.into()],
        None => env::var_os("XENSTORED_RUNDIR")
            .map(|folder| PathBuf::from(folder).join("socket"))
            .into_iter()
            .chain(SOCKETS.iter().chain(&DEVICES).map(PathBuf::from))
            .collect(),
    };
    let mut reason = io::Error::from(io::ErrorKind::NotFound);
    for candidate in &candidates {
        match open_one(candidate) {
            Ok(opened) => return Ok(opened),
            // The socket's xenstored has gone. The device leads to the same one, so a request there would wait for the
            // next.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                reason = error;
                break;
            }
            // "Not found" says less than any other reason.
            Err(error) if reason.kind() == io::ErrorKind::NotFound => reason = error,
            Err(_) => {}
        }
    }
    let tried: Vec<_> = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Err(Error::Unreachable {
        tried: tried.join(", "),
        source: reason,
    })
}

fn open_one(path: &Path) -> io::Result<(OwnedFd, Framing)> {
    if path.metadata()?.file_type().is_socket() {
        let socket = UnixStream::connect(path)?;
        socket.set_nonblocking(true)?;
        return Ok((socket.into(), Framing::Stream));
    }
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    Ok((device.into(), Framing::Messages))
}
