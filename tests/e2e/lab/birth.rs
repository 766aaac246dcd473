//! One guest in the lab, from `xl create` or `hatch create` to its destruction.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{Lab, Output, hatch_programs, workspace};

/// The time limit of everything that a guest is expected to do.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
/// The path of the configuration in dom0: the example of the repository.
pub(crate) const EXAMPLE: &str = "/guest/mayfly.cfg";

/// The content of that file.
fn example() -> String {
    mayfly_lab::example_with("all,payload:10000000")
}

/// The path of hatch in dom0.
pub(crate) const HATCH: &str = "/guest/hatch";
/// The path of the configuration with a test's own lines appended.
pub(crate) const CHANGED: &str = "/guest/changed.cfg";

/// Runs `xl create`, and meanwhile writes the one key that libxl expects from xenconsoled: without it, Xen 4.17's `xl
/// create` fails, whatever the guest does. The console ring is not read.
const ANNOUNCE_TTY: &str = r#"
"$@" & xl=$!
while kill -0 $xl 2>/dev/null; do
    for tty in $(xenstore-ls -f /local/domain | sed -n 's/\/console\/tty = "".*/\/console\/tty/p'); do
        xenstore-write "$tty" /dev/null
    done
    sleep 0.1
done
wait $xl
"#;

/// The maker of the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    Xl,
    Hatch,
}

/// A running lab with the guest's files in it.
pub(crate) struct Place {
    pub(crate) lab: Lab,
    pub(crate) maker: Cell<Maker>,
    /// Whether services' guests are on `hatch switch`, which runs.
    pub(crate) on_switch: Cell<bool>,
    has_xenconsoled: bool,
    /// The state of dom0 before the first birth, of everything that a birth may leave traces in.
    clean: String,
}

impl Place {
    pub(crate) fn new(lab: Lab, has_xenconsoled: bool) -> Result<Self> {
        let read = |path: &str| {
            std::fs::read(workspace().join(path)).with_context(|| format!("no {path}"))
        };
        lab.put("/guest/mayfly", 0o644, &read("target/guest/mayfly")?)?;
        lab.put(EXAMPLE, 0o644, example().as_bytes())?;
        lab.put_programs("/guest", &hatch_programs(true)?)?;
        let clean = traces(&lab)?;
        Ok(Self {
            lab,
            maker: Cell::new(Maker::Xl),
            on_switch: Cell::new(false),
            has_xenconsoled,
            clean,
        })
    }

    /// `xl create` of the example configuration with lines appended, which take precedence.
    fn xl_create(&self, name: &str, lines: &[&str]) -> Result<Output> {
        let name = format!("name=\"{name}\"");
        let mut argv = vec!["create", EXAMPLE, &name];
        argv.extend(lines);
        self.xl(&argv)
    }

    /// Runs a command of `xl` that makes a guest.
    pub(crate) fn xl(&self, argv: &[&str]) -> Result<Output> {
        let mut command = vec!["xl"];
        if !self.has_xenconsoled {
            command.splice(0..0, ["sh", "-c", ANNOUNCE_TTY, "sh"]);
        }
        command.extend(argv);
        self.lab.exec(&command)
    }

    /// `hatch create` of the same configuration.
    fn hatch_create(&self, name: &str, lines: &[&str]) -> Result<Output> {
        let example = example();
        let config = format!("{example}\nname = \"{name}\"\n{}\n", lines.join("\n"));
        self.lab.put(CHANGED, 0o644, config.as_bytes())?;
        self.lab.exec(&[HATCH, "create", "--console", CHANGED])
    }

    fn make(&self, maker: Maker, name: &str, lines: &[&str]) -> Result<Output> {
        match maker {
            Maker::Xl => self.xl_create(name, lines),
            Maker::Hatch => self.hatch_create(name, lines),
        }
    }

    fn unmake(&self, maker: Maker, name: &str) -> Result<Output> {
        match maker {
            Maker::Xl => self.lab.exec(&["xl", "destroy", name]),
            Maker::Hatch => self.lab.exec(&[HATCH, "destroy", name]),
        }
    }

    /// Creates a guest.
    pub(crate) fn create(&self, name: &'static str, lines: &[&str]) -> Result<Birth<'_>> {
        self.create_by(self.maker.get(), name, lines)
    }

    /// Creates a guest with a given maker.
    pub(crate) fn create_by(
        &self,
        maker: Maker,
        name: &'static str,
        lines: &[&str],
    ) -> Result<Birth<'_>> {
        let mark = self.lab.serial_mark()?;
        let output = self.make(maker, name, lines)?;
        ensure!(
            output.success(),
            "create: exit code {}: {}",
            output.code,
            output.error_text()
        );
        let domain = self
            .lab
            .run(&["xl", "domid", name])?
            .trim()
            .parse()
            .context("xl domid gives no number")?;
        Ok(Birth {
            place: self,
            maker,
            name,
            domain,
            mark,
        })
    }

    /// Creates a guest that must be refused. Returns the maker's output.
    pub(crate) fn refused(&self, name: &str, lines: &[&str]) -> Result<String> {
        let maker = self.maker.get();
        let output = self.make(maker, name, lines)?;
        if output.success() {
            let _ = self.unmake(maker, name);
            bail!("create succeeds");
        }
        Ok(output.error_text())
    }

