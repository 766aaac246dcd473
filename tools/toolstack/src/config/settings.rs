//! The parameters of a file, after the whole file was read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use super::error::{ConfigProblems, shown};
use super::syntax::{self, Assignment, FileValue, ValueKind};

/// The largest file that is read.
pub const FILE_MAX: u64 = 256 * 1024;

/// The parameters of a file. Each is removed when it is read: those that are left are not supported.
pub(super) struct FileSettings {
    all: BTreeMap<String, Setting>,
    pub(super) problems: ConfigProblems,
}

struct Setting {
    /// Whether `+=` was used on it.
    added: bool,
    value: FileValue,
}

/// Reads a file of at most [`FILE_MAX`] bytes. Bytes that are not UTF-8 become [`char::REPLACEMENT_CHARACTER`], which a
/// comment may have and a value may not.
///
/// # Errors
/// The file can't be read, or is too large.
pub fn read(path: &Path) -> Result<String, ConfigProblems> {
    let problem = |what: String| {
        let mut problems = ConfigProblems::of(&path.display().to_string());
        problems.add(0, what);
        problems
    };
    let file = File::open(path).map_err(|error| problem(error.to_string()))?;
    // Most files fit at once, and reading one takes two system calls.
    let mut bytes = Vec::with_capacity(4096);
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| problem(error.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(problem(format!(
            "it has more than {} KiB and is no configuration",
            FILE_MAX / 1024
        )));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.into_owned())
}

impl FileSettings {
    pub(super) fn parse(source: &str, text: &str) -> Self {
        let mut problems = ConfigProblems::of(source);
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let assignments = syntax::assignments(text, &mut problems);
        let mut settings = Self {
            all: BTreeMap::new(),
            problems,
        };
        for assignment in assignments {
            settings.assign(assignment);
        }
        settings
    }

    /// The last assignment wins; `+=` appends a string or a list.
    fn assign(
        &mut self,
        Assignment {
            name,
            line,
            add,
            value,
        }: Assignment,
    ) {
        match self.all.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(Setting { added: add, value });
            }
            Entry::Occupied(mut entry) if !add => {
                entry.insert(Setting {
                    added: false,
                    value,
                });
            }
            Entry::Occupied(mut entry) => {
                let setting = entry.get_mut();
                setting.added = true;
                match (&mut setting.value.kind, value.kind) {
                    (ValueKind::Atom(text), ValueKind::Atom(more)) => text.push_str(&more),
                    (ValueKind::List(list), ValueKind::List(more)) => list.extend(more),
                    _ => self.problems.add(
                        line,
                        format!("{} is a list or a string, not both", entry.key()),
                    ),
                }
            }
        }
    }

    /// The names of the parameters that were not read yet.
    pub(super) fn names(&self) -> Vec<String> {
        self.all.keys().cloned().collect()
    }

    /// Whether the parameter exists and was not read yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// The value of a parameter that is a string or a number.
    pub(super) fn text(&mut self, name: &str) -> Option<(usize, String)> {
        let FileValue { line, kind } = self.all.remove(name)?.value;
        match kind {
            ValueKind::Atom(text) => Some((line, text)),
            ValueKind::List(_) => {
                self.problems.add(line, format!("{name} is no list"));
                None
            }
        }
    }

    /// The same for a parameter that is required and must not be empty.
    pub(super) fn needed(&mut self, name: &str) -> Option<(usize, String)> {
        if !self.has(name) {
            self.problems.add(0, format!("{name} is missing"));
        }
        let (line, text) = self.text(name)?;
        if text.is_empty() {
            self.problems.add(line, format!("{name} is empty"));
            return None;
        }
        Some((line, text))
    }

    /// The value of a parameter that is a number.
    pub(super) fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Option<(usize, u64)> {
        let added = self.all.get(name).is_some_and(|setting| setting.added);
        let (line, text) = self.text(name)?;
        match number(&text) {
            _ if added => self.problems.add(
                line,
                format!("{name} is a number: += is for strings and lists"),
            ),
            Some(number) if range.contains(&number) => return Some((line, number)),
            Some(_) => {
                let (least, most) = range.into_inner();
                self.problems
                    .add(line, format!("{name} is {text}, not {least} to {most}"));
            }
            None => self
                .problems
                .add(line, format!("{name} is {}, not a number", shown(&text))),
        }
        None
    }

    /// The line of a parameter, and its value if it is a string, or a list of one string; an empty list counts as an empty
    /// string.
    pub(super) fn any(&mut self, name: &str) -> Option<(usize, Option<String>)> {
        let FileValue { line, kind } = self.all.remove(name)?.value;
        let text = match kind {
            ValueKind::Atom(text) => Some(text),
            ValueKind::List(list) if list.is_empty() => Some(String::new()),
            ValueKind::List(list) => match <[FileValue; 1]>::try_from(list).map(|[one]| one.kind) {
                Ok(ValueKind::Atom(text)) => Some(text),
                _ => None,
            },
        };
        Some((line, text))
    }

    /// The values of a parameter that is a list of strings.
    pub(super) fn list(&mut self, name: &str) -> Option<Vec<(usize, String)>> {
        let FileValue { line, kind } = self.all.remove(name)?.value;
        let ValueKind::List(values) = kind else {
            self.problems.add(line, format!("{name} has to be a list"));
            return None;
        };
        let mut list = Vec::new();
        for value in values {
            match value.kind {
                ValueKind::Atom(text) => list.push((value.line, text)),
                ValueKind::List(_) => self
                    .problems
                    .add(value.line, format!("{name} has a list inside its list")),
            }
        }
        Some(list)
    }

    /// Adds an error for each parameter that was not read.
    pub(super) fn refuse_rest(&mut self) {
        for (name, Setting { value, .. }) in std::mem::take(&mut self.all) {
            self.problems
                .add(value.line, format!("{} is not supported", shown(&name)));
        }
    }
}

/// A number as strtol reads it with base 0: blanks and a plus sign before it, decimal, 0x.., or octal with a leading 0.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // from_str_radix takes a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}
