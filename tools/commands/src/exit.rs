//! Exit codes, so that a script can tell how a command ended.

/// Exit codes other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something did not work.
    Failed = 1,
    /// The command line or a configuration file can't be understood. clap ends with this as well.
    NotUnderstood = 2,
    /// There is no such domain.
    NoSuchDomain = 3,
    /// The name or the MAC address is another domain's.
    Taken = 4,
    /// It is not for this user.
    Permission = 5,
}
