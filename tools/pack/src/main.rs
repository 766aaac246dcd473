//! `hatch-pack`, the program behind `hatch pack`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use mayfly_commands::{Exit, message};
use mayfly_pack::Options;
use mayfly_site::Pack;

#[derive(Parser)]
#[command(name = "hatch pack", bin_name = "hatch pack")]
struct Arguments {
    #[command(flatten)]
    pack: mayfly_commands::Pack,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().pack) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hatch: {}", message(&*error));
            ExitCode::from(Exit::Failed as u8)
        }
    }
}

fn run(arguments: &mayfly_commands::Pack) -> anyhow::Result<()> {
    let path = &arguments.path;
    if let Some(output) = &arguments.output {
        pack(path, output, arguments.json)
    } else if arguments.check {
        check(path)
    } else if arguments.records {
        records(path)
    } else {
        list(path, arguments.json)
    }
}

fn pack(site: &Path, output: &Path, json: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    let packed = match mayfly_pack::pack_dir(site, &Options::default()) {
        Ok(packed) => packed,
        Err(problems) => {
            if let Some(warnings) = problems.warnings() {
                eprintln!("{warnings}");
            }
            eprintln!("{problems}");
            match problems.count() {
                1 => bail!("nothing was written, as there is an error"),
                count => bail!("nothing was written, as there are {count} errors"),
            }
        }
    };
    if packed.warnings.count() > 0 {
        eprintln!("{}", packed.warnings);
    }
    packed
        .save(output)
        .with_context(|| output.display().to_string())?;
    if json {
        println!("{}", serde_json::to_string(&packed.summary)?);
    } else {
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{}: {}, in {seconds:.1} s",
            output.display(),
            packed.summary
        );
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| file.display().to_string())
}

fn check(file: &Path) -> anyhow::Result<()> {
    match mayfly_pack::check(&read(file)?) {
        Ok(seen) => {
            println!(
                "{}: valid: {} zones with {} names and {} records, {} paths",
                file.display(),
                seen.zones,
                seen.nodes,
                seen.records,
                seen.paths
            );
            Ok(())
        }
        Err(problems) => {
            for problem in &problems {
                eprintln!("{}: {problem}", file.display());
            }
            bail!("{} is not a valid pack", file.display())
        }
    }
}

fn records(file: &Path) -> anyhow::Result<()> {
    let bytes = read(file)?;
    let pack = Pack::open(&bytes).with_context(|| file.display().to_string())?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    mayfly_pack::print_records(&pack, &mut out).with_context(|| file.display().to_string())?;
    out.flush()?;
    Ok(())
}

fn list(file: &Path, json: bool) -> anyhow::Result<()> {
    let bytes = read(file)?;
    let pack = Pack::open(&bytes).with_context(|| file.display().to_string())?;
    let Ok(listing) = mayfly_pack::list(&pack) else {
        bail!("{} is inconsistent: see --check", file.display());
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&listing)?);
    } else {
        println!("{listing}");
    }
    Ok(())
}
