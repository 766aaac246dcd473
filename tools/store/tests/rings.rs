//! Rings whose domains break the protocol are shut, and nobody else notices.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use mayfly_drivers::SharedPage;
use mayfly_store::core::{Host, Quota, State};
use mayfly_store::daemon::{Daemon, Machine, News};
use mayfly_xenstore::Code;
use mayfly_xenstore::wire::{self, Kind};

const REQ_PROD: usize = 2052;
const RSP_PROD: usize = 2060;
const ERROR: usize = 2072;

/// What has become of rings: the word that tells why one was shut, and how many bytes of answers it has.
type Seen = Arc<Mutex<HashMap<u16, (u32, u32)>>>;

/// What a domain has in its ring when it is introduced.
#[derive(Default)]
struct Hostile {
    pages: HashMap<u16, SharedPage>,
    shut: Vec<u16>,
    seen: Seen,
}

const LYING: u16 = 1;
const LONG: u16 = 2;
const HONEST: u16 = 3;

impl Host for Hostile {
    fn state(&mut self, _: u16) -> Option<State> {
        Some(State::default())
    }
    fn attach(&mut self, domid: u16, _: u64, _: u32) -> Result<(), Code> {
        let page = SharedPage::leak();
        let mut bytes = Vec::new();
        match domid {
            LYING => bytes.resize(1, 0),
            LONG => bytes.extend(
                [2_u32, 1, 0, 1 << 20]
                    .into_iter()
                    .flat_map(u32::to_ne_bytes),
            ),
            _ => wire::put_message(&mut bytes, [Kind::Read as u32, 1, 0], b"x\0"),
        }
        page.copy_in(0, &bytes);
        let length = if domid == LYING {
            5000
        } else {
            u32::try_from(bytes.len()).unwrap()
        };
        page.store_release(REQ_PROD, length);
        self.pages.insert(domid, page);
        Ok(())
    }
    fn attach_again(&mut self, _: u16, _: u32) {}
    fn detach(&mut self, domid: u16) {
        self.pages.remove(&domid);
    }
}

impl Machine for Hostile {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn events(&mut self) -> News {
        News::Lost
    }
    fn look(&mut self) {}
    fn look_away(&mut self) {}
    fn page(&self, domid: u16) -> Option<&SharedPage> {
        self.pages.get(&domid)
    }
    fn notify(&self, domid: u16) {
        let page = self.page(domid).unwrap();
        let words = (page.load_acquire(ERROR), page.load_acquire(RSP_PROD));
        self.seen.lock().unwrap().insert(domid, words);
    }
    fn shut(&mut self, domid: u16) {
        self.shut.push(domid);
    }
    fn is_shut(&self, domid: u16) -> bool {
        self.shut.contains(&domid)
    }
}

#[test]
fn a_ring_that_lies_is_shut() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let seen = Seen::default();
    let machine_seen = Arc::clone(&seen);
    let server = std::thread::spawn(move || {
        let machine = Hostile {
            seen: machine_seen,
            ..Hostile::default()
        };
        let mut daemon = Daemon::new(Quota::default(), false, machine, listener).unwrap();
        daemon.run(stopped.as_fd()).unwrap();
    });
    let mut client = UnixStream::connect(&socket).unwrap();
    let mut ask = |kind: Kind, payload: &str| {
        let mut bytes = Vec::new();
        wire::put_message(&mut bytes, [kind as u32, 1, 0], payload.as_bytes());
        client.write_all(&bytes).unwrap();
        let mut header = [0; wire::HEADER];
        client.read_exact(&mut header).unwrap();
        let mut answer = vec![0; wire::length(&header).unwrap() - wire::HEADER];
        client.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    };
    for domid in [LYING, LONG, HONEST] {
        let answer = ask(Kind::Introduce, &format!("{domid}\x001\x001\0"));
        assert_eq!(answer, "OK\0");
    }
    // Each turn of the loop looks at all who have something to do before it takes the next request.
    ask(Kind::Write, "/still\0there");
    assert_eq!(ask(Kind::Read, "/still\0"), "there");
    let words = seen.lock().unwrap().clone();
    // XENSTORE_ERROR_RINGIDX, XENSTORE_ERROR_PROTO; EACCES for who is honest.
    assert_eq!(words[&LYING].0, 2);
    assert_eq!(words[&LONG].0, 3);
    assert_eq!(words[&HONEST], (0, 16 + 7));
    drop(stop);
    server.join().unwrap();
}
