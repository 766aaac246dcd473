//! `hatch xenstored`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Runs a xenstored in dom0, in place of Xen's own.
///
/// `hatch xenstored takeover` makes it the successor of a xenstored that runs.
///
/// The options have the names of the C xenstored's. The program goes to the background as soon as it answers requests.
/// With `--no-fork` it stays in the foreground, and tells systemd when it is ready.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Xenstored {
    /// What else the program does.
    #[command(subcommand)]
    pub verb: Option<XenstoredVerb>,

    /// Goes on with the state that a predecessor in the same process has written. Live update gives this option.
    #[arg(short = 'U', long, hide = true)]
    pub live_update: bool,

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

/// The other uses of `hatch xenstored`.
#[derive(Debug, Subcommand)]
pub enum XenstoredVerb {
    /// Makes another program the successor of the xenstored that runs, without a break
    ///
    /// The xenstored hands its tree, connections, rings and watches over by live update and becomes the other program,
    /// in the same process. No client, guest or kernel has to connect again. The one that runs may be the C xenstored
    /// or `hatch xenstored`, and so may the successor. oxenstored writes its state in a format of its own.
    Takeover(Takeover),
}

/// The command line of `hatch xenstored takeover`.
#[derive(Args, Debug)]
pub struct Takeover {
    /// The successor's program [default: hatch-xenstored]
    pub program: Option<PathBuf>,

    /// The successor's arguments, in place of those that the present xenstored was started with
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    pub arguments: Option<String>,

    /// The time in seconds that transactions have to end
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u16,

    /// After this time, gives up transactions that are still open, rather than the takeover
    #[arg(long)]
    pub force: bool,
}
