//! The guest's behaviour when netback is late, leaves, comes back or has another MTU.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_drivers::fake::FakeXen;
use mayfly_guest_tests::client::{GET, guest4, guest6};
use mayfly_guest_tests::{Net, Setup};
use smoltcp::socket::tcp;

/// Returns the number of steps that the guest takes in this many seconds without a frame for it.
fn idle_steps(net: &mut Net<'_>, seconds: f64) -> u64 {
    let before = net.steps;
    net.run_for(seconds);
    let steps = net.steps - before;
    println!("{steps} steps in {seconds} s");
    steps
}

#[test]
fn an_idle_guest_sleeps() {
    for cmdline in [
        "ip=10.0.2.80/24",
        "ip=10.0.2.80/24 gw=10.0.2.2 ip=fd00::80/64",
        "ip=dhcp",
    ] {
        Setup::new().cmdline(cmdline).run(|net| {
            let steps = idle_steps(net, 60.0);
            assert!(steps < 200, "{cmdline}: {steps} steps");
            let steps = idle_steps(net, 60.0);
            assert!(steps < 50, "{cmdline}: {steps} steps");
        });
    }
}

#[test]
fn a_guest_without_a_back_end_sleeps() {
    for (cmdline, ram) in [
        ("ip=10.0.2.80/24", 1 << 20),
        ("ip=dhcp", 1 << 20),
        ("ip=dhcp", 1 << 17),
    ] {
        let xen = FakeXen::new();
        xen.with(|world| world.netback.never_connect = true);
        Setup::on(xen).cmdline(cmdline).ram(ram).run(|net| {
            let steps = idle_steps(net, 600.0);
            assert!(steps < 1500, "{cmdline}: {steps} steps");
            assert_eq!(net.key("data/mayfly/ready"), None);
            // netback comes at last.
            net.xen.with(|world| world.netback.never_connect = false);
            net.xen.with(|world| world.netback.load(&mut world.store));
            assert!(net.until(5.0, |net| net.key("data/mayfly/ready").is_some()));
        });
    }
}

