//! Master files into records.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use domain::base::iana::Class;
use domain::base::rdata::{ComposeRecordData, ParseRecordData, RecordData};
use domain::base::{Name, ParsedName, Rtype, ToName};
use domain::dep::octseq::Parser;
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{Entry, ScannedRecord, Zonefile};

use super::super::problem::Findings;
use super::units::scan;
use super::{presentation, type_name};

/// `$INCLUDE` goes no deeper.
const DEPTH: usize = 16;
/// A zone has no more files.
const FILES: usize = 10_000;
/// After so many errors in one file the rest of it is left.
const ERRORS: usize = 50;

/// A place in the arena.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Span {
    at: usize,
    octets: u16,
}

/// A record of a zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Its name as it was written.
    pub(super) owner: Span,
    /// Its name so that octets compare as names do in canonical order.
    pub(super) key: Span,
    pub(super) rdata: Span,
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    file: u16,
    line: u32,
}

/// The records of a zone, and what they are made of.
#[derive(Default)]
pub(super) struct Records {
    arena: Vec<u8>,
    pub(super) list: Vec<Record>,
    files: Vec<PathBuf>,
}

impl Records {
    pub(super) fn octets(&self, span: Span) -> &[u8] {
        &self.arena[span.at..span.at + usize::from(span.octets)]
    }

    /// Where a record comes from.
    pub(super) fn place(&self, record: &Record) -> (&Path, Option<usize>) {
        (
            &self.files[usize::from(record.file)],
            Some(record.line as usize),
        )
    }

    /// Keeps what was put at the end of the arena.
    fn span(&self, at: usize) -> Option<Span> {
        let octets = u16::try_from(self.arena.len() - at).ok()?;
        Some(Span { at, octets })
    }

    /// Keeps a record; what is wrong with it alone is an error.
    fn add(&mut self, record: &ScannedRecord, file: u16, line: usize) -> Result<(), String> {
        if record.class() != Class::IN {
            return Err(format!("class {}: only IN is served", record.class()));
        }
        let at = self.arena.len();
        let Ok(()) = record.owner().compose(&mut self.arena);
        let mut owner = self.span(at).ok_or("a name too long")?;
        let mut key = Span::default();
        // Most records have the name of the one before.
        match self.list.last() {
            Some(last) if self.octets(last.owner) == self.octets(owner) => {
                self.arena.truncate(at);
                (owner, key) = (last.owner, last.key);
            }
            _ => {
                let at = self.arena.len();
                let name = self.octets(owner).to_vec();
                canonical_key(&name, &mut self.arena);
                key = self.span(at).unwrap_or(key);
            }
        }
        let at = self.arena.len();
        let Ok(()) = record.data().compose_rdata(&mut self.arena);
        let rdata = self.span(at).ok_or("its data has more than 65535 octets")?;
        let rtype = record.data().rtype().to_int();
        let name = || presentation(self.octets(owner));
        // OPT, and QTYPEs and meta types (RFC 6895 section 3.1).
        if rtype == 0 || rtype == 41 || (128..=255).contains(&rtype) {
            return Err(format!(
                "{} {}: a zone holds no such records",
                name(),
                type_name(rtype)
            ));
        }
        if let ZoneRecordData::Unknown(_) = record.data() {
            known_by_parser(record.data().rtype(), self.octets(rdata)).map_err(|error| {
                format!("{} {}: its octets are {error}", name(), type_name(rtype))
            })?;
        }
        let ttl = record.ttl().as_secs();
        if i32::try_from(ttl).is_err() {
            return Err(format!(
                "TTL {ttl} is above 2147483647 (RFC 2181 section 8)"
            ));
        }
        self.list.push(Record {
            owner,
            key,
            rdata,
            rtype,
            ttl,
            file,
            line: u32::try_from(line).unwrap_or(u32::MAX),
        });
        Ok(())
    }
}

/// Whether octets given in the form of RFC 3597 are data of a type with a form of its own.
fn known_by_parser(rtype: Rtype, rdata: &[u8]) -> Result<(), String> {
    let mut parser = Parser::from_ref(rdata);
    ZoneRecordData::<_, ParsedName<_>>::parse_rdata(rtype, &mut parser)
        .map_err(|error| error.to_string())?;
    if parser.remaining() > 0 {
        return Err("too many".to_owned());
    }
    Ok(())
}

