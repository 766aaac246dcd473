//! The memory and the state of a new domain, out of a file.

use std::collections::BTreeMap;
use std::io::Read;

use mayfly_savefile::{HvmParam, SavedPage, SavedPages, SavedRecord, SavedRecords, TscInfo};

use super::save::{CONSOLE_PFN, PARAMS, STORE_PFN};
use crate::builder::layout::{CONSOLE_GFN, XENSTORE_GFN};
use crate::builder::{FilledMemory, GuestContents, ToolstackError, populate};
use crate::host::Xen;
use mayfly_xen::{CpuPolicy, DomainCall, PAGE_SIZE};

/// The order of a superpage of 2 MiB, and the number of its pages.
const ORDER: u32 = 9;
const TOGETHER: u64 = 1 << ORDER;
/// The number of pages that are mapped at a time.
const AT_A_TIME: usize = 1024;

/// The rest of a file.
pub(super) struct FileContents<R> {
    records: SavedRecords<R>,
    memory: Memory,
    tsc: Option<TscInfo>,
    context: Vec<u8>,
    params: Vec<HvmParam>,
}

fn refused(what: impl Into<String>) -> ToolstackError {
    ToolstackError::Refused(format!("the file {}", what.into()))
}

impl<R: Read> FileContents<R> {
    /// The contents of these records. The guest has at most so many pages.
    pub(super) fn new(records: SavedRecords<R>, most: u64) -> Self {
        Self {
            records,
            memory: Memory {
                most,
                ..Memory::default()
            },
            tsc: None,
            context: Vec::new(),
            params: Vec::new(),
        }
    }

    /// Reads all records, and gives the domain its pages as they come.
    fn read(&mut self, xen: &mut dyn Xen, domid: u16) -> Result<(), ToolstackError> {
        let mut policy = CpuPolicy {
            leaves: Vec::new(),
            msrs: Vec::new(),
        };
        while let Some(record) = self.records.next_record()? {
            match record {
                SavedRecord::CpuidPolicy(leaves) => policy.leaves = leaves.to_vec(),
                SavedRecord::MsrPolicy(msrs) => policy.msrs = msrs.to_vec(),
                SavedRecord::StaticDataEnd if policy.leaves.is_empty() => {}
                SavedRecord::StaticDataEnd => xen.set_cpu_policy(domid, &policy)?,
                SavedRecord::Pages(pages) => self.memory.write(xen, domid, &pages)?,
                SavedRecord::TscInfo(info) => self.tsc = Some(info),
                SavedRecord::Context(context) => self.context = context.to_vec(),
                SavedRecord::Params(params) => self.params = params,
            }
        }
        Ok(())
    }

    /// Checks the parameters; returns whether there is a console's page.
    fn check(&self) -> Result<bool, ToolstackError> {
        let mut has_console = false;
        let mut has_xenstore = false;
        for HvmParam { index, value } in &self.params {
            let known = PARAMS.into_iter().find(|known| u64::from(*known) == *index);
            let expected = match known {
                Some(STORE_PFN) => {
                    has_xenstore = true;
                    XENSTORE_GFN
                }
                Some(CONSOLE_PFN) => {
                    has_console = true;
                    CONSOLE_GFN
                }
                Some(_) => continue,
                None => return Err(refused(format!("has the unknown parameter {index}"))),
            };
            if *value != expected {
                let what = format!("has a ring at gfn {value:#x}, and not at {expected:#x}");
                return Err(refused(what));
            }
        }
        let mut rings = vec![XENSTORE_GFN];
        rings.extend(has_console.then_some(CONSOLE_GFN));
        if !has_xenstore || !rings.iter().all(|gfn| self.memory.has(*gfn)) {
            return Err(refused("has no page for xenstore or the console"));
        }
        Ok(has_console)
    }
}

impl<R: Read> GuestContents for FileContents<R> {
    fn fill(&mut self, xen: &mut dyn Xen, domid: u16) -> Result<FilledMemory, ToolstackError> {
        self.read(xen, domid)?;
        let has_console = self.check()?;
        Ok(FilledMemory { has_console })
    }

