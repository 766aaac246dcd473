//! NSD on the host, for comparisons that need no guest.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::linux::{nsd_configuration, zones};
use crate::{Report, Set, cache, host_command, qemu};

/// The time limit for NSD to load its zones.
const BOUND: Duration = Duration::from_secs(30);

/// A running NSD. Dropping this stops it.
#[derive(Debug)]
pub struct Nsd {
    child: Child,
    address: SocketAddr,
}

impl Nsd {
    /// Starts NSD of Debian's package on a free port of 127.0.0.1, with the zones of a site. It is the same NSD with
    /// the same configuration as that of [`crate::linux::server`].
    ///
    /// # Errors
    /// Those of [`crate::unpacked`], and an NSD that does not listen in time, with its log.
    pub fn start(site: &Path, transfers: &[&str], report: Report<'_>) -> Result<Self> {
        let folder = cache()?.join("nsd");
        fs::create_dir_all(&folder)?;
        let port = qemu::free_port(0)?;
        let path = folder.join(format!("{port}.conf"));
        let zonesdir = site.join("zones");
        let zonesdir = zonesdir.to_str().context("a path that is not text")?;
        let configuration =
            nsd_configuration(zonesdir, &zones(site)?, transfers, &format!("port={port}"));
        fs::write(&path, configuration)?;
        let log_path = folder.join(format!("{port}.log"));
        let log = fs::File::create(&log_path)?;
        let mut command = host_command(Set::Servers, "usr/sbin/nsd", report)?;
        command.arg("-d").arg("-c").arg(&path);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run nsd")?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut nsd = Self { child, address };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = nsd.child.try_wait()?;
            ensure!(
                ended.is_none() && start.elapsed() < BOUND,
                "NSD does not listen: {}",
                fs::read_to_string(&log_path).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(50));
        }
        for done in [path, log_path] {
            let _ = fs::remove_file(done);
        }
        Ok(nsd)
    }

    /// The address on which NSD listens, over UDP and TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // Its processes end with the first one if that is terminated, but not if it is killed.
        let pid = i32::try_from(self.child.id());
        if let Some(pid) = pid.ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
