//! The journal: the guests that a switch serves, for the next switch if this one is killed. It has a line
//! of JSON for each change, written in one system call; a line that a kill has cut short is ignored.

use std::fs::{self, File};
use std::io::{self, Write};
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
}

/// The guests of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownGuests {
    /// The guests.
    pub guests: Vec<Guest>,
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
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    known: KnownGuests,
}

impl Journal {
    /// Opens and rewrites the journal. Its contents are [`Journal::known`].
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let known = match fs::read(path) {
            Ok(text) => KnownGuests::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => KnownGuests::default(),
            Err(error) => return Err(error),
        };
        let (file, size) = rewrite(path, &known)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            limit: SIZE_MAX.max(2 * size),
            known,
        })
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
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        if self.size > self.limit {
            let (file, size) = rewrite(&self.path, &self.known)?;
            self.file = file;
            self.size = size;
            self.limit = SIZE_MAX.max(2 * size);
        }
        Ok(())
    }
}

/// Writes a journal with the present guests, and replaces the old one.
fn rewrite(path: &Path, known: &KnownGuests) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let mut text = Vec::new();
    for guest in &known.guests {
        text.extend(line(&JournalEntry::Attach(Box::new(guest.clone())))?);
    }
    // The program may only make new files.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&text)?;
    fs::rename(&new, path)?;
    Ok((file, text.len() as u64))
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
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"attach\":{\"name\":\"cut").unwrap();
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
            assert!(fs::metadata(&path).unwrap().len() < SIZE_MAX + 1024);
        }
        assert_eq!(names(&Journal::open(&path).unwrap()), ["guest1"]);
    }
}
