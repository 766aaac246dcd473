//! A xenstored that was started after another one knows nothing of what the first was told. Guests that run go on serving; but they are in no
//! index any more, and the kernel, whose watches went with the first, neither makes an interface nor takes one away.

use std::io;
use std::path::Path;

use super::Cause;
use super::create::Toolstack;
use super::index::Record;
use super::keys::{self, Op};
use mayfly_xenstore::Error;

/// What the kernel writes when it has set its watches, which it does once (drivers/xen/manage.c of Linux, `setup_shutdown_watcher`).
const KERNEL: &str = "/local/domain/0/control/feature-poweroff";
/// netback's folder.
const NETBACK: &str = "/sys/bus/xen-backend/drivers/vif";

/// A guest, and what the index has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub domid: u16,
    /// Its UUID: another domain may have the number later.
    pub uuid: [u8; 16],
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: [u8; 6],
}

impl Toolstack {
    /// Whether the kernel knows this xenstored.
    ///
    /// # Errors
    /// xenstored's.
    pub fn has_kernel(&mut self) -> Result<bool, Error> {
        Ok(self.store.find(KERNEL)?.is_some())
    }

    /// Puts a guest that still runs into an index that has nothing of it; whether that was so.
    ///
    /// # Errors
    /// Xen's or xenstored's.
    pub fn restore(&mut self, known: &Known) -> Result<bool, Cause> {
        let info = self.xen.info(known.domid)?;
        if info.is_none_or(|info| info.is_dying() || info.handle != known.uuid) {
            return Ok(false);
        }
        let record = Record::new(&known.uuid, Some(&known.mac), &known.name);
        let mut ops = keys::entry(known.domid, &record);
        for op in &ops {
            // Somebody else may have the name by now.
            if let Op::Write(path, _) = op
                && self.store.find(path)?.is_some()
            {
                return Ok(false);
            }
        }
        ops.push(keys::name(known.domid, &known.name));
        let ids = self.send(&ops)?;
        self.store.answers(ids)?;
        Ok(true)
    }
}

/// Has netback let go of a domain without being told so by xenstored: it holds pages of it, without which Xen would keep the domain.
pub(super) fn unbind(domid: u16) -> io::Result<()> {
    let device = format!("vif-{domid}-0");
    let netback = Path::new(NETBACK);
    match netback.join(&device).exists() {
        true => std::fs::write(netback.join("unbind"), device),
        false => Ok(()),
    }
}
