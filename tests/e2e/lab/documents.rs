//! Runs the commands of README.md and `docs/` as a reader would. CONTRIBUTING.md, "Commands in documents", has the
//! rules.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use mayfly_documents::{Action, Content, Side, Step, Until};
use mayfly_lab::{Lab, Options, hatch_programs, workspace};
use rustix::process::{Pid, Signal, kill_process_group};
use walkdir::WalkDir;

use crate::Current;
use crate::birth::{Maker, Place};

/// The time limit of a command.
const BOUND: Duration = Duration::from_secs(600);
/// The time for which a command that keeps running is watched: an error would show by then.
const SETTLED: Duration = Duration::from_secs(1);
/// The folder in which commands run in dom0.
const DOM0: &str = "/root";

/// One case for each document, in the lab of `options`.
pub(crate) fn trials(options: &Options, current: &Current) -> Vec<Trial> {
    // A unit test of `tests/documents` reports documents that cannot be listed.
    let paths = mayfly_documents::all(workspace()).unwrap_or_default();
    let trial = |path: PathBuf| {
        let (options, current) = (options.clone(), Arc::clone(current));
        let name = path.strip_prefix(workspace()).unwrap_or(&path);
        Trial::test(format!("documents: {}", name.display()), move || {
            let case = |place: &Place| follow(place, &path);
            crate::run(&current, &options, Maker::Hatch, case).map_err(|e| format!("{e:#}").into())
        })
    };
    paths.into_iter().map(trial).collect()
}

/// Runs every step of a document, and cleans up.
fn follow(place: &Place, path: &Path) -> Result<()> {
    let document = mayfly_documents::parse(&fs::read_to_string(path)?)?;
    let name = path.file_stem().context("a document has a name")?;
    let mut reader = Reader::new(&place.lab, &workspace().join("target/documents").join(name))?;
    let result = document.steps.iter().try_for_each(|step| reader.take(step));
    let ended = reader.leave();
    result.and(ended)
}

/// The state of a document's run.
struct Reader<'l> {
    lab: &'l Lab,
    /// The folder of the host's commands. It is below the workspace, so that Cargo finds the latter.
    folder: PathBuf,
    /// The value of `PATH`: the folders of hatch's programs, and the previous value.
    path: String,
    /// The files made by the host's commands that have been copied to dom0.
    copied: HashMap<PathBuf, Vec<u8>>,
    /// The commands that keep running on the host, and the process groups in dom0.
    running: Vec<Child>,
    dom0_running: Vec<String>,
}

