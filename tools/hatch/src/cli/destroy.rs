//! `hatch destroy`.

use clap::Args;
use mayfly_toolstack::watch;
use rustix::thread::CapabilitySet;

use super::builder;
use super::domains::{self, Domains};
use super::exit::Failure;
use mayfly_commands::Exit;

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
    let mut builder = builder(CapabilitySet::empty())?;
    domains::each(&arguments.domains, "destroyed", |what| {
        let domid = match domains::domid(builder.store(), what) {
            // It has ended, and would be made again.
            Err(failure)
                if failure.exit == Exit::NoSuchDomain && watch::cancel(builder.store(), what)? =>
            {
                return Ok(None);
            }
            domid => domid?,
        };
        let destroyed = builder.destroy(domid, arguments.domains.force)?;
        if arguments.wait {
            builder.settle(domid)?;
        }
        Ok(Some(destroyed.domid))
    })
}
