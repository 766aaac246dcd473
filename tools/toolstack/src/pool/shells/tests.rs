//! Pools in a simulated dom0.

use super::*;
use crate::builder::tests::{config, image};
use crate::fake::FakeHost;

const BACK_OFF: BackOff = BackOff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(3),
};

struct Bed {
    host: FakeHost,
    toolstack: Toolstack,
    image: Image,
    pool: ShellPool,
    now: Instant,
    _folder: tempfile::TempDir,
}

/// The kind of guests with this much memory.
fn kind(memory: u64) -> (ShellKind, GuestConfig) {
    let config = GuestConfig {
        memory,
        ..config("template", 9)
    };
    (ShellKind::of(Path::new("image"), &config), config)
}

/// A pool of `size` shells of each of these kinds, which are empty yet.
fn bed(size: usize, kinds: &[u64]) -> Bed {
    let host = FakeHost::new();
    let (folder, path) = image();
    let now = Instant::now();
    let limits = ShellLimits {
        size,
        memory: u64::MAX,
        spare: None,
    };
    let mut pool = ShellPool::new(limits, BACK_OFF, now);
    pool.keep(kinds.iter().map(|memory| kind(*memory)).collect());
    Bed {
        toolstack: host.toolstack().unwrap(),
        image: Image::open(&path).unwrap(),
        host,
        pool,
        now,
        _folder: folder,
    }
}

impl Bed {
    /// Makes the shell that is lacking.
    fn fill(&mut self) -> Result<Option<String>, FillError> {
        let (kind, _) = self.pool.lacking().unwrap();
        let kind = kind.clone();
        let toolstack = (&mut self.toolstack, &mut None);
        self.pool.fill(&kind, toolstack, &self.image)
    }

    /// Makes all shells that are lacking.
    fn fill_up(&mut self) {
        while self.pool.lacking().is_some() {
            self.fill().unwrap();
        }
    }

    fn memory_of_lacking(&self) -> Option<u64> {
        self.pool.lacking().map(|(kind, _)| kind.memory)
    }

    fn discard(&mut self, shells: Vec<Shell>) -> usize {
        let count = shells.len();
        for shell in shells {
            self.toolstack.discard(shell).unwrap();
        }
        count
    }
}

#[test]
fn each_kind_is_filled_and_the_oldest_is_taken() {
    let mut bed = bed(2, &[8, 16]);
    assert_eq!(bed.memory_of_lacking(), Some(8));
    bed.fill_up();
    assert_eq!((bed.pool.count(), bed.pool.memory()), (4, 48));
    let domids = bed.host.xen.domids();
    let (small, _) = kind(8);
    let taken = bed.pool.take(&small).unwrap();
    assert_eq!(taken.domid(), domids[0]);
    assert_eq!(bed.memory_of_lacking(), Some(8));
    assert_eq!(bed.pool.take(&small).unwrap().domid(), domids[1]);
    assert!(bed.pool.take(&small).is_none());
    assert_eq!((bed.pool.count(), bed.pool.memory()), (2, 32));
}

#[test]
fn only_a_guest_of_the_same_kind_gets_a_shell() {
    let mut bed = bed(1, &[8]);
    bed.fill_up();
    let (own, template) = kind(8);
    let with = |change: &dyn Fn(&mut GuestConfig)| {
        let mut config = template.clone();
        change(&mut config);
        ShellKind::of(Path::new("image"), &config)
    };
    let others = [
        ("memory", with(&|config| config.memory += 1)),
        ("console", with(&|config| config.console = !config.console)),
        (
            "tsc_mode",
            with(&|config| config.tsc = TscMode::AlwaysEmulate),
        ),
        (
            "mtu",
            with(&|config| config.vif.as_mut().unwrap().mtu = Some(1400)),
        ),
        (
            "rate",
            with(&|config| config.vif.as_mut().unwrap().rate = Some("1,2".into())),
        ),
    ];
    for (setting, other) in others {
        assert_eq!(own.differences(&other), [setting]);
        assert!(bed.pool.take(&other).is_none(), "{setting}");
    }
    let of_other_image = ShellKind::of(Path::new("other"), &template);
    assert!(bed.pool.take(&of_other_image).is_none());
    // The identity makes no difference.
    let identity = with(&|config| {
        config.name = "web".into();
        config.cmdline = "ip=192.0.2.80/24".into();
        config.vif.as_mut().unwrap().bridge = "other".into();
    });
    assert!(own.differences(&identity).is_empty());
    assert!(bed.pool.take(&identity).is_some());
}

