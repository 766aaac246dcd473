//! Draws a measurement: the time of one birth, and the distribution of all.

use anyhow::{Context, Result, ensure};
use mayfly_stamp::{Birth, Report};
use plotters::prelude::*;
use serde_json::Value;

use super::figures::{ms, number};
use super::job::Subject;

const WIDTH: u32 = 1200;
const ROW: u32 = 22;
/// The height of the title, the axis and the axis's name.
const FRAME: u32 = 90;
/// The width of the rows' names.
const NAMES: u32 = 230;

/// A step that took time, in ms since the beginning.
pub(super) struct Bar {
    pub(super) who: String,
    pub(super) what: String,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// A title, and the parts of one time.
pub(super) type Fall = (String, Vec<Bar>);

/// All samples of one kind, in ms.
pub(super) type Samples = (String, Vec<f64>);

/// Draws the waterfall of the last birth of each subject that has a timeline, and the distribution of all births.
///
/// # Errors
/// The errors of drawing.
pub(super) fn births(subjects: &[Subject], report: &Report, unit: &str) -> Result<String> {
    let mut falls = Vec::new();
    let mut all = Vec::new();
    for subject in subjects {
        let label = subject.label();
        let plain = |birth: &&Birth| birth.guest == label && birth.traced.is_none();
        if let Some(birth) = report.births.iter().rev().find(plain)
            && birth.making.is_some()
        {
            falls.push((format!("one birth: {label}"), bars(birth, report.tsc_hz)?));
        }
        let plain = report.births.iter().filter(plain).skip(1);
        let whole = plain.map(|birth| ms(birth.whole(), report.tsc_hz));
        all.push((label.clone(), whole.collect()));
    }
    draw(
        &falls,
        "from nothing until it has answered, each birth",
        &all,
        unit,
    )
}

/// Draws waterfalls, and below them all samples under a title.
///
/// # Errors
/// No samples; the errors of drawing.
pub(super) fn draw(falls: &[Fall], title: &str, all: &[Samples], unit: &str) -> Result<String> {
    let rows = |count: usize| u32::try_from(count).unwrap_or(1) * ROW + FRAME;
    let heights: Vec<u32> = falls.iter().map(|(_, bars)| rows(bars.len())).collect();
    let height = heights.iter().sum::<u32>() + rows(all.len());
    let mut svg = String::new();
    {
        let page = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        page.fill(&WHITE)?;
        let mut rest = page;
        for ((title, bars), height) in falls.iter().zip(heights) {
            let (area, below) = rest.split_vertically(height);
            waterfall(&area, title, bars, unit)?;
            rest = below;
        }
        distribution(&rest, title, all, unit)?;
        rest.present()?;
    }
    Ok(svg)
}

/// The parts of a birth's time. The maker's times are aligned with its end, the guest's with its unpausing; the work of
/// the measuring program between the two is left out.
fn bars(birth: &Birth, tsc_hz: u64) -> Result<Vec<Bar>> {
    let created = ms(birth.created - birth.create, tsc_hz);
    let bar = |who: &str, what: &str, from: f64, to: f64| Bar {
        who: who.into(),
        what: what.into(),
        from,
        to,
    };
    let mut bars = vec![bar("maker", "the whole program", 0.0, created)];
    let making = birth.making.as_ref().context("nothing was said")?;
    let timeline = &making["timeline"];
    let ns = |value: &Value, name: &str| {
        let ns = value[name].as_u64();
        ns.map(|ns| number(ns) / 1e6)
            .with_context(|| format!("the maker's timeline has no {name}"))
    };
    let start = created - ns(timeline, "total_ns")?;
    for span in timeline["spans"].as_array().into_iter().flatten() {
        let text = |name: &str| span[name].as_str().unwrap_or("?");
        bars.push(bar(
            text("who"),
            text("what"),
            start + ns(span, "start_ns")?,
            start + ns(span, "end_ns")?,
        ));
    }
    let since = |tick: u64| created + ms(tick.saturating_sub(birth.unpause), tsc_hz);
    let mut before = created;
    for event in birth
        .timeline
        .iter()
        .flat_map(|t| t["events"].as_array())
        .flatten()
    {
        let at = created + ns(event, "ns")?;
        bars.push(bar(
            "guest",
            event["phase"].as_str().unwrap_or("?"),
            before,
            at,
        ));
        before = at;
    }
    for (what, tick) in [
        ("first frame", birth.first_frame),
        ("SYN-ACK", birth.syn_ack),
        ("first HTTP byte", Some(birth.ready)),
    ] {
        if let Some(tick) = tick {
            bars.push(bar("client", what, created, since(tick)));
        }
    }
    Ok(bars)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn waterfall(area: &Area<'_>, title: &str, bars: &[Bar], unit: &str) -> Result<()> {
    let end = bars.iter().map(|bar| bar.to).fold(0.0, f64::max) * 1.02;
    let count = i32::try_from(bars.len())?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..end, (0..count).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(row) => usize::try_from(count - 1 - row)
            .ok()
            .and_then(|row| bars.get(row))
            .map_or(String::new(), |bar| format!("{}: {}", bar.who, bar.what)),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .x_desc(unit)
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_formatter(&name)
        .draw()?;
    chart.draw_series(bars.iter().zip((0..count).rev()).map(|(bar, row)| {
        let colour = match bar.who.as_str() {
            "hatch" | "daemon" => BLUE.mix(0.7),
            "guest" => GREEN.mix(0.7),
            "client" | "seen" => RED.mix(0.6),
            "netback" => MAGENTA.mix(0.5),
            _ => BLACK.mix(0.3),
        };
        let corners = [
            (bar.from, SegmentValue::Exact(row)),
            (bar.to, SegmentValue::Exact(row + 1)),
        ];
        let mut bar = Rectangle::new(corners, colour.filled());
        bar.set_margin(3, 3, 0, 0);
        bar
    }))?;
    Ok(())
}

fn distribution(area: &Area<'_>, title: &str, all: &[Samples], unit: &str) -> Result<()> {
    let count = i32::try_from(all.len())?;
    let points = all.iter().zip((0..count).rev());
    let points: Vec<(i32, f64)> = points
        .flat_map(|((_, samples), row)| samples.iter().map(move |ms| (row, *ms)))
        .collect();
    ensure!(!points.is_empty(), "nothing was measured");
    let least = points.iter().map(|(_, ms)| *ms).fold(f64::MAX, f64::min);
    let most = points.iter().map(|(_, ms)| *ms).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(
            (least * 0.8..most * 1.2).log_scale(),
            (0..count).into_segmented(),
        )?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(row) => usize::try_from(count - 1 - row)
            .ok()
            .and_then(|row| all.get(row))
            .map_or(String::new(), |(name, _)| name.clone()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .x_desc(unit)
        .y_labels(all.len())
        .y_label_formatter(&name)
        .draw()?;
    chart.draw_series(points.iter().map(|(row, ms)| {
        Circle::new(
            (*ms, SegmentValue::CenterOf(*row)),
            3,
            BLUE.mix(0.5).filled(),
        )
    }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::figures::tests::report;
    use super::super::job::{By, Kind};
    use super::*;

    #[test]
    fn every_bar_and_birth_is_drawn() {
        let mut report = report();
        let subject = Subject {
            kind: Kind::Mayfly,
            by: By::Hatch,
        };
        for birth in &mut report.births {
            birth.guest = subject.label();
            birth.making = Some(json!({"timeline": {"total_ns": 50_000_000, "spans": [
                {"what": "memory", "who": "hatch", "start_ns": 0, "end_ns": 1_000_000},
                {"what": "connects", "who": "netback", "start_ns": 500_000, "end_ns": 40_000_000},
            ]}}));
        }
        let svg = births(&[subject], &report, "ms").unwrap();
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        // The whole, two steps, two phases, three stamps; and the page.
        assert_eq!(svg.matches("<rect").count(), 9, "{svg}");
        assert!(svg.contains("netback: connects") && svg.contains("client: SYN-ACK"));
        assert!(births(&[Subject::by_xl(Kind::Null)], &report, "ms").is_err());
    }
}
