//! Recovery from a new xenstored. A xenstored that was started after another one has none of its keys. Guests that run
//! go on serving, but they are missing in the index, and the kernel, whose watches ended with the first xenstored,
//! neither makes nor removes interfaces.

use std::path::Path;

use rustix::io::Errno;

use super::ToolstackError;
use super::index::IndexRecord;
use super::keys::{self, StoreOp};
use super::toolstack::Toolstack;

/// The key that the kernel writes once, when it has set its watches (drivers/xen/manage.c of Linux,
/// `setup_shutdown_watcher`).
const KERNEL: &str = "/local/domain/0/control/feature-poweroff";
/// netback's folder in sysfs.
const NETBACK: &str = "/sys/bus/xen-backend/drivers/vif";

/// A guest with the data of its record in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownGuest {
    /// The domid.
    pub domid: u16,
    /// The UUID: another domain may have the domid later.
    pub uuid: [u8; 16],
    /// The name.
    pub name: String,
    /// The MAC address.
    pub mac: [u8; 6],
}

impl Toolstack {
    /// Whether the kernel has set its watches in this xenstored.
    ///
    /// # Errors
    /// xenstored's.
    pub fn has_kernel(&mut self) -> Result<bool, mayfly_xenstore::Error> {
        Ok(self.store.find(KERNEL)?.is_some())
    }

    /// Puts a guest that still runs and that the index does not have into the index. Returns whether it was missing.
    ///
    /// # Errors
    /// Xen's or xenstored's.
    pub fn restore(&mut self, known: &KnownGuest) -> Result<bool, ToolstackError> {
        let info = self.xen.info(known.domid)?;
        if info.is_none_or(|info| info.is_dying() || info.handle != known.uuid) {
            return Ok(false);
        }
        let record = IndexRecord::new(&known.uuid, Some(&known.mac), &known.name);
        let mut ops = keys::entry(known.domid, &record);
        for op in &ops {
            // Another guest may have the name by now.
            if let StoreOp::Write(path, _) = op
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

    /// Unbinds netback from a domain that goes on, and whose back end's directory stays. Nobody may remove the directory
    /// meanwhile (see [`Self::unbind`]), so the caller has the domain's lock ([`Self::lock_netback`]).
    pub(super) fn unbind_live(&mut self, domid: u16) -> Result<(), ToolstackError> {
        unbind_device(&format!("vif-{domid}-0"))
    }

    /// Unbinds netback from a domain whose back end's directory is gone, if the kernel does not see that it is gone:
    /// netback holds pages of the domain, and as long as it does Xen keeps the domain.
    ///
    /// A kernel that watches this xenstored removes the device itself, and must not be disturbed: its thread for
    /// watches then waits for the device, which the unbinding process holds while it waits for that thread. Neither
    /// ever goes on, and no back end of dom0 connects any more (Linux 6.1, `unregister_xenbus_watch` below
    /// `xenbus_dev_remove`, and `device_del` below `xenwatch_thread`).
    pub(super) fn unbind(&mut self, domid: u16) -> Result<(), ToolstackError> {
        let device = format!("vif-{domid}-0");
        if !Path::new(NETBACK).join(&device).exists() || self.has_kernel()? {
            return Ok(());
        }
        unbind_device(&device)
    }
}

/// Unbinds netback from a device, if it is bound to it.
fn unbind_device(device: &str) -> Result<(), ToolstackError> {
    let netback = Path::new(NETBACK);
    if !netback.join(device).exists() {
        return Ok(());
    }
    match std::fs::write(netback.join("unbind"), device) {
        // Another process has unbound it.
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
        done => Ok(done?),
    }
}
