//! Errors in a file, with their lines.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

/// All that is wrong, as far as it was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Where: a file's name, or the command line.
    pub source: String,
    /// In the order of the file.
    pub all: Vec<Problem>,
}

/// A file that is not a configuration at all gets no longer list than this.
pub(super) const PROBLEMS_MAX: usize = 20;
/// As much of a value as a message repeats.
const SHOWN: usize = 60;

impl Problems {
    /// Nothing wrong yet.
    pub fn of(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            all: Vec::new(),
        }
    }

    /// Adds what is wrong in a line.
    pub fn add(&mut self, line: usize, what: impl Into<String>) {
        if self.all.len() < PROBLEMS_MAX {
            self.all.push(Problem {
                line,
                what: what.into(),
            });
        }
    }

    pub(super) fn are_enough(&self) -> bool {
        self.all.len() >= PROBLEMS_MAX
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, what }) in self.all.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match line {
                0 => write!(f, "{}: {what}", self.source)?,
                line => write!(f, "{}:{line}: {what}", self.source)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A value as a message shows it: quoted, escaped, and not too long.
pub fn shown(value: &str) -> String {
    let mut start: String = value.chars().take(SHOWN).collect();
    if start.len() < value.len() {
        start += "...";
    }
    format!("{start:?}")
}
