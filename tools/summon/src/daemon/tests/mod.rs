//! Tests of the maker's first thread in a fake dom0. The test acts as the front.

mod back_ends;
mod failures;
mod ports;
mod switched;
mod wakes;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::Receiver;

use mayfly_toolstack::fake::FakeHost;
use mayfly_toolstack::host::Xen as _;
use tempfile::TempDir;

use super::super::channel::{self, GuestReport, Sender, Stance, ToMaker, receive_with};
use super::super::maker::{FoundGuest, MadeGuest, MakerOrder};
use super::super::{clock::Moment, fleet::Command, made_of::MadeOf};
use super::setup::DaemonParts;
use super::*;
use ports::{FakePorts, link};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const GUEST: u16 = 7;

struct Bed {
    daemon: Daemon,
    host: FakeHost,
    ports: FakePorts,
    orders: Receiver<MakerOrder>,
    /// The front's end of the channel.
    front: OwnedFd,
    folder: TempDir,
    /// Where the switch would listen.
    switch: UnixListener,
    _told: bell::BellSender<MakerReport>,
}

fn services(lines: &str) -> String {
    let service = |name: &str, n: u8| {
        format!(
            "[[services]]\nname = \"{name}\"\nhosts = [\"{name}.example.test\"]\nzone = \"example.test\"\n\
             image = \"IMAGE\"\nsite = \"SITE\"\nipv4 = \"192.0.2.{n}/24\"\n{lines}\n"
        )
    };
    service("www", 80) + &service("one", 81)
}

fn bed(lines: &str) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    for file in ["image", "site"] {
        std::fs::write(folder.path().join(file), "first").unwrap();
    }
    let host = FakeHost::new();
    let ports = FakePorts::default();
    let (orders, received) = mpsc::channel();
    let (sender, told) = bell::channel().unwrap();
    let way = FrontSender::default();
    let (ours, front) = channel::pair().unwrap();
    way.lead_to(Sender::new(ours));
    let (signals, _) = UnixStream::pair().unwrap();
    let parts = DaemonParts {
        path: folder.path().join("file"),
        listening: Listening {
            dns: Default::default(),
            page: None,
        },
        orders,
        told,
        way,
        links: Box::new(ports.clone()),
        link_events: Links::asking().unwrap(),
        xen: Box::new(host.xen.clone()),
        signals: Signals {
            reload: signals.try_clone().unwrap(),
            stop: signals,
        },
        switch: folder.path().join("switch"),
    };
    let switch = UnixListener::bind(&parts.switch).unwrap();
    write(&folder, lines);
    let config = SummonConfig::load(&parts.path).unwrap();
    let mut daemon = Daemon::new(parts, &config).unwrap();
    daemon.adopt(config).unwrap();
    Bed {
        daemon,
        host,
        ports,
        orders: received,
        front,
        folder,
        switch,
        _told: sender,
    }
}

fn write(folder: &TempDir, lines: &str) {
    write_with(folder, "network = \"netback\"", lines);
}

/// A file with these lines of the daemon and of each service.
fn write_with(folder: &TempDir, daemon: &str, lines: &str) {
    let path = |file| folder.path().join(file).to_string_lossy().into_owned();
    let limits = "[daemon.limits]\nbirths_per_prefix = 2\nqueue = 3\nrunning = 2\n";
    let text = format!(
        "[daemon]\nlisten = []\n{daemon}\n{limits}{}",
        services(lines)
    )
    .replace("IMAGE", &path("image"))
    .replace("SITE", &path("site"));
    std::fs::write(path("file"), text).unwrap();
}

impl Bed {
    /// Reports that there are no guests of an earlier daemon.
    fn alone(mut self) -> Self {
        self.daemon.told(MakerReport::Searched);
        self.daemon.way.flush();
        self.heard();
        self.ordered();
        self
    }

    fn id(&self, name: &str) -> ServiceId {
        self.daemon.ids[name]
    }

    fn state(&self, name: &str) -> ServiceState {
        self.daemon.fleet.unit(self.id(name)).unwrap().state
    }

