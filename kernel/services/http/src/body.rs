//! Request content: skipped, as no supported method gives it a meaning.

use super::bytes::{TOKEN, is};
use super::status::Status;

/// The longest request content that is skipped, in bytes. As many bytes again are allowed for the framing of chunks.
/// Longer content is refused.
pub const BODY_MAX: u32 = 16 * 1024;
/// The longest line that begins a chunk, and the longest trailer field, in bytes.
const LINE_MAX: u32 = 256;

/// The unread part of the request's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// There is no content, or all of it has been skipped.
    None,
    /// The number of bytes that remain.
    Length(u32),
    /// The content is longer than [`BODY_MAX`].
    TooLong,
    /// Chunked content (RFC 9112 section 7.1), which ends at its last chunk.
    Chunked(Chunked),
}

/// The position of the parser in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    place: Place,
    /// The remaining bytes of the chunk, or its size as far as it was read.
    chunk: u32,
    /// The number of bytes in all chunks.
    total: u32,
    /// The number of bytes of the line so far, its end included.
    line: u32,
    /// The number of bytes outside of chunks.
    framing: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The first digit of a size.
    Start,
    /// Behind a digit.
    Size,
    /// White space between size and extension.
    Space,
    /// In the extensions.
    Extension,
    /// The LF behind a size.
    SizeEnd,
    /// In the data.
    Data,
    /// The CR behind the data.
    DataCr,
    /// The LF behind the data.
    DataLf,
    /// At the start of a trailer field or of the last line.
    Line,
    /// In the name of a trailer field.
    Name,
    /// In its value.
    Value,
    /// The LF behind it.
    ValueEnd,
    /// The LF of the last line.
    Last,
    /// The body has ended.
    End,
}

impl Body {
    pub(super) fn with_length(length: u64) -> Self {
        match u32::try_from(length) {
            Ok(0) => Self::None,
            Ok(length) if length <= BODY_MAX => Self::Length(length),
            _ => Self::TooLong,
        }
    }

    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunked {
            place: Place::Start,
            chunk: 0,
            total: 0,
            line: 0,
            framing: 0,
        })
    }

    /// Skips content in `input`. Returns the number of skipped bytes.
    pub(super) fn skip(&mut self, input: &[u8]) -> Result<usize, Status> {
        match self {
            Self::None | Self::TooLong => Ok(0),
            Self::Length(left) => {
                let length = (*left as usize).min(input.len());
                *left -= u32::try_from(length).unwrap_or(*left);
                if *left == 0 {
                    *self = Self::None;
                }
                Ok(length)
            }
            Self::Chunked(chunked) => {
                let length = chunked.skip(input)?;
                if chunked.place == Place::End {
                    *self = Self::None;
                }
                Ok(length)
            }
        }
    }
}

impl Chunked {
    fn skip(&mut self, input: &[u8]) -> Result<usize, Status> {
        let mut rest = input;
        while self.place != Place::End {
            if self.place == Place::Data {
                let length = (self.chunk as usize).min(rest.len());
                self.chunk -= u32::try_from(length).unwrap_or(self.chunk);
                rest = rest.get(length..).unwrap_or_default();
                if self.chunk > 0 {
                    break;
                }
                self.place = Place::DataCr;
            }
            let Some((&byte, tail)) = rest.split_first() else {
                break;
            };
            rest = tail;
            self.line += 1;
            self.framing += 1;
            if self.line > LINE_MAX {
                return Err(Status::BadRequest);
            }
            if self.framing > BODY_MAX {
                return Err(Status::ContentTooLarge);
            }
            self.place = self.step(byte)?;
        }
        Ok(input.len() - rest.len())
    }

