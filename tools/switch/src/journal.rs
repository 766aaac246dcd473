//! The journal: the guests that a switch serves, for the next switch if this one is killed. It has a line
//! of JSON for each change, written in one system call; a line that a kill has cut short is ignored.
//!
//! It is two files, which stay open. When the one in use has become long, the guests at present are written to the other
//! one, which is used from then on. A number in each says which is the later one, and stands behind the guests: a file
//! without it was not completed. So a running switch neither opens nor renames a file, and is not allowed to.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::control::line;
use crate::switch::Guest;

/// The size, in bytes, from which the journal is rewritten if it has also grown to more than twice its size after the
/// last rewrite.
const SIZE_MAX: u64 = 256 * 1024;

/// A change of the guests that a switch serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalEntry {
    /// A guest is served from now on.
    Attach(Box<Guest>),
    /// The guest of this domain is not served any more.
    Detach(u16),
    /// All guests of the other file are in this one, which is the later one if its number is greater.
    Complete(u64),
}

/// The guests of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownGuests {
    /// The guests.
    pub guests: Vec<Guest>,
    /// The number of the file that they are from; 0 if it has none.
    number: u64,
}

impl KnownGuests {
    fn take(&mut self, entry: JournalEntry) {
        match entry {
            JournalEntry::Attach(guest) => {
                self.guests
                    .retain(|other| other.rings.domain != guest.rings.domain);
                self.guests.push(*guest);
            }
            JournalEntry::Detach(domain) => {
                self.guests.retain(|guest| guest.rings.domain != domain)
            }
            JournalEntry::Complete(number) => self.number = number,
        }
    }

    /// Parses a journal. Invalid lines are skipped: the last may be cut.
    fn parse(text: &[u8]) -> Self {
        let mut known = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            if let Ok(entry) = serde_json::from_slice(line) {
                known.take(entry);
            }
        }
        known
    }
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    /// The one in use, and the other one.
    files: [File; 2],
    size: u64,
    limit: u64,
    known: KnownGuests,
}

impl Journal {
    /// Opens and rewrites the journal: the file of this path, and one beside it. Its contents are [`Journal::known`].
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let (first, second) = (read(path)?, read(&beside(path))?);
        // A file without a number is of an earlier version, and the only one.
        let ((file, known), (other, _)) = match second.1.number > first.1.number {
            true => (second, first),
            false => (first, second),
        };
        let mut this = Self {
            files: [file, other],
            size: 0,
            limit: 0,
            known,
        };
        this.rewrite()?;
        Ok(this)
    }

    /// The guests at present.
    #[must_use]
    pub fn known(&self) -> &KnownGuests {
        &self.known
    }

    /// Records a change.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, entry: JournalEntry) -> io::Result<()> {
        let line = line(&entry)?;
        self.known.take(entry);
        let [file, _] = &mut self.files;
        file.write_all(&line)?;
        self.size += line.len() as u64;
        if self.size > self.limit {
            self.rewrite()?;
        }
        Ok(())
    }

    /// Writes the guests at present to the other file, and uses that one from then on.
    fn rewrite(&mut self) -> io::Result<()> {
        let number = self.known.number + 1;
        let mut text = Vec::new();
        for guest in &self.known.guests {
            text.extend(line(&JournalEntry::Attach(Box::new(guest.clone())))?);
        }
        text.extend(line(&JournalEntry::Complete(number))?);
        let [_, other] = &mut self.files;
        other.set_len(0)?;
        other.write_all(&text)?;
        self.files.reverse();
        self.known.number = number;
        self.size = text.len() as u64;
        self.limit = SIZE_MAX.max(2 * self.size);
        Ok(())
    }
}

/// The path of the second file.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".2");
    name.into()
}

/// Opens a file, which only its owner can read, and reads it. What is written to it comes at its end.
fn read(path: &Path) -> io::Result<(File, KnownGuests)> {
    let options = &mut File::options();
    let options = options.read(true).append(true).create(true).mode(0o600);
    let mut file = options.open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok((file, KnownGuests::parse(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::guest;

    fn names(journal: &Journal) -> Vec<String> {
        let guests = journal.known().guests.iter();
        guests.map(|guest| guest.name.clone()).collect()
    }

    #[test]
    fn what_was_written_is_there_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hatch/journal");
        let mut journal = Journal::open(&path).unwrap();
        for domain in 1..=3 {
            journal
                .write(JournalEntry::Attach(Box::new(guest(domain))))
                .unwrap();
        }
        journal.write(JournalEntry::Detach(2)).unwrap();
        drop(journal);
        // A kill in the middle of a line.
        for path in [path.clone(), beside(&path)] {
            let mut file = File::options().append(true).open(&path).unwrap();
            file.write_all(b"{\"attach\":{\"name\":\"cut").unwrap();
        }
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(names(&journal), ["guest1", "guest3"]);
        assert_eq!(journal.known().guests[0], guest(1));
        journal
            .write(JournalEntry::Attach(Box::new(guest(4))))
            .unwrap();
        assert_eq!(
            names(&Journal::open(&path).unwrap()),
            ["guest1", "guest3", "guest4"]
        );
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal
            .write(JournalEntry::Attach(Box::new(guest(1))))
            .unwrap();
        for _ in 0..3000 {
            journal
                .write(JournalEntry::Attach(Box::new(guest(2))))
                .unwrap();
            journal.write(JournalEntry::Detach(2)).unwrap();
            for path in [path.clone(), beside(&path)] {
                assert!(fs::metadata(&path).unwrap().len() < SIZE_MAX + 1024);
            }
        }
        assert_eq!(names(&Journal::open(&path).unwrap()), ["guest1"]);
    }

    #[test]
    fn a_kill_in_a_rewriting_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        for domain in 1..=3 {
            journal
                .write(JournalEntry::Attach(Box::new(guest(domain))))
                .unwrap();
        }
        let [_, other] = &journal.files;
        other.set_len(0).unwrap();
        // Of what would come next, each part that there may be in the other file.
        let mut next = Vec::new();
        for domain in [1, 3] {
            let attach = JournalEntry::Attach(Box::new(guest(domain)));
            next.extend(line(&attach).unwrap());
        }
        let whole = [&next[..], &line(&JournalEntry::Complete(9)).unwrap()].concat();
        let current = beside(&path);
        let (current, other) = match fs::metadata(&path).unwrap().len() {
            0 => (current, path.clone()),
            _ => (path.clone(), current),
        };
        let before = fs::read(&current).unwrap();
        for length in 0..=whole.len() {
            fs::write(&other, &whole[..length]).unwrap();
            fs::write(&current, &before).unwrap();
            let journal = Journal::open(&path).unwrap();
            let expected: &[&str] = match length + 1 < whole.len() {
                true => &["guest1", "guest2", "guest3"],
                false => &["guest1", "guest3"],
            };
            assert_eq!(names(&journal), expected, "{length} bytes");
        }
    }

    #[test]
    fn the_file_of_an_earlier_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let attach = JournalEntry::Attach(Box::new(guest(5)));
        fs::write(&path, line(&attach).unwrap()).unwrap();
        for _ in 0..3 {
            let journal = Journal::open(&path).unwrap();
            assert_eq!(names(&journal), ["guest5"]);
        }
    }
}
