//! Whatever values xenstore has, at boot and later, the guest stays bounded; with the usual values it serves again.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use mayfly_drivers::fake::{BACKEND, FakeXen};
use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::frames::Question;
use mayfly_guest_tests::{Net, Setup};
use proptest::prelude::*;

/// The keys that the guest reads.
const KEYS: [&str; 9] = [
    "device/vif/0/backend",
    "device/vif/0/mac",
    "device/vif/0/mtu",
    "device/vif/0/state",
    "control/shutdown",
    "BACKEND/state",
    "BACKEND/feature-sg",
    "BACKEND/feature-gso-tcpv4",
    "BACKEND/feature-split-event-channels",
];

/// A value that a toolstack, another domain or an administrator may leave there.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&[u8]> = vec![
        b"",
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
        b"5",
        b"6",
        b"8",
        b"-1",
        b" 4",
        b"4\0",
        b"04",
        b"4294967300",
        b"18446744073709551616",
        b"/local/domain/0/backend/vif/1/0",
        b"/local/domain/0/backend/vif/1/0/",
        b"/local/domain/1/backend/vif/1/0",
        b"/local/domain/32752/backend/vif/1/0",
        b"//",
        b"/local/domain/0/backend/vif/1/0/\xff",
        b"00:16:3e:00:00:01",
        b"ff:ff:ff:ff:ff:ff",
        b"00:00:00:00:00:00",
        b"1280",
        b"suspend",
        b"sysrq",
    ];
    prop_oneof![
        4 => proptest::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
        1 => (1000_usize..4000).prop_map(|length| vec![b'x'; length]),
    ]
}

/// One change: a key, its value or its removal, and the seconds until the next.
fn change() -> impl Strategy<Value = (&'static str, Option<Vec<u8>>, f64)> {
    let key = proptest::sample::select(KEYS.to_vec());
    let value = proptest::option::weighted(0.85, value());
    (key, value, prop_oneof![Just(0.0), Just(0.01), Just(3.0)])
}

fn path(key: &str) -> Vec<u8> {
    key.replace("BACKEND", BACKEND).into_bytes()
}

fn write(xen: &FakeXen, key: &str, value: Option<&[u8]>) {
    xen.with(|world| match value {
        Some(value) => world.store.set(&path(key), value),
        None => world.store.remove(&path(key)),
    });
}

/// The toolstack plugs the interface anew, with the usual keys.
fn plug(xen: &FakeXen) {
    xen.with(|world| {
        world.store.remove(b"device/vif/0/mtu");
        let (netback, machine) = (&mut world.netback, &mut world.machine);
        netback.remake(machine, &mut world.store, BACKEND);
    });
    write(xen, "device/vif/0/backend", Some(BACKEND.as_bytes()));
    write(xen, "device/vif/0/mac", Some(b"00:16:3e:00:00:01"));
    write(xen, "device/vif/0/state", Some(b"1"));
}

fn serves(net: &mut Net<'_>) -> bool {
    net.dns(guest4(), &Question::a("mayfly.test")).is_some()
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(128))]

    /// [`Net::until`] fails if the guest does not come to rest.
    #[test]
    fn later_values_are_survived(changes in proptest::collection::vec(change(), 1..12)) {
        Setup::new().run(|net| {
            assert!(serves(net));
            for (key, value, pause) in &changes {
                write(net.xen, key, value.as_deref());
                net.run_for(*pause);
            }
            let steps = net.steps;
            net.run_for(60.0);
            assert!(net.steps - steps < 5_000, "{} steps", net.steps - steps);
            plug(net.xen);
            // A link that broke many times is tried ever more rarely.
            let mut is_served = false;
            for _ in 0..30 {
                net.run_for(20.0);
                is_served = is_served || serves(net);
            }
            assert!(is_served);
        });
    }

    /// The boot ends with an error, or the guest comes to rest.
    #[test]
    fn values_at_boot_are_survived(changes in proptest::collection::vec(change(), 1..4)) {
        let xen = FakeXen::new();
        for (key, value, _) in &changes {
            write(&xen, key, value.as_deref());
        }
        let ended = Setup::on(xen).try_run(|net| net.run_for(30.0));
        if let Err(line) = ended {
            assert!(!line.is_empty());
        }
    }
}
