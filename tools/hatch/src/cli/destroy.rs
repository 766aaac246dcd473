//! `hatch destroy`.

use clap::Args;
use mayfly_toolstack::builder::check_name;
use mayfly_toolstack::watch;
use rustix::thread::CapabilitySet;

use super::builder;
use super::domains::{self, Domains, Meant};
use super::exit::Failure;
use mayfly_commands::Exit;

/// Destroys guests at once, in any state, and removes everything that was created for them.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) domains: Domains,

    /// Also waits until the kernel has removed the network interface, which takes some tens of milliseconds.
    #[arg(long)]
    pub(crate) wait: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut builder = builder(CapabilitySet::empty())?;
    domains::each(&arguments.domains, "destroyed", |what| {
        // Otherwise `hatch watch` would restart a guest that has ended.
        let is_cancelled = check_name(what).is_ok() && watch::cancel(builder.store(), what)?;
        let (store, xen) = builder.ways();
        let destroyed = match domains::meant(store, xen, what) {
            Err(failure) if failure.exit == Exit::NoSuchDomain && is_cancelled => return Ok(None),
            Err(failure) => return Err(failure),
            Ok(Meant::Domain(domid)) => builder.destroy(domid, arguments.domains.force)?,
            Ok(Meant::Remainder(entry)) => {
                let destroyed = builder.destroy_entry(&entry)?;
                let info = builder.xen().info(entry.domid)?;
                if entry.has_successor(info.as_ref()) {
                    return Ok(Some(destroyed.domid));
                }
                destroyed
            }
        };
        if arguments.wait {
            builder.settle(destroyed.domid)?;
        }
        Ok(Some(destroyed.domid))
    })
}
