//! End-to-end tests: real guests on a real Xen, with real xenstored, xl and netback. `cargo xtask test` runs them.
#![forbid(unsafe_code)]

mod abuse;
mod birth;
mod care;
mod cases;
mod config;
mod copies;
mod documents;
mod faults;
mod guard;
mod handshake;
mod hatch;
mod index;
mod liar;
mod lifecycle;
mod moves;
mod pair;
mod pool;
mod replug;
mod site;
mod store;
mod storm;
mod summon;
mod switch;
mod watch;
mod words;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Conclusion, Trial};
use mayfly_lab::{Lab, Options, Xenstored};

use birth::{Maker, Place};
use cases::{CASES, Case, CaseFunction, OTHER_DOM0, STORE, XL};

/// The running lab of a group of cases, with its name.
type Current = Arc<Mutex<Option<(String, Place)>>>;

/// Runs one case in its lab, which is started if another one, or none, is up.
fn run(
    current: &Current,
    options: &Options,
    maker: Maker,
    case: impl FnOnce(&Place) -> Result<()>,
) -> Result<()> {
    // A case that panicked has left no inconsistent state: its guest was destroyed by unwinding.
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    if current
        .as_ref()
        .is_none_or(|(name, _)| *name != options.name)
    {
        *current = None;
        if let Ok(stale) = Lab::attach(&options.name) {
            stale.down()?;
        }
        let lab = Lab::up(options, &|_| {})?;
        *current = Some((options.name.clone(), Place::new(lab, options.xenconsoled)?));
    }
    let (_, place) = current.as_ref().context("no lab")?;
    place.maker.set(maker);
    let result = case(place).and_then(|()| place.nothing_left());
    if result.is_err() {
        // A failed case may have left anything. The next case gets a fresh lab, so that it does not fail for the same
        // reason.
        *current = None;
    }
    result
}

fn trials(
    prefix: &str,
    cases: &[Case],
    maker: Maker,
    options: &Options,
    current: &Current,
) -> Vec<Trial> {
    trials_in(prefix, cases, (maker, options), current, |place, case| {
        case(place)
    })
}

/// The same of cases that are run by another function.
fn trials_in(
    prefix: &str,
    cases: &[Case],
    (maker, options): (Maker, &Options),
    current: &Current,
    how: fn(&Place, CaseFunction) -> Result<()>,
) -> Vec<Trial> {
    cases
        .iter()
        .map(|&(title, case)| {
            let (options, current) = (options.clone(), Arc::clone(current));
            Trial::test(format!("{prefix}: {title}"), move || {
                let done = run(&current, &options, maker, |place| how(place, case));
                done.map_err(|e| format!("{e:#}").into())
            })
        })
        .collect()
}

/// Whether the run may take hours.
fn is_long() -> bool {
    std::env::var_os("MAYFLY_ABUSE").is_some()
}

/// The number of repetitions in tests that repeat.
fn cycles(default: u32) -> Result<u32> {
    let cycles = std::env::var("MAYFLY_CYCLES").ok();
    cycles
        .map_or(Ok(default), |text| text.parse())
        .context("MAYFLY_CYCLES")
}

/// The xenstored of all labs that are not about another one: the C xenstored, or what `MAYFLY_XENSTORED` names.
fn usual_xenstored() -> Xenstored {
    match std::env::var("MAYFLY_XENSTORED").as_deref() {
        Ok("hatch") => Xenstored::Hatch,
        _ => Xenstored::C,
    }
}

