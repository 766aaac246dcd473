//! A connection to the running switch.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Toolstack, ToolstackError};
use mayfly_switch::control::{SOCKET, SwitchConnection, SwitchOrder, SwitchReply};
use mayfly_switch::port_name;
use mayfly_switch::xenbus::keys;

impl Toolstack {
    /// Connects to the running switch.
    ///
    /// # Errors
    /// No switch runs.
    pub fn switch(&self) -> io::Result<SwitchConnection> {
        at(&self.run, self.bound)
    }

    /// Whether a switch runs.
    #[must_use]
    pub fn has_switch(&self) -> bool {
        self.switch().is_ok()
    }

    /// Whether a switch runs that has a port on this bridge.
    pub fn has_switch_on(&mut self, bridge: &str) -> bool {
        self.has_switch()
            && self
                .links
                .bridge(bridge)
                .and_then(|bridge| self.links.find(&port_name(bridge.index)))
                .is_ok()
    }

    /// Whether the switch serves a domain's network, by its keys in xenstore: it has a directory of the switch, and
    /// was not moved to netback since.
    ///
    /// # Errors
    /// xenstored's.
    pub fn is_switched(&mut self, domid: u16) -> Result<bool, ToolstackError> {
        let [interface, netback] = self.values([keys::interface(domid), keys::netback(domid)])?;
        Ok(interface.is_some() && netback.is_none())
    }

    /// The values of some keys, asked for together; `None` for each that is not there.
    pub(super) fn values<const N: usize>(
        &mut self,
        paths: [String; N],
    ) -> Result<[Option<String>; N], mayfly_xenstore::Error> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let mut values = self.store.values(&paths)?.into_iter();
        Ok(paths.map(|_| values.next().flatten().map(text)))
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
        Ok(SwitchReply::Detached(_) | SwitchReply::Done) => Ok(true),
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