#[test]
fn failures_delay_the_next_attempt_ever_longer() {
    let mut bed = bed(1, &[8]);
    let at = |bed: &Bed| bed.pool.lacking().unwrap().1 - bed.now;
    bed.host.xen.refuses("populate", 12);
    for (wait, is_new) in [(1, true), (2, false), (3, false), (3, false)] {
        let error = bed.fill().unwrap_err();
        assert!(
            matches!(error.cause(), Some(ToolstackError::Xen(_))),
            "{error}"
        );
        assert_eq!(bed.pool.failed(bed.now, &error.to_string()), is_new);
        assert_eq!(at(&bed), Duration::from_secs(wait));
    }
    assert!(bed.pool.failed(bed.now, "another reason"));
    bed.host.xen.refuses("", 0);
    assert_eq!(bed.fill().unwrap().as_deref(), Some("another reason"));
    assert_eq!(bed.pool.trouble(), None);
    // The delays begin anew.
    bed.pool.limits.size = 2;
    bed.pool.failed(bed.now, "it fails");
    assert_eq!(at(&bed), Duration::from_secs(1));
    // A rest shortens no delay.
    bed.pool.rest(bed.now);
    assert_eq!(at(&bed), Duration::from_secs(1));
    bed.pool.rest(bed.now + Duration::from_secs(5));
    assert_eq!(at(&bed), Duration::from_secs(5));
}

#[test]
fn the_memory_of_the_host_and_of_the_pool_is_bounded() {
    let mut bed = bed(4, &[8, 16]);
    let free = bed.toolstack.xen().free_memory().unwrap();
    bed.pool.limits.spare = Some(free - 7);
    let error = bed.fill().unwrap_err();
    assert!(
        matches!(error, FillError::Memory { free: seen, need } if (seen, need) == (free, free + 1)),
        "{error}"
    );
    bed.pool.limits.spare = Some(free - 8);
    bed.fill().unwrap();
    bed.pool.limits.spare = Some(u64::MAX);
    assert!(bed.fill().is_err());

    bed.pool.limits.spare = None;
    bed.pool.limits.memory = 23;
    bed.fill_up();
    assert_eq!((bed.pool.count(), bed.pool.memory()), (2, 16));
    bed.pool.limits.memory = 15;
    let surplus = bed.pool.take_surplus();
    assert_eq!(bed.discard(surplus), 1);
    assert_eq!((bed.pool.count(), bed.memory_of_lacking()), (1, None));
}

#[test]
fn what_is_not_kept_or_too_much_is_taken_out() {
    let mut bed = bed(2, &[8, 16]);
    bed.fill_up();
    assert!(bed.pool.take_surplus().is_empty());
    bed.pool.limits.size = 1;
    bed.pool.keep(BTreeMap::from([kind(16)]));
    // Both small ones, and one of the others.
    let surplus = bed.pool.take_surplus();
    assert_eq!(bed.discard(surplus), 3);
    assert_eq!(bed.pool.memory(), 16);
    // A kind that is not kept is not made.
    let (small, _) = kind(8);
    let made = bed
        .pool
        .fill(&small, (&mut bed.toolstack, &mut None), &bed.image);
    assert!(made.unwrap().is_none());
    assert!(bed.pool.take_image(Path::new("other")).is_empty());
    let stale = bed.pool.take_image(Path::new("image"));
    assert_eq!(bed.discard(stale), 1);
    assert!(bed.host.xen.domids().is_empty());
    assert_eq!(bed.memory_of_lacking(), Some(16));
}

#[test]
fn a_restarted_xenstored_is_told_of_each() {
    let mut bed = bed(2, &[8]);
    bed.fill_up();
    assert_eq!(bed.pool.restore(&mut bed.toolstack).unwrap(), 0);
    bed.host.store.remove("/hatch");
    assert_eq!(bed.pool.restore(&mut bed.toolstack).unwrap(), 2);
    // `hatch gc` leaves them alone.
    let marks = bed.host.store.nodes();
    let marks = marks
        .keys()
        .filter(|path| path.starts_with("/hatch/making/"));
    assert_eq!(marks.count(), 2);
}
