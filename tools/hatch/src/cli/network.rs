//! `hatch network`.

use clap::Args;
use mayfly_toolstack::privileges;
use serde_json::json;

use super::back_ends::NetworkName;
use super::builder;
use super::domains;
use super::exit::Failure;

/// Gives a running guest another network back end.
///
/// Its connections go on, and frames that arrive meanwhile are delivered. The switch has to be running, and to have a port
/// on the guest's bridge. Services of `hatch summon` cannot be moved: their back end is in its configuration.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The name or the number of the guest.
    #[arg(value_name = "DOMAIN")]
    domain: String,

    /// The back end.
    #[arg(value_name = "WHO", value_enum)]
    network: NetworkName,

    /// Also moves a guest that another toolstack created.
    #[arg(long)]
    force: bool,

    /// Prints JSON, one object.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut builder = builder(privileges::PORTS)?;
    let (store, xen) = builder.ways();
    let domid = domains::found(store, xen, &arguments.domain, arguments.force)?;
    let network = arguments.network.into();
    let is_moved = builder.move_network(domid, network).map_err(|error| {
        let failure = Failure::from(error);
        let message = format!("{}: {}", arguments.domain, failure.message);
        Failure::new(failure.exit, message)
    })?;
    if arguments.json {
        println!(
            "{}",
            json!({ "domid": domid, "network": network, "moved": is_moved })
        );
    } else if !is_moved {
        println!("{} is there already", arguments.domain);
    }
    Ok(())
}
