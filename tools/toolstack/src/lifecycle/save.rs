//! Writes a suspended guest to a file.

use std::ops::Range;

use mayfly_savefile::{HvmParam, PageBatch, SavedConfig, SavefileWriter, TscInfo};

use super::target::SaveTarget;
use crate::builder::layout::SPECIAL;
use crate::builder::report::Timeline;
use crate::builder::{
    CreateError, CreateStep, CreateSteps, DestroyError, FailedStep, Toolstack, ToolstackError,
};
use crate::host::{Pages, Xen};
use mayfly_xen::PAGE_SIZE;

/// What becomes of a guest that was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterSave {
    /// It is removed.
    Removed,
    /// It goes on.
    Runs,
    /// It is paused where it would go on.
    Paused,
}

/// The parameters that a file has, as far as they are not 0 (`HVM_PARAM_*`, hvm/params.h; those that libxc saves).
pub(super) const PARAMS: [u32; 16] = [
    STORE_PFN,
    5,
    6,
    9,
    12,
    CONSOLE_PFN,
    19,
    27,
    28,
    29,
    32,
    33,
    34,
    36,
    37,
    38,
];
/// `HVM_PARAM_STORE_PFN` and `HVM_PARAM_CONSOLE_PFN`.
pub(super) const STORE_PFN: u32 = 1;
pub(super) const CONSOLE_PFN: u32 = 17;

/// The mapped pages of a guest.
type Mapped = Vec<Box<dyn Pages>>;

/// A guest that was saved.
pub struct SavedReport {
    /// The duration of each step.
    pub timeline: Timeline,
    /// Its pages. Unmapping them takes the kernel longer than mapping, and almost nothing when the program ends: a
    /// program that ends now forgets this.
    _mapped: Mapped,
}

impl Toolstack {
    /// Has a guest suspend itself, and writes it to a file. When a step fails, the guest goes on, and there is no file.
    ///
    /// # Errors
    /// The step that failed, why, and what of it could not be undone.
    pub fn save(
        &mut self,
        domid: u16,
        target: SaveTarget,
        after: AfterSave,
    ) -> Result<SavedReport, CreateError> {
        let mut steps = CreateSteps::saving();
        let config = steps.run(CreateStep::Check, || {
            self.can_suspend(domid)?;
            self.describe(domid)
        })?;
        // A fault after it finds the guest suspended.
        let result = steps
            .run(CreateStep::Suspend, || self.suspend(domid))
            .and_then(|()| self.written(domid, &config, target, &mut steps));
        let mapped = match result {
            Ok(mapped) => mapped,
            Err(failure) => return Err(self.not_saved(domid, failure)),
        };
        steps.run(CreateStep::Remove, || match after {
            AfterSave::Removed => match self.destroy(domid, true) {
                Ok(_) | Err(DestroyError::NoSuchDomain(_)) => Ok(()),
                Err(DestroyError::Cause(cause)) => Err(cause),
                Err(error) => Err(ToolstackError::Refused(error.to_string())),
            },
            AfterSave::Runs => self.go_on(domid, false),
            AfterSave::Paused => self.go_on(domid, true),
        })?;
        Ok(SavedReport {
            timeline: steps.finish(),
            _mapped: mapped,
        })
    }

    /// Lets a guest that may be suspended go on.
    fn not_saved(&mut self, domid: u16, failure: FailedStep) -> CreateError {
        let is_suspended = match self.xen.info(domid) {
            Ok(info) => info.is_some_and(|info| !info.is_dying() && info.shutdown() == Some(2)),
            Err(_) => true,
        };
        let left = match is_suspended {
            true => self.go_on(domid, false).err(),
            false => None,
        };
        let left = left.map(|error| format!("domain {domid} is suspended: {error}"));
        CreateError {
            failure,
            left: left.into_iter().collect(),
        }
    }

