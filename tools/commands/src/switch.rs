//! `hatch switch`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The default path of the control socket of the switch.
pub const SWITCH_SOCKET: &str = "/run/hatch/switch.sock";
/// The default path of the journal.
const JOURNAL: &str = "/run/hatch/switch.journal";

/// Serves as the network back end of guests, in place of netback: one process for all guests, with one TAP port on each bridge.
///
/// It runs until SIGTERM or SIGINT. When it is started again, its guests go on.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Switch {
    /// A command to run instead of serving.
    #[command(subcommand)]
    pub verb: Option<SwitchVerb>,

    /// A bridge to have a port on; may be given more than once.
    #[arg(long = "bridge", value_name = "BRIDGE", default_value = "xenbr0")]
    pub bridges: Vec<String>,

    /// The number of threads that move frames [default: one for every two CPUs of dom0, at most 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: Option<u8>,

    /// The path of the control socket.
    #[arg(long, value_name = "PATH", default_value = SWITCH_SOCKET)]
    pub socket: PathBuf,

    /// The file that lists the guests it serves, for its next start.
    #[arg(long, value_name = "PATH", default_value = JOURNAL)]
    pub journal: PathBuf,
}

/// The commands of `hatch switch` besides serving.
#[derive(Subcommand, Debug)]
pub enum SwitchVerb {
    /// Shows the ports, with frames, bytes and drops by cause.
    Status {
        /// Prints JSON.
        #[arg(long)]
        json: bool,

        /// The control socket of the switch.
        #[arg(long, value_name = "PATH", default_value = SWITCH_SOCKET)]
        socket: PathBuf,
    },
    /// Writes the traffic of a guest to standard output as a pcap file.
    Dump {
        /// The name of the guest.
        name: String,

        /// The greatest number of frames.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        frames: usize,

        /// The greatest number of bytes of each frame.
        #[arg(long, value_name = "N", default_value_t = 256)]
        snap: usize,

        /// The greatest number of bytes of the file.
        #[arg(long, value_name = "N", default_value_t = 16 << 20)]
        bytes: usize,

        /// The greatest number of seconds.
        #[arg(long, value_name = "N", default_value_t = 10)]
        seconds: u64,

        /// The control socket of the switch.
        #[arg(long, value_name = "PATH", default_value = SWITCH_SOCKET)]
        socket: PathBuf,
    },
    /// Does the handshake with guests through xenstore, in a process that is started again whenever it ends. The switch
    /// starts this by itself.
    #[command(hide = true)]
    Xenbus {
        /// The control socket of the switch.
        #[arg(long, value_name = "PATH", default_value = SWITCH_SOCKET)]
        socket: PathBuf,

        /// Is that process.
        #[arg(long)]
        once: bool,
    },
}

impl Switch {
    /// Whether errors are printed as JSON too.
    #[must_use]
    pub fn json(&self) -> bool {
        matches!(&self.verb, Some(SwitchVerb::Status { json: true, .. }))
    }
}
