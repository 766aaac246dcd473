//! Calendar dates for HTTP (RFC 9110 section 5.6.7).

const DAYS: &[u8; 21] = b"SunMonTueWedThuFriSat";
const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// The length of an IMF-fixdate in bytes.
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

/// Seconds since 1970-01-01T00:00:00Z of a date in any of the three forms that a recipient must accept; 0 for a date
/// before then.
///
/// A year of two digits is never more than 50 years after `unix_seconds`.
#[must_use]
pub fn parse_http_date(text: &[u8], unix_seconds: u64) -> Option<u64> {
    let comma = text.iter().position(|&byte| byte == b',');
    let (name, rest) = text.split_at_checked(comma.unwrap_or(3))?;
    let day_names = DAYS.chunks_exact(3);
    day_names.into_iter().find(|&day| name.starts_with(day))?;
    let (year, month, day, time) = match (name.len(), rest) {
        // Sun, 06 Nov 1994 08:49:37 GMT
        (3, [b',', b' ', d, e, b' ', month @ .., b' ', b'G', b'M', b'T']) => {
            let (month, rest) = month.split_first_chunk::<3>()?;
            let [b' ', y, e0, a, r, b' ', time @ ..] = rest else {
                return None;
            };
            (number(&[*y, *e0, *a, *r])?, month, number(&[*d, *e])?, time)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        (6..=9, [b',', b' ', d, e, b'-', month @ .., b' ', b'G', b'M', b'T']) => {
            let (month, rest) = month.split_first_chunk::<3>()?;
            let [b'-', y, e0, b' ', time @ ..] = rest else {
                return None;
            };
            let latest = civil(unix_seconds.min(LAST) / 86_400).0 + 50;
            let short = number(&[*y, *e0])?;
            // The last year with these two digits that is not after the latest.
            let year = latest - (latest + 100 - short) % 100;
            (year, month, number(&[*d, *e])?, time)
        }
        // Sun Nov  6 08:49:37 1994
        (3, [b' ', month @ .., b' ', y, e0, a, r]) => {
            let (month, rest) = month.split_first_chunk::<3>()?;
            let [b' ', d, e, b' ', time @ ..] = rest else {
                return None;
            };
            let tens = if *d == b' ' { b'0' } else { *d };
            (
                number(&[*y, *e0, *a, *r])?,
                month,
                number(&[tens, *e])?,
                time,
            )
        }
        _ => return None,
    };
    let month = MONTHS.chunks_exact(3).position(|name| name == month)?;
    let [h, o, b':', m, i, b':', s, e] = time else {
        return None;
    };
    let (hour, minute, second) = (number(&[*h, *o])?, number(&[*m, *i])?, number(&[*s, *e])?);
    // A minute may have a leap second, so 60 is valid.
    if day == 0 || day > 31 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(
        days(year, u64::try_from(month).ok()? + 1, day)? * 86_400
            + hour * 3600
            + minute * 60
            + second,
    )
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
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

/// The day of a date, counted from 1970-01-01; 0 for an earlier date. The inverse of [`civil`].
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 {
        return Some(0);
    }
    let march_year = year - u64::from(month <= 2);
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let leap_days = march_year / 4 - march_year / 100 + march_year / 400;
    let days = (march_year * 365 + leap_days + day_of_year).checked_sub(719_468)?;
    (civil(days) == (year, month, day)).then_some(days)
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
        if let Some(byte) = text.get_mut(at + offset) {
            *byte = b'0' + u8::try_from(digit).unwrap_or(0);
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

    #[test]
    fn dates_of_all_forms() {
        const NOW: u64 = 1_767_225_600;
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Wed Nov 16 08:49:37 1994", Some(784_975_777)),
            ("Wednesday, 01-Jan-70 00:00:00 GMT", Some(3_155_760_000)),
            // 50 years from now at most: 2076, then 1977.
            ("Wednesday, 01-Jan-76 00:00:00 GMT", Some(3_345_062_400)),
            ("Saturday, 01-Jan-77 00:00:00 GMT", Some(220_924_800)),
            ("Thu, 29 Feb 1996 23:59:60 GMT", Some(825_638_400)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(LAST)),
            ("Mon, 01 Jan 1900 00:00:00 GMT", Some(0)),
            ("Fri, 29 Feb 1997 00:00:00 GMT", None),
            ("Fri, 31 Apr 1997 00:00:00 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:60:37 GMT", None),
            ("Sun, 06 nov 1994 08:49:37 GMT", None),
            ("Sun, 6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Xyz, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun 06 Nov 1994 08:49:37 GMT", None),
            ("1994-11-06T08:49:37Z", None),
            ("784111777", None),
            ("", None),
        ] {
            assert_eq!(parse_http_date(text.as_bytes(), NOW), expected, "{text}");
        }
    }

    /// Walks every day of 800 years with the calendar's own rules.
    #[test]
    fn every_day() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(civil(days), (year, month, day));
            assert_eq!(super::days(year, month, day), Some(days));
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
