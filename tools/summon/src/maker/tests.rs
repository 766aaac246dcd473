//! Tests of the maker in a fake dom0.

use mayfly_toolstack::fake::elf::Elf;
use mayfly_toolstack::fake::{FakeHost, FakeSwitch};
use mayfly_toolstack::host::Xen as _;
use tempfile::TempDir;

use super::super::bell::{self, BellReceiver as Bell};
use super::*;

struct Bed {
    host: FakeHost,
    folder: TempDir,
    maker: GuestMaker,
    told: Bell<MakerReport>,
}

fn bed() -> Bed {
    let host = FakeHost::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("image"), Elf::new().bytes).unwrap();
    let (sender, told) = bell::channel().unwrap();
    let other = host.clone();
    let run = folder.path().to_owned();
    let open: Open = Box::new(move || Ok(other.toolstack()?.with_run(&run)));
    Bed {
        host,
        folder,
        maker: GuestMaker::over(sender, FrontSender::default(), open),
        told,
    }
}

/// The name of an event of the maker.
fn name(told: &MakerReport) -> &'static str {
    match told {
        MakerReport::Found(..) => "found",
        MakerReport::Searched => "searched",
        MakerReport::Made(..) => "made",
        MakerReport::Runs(..) => "runs",
        MakerReport::NotMade(..) => "not made",
        MakerReport::Removed(..) => "removed",
        MakerReport::Waiting(_) => "waiting",
        MakerReport::Trouble(_) => "trouble",
    }
}

impl Bed {
    fn service(&self, asleep: &str) -> Service {
        let text = format!(
            "[daemon]\nlisten = [\"127.0.0.1:53\"]\npool = 1\n[[services]]\nname = \"web\"\nhosts = [\"www.example.test\"]\n\
             zone = \"example.test\"\nimage = {:?}\nmemory = 8\nipv4 = \"192.0.2.80/24\"\nasleep = {asleep:?}\n",
            self.folder.path().join("image")
        );
        let file = self.folder.path().join("services.toml");
        std::fs::write(&file, text).unwrap();
        let mut config = super::super::config::SummonConfig::load(&file).unwrap();
        config.services.remove(0)
    }

    fn does(&mut self, order: MakerOrder) -> Vec<MakerReport> {
        self.maker.carry_out(order);
        self.told.take()
    }

    fn domid(&self) -> Option<u16> {
        self.host.domid("web")
    }
}

fn is_found(told: &MakerReport, domid: u16, network: Network) -> bool {
    matches!(told, MakerReport::Found(_, found) if (found.domid, found.network) == (domid, network))
}

fn names(told: &[MakerReport]) -> Vec<&'static str> {
    told.iter().map(name).collect()
}

#[test]
fn a_guest_is_made_guarded_and_removed() {
    let mut bed = bed();
    let service = Arc::new(bed.service("destroy"));
    let told = bed.does(MakerOrder::Make(ServiceId(1), service, true));
    assert_eq!(names(&told), ["made", "runs"]);
    let Some(MakerReport::Made(_, made)) = told.first() else {
        panic!();
    };
    let domid = made.domid;
    assert!(bed.host.links.is_filtered(domid));
    assert_eq!(bed.domid(), Some(domid));
    let told = bed.does(MakerOrder::Remove(ServiceId(1), domid));
    assert!(matches!(told[..], [MakerReport::Removed(_, None)]));
    assert!(bed.host.xen.domids().is_empty());
}

#[test]
fn what_cannot_be_made_is_told_and_leaves_nothing() {
    let mut bed = bed();
    let service = bed.service("destroy");
    bed.host.xen.refuses("populate", 12);
    let told = bed.does(MakerOrder::Make(
        ServiceId(1),
        Arc::new(service.clone()),
        false,
    ));
    assert_eq!(names(&told), ["not made"]);
    assert!(bed.host.xen.domids().is_empty() && bed.domid().is_none());
    bed.host.xen.refuses("", 0);
    // The guard cannot be installed: an unguarded guest must not run.
    bed.host.links.refuses("filter");
    let told = bed.does(MakerOrder::Make(ServiceId(1), Arc::new(service), true));
    assert_eq!(names(&told), ["not made"]);
    assert!(bed.host.xen.domids().is_empty());
}

