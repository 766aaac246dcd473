//! The emulated machine: its command line, its ports on the host and its process.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use mayfly_agent::{BRIDGE_MAC, CONTROL_MAC, PORT};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::Options;

const QEMU: &str = "qemu-system-x86_64";

/// Transport of a forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host's loopback that leads to an address on the lab's bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Transport.
    pub protocol: Protocol,
    /// Port on the host, on 127.0.0.1.
    pub host: u16,
    /// The address in the lab that it leads to.
    pub to: SocketAddrV4,
}

/// Whether the emulator is installed.
#[must_use]
pub fn installed() -> bool {
    Command::new(QEMU)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success())
}

/// A port of 127.0.0.1 that is free for both TCP and UDP now; `preferred`, if that is free.
pub(crate) fn free_port(preferred: u16) -> Result<u16> {
    let free = |port: u16| -> std::io::Result<u16> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = tcp.local_addr()?.port();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
        Ok(port)
    };
    std::iter::once(preferred)
        .chain(std::iter::repeat_n(0, 16))
        .find_map(|port| free(port).ok())
        .context("no port of 127.0.0.1 is free for both TCP and UDP")
}

/// The name of the capture file of the bridge's network card, in a lab's folder.
pub(crate) const CAPTURE: &str = "bridge.pcap";

/// The name of the log of [`Options::code`], in a lab's folder: QEMU's of `-d in_asm`.
pub const CODE_LOG: &str = "code.log";

/// The parameters of a lab's machine.
pub(crate) struct Machine<'a> {
    pub(crate) options: &'a Options,
    /// The folder of `xen`, `vmlinuz` and `initramfs`. QEMU runs in it, so that no path has to pass through its
    /// options.
    pub(crate) folder: &'a Path,
    pub(crate) agent_port: u16,
    pub(crate) forwards: &'a [Forward],
}

