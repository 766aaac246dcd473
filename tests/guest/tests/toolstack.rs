//! Requests and faults of the toolstack and xenstored: shutdown, console, answers late or wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_drivers::abi::xencons_interface as ring;
use mayfly_drivers::fake::{FakeXen, Fault};
use mayfly_drivers::{Gfn, HvmParam, Hypervisor, ShutdownReason};
use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::frames::Question;
use mayfly_guest_tests::{ADDRESSES, Net, SECOND, Setup};

#[test]
fn shutdown_requests_are_acknowledged_and_obeyed() {
    for (request, reason) in [
        ("poweroff", ShutdownReason::Poweroff),
        ("halt", ShutdownReason::Poweroff),
        ("reboot", ShutdownReason::Reboot),
    ] {
        Setup::new().run(|net| {
            net.assert_serves();
            net.run_for(1.0);
            assert_eq!(net.key("control/feature-poweroff").as_deref(), Some("1"));
            assert_eq!(net.key("control/feature-reboot").as_deref(), Some("1"));
            net.xen
                .with(|world| world.store.set(b"control/shutdown", request.as_bytes()));
            let done = |net: &mut Net<'_>| net.xen.with(|world| world.machine.shutdown.is_some());
            assert!(net.until(0.1, done));
            assert_eq!(net.xen.with(|world| world.machine.shutdown), Some(reason));
            assert_eq!(
                net.key("control/shutdown").as_deref(),
                Some(""),
                "acknowledged"
            );
        });
    }
}

#[test]
fn a_shutdown_request_that_was_there_before_the_watch_is_obeyed() {
    let xen = FakeXen::new();
    xen.with(|world| world.store.set(b"control/shutdown", b"poweroff"));
    Setup::on(xen).run(|net| {
        assert!(net.until(2.0, |net| {
            net.xen.with(|world| world.machine.shutdown.is_some())
        }));
    });
}

#[test]
fn other_shutdown_requests_are_ignored() {
    Setup::new().run(|net| {
        for request in ["", "suspend", "crash", "poweroff ", "POWEROFF", "x"] {
            net.xen
                .with(|world| world.store.set(b"control/shutdown", request.as_bytes()));
            net.run_for(1.0);
            assert_eq!(net.xen.with(|world| world.machine.shutdown), None);
        }
        net.assert_serves();
    });
}

#[test]
fn a_flood_of_watch_events_hides_no_request() {
    Setup::new().run(|net| {
        net.run_for(1.0);
        net.xen.with(|world| {
            for _ in 0..500 {
                world.store.set(b"control/shutdown", b"x");
            }
            world.store.set(b"control/shutdown", b"poweroff");
        });
        assert!(net.until(1.0, |net| {
            net.xen.with(|world| world.machine.shutdown.is_some())
        }));
    });
}

/// The contents of the console ring.
fn console(net: &Net<'_>) -> String {
    let page = net.xen.with(|world| world.machine.console());
    let mut bytes = vec![0; page.load_acquire(ring::OUT_PROD).min(ring::OUT_SIZE) as usize];
    page.copy_out(ring::OUT, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn the_console_has_the_boot_line_unless_it_is_off() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        assert!(
            console(net).contains("mayfly: boot us: xenstore_sent"),
            "{}",
            console(net)
        );
        assert!(net.debug().contains("mayfly: boot us: xenstore_sent"));
    });
    Setup::new()
        .cmdline("ip=10.0.2.80/24 console=off")
        .run(|net| {
            net.run_for(2.0);
            assert_eq!(console(net), "");
            assert!(net.debug().contains("mayfly: boot us: xenstore_sent"));
        });
}

/// The frames that a guest sends in its first second, and the number of its steps.
fn first_second(xen: FakeXen, cmdline: &str) -> (Vec<(u64, Vec<u8>)>, u64) {
    Setup::on(xen).cmdline(cmdline).run(|net| {
        net.run_for(1.0);
        net.assert_serves();
        (net.client.log.clone(), net.steps)
    })
}

#[test]
fn a_full_console_ring_costs_nothing() {
    let full = FakeXen::new();
    full.with(|world| {
        // xenconsoled has never read, or its index is invalid.
        world
            .machine
            .console()
            .store_release(ring::OUT_PROD, ring::OUT_SIZE);
    });
    let nonsense = FakeXen::new();
    nonsense.with(|world| {
        world
            .machine
            .console()
            .store_release(ring::OUT_CONS, 12_345)
    });
    let usual = first_second(FakeXen::new(), ADDRESSES);
    assert!(first_second(full, ADDRESSES) == usual);
    assert!(first_second(nonsense, ADDRESSES) == usual);
    assert!(first_second(FakeXen::new(), &format!("{ADDRESSES} console=off")) == usual);
}