    fn wake(&self, name: &str, ticket: Option<u32>) -> Wake {
        Wake {
            service: self.id(name),
            cause: WakeCause::Syn,
            from: CLIENT,
            at: self.daemon.clock.moment(Instant::now()),
            answered: None,
            ticket,
        }
    }

    fn says(&mut self, said: ToMaker) -> Result<(), channel::ChannelError> {
        let result = self.daemon.said(said);
        self.daemon.way.flush();
        result
    }

    /// The messages to the front.
    fn heard(&self) -> Vec<ToFront> {
        let mut all = Vec::new();
        while let Some((messages, _)) = receive_with(&self.front).unwrap() {
            all.extend(messages);
        }
        all
    }

    /// The orders to the maker's other thread.
    fn ordered(&self) -> Vec<String> {
        let orders = self.orders.try_iter().filter_map(|order| match order {
            MakerOrder::Make(id, ..) => Some(format!("make {}", id.0)),
            MakerOrder::Remove(id, domid) => Some(format!("remove {} {domid}", id.0)),
            _ => None,
        });
        orders.collect()
    }

    /// The record of a guest of a service that is made now.
    fn made_of(&self, name: &str) -> MadeOf {
        let entry = &self.daemon.entries[&self.id(name)];
        MadeOf::now(&entry.service).unwrap()
    }

    /// Replaces a file by another one.
    fn replace(&self, file: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, "other").unwrap();
        std::fs::rename(new, self.folder.path().join(file)).unwrap();
    }

    /// Lets time pass in which no guest sends anything.
    fn passes(&mut self, time: Duration) {
        let now = Instant::now() + time;
        self.daemon.look_at_files(now);
        self.daemon.step(now, FleetEvent::Time);
        self.daemon.carry_out();
        self.daemon.way.flush();
    }

    /// Reports that a guest of a service was made and runs.
    fn made(&mut self, name: &str, domid: u16) {
        self.host.xen.add(domid, [9; 16]);
        let id = self.id(name);
        let made = MadeGuest {
            domid,
            vif: link(&format!("vif{domid}.0")),
            network: Default::default(),
            began: Instant::now(),
            is_from_pool: false,
            of: Some(self.made_of(name)),
            witness: None,
            front: self.daemon.way.say_now(&ToFront::Is(id, Stance::Takes)),
        };
        self.daemon.told(MakerReport::Made(id, made));
        self.daemon.step(Instant::now(), FleetEvent::Heard(id));
        self.daemon.carry_out();
    }
}

#[test]
fn a_guest_that_was_paused_or_is_saved_stays() {
    let mut bed = bed("").alone();
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    bed.made("www", GUEST);
    bed.ordered();
    let passes = |bed: &mut Bed, minute: u64| {
        let time = Duration::from_secs(60 * minute);
        bed.daemon.look_after_guests(Instant::now() + time);
        bed.passes(time);
        (
            bed.ordered(),
            matches!(bed.state("www"), ServiceState::Running(_)),
        )
    };
    bed.host.xen.clone().pause(GUEST).unwrap();
    for minute in 1..10 {
        assert_eq!(passes(&mut bed, minute), (Vec::new(), true));
    }
    bed.host.xen.ends(GUEST, 2);
    assert_eq!(passes(&mut bed, 10), (Vec::new(), true));
    bed.host.xen.ends(GUEST, 3);
    assert!(!passes(&mut bed, 10).1);
}

#[test]
fn a_file_that_is_read_again_reaches_the_front_and_the_guests() {
    let mut bed = bed("").alone();
    let (www, one) = (bed.id("www"), bed.id("one"));
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    bed.made("www", GUEST);
    bed.heard();
    bed.ordered();
    // A setting that does not concern the guest leaves it running.
    write(&bed.folder, "idle = 30");
    bed.daemon.reload();
    bed.daemon.way.flush();
    assert_eq!(bed.heard(), [ToFront::Table]);
    assert_eq!(bed.ordered(), Vec::<String>::new());
    write(&bed.folder, "memory = 16");
    bed.daemon.reload();
    bed.daemon.way.flush();
    let heard = bed.heard();
    assert_eq!(heard.first(), Some(&ToFront::Table));
    assert!(heard.contains(&ToFront::Is(www, Stance::Sleeps)));
    assert!(!heard.contains(&ToFront::Is(one, Stance::Sleeps)));
    assert_eq!(bed.ordered(), [format!("remove {} {GUEST}", www.0)]);
}

