//! The connection to xenstored, which may be lost and come back, and the guests' entries there.

use std::time::Instant;

use mayfly_toolstack::builder::{KnownGuest, Toolstack, ToolstackError};
use mayfly_toolstack::gc::{self, Snapshot};

use super::super::config::Network;
use super::{FoundGuest, GuestMaker, KERNEL_PATIENCE, MakerReport, ServiceId};

impl GuestMaker {
    pub(super) fn builder(&mut self) -> Result<&mut Toolstack, ToolstackError> {
        let mut kept = self.builder.take();
        if kept
            .as_mut()
            .is_some_and(|builder| builder.store().has_ended())
        {
            kept = None;
            if !std::mem::replace(&mut self.is_gone, true) {
                self.tell(MakerReport::Trouble("xenstored has ended".to_owned()));
            }
        }
        let builder = match kept {
            Some(builder) => builder,
            None => {
                let mut builder = (self.open)()?;
                self.meet(&mut builder)?;
                builder
            }
        };
        Ok(self.builder.insert(builder))
    }

    /// Prepares a new connection to xenstored. A restarted xenstored does not know our guests, and dom0's kernel does
    /// not know the new xenstored.
    pub(super) fn meet(&mut self, builder: &mut Toolstack) -> Result<(), ToolstackError> {
        let mut restored = 0_usize;
        for known in self.known.values() {
            restored += usize::from(builder.restore(known)?);
        }
        // The records are written again when there is time.
        for (_, is_told) in self.made_of.values_mut() {
            *is_told = false;
        }
        restored += self.pool.restore(builder)?;
        let has_kernel = builder.has_kernel()?;
        self.kernel_lost = (self.had_kernel && !has_kernel).then(Instant::now);
        self.had_kernel |= has_kernel;
        if std::mem::take(&mut self.is_gone) {
            let what = format!("xenstored runs again; {restored} guests were missing in it");
            self.tell(MakerReport::Trouble(what));
        }
        if self.kernel_lost.is_some() {
            self.tell(MakerReport::Trouble(ToolstackError::KernelLost.to_string()));
        }
        Ok(())
    }

    /// Checks that dom0's kernel is connected to xenstored: otherwise it makes no interface, and a birth would wait in
    /// vain.
    pub(super) fn check_kernel(&mut self) -> Result<(), ToolstackError> {
        if let Some(since) = self.kernel_lost {
            if since.elapsed() < KERNEL_PATIENCE && !self.builder()?.has_kernel()? {
                return Err(ToolstackError::KernelLost);
            }
            self.kernel_lost = None;
        }
        Ok(())
    }

    /// Drops the connection after an error, so that the next use opens it again: xenstored may have been restarted.
    pub(super) fn lost(&mut self, cause: &ToolstackError) {
        match cause {
            ToolstackError::Store(_) => {
                let builder = self.builder.take();
                self.is_gone |= builder.is_some_and(|mut builder| builder.store().has_ended());
            }
            ToolstackError::KernelLost => self.kernel_lost = Some(Instant::now()),
            _ => {}
        }
    }

    /// Checks whether xenstored is still there. If so, removes the guests whose removal had to wait for it, and writes the
    /// records of what guests were made of.
    pub(super) fn look(&mut self) {
        if self.known.is_empty() && self.left.is_empty() {
            return;
        }
        if self.builder().is_ok() {
            for (id, domid) in std::mem::take(&mut self.left) {
                self.remove(id, domid);
            }
            if let Err(error) = self.tell_made_of() {
                self.lost(&ToolstackError::from(error));
            }
        }
    }

    /// Writes the records of what guests were made of. No birth waits for that.
    pub(super) fn tell_made_of(&mut self) -> Result<(), mayfly_xenstore::Error> {
        let Some(builder) = &mut self.builder else {
            return Ok(());
        };
        for (domid, (made_of, is_told)) in &mut self.made_of {
            if !*is_told {
                builder.store().write(
                    &mayfly_toolstack::paths::summon(*domid),
                    &made_of.to_string(),
                )?;
                *is_told = true;
            }
        }
        Ok(())
    }

    /// Records a running guest.
    pub(super) fn know(
        &mut self,
        domid: u16,
        name: &str,
        mac: [u8; 6],
    ) -> Result<(), ToolstackError> {
        if let Some(info) = self.builder()?.xen().info(domid)? {
            let known = KnownGuest {
                domid,
                uuid: info.handle,
                name: name.to_owned(),
                mac,
            };
            self.known.insert(domid, known);
        }
        Ok(())
    }

    /// Removes half-made guests of a killed daemon, and finds the running ones. A guest for which that fails is reported as trouble;
    /// the others are found nevertheless.
    pub(super) fn find(&mut self, wanted: &[(ServiceId, String, [u8; 6])]) {
        let mut trouble = self.clean_up().unwrap_or_else(|cause| {
            self.lost(&cause);
            vec![format!("takeover: {cause}")]
        });
        for (id, name, mac) in wanted {
            let mut found = self.find_one(name, *mac);
            if let Err(cause) = &found {
                // With a new connection to xenstored, if the old one had failed.
                self.lost(cause);
                found = self.find_one(name, *mac);
            }
            match found {
                Ok(Some(found)) => self.tell(MakerReport::Found(*id, found)),
                Ok(None) => {}
                Err(cause) => {
                    self.lost(&cause);
                    trouble.push(format!("takeover of {name}: {cause}"));
                }
            }
        }
        for what in trouble {
            self.tell(MakerReport::Trouble(what));
        }
    }

    /// Removes half-made guests of a killed daemon. Returns the failures.
    fn clean_up(&mut self) -> Result<Vec<String>, ToolstackError> {
        let builder = self.builder()?;
        let snapshot = Snapshot::read(builder).map_err(|error| match error {
            gc::SnapshotError::Xen(error) => ToolstackError::from(error),
            gc::SnapshotError::Store(error) => ToolstackError::from(error),
            gc::SnapshotError::Io(error) => ToolstackError::from(error),
        })?;
        Ok(gc::carry_out(builder, &gc::decide(&snapshot)))
    }

    /// The guest of a service, if one runs.
    fn find_one(&mut self, name: &str, mac: [u8; 6]) -> Result<Option<FoundGuest>, ToolstackError> {
        let builder = self.builder()?;
        let Some(domid) = builder.domid(name)? else {
            return Ok(None);
        };
        let Some(info) = builder.xen().info(domid)?.filter(|info| !info.is_dying()) else {
            return Ok(None);
        };
        // The daemon was killed right before it unpaused the guest.
        if info.is_paused() {
            builder.xen().unpause(domid)?;
        }
        let made_of = builder
            .store()
            .find(&mayfly_toolstack::paths::summon(domid))?;
        let of = made_of.and_then(|text| text.parse().ok());
        let network = match builder.is_switched(domid)? {
            true => Network::Switch,
            false => Network::Netback,
        };
        self.made_of
            .extend(of.map(|made_of| (domid, (made_of, true))));
        self.know(domid, name, mac)?;
        Ok(Some(FoundGuest { domid, network, of }))
    }
}
