//! `hatch pack`.

use std::path::PathBuf;

use clap::Args;

/// Packs zones and files into one file that the guest serves, or looks at such a file.
#[derive(Args, Debug)]
pub struct Pack {
    /// The site's folder: `zones/*.zone`, `www/`, and if need be `mayfly.toml`. With `--check` and `--list`, the pack.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// The file to write.
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["check", "list"], conflicts_with_all = ["check", "list"])]
    pub output: Option<PathBuf>,

    /// Checks a pack, with its checksum, as the guest will read it.
    #[arg(long, conflicts_with = "list")]
    pub check: bool,

    /// Lists what is in a pack.
    #[arg(long)]
    pub list: bool,

    /// Lists the records of its zones instead, as a master file has them.
    #[arg(long, requires = "list", conflicts_with = "json")]
    pub records: bool,

    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}
