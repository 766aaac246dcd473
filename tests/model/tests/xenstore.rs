//! The xenstore client with a xenstored that is late, wrong, or sends in pieces.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashMap;

use mayfly_drivers::abi::xs;
use mayfly_drivers::fake::{FakeXen, Fault};
use mayfly_drivers::xenstore::{Broken, ReqId, StoreErrno, StoreError, StoreEvent, Xenstore};
use mayfly_drivers::{Hypervisor, SystemTime};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn client(xen: &FakeXen) -> Xenstore<'_, FakeXen> {
    let (page, port) = xen.store_ring();
    Xenstore::new(xen, page, port)
}

fn deadline(xen: &FakeXen) -> SystemTime {
    SystemTime(xen.now().0 + SECOND)
}

type Answer = Result<Vec<u8>, StoreErrno>;

/// Waits for the next answer.
fn answer(xen: &FakeXen, store: &mut Xenstore<'_, FakeXen>) -> Result<(ReqId, Answer), StoreError> {
    loop {
        store.wait(deadline(xen))?;
        if let Some(StoreEvent::Answer(id, result)) = store.pump().map_err(StoreError::Broken)? {
            return Ok((id, result.map(<[u8]>::to_vec)));
        }
    }
}

#[test]
fn a_burst_is_one_notification_and_one_round_trip() {
    let xen = FakeXen::new();
    let mut store = client(&xen);
    let ids = ["backend-id", "mac", "nothing"]
        .map(|key| store.read(&[b"device/vif/0/", key.as_bytes()]).unwrap());
    store.flush();
    assert_eq!(xen.with(|world| world.machine.counts.evtchn_send), 1);
    assert!(store.has_more());
    let answers = [(); 3].map(|()| answer(&xen, &mut store).unwrap());
    assert_eq!(answers[0], (ids[0], Ok(b"0".to_vec())));
    assert_eq!(answers[1], (ids[1], Ok(b"00:16:3e:00:00:01".to_vec())));
    assert_eq!(answers[2], (ids[2], Err(StoreErrno::NoEntry)));
    let counters = store.counters();
    assert_eq!((counters.requests, counters.errors), (3, 1));
    assert!(counters.round_trips <= 1);
    assert!(!store.has_more());
    assert_eq!(store.pump(), Ok(None));
}

#[test]
fn answers_that_overtake_each_other_find_their_requests() {
    let xen = FakeXen::new();
    xen.with(|world| {
        world.store.fault(Some(Fault::Late(SECOND / 2)));
        world.store.fault(None);
    });
    let mut store = client(&xen);
    let late = store.read(&[b"device/vif/0/mac"]).unwrap();
    let quick = store.read(&[b"device/vif/0/backend-id"]).unwrap();
    assert_eq!(answer(&xen, &mut store).unwrap().0, quick);
    assert_eq!(answer(&xen, &mut store).unwrap().0, late);
    assert_eq!(store.counters().round_trips, 1, "one burst");
}

#[test]
fn an_answer_after_the_deadline_still_finds_its_request() {
    let xen = FakeXen::new();
    xen.with(|world| world.store.fault(Some(Fault::Late(3 * SECOND / 2))));
    let mut store = client(&xen);
    let id = store.read(&[b"device/vif/0/mac"]).unwrap();
    let before = xen.now().0;
    assert_eq!(answer(&xen, &mut store), Err(StoreError::Timeout));
    assert_eq!(xen.now().0, before + SECOND);
    assert_eq!(answer(&xen, &mut store).unwrap().0, id);
}

#[test]
fn the_longest_values_pass_and_wrap() {
    let xen = FakeXen::new();
    let mut store = client(&xen);
    // Longer than the ring, so that both sides have to wait for the other.
    let value: Vec<u8> = (0..=255).cycle().take(3000).collect();
    for _ in 0..20 {
        let id = store.write(&[b"data/long"], &value).unwrap();
        assert_eq!(
            answer(&xen, &mut store).unwrap(),
            (id, Ok(b"OK\0".to_vec()))
        );
        let id = store.read(&[b"data/long"]).unwrap();
        assert_eq!(answer(&xen, &mut store).unwrap(), (id, Ok(value.clone())));
    }
    assert_eq!(store.write(&[b"x"], &[0; 4096]), Err(StoreError::TooLong));
    assert_eq!(
        xen.with(|world| world.machine.violations().to_vec()),
        [""; 0]
    );
}

#[test]
fn too_many_requests_are_refused_and_lose_nothing() {
    let xen = FakeXen::new();
    xen.with(|world| world.store.dead = true);
    let mut store = client(&xen);
    let mut made = 0;
    while store.write(&[b"data/key"], &[b'x'; 500]).is_ok() {
        made += 1;
        assert!(made < 100);
    }
    store.flush();
    xen.with(|world| world.store.dead = false);
    store.flush();
    for _ in 0..made {
        // The dead daemon missed the notification; the wait's time-out leads to the next look.
        let _ = xen.evtchn_send(store.port());
        assert!(answer(&xen, &mut store).unwrap().1.is_ok());
    }
    assert!(store.read(&[b"data/key"]).is_ok());
}

