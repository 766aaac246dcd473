//! dom0's init and agent, for the lab. Process 1 brings the machine up, starts this program again as the server, and
//! from then on only reaps dead processes.
#![forbid(unsafe_code)]

mod init;
mod serve;

use std::process::{Command, ExitCode};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use mayfly_agent::{AUTORUN, CONFIG_PATH, Config, FAILED, UP};

fn main() -> ExitCode {
    let result = if std::process::id() == 1 {
        process_one()
    } else {
        server()
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{FAILED} {e:#}");
            if std::process::id() == 1 {
                power_off();
            }
            ExitCode::FAILURE
        }
    }
}

fn config() -> Result<Config> {
    let text = fs::read(CONFIG_PATH).with_context(|| format!("cannot read {CONFIG_PATH}"))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{CONFIG_PATH} is not what the lab writes"))
}

fn process_one() -> Result<()> {
    init::mounts()?;
    init::bring_up(&config()?)?;
    let server = Command::new("/init")
        .spawn()
        .context("cannot start the agent")?;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid.as_raw_nonzero().get().unsigned_abs() == server.id() => {
                bail!("the agent ended");
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("waiting for dead processes"),
        }
    }
}

fn server() -> Result<()> {
    let config = config()?;
    if let Some(argv) = &config.autorun {
        println!("{UP}");
        let (program, arguments) = argv.split_first().context("autorun names no program")?;
        let status = init::environment(&mut Command::new(program))
            .args(arguments)
            .status();
        let status = status.with_context(|| format!("cannot run {program}"))?;
        println!("{AUTORUN} {}", serve::exit_code(status));
        power_off();
        return Ok(());
    }
    init::console_shell();
    match config.token {
        Some(token) => serve::serve(token),
        None => loop {
            thread::park();
        },
    }
}

/// Switches the machine off. Returns only if the kernel refuses.
fn power_off() {
    rustix::fs::sync();
    let result = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    println!("{FAILED} cannot power off: {result:?}");
}
