//! The actions at the end of a guest: `on_poweroff` and its like.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An action for a domain that has shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The domain is removed.
    Destroy,
    /// The domain is removed, and made again.
    Restart,
    /// The domain stays as it is.
    Preserve,
}

/// The `on_*` parameters of xl.cfg(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in xl.cfg(5)")]
pub struct Actions {
    pub on_poweroff: Action,
    pub on_reboot: Action,
    pub on_watchdog: Action,
    pub on_crash: Action,
    pub on_soft_reset: Action,
}

impl Default for Actions {
    /// The defaults of xl.cfg(5), except that nothing resets a guest and leaves it running.
    fn default() -> Self {
        Self {
            on_poweroff: Action::Destroy,
            on_reboot: Action::Restart,
            on_watchdog: Action::Destroy,
            on_crash: Action::Destroy,
            on_soft_reset: Action::Destroy,
        }
    }
}

impl Actions {
    /// The action for a domain that has shut down for this reason (`SHUTDOWN_*`, sched.h).
    #[must_use]
    pub fn of(&self, reason: u8) -> Action {
        match reason {
            0 => self.on_poweroff,
            1 => self.on_reboot,
            // Suspended: the program that asked for it goes on with it.
            2 => Action::Preserve,
            3 => self.on_crash,
            4 => self.on_watchdog,
            5 => self.on_soft_reset,
            // As in xl.
            _ => Action::Destroy,
        }
    }
}

/// The data that `hatch watch` needs of a guest beside its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The actions at its end.
    pub actions: Actions,
    /// The file of its image.
    pub kernel: PathBuf,
    /// The file of its module.
    pub ramdisk: Option<PathBuf>,
}

/// A reason to shut down, by name.
#[must_use]
pub fn reason(reason: u8) -> &'static str {
    match reason {
        0 => "poweroff",
        1 => "reboot",
        2 => "suspended",
        3 => "crashed",
        4 => "watchdog",
        5 => "soft reset",
        _ => "shut down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_action() {
        let actions = Actions {
            on_poweroff: Action::Preserve,
            on_crash: Action::Restart,
            ..Actions::default()
        };
        let all: Vec<_> = (0..=6).map(|reason| actions.of(reason)).collect();
        assert_eq!(
            all,
            [
                Action::Preserve,
                Action::Restart,
                Action::Preserve,
                Action::Restart,
                Action::Destroy,
                Action::Destroy,
                Action::Destroy
            ]
        );
    }
}
