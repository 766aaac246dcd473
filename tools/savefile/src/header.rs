//! xl's header with the guest's configuration, and the headers of the two streams after it.

use std::io::Read;

use crate::error::Error;
use crate::format;
use crate::read::Source;
use crate::records::SavedRecords;

/// The longest configuration, in bytes.
const CONFIG_MAX: u32 = 1 << 20;
/// The longest optional data of the header; the configuration is a part of it.
const OPTIONAL_MAX: u32 = 16 << 20;
const HEADER: &str = "the header";

/// The guest's configuration as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SavedConfig {
    /// libxl's JSON.
    Json(String),
    /// The text of an xl.cfg.
    Cfg(String),
}

/// A file whose header was read.
pub struct SavefileBody<R> {
    source: Source<R>,
}

/// Reads xl's header. The guest's pages and state follow in the body.
///
/// # Errors
/// It is another kind of file, or is not supported.
pub fn open<R: Read>(source: R) -> Result<(SavedConfig, SavefileBody<R>), Error> {
    let mut source = Source::new(source);
    let magic = source.array::<32>(HEADER).map_err(|error| match error {
        // A short file is most likely of another kind.
        Error::Cut { .. } => Error::NoSavedGuest,
        error => error,
    })?;
    if magic != *format::MAGIC {
        return Err(Error::NoSavedGuest);
    }
    let at = source.at();
    let [byteorder, mandatory, _, length] =
        [(); 4].map(|()| source.array(HEADER).map(u32::from_le_bytes));
    let (byteorder, mandatory, length) = (byteorder?, mandatory?, length?);
    if byteorder != format::BYTEORDER {
        return Err(Error::unsupported(at, "another byte order"));
    }
    if mandatory & format::FLAG_STREAM_V2 == 0 {
        return Err(Error::unsupported(at, "the format of Xen 4.5 and before"));
    }
    let unknown = mandatory & !(format::FLAG_JSON | format::FLAG_STREAM_V2);
    if unknown != 0 {
        let what = format!("the mandatory flags {unknown:#x} of xl's header");
        return Err(Error::unsupported(at, what));
    }
    let text = config(&mut source, length)?;
    let config = match mandatory & format::FLAG_JSON {
        0 => SavedConfig::Cfg(text),
        _ => SavedConfig::Json(text),
    };
    Ok((config, SavefileBody { source }))
}

/// Reads the header's optional data, which is the configuration and what later versions may add.
fn config<R: Read>(source: &mut Source<R>, length: u32) -> Result<String, Error> {
    const WHAT: &str = "the configuration";
    let at = source.at();
    if length == 0 {
        return Err(Error::unsupported(at, "no configuration"));
    }
    let config = u32::from_le_bytes(source.array(WHAT)?);
    let rest = length
        .checked_sub(4)
        .and_then(|all| all.checked_sub(config));
    let Some(rest) = rest.filter(|_| length <= OPTIONAL_MAX && config <= CONFIG_MAX) else {
        let what = format!("the configuration has {config} bytes of {length}");
        return Err(Error::invalid(at, what));
    };
    let mut bytes = Vec::new();
    source.bytes(config, WHAT, &mut bytes)?;
    source.skip(u64::from(rest), WHAT)?;
    // xl writes the NUL at the end of its JSON.
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid(at, "the configuration is not text"))
}

impl<R: Read> SavefileBody<R> {
    /// Reads the headers of both streams. The pages of the records are below `end`.
    ///
    /// # Errors
    /// The headers are of another kind of guest, or of a version that is not supported.
    pub fn records(mut self, end: u64) -> Result<SavedRecords<R>, Error> {
        self.libxl()?;
        self.image()?;
        self.domain()?;
        Ok(SavedRecords::new(self.source, end))
    }

    fn libxl(&mut self) -> Result<(), Error> {
        let at = self.source.at();
        let ident: [u8; 8] = self.source.array(HEADER)?;
        let version = u32::from_be_bytes(self.source.array(HEADER)?);
        let options = u32::from_be_bytes(self.source.array(HEADER)?);
        if ident != *format::LIBXL_IDENT {
            return Err(Error::invalid(at, "no stream of libxl begins"));
        }
        if version != format::LIBXL_VERSION {
            let what = format!("version {version} of libxl's stream");
            return Err(Error::unsupported(at, what));
        }
        if options & format::LIBXL_BIG_ENDIAN != 0 {
            return Err(Error::unsupported(at, "a big-endian stream"));
        }
        if options & format::LIBXL_LEGACY != 0 {
            return Err(Error::unsupported(at, "a stream of Xen 4.5 and before"));
        }
        if options != 0 {
            let what = format!("the options {options:#x} of libxl's stream");
            return Err(Error::invalid(at, what));
        }
        Ok(())
    }

    /// The record LIBXC_CONTEXT, and the image header of the stream in it.
    fn image(&mut self) -> Result<(), Error> {
        let at = self.source.at();
        let kind = u32::from_le_bytes(self.source.array(HEADER)?);
        let length = u32::from_le_bytes(self.source.array(HEADER)?);
        if kind != format::LIBXL_LIBXC_CONTEXT {
            let what = format!("record {kind:#x} of libxl stands before libxc's stream");
            return Err(Error::invalid(at, what));
        }
        if length != 0 {
            return Err(Error::invalid(at, "LIBXC_CONTEXT has a length"));
        }
        let at = self.source.at();
        let marker = u64::from_be_bytes(self.source.array(HEADER)?);
        let ident = u32::from_be_bytes(self.source.array(HEADER)?);
        let version = u32::from_be_bytes(self.source.array(HEADER)?);
        let options = u16::from_be_bytes(self.source.array(HEADER)?);
        let reserved: [u8; 6] = self.source.array(HEADER)?;
        if marker != format::IMAGE_MARKER || ident != format::IMAGE_IDENT {
            return Err(Error::invalid(at, "no stream of libxc begins"));
        }
        if version != format::IMAGE_VERSION {
            let what = format!("version {version} of libxc's stream");
            return Err(Error::unsupported(at, what));
        }
        if options & format::IMAGE_BIG_ENDIAN != 0 {
            return Err(Error::unsupported(at, "a big-endian stream"));
        }
        if options != 0 || reserved != [0; 6] {
            return Err(Error::invalid(at, "libxc's header has reserved bits"));
        }
        Ok(())
    }

    fn domain(&mut self) -> Result<(), Error> {
        let at = self.source.at();
        let kind = u32::from_le_bytes(self.source.array(HEADER)?);
        let shift = u16::from_le_bytes(self.source.array(HEADER)?);
        let reserved: [u8; 2] = self.source.array(HEADER)?;
        // The version of Xen that the guest was saved under.
        self.source.array::<8>(HEADER)?;
        if kind != format::DOMAIN_X86_HVM {
            let what = format!("a guest of type {kind}, and not PVH");
            return Err(Error::unsupported(at, what));
        }
        if shift != format::PAGE_SHIFT || reserved != [0; 2] {
            return Err(Error::invalid(at, "the domain's header is not valid"));
        }
        Ok(())
    }
}
