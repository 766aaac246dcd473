//! The process that creates a guest, identified by its number and start time.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maker {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the boot (proc(5), /proc/PID/stat, field 22).
    pub start: u64,
}

impl Maker {
    /// This process.
    pub(crate) fn this() -> Self {
        static THIS: OnceLock<Maker> = OnceLock::new();
        *THIS.get_or_init(|| {
            let pid = std::process::id();
            Self {
                pid,
                start: start_of(pid).unwrap_or(0),
            }
        })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        start_of(self.pid) == Some(self.start)
    }
}

fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start)
    }
}

impl FromStr for Maker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start) = text.split_once(' ').ok_or(())?;
        Ok(Self {
            pid: pid.parse().map_err(drop)?,
            start: start.parse().map_err(drop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_of_another_time_does_not() {
        let this = Maker::this();
        assert!(this.start > 0 && this.runs());
        assert_eq!(this.to_string().parse(), Ok(this));
        assert!(
            !Maker {
                start: this.start + 1,
                ..this
            }
            .runs()
        );
        assert!("1".parse::<Maker>().is_err());
    }
}
