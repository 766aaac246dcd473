//! The status as a table for a terminal, and the formats of its figures.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{ServiceStatus, SummonStatus};

/// The names of the columns of [`cells`].
pub(super) const COLUMNS: [&str; 11] = [
    "Service",
    "State",
    "Back end",
    "ID",
    "Up",
    "Births",
    "Failures",
    "Last birth",
    "MiB",
    "Requests",
    "Trouble",
];

/// The table with a line of totals below it, for a terminal of this width.
#[must_use]
pub fn table(status: &SummonStatus, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(COLUMNS);
    if let Some(width) = width {
        table
            .set_width(width)
            .set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    }
    for service in &status.services {
        let aligned = cells(service).into_iter().enumerate().map(|(index, text)| {
            let is_number = (3..10).contains(&index);
            let alignment = if is_number {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            };
            Cell::new(text).set_alignment(alignment)
        });
        table.add_row(aligned);
    }
    let totals = &status.totals;
    let lines: Vec<_> = table
        .lines()
        .map(|line| {
            line.strip_prefix(' ')
                .unwrap_or(&line)
                .trim_end()
                .to_owned()
        })
        .collect();
    format!(
        "{}\n\n{} of {} run in {} MiB, {} wait for room, {} are ready in the pool; up for {}",
        lines.join("\n"),
        totals.running,
        status.services.len(),
        totals.memory,
        totals.queued,
        totals.pool,
        time(status.uptime_ms)
    )
}

/// The row of a service.
pub(super) fn cells(service: &ServiceStatus) -> [String; 11] {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    [
        printable(&service.name),
        service.state.as_str().to_owned(),
        service.back_end().as_str().to_owned(),
        or_none(service.domid.map(|domid| domid.to_string())),
        or_none(service.uptime_ms.map(time)),
        service.births.to_string(),
        service.failures.to_string(),
        or_none(service.last_boot_us().map(micros)),
        service.memory.to_string(),
        or_none(service.requests.map(|requests| requests.to_string())),
        or_none(service.last_trouble.as_deref().map(printable)),
    ]
}

/// Text for a terminal, without control characters, which could come from others.
fn printable(text: &str) -> String {
    let visible = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(visible).collect()
}

/// A time with three digits, from microseconds.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{}.{:02} ms", us / 1000, us % 1000 / 10),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

/// A time in its two largest units, from milliseconds.
pub(super) fn time(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}.{} s", ms % 1000 / 100),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}
