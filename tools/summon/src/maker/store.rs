//! xenstored, which may go and come again; and what of our guests is known there.

use std::time::Instant;

use mayfly_toolstack::builder::{Cause, Known, Toolstack};
use mayfly_toolstack::gc::{self, Snapshot};

use super::super::config::Network;
use super::{DEAF, Found, Id, Maker, Told};

impl Maker {
    pub(super) fn builder(&mut self) -> Result<&mut Toolstack, Cause> {
        let mut kept = self.builder.take();
        if kept
            .as_mut()
            .is_some_and(|builder| builder.store().has_ended())
        {
            kept = None;
            if !std::mem::replace(&mut self.is_gone, true) {
                self.tell(Told::Trouble("xenstored has gone".to_owned()));
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

    /// Looks at a xenstored that was not spoken to yet. One that was started anew knows nothing of our guests, and the kernel nothing of it.
    pub(super) fn meet(&mut self, builder: &mut Toolstack) -> Result<(), Cause> {
        let mut restored = 0_usize;
        for known in self.known.values() {
            restored += usize::from(builder.restore(known)?);
        }
        // They are told it again, when there is time.
        for (_, is_told) in self.made_of.values_mut() {
            *is_told = false;
        }
        for shell in self.shells.values().flatten() {
            restored += usize::from(builder.restore_shell(shell)?);
        }
        let has_kernel = builder.has_kernel()?;
        self.deaf = (self.had_kernel && !has_kernel).then(Instant::now);
        self.had_kernel |= has_kernel;
        if std::mem::take(&mut self.is_gone) {
            let what = format!("xenstored is there again; {restored} guests had to be told to it");
            self.tell(Told::Trouble(what));
        }
        if self.deaf.is_some() {
            self.tell(Told::Trouble(Cause::Deaf.to_string()));
        }
        Ok(())
    }

    /// Without the kernel there is no interface: who would wait for one is told so at once.
    pub(super) fn hears(&mut self) -> Result<(), Cause> {
        if let Some(since) = self.deaf {
            if since.elapsed() < DEAF && !self.builder()?.has_kernel()? {
                return Err(Cause::Deaf);
            }
            self.deaf = None;
        }
        Ok(())
    }

    /// xenstored was perhaps started anew: the way to it is opened again the next time.
    pub(super) fn lost(&mut self, cause: &Cause) {
        match cause {
            Cause::Store(_) => {
                let builder = self.builder.take();
                self.is_gone |= builder.is_some_and(|mut builder| builder.store().has_ended());
            }
            Cause::Deaf => self.deaf = Some(Instant::now()),
            _ => {}
        }
    }

    /// Sees whether xenstored is still there, and does what it is needed for.
    pub(super) fn look(&mut self) {
        if self.known.is_empty() && self.left.is_empty() {
            return;
        }
        if self.builder().is_ok() {
            for (id, domid) in std::mem::take(&mut self.left) {
                self.remove(id, domid);
            }
            if let Err(error) = self.tell_made_of() {
                self.lost(&Cause::from(error));
            }
        }
    }

    /// Writes down what guests were made of, which no birth waits for.
    pub(super) fn tell_made_of(&mut self) -> Result<(), mayfly_xenstore::Error> {
        let Some(builder) = &mut self.builder else {
            return Ok(());
        };
        for (domid, (made_of, is_told)) in &mut self.made_of {
            if !*is_told {
                builder
                    .store()
                    .write(&made_of_path(*domid), &made_of.to_string())?;
                *is_told = true;
            }
        }
        Ok(())
    }

    /// Remembers a guest that runs.
    pub(super) fn know(&mut self, domid: u16, name: &str, mac: [u8; 6]) -> Result<(), Cause> {
        if let Some(info) = self.builder()?.xen().info(domid)? {
            let known = Known {
                domid,
                uuid: info.handle,
                name: name.to_owned(),
                mac,
            };
            self.known.insert(domid, known);
        }
        Ok(())
    }

    /// Removes what a killed daemon has left half-made, and finds the guests that run.
    pub(super) fn find(&mut self, wanted: &[(Id, String, [u8; 6])]) -> Result<(), Cause> {
        let builder = self.builder()?;
        let snapshot = Snapshot::read(builder).map_err(|error| match error {
            gc::SnapshotError::Xen(error) => Cause::from(error),
            gc::SnapshotError::Store(error) => Cause::from(error),
            gc::SnapshotError::Io(error) => Cause::from(error),
        })?;
        let failures = gc::carry_out(builder, &gc::decide(&snapshot));
        let mut found = Vec::new();
        for (id, name, mac) in wanted {
            let builder = self.builder()?;
            let Some(domid) = builder.domid(name)? else {
                continue;
            };
            let Some(info) = builder.xen().info(domid)?.filter(|info| !info.is_dying()) else {
                continue;
            };
            // Killed right before it would have been let run.
            if info.is_paused() {
                builder.xen().unpause(domid)?;
            }
            let made_of = self.builder()?.store().find(&made_of_path(domid))?;
            let made_of = made_of.and_then(|text| text.parse().ok());
            self.made_of
                .extend(made_of.map(|made_of| (domid, (made_of, true))));
            self.know(domid, name, *mac)?;
            let network = match self.builder()?.is_switched(domid)? {
                true => Network::Switch,
                false => Network::Netback,
            };
            let was_found = Found {
                domid,
                network,
                of: made_of,
            };
            found.push(Told::Found(*id, was_found));
        }
        found.extend(failures.into_iter().map(Told::Trouble));
        for told in found {
            self.tell(told);
        }
        Ok(())
    }
}

/// Where it is written down what a guest was made of: the guest can read it, and not write it.
pub(super) fn made_of_path(domid: u16) -> String {
    format!("/local/domain/{domid}/summon")
}
