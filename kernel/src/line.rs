//! One line of text, built in place.

use core::fmt::{self, Write};

/// The longest line in bytes; longer ones are cut. (Xen's own console breaks lines after 200 bytes.)
const MAX: usize = 1024;

/// The beginning of each line.
const PREFIX: &str = "mayfly: ";

/// A line that begins with `mayfly: ` and ends in a newline.
pub struct Line {
    bytes: [u8; MAX],
    len: usize,
}

impl Line {
    /// The line for a text.
    #[must_use]
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self {
            bytes: [0; MAX],
            len: 0,
        };
        let _ = write!(line, "{PREFIX}{text}");
        line.len = line.len.min(MAX - 1);
        let _ = line.write_str("\n");
        line
    }

    /// The whole line.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// The text without the prefix and the newline.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        (self.bytes.get(PREFIX.len()..self.len.saturating_sub(1))).unwrap_or(&[])
    }
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or(&mut []);
        let len = s.len().min(room.len());
        for (to, from) in room.iter_mut().zip(s.bytes()) {
            *to = from;
        }
        self.len += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_still_ends() {
        let short = Line::new(format_args!("{}", 1));
        assert_eq!(short.as_bytes(), b"mayfly: 1\n");
        assert_eq!(short.text(), b"1");
        let long = Line::new(format_args!("{:2000}", 1));
        assert_eq!(long.as_bytes().len(), MAX);
        assert!(long.as_bytes().ends_with(b" \n"));
    }
}
