//! Times: TTLs and intervals with units, and the dates of signatures.

/// Parses a time in seconds, which may have units as in `1w2d3h4m5s`, in any case.
pub(crate) fn seconds(text: &[u8]) -> Option<u32> {
    let mut all = 0_u32;
    let mut number: Option<u32> = None;
    for byte in text {
        if byte.is_ascii_digit() {
            let digit = u32::from(byte - b'0');
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match byte.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        all = all.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    if text.is_empty() {
        return None;
    }
    all.checked_add(number.unwrap_or(0))
}

/// Parses the date of a signature: `YYYYMMDDHHmmSS` in UTC, or seconds since 1970 (RFC 4034 section 3.2). It is kept
/// modulo 2^32.
pub(crate) fn date(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if text.len() != 14 {
        return text.parse().ok();
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    let days = days(year, month, day)?;
    let in_day = hour < 24 && minute < 60 && second < 60;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    u32::try_from(seconds.rem_euclid(1 << 32))
        .ok()
        .filter(|_| in_day && year >= 1970)
}

/// The number of days from 1970 to a date, if the date exists.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [
        31,
        28 + i64::from(leap),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let month = usize::try_from(month).ok()?.checked_sub(1)?;
    let length = *lengths.get(month)?;
    if !(1..=length).contains(&day) {
        return None;
    }
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400;
    // From 1 January of the year 1 to 1970 there are 719,162 days.
    let years = before * 365 + leaps - 719_162;
    Some(years + lengths[..month].iter().sum::<i64>() + day - 1)
}

/// Formats seconds since 1970 as `YYYYMMDDHHmmSS`.
pub(crate) fn shown(seconds: u32) -> String {
    let day = i64::from(seconds / 86_400);
    let clock = seconds % 86_400;
    let first_of = |year| days(year, 1, 1).unwrap_or(i64::MAX);
    let mut year = 1970 + day / 366;
    while first_of(year + 1) <= day {
        year += 1;
    }
    let mut month = 12;
    while days(year, month, 1).is_some_and(|first| first > day) {
        month -= 1;
    }
    let day = day - days(year, month, 1).unwrap_or(day) + 1;
    format!(
        "{year:04}{month:02}{day:02}{:02}{:02}{:02}",
        clock / 3600,
        clock / 60 % 60,
        clock % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("300", Some(300)),
            ("1h", Some(3600)),
            ("1W2D3H4M5S", Some(788_645)),
            ("1h30", Some(3630)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("99999999w", None),
            ("", None),
            ("h", None),
            ("1hh", None),
            ("1x", None),
            ("-1", None),
            ("+1", None),
            ("1.5h", None),
        ] {
            assert_eq!(seconds(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn dates() {
        for (text, wanted) in [
            ("19700101000000", Some(0)),
            ("20000229120000", Some(951_825_600)),
            ("20260101000000", Some(1_767_225_600)),
            ("21060207062815", Some(u32::MAX)),
            ("21060207062816", Some(0)),
            ("1767225600", Some(1_767_225_600)),
            ("20010229000000", None),
            ("20011301000000", None),
            ("20010100000000", None),
            ("20010101240000", None),
            ("20010101006000", None),
            ("4294967296", None),
            ("", None),
            ("2001010100000x", None),
        ] {
            assert_eq!(date(text), wanted, "{text}");
        }
        for seconds in (0..=u32::MAX).step_by(86_399 * 13).chain([u32::MAX]) {
            assert_eq!(date(&shown(seconds)), Some(seconds), "{seconds}");
        }
    }
}