/// Runs cases one after the other, and takes their last lab down.
fn run_all(arguments: &Arguments, trials: Vec<Trial>, current: &Current) -> Conclusion {
    let conclusion = libtest_mimic::run(arguments, trials);
    *current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    conclusion
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let usual = |options| Options {
        xenstored: usual_xenstored(),
        ..options
    };
    let (xl, hatch) = ("e2e-xl", "e2e-hatch");
    let (xl_on_c, hatch_on_c) = (Options::named(xl), Options::named(hatch));
    let (xl, hatch) = (usual(xl_on_c.clone()), usual(hatch_on_c.clone()));
    let store = store::options();
    let other = |name| Options {
        xenstored: Xenstored::Ocaml,
        xenconsoled: false,
        ..Options::named(name)
    };
    let (xl_other, hatch_other) = (other("e2e-xl-ocaml"), other("e2e-hatch-ocaml"));
    let summoned = usual(summon::options());
    // Cases that do not depend on the maker run with both makers, and completely, only in the long run.
    let (site, abuse, borne): (_, _, &[Case]) = match is_long() {
        true => (site::CASES, abuse::CASES, abuse::CASES),
        false => (site::BRIEF, abuse::BRIEF, &[]),
    };
    let current = Current::default();
    let by = |prefix, cases, options| trials(prefix, cases, Maker::Xl, options, &current);
    let by_xl = [
        by("C xenstored", CASES, &xl),
        by("C xenstored", XL, &xl),
        by("site", site::CASES, &xl),
        by("abuse", abuse, &xl),
        by("C xenstored", replug::CASES, &xl),
        by("C xenstored", lifecycle::CASES, &xl),
        by("hatch xenstored, xl", store::TAKEOVER, &xl_on_c),
        by("oxenstored, no xenconsoled", OTHER_DOM0, &xl_other),
        by("oxenstored, no xenconsoled", replug::CASES, &xl_other),
        by("oxenstored, no xenconsoled", lifecycle::CASES, &xl_other),
    ];
    let by_xl = (by_xl.into_iter().flatten().collect(), current);
    let current = Current::default();
    let by = |prefix, cases, options| trials(prefix, cases, Maker::Hatch, options, &current);
    let by_hatch = [
        by("hatch", CASES, &hatch),
        by("hatch", hatch::CASES, &hatch),
        by("hatch, index", config::CASES, &hatch),
        by("hatch, words", words::CASES, &hatch),
        by("hatch, index", index::CASES, &hatch),
        by("guard", guard::CASES, &hatch),
        by("hatch, faults", faults::CASES, &hatch),
        by("hatch, pool", pool::CASES, &hatch),
        by("hatch", lifecycle::BY_HATCH, &hatch),
        by("hatch", copies::CASES, &hatch),
        by("hatch xenstored", store::TAKEOVER, &hatch_on_c),
        by("hatch, watch", watch::CASES, &hatch),
        by("switch", switch::CASES, &hatch),
        by("switch", handshake::CASES, &hatch),
        by("switch", moves::CASES, &hatch),
        by("switch", pair::CASES, &hatch),
        by("hatch, site", site, &hatch),
        by("hatch, abuse", borne, &hatch),
        by("hatch, oxenstored", OTHER_DOM0, &hatch_other),
        by("hatch, oxenstored", hatch::OTHER_DOM0, &hatch_other),
        by("hatch, oxenstored", lifecycle::OTHER_DOM0, &hatch_other),
        by("hatch xenstored", store::OTHER_DOM0, &hatch_other),
        by("switch, oxenstored", switch::OTHER_DOM0, &hatch_other),
        by("hatch xenstored", store::CASES, &store),
        by("hatch xenstored", hatch::OTHER_DOM0, &store),
        trials("hatch xenstored, xl", STORE, Maker::Xl, &store, &current),
    ];
    let documents = documents::trials(&hatch, &current);
    let by_hatch = by_hatch.into_iter().flatten().chain(documents);
    let by_hatch = (by_hatch.collect(), current);
    let current = Current::default();
    let by = |prefix, cases, options| trials(prefix, cases, Maker::Hatch, options, &current);
    let on_switch = |prefix, cases| {
        let which = (Maker::Hatch, &summoned);
        trials_in(prefix, cases, which, &current, switch::under)
    };
    let by_summon = [
        on_switch("summon", summon::CASES),
        on_switch("summon", care::CASES),
        by("switch", liar::CASES, &summoned),
        by("summon", summon::BACK_ENDS, &summoned),
        by("summon, netback", summon::ON_NETBACK, &summoned),
        on_switch("summon, abuse", storm::CASES),
        by("summon, abuse", storm::XENSTORED, &storm::options()),
    ];
    let by_summon = (by_summon.into_iter().flatten().collect(), current);
    // A lab has one CPU and is mostly waiting, so two CPUs are enough for three labs. With fewer, the time limits would
    // be meaningless.
    let is_parallel = thread::available_parallelism().is_ok_and(|cpus| cpus.get() >= 2);
    let arguments = &arguments;
    let run = |(trials, current)| run_all(arguments, trials, &current);
    let conclusions = if is_parallel {
        thread::scope(|scope| {
            [by_xl, by_hatch, by_summon]
                .map(|group| scope.spawn(move || run(group)))
                .map(|group| group.join().map(|conclusion| conclusion.has_failed()))
        })
    } else {
        [by_xl, by_hatch, by_summon].map(|group| Ok(run(group).has_failed()))
    };
    if conclusions
        .into_iter()
        .all(|failed| matches!(failed, Ok(false)))
    {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
