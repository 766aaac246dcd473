//! Splits the text of a master file into entries of tokens (RFC 1035 section 5.1).
//!
//! An entry is one line, or several lines within parentheses. A token is a word between white space, or a string
//! between quotes. Escapes stay in the token: [`unescape`] decodes them where the bytes are needed.

/// A place in a file: line and column, both from 1 on; columns count bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// An error with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) place: Place,
    pub(crate) what: String,
}

impl Wrong {
    pub(crate) fn new(place: Place, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { place, what }
    }
}

/// A word or a quoted string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// The text as it is written, without the quotes.
    pub(crate) text: &'a [u8],
    pub(crate) place: Place,
    pub(crate) quoted: bool,
    /// Whether nothing separates this token from the one before, as in `alpn="h2"`.
    pub(crate) joined: bool,
}

impl Token<'_> {
    /// Whether the token is this word, in any case.
    pub(crate) fn is(&self, word: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(word.as_bytes())
    }

    /// The token as text for messages.
    pub(crate) fn shown(&self) -> String {
        shown(self.text)
    }
}

/// Bytes as text for messages: printable, and of limited length.
pub(crate) fn shown(text: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(text);
    let mut out: String = text.chars().take(SHOWN).flat_map(printable).collect();
    if text.chars().count() > SHOWN {
        out.push_str("...");
    }
    out
}

fn printable(letter: char) -> impl Iterator<Item = char> {
    let escaped = letter.is_control().then(|| letter.escape_default());
    let plain = escaped.is_none().then_some(letter);
    escaped.into_iter().flatten().chain(plain)
}

/// One line, or several lines within parentheses.
#[derive(Debug, Default)]
pub(crate) struct Entry<'a> {
    /// Whether the entry begins with white space, so that its owner is that of the entry before.
    pub(crate) indented: bool,
    pub(crate) tokens: Vec<Token<'a>>,
    /// The place after the last token.
    pub(crate) end: Place,
}

/// Reads a text entry by entry.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    line_start: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
            line_start: 0,
        }
    }

    fn place(&self) -> Place {
        Place {
            line: self.line,
            column: self.at - self.line_start + 1,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips the end of a line: LF, CR, or CR and LF.
    fn newline(&mut self) {
        self.at += if self.text[self.at..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        self.line += 1;
        self.line_start = self.at;
    }

    /// Reads the next entry that has tokens; `false` at the end of the text.
    ///
    /// # Errors
    ///
    /// The error of the entry; the next call reads the one after it.
    pub(crate) fn next(&mut self, entry: &mut Entry<'a>) -> Result<bool, Wrong> {
        loop {
            entry.tokens.clear();
            entry.indented = matches!(self.peek(), Some(b' ' | b'\t'));
            self.entry(entry)?;
            if !entry.tokens.is_empty() {
                return Ok(true);
            }
            if self.at >= self.text.len() {
                return Ok(false);
            }
        }
    }

    /// Reads to the end of a line that is not within parentheses.
    fn entry(&mut self, entry: &mut Entry<'a>) -> Result<(), Wrong> {
        let mut open: Vec<Place> = Vec::new();
        let mut wrong = None;
        let mut joined = false;
        while let Some(byte) = self.peek() {
            let place = self.place();
            let next_joined = !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')');
            match byte {
                b' ' | b'\t' => self.at += 1,
                b'\r' | b'\n' => {
                    self.newline();
                    if open.is_empty() {
                        return wrong.map_or(Ok(()), Err);
                    }
                }
                b';' => {
                    while !matches!(self.peek(), None | Some(b'\r' | b'\n')) {
                        self.at += 1;
                    }
                }
                b'(' => {
                    open.push(place);
                    self.at += 1;
                }
                b')' => {
                    if open.pop().is_none() {
                        let what = "a parenthesis is closed that was not opened";
                        wrong.get_or_insert(Wrong::new(place, what));
                    }
                    self.at += 1;
                }
                _ => {
                    let token = match byte {
                        b'"' => self.quoted()?,
                        _ => self.word(),
                    };
                    entry.tokens.push(Token { joined, ..token });
                    entry.end = self.place();
                }
            }
            joined = next_joined;
        }
        match open.first() {
            Some(place) => Err(Wrong::new(*place, "a parenthesis is not closed")),
            None => wrong.map_or(Ok(()), Err),
        }
    }

    /// Reads a string in quotes, which may contain any byte, line ends too.
    fn quoted(&mut self) -> Result<Token<'a>, Wrong> {
        let place = self.place();
        self.at += 1;
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    let text = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Token {
                        text,
                        place,
                        quoted: true,
                        joined: false,
                    });
                }
                b'\r' | b'\n' => self.newline(),
                b'\\' if matches!(self.text.get(self.at + 1), Some(b'"' | b'\\')) => self.at += 2,
                _ => self.at += 1,
            }
        }
        Err(Wrong::new(place, "a quote is not closed"))
    }

    fn word(&mut self) -> Token<'a> {
        let place = self.place();
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"' => break,
                b'\\' => match self.text.get(self.at + 1) {
                    Some(b'\r' | b'\n') => {
                        self.at += 1;
                        self.newline();
                    }
                    Some(_) => self.at += 2,
                    None => self.at += 1,
                },
                _ => self.at += 1,
            }
        }
        Token {
            text: &self.text[start..self.at],
            place,
            quoted: false,
            joined: false,
        }
    }
}

