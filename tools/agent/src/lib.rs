//! The protocol between the lab on the host and the agent in dom0.
//!
//! One TCP connection carries one request. The host sends a [`Request`] as one line of JSON, then
//! frames; the agent answers with frames, the last of which is [`Frame::Exit`] or [`Frame::Error`].
//! A frame is one byte of kind, a big-endian `u32` of length (at most [`MAX_PAYLOAD`]) and the payload.
//!
//! | request | host sends | agent sends |
//! |---|---|---|
//! | `Ping` | | `Exit(0)` |
//! | `Exec` | `Data`* `End` (stdin) | `Data` (stdout), `Stderr` in any order, `Exit` |
//! | `Put` | `Data`* `End` | `Exit(0)` |
//! | `Get` | | `Data`* `Exit(0)` |
//! | `PowerOff` | | `Exit(0)` |
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// TCP port of the agent in dom0.
pub const PORT: u16 = 7070;
/// Largest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// The path of [`Config`] in dom0's file system.
pub const CONFIG_PATH: &str = "/lab/config.json";
/// The path of the ordered list of kernel modules, one path a line.
pub const MODULES_PATH: &str = "/lab/modules";
/// Line on the serial console when dom0 is ready.
pub const UP: &str = "mayfly-lab: up";
/// Start of the line on the serial console when dom0 could not be brought up.
pub const FAILED: &str = "mayfly-lab: failed:";
/// Start of the line on the serial console with the exit code of the autorun program.
pub const AUTORUN: &str = "mayfly-lab: autorun exit";
/// The bridge that guests attach to.
pub const BRIDGE: &str = "xenbr0";
/// MAC address of the network card that joins the bridge.
pub const BRIDGE_MAC: &str = "52:54:00:6d:61:01";
/// MAC address of the network card that carries only the agent.
pub const CONTROL_MAC: &str = "52:54:00:6d:61:02";

/// The xenstored that dom0 runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Xenstored {
    /// The C daemon.
    #[default]
    C,
    /// oxenstored.
    Ocaml,
    /// Our own, `hatch-xenstored`.
    Hatch,
}

/// The configuration of dom0's init, read from [`CONFIG_PATH`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// The xenstored to run.
    pub xenstored: Xenstored,
    /// Whether to run xenconsoled.
    pub xenconsoled: bool,
    /// Secret that every request must carry; without one the agent does not listen.
    pub token: Option<String>,
    /// Program to run once dom0 is up, its output on the serial console; dom0 powers off afterwards.
    pub autorun: Option<Vec<String>>,
}

/// A request of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Answer at once.
    Ping,
    /// Run a program in its own process group, which is killed when the host hangs up.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Write a file, replacing it only when all of it has arrived; its folder is created.
    Put {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Read a file.
    Get {
        /// Absolute path.
        path: String,
    },
    /// Switch the machine off.
    PowerOff,
}

/// First line of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`Config::token`].
    pub token: String,
    /// The requested operation.
    pub op: Op,
}

/// One message after the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Standard input or output, or a file's content.
    Data(Vec<u8>),
    /// No more `Data` in this direction.
    End,
    /// Standard error.
    Stderr(Vec<u8>),
    /// Exit code; 128 + n for a program that died of signal n.
    Exit(i32),
    /// The request failed, with the reason.
    Error(String),
}

impl Frame {
    /// Writes the frame to `w`.
    ///
    /// # Errors
    /// The errors of `w`, and `InvalidInput` for a payload over [`MAX_PAYLOAD`].
    pub fn write(&self, w: &mut impl Write) -> io::Result<()> {
        let code;
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Data(d) => (0, d),
            Self::End => (1, &[]),
            Self::Stderr(d) => (2, d),
            Self::Exit(c) => {
                code = c.to_be_bytes();
                (3, &code)
            }
            Self::Error(e) => (4, e.as_bytes()),
        };
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= MAX_PAYLOAD)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut out = Vec::with_capacity(5 + payload.len());
        out.push(kind);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(payload);
        w.write_all(&out)?;
        w.flush()
    }

    /// Reads one frame from `r`.
    ///
    /// # Errors
    /// The errors of `r`, and `InvalidData` for bytes that [`Frame::write`] does not write.
    pub fn read(r: &mut impl Read) -> io::Result<Self> {
        let mut kind = [0];
        let mut length = [0; 4];
        r.read_exact(&mut kind)?;
        r.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= MAX_PAYLOAD)
            .ok_or(io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; length];
        r.read_exact(&mut payload)?;
        match kind {
            [0] => Ok(Self::Data(payload)),
            [1] => Ok(Self::End),
            [2] => Ok(Self::Stderr(payload)),
            [3] => {
                let code = payload.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
                Ok(Self::Exit(i32::from_be_bytes(code)))
            }
            [4] => Ok(Self::Error(String::from_utf8_lossy(&payload).into_owned())),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        let frames = [
            Frame::Data(vec![1, 2, 3]),
            Frame::End,
            Frame::Stderr(vec![]),
            Frame::Exit(-1),
            Frame::Error("no such file".into()),
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            frame.write(&mut wire).unwrap();
        }
        let mut reader = wire.as_slice();
        for frame in &frames {
            assert_eq!(&Frame::read(&mut reader).unwrap(), frame);
        }
        assert!(Frame::read(&mut reader).is_err());
    }

    #[test]
    fn lying_frames_are_errors() {
        for wire in [
            &[0, 0xff, 0xff, 0xff, 0xff][..],
            &[9, 0, 0, 0, 0],
            &[3, 0, 0, 0, 1, 0],
            &[0, 0, 0, 0, 2, 1],
        ] {
            assert!(Frame::read(&mut { wire }).is_err(), "{wire:?}");
        }
        assert!(
            Frame::Data(vec![0; MAX_PAYLOAD + 1])
                .write(&mut Vec::new())
                .is_err()
        );
    }
}
