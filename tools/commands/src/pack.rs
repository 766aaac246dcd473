//! `hatch pack`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

/// Packs zones and files into one file that the guest serves, or looks at such a file.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["site", "check", "list"]))]
pub struct Pack {
    /// The site's folder: `zones/*.zone`, `www/`, and if need be `mayfly.toml`.
    #[arg(value_name = "SITE_DIR", requires = "output")]
    pub site: Option<PathBuf>,

    /// The file to write.
    #[arg(short, long, value_name = "FILE", requires = "site")]
    pub output: Option<PathBuf>,

    /// Checks a pack, with its checksum, as the guest will read it.
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,

    /// Lists what is in a pack.
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,

    /// Lists the records of its zones instead, as a master file has them.
    #[arg(long, requires = "list", conflicts_with = "json")]
    pub records: bool,

    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}
