//! `hatch xenstored takeover`: the client's side of a live update.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mayfly_commands::Takeover;
use mayfly_xenstore::{Client, Error, Request, Store as _};

/// The time for an answer that waits for nothing.
const BOUND: Duration = Duration::from_secs(10);

/// Asks the xenstored that runs to become another program, and waits until it has.
pub(crate) fn run(takeover: &Takeover) -> Result<()> {
    let program = match &takeover.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("the path of this program")?,
    };
    let program = fs::canonicalize(&program).with_context(|| program.display().to_string())?;
    let shown = program.to_str().context("a path in UTF-8")?;
    let process = process()?;
    // oxenstored goes to the background after it has made its socket, so the process that made it is gone, and another
    // one may have its number.
    let before = executed(process).ok();
    let name = before.as_deref().and_then(Path::file_name);
    let name = name.unwrap_or_default().to_string_lossy();
    let (Some(before), true) = (&before, name.contains("xenstored") && name != "oxenstored") else {
        bail!(
            "no C xenstored and no hatch xenstored runs. oxenstored writes its state in a format of its own: name another xenstored in /etc/default/xen and boot the host again"
        );
    };
    let mut client = Client::connect(BOUND)?;
    step(&mut client, &["live-update", "-f", shown], BOUND)?;
    let result = start(&mut client, takeover);
    if result.is_err() {
        // The session ends with the connection as well.
        let _ = step(&mut client, &["live-update", "-a"], BOUND);
    }
    let paused = result?;
    let after = executed(process)?;
    ensure!(
        after == program,
        "xenstored has answered, and is still {}",
        after.display()
    );
    println!(
        "xenstored (process {process}) was {} and is {shown}; it has answered after {} ms",
        before.display(),
        paused.as_millis()
    );
    Ok(())
}

fn start(client: &mut Client, takeover: &Takeover) -> Result<Duration> {
    if let Some(arguments) = &takeover.arguments {
        step(client, &["live-update", "-c", arguments], BOUND)?;
    }
    let seconds = takeover.timeout.to_string();
    let mut words = vec!["live-update", "-s", "-t", &seconds];
    words.extend(takeover.force.then_some("-F"));
    let start = Instant::now();
    let patience = Duration::from_secs(takeover.timeout.into()) + BOUND;
    step(client, &words, patience)?;
    Ok(start.elapsed())
}

/// Sends a CONTROL request, whose answer has to be OK.
fn step(client: &mut Client, words: &[&str], bound: Duration) -> Result<()> {
    let id = client.send(Request::control(words))?;
    let answer = client.answer_within(id, bound);
    let answer = answer.map_err(|error| match error {
        Error::Closed => anyhow::anyhow!("xenstored has gone: its successor did not start"),
        error => error.into(),
    })?;
    let text = String::from_utf8_lossy(&answer);
    let text = text.trim_end_matches(['\0', '\n']);
    ensure!(text == "OK", "xenstored refuses: {text}");
    Ok(())
}

/// Returns the number of the process that has made xenstored's socket.
fn process() -> Result<i32> {
    let path: PathBuf = crate::socket(None);
    let shown = path.display().to_string();
    let stream =
        UnixStream::connect(&path).with_context(|| format!("{shown}: no xenstored runs"))?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).context(shown)?;
    Ok(peer.pid.as_raw_nonzero().get())
}

/// Returns the program that a process executes.
fn executed(process: i32) -> Result<PathBuf> {
    let link = format!("/proc/{process}/exe");
    fs::read_link(Path::new(&link)).context(link)
}
