//! Brings dom0 up, from the kernel's first process to a working `xl`.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, Result, ensure};
use mayfly_agent::{BRIDGE, BRIDGE_MAC, CONTROL_MAC, Config, MODULES_PATH, Xenstored};
use rustix::mount::{MountFlags, mount};

/// The search path of all programs in dom0. Xen's own folder comes first, so that `xl` is the program and not Debian's
/// wrapper.
const PATH: &str = "/usr/lib/xen-4.17/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The time limit of each step.
const STEP: Duration = Duration::from_secs(60);

pub(crate) fn mounts() -> Result<()> {
    for folder in [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/tmp",
        "/var/log/xen",
        "/var/lib/xen",
        "/var/lock",
    ] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
    }
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(target)?;
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {target}"))?;
    }
    for folder in ["/run/xen", "/run/xenstored", "/run/xen-hotplug"] {
        fs::create_dir_all(folder)?;
    }
    Ok(())
}

pub(crate) fn bring_up(config: &Config) -> Result<()> {
    run(&["/bin/busybox", "--install", "-s", "/bin"])?;
    modules()?;
    mount("xenfs", "/proc/xen", "xenfs", MountFlags::empty(), None)
        .context("cannot mount /proc/xen: not running as dom0 of a Xen?")?;
    rustix::system::sethostname(b"dom0").context("cannot set the host name")?;
    network()?;
    match config.xenstored {
        Xenstored::C => run(&["xenstored", "--pid-file", "/run/xen/xenstored.pid"])?,
        Xenstored::Ocaml => run(&["oxenstored"])?,
        Xenstored::Hatch => run(&["hatch-xenstored", "--pid-file", "/run/xen/xenstored.pid"])?,
    }
    run(&["xen-init-dom0"])?;
    if config.xenconsoled {
        run(&["xenconsoled", "--pid-file=/run/xen/xenconsoled.pid"])?;
    }
    Ok(())
}

fn modules() -> Result<()> {
    let list =
        fs::read_to_string(MODULES_PATH).with_context(|| format!("cannot read {MODULES_PATH}"))?;
    for path in list.lines() {
        let file = fs::File::open(path).with_context(|| format!("cannot open {path}"))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e).with_context(|| format!("cannot load {path}")),
        }
    }
    Ok(())
}

/// Brings up the bridge, and the network cards that the lab gave the machine.
fn network() -> Result<()> {
    run(&["ip", "link", "set", "lo", "up"])?;
    run(&["ip", "link", "add", BRIDGE, "type", "bridge"])?;
    // A port that waits for the spanning tree would drop a guest's first frames.
    fs::write(format!("/sys/class/net/{BRIDGE}/bridge/forward_delay"), "0")?;
    if let Some(card) = card(BRIDGE_MAC)? {
        run(&["ip", "link", "set", &card, "master", BRIDGE, "up"])?;
        // A frame to a guest whose port is not up yet must not leave the lab: QEMU accepts it whatever its MAC address,
        // connects to that IP address on the host's own network, and an answer from there would be taken for the
        // guest's.
        fs::write(format!("/sys/class/net/{card}/brport/unicast_flood"), "0")
            .context("cannot keep unknown addresses inside the lab")?;
    }
    run(&["ip", "address", "add", "10.0.2.15/24", "dev", BRIDGE])?;
    // An address that waits for duplicate address detection could not be used in the first seconds.
    fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/accept_dad"), "0")?;
    run(&["ip", "-6", "address", "add", "fd00:2::15/64", "dev", BRIDGE])?;
    run(&["ip", "link", "set", BRIDGE, "up"])?;
    if let Some(card) = card(CONTROL_MAC)? {
        run(&["ip", "address", "add", "10.0.3.15/24", "dev", &card])?;
        run(&["ip", "link", "set", &card, "up"])?;
    }
    Ok(())
}

/// The name of the network card with this MAC address.
fn card(mac: &str) -> Result<Option<String>> {
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        let is_card = entry.path().join("device").exists();
        if is_card && address.trim() == mac {
            return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Runs a program to its end, within [`STEP`].
fn run(argv: &[&str]) -> Result<()> {
    let line = argv.join(" ");
    let (program, arguments) = argv.split_first().context("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let start = Instant::now();
    // A SIGCHLD handler or a pidfd would cost more code than these few polls cost time.
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > STEP {
            let _ = child.kill();
            return Err(io::Error::from(io::ErrorKind::TimedOut)).with_context(|| line);
        }
        thread::sleep(Duration::from_millis(2));
    };
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// Sets the environment of a program that the agent starts for the host.
pub(crate) fn environment(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/")
        .env("TERM", "linux")
}

/// Runs a shell on the serial console, for `cargo xtask lab console`. If it fails, the lab goes on without it.
pub(crate) fn console_shell() {
    thread::spawn(|| -> io::Result<()> {
        loop {
            let console = || fs::File::options().read(true).write(true).open("/dev/hvc0");
            // Start it only when Enter is pressed: a prompt would run into the lines of the log.
            while !matches!(console()?.read(&mut [0; 64])?, 1..) {}
            let mut shell = Command::new("/bin/setsid");
            environment(&mut shell).args(["-c", "/bin/sh"]);
            shell
                .stdin(console()?)
                .stdout(console()?)
                .stderr(console()?)
                .status()?;
        }
    });
}