#[test]
fn watches_bring_path_and_token_until_they_end() {
    let xen = FakeXen::new();
    let mut store = client(&xen);
    store.watch(&[b"control/", b"shutdown"], b"token").unwrap();
    let mut events = 0;
    for _ in 0..2 {
        store.wait(deadline(&xen)).unwrap();
        if let Some(StoreEvent::Watch { path, token }) = store.pump().unwrap() {
            assert_eq!(
                (path, token),
                (b"control/shutdown".as_slice(), b"token".as_slice())
            );
            events += 1;
        }
    }
    assert_eq!(events, 1, "the first one comes with the watch");
    xen.with(|world| world.store.set(b"control/shutdown", b"poweroff"));
    store.wait(deadline(&xen)).unwrap();
    assert!(matches!(store.pump(), Ok(Some(StoreEvent::Watch { .. }))));
    store.unwatch(&[b"control/shutdown"], b"token").unwrap();
    assert!(answer(&xen, &mut store).unwrap().1.is_ok());
    xen.with(|world| world.store.set(b"control/shutdown", b"reboot"));
    assert_eq!(store.wait(deadline(&xen)), Err(StoreError::Timeout));
}

#[test]
fn what_the_protocol_forbids_breaks_the_connection_for_good() {
    let header = |kind: u32, id: u32, length: u32| -> Vec<u8> {
        [kind, id, 0, length].map(u32::to_le_bytes).concat()
    };
    let cases = [
        (Fault::WrongId, Broken::UnknownId),
        (Fault::Twice, Broken::UnknownId),
        (Fault::WrongType, Broken::Type),
        (Fault::TooLong, Broken::Length),
        (Fault::Garbage(vec![0xff; 64]), Broken::Length),
        (Fault::Garbage(vec![0; 16]), Broken::UnknownId),
        (Fault::Garbage(header(xs::WATCH_EVENT, 0, 0)), Broken::Watch),
        (
            Fault::Garbage([header(xs::WATCH_EVENT, 0, 3), b"a\0b".to_vec()].concat()),
            Broken::Watch,
        ),
        (Fault::Index(2000), Broken::Index),
        (Fault::Index(u32::MAX), Broken::Index),
    ];
    for (fault, broken) in cases {
        let xen = FakeXen::new();
        xen.with(|world| world.store.fault(Some(fault.clone())));
        let mut store = client(&xen);
        store.read(&[b"device/vif/0/mac"]).unwrap();
        let mut result = answer(&xen, &mut store);
        if fault == Fault::Twice {
            assert!(result.is_ok());
            result = answer(&xen, &mut store);
        }
        assert_eq!(result, Err(StoreError::Broken(broken)), "{fault:?}");
        assert_eq!(store.broken(), Some(broken));
        assert_eq!(store.pump(), Err(broken));
        assert_eq!(store.wait(deadline(&xen)), Err(StoreError::Broken(broken)));
        assert_eq!(store.read(&[b"a"]), Err(StoreError::Broken(broken)));
        let sends = xen.with(|world| world.machine.counts.evtchn_send);
        store.flush();
        assert_eq!(xen.with(|world| world.machine.counts.evtchn_send), sends);
    }
}

#[test]
fn a_consumer_index_out_of_range_is_found() {
    let xen = FakeXen::new();
    let mut store = client(&xen);
    let page = xen.with(|world| world.store.page());
    page.store_release(mayfly_drivers::abi::xenstore_domain_interface::REQ_CONS, 77);
    let refused = Err(StoreError::Broken(Broken::Index));
    assert_eq!(store.read(&[b"device/vif/0/mac"]), refused);
    assert_eq!(store.counters().requests, 0);
    assert_eq!(store.broken(), Some(Broken::Index));
}

#[test]
fn notifications_without_an_answer_do_not_outlast_the_deadline() {
    let xen = FakeXen::new();
    xen.with(|world| {
        // 50 bytes, one for each look, of an answer without an end.
        world.store.piece = Some(1);
        world.store.fault(Some(Fault::Garbage(
            [2_u32, 1, 0, 4000].map(u32::to_le_bytes).concat(),
        )));
    });
    let mut store = client(&xen);
    store.read(&[b"device/vif/0/mac"]).unwrap();
    assert_eq!(answer(&xen, &mut store), Err(StoreError::Timeout));
    assert!(xen.with(|world| world.machine.counts.poll) < 50);
}