/// Reports a guest of an earlier daemon, with or without a record. Returns the orders that follow.
fn found(bed: &mut Bed, name: &str, made_of: Option<MadeOf>) -> Vec<String> {
    bed.host.xen.add(GUEST, [9; 16]);
    let id = bed.id(name);
    let found = FoundGuest {
        domid: GUEST,
        network: Default::default(),
        of: made_of,
    };
    bed.daemon.told(MakerReport::Found(id, found));
    bed.daemon.carry_out();
    bed.daemon.told(MakerReport::Searched);
    bed.daemon.way.flush();
    bed.ordered()
}

#[test]
fn a_service_that_changed_without_a_daemon_gets_what_its_file_says() {
    let before = bed("").made_of("www");
    let mut same = bed("");
    let made_of = same.made_of("www");
    assert_eq!(found(&mut same, "www", Some(made_of)), Vec::<String>::new());
    let id = same.id("www");
    assert!(same.heard().contains(&ToFront::Is(id, Stance::Takes)));
    // Guests of an earlier version have no record: they stay.
    let mut unknown = bed("");
    assert_eq!(found(&mut unknown, "www", None), Vec::<String>::new());
    // A guest with another record is removed, and made again if its service never sleeps.
    for lines in ["memory = 16", "memory = 16\non_demand = false"] {
        let mut other = bed(lines);
        let removed = format!("remove {} {GUEST}", other.id("www").0);
        let ordered = found(&mut other, "www", Some(before));
        assert!(ordered.contains(&removed), "{ordered:?}");
        let id = other.id("www");
        other.daemon.told(MakerReport::Removed(id, None));
        other.daemon.carry_out();
        let made = other.ordered().contains(&format!("make {}", id.0));
        assert_eq!(made, lines.contains("on_demand"));
    }
}

#[test]
fn a_site_that_is_replaced_reaches_guests_as_the_file_says() {
    for (lines, is_replaced) in [
        ("on_demand = false", false),
        ("on_demand = false\non_change = \"keep\"", false),
        ("on_demand = false\non_change = \"restart when idle\"", true),
    ] {
        for file in ["site", "image"] {
            let mut bed = bed(lines).alone();
            bed.made("www", GUEST);
            bed.ordered();
            bed.passes(Duration::from_secs(100));
            assert_eq!(bed.ordered(), Vec::<String>::new());
            bed.replace(file);
            bed.passes(Duration::from_secs(200));
            let id = bed.id("www");
            let asked = bed.heard().contains(&ToFront::Ask(id));
            assert_eq!(asked, is_replaced, "{lines} {file}");
            if is_replaced {
                let nobody = GuestReport {
                    connections: 0,
                    requests: 1,
                };
                bed.says(ToMaker::Said(id, Some(nobody))).unwrap();
                bed.passes(Duration::from_secs(201));
                assert_eq!(bed.ordered(), [format!("remove {} {GUEST}", id.0)]);
            }
        }
    }
}

#[test]
fn what_an_earlier_daemons_guest_was_made_of_is_compared_too() {
    let mut bed = bed("on_change = \"restart when idle\"\nasleep = \"suspend\"");
    let before = bed.made_of("www");
    bed.replace("site");
    assert_eq!(found(&mut bed, "www", Some(before)), Vec::<String>::new());
    bed.passes(Duration::from_secs(100));
    let id = bed.id("www");
    assert!(bed.daemon.fleet.unit(id).unwrap().is_outdated);
}

