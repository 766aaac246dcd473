//! Writes a file.

use std::io::{self, BufWriter, Write};

use crate::format;
use crate::header::SavedConfig;
use crate::pages::PageBatch;
use crate::records::{HvmParam, TscInfo};

/// A file that is being written. The caller keeps the order of the records: policies, the end of the static data,
/// pages, the rest.
pub struct SavefileWriter<W: Write> {
    sink: BufWriter<W>,
}

impl<W: Write> SavefileWriter<W> {
    /// Writes all headers. `xen` is the version that the guest runs under, as major and minor number.
    ///
    /// # Errors
    /// The sink's.
    pub fn begin(sink: W, config: &SavedConfig, xen: (u32, u32)) -> io::Result<Self> {
        let mut writer = Self {
            sink: BufWriter::new(sink),
        };
        let (json, text) = match config {
            SavedConfig::Json(text) => (format::FLAG_JSON, text.as_bytes()),
            SavedConfig::Cfg(text) => (0, text.as_bytes()),
        };
        // As xl, which writes the NUL of its JSON.
        let nul = usize::from(json != 0);
        let length = length(text.len() + nul)?;
        let sink = &mut writer.sink;
        sink.write_all(format::MAGIC)?;
        for number in [
            format::BYTEORDER,
            json | format::FLAG_STREAM_V2,
            0,
            length.saturating_add(4),
            length,
        ] {
            sink.write_all(&number.to_le_bytes())?;
        }
        sink.write_all(text)?;
        sink.write_all(&[0][..nul])?;

        sink.write_all(format::LIBXL_IDENT)?;
        sink.write_all(&format::LIBXL_VERSION.to_be_bytes())?;
        sink.write_all(&[0; 4])?;
        writer.record(format::LIBXL_LIBXC_CONTEXT, &[])?;

        let sink = &mut writer.sink;
        sink.write_all(&format::IMAGE_MARKER.to_be_bytes())?;
        sink.write_all(&format::IMAGE_IDENT.to_be_bytes())?;
        sink.write_all(&format::IMAGE_VERSION.to_be_bytes())?;
        // Little endian; reserved.
        sink.write_all(&[0; 8])?;
        sink.write_all(&format::DOMAIN_X86_HVM.to_le_bytes())?;
        sink.write_all(&u32::from(format::PAGE_SHIFT).to_le_bytes())?;
        sink.write_all(&xen.0.to_le_bytes())?;
        sink.write_all(&xen.1.to_le_bytes())?;
        Ok(writer)
    }

    /// Writes the leaves of CPUID that the guest sees, an array of `xen_cpuid_leaf_t`.
    ///
    /// # Errors
    /// The sink's.
    pub fn cpuid_policy(&mut self, leaves: &[u8]) -> io::Result<()> {
        self.record(format::X86_CPUID_POLICY, &[leaves])
    }

    /// Writes the read-only MSRs that the guest sees, an array of `xen_msr_entry_t`.
    ///
    /// # Errors
    /// The sink's.
    pub fn msr_policy(&mut self, entries: &[u8]) -> io::Result<()> {
        self.record(format::X86_MSR_POLICY, &[entries])
    }

    /// Ends the static data.
    ///
    /// # Errors
    /// The sink's.
    pub fn static_data_end(&mut self) -> io::Result<()> {
        self.record(format::STATIC_DATA_END, &[])
    }

    /// Writes the pages of a batch, if there are any, and empties it.
    ///
    /// # Errors
    /// The sink's.
    pub fn pages(&mut self, batch: &mut PageBatch) -> io::Result<()> {
        if !batch.is_empty() {
            let count = length(batch.len())?.to_le_bytes();
            let parts = [&count[..], &[0; 4], &batch.entries, &batch.content];
            self.record(format::PAGE_DATA, &parts)?;
        }
        batch.entries.clear();
        batch.content.clear();
        Ok(())
    }

    /// Writes how the guest reads the time.
    ///
    /// # Errors
    /// The sink's.
    pub fn tsc_info(&mut self, info: &TscInfo) -> io::Result<()> {
        let TscInfo {
            mode,
            khz,
            nsec,
            incarnation,
        } = info;
        self.record(
            format::X86_TSC_INFO,
            &[
                &mode.to_le_bytes(),
                &khz.to_le_bytes(),
                &nsec.to_le_bytes(),
                &incarnation.to_le_bytes(),
                &[0; 4],
            ],
        )
    }

    /// Writes the state of the vCPU, as XEN_DOMCTL_gethvmcontext gives it.
    ///
    /// # Errors
    /// The sink's.
    pub fn context(&mut self, context: &[u8]) -> io::Result<()> {
        self.record(format::HVM_CONTEXT, &[context])
    }

    /// Writes the guest's parameters.
    ///
    /// # Errors
    /// The sink's.
    pub fn params(&mut self, params: &[HvmParam]) -> io::Result<()> {
        let mut body = length(params.len())?.to_le_bytes().to_vec();
        body.extend([0; 4]);
        for HvmParam { index, value } in params {
            body.extend(index.to_le_bytes());
            body.extend(value.to_le_bytes());
        }
        self.record(format::HVM_PARAMS, &[&body])
    }

    /// Ends both streams, and gives the sink back with all that was written.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self) -> io::Result<W> {
        self.record(format::END, &[])?;
        self.record(format::LIBXL_END, &[])?;
        self.sink
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
    }

    fn record(&mut self, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        self.sink.write_all(&kind.to_le_bytes())?;
        self.sink.write_all(&length(total)?.to_le_bytes())?;
        for part in parts {
            self.sink.write_all(part)?;
        }
        let padding = total.next_multiple_of(8) - total;
        self.sink
            .write_all([0; 8].get(..padding).unwrap_or_default())
    }
}

/// A length as the formats have it.
fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput.into())
}