#[test]
fn what_a_guest_is_made_of_is_looked_up_once_and_known_of_each() {
    let mut bed = bed();
    let service = bed.service("destroy");
    let image = bed.folder.path().join("image");
    let made_of = |bed: &mut Bed| {
        let told = bed.does(MakerOrder::Make(
            ServiceId(1),
            Arc::new(service.clone()),
            false,
        ));
        let Some(MakerReport::Made(_, made)) = told.first() else {
            panic!();
        };
        let of = made.of.unwrap();
        bed.does(MakerOrder::Remove(ServiceId(1), made.domid));
        assert!(!of.has_other_files_than(&service));
        of
    };
    let first = made_of(&mut bed);
    assert_eq!([made_of(&mut bed), made_of(&mut bed)], [first; 2]);
    assert!(bed.maker.next_of.contains_key(&ServiceId(1)));
    // Another file of the same name.
    let new = bed.folder.path().join("new");
    std::fs::write(&new, Elf::new().bytes).unwrap();
    std::fs::rename(new, image).unwrap();
    let second = made_of(&mut bed);
    assert_ne!(first, second);
    assert_eq!([made_of(&mut bed), made_of(&mut bed)], [second; 2]);
}

#[test]
fn guests_are_made_ahead_and_taken() {
    let mut bed = bed();
    let service = bed.service("pool");
    bed.does(MakerOrder::Ready(vec![service.clone()], 1));
    let kind = bed.maker.pool.lacking().unwrap().0.clone();
    bed.maker.fill(&kind);
    assert_eq!(bed.maker.pool.lacking(), None);
    let shell = bed.host.xen.domids()[0];
    bed.told.take();
    let told = bed.does(MakerOrder::Make(ServiceId(1), Arc::new(service), false));
    let is_from_pool = told.iter().any(
        |told| matches!(told, MakerReport::Made(_, made) if made.is_from_pool && made.domid == shell),
    );
    assert!(is_from_pool, "{:?}", names(&told));
    // Without room no further guest is made.
    bed.does(MakerOrder::Room(0));
    assert_eq!(bed.maker.pool.lacking(), None);
}

#[test]
fn guests_made_ahead_go_when_nobody_can_use_them() {
    let mut bed = bed();
    let service = bed.service("pool");
    let fill = |bed: &mut Bed| {
        let kind = bed.maker.pool.lacking().unwrap().0.clone();
        bed.told.take();
        bed.maker.fill(&kind);
        names(&bed.told.take())
    };
    bed.does(MakerOrder::Ready(vec![service.clone()], 1));
    bed.host.xen.refuses("populate", 12);
    assert_eq!(fill(&mut bed), ["trouble"]);
    assert!(bed.maker.pool.lacking().unwrap().1 > Instant::now());
    bed.host.xen.refuses("", 0);
    assert_eq!(fill(&mut bed), ["waiting"]);
    // Another guest needs the memory.
    bed.does(MakerOrder::Room(15));
    let other = Service {
        name: "other".to_owned(),
        ..bed.service("destroy")
    };
    bed.does(MakerOrder::Make(ServiceId(2), Arc::new(other), false));
    assert_eq!(bed.maker.pool.count(), 0);
    // Its image was replaced.
    bed.does(MakerOrder::Room(64));
    assert_eq!(fill(&mut bed), ["waiting"]);
    let new = bed.folder.path().join("new");
    std::fs::write(&new, Elf::new().bytes).unwrap();
    std::fs::rename(new, bed.folder.path().join("image")).unwrap();
    let _ = bed.maker.open_files(ServiceId(1), &service);
    assert_eq!(bed.maker.pool.count(), 0);
    // No service uses the pool any more.
    assert_eq!(fill(&mut bed), ["waiting"]);
    bed.does(MakerOrder::Ready(vec![bed.service("destroy")], 1));
    assert_eq!(bed.maker.pool.count(), 0);
    assert_eq!(bed.host.xen.domids().len(), 1, "the other service's");
}

