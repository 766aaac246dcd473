//! `cargo xtask bench`: the cost of serving ([`serve`]), of many guests ([`density`]), of waking a service
//! ([`summon`]), and of a boot, compared with the do-nothing guest and a trimmed Linux.
//!
//! Counted, on the deterministic lab, the figures are instructions, and two runs give the same. They change by a
//! percent or two when anything in dom0's initramfs changes, the measured guest included. So figures are compared with
//! a margin, and those of two guests only within one run. Timed, they are real time on an emulated machine, tens of
//! times slower than real hardware: only their ratios are meaningful.

mod density;
pub(crate) mod figures;
pub(crate) mod job;
mod picture;
mod serve;
pub(crate) mod snapshot;
mod summon;
mod vmlinux;

use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use mayfly_lab::Report;
use mayfly_stamp::Neighbour;

use self::figures::{Figures, Spread};
use self::job::{By, Kind, Plan, Subject};
use crate::progress::Progress;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// The cost of a boot, compared with the do-nothing guest and a trimmed Linux
    Boot(Boot),
    /// The cost of one more guest when there are many, made by hatch and by xl
    Density(density::Density),
    /// The speed of serving, compared with Linux with NSD and nginx
    Serve(serve::Serve),
    /// The time from a client's SYN to its SYN-ACK, when there is no guest yet
    Summon(summon::Summon),
}

#[derive(Args)]
pub(crate) struct Boot {
    /// Count instructions on a deterministic machine instead of timing
    #[arg(long)]
    counted: bool,
    /// Births of each guest that count; one more is made first and dropped [default: 5 counted, 20 timed]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    births: Option<u32>,
    /// Measure this guest only; may be given again for another
    #[arg(long = "guest", value_enum)]
    guests: Vec<Kind>,
    /// Use this maker only; may be given again for another
    #[arg(long, value_enum)]
    by: Vec<By>,
    /// Measure mayfly with a pack of 1,000 and with one of 1,000,000 names: nothing at boot may grow with the pack
    #[arg(long, conflicts_with_all = ["guests", "by", "record"])]
    site: bool,
    /// Let dom0 forget the guest's link address before each birth, so that its client has to resolve it
    #[arg(long)]
    cold: bool,
    /// Write every birth as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the parts of one birth's time, and all births, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Record mayfly's figures in tests/snapshots/boot.json, for `cargo xtask test` to compare with
    #[arg(long, conflicts_with_all = ["births", "guests", "by", "cold", "json", "picture"])]
    record: bool,
}

pub(crate) fn run(task: Bench) -> Result<ExitCode> {
    let boot = match task {
        Bench::Boot(boot) => boot,
        Bench::Density(density) => return density::run(&density).map(|()| ExitCode::SUCCESS),
        Bench::Serve(serve) => return serve::run(&serve).map(|()| ExitCode::SUCCESS),
        Bench::Summon(summon) => return summon::run(&summon).map(|()| ExitCode::SUCCESS),
    };
    let progress = Progress::new();
    let step = |text: &str| progress.step(text);
    if boot.record {
        let figures = recorded(&step)?;
        progress.finish();
        println!("{}", figures::targets(&figures)?);
        let medians = figures::by_name(&figures, Spread::median);
        snapshot::write(snapshot::BOOT, &medians)?;
        return Ok(ExitCode::SUCCESS);
    }
    let births = boot.births.unwrap_or(if boot.counted { 5 } else { 20 });
    let plan = Plan {
        subjects: if boot.site {
            [Kind::MayflySmall, Kind::MayflyLarge]
                .map(Subject::by_xl)
                .into()
        } else {
            Subject::all(&boot.guests, &boot.by)
        },
        counted: boot.counted,
        births: births + 1,
        traced: 1,
        neighbour: if boot.cold {
            Neighbour::Cold
        } else {
            Neighbour::Warm
        },
    };
    let report = plan.run("bench", &step)?;
    progress.finish();
    if let Some(path) = &boot.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &boot.picture {
        let unit = if boot.counted { "virtual ms" } else { "lab ms" };
        let picture = picture::births(&plan.subjects, &report, unit)?;
        fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let all = plan
        .subjects
        .iter()
        .map(|subject| Figures::new(*subject, &report))
        .collect::<Result<Vec<_>>>()?;
    println!("{}", figures::table(&all, report.tsc_hz, boot.counted)?);
    let of = |kind| all.iter().find(|f| f.subject == Subject::by_xl(kind));
    if let (Some(small), Some(large)) = (of(Kind::MayflySmall), of(Kind::MayflyLarge)) {
        println!("{}", figures::grown(small, large)?);
    }
    if boot.counted {
        println!("{}", figures::targets(&all)?);
    } else {
        println!("{}", figures::ratios(&all)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Part of `cargo xtask test`: checks that two counted runs give the same figures, and that no figure has grown beyond
/// the recorded one.
///
/// The recorded figure is a median, and the least of the new births is compared with it. The bits of dom0's initramfs
/// depend on the folder that it is built in, and with them the phase of dom0's ticks. A tick costs some 13,000
/// instructions, which is more than the margin of a short span: in one folder it falls into one birth in five, in
/// another into every second one. A cost that the code itself has gained is in every birth, the least one too.
///
/// # Errors
/// The errors of the lab; figures that differ between the runs; and each figure that has grown, old and new.
pub(crate) fn gate(report: Report<'_>) -> Result<()> {
    let boot = figures::by_name(&recorded(report)?, Spread::least);
    let summon = summon::recorded(report, Spread::least)?;
    let grown = [(snapshot::BOOT, boot), (snapshot::SUMMON, summon)]
        .iter()
        .filter_map(|(name, figures)| snapshot::compare(name, figures).err())
        .map(|e| format!("{e:#}"))
        .collect::<Vec<_>>();
    ensure!(grown.is_empty(), "{}", grown.join("\n"));
    Ok(())
}

/// mayfly's recorded figures.
fn recorded(report: Report<'_>) -> Result<Vec<Figures>> {
    let plan = Plan {
        subjects: Subject::all(&[Kind::Mayfly], &[By::Xl, By::Hatch, By::Pool]),
        counted: true,
        births: 6,
        traced: 1,
        neighbour: Neighbour::Warm,
    };
    let run = twice("bench", report, |name, report| plan.run(name, report))?;
    let figures = |subject: &Subject| Figures::new(*subject, &run);
    plan.subjects.iter().map(figures).collect()
}

/// Counts twice at the same time, in labs with this name. Returns the common result.
fn twice<T: PartialEq + Debug + Send>(
    name: &str,
    report: Report<'_>,
    run: impl Fn(&str, Report<'_>) -> Result<T> + Sync,
) -> Result<T> {
    let (first, second) = thread::scope(|scope| {
        let other = scope.spawn(|| run(&format!("{name}-again"), &|_| {}));
        (run(name, report), other.join())
    });
    let second = second.map_err(|_| anyhow::anyhow!("the second run panicked"))?;
    let (first, second) = (first?, second?);
    ensure!(
        first == second,
        "two counted runs differ: the lab is not deterministic\n{first:?}\n{second:?}"
    );
    Ok(first)
}
