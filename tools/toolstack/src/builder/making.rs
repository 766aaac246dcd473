//! The process that creates a guest, identified by its PID and start time; and the marks, as files, of guests that run
//! before xenstored is told of them.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use super::config::random_uuid;
use crate::paths;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MakingProcess {
    /// The PID.
    pub pid: u32,
    /// The start time, in clock ticks since the boot (proc(5), /proc/PID/stat, field 22).
    pub start: u64,
}

impl MakingProcess {
    /// This process.
    pub(crate) fn this() -> Self {
        static THIS: OnceLock<MakingProcess> = OnceLock::new();
        *THIS.get_or_init(|| {
            let pid = std::process::id();
            Self {
                pid,
                start: start_of(pid).unwrap_or(0),
            }
        })
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        start_of(self.pid) == Some(self.start)
    }
}

fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may contain any character.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

impl fmt::Display for MakingProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start)
    }
}

impl FromStr for MakingProcess {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start) = text.split_once(' ').ok_or(())?;
        Ok(Self {
            pid: pid.parse().map_err(drop)?,
            start: start.parse().map_err(drop)?,
        })
    }
}

/// The mark of a birth that xenstored has not been told of yet: a file named after the UUID, with the maker and, as
/// soon as there is one, the domid. Writing it costs a tenth of a request to xenstored, and there is no answer to wait
/// for.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: File,
}

impl Mark {
    /// Creates the mark, before there is a domain, so that every domain of this UUID has an owner.
    pub(super) fn leave(folder: &Path, uuid: &str) -> io::Result<Self> {
        let path = folder.join(uuid);
        let leave = || {
            let file = match File::create(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let mut builder = DirBuilder::new();
                    builder.recursive(true).mode(0o700).create(folder)?;
                    File::create(&path)
                }
                file => file,
            };
            file.and_then(|mut file| {
                file.write_all(MakingProcess::this().to_string().as_bytes())?;
                Ok(file)
            })
        };
        let file = leave().map_err(|error| {
            let path = path.display();
            io::Error::other(format!("{path}: {error}"))
        })?;
        Ok(Self { path, file })
    }

    /// Adds the domid.
    pub(super) fn name(&mut self, domid: u16) -> io::Result<()> {
        self.file.write_all(format!(" {domid}").as_bytes())
    }

    /// Removes the mark.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_mark(&self.path)
    }
}

/// A mark that was made before the birth that it will be of: a client waits for a birth, and a tenth of what it takes
/// beside Xen's work is the file. It is removed if it is not used.
pub(super) struct SpareMark {
    uuid: [u8; 16],
    mark: Option<Mark>,
}

impl SpareMark {
    /// Makes the mark of a new UUID.
    pub(super) fn leave(folder: &Path) -> io::Result<Self> {
        let uuid = random_uuid()?;
        let mark = Some(Mark::leave(folder, &paths::uuid(&uuid))?);
        Ok(Self { uuid, mark })
    }

    /// Its UUID.
    pub(super) fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// The mark, for a birth of its UUID.
    pub(super) fn used(mut self) -> Option<Mark> {
        self.mark.take()
    }
}

impl Drop for SpareMark {
    fn drop(&mut self) {
        if let Some(mark) = &self.mark {
            // `hatch gc` finds it if this fails.
            let _ = mark.remove();
        }
    }
}

/// Removes a mark, if it exists.
pub(crate) fn remove_mark(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The contents of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) maker: MakingProcess,
    pub(crate) domid: Option<u16>,
}

impl FromStr for Marked {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.splitn(3, ' ');
        let (Some(pid), Some(start), domid) = (words.next(), words.next(), words.next()) else {
            return Err(());
        };
        Ok(Self {
            maker: format!("{pid} {start}").parse()?,
            domid: domid.map(str::parse).transpose().map_err(drop)?,
        })
    }
}

/// All marks, by UUID, with their contents; `None` for contents that cannot be parsed.
pub(crate) fn marks(folder: &Path) -> io::Result<Vec<(String, Option<Marked>)>> {
    let files = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut all = Vec::new();
    for file in files {
        let file = file?;
        match std::fs::read_to_string(file.path()) {
            // Removed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            text => {
                let name = file.file_name().to_string_lossy().into_owned();
                all.push((name, text.ok().and_then(|text| text.parse().ok())));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_mark_is_there_until_it_is_dropped_or_used() {
        let folder = tempfile::tempdir().unwrap();
        let count = || marks(folder.path()).unwrap().len();
        let spare = SpareMark::leave(folder.path()).unwrap();
        assert_eq!(count(), 1);
        drop(spare);
        assert_eq!(count(), 0);
        let spare = SpareMark::leave(folder.path()).unwrap();
        let uuid = paths::uuid(&spare.uuid());
        let mut mark = spare.used().unwrap();
        mark.name(7).unwrap();
        let all = marks(folder.path()).unwrap();
        assert!(
            matches!(all.as_slice(), [(name, Some(marked))] if *name == uuid && marked.domid == Some(7))
        );
    }

    #[test]
    fn a_mark_says_who_and_then_which() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("making");
        assert_eq!(marks(&folder).unwrap(), []);
        let mut mark = Mark::leave(&folder, "uuid").unwrap();
        let maker = MakingProcess::this();
        let said = |domid| vec![("uuid".to_owned(), Some(Marked { maker, domid }))];
        assert_eq!(marks(&folder).unwrap(), said(None));
        mark.name(7).unwrap();
        assert_eq!(marks(&folder).unwrap(), said(Some(7)));
        for odd in ["", "1", "1 2 x", "1 2 70000", "x 2 3", "1 2 3 4"] {
            std::fs::write(folder.join("odd"), odd).unwrap();
            let all = marks(&folder).unwrap();
            assert!(all.contains(&("odd".to_owned(), None)), "{odd:?}");
        }
        mark.remove().unwrap();
        assert_eq!(marks(&folder).unwrap().len(), 1);
    }

    #[test]
    fn this_process_runs_and_one_of_another_time_does_not() {
        let this = MakingProcess::this();
        assert!(this.start > 0 && this.runs());
        assert_eq!(this.to_string().parse(), Ok(this));
        assert!(
            !MakingProcess {
                start: this.start + 1,
                ..this
            }
            .runs()
        );
        assert!("1".parse::<MakingProcess>().is_err());
    }
}
