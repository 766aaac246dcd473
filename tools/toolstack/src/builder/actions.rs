//! The actions at the end of a guest: `on_poweroff` and its like.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An action for a domain that has shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndAction {
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
pub struct EndActions {
    pub on_poweroff: EndAction,
    pub on_reboot: EndAction,
    pub on_watchdog: EndAction,
    pub on_crash: EndAction,
    pub on_soft_reset: EndAction,
}

impl Default for EndActions {
    /// The defaults of xl.cfg(5), except that nothing resets a guest and leaves it running.
    fn default() -> Self {
        Self {
            on_poweroff: EndAction::Destroy,
            on_reboot: EndAction::Restart,
            on_watchdog: EndAction::Destroy,
            on_crash: EndAction::Destroy,
            on_soft_reset: EndAction::Destroy,
        }
    }
}

impl EndActions {
    /// The action for a domain that has shut down for this reason (`SHUTDOWN_*`, sched.h).
    #[must_use]
    pub fn of(&self, reason: u8) -> EndAction {
        match reason {
            0 => self.on_poweroff,
            1 => self.on_reboot,
            // Suspended: the program that asked for it goes on with it.
            2 => EndAction::Preserve,
            3 => self.on_crash,
            4 => self.on_watchdog,
            5 => self.on_soft_reset,
            // As in xl.
            _ => EndAction::Destroy,
        }
    }
}

/// The data that `hatch watch` needs of a guest beside its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The actions at its end.
    pub actions: EndActions,
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
        let actions = EndActions {
            on_poweroff: EndAction::Preserve,
            on_crash: EndAction::Restart,
            ..EndActions::default()
        };
        let all: Vec<_> = (0..=6).map(|reason| actions.of(reason)).collect();
        assert_eq!(
            all,
            [
                EndAction::Preserve,
                EndAction::Restart,
                EndAction::Preserve,
                EndAction::Restart,
                EndAction::Destroy,
                EndAction::Destroy,
                EndAction::Destroy
            ]
        );
    }
}
