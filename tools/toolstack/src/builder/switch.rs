//! A connection to the running switch.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Toolstack, ToolstackError};
use crate::paths;
use mayfly_switch::control::{SOCKET, SwitchConnection, SwitchOrder, SwitchReply};

impl Toolstack {
    /// Connects to the running switch.
    ///
    /// # Errors
    /// No switch runs.
    pub fn switch(&self) -> io::Result<SwitchConnection> {
        at(&self.run, self.bound)
    }

    /// Whether the switch serves a domain's network, by its key in xenstore.
    ///
    /// # Errors
    /// xenstored's.
    pub fn is_switched(&mut self, domid: u16) -> Result<bool, ToolstackError> {
        let path = format!("{}/state", paths::switched(domid));
        Ok(self.store.find(&path)?.is_some())
    }
}

/// Makes the switch release a guest; returns whether the switch had it. If no switch runs, none holds the guest, and
/// the next one finds that the guest is gone.
///
/// # Errors
/// The switch does not answer.
pub(super) fn let_go(run: &Path, domid: u16, bound: Duration) -> Result<bool, String> {
    let Ok(mut switch) = at(run, bound) else {
        return Ok(false);
    };
    match switch.ask(&SwitchOrder::Detach(domid)) {
        Ok(SwitchReply::Detached(_)) => Ok(true),
        // The switch has no guest of this domain: there is nothing to release.
        Ok(SwitchReply::Error(_)) => Ok(false),
        Ok(_) => Err("the switch does not answer what it was asked".to_owned()),
        Err(error) => Err(format!("the switch: {error}")),
    }
}

fn at(run: &Path, bound: Duration) -> io::Result<SwitchConnection> {
    let name = Path::new(SOCKET).file_name().unwrap_or_default();
    SwitchConnection::open(&run.join(name), bound)
}
