//! `rate=` of a vif (xl-network-configuration(5)): `10Mb/s@20ms`.

/// The default of `vif_parse_rate_interval_usecs`, in microseconds.
const INTERVAL_US: u64 = 50_000;

/// The value of netback's `rate`: the bytes per interval and the interval in microseconds, `BYTES,USECS`.
pub(super) fn parse(text: &str) -> Option<String> {
    let (rate, interval) = match text.split_once('@') {
        Some((rate, interval)) => (rate, Some(interval)),
        None => (text, None),
    };
    let (count, unit) = number(rate)?;
    let unit = unit.strip_suffix("/s")?;
    let (factor, unit) = match unit.as_bytes() {
        [b'G', rest @ ..] => (1_000_000_000, rest),
        [b'M', rest @ ..] => (1_000_000, rest),
        [b'K', rest @ ..] => (1000, rest),
        rest => (1, rest),
    };
    let per_second = count.checked_mul(factor)?;
    let per_second = match unit {
        b"B" => per_second,
        b"b" => per_second / 8,
        _ => return None,
    };
    let interval = match interval.map(number) {
        None => INTERVAL_US,
        Some(parsed) => {
            let (count, unit) = parsed?;
            let factor = match unit {
                "us" | "u" => 1,
                "ms" | "m" => 1000,
                "s" | "" => 1_000_000,
                _ => return None,
            };
            count
                .checked_mul(factor)
                .filter(|us| u32::try_from(*us).is_ok())?
        }
    };
    let bytes = per_second.checked_mul(interval)? / 1_000_000;
    Some(format!("{bytes},{interval}"))
}

/// A number between 1 and 2^32-1, and the text after it.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number: u32 = digits.parse().ok().filter(|number| *number > 0)?;
    Some((u64::from(number), rest))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn rates() {
        // The examples of xl-network-configuration(5).
        for (text, expected) in [
            ("10Mb/s", Some("62500,50000")),
            ("250KB/s", Some("12500,50000")),
            ("1MB/s@20ms", Some("20000,20000")),
            ("8b/s@1s", Some("1,1000000")),
            ("4294967295GB/s@4294s", None),
            ("", None),
            ("10", None),
            ("10Mb", None),
            ("Mb/s", None),
            ("0Mb/s", None),
            ("10Xb/s", None),
            ("10Mb/s@", None),
            ("10Mb/s@4295s", None),
            ("-1Mb/s", None),
        ] {
            assert_eq!(parse(text).as_deref(), expected, "{text}");
        }
    }
}
