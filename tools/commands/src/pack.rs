//! `hatch pack`.

use std::path::PathBuf;

use clap::Args;

/// Packs zone files and a web root into one file (a pack) that the guest serves. Also checks and lists packs.
#[derive(Args, Debug)]
pub struct Pack {
    /// The site's folder, with `zones/*.zone`, `www/` and an optional `mayfly.toml`. With `--check` or `--list`: a pack.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Writes the pack to this file.
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["check", "list"], conflicts_with_all = ["check", "list"])]
    pub output: Option<PathBuf>,

    /// Checks a pack and its checksum, by the same code that the guest reads it with.
    #[arg(long, conflicts_with = "list")]
    pub check: bool,

    /// Lists the contents of a pack.
    #[arg(long)]
    pub list: bool,

    /// Lists the DNS records of the pack in master file format.
    #[arg(long, requires = "list", conflicts_with = "json")]
    pub records: bool,

    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}
