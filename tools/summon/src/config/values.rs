//! Reads the values that `[daemon]` and `[[services]]` share.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr as _;
use std::time::Duration;

use bytes::Bytes;
use domain::base::Name;
use serde::de::DeserializeOwned;

use super::table::{FileTable, FoundValue};
use super::{NetbackThreads, Network, OnChange};
use mayfly_links::check_name;
use mayfly_toolstack::config::{ConfigProblems, shown};

/// The longest time in seconds: more than a year is a mistake.
const TIME_MAX: f64 = 366.0 * 86400.0;

pub(super) fn value<T>(found: Option<FoundValue<T>>) -> Option<T> {
    found.map(|found| found.value)
}

/// Reads a number and checks its bounds.
pub(super) fn number<T: DeserializeOwned + PartialOrd + Display>(
    table: &mut FileTable<'_>,
    key: &'static str,
    range: RangeInclusive<T>,
    usual: T,
    problems: &mut ConfigProblems,
) -> T {
    let Some(FoundValue { value, line }) = table.get::<T>(key, problems) else {
        return usual;
    };
    if range.contains(&value) {
        return value;
    }
    let (least, most) = (range.start(), range.end());
    problems.add(line, format!("{key}: {value} is not {least} to {most}"));
    usual
}

/// Reads a time in seconds, with or without a fraction.
pub(super) fn seconds(
    table: &mut FileTable<'_>,
    key: &'static str,
    problems: &mut ConfigProblems,
) -> Option<FoundValue<Duration>> {
    let FoundValue { value, line } = table.get::<f64>(key, problems)?;
    if !(0.0..=TIME_MAX).contains(&value) {
        problems.add(
            line,
            format!("{key}: {value} is not a time in seconds, like 60 or 2.5"),
        );
        return None;
    }
    let value = Duration::from_secs_f64(value);
    Some(FoundValue { value, line })
}

/// Reads the name of a bridge.
pub(super) fn bridge(table: &mut FileTable<'_>, problems: &mut ConfigProblems) -> Option<String> {
    let FoundValue { value, line } = table.get::<String>("bridge", problems)?;
    if let Err(error) = check_name(&value) {
        problems.add(line, format!("bridge: {error}"));
        return None;
    }
    Some(value)
}

/// Reads `network`.
pub(super) fn network(
    table: &mut FileTable<'_>,
    problems: &mut ConfigProblems,
) -> Option<FoundValue<Network>> {
    let FoundValue { value, line } = table.get::<String>("network", problems)?;
    let value = match value.as_str() {
        "netback" => Network::Netback,
        "switch" => Network::Switch,
        other => {
            let what = format!(
                r#"network: {} is unknown; "netback" and "switch" are possible"#,
                shown(other)
            );
            problems.add(line, what);
            return None;
        }
    };
    Some(FoundValue { value, line })
}

/// Reads `netback_threads`.
pub(super) fn netback_threads(
    table: &mut FileTable<'_>,
    problems: &mut ConfigProblems,
) -> NetbackThreads {
    let Some(FoundValue { value, line }) = table.get::<String>("netback_threads", problems) else {
        return NetbackThreads::default();
    };
    value.parse().unwrap_or_else(|()| {
        let what = format!(
            r#"netback_threads: {} is unknown; "batch" and "normal" are possible"#,
            shown(&value)
        );
        problems.add(line, what);
        NetbackThreads::default()
    })
}

/// Reads `on_change`.
pub(super) fn on_change(
    table: &mut FileTable<'_>,
    usual: OnChange,
    problems: &mut ConfigProblems,
) -> OnChange {
    let Some(FoundValue { value, line }) = table.get::<String>("on_change", problems) else {
        return usual;
    };
    match value.as_str() {
        "keep" => OnChange::Keep,
        "restart when idle" => OnChange::RestartWhenIdle,
        other => {
            let other = shown(other);
            let what = format!(
                r#"on_change: {other} is unknown; "keep" and "restart when idle" are possible"#
            );
            problems.add(line, what);
            usual
        }
    }
}

/// Reads the name of a host or zone, and converts it to lower case (RFC 1123 section 2.1, and underscores).
pub(super) fn name(
    key: &str,
    found: &FoundValue<String>,
    problems: &mut ConfigProblems,
) -> Option<FoundValue<Name<Bytes>>> {
    let lower = found.value.to_ascii_lowercase();
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name = Name::<Bytes>::from_str(&lower).ok();
    let name = name.filter(|name| !name.is_root() && lower.bytes().all(is_legal));
    let Some(value) = name else {
        let what = format!(
            "{key}: {} is not a host name, like www.example.test",
            shown(&found.value)
        );
        problems.add(found.line, what);
        return None;
    };
    let line = found.line;
    Some(FoundValue { value, line })
}
