//! A pool in a simulated dom0.

use super::*;
use crate::builder::tests::{config, image};
use crate::fake::FakeHost;

struct Bed {
    host: FakeHost,
    pool: PoolServer,
    kernel: PathBuf,
    _folder: tempfile::TempDir,
}

fn bed(size: usize) -> Bed {
    let host = FakeHost::new();
    let (folder, kernel) = image();
    let pool = PoolServer::new(
        host.toolstack().unwrap(),
        config("template", 9),
        &kernel,
        Image::open(&kernel).unwrap(),
        ShellLimits {
            size,
            memory: u64::MAX,
            spare: Some(64),
        },
    );
    Bed {
        host,
        pool: pool.unwrap(),
        kernel,
        _folder: folder,
    }
}

impl Bed {
    /// Waits until the next shell may be made.
    fn wait(&self) {
        let (_, at) = self.pool.shells.lacking().unwrap();
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
    }

    fn wanted(&self, name: &str, last: u8) -> WantedGuest {
        WantedGuest {
            config: config(name, last),
            kernel: self.kernel.clone(),
            ramdisk: None,
            has_uuid: false,
            unpause: true,
        }
    }
}

#[test]
fn a_guest_comes_out_of_it_and_it_is_filled_again() {
    let mut bed = bed(2);
    let mut said = Vec::new();
    while bed.pool.shells.lacking().is_some() {
        bed.pool.fill(&mut |what| said.push(what.to_owned()));
    }
    assert_eq!((bed.pool.shells.count(), said.len()), (2, 0));
    let PoolReply::Made(made) = bed.pool.create(&bed.wanted("web", 1)) else {
        panic!("no guest");
    };
    let name = bed.host.store.get("/hatch/name/web");
    let uuid = crate::paths::uuid(&made.uuid);
    assert_eq!(name, Some(format!("{} {uuid}", made.domid)));
    assert!(bed.pool.shells.lacking().is_some());
    // The name is taken. The shell that was to get it is removed, as it may have been changed in part.
    let reply = bed.pool.create(&bed.wanted("web", 2));
    assert!(
        matches!(reply, PoolReply::Failed { taken: true, .. }),
        "{reply:?}"
    );
    assert_eq!(bed.host.xen.domids(), [made.domid]);
    assert_eq!(bed.pool.create(&bed.wanted("other", 3)), PoolReply::Empty);
}

#[test]
fn what_is_of_another_make_does_not_come_out_of_it() {
    let mut bed = bed(1);
    bed.pool.fill(&mut |_| ());
    let mut wanted = bed.wanted("web", 1);
    wanted.config.memory += 1;
    wanted.has_uuid = true;
    let PoolReply::Other(why) = bed.pool.create(&wanted) else {
        panic!("it came");
    };
    assert!(why.contains("memory") && why.contains("uuid"), "{why}");
    assert_eq!(bed.pool.shells.count(), 1);
    wanted = bed.wanted("web", 1);
    wanted.config.vif = None;
    assert!(matches!(bed.pool.create(&wanted), PoolReply::Other(_)));
}

#[test]
fn a_shell_that_cannot_be_made_is_told_of_once_and_tried_later() {
    let mut bed = bed(1);
    bed.host.xen.refuses("populate", 12);
    let mut said = Vec::new();
    bed.pool.fill(&mut |what| said.push(what.to_owned()));
    assert_eq!(said.len(), 1);
    // The next attempt is later.
    bed.host.xen.refuses("", 0);
    bed.pool.fill(&mut |what| said.push(what.to_owned()));
    assert_eq!(bed.pool.shells.count(), 0);
    bed.host.xen.refuses("populate", 12);
    bed.wait();
    bed.pool.fill(&mut |what| said.push(what.to_owned()));
    assert_eq!(said.len(), 1, "the same is told once");
    bed.host.xen.refuses("", 0);
    bed.wait();
    bed.pool.fill(&mut |what| said.push(what.to_owned()));
    assert_eq!(said.last().unwrap(), "shells can be made again");
    assert_eq!(bed.pool.shells.count(), 1);
}

#[test]
fn nothing_of_an_image_that_was_replaced_comes_out_of_it() {
    let mut bed = bed(1);
    bed.pool.fill(&mut |_| ());
    let old = bed.host.xen.domids();
    let other = bed.kernel.with_extension("new");
    std::fs::copy(&bed.kernel, &other).unwrap();
    std::fs::rename(&other, &bed.kernel).unwrap();
    bed.pool.renew(&mut |_| ());
    assert!(
        bed.host.xen.domids().is_empty(),
        "the shells are of the old one"
    );
    assert_eq!(bed.pool.create(&bed.wanted("web", 1)), PoolReply::Empty);
    bed.pool.fill(&mut |_| ());
    assert!(
        matches!(bed.pool.create(&bed.wanted("web", 1)), PoolReply::Made(made) if !old.contains(&made.domid))
    );
    // No image: nothing, until there is one.
    std::fs::write(&bed.kernel, "no image").unwrap();
    let mut said = Vec::new();
    bed.pool.renew(&mut |what| said.push(what.to_owned()));
    assert!(said[0].contains("ELF"), "{said:?}");
    assert!(matches!(
        bed.pool.create(&bed.wanted("other", 2)),
        PoolReply::Other(_)
    ));
}