#[derive(Debug, Clone)]
enum Op {
    Read(u8),
    Write(u8, usize),
    Flush,
    Pump,
    Sleep,
    Fault(Option<Fault>),
    Piece(Option<usize>),
    Inject(Vec<u8>),
}

fn harmless() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_u8..6).prop_map(Op::Read),
        6 => (0_u8..6, prop_oneof![0_usize..30, 0_usize..1500]).prop_map(|(key, length)| Op::Write(key, length)),
        4 => Just(Op::Flush),
        6 => Just(Op::Pump),
        3 => Just(Op::Sleep),
        1 => Just(Op::Fault(None)),
        2 => (0..SECOND / 10).prop_map(|delay| Op::Fault(Some(Fault::Late(delay)))),
        1 => prop::option::of(1_usize..40).prop_map(Op::Piece),
    ]
}

fn hostile() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => harmless(),
        1 => Just(Op::Fault(Some(Fault::Error("EAGAIN")))),
        1 => Just(Op::Fault(Some(Fault::WrongId))),
        1 => Just(Op::Fault(Some(Fault::Twice))),
        1 => Just(Op::Fault(Some(Fault::Silent))),
        1 => Just(Op::Fault(Some(Fault::WrongType))),
        1 => Just(Op::Fault(Some(Fault::TooLong))),
        1 => any::<u32>().prop_map(|jump| Op::Fault(Some(Fault::Index(jump)))),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Op::Fault(Some(Fault::Payload(bytes)))),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Op::Fault(Some(Fault::Garbage(bytes)))),
        1 => prop::collection::vec(0_u8..20, 0..80).prop_map(Op::Inject),
    ]
}

/// The expected answer of each request, and the received answers.
#[derive(Default)]
struct Model {
    values: HashMap<u8, Vec<u8>>,
    expected: Vec<(ReqId, Answer)>,
    answered: Vec<(ReqId, Answer)>,
}

fn run(ops: Vec<Op>) -> (Model, Option<Broken>) {
    let xen = FakeXen::new();
    let mut store = client(&xen);
    let mut model = Model::default();
    let mut broken = None;
    let pump = |store: &mut Xenstore<'_, FakeXen>, model: &mut Model| match store.pump() {
        Ok(Some(StoreEvent::Answer(id, result))) => {
            model.answered.push((id, result.map(<[u8]>::to_vec)));
            Ok(true)
        }
        Ok(Some(StoreEvent::Watch { .. })) => Ok(true),
        Ok(None) => Ok(false),
        Err(broken) => Err(broken),
    };
    for op in ops {
        match op {
            Op::Read(key) => {
                if let Ok(id) = store.read(&[b"data/", &[b'a' + key]]) {
                    let value = model.values.get(&key).cloned();
                    model.expected.push((id, value.ok_or(StoreErrno::NoEntry)));
                }
            }
            Op::Write(key, length) => {
                // Each value differs from those before it.
                let byte = model.expected.len().to_le_bytes()[0];
                let value = vec![byte; length];
                if let Ok(id) = store.write(&[b"data/", &[b'a' + key]], &value) {
                    model.expected.push((id, Ok(b"OK\0".to_vec())));
                    model.values.insert(key, value);
                }
            }
            Op::Flush => store.flush(),
            Op::Pump => broken = broken.or(pump(&mut store, &mut model).err()),
            Op::Sleep => {
                let _ = store.wait(SystemTime(xen.now().0 + SECOND / 100));
            }
            Op::Fault(fault) => xen.with(|world| world.store.fault(fault)),
            Op::Piece(piece) => xen.with(|world| world.store.piece = piece),
            Op::Inject(bytes) => xen.with(|world| world.store.inject(&bytes)),
        }
    }
    xen.with(|world| world.store.piece = None);
    for _ in 0..400 {
        match store.wait(deadline(&xen)) {
            Ok(()) => broken = broken.or(pump(&mut store, &mut model).err()),
            Err(StoreError::Broken(found)) => {
                broken = broken.or(Some(found));
                break;
            }
            Err(_) => break,
        }
    }
    (model, broken)
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(400))]

    #[test]
    fn each_request_has_one_answer(ops in prop::collection::vec(harmless(), 1..80)) {
        let (model, broken) = run(ops);
        prop_assert_eq!(broken, None);
        let by_id = |(id, _): &(ReqId, Answer)| format!("{id:?}");
        let (mut expected, mut answered) = (model.expected, model.answered);
        expected.sort_by_key(by_id);
        answered.sort_by_key(by_id);
        prop_assert_eq!(expected, answered);
    }

    #[test]
    fn nothing_that_it_sends_hangs_or_panics(ops in prop::collection::vec(hostile(), 1..80)) {
        let (model, _) = run(ops);
        // In any case, no request was answered twice.
        for (at, (id, _)) in model.answered.iter().enumerate() {
            prop_assert!(model.answered[..at].iter().all(|(other, _)| other != id));
        }
    }
}
