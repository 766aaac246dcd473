//! Tests with an invented run.

use std::collections::BTreeMap;

use mayfly_stamp::Traced;
use serde_json::json;

use super::*;

fn birth(scale: u64, traced: bool) -> Birth {
    let counts = |exits, ticks| Counts {
        exits,
        reasons: [(0x81, exits)].into(),
        hypercalls: [(32, exits)].into(),
        guest_ticks: ticks,
    };
    Birth {
        guest: "mayfly, xl".into(),
        domid: 1,
        create: 0,
        created: 60 * scale,
        unpause: 100 * scale,
        first_frame: Some(101 * scale),
        syn_ack: Some(102 * scale),
        ready: 103 * scale,
        destroy: 200 * scale,
        destroyed: 230 * scale,
        gone: 231 * scale,
        cpu_ns: 1,
        traced: traced.then(|| Traced {
            to_first_frame: Some(counts(30, 90_000)),
            to_transmit: Some(counts(20, 80_000)),
            to_ready: counts(70, 200_000),
            xenstore_to_first_frame: Some(9),
            xenstore_to_ready: Some(12),
            entry: 1,
        }),
        timeline: Some(json!({
            "events": [{"phase": "entry", "tsc": 5, "ns": 0}, {"phase": "first_tx_queued", "tsc": 9, "ns": 4 * scale}],
            "counters": {"xenstore_requests": 9, "xenstore_round_trips": 2},
        })),
        making: None,
    }
}

pub(crate) fn report() -> Report {
    let births = [9_000_000, 1_000_000, 1_010_000, 990_000].map(|scale| birth(scale, false));
    Report {
        tsc_hz: 1_000_000_000,
        births: births.into_iter().chain([birth(1_000_000, true)]).collect(),
    }
}

#[test]
fn the_first_birth_is_dropped_and_the_median_taken() {
    let figures = Figures::new(Subject::by_xl(Kind::Mayfly), &report()).unwrap();
    let names: BTreeMap<_, _> = figures.by_name(Spread::median);
    assert_eq!(names["create"], 60_000_000);
    assert_eq!(names["unpause to first HTTP byte"], 3_000_000);
    assert_eq!(names["VM exits to first HTTP byte"], 70);
    assert_eq!(figures.by_name(Spread::least)["create"], 59_400_000);
    assert_eq!(names["hypercalls to first transmit request"], 20);
    let text = table(&[figures], 1_000_000_000, true).unwrap();
    assert!(text.contains("60.000 (59.400 to 60.600)"), "{text}");
    assert!(text.contains("event_channel_op 70"), "{text}");
}

#[test]
fn targets_are_passed_and_missed() {
    let figures = Figures::new(Subject::by_xl(Kind::Mayfly), &report()).unwrap();
    let mut all = [figures];
    let text = targets(&all).unwrap();
    assert_eq!(text.matches("pass").count(), 6, "{text}");
    all[0].counts.retain(|(name, _)| *name != EXITS);
    assert!(targets(&all).is_err());
    all[0].counts.push((EXITS, 101));
    assert!(targets(&all).unwrap().contains("MISS"));
    assert_eq!(by_name(&all, Spread::median)[EXITS], 101);
    all[0].subject.by = By::Hatch;
    assert_eq!(by_name(&all, Spread::median)["hatch: create"], 60_000_000);
}

#[test]
fn too_few_births_are_an_error() {
    let mut report = report();
    report.births.truncate(1);
    assert!(Figures::new(Subject::by_xl(Kind::Mayfly), &report).is_err());
    assert!(Figures::new(Subject::by_xl(Kind::Null), &report).is_err());
}

#[test]
fn start_and_end_of_hatch_are_what_its_timeline_leaves() {
    let mut one = birth(1_000_000, false);
    assert_eq!(around(&one, 1_000_000_000), None, "xl does not say");
    one.making = Some(json!({ "preconnected": true, "timeline": { "total_ns": 57_000_000 } }));
    assert_eq!(around(&one, 1_000_000_000), Some(3_000_000));
    assert_eq!(around(&one, 500_000_000), Some(31_500_000), "ticks of 2 ns");
    one.making = Some(json!({ "timeline": { "total_ns": 57_000_000 } }));
    assert_eq!(around(&one, 1_000_000_000), None, "a guest of the pool");
}