impl Machine<'_> {
    fn arguments(&self) -> Vec<String> {
        let options = self.options;
        let mut xen = format!(
            "console=com1 com1=115200,8n1 dom0_mem={0}M,max:{0}M loglvl=info guest_loglvl=all noreboot",
            options.dom0_memory
        );
        for word in &options.xen_arguments {
            xen.push(' ');
            xen.push_str(word);
        }
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(ToString::to_string));
        add(&[
            "-machine",
            "q35",
            "-cpu",
            "qemu64,+svm,+npt,+rdrand",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]);
        add(&[
            "-smp",
            &options.cpus.to_string(),
            "-m",
            &options.memory.to_string(),
        ]);
        if options.counted {
            // One instruction is one nanosecond, and neither the host's time nor its randomness reaches the machine.
            add(&[
                "-accel",
                "tcg,thread=single,tb-size=512",
                "-icount",
                "shift=0,sleep=off",
            ]);
            add(&["-rtc", "base=2026-01-01T00:00:00,clock=vm", "-seed", "1"]);
            add(&["-chardev", "file,id=serial,path=serial.log"]);
        } else {
            add(&["-accel", "tcg,thread=multi,tb-size=512"]);
            add(&[
                "-chardev",
                "socket,id=serial,path=serial.sock,server=on,wait=off,logfile=serial.log",
            ]);
            let mut user =
                String::from("user,id=bridge,net=10.0.2.0/24,host=10.0.2.2,dhcpstart=10.0.2.100");
            for forward in self.forwards {
                let protocol = if forward.protocol == Protocol::Tcp {
                    "tcp"
                } else {
                    "udp"
                };
                user.push_str(&format!(
                    ",hostfwd={protocol}:127.0.0.1:{}-{}:{}",
                    forward.host,
                    forward.to.ip(),
                    forward.to.port()
                ));
            }
            add(&[
                "-netdev",
                &user,
                "-device",
                &format!("virtio-net-pci,netdev=bridge,mac={BRIDGE_MAC},romfile="),
            ]);
            if options.capture {
                let dump = format!("filter-dump,id=dump,netdev=bridge,file={CAPTURE}");
                add(&["-object", &dump]);
            }
            // The agent has a network card of its own, so that no test of the bridge can cut it off, and dom0 cannot
            // reach the host through it.
            let user = format!(
                "user,id=control,net=10.0.3.0/24,restrict=on,hostfwd=tcp:127.0.0.1:{}-10.0.3.15:{PORT}",
                self.agent_port
            );
            add(&[
                "-netdev",
                &user,
                "-device",
                &format!("virtio-net-pci,netdev=control,mac={CONTROL_MAC},romfile="),
            ]);
        }
        if let Some(code) = &options.code {
            // QEMU translates each piece of code when it first runs, and lists it then.
            let filter = format!("{:#x}..{:#x}", code.start, code.end - 1);
            add(&["-d", "in_asm", "-dfilter", &filter, "-D", CODE_LOG]);
        }
        add(&["-serial", "chardev:serial", "-append", &xen]);
        add(&["-kernel", "xen", "-initrd"]);
        let mut dom0 = String::from("vmlinuz console=hvc0 quiet panic=1");
        if options.cpus > 1 {
            // With Xen's spinlocks, a CPU of dom0 sleeps in SCHEDOP_poll until the holder of the lock wakes it, and the
            // holder was seen runnable but not scheduled for minutes. A CPU that spins keeps the emulated machine
            // awake.
            dom0.push_str(" nopvspin");
        }
        for word in &options.dom0_arguments {
            dom0.push(' ');
            dom0.push_str(word);
        }
        dom0.push_str(",initramfs");
        add(&[&dom0]);
        arguments
    }

    /// Starts the emulator. Its own output goes to `qemu.log`.
    pub(crate) fn start(&self) -> Result<Child> {
        ensure!(
            installed(),
            "no {QEMU} here: install it with `sudo apt-get install qemu-system-x86`"
        );
        let log = File::create(self.folder.join("qemu.log"))?;
        File::create(self.folder.join("serial.log"))?;
        Command::new(QEMU)
            .args(self.arguments())
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in the terminal must reach only the program that owns the lab, which takes the lab down in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {QEMU}"))
    }
}

/// Whether `pid` is the emulator of the lab in `folder`, and not a later process with its number.
pub(crate) fn is_running(pid: u32, folder: &Path) -> bool {
    let read = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
    read("exe").is_some_and(|exe| exe.file_name().is_some_and(|name| name == QEMU))
        && read("cwd").is_some_and(|cwd| fs::canonicalize(folder).is_ok_and(|folder| cwd == folder))
}

/// Stops the emulator of the lab in `folder`, if it runs.
pub(crate) fn stop(pid: u32, folder: &Path, child: Option<&mut Child>) -> Result<()> {
    let mut child = child;
    for (signal, bound) in [
        (Signal::TERM, Duration::from_secs(5)),
        (Signal::KILL, Duration::from_secs(10)),
    ] {
        if !is_running(pid, folder) {
            break;
        }
        let id = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("no process id")?;
        let _ = kill_process(id, signal);
        let start = Instant::now();
        while start.elapsed() < bound {
            if let Some(child) = child.as_deref_mut() {
                // Without this, a dead child keeps its process number.
                let _ = child.try_wait();
            }
            if test_kill_process(id).is_err() || !is_running(pid, folder) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    ensure!(
        !is_running(pid, folder),
        "QEMU, process {pid}, does not end"
    );
    if let Some(child) = child {
        child.wait()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(free_port(port).unwrap(), port);
        drop(taken);
        assert_eq!(free_port(port).unwrap(), port);
    }

    #[test]
    fn another_process_is_not_the_emulator() {
        assert!(!is_running(std::process::id(), Path::new("/")));
        stop(std::process::id(), Path::new("/"), None).unwrap();
    }
}
