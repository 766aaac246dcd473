//! Pages of a pack.

use super::read::{entry, hash, part, search, u8_at, u16_at, u32_at, u64_at};
use super::{ACCEPT_RANGES, FILE, HOST, LINES, LINES_OF, Pack, REDIRECT, RESOURCE, VARIANT};
use crate::{Broken, Coding, File, Pages, Resource, Variant};

/// The hash of a path of a host.
#[must_use]
pub fn path_hash(seed: u64, host: u32, path: &[u8]) -> u64 {
    hash(hash(seed, &host.to_le_bytes()), path)
}

/// A resource in the listing: its host, its path and the resource itself.
pub type Listed<'a> = (u32, &'a [u8], Resource<'a>);

/// A resource, from its first byte to the end of the section.
#[derive(Clone, Copy)]
struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    fn host(self) -> Result<u32, Broken> {
        u32_at(self.0, 0)
    }

    fn kind(self) -> Result<u8, Broken> {
        u8_at(self.0, 6)
    }

    fn variants(self) -> Result<usize, Broken> {
        u8_at(self.0, 7).map(usize::from)
    }

    fn path_at(self) -> Result<usize, Broken> {
        Ok(RESOURCE + VARIANT * self.variants()?)
    }

    fn path(self) -> Result<&'a [u8], Broken> {
        part(self.0, self.path_at()?, u16_at(self.0, 4)?.into())
    }

    fn resource(self, bodies: &'a [u8]) -> Result<Resource<'a>, Broken> {
        match self.kind()? {
            FILE => self.file(bodies).map(Resource::File),
            REDIRECT => {
                let at = self.path_at()?.checked_add(self.path()?.len());
                let location = part(self.0, at.ok_or(Broken)?, u16_at(self.0, 10)?.into())?;
                let status = u16_at(self.0, 8)?;
                if !matches!(status, 301 | 302 | 307 | 308) {
                    return Err(Broken);
                }
                Ok(Resource::Redirect { status, location })
            }
            _ => Err(Broken),
        }
    }

    /// The header lines for answers that are not a file's content.
    fn lines(self, bodies: &'a [u8]) -> Result<&'a [u8], Broken> {
        let behind = self.path_at()?.checked_add(self.path()?.len());
        let behind = behind.ok_or(Broken)?;
        match self.kind()? {
            FILE => {
                let variant = self.variant(0, bodies)?;
                let common = part(variant.lines, 0, variant.common)?;
                let mut windows = common.windows(ACCEPT_RANGES.len());
                let at = windows.position(|line| line == ACCEPT_RANGES);
                let at = at.map_or(common.len(), |at| at + ACCEPT_RANGES.len());
                Ok(common.get(at..).unwrap_or_default())
            }
            REDIRECT => {
                let location = usize::from(u16_at(self.0, 10)?);
                part(self.0, behind + location, u16_at(self.0, 12)?.into())
            }
            LINES => part(self.0, behind, u16_at(self.0, 8)?.into()),
            _ => Err(Broken),
        }
    }

    fn file(self, bodies: &'a [u8]) -> Result<File<'a>, Broken> {
        let mut variants = [None; 4];
        let count = self.variants()?;
        for (index, place) in variants.iter_mut().take(count).enumerate() {
            *place = Some(self.variant(index, bodies)?);
        }
        let codings = variants.iter().flatten().map(|variant| variant.coding);
        let once = codings.fold(0_u16, |seen, coding| seen + (1 << (4 * coding as u16)));
        // Four bits count each coding: none may occur twice, and the identity must exist.
        if count > variants.len() || once & 0xeeee != 0 || once & 1 == 0 {
            return Err(Broken);
        }
        Ok(File {
            modified: u64_at(self.0, 8)?,
            variants,
        })
    }

    fn variant(self, index: usize, bodies: &'a [u8]) -> Result<Variant<'a>, Broken> {
        let record = part(self.0, RESOURCE + VARIANT * index, VARIANT)?;
        let coding = match u8_at(record, 0)? {
            0 => Coding::Identity,
            1 => Coding::Gzip,
            2 => Coding::Brotli,
            3 => Coding::Zstd,
            _ => return Err(Broken),
        };
        let lines = part(
            self.0,
            u32_at(record, 4)? as usize,
            u16_at(record, 8)?.into(),
        )?;
        let [common, encoded, typed] = [
            usize::from(u16_at(record, 10)?),
            usize::from(u16_at(record, 12)?),
            usize::from(u16_at(record, 14)?),
        ];
        if common > encoded || encoded > typed || typed > lines.len() {
            return Err(Broken);
        }
        Ok(Variant {
            coding,
            etag: part(lines, u16_at(record, 2)?.into(), u8_at(record, 1)?.into())?,
            lines,
            common,
            encoded,
            typed,
            body: part(
                bodies,
                u32_at(record, 16)? as usize,
                u32_at(record, 20)? as usize,
            )?,
        })
    }
}

impl<'a> Pack<'a> {
    fn resource_record(&self, at: u32) -> Result<Record<'a>, Broken> {
        let at = usize::try_from(at).map_err(|_| Broken)?;
        self.resources.get(at..).map(Record).ok_or(Broken)
    }

    /// The host of a name, or else the default host.
    fn host(&self, name: &[u8]) -> Result<u32, Broken> {
        let count = self.hosts.len() / 8;
        let at = |index| self.nth_host(index)?.ok_or(Broken);
        let index = search(count, |index| Ok(at(index)?.0 < name))?;
        if index < count {
            let (found, host) = at(index)?;
            if found == name {
                return Ok(host);
            }
        }
        Ok(self.default_host)
    }

    fn find_path(&self, host: u32, path: &[u8]) -> Result<Option<Record<'a>>, Broken> {
        self.paths.find(path_hash(self.seed, host, path), |record| {
            let record = self.resource_record(record)?;
            let found = record.host()? == host && record.path()? == path;
            Ok(found.then_some(record))
        })
    }

    /// The `index`th host name in the order of bytes, and its host.
    ///
    /// # Errors
    ///
    /// The pack is broken.
    pub fn nth_host(&self, index: usize) -> Result<Option<(&'a [u8], u32)>, Broken> {
        if index >= self.hosts.len() / 8 {
            return Ok(None);
        }
        let entry = entry::<8>(self.hosts, 0, index)?;
        let record = self.resource_record(u32_at(&entry, 0)?)?;
        if record.kind()? != HOST {
            return Err(Broken);
        }
        Ok(Some((record.path()?, u32_at(&entry, 4)?)))
    }

    /// The host that serves requests with no host or an unknown one.
    #[must_use]
    pub fn default_host(&self) -> u32 {
        self.default_host
    }

    /// The `index`th resource in the order of hosts and paths.
    ///
    /// # Errors
    ///
    /// The pack is broken.
    pub fn nth_resource(&self, index: usize) -> Result<Option<Listed<'a>>, Broken> {
        if index >= self.listing.len() / 4 {
            return Ok(None);
        }
        let record = u32::from_le_bytes(entry(self.listing, 0, index)?);
        let record = self.resource_record(record)?;
        let resource = record.resource(self.bodies)?;
        Ok(Some((record.host()?, record.path()?, resource)))
    }

    /// The resource at a path of the host number `host`; an error page has its own path.
    ///
    /// # Errors
    ///
    /// The pack is broken.
    pub fn resource_of(&self, host: u32, path: &[u8]) -> Result<Option<Resource<'a>>, Broken> {
        let record = self.find_path(host, path)?;
        record
            .map(|record| record.resource(self.bodies))
            .transpose()
    }
}

impl Pages for Pack<'_> {
    fn resource(&self, host: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken> {
        // Paths that do not begin with a slash are those of error pages.
        if path.first() != Some(&b'/') {
            return Ok(None);
        }
        self.resource_of(self.host(host)?, path)
    }

    fn error_page(&self, host: &[u8], status: u16) -> Result<Option<File<'_>>, Broken> {
        let [high, low] = status.to_be_bytes();
        let record = self.find_path(self.host(host)?, &[0, high, low])?;
        record.map(|record| record.file(self.bodies)).transpose()
    }

    fn lines(&self, host: &[u8], path: &[u8]) -> Result<&[u8], Broken> {
        let host = self.host(host)?;
        if path.first() != Some(&b'/') {
            return Ok(b"");
        }
        if let Some(record) = self.find_path(host, path)? {
            return record.lines(self.bodies);
        }
        let mut lines: &[u8] = b"";
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (at, _) in slashes {
            let folder = path.get(..=at).unwrap_or_default();
            match self.find_path(host | LINES_OF, folder)? {
                Some(record) => lines = record.lines(self.bodies)?,
                None => break,
            }
        }
        Ok(lines)
    }
}
