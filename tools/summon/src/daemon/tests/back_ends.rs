//! The back ends of services whose file names none.

use std::path::Path;

use mayfly_toolstack::fake::FakeSwitch;
use mayfly_toolstack::fake::elf::Elf;

use super::super::super::config::{Network, Service};
use super::*;

impl Bed {
    fn network(&self, name: &str) -> Network {
        self.daemon.entries[&self.id(name)].service.network
    }

    /// Reads a file anew, as a daemon that starts does.
    fn starts(&mut self) {
        self.daemon.back_ends = BackEnds::default();
        self.daemon.reload();
    }
}

/// A daemon that is told of the switch at this socket.
fn bed_with(socket: &Path) -> Bed {
    let mut bed = bed("").alone();
    write_with(&bed.folder, "", "");
    bed.daemon.switched.socket = socket.to_owned();
    bed
}

#[test]
fn the_switch_if_one_runs_when_the_daemon_starts() {
    let run = tempfile::tempdir().unwrap();
    let socket = run.path().join("switch.sock");
    let mut bed = bed_with(&socket);
    bed.starts();
    assert_eq!(bed.network("www"), Network::Netback);
    // It is started later.
    let _switch = FakeSwitch::listen(run.path()).unwrap();
    bed.daemon.reload();
    assert_eq!(bed.network("www"), Network::Netback);
    bed.starts();
    assert_eq!(bed.network("www"), Network::Switch);
    // It ends, and the file is read again.
    bed.daemon.switched.socket = run.path().join("nobody");
    bed.daemon.reload();
    assert_eq!(bed.network("one"), Network::Switch);
    // What the file names holds.
    write_with(&bed.folder, "", "network = \"netback\"");
    bed.daemon.reload();
    assert_eq!(bed.network("www"), Network::Netback);
}

#[test]
fn a_switch_that_is_in_the_middle_of_a_restart_is_waited_for() {
    let run = tempfile::tempdir().unwrap();
    let socket = run.path().join("switch.sock");
    // What a killed switch leaves.
    drop(UnixListener::bind(&socket).unwrap());
    let mut bed = bed_with(&socket);
    let folder = run.path().to_owned();
    let next = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        std::fs::remove_file(folder.join("switch.sock")).unwrap();
        FakeSwitch::listen(&folder).unwrap()
    });
    bed.starts();
    assert_eq!(bed.network("www"), Network::Switch);
    next.join().unwrap();
}

#[test]
fn an_image_that_takes_no_connected_network_is_on_netback() {
    let run = tempfile::tempdir().unwrap();
    let _switch = FakeSwitch::listen(run.path()).unwrap();
    let mut bed = bed_with(&run.path().join("switch.sock"));
    let mut image = Elf::new().bytes;
    let note = image.windows(6).position(|bytes| bytes == b"mayfly");
    image[note.unwrap()] = b'M';
    std::fs::write(bed.folder.path().join("image"), image).unwrap();
    bed.starts();
    assert_eq!(bed.network("www"), Network::Netback);
}

#[test]
fn a_guest_of_an_earlier_daemon_stays_on_its_back_end() {
    let run = tempfile::tempdir().unwrap();
    let _switch = FakeSwitch::listen(run.path()).unwrap();
    let mut bed = bed_with(&run.path().join("switch.sock"));
    bed.starts();
    let mut service = Service::clone(&bed.daemon.entries[&bed.id("www")].service);
    assert_eq!(service.network, Network::Switch);
    service.network = Network::Netback;
    let made_of = MadeOf::now(&service).unwrap();
    assert_eq!(found(&mut bed, "www", Some(made_of)), Vec::<String>::new());
    // The next one is where the daemon has chosen.
    let entry = &bed.daemon.entries[&bed.id("www")];
    assert_eq!(entry.service.network, Network::Switch);
}
