//! Decides which modification times can be trusted.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::config::Config;
use super::scan::Found;

/// 2 January 1980. Package managers and archives without dates set them to 0 or 1, or to the first day that ZIP can
/// express.
const FORGOTTEN: u64 = 315_619_200;

/// Sets to 0 the dates that do not tell when a file's content changed, so that no client is served by a wrong
/// `Last-Modified` (RFC 9110 sections 8.8.2 and 13.1.5). These are dates before 1980 and in the future; dates from `epoch`
/// on, because reproducible builds replace later ones by it (`SOURCE_DATE_EPOCH`); and all dates, if they are the same
/// whole second, as after such a build.
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
            None if !one && (FORGOTTEN..=most).contains(date) && Some(*date) != epoch => {}
            _ => *date = 0,
        }
    }
}
