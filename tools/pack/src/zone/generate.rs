//! `$GENERATE`: one entry for each number of a range, as BIND's manual has it under "the $GENERATE Directive".

use std::fmt::Write as _;

use super::cursor::{decimal, not};
use super::head::{is_class, is_ttl};
use super::scan::{Token, Wrong};

/// The greatest number of entries that one directive generates.
const MOST: i64 = 1 << 20;
/// The greatest width of a number, in digits.
const WIDTH: usize = 255;

/// A directive.
pub(super) struct Generate {
    first: i64,
    last: i64,
    step: i64,
    /// Text of an entry, with `$` where numbers are.
    template: Vec<u8>,
}

impl Generate {
    /// Reads the tokens after `$GENERATE`: range, owner, optional TTL and class, type, data.
    ///
    /// # Errors
    ///
    /// An error with its place.
    pub(super) fn new(directive: &Token<'_>, tokens: &[Token<'_>]) -> Result<Self, Wrong> {
        let usage = || {
            let what = "expected `$GENERATE RANGE OWNER [TTL] [CLASS] TYPE DATA`";
            Wrong::new(directive.place, what)
        };
        let [range, rest @ ..] = tokens else {
            return Err(usage());
        };
        let expected = "a range as 1-127 or 0-254/2, from 0 to 2147483647";
        let text = std::str::from_utf8(range.text).ok();
        let (first, last, step) = text.and_then(numbers).ok_or_else(|| not(range, expected))?;
        let count = (last - first) / step + 1;
        if count > MOST {
            let what = format!("this range has {count} numbers: {MOST} are the most");
            return Err(Wrong::new(range.place, what));
        }
        // Skip the owner, and the options that may precede the type.
        let options = rest.iter().skip(1);
        let options = options.take_while(|token| is_ttl(token) || is_class(token));
        let data = 1 + options.count() + 1;
        let Some((head, data)) = rest
            .split_at_checked(data)
            .filter(|(_, data)| !data.is_empty())
        else {
            return Err(usage());
        };
        let mut template = Vec::new();
        for token in head {
            if !template.is_empty() {
                template.push(b' ');
            }
            template.extend_from_slice(token.text);
        }
        match data {
            // A single quoted token is the text of all the data, which may have quotes of its own.
            [data] if data.quoted => {
                template.push(b' ');
                template.extend(without_quoted_quotes(data.text));
            }
            data => {
                for token in data {
                    let quote: &[u8] = if token.quoted { b"\"" } else { b"" };
                    let before: &[u8] = if token.joined { b"" } else { b" " };
                    template.extend([before, quote, token.text, quote].concat());
                }
            }
        }
        Ok(Self {
            first,
            last,
            step,
            template,
        })
    }

    /// The texts of all entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Vec<u8>, String>> + '_ {
        let step = usize::try_from(self.step).unwrap_or(usize::MAX);
        (self.first..=self.last)
            .step_by(step)
            .map(|number| expand(&self.template, number))
    }
}

/// Replaces `\"` by a quote.
fn without_quoted_quotes(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'\\', [b'"', after @ ..]) => {
                out.push(b'"');
                rest = after;
            }
            (b'\\', [escaped, after @ ..]) => {
                out.extend([b'\\', *escaped]);
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// First, last and step of a range.
fn numbers(text: &str) -> Option<(i64, i64, i64)> {
    let number = |text: &str| {
        let number = decimal(text.as_bytes())?;
        i64::try_from(number)
            .ok()
            .filter(|number| *number <= i64::from(i32::MAX))
    };
    let (first, rest) = text.split_once('-')?;
    let (last, step) = rest.split_once('/').unwrap_or((rest, "1"));
    let (first, last, step) = (number(first)?, number(last)?, number(step)?);
    (first <= last && step > 0).then_some((first, last, step))
}

/// Expands a template: puts a number in place of `$` and `${OFFSET,WIDTH,BASE}`; `\$` and `$$` are dollars.
fn expand(template: &[u8], number: i64) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(template.len() + 8);
    let mut rest = template;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'\\', [escaped, after @ ..]) => {
                out.extend([b'\\', *escaped]);
                rest = after;
            }
            (b'$', [b'$', after @ ..]) => {
                // A dollar at the start of an entry would be a directive.
                out.extend_from_slice(b"\\$");
                rest = after;
            }
            (b'$', [b'{', after @ ..]) => {
                let end = after.iter().position(|byte| *byte == b'}');
                let end = end.ok_or("`${` is not closed by `}`")?;
                let text = String::from_utf8_lossy(&after[..end]);
                let shown = modified(&text, number);
                let shown = shown.ok_or_else(|| {
                    format!("`${{{text}}}` is not `${{OFFSET[,WIDTH[,BASE]]}}` with a base of d, o, x, X, n or N, or makes {number} less than 0")
                })?;
                out.extend(shown.into_bytes());
                rest = &after[end + 1..];
            }
            (b'$', _) => out.extend(number.to_string().into_bytes()),
            _ => out.push(byte),
        }
    }
    Ok(out)
}