#[test]
fn guests_that_run_are_found() {
    let mut bed = bed();
    let service = bed.service("destroy");
    let mac = service.mac;
    bed.does(MakerOrder::Make(ServiceId(1), Arc::new(service), false));
    let domid = bed.domid().unwrap();
    // A new daemon starts.
    let (sender, told) = bell::channel().unwrap();
    let other = bed.host.clone();
    bed.maker = GuestMaker::over(
        sender,
        FrontSender::default(),
        Box::new(move || Ok(other.toolstack()?)),
    );
    bed.told = told;
    let told = bed.does(MakerOrder::Find(vec![(
        ServiceId(4),
        "web".to_owned(),
        mac,
    )]));
    assert_eq!(names(&told), ["found", "searched"]);
    assert!(is_found(&told[0], domid, Network::Netback));
}

#[test]
fn a_failure_of_a_takeover_loses_no_other_guest() {
    let other = |bed: &Bed| Service {
        name: "other".to_owned(),
        mac: [2, 0, 0, 0, 0, 9],
        ..bed.service("destroy")
    };
    // The guest that is found first cannot be let run; what is to be removed cannot be listed.
    for (call, expected) in [
        ("unpause", ["found", "trouble", "searched"]),
        ("list", ["found", "found", "trouble"]),
    ] {
        let mut bed = bed();
        let services = [bed.service("destroy"), other(&bed)];
        let mut wanted = Vec::new();
        for (id, service) in (1..).map(ServiceId).zip(services) {
            wanted.push((id, service.name.clone(), service.mac));
            bed.does(MakerOrder::Make(id, Arc::new(service), false));
        }
        let domid = bed.domid().unwrap();
        if call == "unpause" {
            bed.host.xen.clone().pause(domid).unwrap();
        }
        bed.host.xen.refuses(call, 22);
        let told = bed.does(MakerOrder::Find(wanted));
        assert_eq!(names(&told)[..3], expected, "{call}");
        assert!(names(&told).ends_with(&["searched"]));
    }
}

#[test]
fn an_index_that_was_lost_is_made_anew() {
    let mut bed = bed();
    let service = bed.service("destroy");
    bed.does(MakerOrder::Make(ServiceId(1), Arc::new(service), false));
    let domid = bed.domid().unwrap();
    // xenstored is restarted with an empty tree.
    bed.host.store.remove("/hatch");
    bed.host.store.ends_after(1, false);
    let _ = bed
        .maker
        .builder()
        .map(|toolstack| toolstack.store().find("/x"));
    assert!(bed.host.store.get("/hatch/name/web").is_none());
    bed.host.store.starts_anew();
    bed.maker.builder = None;
    bed.maker.is_gone = true;
    bed.maker.look();
    assert_eq!(bed.domid(), Some(domid));
    let told = bed.told.take();
    assert!(names(&told).contains(&"trouble"));
}

