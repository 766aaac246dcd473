//! Errors in a file, with their lines.

use std::fmt;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The description of the error.
    pub what: String,
}

/// The errors of a file, up to a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigProblems {
    /// The source: a file's name, or the command line.
    pub source: String,
    /// The errors, in the order of the file.
    pub all: Vec<ConfigProblem>,
}

/// The most errors that are listed, for files that are not configurations at all.
pub(super) const PROBLEMS_MAX: usize = 20;
/// The number of characters of a value that a message repeats.
const SHOWN: usize = 60;

impl ConfigProblems {
    /// An empty list.
    pub fn of(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            all: Vec::new(),
        }
    }

    /// Adds an error in a line.
    pub fn add(&mut self, line: usize, what: impl Into<String>) {
        if self.all.len() < PROBLEMS_MAX {
            self.all.push(ConfigProblem {
                line,
                what: what.into(),
            });
        }
    }

    pub(super) fn are_enough(&self) -> bool {
        self.all.len() >= PROBLEMS_MAX
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigProblem { line, what }) in self.all.iter().enumerate() {
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

impl std::error::Error for ConfigProblems {}

/// A value as a message shows it: quoted, escaped, and not too long.
pub fn shown(value: &str) -> String {
    let mut start: String = value.chars().take(SHOWN).collect();
    if start.len() < value.len() {
        start += "...";
    }
    format!("{start:?}")
}