    /// Checks that no guest has left anything: no domain, vif, xenstore node or `xl` process that was not there at the
    /// start.
    pub(crate) fn nothing_left(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let now = traces(&self.lab)?;
            if now == self.clean {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(10) {
                let more: Vec<_> = now
                    .lines()
                    .filter(|line| !self.clean.lines().any(|l| l == *line))
                    .collect();
                let less: Vec<_> = self
                    .clean
                    .lines()
                    .filter(|line| !now.lines().any(|l| l == *line))
                    .collect();
                bail!("left behind: {more:?}; gone: {less:?}");
            }
        }
    }
}

/// A list of domains, vifs, xenstore paths and `xl` processes. A running switch's port is none of a guest's traces.
fn traces(lab: &Lab) -> Result<String> {
    // The folders that libxl, hatch and dom0's kernel (for errors) make for their first domain and keep do not count;
    // their content does.
    lab.shell(
        "xl list | awk '{ print \"domain\", $1, $2 }'; ls /sys/class/net | grep -v '^switch'; ps -o comm | grep '^xl$'; xenstore-ls -f | sed 's/ = .*//' | grep -vxE '/libxl|/vm|/hatch(/making|/name|/domain|/mac|/restart)?|/local/domain/0/(backend|error|error/backend)(/vif)?|/local/domain/0/switch' | sort",
    )
}

/// A guest; dropping it destroys it.
pub(crate) struct Birth<'a> {
    pub(crate) place: &'a Place,
    maker: Maker,
    name: &'static str,
    pub(crate) domain: u32,
    mark: u64,
}

impl Birth<'_> {
    /// Waits until the guest reports that it is ready: its first packet has been sent.
    pub(crate) fn ready(&self) -> Result<()> {
        let path = format!("/local/domain/{}/data/mayfly/ready", self.domain);
        let ready = self.place.lab.xenstore_wait(&path, BOUND);
        ready.map(drop).with_context(|| {
            let store = format!(
                "xenstore-ls -f /local/domain/{0}; xenstore-ls -f /local/domain/0/backend/vif/{0}",
                self.domain
            );
            let store = self.place.lab.shell(&store).unwrap_or_default();
            format!(
                "the guest does not get ready; it says {:?}; xenstore has:\n{store}",
                self.lines()
            )
        })
    }

    /// Queries the guest by HTTP and DNS, from the host.
    pub(crate) fn answers(&self) -> Result<()> {
        let lab = &self.place.lab;
        let (status, body) = ask::http(lab.http()?, "/", BOUND)?;
        ensure!(
            status == 200 && !body.is_empty(),
            "GET / gives {status} and {} bytes",
            body.len()
        );
        let records = ask::dns(lab.dns()?, "mayfly.test", Rtype::A, BOUND)?;
        ensure!(records.len() == 1, "mayfly.test A gives {records:?}");
        Ok(())
    }

    /// The lines that the guest has written to I/O port 0xe9.
    pub(crate) fn lines(&self) -> Vec<String> {
        let log = self.place.lab.serial_from(self.mark).unwrap_or_default();
        let prefix = format!("(d{}) ", self.domain);
        log.lines()
            .filter_map(|line| line.split_once(&prefix))
            .map(|(_, line)| line.to_owned())
            .collect()
    }

    /// The guest's console output that xenconsoled has read so far. It can be read only once.
    pub(crate) fn console(&self) -> Result<String> {
        let node = format!("/local/domain/{}/console/tty", self.domain);
        let tty = self.place.lab.run(&["xenstore-read", &node])?;
        // The terminal has no end: its reader is stopped. An unread terminal keeps 4 KiB.
        let output = self
            .place
            .lab
            .exec(&["timeout", "3", "cat", tty.trim_end()])?;
        ensure!(
            output.error_text().trim().is_empty(),
            "cat {tty}: {}",
            output.error_text()
        );
        Ok(output.text())
    }

    /// Waits for a line of the guest that contains `text`, and returns it.
    pub(crate) fn says(&self, text: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| line.contains(text)) {
                return Ok(line);
            }
            ensure!(
                start.elapsed() < BOUND,
                "the guest does not say {text:?}, but {:?}",
                self.lines()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until `xl list` shows that the domain has crashed (flag `c`) or is gone.
    pub(crate) fn becomes(&self, state: State) -> Result<()> {
        let start = Instant::now();
        loop {
            let listed = self
                .place
                .lab
                .exec(&["xl", "list", &self.domain.to_string()])?;
            let text = listed.text();
            let flags = text
                .lines()
                .last()
                .and_then(|line| line.split_whitespace().nth(4))
                .unwrap_or_default();
            let is = match state {
                State::Crashed => listed.success() && flags.contains('c'),
                State::Gone => !listed.success(),
            };
            if is {
                return Ok(());
            }
            ensure!(
                start.elapsed() < BOUND,
                "the domain does not become {state:?}: {flags}; it says {:?}",
                self.lines()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Destroys the guest with its maker.
    pub(crate) fn destroy(self) -> Result<()> {
        let output = self.place.unmake(self.maker, self.name)?;
        let text = output.error_text();
        ensure!(
            output.success(),
            "destroy: exit code {}: {text}",
            output.code
        );
        Ok(())
    }
}

/// The final state of a domain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    Crashed,
    Gone,
}

impl Drop for Birth<'_> {
    fn drop(&mut self) {
        // Destroy it by name: a rebooted guest has another number.
        let _ = self.place.unmake(self.maker, self.name);
    }
}
