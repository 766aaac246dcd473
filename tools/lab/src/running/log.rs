//! The lab's logs: the serial console, and the frames on the bridge.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pcap_file::PcapError;
use pcap_file::pcap::PcapReader;

use super::{Lab, TICK};
use crate::qemu;

impl Lab {
    /// The serial log so far: Xen, dom0's kernel, and lines `(dN) ...` that guests wrote to port 0xe9.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn serial(&self) -> Result<String> {
        self.serial_from(0)
    }

    /// The current length of the serial log, for [`Lab::serial_from`].
    ///
    /// # Errors
    /// An unreadable file.
    pub fn serial_mark(&self) -> Result<u64> {
        Ok(fs::metadata(self.folder.join("serial.log"))?.len())
    }

    /// The serial log from a mark on.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn serial_from(&self, mark: u64) -> Result<String> {
        let mut file =
            File::open(self.folder.join("serial.log")).context("cannot read the serial log")?;
        file.seek(SeekFrom::Start(mark))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
    }

    /// The frames that have passed the network card on the bridge so far, in both directions.
    ///
    /// # Errors
    /// The lab was not started with [`Options::capture`](crate::Options::capture), or the file is not readable.
    pub fn captured(&self) -> Result<Vec<Vec<u8>>> {
        let path = self.folder.join(qemu::CAPTURE);
        let file = File::open(&path).with_context(|| format!("no capture {}", path.display()))?;
        let mut packets = PcapReader::new(file)?;
        let mut frames = Vec::new();
        while let Some(packet) = packets.next_packet() {
            match packet {
                Ok(packet) => frames.push(packet.data.into_owned()),
                // The last frame may still be incomplete.
                Err(PcapError::IncompleteBuffer) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(frames)
    }

    /// Waits until a line of the serial log after `mark` contains `text`, and returns the line.
    ///
    /// # Errors
    /// No such line within `bound`, or the machine has gone.
    pub fn serial_wait(&self, mark: u64, text: &str, bound: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            let gone = !self.is_running();
            let log = self.serial_from(mark)?;
            // The last line may still be incomplete.
            let complete = log
                .rfind('\n')
                .and_then(|end| log.get(..end))
                .unwrap_or_default();
            if let Some(line) = complete.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            ensure!(
                !gone,
                "the machine is off, and {text:?} was not in its serial log"
            );
            ensure!(
                start.elapsed() < bound,
                "{text:?} was not in the serial log within {} s",
                bound.as_secs()
            );
            thread::sleep(TICK);
        }
    }
}
