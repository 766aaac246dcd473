//! Log lines of words and `key=value`, for people and for journald.

use std::fmt::{Display, Write as _};
use std::io::{IsTerminal as _, Write as _, stderr};

/// The level of a line (syslog(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something does not work.
    Error = 3,
    /// Something is wrong, but the daemon goes on.
    Warning = 4,
    /// Something has happened.
    Info = 6,
}

/// A line that is being composed.
pub struct Line {
    text: String,
}

/// Begins a line.
#[must_use]
pub fn line(level: Level, what: &str) -> Line {
    // journald reads the level from this prefix (sd-daemon(3)).
    let text = match stderr().is_terminal() {
        true => what.to_owned(),
        false => format!("<{}>{what}", level as u8),
    };
    Line { text }
}

impl Line {
    /// Adds a value. A value with blanks or quotes is quoted, so that it cannot look like another key or line.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        let value = value.to_string();
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
        let _ = match !value.is_empty() && value.bytes().all(is_plain) {
            true => write!(self.text, " {key}={value}"),
            false => write!(self.text, " {key}={value:?}"),
        };
        self
    }

    /// Writes the line. An error is ignored: the daemon goes on without its log.
    pub fn write(mut self) {
        self.text.push('\n');
        let _ = stderr().write_all(self.text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_looks_like_another() {
        let line = line(Level::Info, "died")
            .with("domid", 3)
            .with("why", "a\nb c=\"d\"")
            .with("none", "");
        assert!(
            line.text
                .ends_with(r#"died domid=3 why="a\nb c=\"d\"" none="""#)
        );
    }
}
