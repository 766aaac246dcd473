//! Reads zone files into records: directives, owners, TTLs and classes (RFC 1035 section 5.1, RFC 2308 section 4).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::super::files;
use super::super::problem::Findings;
use super::cursor::Cursor;
use super::generate::Generate;
use super::head::{TTL_MAX, bounded, head};
use super::name::presentation;
use super::records::Records;
use super::scan::{Entry, Place, Scanner, Token, Wrong};
use super::{rdata, types};

/// The greatest depth of `$INCLUDE`.
const DEPTH: usize = 16;
/// The greatest number of records that all `$GENERATE` of a zone make.
const GENERATED: usize = 1 << 22;
/// The number of errors after which the rest of a file is skipped.
const ERRORS: usize = 50;
const SOA: u16 = 6;

/// Reads a zone file and the files that it includes, whose paths go to `included`.
pub(super) fn file(
    site: &Path,
    file: &Path,
    origin: &[u8],
    records: &mut Records,
    included: &mut BTreeSet<PathBuf>,
    findings: &mut Findings,
) {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut reader = Reader {
        site,
        folder: site.join(folder),
        records,
        included,
        findings,
        generated: 0,
    };
    let state = State {
        origin: origin.to_vec(),
        owner: Owner::None,
        ttl: Ttl::default(),
    };
    match site.join(file).canonicalize() {
        Ok(path) => {
            reader.read(&path, file, state, 0);
        }
        Err(error) => reader
            .findings
            .error(file, None, format!("cannot be read: {error}")),
    }
}

struct Reader<'a> {
    /// The site's folder, canonical.
    site: &'a Path,
    /// The folder of the zone file.
    folder: PathBuf,
    records: &'a mut Records,
    included: &'a mut BTreeSet<PathBuf>,
    findings: &'a mut Findings,
    /// The number of records that `$GENERATE` has made.
    generated: usize,
}

/// The values that entries take from earlier entries. An included file starts with those of the including file. After
/// it, origin and owner are what they were before it, as in BIND (RFC 1035 section 5.1 does not say it of the owner).
/// TTLs go on from it, as in BIND and NSD: `$TTL` is for all records after it (RFC 2308 section 4).
#[derive(Clone)]
struct State {
    origin: Vec<u8>,
    owner: Owner,
    ttl: Ttl,
}

/// The TTL of records that have none.
#[derive(Clone, Copy, Default)]
struct Ttl {
    /// `$TTL`, or the MINIMUM of a SOA record that has no TTL and none before it.
    default: Option<u32>,
    /// The TTL of the last record that had one.
    last: Option<u32>,
}

/// The owner of an entry that begins with white space.
#[derive(Clone)]
enum Owner {
    /// There is no earlier entry.
    None,
    /// The last name was invalid, which has been reported.
    Wrong,
    Name(Vec<u8>),
}

/// A file that is read.
#[derive(Clone, Copy)]
struct From<'a> {
    /// The canonical path.
    path: &'a Path,
    /// The path in error messages.
    shown: &'a Path,
    number: u16,
    depth: usize,
}