/// A name as octets that compare as names do in canonical order (RFC 4034 section 6.1): labels from the top
/// down in lower case, each with a NUL after it; what is below a name begins with its octets.
pub(super) fn canonical_key(name: &[u8], out: &mut Vec<u8>) {
    let mut labels = [&name[..0]; 128];
    let mut count = 0;
    let mut rest = name;
    while let Some((&length, tail)) = rest.split_first() {
        let Some((label, tail)) = tail.split_at_checked(length.into()) else {
            break;
        };
        if length == 0 {
            break;
        }
        labels[count] = label;
        count += 1;
        rest = tail;
    }
    for label in labels[..count].iter().rev() {
        for octet in *label {
            match octet.to_ascii_lowercase() {
                octet @ (0 | 1) => out.extend([1, 1 + octet]),
                octet => out.push(octet),
            }
        }
        out.push(0);
    }
}

/// Reads a zone file and what it includes.
pub(super) fn file(
    site: &Path,
    file: &Path,
    origin: &Name<Bytes>,
    records: &mut Records,
    findings: &mut Findings,
) {
    let mut reader = Reader {
        site,
        records,
        findings,
    };
    match site.join(file).canonicalize() {
        Ok(path) => {
            reader.read(&path, file, origin, None, 0);
        }
        Err(error) => reader
            .findings
            .error(file, None, format!("cannot be read: {error}")),
    }
}

struct Reader<'a> {
    /// The site's folder, canonical.
    site: &'a Path,
    records: &'a mut Records,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    /// Reads one file; `path` is canonical, `shown` is how it is called in errors.
    fn read(
        &mut self,
        path: &Path,
        shown: &Path,
        origin: &Name<Bytes>,
        ttl: Option<u32>,
        depth: usize,
    ) {
        if !path.starts_with(self.site) {
            let what = format!("is outside of the site: {}", path.display());
            return self.findings.error(shown, None, what);
        }
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("cannot be read: {error}");
                return self.findings.error(shown, None, what);
            }
        };
        let number = self.records.files.len();
        let Some(number) = u16::try_from(number).ok().filter(|_| number < FILES) else {
            let what = format!("is one of more than {FILES} files of a zone");
            return self.findings.error(shown, None, what);
        };
        self.records.files.push(shown.to_owned());

        let text = scan(&text, &origin.fmt_with_dot().to_string()).text;
        let mut lines = Lines {
            text: &text,
            at: 0,
            line: 1,
            ttl,
        };
        let mut origin = origin.clone();
        for _ in 0..ERRORS {
            match self.entries(&mut lines, &mut origin, path, shown, number, depth) {
                Ok(()) => return,
                Err((line, what)) => {
                    self.findings.error(shown, Some(line), what);
                    lines.resume_after(line);
                }
            }
        }
        self.findings
            .error(shown, None, "the rest was not looked at");
    }

    /// Reads entries from where `lines` are up to the end or the first that cannot be parsed.
    fn entries(
        &mut self,
        lines: &mut Lines<'_>,
        origin: &mut Name<Bytes>,
        path: &Path,
        shown: &Path,
        number: u16,
        depth: usize,
    ) -> Result<(), (usize, String)> {
        let (base, first_line) = (lines.at, lines.line);
        // The parser does not say what its $TTL is, so it is told what is known from before.
        let prefix = lines.ttl.map(|ttl| format!("$TTL {ttl}\n"));
        let prefix = prefix.unwrap_or_default();
        let mut text = &lines.text[base..];
        let open = scan(text, ".").open;
        if let Some(open) = open {
            text = &text[..open];
        }
        let mut zonefile = Zonefile::with_capacity(prefix.len() + text.len() + 1);
        zonefile.extend_from_slice(prefix.as_bytes());
        zonefile.extend_from_slice(text);
        // The parser wants the last line to end.
        zonefile.extend_from_slice(b"\n");
        zonefile.set_origin(origin.clone());
        zonefile.set_default_class(Class::IN);
        loop {
            // The parser has been seen to panic on texts that `scan` now keeps from it.
            let entry = catch_unwind(AssertUnwindSafe(|| zonefile.next_entry()));
            let entry = entry.map_err(|_| (lines.line + 1, "the parser gave up".to_owned()))?;
            let entry = entry.map_err(|error| {
                let (line, what) = split(&error.to_string());
                let line = line + first_line - 1 - usize::from(!prefix.is_empty());
                if let Ok(now) = zonefile.origin() {
                    *origin = now;
                }
                (line, what)
            })?;
            // Somewhere in the entry, past its type. The parser's buffer begins with an octet of its own.
            let at = zonefile.current_offset().saturating_sub(prefix.len() + 1);
            lines.advance(base + at);
            match entry {
                None => {
                    if open.is_some() {
                        lines.advance(base + text.len());
                        let what = "a parenthesis or a quote is not closed";
                        self.findings.error(shown, Some(lines.line), what);
                    }
                    return Ok(());
                }
                Some(Entry::Record(record)) => {
                    if let Err(what) = self.records.add(&record, number, lines.line) {
                        self.findings.error(shown, Some(lines.line), what);
                    }
                }
                Some(Entry::Include {
                    path: included,
                    origin: other,
                }) => {
                    let Some(now) = other.or_else(|| zonefile.origin().ok()) else {
                        continue;
                    };
                    self.include(path, shown, lines, &included, &now, depth);
                }
            }
        }
    }

    /// Follows an `$INCLUDE`, whose path is from the file on that it is in.
    fn include(
        &mut self,
        from: &Path,
        shown: &Path,
        lines: &Lines<'_>,
        included: &str,
        origin: &Name<Bytes>,
        depth: usize,
    ) {
        let line = Some(lines.line);
        if depth >= DEPTH {
            let what = format!("$INCLUDE goes deeper than {DEPTH} files");
            return self.findings.error(shown, line, what);
        }
        let path = from.parent().unwrap_or(self.site).join(included);
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) => {
                let what = format!("$INCLUDE {included}: {error}");
                return self.findings.error(shown, line, what);
            }
        };
        let Ok(name) = path.strip_prefix(self.site) else {
            let what = format!("$INCLUDE {included}: is outside of the site");
            return self.findings.error(shown, line, what);
        };
        let name = name.to_owned();
        self.read(&path, &name, origin, lines.ttl, depth + 1);
    }
}

