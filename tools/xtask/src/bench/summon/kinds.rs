//! The kinds of service, and the targets of their times.

use mayfly_summon::status::ShownState::{self, Asleep, Running, Suspended};

use super::super::job::HATCH;

/// A kind of service.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) made: Made,
}

/// The maker of its guest.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Made {
    /// The daemon: a line of its file, and the state of the service before the SYN.
    Summoned(&'static str, ShownState),
    /// A program: the words before the guest's configuration, and the words before its name that remove it.
    Program(&'static [&'static str], &'static [&'static str]),
}

pub(super) const COLD: &str = "cold";
pub(super) const ON_SWITCH: &str = "switch";
pub(super) const SMALL_ON_SWITCH: &str = "switch-4-mib";
pub(super) const RUNNING_ON_SWITCH: &str = "switch-running";
pub(super) const POOL_ON_SWITCH: &str = "switch-pool";
pub(super) const SUSPENDED_ON_SWITCH: &str = "switch-suspended";
pub(super) const FROM_POOL: &str = "pool";
pub(super) const RUNNING: &str = "running";
pub(super) const BY_HATCH: &str = "hatch create";
pub(super) const BY_XL: &str = "xl create";

pub(super) const KINDS: [Kind; 11] = [
    Kind {
        name: COLD,
        made: Made::Summoned("network = \"netback\"", Asleep),
    },
    Kind {
        name: ON_SWITCH,
        made: Made::Summoned("network = \"switch\"", Asleep),
    },
    Kind {
        name: SMALL_ON_SWITCH,
        made: Made::Summoned("network = \"switch\"\nmemory = 4", Asleep),
    },
    Kind {
        name: RUNNING_ON_SWITCH,
        made: Made::Summoned("network = \"switch\"\non_demand = false", Running),
    },
    Kind {
        name: POOL_ON_SWITCH,
        made: Made::Summoned(
            "network = \"switch\"\nmemory = 4\nasleep = \"pool\"",
            Asleep,
        ),
    },
    Kind {
        name: SUSPENDED_ON_SWITCH,
        made: Made::Summoned("network = \"switch\"\nasleep = \"suspend\"", Suspended),
    },
    Kind {
        name: FROM_POOL,
        made: Made::Summoned("network = \"netback\"\nasleep = \"pool\"", Asleep),
    },
    Kind {
        name: "suspended",
        made: Made::Summoned("network = \"netback\"\nasleep = \"suspend\"", Suspended),
    },
    Kind {
        name: RUNNING,
        made: Made::Summoned("network = \"netback\"\non_demand = false", Running),
    },
    Kind {
        name: BY_HATCH,
        made: Made::Program(&[HATCH, "create", "--no-pool"], &[HATCH, "destroy"]),
    },
    Kind {
        name: BY_XL,
        // -e: no xl stays in the background.
        made: Made::Program(&["xl", "create", "-e", "-q"], &["xl", "destroy"]),
    },
];

/// Targets of counted times: kind, limit in ticks.
pub(super) const TARGETS: [(&str, u64); 7] = [
    (COLD, 13_000_000),
    (ON_SWITCH, 1_450_000),
    (SMALL_ON_SWITCH, 1_250_000),
    (RUNNING_ON_SWITCH, 200_000),
    (POOL_ON_SWITCH, 400_000),
    (SUSPENDED_ON_SWITCH, 250_000),
    (FROM_POOL, 1_800_000),
];
/// Targets of timed figures: kind, greatest multiple of another kind's time, the other kind.
pub(super) const AT_MOST: [(&str, f64, &str); 2] =
    [(COLD, 1.3, BY_HATCH), (FROM_POOL, 5.0, RUNNING)];
/// Targets of timed figures: kind, least multiple of another kind's time, the other kind.
pub(super) const AT_LEAST: [(&str, f64, &str); 1] = [(BY_XL, 8.0, COLD)];
