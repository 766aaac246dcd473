//! The boot path: its cost, and errors in the domain.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::abi::{PAGE_SIZE, XenbusState, xs};
use mayfly_drivers::control::Command;
use mayfly_drivers::fake::{FakeXen, Fault, Packet};
use mayfly_drivers::netfront::{BufferCounts, LinkError, Notice};
use mayfly_drivers::xenstore::StoreError;
use mayfly_model_tests::{BOOT_NS, Guest, NAP_NS, numbered_frame};

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 64,
    tx_buffers: 64,
};

#[test]
fn the_first_frame_costs_at_most_two_round_trips_and_ten_requests() {
    let xen = FakeXen::new();
    let mut guest = Guest::start(&xen, CONFIG);
    guest.connect().unwrap();
    let frame = numbered_frame(7, 60);
    assert!(guest.send(&frame));
    let counters = guest.store.counters();
    assert!(counters.requests <= 10, "{counters:?}");
    assert!(counters.round_trips <= 2, "{counters:?}");
    assert_eq!(counters.errors, 0);
    let counts = guest.world(|world| world.machine.counts);
    // Grant frame, two ports, two store notifications, one poll, and none for the network.
    assert!(counts.hypercalls() <= 7, "{counts:?}");
    guest.world(|world| {
        assert_eq!(world.netback.transmitted, [frame]);
        assert_eq!(world.netback.posted(), 64);
        assert_eq!(world.store.requests.len(), 10);
    });
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn frames_queued_before_the_back_end_connects_are_sent_when_it_does() {
    let xen = FakeXen::new();
    xen.with(|world| world.netback.never_connect = true);
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    for number in 0..64 {
        assert!(guest.send(&numbered_frame(number, 60)));
    }
    assert!(!guest.send(&numbered_frame(64, 60)), "all slots are queued");
    assert!(!guest.net.carrier());
    xen.with(|world| world.netback.never_connect = false);
    guest.turn_until_carrier();
    guest.world(|world| {
        let numbers = (0..64).map(|number| numbered_frame(number, 60));
        assert!(world.netback.transmitted.iter().cloned().eq(numbers));
    });
    assert!(guest.notices.contains(&Notice::Carrier));
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn a_back_end_that_never_connects_is_reported_and_costs_no_sleep() {
    let xen = FakeXen::new();
    xen.with(|world| world.netback.never_connect = true);
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    for _ in 0..100 {
        guest.turn();
    }
    assert_eq!(guest.notices, [Notice::Late]);
    // It sleeps for its whole naps, except for the few answers of xenstored.
    let now = guest.world(|world| world.machine.now());
    assert!(now > 80 * NAP_NS, "{now}");
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn without_an_interface_there_is_one_clear_error() {
    let xen = FakeXen::without_vif();
    let mut guest = Guest::start(&xen, CONFIG);
    assert_eq!(guest.connect(), Err(Notice::NoVif));
    for _ in 0..10 {
        guest.turn();
    }
    assert_eq!(guest.notices, []);
    assert!(!guest.net.can_send());
    // An interface that is plugged later is found when the kernel looks again.
    guest.world(|world| world.netback.plug(&mut world.store));
    guest.net.start(&mut guest.store);
    assert!(guest.turn_until(20, |guest| guest.net.ports().is_some()));
}

#[test]
fn of_two_interfaces_the_first_is_used() {
    let xen = FakeXen::new();
    xen.with(|world| {
        world
            .store
            .set(b"device/vif/1/backend", b"/local/domain/0/backend/vif/1/1");
        world.store.set(b"device/vif/1/mac", b"00:16:3e:00:00:02");
    });
    let guest = Guest::boot(&xen, CONFIG).unwrap();
    assert_eq!(guest.net.mac(), [0, 0x16, 0x3e, 0, 0, 1]);
    guest.world(|world| {
        let other = b"device/vif/1".as_slice();
        assert!(
            world
                .store
                .requests
                .iter()
                .all(|r| !r.path.starts_with(other))
        );
    });
}

#[test]
fn a_configuration_that_makes_no_sense_is_a_clear_error() {
    for (key, value) in [
        ("backend", ""),
        ("backend", "/local/domain/x/backend/vif/1/0"),
        ("backend", "/local/domain/-1/backend/vif/1/0"),
        ("backend", "/local/domain/70000/backend/vif/1/0"),
        ("backend", "/local/domain/0"),
        ("backend", "backend/vif/1/0"),
        ("mac", ""),
        ("mac", "00:16:3e:00:00"),
        ("mac", "00:16:3e:00:00:01:02"),
        ("mac", "00:16:3e:00:00:0g"),
        ("mac", "0016:3e:00:00:01"),
        ("mac", "01:16:3e:00:00:01"),
    ] {
        let xen = FakeXen::new();
        xen.with(|world| {
            let path = format!("device/vif/0/{key}");
            world.store.set(path.as_bytes(), value.as_bytes());
        });
        let mut guest = Guest::start(&xen, CONFIG);
        assert_eq!(guest.connect(), Err(Notice::BadConfig), "{key}={value}");
    }
}

#[test]
fn memory_that_runs_out_shrinks_the_rings_and_leaks_nothing() {
    // The transmit buffers and two rings come first; the rest is for receive buffers.
    let fixed = CONFIG.tx_buffers + 2;
    for (left, posted) in [(1, 1), (2, 2), (3, 2), (4, 4), (31, 16), (32, 32), (64, 64)] {
        let limit = fixed + left;
        let xen = FakeXen::new();
        xen.with(|world| world.machine.page_limit = limit);
        let mut guest = Guest::boot(&xen, CONFIG).unwrap();
        assert_eq!(guest.net.rx_buffers(), posted, "{limit} pages");
        assert!(guest.turn_until_carrier());
        // Transmit works with the remaining pages.
        for number in 0..200 {
            assert!(guest.turn_until(3, |guest| guest.net.can_send()));
            let sent = guest.send(&numbered_frame(number, 60));
            assert!(sent || guest.send(&numbered_frame(number, 60)));
        }
        guest.world(|world| assert_eq!(world.netback.transmitted.len(), 200));
        assert_eq!(guest.violations(), [""; 0]);
    }
    for limit in [0, 1, fixed - 2, fixed - 1, fixed] {
        let xen = FakeXen::new();
        xen.with(|world| world.machine.page_limit = limit);
        let mut guest = Guest::start(&xen, CONFIG);
        let error = Notice::Link(LinkError::NoMemory);
        assert_eq!(guest.connect(), Err(error), "{limit} pages");
        assert_eq!(xen.with(|world| world.machine.pages_allocated()), 0);
    }
}

#[test]
fn frames_that_do_not_fit_are_refused() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(!guest.send(&[0; 13]));
    assert!(guest.send(&[0; 14]));
    assert!(guest.send(&[0; 1514]));
    assert!(!guest.send(&[0; 1515]));
    assert!(!guest.send(&[0; PAGE_SIZE + 1]));
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn the_mtu_comes_from_xenstore_if_it_makes_sense() {
    for (value, mtu, bad) in [
        ("1400", 1400, 0),
        ("576", 576, 0),
        ("1500", 1500, 0),
        ("575", 1500, 1),
        ("9000", 1500, 1),
        ("", 1500, 1),
        ("junk", 1500, 1),
        ("99999999999", 1500, 1),
    ] {
        let xen = FakeXen::new();
        xen.with(|world| world.store.set(b"device/vif/0/mtu", value.as_bytes()));
        let mut guest = Guest::boot(&xen, CONFIG).unwrap();
        guest.turn_until_carrier();
        assert_eq!(guest.net.mtu(), mtu, "{value}");
        assert_eq!(guest.net.counters().bad_mtu, bad, "{value}");
    }
}

#[test]
fn a_refused_key_takes_the_link_down_and_is_reported() {
    for refused in 2..10 {
        let xen = FakeXen::new();
        xen.with(|world| {
            for _ in 0..refused {
                world.store.fault(None);
            }
            world.store.fault(Some(Fault::Error("EACCES")));
        });
        let mut guest = Guest::boot(&xen, CONFIG).unwrap();
        guest.service();
        assert!(guest.notices.contains(&Notice::Refused), "{refused}");
        // It was refused only once: the next attempt succeeds after a back end that could connect without the key has
        // let go.
        guest.turn_until(10, |_| false);
        assert!(guest.turn_until_carrier());
        assert!(guest.send(&numbered_frame(1, 60)));
        guest.world(|world| assert_eq!(world.netback.transmitted.len(), 1));
        assert_eq!(guest.violations(), [""; 0]);
    }
}

#[test]
fn keys_that_are_always_refused_end_in_giving_up() {
    let xen = FakeXen::new();
    xen.with(|world| {
        world.store.refuse = Some(b"device/vif/0/event-channel-tx".to_vec());
    });
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(guest.turn_until(2000, |guest| guest.notices.contains(&Notice::GivenUp)));
    // Let outstanding answers arrive.
    guest.turn_until(5, |_| false);
    let before = guest.store.counters().requests;
    guest.turn_until(100, |_| false);
    assert_eq!(guest.store.counters().requests, before, "it is quiet");
    assert_eq!(xen.with(|world| world.machine.pages_allocated()), 0);
    // When it is plugged anew, it is tried again.
    guest.world(|world| {
        world.store.refuse = None;
        world.netback.unplug(&mut world.machine, &mut world.store);
        world.netback.plug(&mut world.store);
    });
    assert!(guest.turn_until_carrier());
}

#[test]
fn a_xenstored_that_does_not_answer_ends_the_wait() {
    let xen = FakeXen::new();
    xen.with(|world| world.store.dead = true);
    let before = xen.with(|world| world.machine.now());
    let mut guest = Guest::start(&xen, CONFIG);
    assert_eq!(guest.connect(), Err(Notice::Store(StoreError::Timeout)));
    xen.with(|world| {
        assert_eq!(world.machine.now(), before + BOOT_NS);
        assert!(world.machine.counts.poll <= 2);
    });
}

#[test]
fn commands_are_acknowledged_and_obeyed_and_others_counted() {
    for (value, command) in [
        ("poweroff", Some(Command::Poweroff)),
        ("reboot", Some(Command::Reboot)),
        ("halt", Some(Command::Halt)),
        ("suspend", Some(Command::Suspend)),
        ("crash", None),
        ("", None),
    ] {
        let xen = FakeXen::new();
        let mut guest = Guest::boot(&xen, CONFIG).unwrap();
        assert!(guest.turn_until_carrier());
        guest.world(|world| {
            let feature = |key| world.store.get(key).map(<[u8]>::to_vec);
            assert_eq!(feature(b"control/feature-poweroff"), Some(b"1".to_vec()));
            assert_eq!(feature(b"control/feature-reboot"), Some(b"1".to_vec()));
            assert_eq!(feature(b"control/feature-suspend"), Some(b"1".to_vec()));
            world.store.set(b"control/shutdown", value.as_bytes());
        });
        guest.turn_until(10, |guest| guest.command.is_some());
        assert_eq!(guest.command, command);
        let unknown = command.is_none() && !value.is_empty();
        assert_eq!(guest.control.unknown(), u32::from(unknown));
        let acknowledged = command.is_some() || value.is_empty();
        guest.world(|world| {
            let left = world.store.get(b"control/shutdown");
            assert_eq!(left == Some(b""), acknowledged, "{value}");
        });
    }
}

#[test]
fn nothing_but_reads_and_writes_on_the_boot_path() {
    let xen = FakeXen::new();
    let mut guest = Guest::start(&xen, CONFIG);
    guest.connect().unwrap();
    guest.world(|world| {
        let kinds: Vec<u32> = world.store.requests.iter().map(|r| r.kind).collect();
        assert_eq!(kinds[..2], [xs::READ; 2]);
        assert_eq!(kinds[2..], [xs::WRITE; 8]);
        let state = [b'0' + XenbusState::Connected as u8];
        assert_eq!(world.store.get(b"device/vif/0/state"), Some(&state[..]));
        world.netback.deliver(Packet::new(&numbered_frame(1, 60)));
    });
    assert!(guest.turn_until(5, |guest| guest.received.len() == 1));
}

#[test]
fn the_first_completion_wakes_the_guest_and_says_that_frames_move() {
    let xen = FakeXen::new();
    xen.with(|world| world.netback.never_connect = true);
    let mut guest = Guest::start(&xen, CONFIG);
    guest.connect().unwrap();
    assert!(guest.send(&numbered_frame(1, 60)));
    guest.turn();
    xen.with(|world| world.netback.never_connect = false);
    // The back end's state is not watched yet: only the ring tells.
    let before = guest.world(|world| world.machine.now());
    assert!(guest.turn_until(3, |guest| guest.net.carrier()));
    assert_eq!(guest.world(|world| world.machine.now()), before);
}