/// Formats a number with the offset, minimum width and base in `text`.
fn modified(text: &str, number: i64) -> Option<String> {
    let mut parts = text.split(',').map(str::trim);
    let offset = parts.next()?;
    let digits = offset.strip_prefix(['-', '+']).unwrap_or(offset);
    let size = decimal(digits.as_bytes()).filter(|_| !digits.is_empty())?;
    let size = i64::try_from(size)
        .ok()
        .filter(|size| *size <= i64::from(i32::MAX))?;
    let number = number + if offset.starts_with('-') { -size } else { size };
    let width = parts.next().map_or(Some(0), |width| {
        usize::try_from(decimal(width.as_bytes())?)
            .ok()
            .filter(|width| *width <= WIDTH)
    })?;
    let base = parts.next().unwrap_or("d");
    if number < 0 || parts.next().is_some() {
        return None;
    }
    Some(match base {
        "d" => format!("{number:0width$}"),
        "o" => format!("{number:0width$o}"),
        "x" => format!("{number:0width$x}"),
        "X" => format!("{number:0width$X}"),
        "n" => nibbles(number, width),
        "N" => nibbles(number, width).to_ascii_uppercase(),
        _ => return None,
    })
}

/// Hexadecimal digits as labels, the lowest first. Dots count for the width.
fn nibbles(number: i64, width: usize) -> String {
    let mut out = String::new();
    let mut left = number;
    loop {
        let _ = write!(out, "{:x}", left & 15);
        left >>= 4;
        if left == 0 && out.len() >= width {
            return out;
        }
        out.push('.');
        // BIND ends on a dot when the width is even.
        if left == 0 && out.len() >= width {
            return out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_their_places() {
        for (template, number, wanted) in [
            ("$", 7, Ok("7")),
            ("a-$-$.b", 7, Ok("a-7-7.b")),
            ("\\$ $$ \\\\$", 7, Ok("\\$ \\$ \\\\7")),
            ("${0}", 7, Ok("7")),
            ("${-20,3,d}", 21, Ok("001")),
            ("${+1,3}", 7, Ok("008")),
            ("${0,4,x}", 255, Ok("00ff")),
            ("${0,4,X}", 255, Ok("00FF")),
            ("${0,0,o}", 8, Ok("10")),
            ("${0,3,n}", 1, Ok("1.0")),
            ("${0,0,n}", 0x1af, Ok("f.a.1")),
            ("${0,8,N}", 0xaf, Ok("F.A.0.0.")),
            ("${-8}", 7, Err(())),
            ("${0,0,q}", 7, Err(())),
            ("${0,0,d,1}", 7, Err(())),
            ("${}", 7, Err(())),
            ("${x}", 7, Err(())),
            ("${0", 7, Err(())),
            ("${0,256}", 7, Err(())),
        ] {
            let got = expand(template.as_bytes(), number).map_err(drop);
            let got = got.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert_eq!(
                got.as_deref(),
                wanted.as_ref().copied().map_err(|()| &()),
                "{template}"
            );
        }
    }

    #[test]
    fn ranges() {
        for (text, wanted) in [
            ("1-3", Some((1, 3, 1))),
            ("0-254/2", Some((0, 254, 2))),
            ("5-5", Some((5, 5, 1))),
            ("3-1", None),
            ("1-3/0", None),
            ("1", None),
            ("-1-3", None),
            ("1-2147483648", None),
            ("1-3/", None),
            ("", None),
        ] {
            assert_eq!(numbers(text), wanted, "{text}");
        }
    }
}
