//! Exit codes.

/// Exit codes other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command failed.
    Failed = 1,
    /// The command line or a configuration file is invalid. clap uses this code too.
    NotUnderstood = 2,
    /// No such domain.
    NoSuchDomain = 3,
    /// The name or the MAC address belongs to another domain.
    Taken = 4,
    /// Permission denied.
    Permission = 5,
}