#[test]
fn an_absent_console_costs_nothing() {
    let absent = FakeXen::new();
    let page = absent.hvm_param(HvmParam::ConsolePfn).unwrap();
    // The guest uses the page for something else.
    assert!(absent.special_page(Gfn(page)).is_some());
    let usual = first_second(FakeXen::new(), ADDRESSES);
    assert!(first_second(absent, ADDRESSES) == usual);
}

#[test]
fn no_interface_is_a_clear_line() {
    let line = Setup::on(FakeXen::without_vif())
        .try_run(|_| ())
        .unwrap_err();
    assert_eq!(line, "vif: no network interface is configured");
}

#[test]
fn malformed_command_lines_are_clear_lines() {
    let line = Setup::new()
        .cmdline("ip=10.0.2.80")
        .try_run(|_| ())
        .unwrap_err();
    assert!(line.starts_with("command line: ip=10.0.2.80: "), "{line}");
}

#[test]
fn a_xenstored_that_is_silent_is_a_clear_line_in_bounded_time() {
    for kind in 0..2 {
        let xen = FakeXen::new();
        xen.with(|world| {
            if kind == 0 {
                world.store.dead = true;
            } else {
                world.store.fault(None);
                world.store.fault(Some(Fault::Silent));
            }
        });
        let line = Setup::on(xen).try_run(|_| ()).unwrap_err();
        assert_eq!(line, "xenstore: xenstored does not answer");
    }
}

#[test]
fn late_answers_are_waited_for() {
    let xen = FakeXen::new();
    xen.with(|world| {
        for late in [3, 1, 2] {
            world.store.fault(Some(Fault::Late(late * SECOND)));
        }
    });
    Setup::on(xen).run(|net| net.assert_serves());
}

/// A machine whose xenstored answers the request after the first `position` with this fault.
fn faulty(position: usize, fault: &Fault) -> FakeXen {
    let xen = FakeXen::new();
    xen.with(|world| {
        for _ in 0..position {
            world.store.fault(None);
        }
        world.store.fault(Some(fault.clone()));
    });
    xen
}

/// Answers that no xenstored gives.
fn garbage() -> [Fault; 7] {
    [
        Fault::WrongId,
        Fault::WrongType,
        Fault::TooLong,
        Fault::Garbage(vec![0xff; 100]),
        Fault::Index(1025),
        Fault::Index(u32::MAX),
        Fault::Error("EIO"),
    ]
}

#[test]
fn garbage_in_the_first_answers_is_a_clear_line() {
    let refusals = [Fault::Error("EACCES"), Fault::Payload(Vec::new())];
    for fault in garbage().into_iter().chain(refusals) {
        for position in 0..2 {
            let xen = faulty(position, &fault);
            let result = Setup::on(xen).try_run(|_| ());
            let line = result.expect_err(&format!("{fault:?} at {position}"));
            assert!(
                line.starts_with("xenstore: ") || line.starts_with("vif: "),
                "{fault:?} at {position}: {line}"
            );
        }
    }
}

#[test]
fn garbage_later_is_a_line_and_the_guest_goes_on() {
    let lapses = [Fault::Silent, Fault::Twice, Fault::Late(SECOND)];
    for fault in garbage().into_iter().chain(lapses) {
        // The first three requests are the first burst, the next six publish the rings.
        for position in 9..20 {
            let xen = faulty(position, &fault);
            Setup::on(xen).run(|net| {
                net.run_for(2.0);
                assert!(net.dns(guest4(), &Question::a("mayfly.test")).is_some());
                let before = net.steps;
                net.run_for(60.0);
                assert!(net.steps - before < 200, "{fault:?} at {position}");
                let broken = net.debug().matches("mayfly: xenstore: ").count();
                assert!(broken <= 8, "{}", net.debug());
            });
        }
    }
}

#[test]
fn a_line_says_when_the_back_end_does_not_connect() {
    let xen = FakeXen::new();
    xen.with(|world| world.netback.never_connect = true);
    Setup::on(xen).run(|net| {
        net.run_for(20.0);
        let lines = net.debug();
        assert_eq!(
            lines.matches("vif: the back end does not connect").count(),
            1,
            "{lines}"
        );
    });
}
