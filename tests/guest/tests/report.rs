//! The guest's reports on its boot.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::{Net, Setup};
use serde_json::Value;

const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// The guest's report on its boot, after it has served a page.
fn boot_report(net: &mut Net<'_>) -> Value {
    net.http(guest4(), CLOSE).unwrap();
    let request = b"GET /.mayfly/boot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = net.http(guest4(), request).unwrap();
    let at = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let (head, body) = answer.split_at(at + 4);
    let head = String::from_utf8_lossy(head);
    assert!(
        head.contains("\r\nContent-Type: application/json\r\n"),
        "{head}"
    );
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
    serde_json::from_slice(body).unwrap()
}

#[test]
fn the_boot_report_is_json_and_its_phases_are_in_order() {
    Setup::new().run(|net| {
        let report = boot_report(net);
        let members: Vec<_> = report.as_object().unwrap().keys().collect();
        assert_eq!(
            members,
            ["counters", "dropped", "entry_tsc", "events", "tsc_khz"],
            "{report}"
        );
        let events = report["events"].as_array().unwrap();
        let phases: Vec<_> = events
            .iter()
            .map(|event| event["phase"].as_str().unwrap())
            .collect();
        // The boot order, without repetitions and without the phases that only a real machine has.
        let order = [
            "entry",
            "grant_table",
            "xenstore_sent",
            "xenstore_answered",
            "rings_posted",
            "first_tx_queued",
            "backend_connected",
            "first_rx",
            "first_http",
        ];
        assert_eq!(phases, order, "{report}");
        let khz = report["tsc_khz"].as_u64().unwrap();
        let first = report["entry_tsc"].as_u64().unwrap();
        assert_eq!(events[0]["tsc"], first, "{report}");
        let mut last = (0, 0);
        for event in events {
            let (tsc, ns) = (
                event["tsc"].as_u64().unwrap(),
                event["ns"].as_u64().unwrap(),
            );
            assert!((tsc, ns) >= last, "{report}");
            // TSC and nanoseconds agree, up to rounding.
            let expected = (tsc - first) * 1_000_000 / khz;
            assert!(ns.abs_diff(expected) <= 1, "{event}: {expected}");
            last = (tsc, ns);
        }
        assert!(last.1 > 0, "no time has passed: {report}");
        for counter in [
            "hypercalls_to_first_tx",
            "slept_tsc",
            "xenstore_requests",
            "xenstore_round_trips",
        ] {
            assert!(report["counters"][counter].is_u64(), "{counter}: {report}");
        }
        let dropped = report["dropped"].as_object().unwrap();
        assert!(dropped.len() > 10, "{report}");
        assert!(dropped.values().all(|count| *count == 0), "{report}");
    });
}

/// The guest's metrics.
fn metrics(net: &mut Net<'_>) -> String {
    let request = b"GET /.mayfly/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = net.http(guest4(), request).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn pages_that_a_back_end_keeps_are_told() {
    Setup::new().run(|net| {
        let pages = |net: &mut Net<'_>| -> usize {
            let metrics = metrics(net);
            let name = "\nmayfly_network_quarantined_pages ";
            let line = metrics.split_once(name).expect(&metrics).1;
            line.lines().next().unwrap().parse().unwrap()
        };
        assert_eq!(pages(net), 0);
        net.xen.with(|world| {
            world.netback.keep_mapped = true;
            world.netback.map_all = true;
            world.netback.unload(&mut world.machine, &mut world.store);
        });
        net.run_for(1.0);
        net.xen.with(|world| world.netback.load(&mut world.store));
        net.run_for(1.0);
        let kept = pages(net);
        assert!(kept > 2, "{kept}");
        assert_eq!(net.violations(), [""; 0]);
    });
}
