//! Real guests on a real Xen, with real xenstored, xl and netback; `cargo xtask test` runs it.
#![forbid(unsafe_code)]

mod abuse;
mod birth;
mod cases;
mod faults;
mod guard;
mod hatch;
mod site;
mod watch;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Trial};
use mayfly_lab::{Lab, Options, Xenstored};

use birth::{Maker, Place};
use cases::{CASES, Case, OTHER_DOM0, XL};

/// The lab that is up, under the name it was asked for; there is one at a time, since two on few cores would make every bound meaningless.
type Current = Arc<Mutex<Option<(String, Place)>>>;

/// Runs one case in the lab it wants, which is started if another one, or none, is up.
fn run(
    current: &Current,
    options: &Options,
    maker: Maker,
    case: fn(&Place) -> Result<()>,
) -> Result<()> {
    // A case that panicked has left no half-made state: its guest was destroyed on the way.
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
    case(place)?;
    place.nothing_left()
}

fn trials(
    prefix: &str,
    cases: &[Case],
    maker: Maker,
    options: &Options,
    current: &Current,
) -> Vec<Trial> {
    cases
        .iter()
        .map(|&(title, case)| {
            let (options, current) = (options.clone(), Arc::clone(current));
            Trial::test(format!("{prefix}: {title}"), move || {
                run(&current, &options, maker, case).map_err(|e| format!("{e:#}").into())
            })
        })
        .collect()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let usual = Options::named("e2e-c");
    let other = Options {
        xenstored: Xenstored::Ocaml,
        xenconsoled: false,
        ..Options::named("e2e-ocaml")
    };
    let current = Current::default();
    let by = |maker, prefix, cases, options| trials(prefix, cases, maker, options, &current);
    // What is the guest's to do or to bear, whoever has made it, only the long run tries with both makers.
    let is_long = std::env::var_os("MAYFLY_ABUSE").is_some();
    let (site, abuse) = match is_long {
        true => (site::CASES, abuse::CASES),
        false => (site::BRIEF, &[] as &[Case]),
    };
    let all = [
        by(Maker::Xl, "C xenstored", CASES, &usual),
        by(Maker::Xl, "C xenstored", XL, &usual),
        by(Maker::Xl, "site", site::CASES, &usual),
        by(Maker::Xl, "abuse", abuse::CASES, &usual),
        by(Maker::Hatch, "hatch", CASES, &usual),
        by(Maker::Hatch, "hatch", hatch::CASES, &usual),
        by(Maker::Hatch, "guard", guard::CASES, &usual),
        by(Maker::Hatch, "hatch, faults", faults::CASES, &usual),
        by(Maker::Hatch, "hatch, watch", watch::CASES, &usual),
        by(Maker::Hatch, "hatch, site", site, &usual),
        by(Maker::Hatch, "hatch, abuse", abuse, &usual),
        by(Maker::Xl, "oxenstored, no xenconsoled", OTHER_DOM0, &other),
        by(Maker::Hatch, "hatch, oxenstored", OTHER_DOM0, &other),
        by(Maker::Hatch, "hatch, oxenstored", hatch::OTHER_DOM0, &other),
    ];
    let all = all.into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, all);
    *current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    conclusion.exit_code()
}