#[test]
fn a_guest_whose_back_end_has_left_sleeps_with_connections_open() {
    for cmdline in ["ip=10.0.2.80/24", "ip=dhcp ip=fd00::80/64"] {
        Setup::new().cmdline(cmdline).run(|net| {
            let address = if cmdline.contains("dhcp") {
                guest6()
            } else {
                guest4()
            };
            let handle = net.client.connect(address, 80);
            assert!(net.until(1.0, |net| net.client.tcp(handle).may_send()));
            net.client
                .write(handle, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            // The request is in the ring, but the answer finds no back end.
            net.xen.with(|world| {
                world.netback.transmitted.clear();
                world.netback.hold_tx = true;
            });
            net.run_for(0.001);
            net.xen
                .with(|world| world.netback.unload(&mut world.machine, &mut world.store));
            let steps = idle_steps(net, 60.0);
            assert!(steps < 400, "{cmdline}: {steps} steps");
        });
    }
}

#[test]
fn a_back_end_that_answers_no_request_costs_sleep_only() {
    Setup::new().cmdline("ip=dhcp").ram(1 << 17).run(|net| {
        net.run_for(1.0);
        net.xen.with(|world| world.netback.hold_tx = true);
        let steps = idle_steps(net, 600.0);
        assert!(steps < 1500, "{steps} steps");
    });
}

#[test]
fn a_back_end_that_comes_back_is_served_again() {
    Setup::new().run(|net| {
        net.assert_serves();
        for _ in 0..3 {
            let open = net.client.connect(guest4(), 80);
            assert!(net.until(1.0, |net| net.client.tcp(open).may_send()));
            net.xen
                .with(|world| world.netback.unload(&mut world.machine, &mut world.store));
            net.run_for(2.0);
            net.xen.with(|world| world.netback.load(&mut world.store));
            net.assert_serves();
            // The connection from before is still open.
            net.client.write(open, GET);
            assert!(net.until(5.0, |net| net.client.tcp(open).state()
                == tcp::State::CloseWait));
            assert!(net.client.read(open).starts_with(b"HTTP/1.1 200"));
        }
        assert_eq!(net.debug().matches("vif: the back end has left").count(), 3);
    });
}

#[test]
fn an_interface_that_is_unplugged_and_plugged_again_is_served_again() {
    Setup::new().run(|net| {
        net.assert_serves();
        net.xen
            .with(|world| world.netback.unplug(&mut world.machine, &mut world.store));
        net.run_for(2.0);
        net.xen.with(|world| world.netback.plug(&mut world.store));
        net.assert_serves();
    });
}

#[test]
fn ready_is_written_after_the_first_packet() {
    let xen = FakeXen::new();
    xen.with(|world| world.netback.never_connect = true);
    Setup::on(xen).run(|net| {
        net.run_for(0.2);
        assert_eq!(net.key("data/mayfly/ready"), None);
        assert_eq!(net.key("control/feature-poweroff"), None);
        net.xen.with(|world| world.netback.never_connect = false);
        net.xen.with(|world| world.netback.load(&mut world.store));
        assert!(net.until(0.1, |net| net.key("data/mayfly/ready").is_some()));
        assert_eq!(net.key("data/mayfly/ready").as_deref(), Some("1"));
        assert!(net.until(0.1, |net| net.key("control/feature-poweroff").is_some()));
        assert!(net.until(0.1, |net| net.debug().contains("boot us: xenstore_sent")));
    });
}

/// The longest frame that the guest sends while it serves a long page over HTTP.
fn longest_frame(net: &mut Net<'_>) -> usize {
    net.client.log.clear();
    // Many requests at once: their answers fill whole segments.
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
    let handle = net.client.connect(guest4(), 80);
    assert!(net.until(2.0, |net| net.client.tcp(handle).may_send()));
    net.client.write(handle, &[&request[..], GET].concat());
    let mut answer = Vec::new();
    assert!(net.until(10.0, |net| {
        answer.extend(net.client.read(handle));
        !net.client.tcp(handle).may_recv()
    }));
    answer.extend(net.client.read(handle));
    let answers = answer
        .windows(15)
        .filter(|w| w == b"HTTP/1.1 200 OK")
        .count();
    assert_eq!(answers, 21);
    net.client
        .log
        .iter()
        .map(|(_, frame)| frame.len())
        .max()
        .unwrap()
}

#[test]
fn the_mtu_of_xenstore_bounds_tcp_segments() {
    for mtu in [1500, 1400, 576] {
        let xen = FakeXen::new();
        xen.with(|world| {
            world
                .store
                .set(b"device/vif/0/mtu", mtu.to_string().as_bytes())
        });
        Setup::on(xen).run(|net| {
            net.run_for(1.0);
            assert_eq!(longest_frame(net), mtu + 14);
            // It also holds for the next link.
            net.xen
                .with(|world| world.netback.unload(&mut world.machine, &mut world.store));
            net.run_for(1.0);
            net.xen.with(|world| world.netback.load(&mut world.store));
            net.run_for(1.0);
            assert_eq!(longest_frame(net), mtu + 14);
            assert_eq!(net.guest.nic.front().counters().tx_dropped, 0);
            assert_eq!(net.violations(), [""; 0]);
        });
    }
}

#[test]
fn an_mtu_that_makes_no_sense_is_ignored() {
    for mtu in [
        "",
        "0",
        "67",
        "65536",
        "1501",
        "-1",
        "x",
        "99999999999999999999",
    ] {
        let xen = FakeXen::new();
        xen.with(|world| world.store.set(b"device/vif/0/mtu", mtu.as_bytes()));
        Setup::on(xen).run(|net| {
            net.run_for(1.0);
            assert_eq!(longest_frame(net), 1514, "{mtu}");
        });
    }
}
