//! The records of libxc's stream, one by one, and libxl's after it.

use std::io::Read;

use crate::error::Error;
use crate::format;
use crate::pages::SavedPages;
use crate::read::{Fields, Source};

/// The longest record of each kind, in bytes.
const CONTEXT_MAX: u32 = 1 << 20;
const POLICY_MAX: u32 = 64 << 10;
const PARAMS_MAX: u32 = 8 + 16 * 256;
const RECORD: &str = "a record";

/// The behaviour of RDTSC, and the time that a guest has seen (`X86_TSC_INFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TscInfo {
    /// `TSC_MODE_*` (asm-x86/time.h).
    pub mode: u32,
    /// The frequency in kHz.
    pub khz: u32,
    /// The time since the guest's birth, in ns.
    pub nsec: u64,
    /// The number of times that the guest was restored.
    pub incarnation: u32,
}

/// A parameter of the guest (`HVM_PARAM_*`, hvm/params.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HvmParam {
    /// Its number.
    pub index: u64,
    /// Its value.
    pub value: u64,
}

/// A record.
#[derive(Debug)]
pub enum SavedRecord<'a> {
    /// The leaves of CPUID that the guest sees: an array of `xen_cpuid_leaf_t`.
    CpuidPolicy(&'a [u8]),
    /// The read-only MSRs that the guest sees: an array of `xen_msr_entry_t`.
    MsrPolicy(&'a [u8]),
    /// What the guest is made with is complete. Its pages and its state follow.
    StaticDataEnd,
    /// Pages. A page may come again, and then replaces what came before.
    Pages(SavedPages<'a>),
    /// How the guest reads the time.
    TscInfo(TscInfo),
    /// The state of the vCPU, as XEN_DOMCTL_sethvmcontext takes it.
    Context(&'a [u8]),
    /// The guest's parameters.
    Params(Vec<HvmParam>),
}

/// The kinds of records that come at most once.
#[derive(Debug, Default)]
struct Seen {
    cpuid: bool,
    msrs: bool,
    static_end: bool,
    tsc: bool,
    context: bool,
    params: bool,
}

/// The records of a file.
pub struct SavedRecords<R> {
    source: Source<R>,
    /// The end of the guest's frames.
    end: u64,
    seen: Seen,
    is_ended: bool,
    body: Vec<u8>,
}

impl<R: Read> SavedRecords<R> {
    pub(crate) fn new(source: Source<R>, end: u64) -> Self {
        Self {
            source,
            end,
            seen: Seen::default(),
            is_ended: false,
            body: Vec::new(),
        }
    }

    /// The next record; `None` after the end of both streams.
    ///
    /// # Errors
    /// The file is cut, contradicts the specification, or has a record of another kind of guest. Nothing after it can
    /// be read.
    pub fn next_record(&mut self) -> Result<Option<SavedRecord<'_>>, Error> {
        // An error is not read over.
        if std::mem::replace(&mut self.is_ended, true) {
            return Ok(None);
        }
        let (kind, at) = loop {
            let at = self.source.at();
            let head: [u8; 8] = self.source.array(RECORD)?;
            let mut fields = Fields(&head);
            let (kind, length) = (fields.u32(), fields.u32());
            let (kind, length) = (kind.unwrap_or_default(), length.unwrap_or_default());
            if kind & format::OPTIONAL != 0 && length <= format::LENGTH_MAX {
                self.source.skip(padded(length), RECORD)?;
                continue;
            }
            self.check(kind, length, at)?;
            self.source.bytes(length, RECORD, &mut self.body)?;
            let padding = padded(length) - u64::from(length);
            self.source.skip(padding, RECORD)?;
            // The pages after it repeat those before.
            if kind != format::VERIFY {
                break (kind, at);
            }
        };
        if kind == format::END {
            self.end(at)?;
            return Ok(None);
        }
        self.is_ended = false;
        record(kind, &self.body, self.end, at).map(Some)
    }

    /// The bytes that are reserved for a record.
    #[cfg(test)]
    pub(crate) fn body_capacity(&self) -> usize {
        self.body.capacity()
    }

    /// Checks that this record can come now, and its length.
    fn check(&mut self, kind: u32, length: u32, at: u64) -> Result<(), Error> {
        let seen = &mut self.seen;
        let is_static = matches!(
            kind,
            format::X86_CPUID_POLICY | format::X86_MSR_POLICY | format::STATIC_DATA_END
        );
        let (name, most) = match kind {
            format::END => ("END", 0),
            format::PAGE_DATA => ("PAGE_DATA", format::LENGTH_MAX),
            format::X86_TSC_INFO => ("X86_TSC_INFO", 24),
            format::HVM_CONTEXT => ("HVM_CONTEXT", CONTEXT_MAX),
            format::HVM_PARAMS => ("HVM_PARAMS", PARAMS_MAX),
            format::VERIFY => ("VERIFY", 0),
            format::STATIC_DATA_END => ("STATIC_DATA_END", 0),
            format::X86_CPUID_POLICY => ("X86_CPUID_POLICY", POLICY_MAX),
            format::X86_MSR_POLICY => ("X86_MSR_POLICY", POLICY_MAX),
            format::CHECKPOINT | format::CHECKPOINT_DIRTY_PFN_LIST => {
                return Err(Error::unsupported(at, "a checkpoint"));
            }
            _ => {
                let what = format!("the mandatory record {kind:#x} of libxc");
                return Err(Error::unsupported(at, what));
            }
        };
        if length > most {
            let what = format!("{name} has {length} bytes, and at most {most} are taken");
            return Err(Error::invalid(at, what));
        }
        if seen.static_end == is_static {
            let place = if is_static { "after" } else { "before" };
            return Err(Error::invalid(
                at,
                format!("{name} stands {place} STATIC_DATA_END"),
            ));
        }
        let once = match kind {
            format::STATIC_DATA_END => &mut seen.static_end,
            format::X86_CPUID_POLICY => &mut seen.cpuid,
            format::X86_MSR_POLICY => &mut seen.msrs,
            format::X86_TSC_INFO => &mut seen.tsc,
            format::HVM_CONTEXT => &mut seen.context,
            format::HVM_PARAMS => &mut seen.params,
            _ => return Ok(()),
        };
        match std::mem::replace(once, true) {
            true => Err(Error::invalid(at, format!("{name} comes twice"))),
            false => Ok(()),
        }
    }

    /// The end of libxc's stream, and then that of libxl's.
    fn end(&mut self, at: u64) -> Result<(), Error> {
        let Seen {
            context, params, ..
        } = self.seen;
        for (name, is_there) in [("HVM_CONTEXT", context), ("HVM_PARAMS", params)] {
            if !is_there {
                return Err(Error::invalid(
                    at,
                    format!("the stream ends without {name}"),
                ));
            }
        }
        loop {
            let at = self.source.at();
            let kind = u32::from_le_bytes(self.source.array(RECORD)?);
            let length = u32::from_le_bytes(self.source.array(RECORD)?);
            match kind {
                format::LIBXL_END if length == 0 => return Ok(()),
                format::LIBXL_EMULATOR_XENSTORE_DATA | format::LIBXL_EMULATOR_CONTEXT => {
                    return Err(Error::unsupported(at, "a device model, as HVM guests have"));
                }
                format::LIBXL_CHECKPOINT_END | format::LIBXL_CHECKPOINT_STATE => {
                    return Err(Error::unsupported(at, "a checkpoint"));
                }
                _ if kind & format::OPTIONAL != 0 && length <= format::LENGTH_MAX => {
                    self.source.skip(padded(length), RECORD)?;
                }
                _ => {
                    let what = format!("record {kind:#x} of libxl, with {length} bytes");
                    return Err(Error::unsupported(at, what));
                }
            }
        }
    }
}

/// The length of a record's body with its padding.
fn padded(length: u32) -> u64 {
    u64::from(length).next_multiple_of(8)
}

/// Parses a record's body.
fn record(kind: u32, body: &[u8], end: u64, at: u64) -> Result<SavedRecord<'_>, Error> {
    let of_parts = |name: &str, part: usize| match body.len().is_multiple_of(part) {
        true => Ok(body),
        false => Err(Error::invalid(
            at,
            format!("{name} has {} bytes", body.len()),
        )),
    };
    Ok(match kind {
        format::X86_CPUID_POLICY => SavedRecord::CpuidPolicy(of_parts("X86_CPUID_POLICY", 24)?),
        format::X86_MSR_POLICY => SavedRecord::MsrPolicy(of_parts("X86_MSR_POLICY", 16)?),
        format::STATIC_DATA_END => SavedRecord::StaticDataEnd,
        format::PAGE_DATA => SavedRecord::Pages(SavedPages::parse(body, end, at)?),
        format::X86_TSC_INFO => {
            let info = tsc_info(body);
            SavedRecord::TscInfo(
                info.ok_or_else(|| Error::invalid(at, "X86_TSC_INFO is not valid"))?,
            )
        }
        format::HVM_CONTEXT if body.is_empty() => {
            return Err(Error::invalid(at, "HVM_CONTEXT is empty"));
        }
        format::HVM_CONTEXT => SavedRecord::Context(body),
        _ => {
            let params = params(body);
            SavedRecord::Params(
                params.ok_or_else(|| Error::invalid(at, "HVM_PARAMS is not valid"))?,
            )
        }
    })
}

fn tsc_info(body: &[u8]) -> Option<TscInfo> {
    let mut fields = Fields(body);
    let info = TscInfo {
        mode: fields.u32()?,
        khz: fields.u32()?,
        nsec: fields.u64()?,
        incarnation: fields.u32()?,
    };
    (fields.u32()? == 0 && fields.0.is_empty()).then_some(info)
}

fn params(body: &[u8]) -> Option<Vec<HvmParam>> {
    let mut fields = Fields(body);
    let (count, reserved) = (fields.u32()?, fields.u32()?);
    let mut all = Vec::new();
    for _ in 0..count {
        let (index, value) = (fields.u64()?, fields.u64()?);
        all.push(HvmParam { index, value });
    }
    (reserved == 0 && fields.0.is_empty()).then_some(all)
}