impl Reader<'_> {
    /// Reads one file. Returns the TTLs of its end.
    fn read(&mut self, path: &Path, shown: &Path, mut state: State, depth: usize) -> Ttl {
        if let Err((line, what)) = self.entries(path, shown, &mut state, depth) {
            self.findings.error(shown, line, what);
        }
        state.ttl
    }

    /// Reads the entries of a file. An error is one of the whole file, and the line for it.
    fn entries(
        &mut self,
        path: &Path,
        shown: &Path,
        state: &mut State,
        depth: usize,
    ) -> Result<(), (Option<usize>, String)> {
        if !path.starts_with(self.site) {
            return Err((None, format!("is outside of the site: {}", path.display())));
        }
        let text = files::read(path).map_err(|error| (None, format!("cannot be read: {error}")))?;
        let number = self.records.file(shown);
        let number = number.ok_or((None, "exceeds the limit on files of a zone".to_owned()))?;
        let text = match text.as_slice() {
            [0xef, 0xbb, 0xbf, rest @ ..] => rest,
            [0xfe, 0xff, ..] | [0xff, 0xfe, ..] => {
                let what =
                    "begins with the byte order mark of UTF-16: zone files are in UTF-8 or ASCII";
                return Err((Some(1), what.to_owned()));
            }
            text => text,
        };
        let from = From {
            path,
            shown,
            number,
            depth,
        };
        let mut scanner = Scanner::new(text);
        let mut entry = Entry::default();
        let mut errors = 0;
        loop {
            let done = match scanner.next(&mut entry) {
                Ok(false) => return Ok(()),
                Ok(true) => self.entry(&entry, state, from),
                Err(wrong) => Err(wrong),
            };
            let Err(wrong) = done else {
                continue;
            };
            let Place { line, column } = wrong.place;
            self.findings.error_at(shown, (line, column), wrong.what);
            errors += 1;
            if errors == ERRORS {
                return Err((None, "the rest was not looked at".to_owned()));
            }
        }
    }

    /// Reads a directive or a record.
    fn entry(&mut self, entry: &Entry<'_>, state: &mut State, from: From<'_>) -> Result<(), Wrong> {
        let Some((first, rest)) = entry.tokens.split_first() else {
            return Ok(());
        };
        if entry.indented || first.quoted || !first.text.starts_with(b"$") {
            return self.record(entry, None, state, from);
        }
        let mut cursor = Cursor::new(rest, entry.end, &state.origin);
        if first.is("$ORIGIN") {
            let mut origin = Vec::new();
            cursor.name(&mut origin)?;
            cursor.end()?;
            state.origin = origin;
        } else if first.is("$TTL") {
            let ttl = cursor.time()?;
            cursor.end()?;
            state.ttl.default = Some(bounded(ttl, rest.first().unwrap_or(first))?);
        } else if first.is("$INCLUDE") {
            let (file, path) = cursor.bytes("the name of a file")?;
            let mut inner = state.clone();
            if cursor.peek().is_some() {
                inner.origin.clear();
                cursor.name(&mut inner.origin)?;
            }
            cursor.end()?;
            state.ttl = self.include(file, &path, inner, from)?;
        } else if first.is("$GENERATE") {
            self.generate(first, rest, state.clone(), from)?;
        } else {
            let what = format!(
                "expected $ORIGIN, $TTL, $INCLUDE or $GENERATE, found `{}` (`\\$` begins a name)",
                first.shown()
            );
            return Err(Wrong::new(first.place, what));
        }
        Ok(())
    }

    /// Reads the file of an `$INCLUDE`. Its path is relative to the folder of the including file, as in Knot, or else to
    /// that of the zone file, where BIND and NSD look for all included files. Returns the TTLs of its end.
    fn include(
        &mut self,
        token: &Token<'_>,
        included: &[u8],
        state: State,
        from: From<'_>,
    ) -> Result<Ttl, Wrong> {
        let wrong = |what: String| Wrong::new(token.place, what);
        let shown = super::scan::shown(included);
        if from.depth >= DEPTH {
            return Err(wrong(format!("$INCLUDE goes deeper than {DEPTH} files")));
        }
        let included: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(included);
        let folder = from.path.parent().unwrap_or(self.site);
        let near = folder.join(included).canonicalize();
        let other = self.folder.join(included).canonicalize();
        if let (Ok(near), Ok(other)) = (&near, &other)
            && near != other
        {
            let what = format!(
                "$INCLUDE {shown}: is {}, and not {}",
                self.shown(near),
                self.shown(other)
            );
            self.findings
                .warning(from.shown, Some(token.place.line), what);
        }
        let path = near
            .or_else(|error| other.map_err(|_| error))
            .map_err(|error| wrong(format!("$INCLUDE {shown}: {error}")))?;
        let name = path
            .strip_prefix(self.site)
            .map_err(|_| wrong(format!("$INCLUDE {shown}: is outside of the site")))?
            .to_owned();
        self.included.insert(path.clone());
        Ok(self.read(&path, &name, state, from.depth + 1))
    }

    /// A path as messages show it.
    fn shown<'p>(&self, path: &'p Path) -> std::path::Display<'p> {
        path.strip_prefix(self.site).unwrap_or(path).display()
    }

    /// Reads the entries of a `$GENERATE`, up to the first that is wrong. Entries after it go on from what is before it,
    /// as in BIND.
    fn generate(
        &mut self,
        directive: &Token<'_>,
        tokens: &[Token<'_>],
        mut state: State,
        from: From<'_>,
    ) -> Result<(), Wrong> {
        let place = directive.place;
        for text in Generate::new(directive, tokens)?.entries() {
            let text = text.map_err(|what| Wrong::new(place, what))?;
            self.generated += 1;
            if self.generated > GENERATED {
                let what = format!("more than {GENERATED} records of a zone are generated");
                return Err(Wrong::new(place, what));
            }
            let generated = |wrong: Wrong| {
                let shown = super::scan::shown(&text);
                Wrong::new(place, format!("generates `{shown}`: {}", wrong.what))
            };
            let mut scanner = Scanner::new(&text);
            let mut entry = Entry::default();
            while scanner.next(&mut entry).map_err(generated)? {
                self.record(&entry, Some(place), &mut state, from)
                    .map_err(generated)?;
            }
        }
        Ok(())
    }

    /// Reads a record; `generated` is its place if it was generated.
    fn record(
        &mut self,
        entry: &Entry<'_>,
        generated: Option<Place>,
        state: &mut State,
        from: From<'_>,
    ) -> Result<(), Wrong> {
        let mut cursor = Cursor::new(&entry.tokens, entry.end, &state.origin);
        let Some(first) = cursor.peek().copied() else {
            return Ok(());
        };
        if !entry.indented {
            let mut owner = Vec::new();
            state.owner = Owner::Wrong;
            cursor.owner(&mut owner)?;
            state.owner = Owner::Name(owner);
        }
        let owner = match &state.owner {
            Owner::Name(owner) => owner,
            // Records of an invalid name are not reported as well.
            Owner::Wrong => return Ok(()),
            Owner::None => {
                let what = "expected a name at the start of the line, as there is no record before";
                return Err(Wrong::new(first.place, what));
            }
        };
        let (ttl, rtype) = head(&mut cursor)?;
        let data = rdata::scan(rtype, cursor).map_err(|wrong| of(owner, rtype, wrong))?;
        if ttl.is_some() {
            state.ttl.last = ttl;
        }
        let place = generated.unwrap_or(first.place);
        let ttl = match ttl.or(state.ttl.default).or(state.ttl.last) {
            Some(ttl) => ttl,
            None if rtype == SOA => {
                let minimum = data
                    .last_chunk()
                    .map_or(0, |bytes| u32::from_be_bytes(*bytes));
                let minimum = minimum.min(TTL_MAX);
                let what = format!(
                    "there is no TTL, so MINIMUM, {minimum}, is the default (write $TTL {minimum} before it)"
                );
                self.findings.warning(from.shown, Some(place.line), what);
                state.ttl.default = Some(minimum);
                minimum
            }
            None => {
                let what = "expected a TTL, as neither $TTL nor a record with one is before it";
                return Err(Wrong::new(first.place, what));
            }
        };
        self.records
            .add(owner, (rtype, ttl, &data), from.number, place.line);
        Ok(())
    }
}

/// Adds the record to an error.
fn of(owner: &[u8], rtype: u16, wrong: Wrong) -> Wrong {
    let what = format!(
        "{} {}: {}",
        presentation(owner),
        types::name(rtype),
        wrong.what
    );
    Wrong { what, ..wrong }
}