    fn step(&mut self, byte: u8) -> Result<Place, Status> {
        let text = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        Ok(match (self.place, byte) {
            (Place::Start | Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.place == Place::Start {
                    self.chunk = 0;
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.chunk = self.chunk * 16 + digit;
                // Before the next digit could overflow.
                if self.chunk > BODY_MAX {
                    return Err(Status::ContentTooLarge);
                }
                Place::Size
            }
            (Place::Size | Place::Space | Place::Extension, b';') => Place::Extension,
            (Place::Size | Place::Space, b' ' | b'\t') => Place::Space,
            (Place::Extension, _) if text => Place::Extension,
            (Place::Size | Place::Extension, b'\r') => Place::SizeEnd,
            (Place::SizeEnd, b'\n') => {
                self.line = 0;
                self.total += self.chunk;
                if self.total > BODY_MAX {
                    return Err(Status::ContentTooLarge);
                }
                if self.chunk == 0 {
                    Place::Line
                } else {
                    Place::Data
                }
            }
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => {
                self.line = 0;
                Place::Start
            }
            (Place::Line, b'\r') => Place::Last,
            (Place::Name, b':') => Place::Value,
            (Place::Line | Place::Name, byte) if is(byte, TOKEN) => Place::Name,
            (Place::Value, b'\r') => Place::ValueEnd,
            (Place::Value, _) if text => Place::Value,
            (Place::ValueEnd, b'\n') => {
                self.line = 0;
                Place::Line
            }
            (Place::Last, b'\n') => Place::End,
            _ => return Err(Status::BadRequest),
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;
    use std::string::String;

    use super::*;

    /// Skips a body that other bytes follow, in pieces of `step`. Returns the number of skipped bytes; `None` when the
    /// body is incomplete.
    fn skip(input: &[u8], step: usize) -> Result<Option<usize>, Status> {
        let mut body = Body::chunked();
        let (mut start, mut end) = (0, 0);
        while end < input.len() {
            end = input.len().min(end + step);
            start += body.skip(&input[start..end])?;
            if body == Body::None {
                return Ok(Some(start));
            }
            assert_eq!(start, end);
        }
        Ok(None)
    }

    #[test]
    fn chunks() {
        let large = format!("4000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x4000));
        let too_large = format!("4000\r\n{}\r\n1\r\nx\r\n0\r\n\r\n", "x".repeat(0x4000));
        let tiny = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(4000));
        let longest = format!("0;{}\r\n\r\n", "x".repeat(LINE_MAX as usize - 4));
        let too_long = format!("0;{}\r\n\r\n", "x".repeat(LINE_MAX as usize));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(4000));
        let (bad, more) = (Err(Status::BadRequest), Ok(None));
        let (large_status, all) = (Err(Status::ContentTooLarge), |text: &str| {
            Ok(Some(text.len()))
        });
        for (input, expected) in [
            ("0\r\n\r\nGET", Ok(Some(5))),
            ("3\r\nabc\r\n0\r\n\r\nG", Ok(Some(13))),
            ("00003\r\nabc\r\n000\r\n\r\n", Ok(Some(19))),
            (
                "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
                Ok(Some(35)),
            ),
            ("1;a\r\nx\r\n0 ;b=\"c\\\"\"\t; d\r\n\r\n", Ok(Some(26))),
            ("0\r\nA: b\r\nC:\r\n\r\n", Ok(Some(15))),
            (&large, all(&large)),
            (&too_large, large_status),
            (&tiny, large_status),
            (&longest, all(&longest)),
            (&too_long, bad),
            (&trailers, large_status),
            ("3\r\nabc\r\n0\r\n\r", more),
            ("3\r\nab", more),
            ("ffffffffffffffff\r\n", large_status),
            ("4001\r\n", large_status),
            ("", more),
            ("\r\n", bad),
            ("x\r\n", bad),
            ("-1\r\n", bad),
            ("+1\r\n", bad),
            ("0x1\r\n", bad),
            ("1 \r\nx", bad),
            (" 1\r\nx", bad),
            ("1\nx", bad),
            ("1\rx", bad),
            ("1;a\nx", bad),
            ("1;a\0\r\nx", bad),
            ("1\r\nxx\r\n", bad),
            ("1\r\nx\n0\r\n\r\n", bad),
            ("1\r\nx0\r\n\r\n", bad),
            ("1\r\nx\r0\r\n\r\n", bad),
            ("0\r\n\n", bad),
            ("0\r\na b: c\r\n\r\n", bad),
            ("0\r\na : c\r\n\r\n", bad),
            ("0\r\na: b\r\n c\r\n\r\n", bad),
            ("0\r\na: b\nc: d\r\n\r\n", bad),
            ("0\r\na\r\n\r\n", bad),
            ("0\r\n: b\r\n\r\n", bad),
        ] {
            let title = String::from(input.get(..40).unwrap_or(input));
            for step in [1, 2, 3, 7, 100, input.len().max(1)] {
                assert_eq!(skip(input.as_bytes(), step), expected, "{title:?} {step}");
            }
        }
    }
}
