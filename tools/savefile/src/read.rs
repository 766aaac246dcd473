//! Reads a source that may end at any byte, and counts its bytes for messages.

use std::io::{ErrorKind, Read};

use crate::error::Error;

/// The number of bytes for which memory is reserved before they come.
const AHEAD: u64 = 1 << 20;

/// A source with its position.
pub(crate) struct Source<R> {
    source: R,
    at: u64,
}

impl<R: Read> Source<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, at: 0 }
    }

    /// The number of bytes that were read.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Reads `N` bytes of `what`.
    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => {
                    return Err(Error::Cut { at: self.at, what });
                }
                Ok(count) => {
                    done += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }

    /// Reads `length` bytes of `what` in place of the buffer's content.
    pub(crate) fn bytes(
        &mut self,
        length: u32,
        what: &'static str,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let length = u64::from(length);
        buffer.clear();
        buffer.reserve(usize::try_from(length.min(AHEAD)).unwrap_or(0));
        let count = self.source.by_ref().take(length).read_to_end(buffer)? as u64;
        self.at += count;
        if count < length {
            return Err(Error::Cut { at: self.at, what });
        }
        Ok(())
    }

    /// Reads `length` bytes of `what` and drops them.
    pub(crate) fn skip(&mut self, length: u64, what: &'static str) -> Result<(), Error> {
        let mut limited = self.source.by_ref().take(length);
        let count = std::io::copy(&mut limited, &mut std::io::sink())?;
        self.at += count;
        if count < length {
            return Err(Error::Cut { at: self.at, what });
        }
        Ok(())
    }
}

/// Takes little-endian numbers from the start of bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `N` bytes; `None` at the end.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `length` bytes; `None` if there are fewer.
    pub(crate) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }
}
