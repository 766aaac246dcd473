//! The shells that a process keeps ready: which are lacking, when the next may be made, and which are too many.
//!
//! `hatch pool` and `hatch summon` have one [`ShellPool`] each. Its owner waits, gives the time, and brings the connections to Xen and
//! xenstored, which may be lost and come back, and the open images.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mayfly_switch::control::SwitchConnection;
use mayfly_xen::TscMode;

use crate::builder::{CreateError, GuestConfig, Image, Shell, Toolstack, ToolstackError};

/// The settings that a guest has from its shell. It is given all others with its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShellKind {
    /// The file of its image.
    pub image: PathBuf,
    /// Its memory, in MiB.
    pub memory: u64,
    /// Whether it has a console.
    pub console: bool,
    /// The behaviour of RDTSC.
    pub tsc: TscMode,
    /// The MTU of its interface.
    pub mtu: Option<u32>,
    /// The rate limit of its interface.
    pub rate: Option<String>,
    /// Whether the switch serves its network.
    pub is_on_switch: bool,
}

impl ShellKind {
    /// The kind of shell that a guest of this image and configuration, on netback, can be made from.
    #[must_use]
    pub fn of(image: &Path, config: &GuestConfig) -> Self {
        let vif = config.vif.as_ref();
        Self {
            image: image.to_owned(),
            memory: config.memory,
            console: config.console,
            tsc: config.tsc,
            mtu: vif.and_then(|vif| vif.mtu),
            rate: vif.and_then(|vif| vif.rate.clone()),
            is_on_switch: false,
        }
    }

    /// The same kind, with the network on the switch or not.
    #[must_use]
    pub fn on_switch(self, is_on_switch: bool) -> Self {
        Self {
            is_on_switch,
            ..self
        }
    }

    /// The names of the settings in which another kind differs. The image is not compared: two paths may be one file.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let settings = [
            ("memory", self.memory != other.memory),
            ("console", self.console != other.console),
            ("tsc_mode", self.tsc != other.tsc),
            ("mtu", self.mtu != other.mtu),
            ("rate", self.rate != other.rate),
        ];
        let different = settings.into_iter().filter(|(_, differs)| *differs);
        different.map(|(name, _)| name).collect()
    }
}

/// The limits of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShellLimits {
    /// The number of shells to keep of each kind.
    pub size: usize,
    /// The memory that all shells may have together, in MiB.
    pub memory: u64,
    /// The memory of the host that is left free, in MiB. With `None`, Xen is not asked for it.
    pub spare: Option<u64>,
}

/// The delay before the next shell is made after one failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// After the first failure. It doubles after each further one.
    pub first: Duration,
    /// The longest delay.
    pub most: Duration,
}

/// The reason why a shell could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The host has too little free memory.
    #[error("{free} MiB of memory are free, and a shell needs {need}, the spare memory included")]
    Memory {
        /// The free memory, in MiB.
        free: u64,
        /// The memory that a shell and the spare memory need, in MiB.
        need: u64,
    },
    /// Xen does not tell how much memory is free.
    #[error(transparent)]
    Xen(#[from] ToolstackError),
    /// A step of its creation failed.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl FillError {
    /// The error of Xen, xenstored or the kernel behind it.
    #[must_use]
    pub fn cause(&self) -> Option<&ToolstackError> {
        match self {
            Self::Memory { .. } => None,
            Self::Xen(error) => Some(error),
            Self::Create(error) => Some(&error.failure.cause),
        }
    }
}

/// Shells made ahead, of each kind that it keeps.
#[derive(Debug)]
pub struct ShellPool {
    /// The limits. Shells beyond them stay until [`Self::take_surplus`].
    pub limits: ShellLimits,
    back_off: BackOff,
    /// The kinds to keep, each with the configuration that its shells are made from.
    templates: BTreeMap<ShellKind, GuestConfig>,
    shells: BTreeMap<ShellKind, VecDeque<Shell>>,
    retry_at: Instant,
    delay: Duration,
    trouble: Option<String>,
}

impl ShellPool {
    /// An empty pool, which keeps no kind yet.
    #[must_use]
    pub fn new(limits: ShellLimits, back_off: BackOff, now: Instant) -> Self {
        Self {
            limits,
            back_off,
            templates: BTreeMap::new(),
            shells: BTreeMap::new(),
            retry_at: now,
            delay: back_off.first,
            trouble: None,
        }
    }

