//! What a successor finds, at each step of its predecessor.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::*;

fn heir(journal: &Journal) -> Journal {
    let mut heir = Journal::within_as_is(Rc::clone(&journal.memory));
    heir.reopen(journal.log);
    heir
}

fn all(journal: &mut Journal) -> Vec<(Kind, u64, u64, Vec<u8>)> {
    let each = std::iter::from_fn(|| journal.repeat());
    each.map(|record| (record.kind, record.id, record.number, record.payload))
        .collect()
}

#[test]
fn a_successor_reads_what_was_written() {
    let mut journal = Journal::new().unwrap();
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    theirs.write_all(b"request").unwrap();
    let mut buffer = [0; RECEIVE];
    journal.append(Kind::Accepted, 0, 9, &[]);
    assert_eq!(journal.receive(1, ours.as_fd(), &mut buffer).unwrap(), 7);
    assert_eq!(&buffer[..7], b"request");
    let nothing = journal.receive(1, ours.as_fd(), &mut buffer);
    assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(journal.send(1, ours.as_fd(), b"answer").unwrap(), 6);
    assert_eq!(theirs.read(&mut buffer).unwrap(), 6);
    journal.append(Kind::State, 7, 1, b"abc");
    let mut heir = heir(&journal);
    let expected = vec![
        (Kind::Accepted, 0, 9, vec![]),
        (Kind::Received, 1, 0, b"request".to_vec()),
        (Kind::Sent, 1, 6, vec![]),
        (Kind::State, 7, 1, b"abc".to_vec()),
    ];
    assert_eq!(heir.upcoming(), Upcoming::Record(Kind::Accepted, 0));
    assert_eq!(all(&mut heir), expected);
    assert_eq!(heir.upcoming(), Upcoming::Nothing);
}

#[test]
fn a_call_that_was_made_and_not_recorded_is_completed() {
    let mut journal = Journal::new().unwrap();
    let (theirs, ours) = UnixStream::pair().unwrap();
    (&theirs).write_all(b"request").unwrap();
    journal.append(Kind::Ended, 5, 0, &[]);
    // The worker ends before the call: nothing has happened.
    journal.begin_call(Kind::Received, 1);
    assert_eq!(all(&mut heir(&journal)).len(), 1);
    // After the call, and before the record is a part of the log.
    journal.begin_call(Kind::Received, 1);
    let place = journal.place(journal.tail + HEAD);
    let received = journal.memory.receive(ours.as_fd(), place, RECEIVE);
    assert_eq!(received.unwrap(), 7);
    let mut successor = heir(&journal);
    let expected = (Kind::Received, 1, 0, b"request".to_vec());
    assert_eq!(all(&mut successor).pop(), Some(expected));
    // After that, before the call is forgotten: it is there once.
    assert_eq!(all(&mut heir(&successor)).len(), 2);
    // The same for what was sent.
    successor.begin_call(Kind::Sent, 2);
    assert_eq!(successor.memory.send(ours.as_fd(), b"answer").unwrap(), 6);
    let sent = all(&mut heir(&successor)).pop();
    assert_eq!(sent, Some((Kind::Sent, 2, 6, vec![])));
}

#[test]
fn a_call_that_failed_or_belongs_to_another_log_adds_nothing() {
    let mut journal = Journal::new().unwrap();
    let (theirs, ours) = UnixStream::pair().unwrap();
    journal.begin_call(Kind::Received, 1);
    let place = journal.place(HEAD);
    assert!(
        journal
            .memory
            .receive(ours.as_fd(), place, RECEIVE)
            .is_err()
    );
    assert_eq!(all(&mut heir(&journal)), vec![]);
    // The end of the stream is no record.
    drop(theirs);
    journal.begin_call(Kind::Received, 1);
    assert_eq!(
        journal
            .memory
            .receive(ours.as_fd(), place, RECEIVE)
            .unwrap(),
        0
    );
    assert_eq!(all(&mut heir(&journal)), vec![]);
    // A call at the beginning of one log, and the other log, which is empty.
    let (theirs, ours) = UnixStream::pair().unwrap();
    (&theirs).write_all(b"request").unwrap();
    assert_eq!(
        journal.receive(1, ours.as_fd(), &mut [0; RECEIVE]).unwrap(),
        7
    );
    let other = journal.empty_other();
    journal.turn(other);
    assert_eq!(all(&mut heir(&journal)), vec![]);
}

#[test]
fn a_record_that_ends_workers_is_told_apart() {
    let mut journal = Journal::new().unwrap();
    for id in 1..3 {
        journal.append(Kind::RingRead, id, 0, b"bytes");
        journal.begin();
        if id == 1 {
            journal.finish();
        }
    }
    let at = begun(&journal.memory);
    condemn(&journal.memory, at);
    let mut heir = heir(&journal);
    let first = heir.repeat().unwrap();
    let second = heir.repeat().unwrap();
    assert!(!heir.is_poison(&first) && heir.is_poison(&second));
    heir.turn(1);
    assert_eq!(begun(&journal.memory), 0);
    assert!(!heir.is_poison(&second));
}