#[test]
fn another_front_is_told_what_the_last_one_was() {
    let mut bed = bed("").alone();
    let id = bed.id("www");
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    // The guest is made while the front is replaced: the front that was told is gone.
    let (ours, front) = channel::pair().unwrap();
    let gone = bed.daemon.way.front();
    bed.daemon.way.lead_to(Sender::new(ours));
    bed.front = front;
    bed.daemon.takes_since(id, gone);
    assert_eq!(bed.heard(), [ToFront::Is(id, Stance::Takes)]);
    let now = bed.daemon.way.front();
    bed.daemon.takes_since(id, now);
    assert_eq!(bed.heard(), []);
}

#[test]
fn a_front_that_was_taken_over_gets_no_more_than_the_file_allows() {
    let mut bed = bed("").alone();
    let (www, one) = (bed.id("www"), bed.id("one"));
    // Unknown services: nothing happens and nothing is logged.
    for id in [ServiceId(0), ServiceId(99), ServiceId(u32::MAX)] {
        let wake = Wake {
            service: id,
            ..bed.wake("www", None)
        };
        bed.says(ToMaker::Wake(wake)).unwrap();
        bed.says(ToMaker::Heard(id)).unwrap();
        bed.says(ToMaker::Said(id, None)).unwrap();
        bed.says(ToMaker::Counted(id, 1, FrameCounts::default()))
            .unwrap();
    }
    assert_eq!((bed.heard(), bed.ordered()), (vec![], vec![]));
    // The front cannot send a command of the administrator.
    let wake = Wake {
        cause: WakeCause::Command,
        ..bed.wake("www", None)
    };
    assert!(bed.says(ToMaker::Wake(wake)).is_err());
    // An answer of a guest that was not asked does not count.
    bed.says(ToMaker::Wake(bed.wake("www", None))).unwrap();
    bed.made("www", GUEST);
    let before = bed.state("www");
    let nobody = GuestReport {
        connections: 0,
        requests: u64::MAX,
    };
    bed.says(ToMaker::Said(www, Some(nobody))).unwrap();
    bed.says(ToMaker::Heard(www)).unwrap();
    assert_eq!(bed.state("www"), before);
    assert_eq!(bed.daemon.entries[&www].requests, None);
    // Births of one network are limited, whatever times the front claims.
    for n in 0..20 {
        bed.daemon.fleet.end(one, "test", &mut bed.daemon.actions);
        bed.daemon.carry_out();
        let wake = Wake {
            at: Moment::default(),
            ..bed.wake("one", Some(n))
        };
        bed.says(ToMaker::Wake(wake)).unwrap();
        if bed.state("one") == ServiceState::BeingBorn {
            bed.daemon.told(MakerReport::NotMade(one, "test".into()));
        }
        let _ = bed
            .daemon
            .fleet
            .command(Instant::now(), one, Command::Sleep, &mut Vec::new());
    }
    assert!(bed.daemon.fleet.refused.prefix >= 15);
    assert!(bed.ordered().len() <= 5);
    // Counters and time spans are bounded.
    let most = FrameCounts {
        held: u64::MAX,
        replayed: u64::MAX,
        dropped: u64::MAX,
    };
    let queries = QueryCounts {
        dropped: u64::MAX,
        limited: u64::MAX,
        ..QueryCounts::default()
    };
    for _ in 0..3 {
        bed.says(ToMaker::Counted(www, u64::MAX, most)).unwrap();
        bed.says(ToMaker::Counted(one, u64::MAX, most)).unwrap();
        bed.says(ToMaker::Queries(queries)).unwrap();
        let at = Moment::default();
        bed.says(ToMaker::Replayed(www, at, at)).unwrap();
        bed.says(ToMaker::PortLost("nowhere".into())).unwrap();
    }
    bed.daemon.tell();
    let birth = bed.daemon.entries[&www].birth.as_ref().unwrap();
    assert!(birth.spans().len() < 5);
    // A port that is reported lost is made again, but not too often.
    bed.heard();
    for _ in 0..10 {
        bed.says(ToMaker::PortLost("xenbr0".into())).unwrap();
    }
    let heard = bed.heard();
    let made = heard.iter().filter(|m| matches!(m, ToFront::Port(_)));
    assert_eq!(made.count(), 1, "{heard:?}");
}