/// The bytes of a token, each with whether it was escaped (RFC 1035 section 5.1: `\X` and `\DDD`).
///
/// # Errors
///
/// An invalid escape.
pub(crate) fn unescape(
    text: &[u8],
    mut take: impl FnMut(u8, bool) -> Result<(), String>,
) -> Result<(), String> {
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'\\' {
            rest = tail;
            take(byte, false)?;
            continue;
        }
        match tail {
            [] => return Err("`\\` at the end escapes nothing".to_owned()),
            [b'0'..=b'9', ..] => {
                let number = tail.split_at_checked(3).and_then(|(digits, after)| {
                    rest = after;
                    std::str::from_utf8(digits).ok()?.parse().ok()
                });
                let what = || "`\\` and digits are three, from \\000 to \\255".to_owned();
                take(number.ok_or_else(what)?, true)?;
            }
            [plain, after @ ..] => {
                rest = after;
                take(*plain, true)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    /// The tokens of all entries; `"` precedes a quoted token, `+` a joined one.
    fn all(text: &[u8]) -> Vec<Result<String, (usize, usize, String)>> {
        let mut scanner = Scanner::new(text);
        let mut entry = Entry::default();
        let mut out = Vec::new();
        loop {
            match scanner.next(&mut entry) {
                Ok(false) => return out,
                Ok(true) => {
                    let mut line = if entry.indented { "> " } else { "" }.to_owned();
                    for (index, token) in entry.tokens.iter().enumerate() {
                        line.push_str(if index > 0 { "|" } else { "" });
                        line.push_str(if token.joined { "+" } else { "" });
                        line.push_str(if token.quoted { "\"" } else { "" });
                        line.push_str(&shown(token.text));
                    }
                    out.push(Ok(line));
                }
                Err(wrong) => {
                    out.push(Err((wrong.place.line, wrong.place.column, wrong.what)));
                }
            }
        }
    }

    #[test]
    fn entries_and_tokens() {
        for (text, wanted) in [
            ("a b\tc ; d\n\n ; e\n\tf", &["a|b|c", "> f"][..]),
            ("a (b;c\n d) e\r\nf\rg", &["a|b|d|e", "f", "g"]),
            ("( a\nb ) c\nd", &["a|b|c", "d"]),
            ("a ( ( b ) \n c ) d", &["a|b|c|d"]),
            ("a \"b c;d(\" \"\"", &["a|\"b c;d(|\""]),
            ("a b=\"c d\" e\"f\"\"g\"h", &["a|b=|+\"c d|e|+\"f|+\"g|+h"]),
            ("a \"b\\\"c\\\\\" d\\;e\\ f", &["a|\"b\\\"c\\\\|d\\;e\\ f"]),
            ("a \"b\nc\" d", &["a|\"b\\nc|d"]),
            ("a b(c)d", &["a|b|c|d"]),
            ("\n\n", &[]),
            ("", &[]),
        ] {
            let wanted: Vec<_> = wanted.iter().map(|line| Ok((*line).to_owned())).collect();
            assert_eq!(all(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_not_closed_or_not_opened() {
        for (text, wanted) in [
            (
                "a ) b\nc",
                &[
                    Err((1, 3, "a parenthesis is closed that was not opened")),
                    Ok("c"),
                ][..],
            ),
            (
                "a\n  ( b\n c",
                &[Ok("a"), Err((2, 3, "a parenthesis is not closed"))],
            ),
            (
                "a\nb \"c\n",
                &[Ok("a"), Err((2, 3, "a quote is not closed"))],
            ),
            ("a \"b\\\"", &[Err((1, 3, "a quote is not closed"))]),
        ] {
            let wanted: Vec<_> = wanted
                .iter()
                .map(|entry| match entry {
                    Ok(line) => Ok((*line).to_owned()),
                    Err((line, column, what)) => Err((*line, *column, (*what).to_owned())),
                })
                .collect();
            assert_eq!(all(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn escapes() {
        let bytes = |text: &[u8]| {
            let mut out = Vec::new();
            unescape(text, |byte, _| {
                out.push(byte);
                Ok(())
            })
            .map(|()| out)
        };
        assert_eq!(
            bytes(b"a\\.\\065\\000\\255\\\\"),
            Ok(b"a.A\0\xff\\".to_vec())
        );
        for wrong in ["\\", "\\1", "\\12", "\\256", "\\12x", "\\999"] {
            assert!(bytes(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
