//! `hatch xenstored`.

use std::path::PathBuf;

use clap::Args;

/// Runs xenstored in dom0, in the place of Xen's own: the tree by which toolstacks, back ends and guests find each other.
///
/// The options are those of Xen's C xenstored, by the same names. It goes to the background when it can be asked, unless `--no-fork` says that it
/// is supervised; systemd is told when it is ready.
#[derive(Args, Debug)]
pub struct Xenstored {
    /// Stays in the foreground.
    #[arg(short = 'N', long)]
    pub no_fork: bool,

    /// Where it writes its process' number.
    #[arg(short = 'F', long, value_name = "PATH")]
    pub pid_file: Option<PathBuf>,

    /// Nodes that an unprivileged domain may own.
    #[arg(short = 'E', long, value_name = "N")]
    pub entry_nb: Option<usize>,

    /// Bytes that a node of an unprivileged domain may have.
    #[arg(short = 'S', long, value_name = "BYTES")]
    pub entry_size: Option<usize>,

    /// Watches that an unprivileged domain may have.
    #[arg(short = 'W', long, value_name = "N")]
    pub watch_nb: Option<usize>,

    /// Transactions that an unprivileged domain may have open.
    #[arg(short = 't', long, value_name = "N")]
    pub transaction: Option<usize>,

    /// Entries that an unprivileged domain may give a node's permissions.
    #[arg(short = 'A', long, value_name = "N")]
    pub perm_nb: Option<usize>,

    /// Bytes that a path may have below a domain's home.
    #[arg(short = 'M', long, value_name = "BYTES")]
    pub path_max: Option<usize>,

    /// Another bound for each unprivileged domain: transaction-nodes, memory (bytes), node-size, path-max, permissions, nodes, watches,
    /// transactions or outstanding.
    #[arg(short = 'Q', long, value_name = "WHAT=N")]
    pub quota: Vec<String>,

    /// Is taken and has no effect: nothing is logged of a domain that comes near its bound.
    #[arg(short = 'q', long, value_name = "WHAT=N")]
    pub quota_soft: Vec<String>,

    /// How long an event may wait for a domain before those who have caused it wait no longer: watch-event.
    #[arg(short = 'w', long, value_name = "WHAT=SECONDS")]
    pub timeout: Vec<String>,

    /// Keeps the nodes of domains that are gone.
    #[arg(short = 'K', long)]
    pub keep_orphans: bool,

    /// Is taken and has no effect: the tree is always in memory.
    #[arg(short = 'I', long)]
    pub internal_db: bool,

    /// Is taken and has no effect: there is no trace.
    #[arg(short = 'T', long, value_name = "PATH")]
    pub trace_file: Option<PathBuf>,

    /// Is taken and has no effect.
    #[arg(short = 'V', long)]
    pub verbose: bool,

    /// Where it listens, if not where `XENSTORED_PATH` or `XENSTORED_RUNDIR` say.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}