    /// Keeps shells of these kinds from now on, made from these configurations. Name and addresses in them are not used.
    pub fn keep(&mut self, templates: BTreeMap<ShellKind, GuestConfig>) {
        self.templates = templates;
    }

    /// The number of shells.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shells.values().map(VecDeque::len).sum()
    }

    /// The memory of all shells, in MiB.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let memory = |(kind, shells): (&ShellKind, &VecDeque<_>)| kind.memory * shells.len() as u64;
        self.shells.iter().map(memory).sum()
    }

    /// The reason why no shell could be made, until one was made again.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// A kind of which there are too few shells, and the time from which on one may be made.
    #[must_use]
    pub fn lacking(&self) -> Option<(&ShellKind, Instant)> {
        let memory = self.memory();
        let lacks = |kind: &&ShellKind| {
            let ready = self.shells.get(*kind).map_or(0, VecDeque::len);
            ready < self.limits.size && memory.saturating_add(kind.memory) <= self.limits.memory
        };
        Some((self.templates.keys().find(lacks)?, self.retry_at))
    }

    /// Makes no shell before this time.
    pub fn rest(&mut self, until: Instant) {
        self.retry_at = self.retry_at.max(until);
    }

    /// Makes one shell of a kind that the pool keeps; for one on the switch, there may be a connection to that. Returns the trouble that is over with it, if there was any. After an error, the owner
    /// calls [`Self::failed`].
    ///
    /// # Errors
    /// The reason why it was not made.
    pub fn fill(
        &mut self,
        kind: &ShellKind,
        (toolstack, switch): (&mut Toolstack, &mut Option<SwitchConnection>),
        image: &Image,
    ) -> Result<Option<String>, FillError> {
        let Some(template) = self.templates.get(kind) else {
            return Ok(None);
        };
        if let Some(spare) = self.limits.spare {
            let free = toolstack.xen().free_memory();
            let free = free.map_err(ToolstackError::from)?;
            let need = template.memory.saturating_add(spare);
            if free < need {
                return Err(FillError::Memory { free, need });
            }
        }
        let shell = match kind.is_on_switch {
            true => toolstack.shell_on_switch(template, image, switch)?,
            false => toolstack.shell(template, image)?,
        };
        let shells = self.shells.entry(kind.clone()).or_default();
        shells.push_back(shell);
        self.delay = self.back_off.first;
        Ok(self.trouble.take())
    }

    /// Delays the next attempt after a failure. Returns whether the reason is another than that of the failure before.
    pub fn failed(&mut self, now: Instant, trouble: &str) -> bool {
        self.retry_at = now + self.delay;
        self.delay = (self.delay * 2).min(self.back_off.most);
        let is_new = self.trouble.as_deref() != Some(trouble);
        self.trouble = Some(trouble.to_owned());
        is_new
    }

    /// Takes the oldest shell of a kind.
    pub fn take(&mut self, kind: &ShellKind) -> Option<Shell> {
        self.shells.get_mut(kind)?.pop_front()
    }

    /// Takes all shells of an image, which was replaced: its owner discards them.
    #[must_use]
    pub fn take_image(&mut self, image: &Path) -> Vec<Shell> {
        let stale = self.shells.extract_if(.., |kind, _| kind.image == image);
        stale.flat_map(|(_, shells)| shells).collect()
    }

    /// Takes all shells of kinds that are not kept any more, and those beyond the limits: their owner discards them.
    #[must_use]
    pub fn take_surplus(&mut self) -> Vec<Shell> {
        let mut surplus = Vec::new();
        for (kind, shells) in &mut self.shells {
            let keep = match self.templates.contains_key(kind) {
                true => self.limits.size,
                false => 0,
            };
            surplus.extend(shells.drain(keep.min(shells.len())..));
        }
        let mut memory = self.memory();
        for (kind, shells) in &mut self.shells {
            while memory > self.limits.memory
                && let Some(shell) = shells.pop_back()
            {
                memory -= kind.memory;
                surplus.push(shell);
            }
        }
        surplus
    }

    /// Puts the shells into the index of a restarted xenstored. Returns the number of those that it did not have.
    ///
    /// # Errors
    /// Xen's or xenstored's.
    pub fn restore(&self, toolstack: &mut Toolstack) -> Result<usize, ToolstackError> {
        let mut restored = 0;
        for shell in self.shells.values().flatten() {
            restored += usize::from(toolstack.restore_shell(shell)?);
        }
        Ok(restored)
    }
}
