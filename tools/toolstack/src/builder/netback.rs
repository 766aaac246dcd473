//! The scheduling of netback's kernel threads, of which each queue of a guest has two.
//!
//! By default such a thread takes the CPU as soon as there is one frame. With `SCHED_BATCH` (sched(7)) it runs when those
//! who send have sent all they have, and so moves more frames at a time.

use std::fs;
use std::path::Path;

use mayfly_links::vif_name;
use mayfly_xen::schedule;

/// The folder of proc(5).
pub(super) const PROC: &str = "/proc";
/// The most processes that are looked at. The threads are among the newest ones.
const LOOKED_AT: i32 = 256;
/// The beginnings of the names of the two threads of a queue: `vif1.0-q0-guest-rx`, `vif1.0-q0-dealloc`. Older kernels
/// cut names after 15 bytes.
const KINDS: [&str; 2] = ["g", "d"];

/// The scheduling of netback's threads of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NetbackThreads {
    /// They do not take the CPU from others when they wake.
    #[default]
    Batch,
    /// As the kernel has made them.
    Normal,
}

impl std::str::FromStr for NetbackThreads {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "batch" => Ok(Self::Batch),
            "normal" => Ok(Self::Normal),
            _ => Err(()),
        }
    }
}

/// Schedules netback's threads of a guest whose interface was just connected. A thread that is not found stays as it is:
/// the guest is served all the same.
pub(super) fn apply(scheduling: NetbackThreads, proc: &Path, domid: u16) {
    if scheduling == NetbackThreads::Normal {
        return;
    }
    for thread in threads(proc, domid) {
        // It has ended with its guest, or belongs to a user that we are not.
        let _ = schedule::batch(Some(thread));
    }
}

/// The threads of a guest's first interface, the newest first.
fn threads(proc: &Path, domid: u16) -> Vec<i32> {
    let vif = vif_name(domid, 0);
    // The last field is the newest process.
    let load = fs::read_to_string(proc.join("loadavg")).unwrap_or_default();
    let newest = load.split_whitespace().next_back();
    let newest: i32 = newest.and_then(|pid| pid.parse().ok()).unwrap_or(0);
    let mut found = Vec::new();
    let mut first_queue = 0;
    for pid in (1..=newest).rev().take(LOOKED_AT as usize) {
        let Ok(name) = fs::read_to_string(proc.join(format!("{pid}/comm"))) else {
            continue;
        };
        let queue = name
            .strip_prefix(&vif)
            .and_then(|rest| rest.strip_prefix("-q"));
        let Some((queue, kind)) = queue.and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if KINDS.iter().any(|beginning| kind.starts_with(beginning)) {
            found.push(pid);
            first_queue += usize::from(queue == "0");
        }
        // The kernel makes those of the first queue first.
        if first_queue == KINDS.len() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc(names: &[(i32, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let newest = names.iter().map(|(pid, _)| *pid).max().unwrap_or(0);
        let load = format!("0.00 0.01 0.05 1/100 {newest}\n");
        fs::write(folder.path().join("loadavg"), load).unwrap();
        for (pid, name) in names {
            let own = folder.path().join(pid.to_string());
            fs::create_dir(&own).unwrap();
            fs::write(own.join("comm"), format!("{name}\n")).unwrap();
        }
        folder
    }

    #[test]
    fn all_threads_of_a_guest_are_found_and_no_others() {
        let folder = proc(&[
            (1, "init"),
            (20, "vif12.0-q0-guest-rx"),
            (40, "vif1.0-q0-guest-rx"),
            (41, "vif1.0-q0-dealloc"),
            (42, "vif1.0-q1-guest-rx"),
            (43, "vif1.0-q1-deallo"),
            (44, "vif1.0-control"),
            (45, "vif1.1-q0-guest-rx"),
            (46, "vif12.0-q0-dealloc"),
            (50, "hatch"),
        ]);
        assert_eq!(threads(folder.path(), 1), [43, 42, 41, 40]);
        assert_eq!(threads(folder.path(), 12), [46, 20]);
        assert_eq!(threads(folder.path(), 2), [0; 0]);
        // Names that an older kernel has cut.
        let cut = proc(&[(7, "vif12345.0-q0-g"), (8, "vif12345.0-q0-d")]);
        assert_eq!(threads(cut.path(), 12345), [8, 7]);
    }

    #[test]
    fn what_is_long_ago_is_not_looked_for() {
        let folder = proc(&[(7, "vif1.0-q0-guest-rx"), (7 + LOOKED_AT, "hatch")]);
        assert_eq!(threads(folder.path(), 1), [0; 0]);
        assert_eq!(threads(Path::new("/nowhere"), 1), [0; 0]);
    }
}
