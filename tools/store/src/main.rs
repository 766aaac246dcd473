//! `hatch xenstored`: the program.

mod takeover;

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use mayfly_commands::{Xenstored, XenstoredVerb};
use mayfly_store::core::{Quota, SavedState, Server};
use mayfly_store::daemon::{Daemon, Dom0, PidFile, STATE_FILE, Succession, listen, tell_ready};
use mayfly_store::keep::{Side, keep};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};

/// The folder in which libxenstore looks for the socket.
const FOLDER: &str = "/run/xenstored";
/// The folder for the state in Xen's own build.
const LIBRARY: &str = "/var/lib/xenstored";
/// The environment variable that tells the process that it is the one in the background.
const BACKGROUND: &str = "HATCH_XENSTORED_BACKGROUND";
const READY: &[u8] = b"ready\n";

/// The command line.
#[derive(Parser)]
#[command(
    name = "hatch xenstored",
    bin_name = "hatch xenstored",
    version,
    disable_version_flag = true
)]
struct Arguments {
    #[command(flatten)]
    xenstored: Xenstored,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse().xenstored;
    // A successor has the environment of its predecessor, which has left the terminal already.
    let is_background = std::env::var_os(BACKGROUND).is_some() && !arguments.live_update;
    let stays = arguments.no_fork || arguments.live_update || is_background;
    let result = match &arguments.verb {
        Some(XenstoredVerb::Takeover(takeover)) => takeover::run(takeover),
        None if stays => serve(&arguments, is_background),
        None => start_in_background(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hatch xenstored: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again in the background, and waits until it answers requests.
fn start_in_background() -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start in the background")?;
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_end(&mut said)?;
    }
    if said != READY {
        bail!("the process in the background has ended: {}", child.wait()?);
    }
    Ok(())
}

/// Tells the starting process that requests are answered.
fn tell_starter() -> Result<()> {
    std::io::stdout().write_all(READY)?;
    Ok(std::io::stdout().flush()?)
}

/// Leaves the terminal's files.
fn be_silent() -> Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// What the worker begins with.
enum Start {
    Fresh(UnixListener),
    /// The state of the predecessor in this process, and the file descriptors that it names.
    Successor(Vec<u8>, HashMap<i32, OwnedFd>),
}

/// Becomes the keeper, and starts the worker.
fn serve(arguments: &Xenstored, is_background: bool) -> Result<()> {
    let quota = quota(arguments)?;
    // First, because it takes over all file descriptors.
    let inherited = match arguments.live_update {
        true => Some(inherit()?),
        false => None,
    };
    let _pid_file = arguments
        .pid_file
        .as_deref()
        .map(PidFile::new)
        .transpose()?;
    allow_many_clients();
    if is_background {
        // This fails if the process leads a session already.
        let _ = rustix::process::setsid();
    }
    let start = match inherited {
        Some((state, descriptors)) => Start::Successor(state, descriptors),
        // Made by the keeper, whose number the socket shows to clients.
        None => Start::Fresh(listen(&socket(arguments.socket.clone()))?),
    };
    let keeper = match keep().context("two processes")? {
        Side::Worker(kept) => {
            let daemon = begin(start, arguments, quota, is_background);
            match daemon {
                Ok(mut daemon) => daemon.run_kept(kept),
                Err(error) => {
                    eprintln!("hatch xenstored: {error:#}");
                    std::process::exit(1);
                }
            }
        }
        Side::Keeper(keeper) => keeper,
    };
    // The worker has them.
    drop(start);
    let (stop, stopped) = UnixStream::pair().context("a pair of sockets")?;
    for signal in [SIGTERM, SIGINT] {
        let stopped = stopped.try_clone().context("a socket")?;
        signal_hook::low_level::pipe::register(signal, stopped).context("a handler for signals")?;
    }
    let is_ready = Cell::new(false);
    let ready = || {
        is_ready.set(true);
        if !arguments.live_update {
            tell_ready();
        }
        if is_background {
            // This fails if nobody waits for it any more.
            let _ = tell_starter().and_then(|()| be_silent());
        }
    };
    let result = keeper.run(stop.as_fd(), ready).context("the keeper");
    if !is_ready.get() && !arguments.live_update {
        // Clients look for another way if there is no socket. An error leaves them one that nobody answers.
        let _ = std::fs::remove_file(socket(arguments.socket.clone()));
    }
    result
}

/// Makes the daemon of the first worker.
fn begin(
    start: Start,
    arguments: &Xenstored,
    quota: Quota,
    is_background: bool,
) -> Result<Daemon<Dom0>> {
    let mut daemon = match start {
        Start::Fresh(listener) => {
            Daemon::new(quota, arguments.keep_orphans, Dom0::open()?, listener)?
        }
        Start::Successor(state, descriptors) => {
            successor(&state, descriptors, &quota, arguments.keep_orphans)?
        }
    };
    daemon.allow_update(Succession {
        file: state_file(),
        arguments: std::env::args_os().skip(1).collect(),
    });
    if is_background {
        be_silent()?;
    }
    Ok(daemon)
}

/// Reads the state that the predecessor in this process has left, and takes over the file descriptors that it names.
fn inherit() -> Result<(Vec<u8>, HashMap<i32, OwnedFd>)> {
    let file = state_file();
    let shown = file.display();
    let bytes =
        std::fs::read(&file).with_context(|| format!("the predecessor's state: {shown}"))?;
    // Read once only: a later start must not find it.
    std::fs::remove_file(&file).with_context(|| shown.to_string())?;
    let state = SavedState::parse(&bytes).with_context(|| shown.to_string())?;
    let (listener, events, sockets) = state.descriptors();
    let all = mayfly_xen::inherit(sockets.into_iter().chain([listener, events]))?;
    Ok((bytes, all))
}

/// Makes the daemon that goes on where the predecessor in this process stopped.
fn successor(
    state: &[u8],
    mut all: HashMap<i32, OwnedFd>,
    quota: &Quota,
    keeps_orphans: bool,
) -> Result<Daemon<Dom0>> {
    let state = SavedState::parse(state).context("the predecessor's state")?;
    let (listener, events, _) = state.descriptors();
    let mut take = |number| all.remove(&number).context("a file descriptor");
    let listener = UnixListener::from(take(listener)?);
    let mut machine = Dom0::inherit(take(events)?)?;
    let restored = Server::restored(quota.clone(), keeps_orphans, &state, &mut machine);
    let restored = restored.context("the predecessor's state")?;
    Ok(Daemon::restored(restored, machine, listener, all)?)
}

/// Returns the path of the file for the state, found as the C xenstored finds it. Debian's looks in [`FOLDER`], Xen's
/// own build in [`LIBRARY`], which it makes when it starts.
fn state_file() -> PathBuf {
    let named = std::env::var_os("XENSTORED_ROOTDIR").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| match Path::new(LIBRARY).is_dir() {
        true => LIBRARY.into(),
        false => FOLDER.into(),
    });
    folder.join(STATE_FILE)
}

