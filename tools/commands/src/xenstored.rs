//! `hatch xenstored`.

use std::path::PathBuf;

use clap::Args;

/// Runs a xenstored in dom0, in place of Xen's own.
///
/// The options have the names of the C xenstored's. The program goes to the background as soon as it answers requests.
/// With `--no-fork` it stays in the foreground, and tells systemd when it is ready.
#[derive(Args, Debug)]
pub struct Xenstored {
    /// Stays in the foreground.
    #[arg(short = 'N', long)]
    pub no_fork: bool,

    /// The file for the process's number.
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

    /// Accepted without effect: there are no soft bounds.
    #[arg(short = 'q', long, value_name = "WHAT=N")]
    pub quota_soft: Vec<String>,

    /// A time limit in seconds: watch-event, after which events that a domain does not take are no longer charged to the
    /// domains that have caused them.
    #[arg(short = 'w', long, value_name = "WHAT=SECONDS")]
    pub timeout: Vec<String>,

    /// Keeps the nodes of domains that are gone.
    #[arg(short = 'K', long)]
    pub keep_orphans: bool,

    /// Accepted without effect: the tree is always in memory.
    #[arg(short = 'I', long)]
    pub internal_db: bool,

    /// Accepted without effect: there is no trace.
    #[arg(short = 'T', long, value_name = "PATH")]
    pub trace_file: Option<PathBuf>,

    /// Accepted without effect.
    #[arg(short = 'V', long)]
    pub verbose: bool,

    /// The path of the socket, which `XENSTORED_PATH` or `XENSTORED_RUNDIR` give otherwise.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}
