//! `cargo xtask lab`: the lab for a developer.

use std::fs;
use std::io::{Write, stderr, stdout};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use mayfly_lab::{Chunk, Options};

use crate::console;
use crate::progress::Progress;

/// The time limit of a counted command.
const COUNT: Duration = Duration::from_secs(3600);

#[derive(Subcommand)]
pub(crate) enum Lab {
    /// Start a lab and leave it running
    Up(Up),
    /// Run a command in dom0, and pass on its output and exit code
    Exec(Exec),
    /// Copy a file; `:` before a path means dom0
    Cp(Copy),
    /// Start a lab that counts instructions as time, run one command in it, and print what it prints
    Count(Count),
    /// A shell in dom0 on the serial console; Ctrl-] leaves it
    Console(Name),
    /// The serial log: Xen, dom0's kernel, and what guests write to port 0xe9
    Logs(Logs),
    /// Take a lab down
    Down(Down),
}

#[derive(Args)]
pub(crate) struct Name {
    /// Name of the lab
    #[arg(long, default_value = "lab")]
    name: String,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Xenstored {
    /// The C daemon
    #[default]
    C,
    /// oxenstored
    Ocaml,
    /// hatch xenstored
    Hatch,
}

impl From<Xenstored> for mayfly_lab::Xenstored {
    fn from(xenstored: Xenstored) -> Self {
        match xenstored {
            Xenstored::C => Self::C,
            Xenstored::Ocaml => Self::Ocaml,
            Xenstored::Hatch => Self::Hatch,
        }
    }
}

/// The options that all commands which start a lab have in common.
#[derive(Args)]
pub(crate) struct Machine {
    /// dom0's xenstored
    #[arg(long, value_enum, default_value_t)]
    xenstored: Xenstored,
    /// Memory of the machine, in MiB; dom0 has a third
    #[arg(long, default_value_t = 3072, value_parser = clap::value_parser!(u32).range(1536..))]
    memory: u32,
    /// Number of emulated CPUs; with more than one, dom0 may stall on a busy host
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Do not start xenconsoled
    #[arg(long)]
    no_xenconsoled: bool,
    /// Put dnsperf and wrk into dom0
    #[arg(long)]
    load: bool,
}

impl Machine {
    pub(crate) fn options(&self, name: &str) -> Options {
        Options {
            xenstored: self.xenstored.into(),
            memory: self.memory,
            dom0_memory: self.memory / 3,
            cpus: self.cpus,
            xenconsoled: !self.no_xenconsoled,
            load: self.load,
            ..Options::named(name)
        }
    }
}

#[derive(Args)]
pub(crate) struct Up {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    name: Name,
    /// Time limit of the command, in seconds
    #[arg(long, default_value_t = 3600)]
    bound: u64,
    /// Program and arguments; a single word with spaces is given to the shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Count {
    /// A file to put into dom0, `FILE:PATH`; may be given again
    #[arg(long = "file", value_name = "FILE:PATH")]
    files: Vec<String>,
    /// Program and arguments; a single word with spaces is given to the shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    name: Name,
    /// Source
    from: String,
    /// Destination
    to: String,
}

#[derive(Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    name: Name,
    /// Go on printing as the log grows
    #[arg(short, long)]
    follow: bool,
}

#[derive(Args)]
pub(crate) struct Down {
    #[command(flatten)]
    name: Name,
    /// All labs that run
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(task: Lab) -> Result<ExitCode> {
    match task {
        Lab::Up(up) => {
            let progress = Progress::new();
            let mut lab = mayfly_lab::Lab::up(&up.machine.options(&up.name.name), &|step| {
                progress.step(step)
            })?;
            lab.detach();
            progress.finish();
            progress.say(&format!("lab {:?} is up", up.name.name));
            println!("run a command in dom0:  cargo xtask lab exec xl list");
            println!(
                "a guest at {}:    http://{}/, DNS at {}",
                mayfly_lab::GUEST,
                lab.http()?,
                lab.dns()?
            );
            println!("its logs:               {}", lab.folder().display());
        }
        Lab::Exec(exec) => return run_in_dom0(&exec),
        Lab::Count(count) => self::count(&count)?,
        Lab::Cp(copy) => copy_file(&copy)?,
        Lab::Console(name) => console::attach(&attach(&name)?)?,
        Lab::Logs(logs) => print_logs(&logs)?,
        Lab::Down(down) => {
            let names = if down.all {
                mayfly_lab::list()?
            } else {
                vec![down.name.name]
            };
            for name in names {
                mayfly_lab::Lab::attach(&name)?.down()?;
                println!("lab {name:?} is down");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn attach(name: &Name) -> Result<mayfly_lab::Lab> {
    mayfly_lab::Lab::attach(&name.name)
}

fn run_in_dom0(exec: &Exec) -> Result<ExitCode> {
    let lab = attach(&exec.name)?;
    let argv = argv(&exec.command);
    let code = lab.stream(&argv, &[], Duration::from_secs(exec.bound), &mut |chunk| {
        let written = match chunk {
            Chunk::Stdout(d) => stdout().write_all(d).and_then(|()| stdout().flush()),
            Chunk::Stderr(d) => stderr().write_all(d),
        };
        if written.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255),
    ))
}

fn argv(words: &[String]) -> Vec<String> {
    match words {
        [line] if line.contains(' ') => vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
        words => words.to_vec(),
    }
}

fn count(count: &Count) -> Result<()> {
    let mut files = Vec::new();
    for pair in &count.files {
        let (from, to) = pair
            .split_once(':')
            .with_context(|| format!("{pair:?} is not FILE:PATH"))?;
        let content = fs::read(from).with_context(|| format!("cannot read {from}"))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        files.push(mayfly_lab::Placed {
            path: to.into(),
            mode,
            content,
        });
    }
    let argv = argv(&count.command);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let name = format!("count-{}", std::process::id());
    let progress = Progress::new();
    let options = Options {
        files,
        ..Options::counted(&name, &argv)
    };
    let lab = mayfly_lab::Lab::up(&options, &|step| progress.step(step))?;
    let log = lab.wait_off(COUNT)?;
    progress.finish();
    print!("{log}");
    Ok(())
}

fn copy_file(copy: &Copy) -> Result<()> {
    let lab = attach(&copy.name)?;
    match (copy.from.strip_prefix(':'), copy.to.strip_prefix(':')) {
        (None, Some(to)) => {
            let from = Path::new(&copy.from);
            let content =
                fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            let name = from
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            let to = if to.ends_with('/') {
                format!("{to}{name}")
            } else {
                to.to_owned()
            };
            lab.put(
                &to,
                fs::metadata(from)?.permissions().mode() & 0o777,
                &content,
            )
        }
        (Some(from), None) => {
            let content = lab.get(from)?;
            let to = Path::new(&copy.to);
            let to = if to.is_dir() {
                to.join(Path::new(from).file_name().unwrap_or_default())
            } else {
                to.to_owned()
            };
            fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))
        }
        _ => bail!(
            "one of the two paths must be in dom0: put `:` before it, as in `cargo xtask lab cp file :/tmp/`"
        ),
    }
}

fn print_logs(logs: &Logs) -> Result<()> {
    // A lab that is down, or never came up, has a log as well.
    let lab = attach(&logs.name);
    let path = mayfly_lab::log_path(&logs.name.name)?;
    let mut file =
        fs::File::open(&path).with_context(|| format!("no log of lab {:?}", logs.name.name))?;
    loop {
        std::io::copy(&mut file, &mut stdout())?;
        if !logs.follow || !lab.as_ref().is_ok_and(mayfly_lab::Lab::is_running) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
