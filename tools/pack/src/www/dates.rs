//! Decides which modification times can be trusted.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::config::Config;
use super::scan::Found;

/// 2 January 1980: package managers and archives that forget dates set them to 0 or 1, or to the first day that ZIP knows.
const FORGOTTEN: u64 = 315_619_200;

/// Sets to 0 the dates that say nothing of a file's content, so that nobody is told `Last-Modified` and served by it
/// (RFC 9110 sections 8.8.2 and 13.1.5): those of before 1980 and of the future; those after `epoch`, in whose place reproducible
/// builds have it (`SOURCE_DATE_EPOCH`); and all of them if they are one and the same whole second, as after such a build.
pub(super) fn forget(files: &mut [Found], config: &Config, epoch: Option<u64>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let most = now.min(epoch.unwrap_or(u64::MAX));
    let first = files.first().map(|file| file.modified);
    let one = files
        .iter()
        .all(|file| Some(file.modified) == first && file.modified.nanoseconds == 0);
    for file in files {
        let date = &mut file.modified.seconds;
        match config.last_modified {
            Some(true) => *date = (*date).min(most),
            None if !one && (FORGOTTEN..=most).contains(date) => {}
            _ => *date = 0,
        }
    }
}
