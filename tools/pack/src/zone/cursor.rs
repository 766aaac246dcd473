//! Reads the tokens of a record's data one after another. Each call says what is expected.

use super::mnemonics::Names;
use super::name;
use super::scan::{Place, Token, Wrong, unescape};
use super::time::seconds;

/// The unread tokens of a record.
pub(crate) struct Cursor<'e, 't> {
    tokens: &'e [Token<'t>],
    /// The place of the record's end.
    end: Place,
    /// The origin of names without a dot at their end, in wire form.
    origin: &'e [u8],
}

impl<'e, 't> Cursor<'e, 't> {
    pub(crate) fn new(tokens: &'e [Token<'t>], end: Place, origin: &'e [u8]) -> Self {
        Self {
            tokens,
            end,
            origin,
        }
    }

    pub(crate) fn peek(&self) -> Option<&'e Token<'t>> {
        self.tokens.first()
    }

    /// Takes the next token, if there is one.
    pub(crate) fn take(&mut self) -> Option<&'e Token<'t>> {
        let (token, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(token)
    }

    /// Takes the next token, which must exist.
    pub(crate) fn next(&mut self, expected: &str) -> Result<&'e Token<'t>, Wrong> {
        self.take().ok_or_else(|| {
            let what = format!("expected {expected}, and the record ends");
            Wrong::new(self.end, what)
        })
    }

    /// Takes a word that is not in quotes.
    pub(crate) fn word(&mut self, expected: &str) -> Result<&'e Token<'t>, Wrong> {
        let token = self.next(expected)?;
        if token.quoted {
            return Err(not(token, &format!("{expected} without quotes")));
        }
        Ok(token)
    }

    /// Checks that no token is left.
    pub(crate) fn end(&self) -> Result<(), Wrong> {
        self.peek()
            .map_or(Ok(()), |token| Err(not(token, "the end of the record")))
    }

    /// Takes an unsigned number of at most `most`.
    pub(crate) fn number(&mut self, most: u64) -> Result<u64, Wrong> {
        let expected = format!("a number from 0 to {most}");
        let token = self.word(&expected)?;
        let number = decimal(token.text).filter(|number| *number <= most);
        number.ok_or_else(|| not(token, &expected))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Wrong> {
        let number = self.number(u8::MAX.into())?;
        Ok(u8::try_from(number).unwrap_or(u8::MAX))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Wrong> {
        let number = self.number(u16::MAX.into())?;
        Ok(u16::try_from(number).unwrap_or(u16::MAX))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Wrong> {
        let number = self.number(u32::MAX.into())?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Takes a number of at most `most`, or one of its names.
    pub(crate) fn named(&mut self, names: &Names, most: u16) -> Result<u16, Wrong> {
        let expected = format!("{}: its name or a number from 0 to {most}", names.what);
        let token = self.word(&expected)?;
        let number = decimal(token.text).and_then(|number| u16::try_from(number).ok());
        let number = number.or_else(|| names.number(token.text));
        let number = number.filter(|number| *number <= most);
        number.ok_or_else(|| not(token, &expected))
    }

    /// Takes a time in seconds, also written as `1w2d3h4m5s`.
    pub(crate) fn time(&mut self) -> Result<u32, Wrong> {
        let expected = "a time in seconds, or as in 1w2d3h4m5s";
        let token = self.word(expected)?;
        seconds(token.text).ok_or_else(|| not(token, expected))
    }

    /// Takes a word and parses it by a function.
    pub(crate) fn parse<T>(
        &mut self,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Wrong> {
        let token = self.word(expected)?;
        let text = std::str::from_utf8(token.text).ok();
        text.and_then(parse).ok_or_else(|| not(token, expected))
    }

    /// Takes a name and appends it to `out` in wire form.
    pub(crate) fn name(&mut self, out: &mut Vec<u8>) -> Result<(), Wrong> {
        let token = self.word("a name")?;
        name::scan(token.text, self.origin, out).map_err(|what| Wrong::new(token.place, what))
    }

    /// Takes the owner of a record, as [`Cursor::name`]. Quotes around it are of no effect, as in BIND and NSD.
    pub(crate) fn owner(&mut self, out: &mut Vec<u8>) -> Result<(), Wrong> {
        let token = self.next("a name")?;
        name::scan(token.text, self.origin, out).map_err(|what| Wrong::new(token.place, what))
    }

    /// Takes a string, in quotes or not. Returns its bytes.
    pub(crate) fn bytes(&mut self, expected: &str) -> Result<(&'e Token<'t>, Vec<u8>), Wrong> {
        let token = self.next(expected)?;
        Ok((token, bytes(token)?))
    }

    /// Takes a string of at most 255 bytes and appends it after its length (RFC 1035 section 3.3).
    pub(crate) fn string(&mut self, expected: &str, out: &mut Vec<u8>) -> Result<(), Wrong> {
        let (token, text) = self.bytes(expected)?;
        let length = u8::try_from(text.len()).map_err(|_| {
            let what = format!(
                "a string has {} bytes: 255 are the most, and longer texts are several strings",
                text.len()
            );
            Wrong::new(token.place, what)
        })?;
        out.push(length);
        out.extend(text);
        Ok(())
    }

    /// Takes all remaining words as one. Returns also the place of the first one.
    pub(crate) fn rest(&mut self, expected: &str) -> Result<(Place, Vec<u8>), Wrong> {
        let place = self.peek().map_or(self.end, |token| token.place);
        let mut all = Vec::new();
        while self.peek().is_some() {
            all.extend_from_slice(self.word(expected)?.text);
        }
        Ok((place, all))
    }
}

/// The error that something else was expected in place of a token.
pub(crate) fn not(token: &Token<'_>, expected: &str) -> Wrong {
    let what = format!("expected {expected}, found `{}`", token.shown());
    Wrong::new(token.place, what)
}

/// The bytes of a token, without escapes.
pub(crate) fn bytes(token: &Token<'_>) -> Result<Vec<u8>, Wrong> {
    let mut text = Vec::with_capacity(token.text.len());
    unescape(token.text, |byte, _| {
        text.push(byte);
        Ok(())
    })
    .map_err(|what| Wrong::new(token.place, what))?;
    Ok(text)
}

/// A decimal number, digits only.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}
