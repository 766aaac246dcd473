//! `hatch completions` and `hatch man`: from the same description that the command line is read with.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::exit::Failure;

/// Writes the completion script of a shell to standard output.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Writes the manual page to standard output, or one page for each verb into a folder.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// An existing folder for the pages.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut super::Arguments::command(),
        "hatch",
        &mut text,
    );
    write(&text)
}

pub(crate) fn man(arguments: &Man) -> Result<(), Failure> {
    let command = super::Arguments::command();
    if let Some(dir) = &arguments.dir {
        clap_mangen::generate_to(command, dir).with_context(|| dir.display().to_string())?;
        return Ok(());
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut text)
        .context("the manual page")?;
    write(&text)
}

fn write(text: &[u8]) -> Result<(), Failure> {
    Ok(stdout().write_all(text).context("standard output")?)
}