/// The parser's message without the line and column that it begins with, and the line.
fn split(message: &str) -> (usize, String) {
    let mut parts = message.splitn(3, ':');
    let mut number = || parts.next()?.parse::<usize>().ok();
    match (number(), number(), parts.next()) {
        // After a line's last token the parser is at the start of the next one.
        (Some(line), Some(column), Some(what)) => {
            let line = if column == 1 { line - 1 } else { line };
            (line.max(1), what.trim().to_owned())
        }
        _ => (1, message.to_owned()),
    }
}

/// How far a text has been read, in lines.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    /// The last `$TTL`.
    ttl: Option<u32>,
}

impl Lines<'_> {
    /// Goes on to an offset.
    fn advance(&mut self, to: usize) {
        let to = to.min(self.text.len());
        while self.at < to {
            let rest = &self.text[self.at..];
            let Some(length) = rest.iter().position(|octet| *octet == b'\n') else {
                break;
            };
            // Stays at the start of a line until all of it is behind.
            if self.at + length >= to {
                break;
            }
            let mut tokens = rest[..length].split(u8::is_ascii_whitespace);
            if tokens
                .next()
                .is_some_and(|first| first.eq_ignore_ascii_case(b"$TTL"))
            {
                let ttl = tokens.find(|token| !token.is_empty());
                let ttl = ttl.and_then(|ttl| std::str::from_utf8(ttl).ok()?.parse().ok());
                self.ttl = ttl.or(self.ttl);
            }
            self.at += length + 1;
            self.line += 1;
        }
    }

    /// Goes on to the first line after a line that may begin an entry with an owner.
    fn resume_after(&mut self, line: usize) {
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            if self.line > line
                && !matches!(
                    rest.first(),
                    Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b')')
                )
            {
                return;
            }
            let length = rest.iter().position(|octet| *octet == b'\n');
            let end = self.at + length.map_or(rest.len(), |length| length + 1);
            let before = self.line;
            self.advance(end);
            if self.line == before {
                // The last line has no end.
                self.at = end;
                self.line += 1;
            }
        }
    }
}