    fn start(&mut self, xen: &mut dyn Xen, domid: u16) -> Result<(), ToolstackError> {
        if let Some(info) = self.tsc {
            let info = mayfly_xen::TscInfo {
                mode: info.mode,
                khz: info.khz,
                incarnation: info.incarnation,
                nsec: info.nsec,
            };
            xen.set_tsc_info(domid, &info)?;
        }
        let params = self.params.iter().filter_map(|param| {
            // Those of the rings are set with the event channels.
            match u32::try_from(param.index) {
                Ok(STORE_PFN | CONSOLE_PFN) | Err(_) => None,
                Ok(index) => Some(DomainCall::Param(index, param.value)),
            }
        });
        let params: Vec<_> = params.collect();
        xen.batch(domid, &params)?;
        Ok(xen.set_context(domid, &self.context)?)
    }
}

/// The pages that a domain was given.
#[derive(Debug, Default)]
struct Memory {
    /// A bit for each page, by the number of its superpage.
    have: BTreeMap<u64, [u64; 8]>,
    pages: u64,
    most: u64,
}

/// The superpage of a gfn, the word in its bits, and the bit in that.
fn place(gfn: u64) -> (u64, usize, u64) {
    let page = gfn % TOGETHER;
    let word = usize::try_from(page / 64).unwrap_or(0);
    (gfn / TOGETHER, word, 1 << (page % 64))
}

impl Memory {
    fn has(&self, gfn: u64) -> bool {
        let (superpage, word, bit) = place(gfn);
        let words = self.have.get(&superpage);
        words.is_some_and(|words| words.get(word).is_some_and(|word| word & bit != 0))
    }

    /// Notes a page; returns whether it is new.
    fn add(&mut self, gfn: u64) -> bool {
        let (superpage, word, bit) = place(gfn);
        let words = self.have.entry(superpage).or_default();
        let Some(word) = words.get_mut(word).filter(|word| **word & bit == 0) else {
            return false;
        };
        *word |= bit;
        self.pages += 1;
        true
    }

    /// Allocates the pages of a record that the domain does not have, and writes their contents. SavedPages without content
    /// are zeros, as Xen gives them, and stay as they are if they come again.
    fn write(
        &mut self,
        xen: &mut dyn Xen,
        domid: u16,
        pages: &SavedPages<'_>,
    ) -> Result<(), ToolstackError> {
        let mut new = Vec::new();
        let mut filled = Vec::new();
        for SavedPage { gfn, content } in pages.iter() {
            if self.add(gfn) {
                new.push(gfn);
            }
            filled.extend(content.map(|content| (gfn, content)));
        }
        if self.pages > self.most {
            let most = self.most;
            let what = format!("has more than the {most} pages that the guest may have");
            return Err(refused(what));
        }
        allocate(xen, domid, new)?;
        for part in filled.chunks(AT_A_TIME) {
            let gfns: Vec<u64> = part.iter().map(|(gfn, _)| *gfn).collect();
            let mapped = xen.map(domid, &gfns)?;
            for (page, (_, content)) in part.iter().enumerate() {
                mapped.write(page * PAGE_SIZE, content)?;
            }
        }
        Ok(())
    }
}

/// Allocates pages, as superpages where 512 of them lie together.
fn allocate(xen: &mut dyn Xen, domid: u16, mut gfns: Vec<u64>) -> Result<(), ToolstackError> {
    gfns.sort_unstable();
    let (mut large, mut small) = (Vec::new(), Vec::new());
    let mut rest = gfns.as_slice();
    while let Some((gfn, after)) = rest.split_first() {
        let together = rest.split_at_checked(512);
        match together {
            Some((run, behind))
                if gfn.is_multiple_of(TOGETHER) && run.last() == Some(&(gfn + TOGETHER - 1)) =>
            {
                large.push(*gfn);
                rest = behind;
            }
            _ => {
                small.push(*gfn);
                rest = after;
            }
        }
    }
    populate(xen, domid, &large, ORDER)?;
    populate(xen, domid, &small, 0)
}
