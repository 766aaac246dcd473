//! `hatch destroy`.

use clap::Args;
use hatch::builder::Builder;

use super::BOUND;
use super::domains::{self, Domains};
use super::exit::Failure;

/// Ends guests at once, whatever state they are in, and removes all that was made for them.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) domains: Domains,

    /// Waits until the kernel has let go of its interface as well, some tens of milliseconds later.
    #[arg(long)]
    pub(crate) wait: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut builder = Builder::open(BOUND)?;
    domains::each(&arguments.domains, "destroyed", |what| {
        let domid = domains::domid(builder.store(), what)?;
        let destroyed = builder.destroy(domid, arguments.domains.force)?;
        if arguments.wait {
            builder.settle(domid)?;
        }
        Ok(destroyed.domid)
    })
}
