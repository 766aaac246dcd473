//! Guests made ahead, for services with `asleep = "pool"`.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use mayfly_toolstack::builder::{Connect, GuestConfig, GuestVif, Image, Shell};
use mayfly_xen::TscMode;

use super::{BACK_OFF, BACK_OFF_MAX, GuestMaker, Make, MakerReport};

impl GuestMaker {
    /// Removes the guests that were made ahead from an image.
    pub(super) fn discard(&mut self, image: &Path) {
        let stale = self.shells.extract_if(.., |(path, _), _| path == image);
        let stale: Vec<_> = stale.flat_map(|(_, shells)| shells).collect();
        self.remove_shells(stale);
    }

    pub(super) fn count(&self) {
        self.tell(MakerReport::Waiting(
            self.shells.values().map(VecDeque::len).sum(),
        ));
    }

    /// A make of which there are too few guests in the pool.
    pub(super) fn lacking(&self) -> Option<Make> {
        let waiting = |make: &Make| self.shells.get(make).map_or(0, VecDeque::len);
        let memory = self.memory();
        let mut makes = self.makes.keys();
        makes
            .find(|make| waiting(make) < self.ready && memory + make.1 <= self.room)
            .cloned()
    }

    /// The memory of the guests made ahead, in MiB.
    pub(super) fn memory(&self) -> u64 {
        let shells = self.shells.iter();
        shells.map(|(make, all)| make.1 * all.len() as u64).sum()
    }

    /// Makes one guest ahead.
    pub(super) fn fill(&mut self, make: Make) {
        if Instant::now() < self.retry {
            return;
        }
        match self.shell(&make) {
            Ok(shell) => {
                self.shells.entry(make).or_default().push_back(shell);
                self.back_off = BACK_OFF;
                self.count();
            }
            Err(why) => {
                self.retry = Instant::now() + self.back_off;
                self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
                self.tell(MakerReport::Trouble(format!("the pool: {why}")));
            }
        }
    }

    pub(super) fn shell(&mut self, make: &Make) -> Result<Shell, String> {
        let (path, memory) = make;
        if !self.images.contains_key(path) {
            let image = Image::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
            self.images.insert(path.clone(), image);
        }
        self.hears().map_err(|error| error.to_string())?;
        self.builder().map_err(|error| error.to_string())?;
        let (Some(builder), Some(image)) = (&mut self.builder, self.images.get(path)) else {
            return Err("its image is not there".into());
        };
        let bridge = self.makes.get(make).cloned().unwrap_or_default();
        let template = GuestConfig {
            name: "shell".into(),
            uuid: [0; 16],
            memory: *memory,
            cmdline: String::new(),
            // It gets a MAC address of its own.
            vif: Some(GuestVif {
                mac: [0x02, 0, 0, 0, 0, 0],
                bridge,
                ip: None,
                rate: None,
                mtu: None,
            }),
            connect: Connect::Before,
            console: false,
            tsc: TscMode::Native,
            watched: None,
        };
        builder.shell(&template, image).map_err(|error| {
            self.lost(&error.failure.cause);
            error.to_string()
        })
    }

    /// Removes guests made ahead that no service can use any more, or for which there is no room.
    pub(super) fn clear_out(&mut self) {
        let makes = self.makes.clone();
        let ready = self.ready;
        let mut gone = Vec::new();
        for (make, shells) in &mut self.shells {
            let keep = if makes.contains_key(make) { ready } else { 0 };
            gone.extend(shells.drain(keep.min(shells.len())..));
        }
        let mut memory = self.memory();
        for ((_, mib), shells) in &mut self.shells {
            while memory > self.room
                && let Some(shell) = shells.pop_back()
            {
                memory -= *mib;
                gone.push(shell);
            }
        }
        self.remove_shells(gone);
    }

    pub(super) fn remove_shells(&mut self, gone: Vec<Shell>) {
        if gone.is_empty() {
            return;
        }
        self.count();
        for shell in gone {
            let removed = self
                .builder()
                .map_err(|error| error.to_string())
                .and_then(|builder| {
                    let discarded = builder.discard(&shell);
                    discarded.map_err(|error| error.to_string())
                });
            if let Err(why) = removed {
                self.tell(MakerReport::Trouble(format!("the pool: {why}")));
            }
        }
    }
}
