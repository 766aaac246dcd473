//! Calendar dates for HTTP: IMF-fixdate of RFC 9110 section 5.6.7.

const DAYS: &[u8; 21] = b"SunMonTueWedThuFriSat";
const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// Octets in an IMF-fixdate.
pub const IMF_FIXDATE_LEN: usize = 29;

/// The last second of the year 9999: an IMF-fixdate has four digits for the year.
const LAST: u64 = 253_402_300_799;

/// Formats seconds since 1970-01-01T00:00:00Z, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// A time after the year 9999 is given as its last second.
#[must_use]
pub fn imf_fixdate(unix_seconds: u64) -> [u8; IMF_FIXDATE_LEN] {
    let seconds = unix_seconds.min(LAST);
    let days = seconds / 86_400;
    let (year, month, day) = civil(days);
    let mut text = *b"Day, 00 Mon 0000 00:00:00 GMT";
    // 1970-01-01 was a Thursday.
    copy_triple(&mut text, 0, DAYS, (days + 4) % 7);
    copy_triple(&mut text, 8, MONTHS, month - 1);
    digits(&mut text, 5, day);
    digits(&mut text, 12, year / 100);
    digits(&mut text, 14, year % 100);
    digits(&mut text, 17, seconds / 3600 % 24);
    digits(&mut text, 20, seconds / 60 % 60);
    digits(&mut text, 23, seconds % 60);
    text
}

/// The proleptic Gregorian date (year, month 1 to 12, day 1 to 31) of a day counted from 1970-01-01.
///
/// Years are taken to begin in March, so that the leap day is the last of its year and the month
/// lengths follow one line; eras of 400 years have a fixed number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0 = days + 719_468;
    let era = since_march_0 / 146_097;
    let day_of_era = since_march_0 % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn copy_triple(text: &mut [u8; IMF_FIXDATE_LEN], at: usize, names: &[u8], index: u64) {
    let name = names
        .chunks_exact(3)
        .nth(usize::try_from(index).unwrap_or(0));
    if let (Some(to), Some(from)) = (text.get_mut(at..at + 3), name) {
        to.copy_from_slice(from);
    }
}

fn digits(text: &mut [u8; IMF_FIXDATE_LEN], at: usize, value: u64) {
    for (offset, digit) in [(0, value / 10 % 10), (1, value % 10)] {
        if let Some(octet) = text.get_mut(at + offset) {
            *octet = b'0' + u8::try_from(digit).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        // From `date -u -d @N`.
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_767_225_600, "Thu, 01 Jan 2026 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (LAST, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(core::str::from_utf8(&imf_fixdate(seconds)), Ok(expected));
        }
    }

    /// Walks every day of 800 years with the calendar's own rules.
    #[test]
    fn every_day() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
