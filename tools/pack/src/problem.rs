//! Errors in a site, with file and line, all reported at once.

use std::fmt;
use std::path::{Path, PathBuf};

/// The number of problems of each kind that are kept; the rest is only counted.
const KEPT: usize = 100;

/// A problem of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the site's folder.
    pub file: PathBuf,
    /// The line, from 1 on, if it is known.
    pub line: Option<usize>,
    /// The column in bytes, from 1 on, if it is known.
    pub column: Option<usize>,
    /// The description of the problem.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Problems of one kind: all are counted, and the first hundred are kept.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    kept: Vec<Problem>,
    count: usize,
    beside: Option<Box<Problems>>,
}

impl Problems {
    /// The problems that were kept, which are the first ones.
    #[must_use]
    pub fn kept(&self) -> &[Problem] {
        &self.kept
    }

    /// The number of all problems.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// For errors: the warnings about the same site, if there are any.
    #[must_use]
    pub fn warnings(&self) -> Option<&Self> {
        self.beside.as_deref()
    }

    fn add(&mut self, problem: Problem) {
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(problem);
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.kept.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        let more = self.count - self.kept.len();
        if more > 0 {
            write!(f, "\nand {more} more")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Gathers errors and warnings while a site is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Problems,
    pub(crate) warnings: Problems,
}

impl Findings {
    /// The errors, with the warnings beside them.
    pub(crate) fn into_errors(self) -> Problems {
        let warnings = Some(self.warnings).filter(|warnings| warnings.count > 0);
        Problems {
            beside: warnings.map(Box::new),
            ..self.errors
        }
    }

    pub(crate) fn error(&mut self, file: &Path, line: Option<usize>, what: impl Into<String>) {
        self.errors.add(problem(file, line, what.into()));
    }

    /// An error at a line and a column.
    pub(crate) fn error_at(&mut self, file: &Path, (line, column): (usize, usize), what: String) {
        self.errors.add(Problem {
            column: Some(column),
            ..problem(file, Some(line), what)
        });
    }

    pub(crate) fn warning(&mut self, file: &Path, line: Option<usize>, what: impl Into<String>) {
        self.warnings.add(problem(file, line, what.into()));
    }
}

fn problem(file: &Path, line: Option<usize>, what: String) -> Problem {
    Problem {
        file: file.to_owned(),
        line,
        column: None,
        what,
    }
}
