//! The names of network back ends on the command line.

use clap::ValueEnum;
use mayfly_toolstack::builder::{NetbackThreads, Network};

/// A network back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum NetworkName {
    /// Linux' netback.
    Netback,
    /// The process of `hatch switch`, which has to be running.
    Switch,
}

/// A scheduling of netback's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ThreadsName {
    /// They do not take the CPU from others when they wake.
    #[default]
    Batch,
    /// As the kernel has made them.
    Normal,
}

impl From<ThreadsName> for NetbackThreads {
    fn from(name: ThreadsName) -> Self {
        match name {
            ThreadsName::Batch => Self::Batch,
            ThreadsName::Normal => Self::Normal,
        }
    }
}

impl From<NetworkName> for Network {
    fn from(name: NetworkName) -> Self {
        match name {
            NetworkName::Netback => Self::Netback,
            NetworkName::Switch => Self::Switch,
        }
    }
}