#[test]
fn a_guest_on_the_switch_runs_before_it_is_introduced() {
    let mut bed = bed();
    let service = Service {
        network: Network::Switch,
        ..bed.service("destroy")
    };
    let make = |id| MakerOrder::Make(ServiceId(id), Arc::new(service.clone()), true);
    let told = bed.does(make(1));
    assert_eq!(names(&told), ["not made"], "no switch runs");
    let switch = FakeSwitch::listen(bed.folder.path()).unwrap();
    let told = bed.does(make(1));
    assert_eq!(names(&told), [""; 0]);
    // It has some time to begin before the daemon is told of it.
    let now = Instant::now();
    assert!(bed.maker.announce(now).is_some_and(|at| at > now));
    assert_eq!(bed.maker.announce(now + Duration::from_millis(50)), None);
    let told = bed.told.take();
    assert_eq!(names(&told), ["made"]);
    let Some(MakerReport::Made(_, made)) = told.first() else {
        panic!();
    };
    let domid = made.domid;
    assert_eq!(
        (made.network, made.vif.name.as_str()),
        (Network::Switch, "switch1")
    );
    assert_eq!(switch.domains(), [domid]);
    assert_eq!(bed.domid(), None);
    let now = Instant::now();
    assert!(bed.maker.introduce_at(now).is_some_and(|at| at > now));
    // While births wait, it is introduced between them.
    assert_eq!(
        bed.maker.introduce_at(now + Duration::from_millis(50)),
        None
    );
    assert_eq!(names(&bed.told.take()), ["runs"]);
    assert_eq!(bed.domid(), Some(domid));
    let told = bed.does(MakerOrder::Find(vec![(
        ServiceId(1),
        "web".to_owned(),
        service.mac,
    )]));
    assert!(is_found(&told[0], domid, Network::Switch));
    let told = bed.does(MakerOrder::Remove(ServiceId(1), domid));
    assert!(matches!(told[..], [MakerReport::Removed(_, None)]));
    assert!(bed.host.xen.domids().is_empty());
    assert!(switch.domains().is_empty());

    // A guest that is removed before it was introduced, and one whose name is taken by then.
    bed.does(make(2));
    let domid = switch.domains()[0];
    let told = bed.does(MakerOrder::Remove(ServiceId(2), domid));
    assert_eq!(names(&told), ["made", "runs", "removed"]);
    bed.host.store.set("/local/domain/77/name", "web");
    bed.host.xen.add(77, [7; 16]);
    bed.does(make(3));
    assert!(bed.maker.introduce());
    assert_eq!(names(&bed.told.take()), ["made", "not made"]);
    assert_eq!(bed.host.xen.domids(), [77]);
    assert!(switch.domains().is_empty());
}

#[test]
fn a_daemon_that_is_started_again_finds_what_a_guest_was_made_of() {
    let mut bed = bed();
    let service = bed.service("destroy");
    let made_of = MadeOf::now(&service).unwrap();
    let told = bed.does(MakerOrder::Make(
        ServiceId(1),
        Arc::new(service.clone()),
        false,
    ));
    let Some(MakerReport::Made(_, made)) = told.first() else {
        panic!();
    };
    assert_eq!(made.of, Some(made_of));
    let (domid, mac) = (made.domid, service.mac);
    let find = |bed: &mut Bed| {
        let (sender, told) = bell::channel().unwrap();
        let other = bed.host.clone();
        let open: Open = Box::new(move || Ok(other.toolstack()?));
        let mut maker = GuestMaker::over(sender, FrontSender::default(), open);
        maker.carry_out(MakerOrder::Find(vec![(ServiceId(1), "web".into(), mac)]));
        match told.take()[..] {
            [
                MakerReport::Found(ServiceId(1), ref found),
                MakerReport::Searched,
            ] if found.domid == domid => found.of,
            ref other => panic!("{:?}", names(other)),
        }
    };
    // A birth does not wait for the record, so a daemon that is killed at once leaves none.
    assert_eq!(find(&mut bed), None);
    bed.maker.look();
    assert_eq!(find(&mut bed), Some(made_of));
    // A restarted xenstored gets the record again.
    let path = mayfly_toolstack::paths::summon(domid);
    bed.maker.builder().unwrap().store().rm(&path).unwrap();
    bed.maker.builder = None;
    bed.maker.look();
    assert_eq!(find(&mut bed), Some(made_of));
    // A malformed record is ignored.
    let store = |bed: &mut Bed, text| {
        let builder = bed.maker.builder().unwrap();
        builder.store().write(&path, text).unwrap();
    };
    store(&mut bed, "what somebody else has written");
    assert_eq!(find(&mut bed), None);
}