/// Raises the limit of open files to the greatest that the kernel allows this process: one for each connection.
fn allow_many_clients() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without the raise, the limit is enough for usual use.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Returns the path of the socket, found as the C xenstored finds it.
fn socket(own: Option<PathBuf>) -> PathBuf {
    let named = |name| std::env::var_os(name).map(PathBuf::from);
    own.or_else(|| named("XENSTORED_PATH")).unwrap_or_else(|| {
        let folder = named("XENSTORED_RUNDIR");
        folder
            .as_deref()
            .unwrap_or(Path::new(FOLDER))
            .join("socket")
    })
}

fn quota(arguments: &Xenstored) -> Result<Quota> {
    let mut quota = Quota::default();
    let numbers = [
        ("nodes", arguments.entry_nb),
        ("node-size", arguments.entry_size),
        ("watches", arguments.watch_nb),
        ("transactions", arguments.transaction),
        ("permissions", arguments.perm_nb),
        ("path-max", arguments.path_max),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            quota.set(name, value);
        }
    }
    for text in &arguments.quota {
        let (name, value) = assignment(text)?;
        if !quota.set(name, value) {
            bail!("--quota {text}: unknown quota");
        }
    }
    for text in &arguments.timeout {
        match assignment(text)? {
            ("watch-event", seconds) => {
                quota.event_timeout = Duration::from_secs(u64::try_from(seconds)?);
            }
            _ => bail!("--timeout {text}: unknown timeout"),
        }
    }
    Ok(quota)
}

fn assignment(text: &str) -> Result<(&str, usize)> {
    let (name, value) = text
        .split_once('=')
        .with_context(|| format!("{text}: not of the form WHAT=N"))?;
    let value = value
        .parse()
        .with_context(|| format!("{text}: not a number"))?;
    Ok((name, value))
}