impl<'l> Reader<'l> {
    fn new(lab: &'l Lab, folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(workspace())? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() && !name.to_string_lossy().starts_with('.') {
                symlink(entry.path(), folder.join(name))?;
            }
        }
        let programs = hatch_programs(true)?;
        let programs = programs.first().and_then(|program| program.parent());
        let programs = programs.context("hatch has no folder")?;
        let path = std::env::var("PATH").unwrap_or_default();
        lab.shell(&format!(
            "mkdir -p {DOM0} && ln -sf /guest/mayfly {DOM0}/mayfly"
        ))?;
        Ok(Self {
            lab,
            folder: folder.to_owned(),
            path: format!("{}:{path}", programs.display()),
            copied: HashMap::new(),
            running: Vec::new(),
            dom0_running: Vec::new(),
        })
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        match &step.action {
            Action::Write { name, content } => self.write(name, content),
            Action::Run {
                side: Side::Host,
                command,
                until,
            } => self.on_host(command, until),
            Action::Run {
                side: Side::Dom0,
                command,
                until,
            } => self.in_dom0(command, until),
        }
        .with_context(|| format!("line {}", step.line))
    }

    fn write(&self, name: &str, content: &Content) -> Result<()> {
        let source = match content {
            Content::Text(text) => return self.write_file(name, text.as_bytes()),
            Content::CopyOf(source) => workspace().join(source),
        };
        for entry in WalkDir::new(&source).sort_by_file_name() {
            let entry = entry?;
            if entry.file_type().is_file() {
                let inner = entry.path().strip_prefix(&source)?;
                let name = match inner.to_str().context("a name is text")? {
                    "" => name.to_owned(),
                    inner => format!("{name}/{inner}"),
                };
                self.write_file(&name, &fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if name.starts_with('/') {
            return self.lab.put(name, 0o644, bytes);
        }
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    fn on_host(&mut self, command: &str, until: &Until) -> Result<()> {
        let said = self.folder.join(".said");
        let output = File::create(&said)?;
        let mut child = Command::new("sh")
            .args(["-c", command])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            // Cargo has set these for this test; for a reader they would not be set.
            .env_remove("CARGO")
            .env_remove("CARGO_MANIFEST_DIR")
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .process_group(0)
            .spawn()?;
        let start = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait()? {
                break status.code();
            }
            let text = fs::read(&said)?;
            let text = String::from_utf8_lossy(&text);
            let goes_on = match until {
                Until::Ends => false,
                Until::Begins => start.elapsed() > SETTLED,
                Until::Prints(wanted) => text.contains(wanted),
            };
            if goes_on {
                self.running.push(child);
                return Ok(());
            }
            if start.elapsed() > BOUND {
                end(&mut child);
                bail!("`{command}` takes more than {BOUND:?}; it has printed:\n{text}");
            }
            sleep(Duration::from_millis(20));
        };
        let text = fs::read(&said)?;
        let text = String::from_utf8_lossy(&text);
        ensure!(
            code == Some(0) && *until == Until::Ends,
            "`{command}` ends with exit code {code:?}; it has printed:\n{text}"
        );
        Ok(())
    }

    fn in_dom0(&mut self, command: &str, until: &Until) -> Result<()> {
        self.copy()?;
        let whole = format!("cd {DOM0} && export PATH=/guest:$PATH && {command}");
        if *until == Until::Ends {
            let output = self.lab.exec_with(&["sh", "-c", &whole], &[], BOUND)?;
            ensure!(
                output.success(),
                "`{command}` ends with exit code {}; it has printed:\n{}{}",
                output.code,
                output.text(),
                output.error_text()
            );
            return Ok(());
        }
        let said = format!("/run/document.{}", self.dom0_running.len());
        let start = "setsid sh -c \"$1\" >\"$2\" 2>&1 </dev/null & echo $!";
        let group = self.lab.run(&["sh", "-c", start, "sh", &whole, &said])?;
        let group = group.trim().to_owned();
        self.dom0_running.push(group.clone());
        let start = Instant::now();
        loop {
            let alive = self.lab.exec(&["kill", "-0", &group])?.success();
            let text = self.lab.run(&["cat", &said])?;
            ensure!(alive, "`{command}` has ended; it has printed:\n{text}");
            let goes_on = match until {
                Until::Prints(wanted) => text.contains(wanted),
                _ => start.elapsed() > SETTLED,
            };
            if goes_on {
                return Ok(());
            }
            ensure!(
                start.elapsed() < BOUND,
                "`{command}` does not print what is waited for, but:\n{text}"
            );
            sleep(Duration::from_millis(100));
        }
    }

    /// Copies to dom0 the files that the host's commands have made or changed.
    fn copy(&mut self) -> Result<()> {
        for entry in WalkDir::new(&self.folder).sort_by_file_name() {
            let entry = entry?;
            let path = entry.path().strip_prefix(&self.folder)?;
            if !entry.file_type().is_file() || path == Path::new(".said") {
                continue;
            }
            let content = fs::read(entry.path())?;
            if self.copied.get(path) != Some(&content) {
                let to = format!("{DOM0}/{}", path.display());
                self.lab.put(&to, 0o644, &content)?;
                self.copied.insert(path.to_owned(), content);
            }
        }
        Ok(())
    }

    /// Ends the running commands, destroys the guests, and removes the files.
    fn leave(&mut self) -> Result<()> {
        self.running.iter_mut().for_each(end);
        for group in self.dom0_running.iter().rev() {
            let script = format!(
                "kill -TERM -{group}; for n in $(seq 100); do kill -0 -{group} 2>/dev/null || exit 0; sleep 0.1; done; kill -KILL -{group}"
            );
            // A group that has ended by itself is gone.
            let _ = self.lab.exec(&["sh", "-c", &script])?;
        }
        let script = format!(
            "for domid in $(xl list | awk 'NR > 2 {{ print $2 }}'); do
                 /guest/hatch destroy --force $domid || xl destroy $domid
             done
             /guest/hatch gc; rm -rf {DOM0}/* /run/document.*"
        );
        let _ = self.lab.exec(&["sh", "-c", &script])?;
        fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

/// Ends a command of the host and its children: as Ctrl-C would, and by SIGKILL after ten seconds.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    for (signal, patience) in [(Signal::INT, 100), (Signal::KILL, 10)] {
        if let Some(group) = group {
            let _ = kill_process_group(group, signal);
        }
        for _ in 0..patience {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(100));
        }
    }
}
