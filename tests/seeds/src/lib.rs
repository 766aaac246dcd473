//! The seed of all random tests, the same in every run.
//!
//! So `cargo xtask test` passes or fails for the same reason on every machine. Two environment variables change the
//! seed and the number of cases, and `cargo xtask fuzz` sets both:
//!
//! - `MAYFLY_SEED=7` sets another seed;
//! - `MAYFLY_SCALE=10` makes ten times as many cases.
//!
//! A property test takes its configuration from [`cases`]; a test with a generator of its own takes
//! [`seed`] and [`scaled`]. Each prints how to repeat it, which the test harness shows if the test
//! fails. A case that has failed becomes a named test of its own.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use proptest::test_runner::{Config, RngSeed};

/// The default seed.
pub const FIXED: u64 = 20_260_101;
/// The variable that sets another seed: a decimal number of 64 bits.
pub const SEED: &str = "MAYFLY_SEED";
/// The variable that multiplies the number of cases: a decimal number, at least 1.
pub const SCALE: &str = "MAYFLY_SCALE";

/// The configuration of a property test that has `cases` cases in a usual run.
///
/// `proptest!` begins with `#![proptest_config(mayfly_seeds::cases(500))]`; `cargo xtask check` looks for it.
///
/// # Panics
/// If one of the variables is not a number.
#[must_use]
pub fn cases(cases: u32) -> Config {
    let config = Config {
        cases: u32::try_from(scaled(cases.into())).unwrap_or(u32::MAX),
        rng_seed: RngSeed::Fixed(seed()),
        // A file beside the test would make this run differ from those on other machines.
        failure_persistence: None,
        ..Config::default()
    };
    eprintln!("{} cases; {}", config.cases, repeat(seed()));
    config
}

/// The seed of this run.
///
/// # Panics
/// If `MAYFLY_SEED` is not a number.
#[must_use]
pub fn seed() -> u64 {
    named_seed().unwrap_or(FIXED)
}

/// The seed in `MAYFLY_SEED`, if it is set.
///
/// # Panics
/// If it is not a number.
#[must_use]
pub fn named_seed() -> Option<u64> {
    number(SEED, std::env::var(SEED).ok().as_deref())
}

/// The factor in `MAYFLY_SCALE`; `None` if it is not set.
///
/// # Panics
/// If it is not a number, or is 0.
#[must_use]
pub fn named_scale() -> Option<u64> {
    let scale = number(SCALE, std::env::var(SCALE).ok().as_deref());
    assert_ne!(scale, Some(0), "{SCALE}=0 would test nothing");
    scale
}

/// `cases` times the factor in `MAYFLY_SCALE`.
///
/// # Panics
/// If it is not a number, or is 0.
#[must_use]
pub fn scaled(cases: u64) -> u64 {
    cases.saturating_mul(named_scale().unwrap_or(1))
}

/// The command that repeats the running test with this seed.
#[must_use]
pub fn repeat(seed: u64) -> String {
    let mut command = format!("repeat: {SEED}={seed} ");
    if let Some(scale) = named_scale() {
        let _ = write!(command, "{SCALE}={scale} ");
    }
    command.push_str("cargo test");
    if let Ok(package) = std::env::var("CARGO_PKG_NAME") {
        let _ = write!(command, " --package {package}");
    }
    // libtest runs a test in a thread that has its name.
    if let Some(test) = std::thread::current().name().filter(|name| *name != "main") {
        let _ = write!(command, " {test}");
    }
    command
}

fn number(name: &str, value: Option<&str>) -> Option<u64> {
    let value = value?;
    let Ok(number) = value.replace('_', "").parse() else {
        panic!("{name}={value} is no number");
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    use super::*;

    fn drawn() -> Vec<u64> {
        let mut runner = TestRunner::new(cases(8));
        let mut draw = || {
            proptest::num::u64::ANY
                .new_tree(&mut runner)
                .unwrap()
                .current()
        };
        (0..8).map(|_| draw()).collect()
    }

    #[test]
    fn two_runs_draw_the_same() {
        assert_eq!(drawn(), drawn());
    }

    #[test]
    fn numbers_are_read_or_refused() {
        assert_eq!(number(SEED, None), None);
        assert_eq!(number(SEED, Some("20_260_101")), Some(FIXED));
        for wrong in ["", "x", "-1", "18446744073709551616"] {
            assert!(std::panic::catch_unwind(|| number(SEED, Some(wrong))).is_err());
        }
    }

    #[test]
    fn a_failure_says_how_to_repeat_it() {
        let command = repeat(7);
        assert!(command.starts_with("repeat: MAYFLY_SEED=7 "), "{command}");
        let end = "cargo test --package mayfly-seeds tests::a_failure_says_how_to_repeat_it";
        assert!(command.ends_with(end), "{command}");
    }
}