    fn written(
        &mut self,
        domid: u16,
        config: &SavedConfig,
        target: SaveTarget,
        steps: &mut CreateSteps,
    ) -> Result<Mapped, FailedStep> {
        let xen = &mut *self.xen;
        let policy = steps.run(CreateStep::State, || xen.cpu_policy(domid))?;
        let mut writer = steps.run(CreateStep::File, || {
            let mut writer = SavefileWriter::begin(target, config, xen.version())?;
            writer.cpuid_policy(&policy.leaves)?;
            writer.msr_policy(&policy.msrs)?;
            writer.static_data_end()?;
            Ok::<_, ToolstackError>(writer)
        })?;
        let mapped = steps.run(CreateStep::Pages, || {
            let pages = PageWriter {
                xen: &mut *xen,
                domid,
                writer: &mut writer,
                batch: PageBatch::default(),
                left: 0,
                mapped: Mapped::new(),
            };
            pages.all()
        })?;
        let writer = steps.run(CreateStep::State, || {
            state(xen, domid, &mut writer)?;
            Ok::<_, ToolstackError>(writer)
        })?;
        steps.run(CreateStep::File, || {
            let target = writer.finish()?;
            Ok::<_, ToolstackError>(target.commit()?)
        })?;
        Ok(mapped)
    }
}

/// The pages of a domain that is being written.
struct PageWriter<'a> {
    xen: &'a mut dyn Xen,
    domid: u16,
    writer: &'a mut SavefileWriter<SaveTarget>,
    batch: PageBatch,
    /// The number of pages that were not found yet.
    left: u64,
    mapped: Mapped,
}

impl PageWriter<'_> {
    /// Writes all pages.
    fn all(mut self) -> Result<Mapped, ToolstackError> {
        let Some(info) = self.xen.info(self.domid)? else {
            return Err(ToolstackError::Destroyed);
        };
        self.left = info.pages;
        // RAM begins at 0; the special pages lie below 4 GiB. Only a guest with pages elsewhere is searched to its end.
        let special = SPECIAL.start.max(info.pages)..SPECIAL.end.max(info.pages);
        self.range(0..info.pages)?;
        self.range(special.clone())?;
        if self.left > 0 {
            let end = self.xen.last_gfn(self.domid)?.saturating_add(1);
            self.range(info.pages..special.start)?;
            self.range(special.end..end)?;
        }
        self.writer.pages(&mut self.batch)?;
        Ok(self.mapped)
    }

    /// Writes the pages that the domain has at these gfns, until none is left.
    fn range(&mut self, gfns: Range<u64>) -> Result<(), ToolstackError> {
        let most = mayfly_xen::Xen::OWN_MAX;
        let mut first = gfns.start;
        while first < gfns.end && self.left > 0 {
            let count = usize::try_from(gfns.end - first).unwrap_or(most).min(most);
            let own = self.xen.own_pages(self.domid, first, count)?;
            first += count as u64;
            self.left = self.left.saturating_sub(own.len() as u64);
            if own.is_empty() {
                continue;
            }
            let mapped = self.xen.map(self.domid, &own)?;
            for (page, gfn) in own.iter().enumerate() {
                match mapped.is_zero(page)? {
                    true => self.batch.zeros(*gfn),
                    false => mapped.read(page * PAGE_SIZE, self.batch.page(*gfn))?,
                }
                if self.batch.is_full() {
                    self.writer.pages(&mut self.batch)?;
                }
            }
            self.mapped.push(mapped);
        }
        Ok(())
    }
}

/// Writes what is not memory.
fn state(
    xen: &mut dyn Xen,
    domid: u16,
    writer: &mut SavefileWriter<SaveTarget>,
) -> Result<(), ToolstackError> {
    let info = xen.tsc_info(domid)?;
    writer.tsc_info(&TscInfo {
        mode: info.mode,
        khz: info.khz,
        nsec: info.nsec,
        incarnation: info.incarnation,
    })?;
    writer.context(&xen.context(domid)?)?;
    let mut params = Vec::new();
    for index in PARAMS {
        let value = xen.get_param(domid, index)?;
        if value != 0 {
            let index = index.into();
            params.push(HvmParam { index, value });
        }
    }
    Ok(writer.params(&params)?)
}
