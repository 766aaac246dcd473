//! A table of the file. Each key is taken out when it is read, so the keys that remain are unknown ones.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use mayfly_pack::config::line;
use mayfly_toolstack::config::{ConfigProblems, shown};

/// A value with its line.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundValue<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// A table with the line of its header.
pub(super) struct FileTable<'t> {
    text: &'t str,
    name: &'static str,
    pub(super) line: usize,
    entries: DeTable<'t>,
    /// The keys that were read, whether they exist or not.
    known: Vec<&'static str>,
}

impl<'t> FileTable<'t> {
    /// The top table of a file. Reports lines that are not TOML.
    pub(super) fn of_file(text: &'t str, problems: &mut ConfigProblems) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| line(text, span.start));
            problems.add(at, error.message());
        }
        Self {
            text,
            name: "the file",
            line: 0,
            entries: table.into_inner(),
            known: Vec::new(),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.entries.remove(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    fn at(&self, offset: usize) -> usize {
        line(self.text, offset)
    }

    /// Takes the value of a key. Reports a value of a wrong type.
    pub(super) fn get<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        problems: &mut ConfigProblems,
    ) -> Option<FoundValue<T>> {
        let value = self.take(key)?;
        let line = self.at(value.span().start);
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(FoundValue { value, line }),
            Err(error) => {
                // A value in a list has a line of its own.
                let line = error.span().map_or(line, |span| self.at(span.start));
                problems.add(line, format!("{key}: {}", error.message()));
                None
            }
        }
    }

    /// Takes the value of a needed key. Reports a missing one, with `example` as a possible value.
    pub(super) fn needed<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut ConfigProblems,
    ) -> Option<FoundValue<T>> {
        if !self.has(key) {
            self.known.push(key);
            let Self { name, line, .. } = self;
            problems.add(*line, format!("{name} needs {key}, like {key} = {example}"));
            return None;
        }
        self.get(key, problems)
    }

    /// Takes a needed list. Each value has its line.
    pub(super) fn list<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut ConfigProblems,
    ) -> Option<Vec<FoundValue<T>>> {
        let found = self.needed::<Vec<Spanned<T>>>(key, example, problems)?;
        let with_line = |value: Spanned<T>| FoundValue {
            line: self.at(value.span().start),
            value: value.into_inner(),
        };
        Some(found.value.into_iter().map(with_line).collect())
    }

    /// Takes a table below this one.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        name: &'static str,
        problems: &mut ConfigProblems,
    ) -> Option<Self> {
        let value = self.take(key)?;
        self.below(value, name, problems)
    }

    /// Takes the tables of a list.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        name: &'static str,
        problems: &mut ConfigProblems,
    ) -> Vec<Self> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let line = self.at(value.span().start);
        let DeValue::Array(list) = value.into_inner() else {
            problems.add(
                line,
                format!("{key} is a list of tables, each below {name}"),
            );
            return Vec::new();
        };
        list.into_iter()
            .filter_map(|value| self.below(value, name, problems))
            .collect()
    }

    fn below(
        &self,
        value: Spanned<DeValue<'t>>,
        name: &'static str,
        problems: &mut ConfigProblems,
    ) -> Option<Self> {
        let line = self.at(value.span().start);
        let DeValue::Table(entries) = value.into_inner() else {
            problems.add(line, format!("this has to be a table, below {name}"));
            return None;
        };
        let text = self.text;
        Some(Self {
            text,
            name,
            line,
            entries,
            known: Vec::new(),
        })
    }

    /// Reports the unknown keys.
    pub(super) fn finish(self, problems: &mut ConfigProblems) {
        for key in self.entries.keys() {
            let what = format!(
                "{} has no {}; it has {}",
                self.name,
                shown(key.get_ref()),
                self.known.join(", ")
            );
            problems.add(self.at(key.span().start), what);
        }
    }
}
