//! `hatch switch`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where the switch listens.
pub const SWITCH_SOCKET: &str = "/run/hatch/switch.sock";
/// Where it writes down whom it serves.
const JOURNAL: &str = "/run/hatch/switch.journal";

/// Serves the network of guests, in netback's place: one process for all, with a port of its own on each bridge.
///
/// It runs until it gets SIGTERM or SIGINT. The guests that it serves go on when it starts again.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Switch {
    /// In place of serving.
    #[command(subcommand)]
    pub verb: Option<SwitchVerb>,

    /// The bridges that it has ports on.
    #[arg(long = "bridge", value_name = "BRIDGE", default_value = "xenbr0")]
    pub bridges: Vec<String>,

    /// Where it listens.
    #[arg(long, value_name = "PATH", default_value = SWITCH_SOCKET)]
    pub socket: PathBuf,

    /// Where it writes down whom it serves, for the next one.
    #[arg(long, value_name = "PATH", default_value = JOURNAL)]
    pub journal: PathBuf,
}

/// What else there is to do than to serve.
#[derive(Subcommand, Debug)]
pub enum SwitchVerb {
    /// Tells what comes of the guests' frames.
    Status {
        /// Prints JSON.
        #[arg(long)]
        json: bool,

        /// Where the switch listens.
        #[arg(long, value_name = "PATH", default_value = SWITCH_SOCKET)]
        socket: PathBuf,
    },
    /// Records a guest's traffic as a pcap file, on standard output.
    Dump {
        /// The guest.
        name: String,

        /// Frames at most.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        frames: usize,

        /// Bytes of each frame.
        #[arg(long, value_name = "N", default_value_t = 256)]
        snap: usize,

        /// Bytes of the file at most.
        #[arg(long, value_name = "N", default_value_t = 16 << 20)]
        bytes: usize,

        /// Seconds at most.
        #[arg(long, value_name = "N", default_value_t = 10)]
        seconds: u64,

        /// Where the switch listens.
        #[arg(long, value_name = "PATH", default_value = SWITCH_SOCKET)]
        socket: PathBuf,
    },
}

impl Switch {
    /// Whether an error is wanted as JSON as well.
    #[must_use]
    pub fn json(&self) -> bool {
        matches!(&self.verb, Some(SwitchVerb::Status { json: true, .. }))
    }
}
