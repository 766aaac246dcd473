//! `hatch pack`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};
use mayfly_pack::{self as pack, Options};
use mayfly_site::Pack;

/// Packs zones and files into one file that the guest serves, or looks at such a file.
#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true).args(["site", "check", "list"]))]
pub(crate) struct Arguments {
    /// The site's folder: `zones/*.zone`, `www/`, and if need be `mayfly.toml`.
    #[arg(value_name = "SITE_DIR", requires = "output")]
    site: Option<PathBuf>,

    /// The file to write.
    #[arg(short, long, value_name = "FILE", requires = "site")]
    output: Option<PathBuf>,

    /// Checks a pack, with its checksum, as the guest will read it.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,

    /// Lists what is in a pack.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,

    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(file) = &arguments.check {
        return check(file);
    }
    if let Some(file) = &arguments.list {
        return list(file, arguments.json);
    }
    let (Some(site), Some(output)) = (&arguments.site, &arguments.output) else {
        bail!("a folder and a file to write are needed");
    };
    pack(site, output, arguments.json)
}

fn pack(site: &Path, output: &Path, json: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    let packed = match pack::pack_dir(site, &Options::default()) {
        Ok(packed) => packed,
        Err(problems) => {
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
    match pack::check(&read(file)?) {
        Ok(seen) => {
            println!(
                "{}: right: {} zones with {} names and {} records, {} paths",
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
            bail!("{} is not a pack to be served", file.display())
        }
    }
}

fn list(file: &Path, json: bool) -> anyhow::Result<()> {
    let octets = read(file)?;
    let pack = Pack::open(&octets).with_context(|| file.display().to_string())?;
    let Ok(listing) = pack::list(&pack) else {
        bail!("{} contradicts itself: see --check", file.display());
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&listing)?);
    } else {
        println!("{listing}");
    }
    Ok(())
}
