//! Tests of messages that arrive as they were sent, and of malformed ones.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use proptest::prelude::*;
use rustix::net::send as send_bytes;

use super::super::cause::WakeCause;
use super::super::clock::Clock;
use super::super::dns::QueryCounts;
use super::super::fleet::ServiceId;
use super::super::status::FrameCounts;
use super::*;

/// The longest message of each kind of the front.
fn longest() -> Vec<ToMaker> {
    let at = Clock::new().moment(Instant::now());
    let id = ServiceId(u32::MAX);
    let frames = FrameCounts {
        held: u64::MAX,
        replayed: u64::MAX,
        dropped: u64::MAX,
    };
    let queries = QueryCounts {
        answered: u64::MAX,
        forwarded: u64::MAX,
        refused: u64::MAX,
        limited: u64::MAX,
        dropped: u64::MAX,
    };
    let said = GuestReport {
        connections: u32::MAX,
        requests: u64::MAX,
    };
    vec![
        ToMaker::Wake(Wake {
            service: id,
            cause: WakeCause::Udp,
            from: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
            at,
            answered: Some(at),
            ticket: Some(u32::MAX),
        }),
        ToMaker::Heard(id),
        ToMaker::Replayed(id, at, at),
        ToMaker::Said(id, Some(said)),
        ToMaker::Queries(queries),
        ToMaker::Counted(id, u64::MAX, frames),
        // A bridge's name has at most 15 bytes.
        ToMaker::PortLost("x".repeat(15)),
    ]
}

#[test]
fn messages_arrive_as_they_were_sent_and_many_in_one_packet() {
    let (ours, theirs) = pair().unwrap();
    let mut sender = Sender::new(ours);
    assert!(receive::<ToMaker>(&theirs).unwrap().is_none());
    let longest = longest();
    for message in &longest {
        sender.push(message, None).unwrap();
    }
    sender.flush().unwrap();
    assert_eq!(receive(&theirs).unwrap(), Some(longest));
    assert!(receive::<ToMaker>(&theirs).unwrap().is_none());
    drop(sender);
    let end = receive::<ToMaker>(&theirs);
    assert!(matches!(end, Err(ChannelError::Ended)));
}

#[test]
fn descriptors_come_with_their_messages_and_the_maker_takes_none() {
    let (ours, theirs) = pair().unwrap();
    let mut sender = Sender::new(ours.try_clone().unwrap());
    let open = || std::fs::File::open("/dev/null").unwrap().into();
    for n in 0..20 {
        let message = ToFront::Port(format!("br{n}"));
        sender.push(&message, Some(open())).unwrap();
    }
    sender.flush().unwrap();
    let mut names = BTreeSet::new();
    while let Some((messages, descriptors)) = receive_with::<ToFront>(&theirs).unwrap() {
        assert_eq!(messages.len(), descriptors.len());
        names.extend(messages.iter().map(|message| format!("{message:?}")));
    }
    assert_eq!(names.len(), 20);
    // In the other direction, descriptors that the front attaches are not received.
    let mut hostile = Sender::new(theirs);
    let (mut other_end, attached) = UnixStream::pair().unwrap();
    hostile
        .push(&ToMaker::Heard(ServiceId(1)), Some(attached.into()))
        .unwrap();
    hostile.flush().unwrap();
    drop(hostile);
    assert_eq!(
        receive(&ours).unwrap(),
        Some(vec![ToMaker::Heard(ServiceId(1))])
    );
    // Nobody holds the descriptor any more. (The numbers of descriptors say nothing: other tests open some meanwhile.)
    other_end.set_nonblocking(true).unwrap();
    assert_eq!(other_end.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_is_no_message_ends_it() {
    let (ours, theirs) = pair().unwrap();
    let is_refused = |bytes: &[u8]| {
        send_bytes(&theirs, bytes, SendFlags::empty()).unwrap();
        matches!(receive::<ToMaker>(&ours), Err(ChannelError::Malformed))
    };
    // An unknown kind; a kind without content; a number without end; a name longer than the packet, or than memory.
    let endless = [&[1][..], &[0xff; 20]].concat();
    let long = [6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let cases = [
        &[200][..],
        &[0],
        &[1],
        &endless,
        &[6, 20, b'x'],
        &long,
        // A valid message with bytes behind it.
        &[1, 1, 200],
        // A name that is not UTF-8.
        &[6, 2, 0xff, 0xfe],
    ];
    for case in cases {
        assert!(is_refused(case), "{case:?}");
    }
    // A message that is too long although its length is right; a packet that is too long.
    let name = [&[6, 0x80, 0x04][..], &[b'x'; 512]].concat();
    assert!(is_refused(&name));
    assert!(is_refused(
        &[&[1, 1].repeat(PACKET_MAX / 2)[..], &[1, 1]].concat()
    ));
    // The longest packet, full of valid messages.
    send_bytes(&theirs, &[1, 1].repeat(PACKET_MAX / 2), SendFlags::empty()).unwrap();
    let most = receive::<ToMaker>(&ours).unwrap().unwrap();
    assert_eq!(most.len(), PACKET_MAX / 2);
}

#[test]
fn who_reads_nothing_is_not_waited_for() {
    let (ours, theirs) = pair().unwrap();
    let mut sender = Sender::new(ours);
    let stuck = (0..1_000_000).find_map(|n| {
        let pushed = sender.push(&ToFront::Drop(ServiceId(n)), None);
        pushed.and_then(|()| sender.flush()).err()
    });
    assert!(matches!(stuck, Some(ChannelError::Stuck)));
    assert!(sender.is_waiting());
    // All accepted messages arrive in order, once there is room.
    let mut next = 0;
    while let Some(messages) = receive::<ToFront>(&theirs).unwrap() {
        for message in messages {
            assert_eq!(message, ToFront::Drop(ServiceId(next)));
            next += 1;
        }
        sender.flush().unwrap();
    }
    assert!(!sender.is_waiting() && next > 1000);
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    /// Any bytes of the front are valid messages or refused.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
        let (ours, theirs) = pair().unwrap();
        send_bytes(&theirs, &bytes, SendFlags::empty()).unwrap();
        match receive::<ToMaker>(&ours) {
            Ok(Some(messages)) => prop_assert!(messages.len() <= bytes.len()),
            Err(error) => prop_assert!(matches!(error, ChannelError::Malformed)),
            Ok(None) => prop_assert!(false),
        }
    }
}
