//! The lexer, with `xl`'s tokens (Xen 4.17: tools/libs/util/libxlu_cfg_l.l): words begin with a small letter, numbers
//! with a digit, strings end on their line, `#` begins a comment.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    Number(String),
    Text(String),
    Comma,
    Open,
    Close,
    Assign,
    Add,
    Semicolon,
    Newline,
    End,
}

impl Token {
    /// The token as messages show it.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Name(name) => format!("the word {name}"),
            Self::Number(number) => format!("the number {number}"),
            Self::Text(text) => format!("the string {}", super::error::shown(text)),
            Self::Comma => "a comma".to_owned(),
            Self::Open => "a [".to_owned(),
            Self::Close => "a ]".to_owned(),
            Self::Assign => "a =".to_owned(),
            Self::Add => "a +=".to_owned(),
            Self::Semicolon => "a semicolon".to_owned(),
            Self::Newline => "the end of the line".to_owned(),
            Self::End => "the end of the file".to_owned(),
        }
    }
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            line: 1,
        }
    }

    /// The next token and its line. An error consumes the rest of its word.
    pub(super) fn next(&mut self) -> (usize, Result<Token, String>) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
        let line = self.line;
        let Some(first) = self.rest.chars().next() else {
            return (line, Ok(Token::End));
        };
        let token = match first {
            '#' => {
                self.take(|c| c != '\n');
                return self.next();
            }
            '\n' => {
                self.line += 1;
                self.skip(1, Token::Newline)
            }
            ',' => self.skip(1, Token::Comma),
            '[' => self.skip(1, Token::Open),
            ']' => self.skip(1, Token::Close),
            ';' => self.skip(1, Token::Semicolon),
            '=' => self.skip(1, Token::Assign),
            '+' if self.rest.starts_with("+=") => self.skip(2, Token::Add),
            'a'..='z' => {
                let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.');
                Ok(Token::Name(self.take(legal).to_owned()))
            }
            '0'..='9' => {
                let legal = |c: char| matches!(c, '0'..='9' | 'a'..='f' | 'x');
                Ok(Token::Number(self.take(legal).to_owned()))
            }
            '"' | '\'' => self.string(first),
            _ => {
                // At least one character, which may be white space of another kind (a form feed).
                let mut is_first = true;
                let word = self.take(|c| std::mem::take(&mut is_first) || !c.is_ascii_whitespace());
                Err(format!(
                    "{} cannot be understood",
                    super::error::shown(word)
                ))
            }
        };
        (line, token)
    }

    fn skip(&mut self, bytes: usize, token: Token) -> Result<Token, String> {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
        Ok(token)
    }

    fn take(&mut self, mut legal: impl FnMut(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !legal(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// A string between quotes, with the escapes of `xlu__cfgl_dequote`. After an error in it the rest of the line is
    /// skipped.
    fn string(&mut self, quote: char) -> Result<Token, String> {
        let line = self.rest.split('\n').next().unwrap_or_default();
        let mut chars = line.char_indices().skip(1);
        let mut text = String::new();
        let result = loop {
            let Some((at, c)) = chars.next() else {
                break Err(format!("a string is not closed with {quote} on its line"));
            };
            match c {
                '\0' => break Err("a string has a NUL".to_owned()),
                char::REPLACEMENT_CHARACTER => break Err("a string is not UTF-8".to_owned()),
                '\\' => match escape(&mut chars) {
                    Ok(c) => text.push(c),
                    Err(why) => break Err(why.to_owned()),
                },
                c if c == quote => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(Token::Text(text));
                }
                c => text.push(c),
            }
        };
        self.rest = self.rest.get(line.len()..).unwrap_or_default();
        result
    }
}

fn escape(chars: &mut impl Iterator<Item = (usize, char)>) -> Result<char, &'static str> {
    match chars.next().map(|(_, c)| c) {
        Some(c @ ('"' | '\'' | '\\')) => Ok(c),
        Some('a') => Ok('\x07'),
        Some('b') => Ok('\x08'),
        Some('f') => Ok('\x0c'),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('v') => Ok('\x0b'),
        // libxlu 4.17 finds no digits after \x, and drops the other numeric escapes.
        Some('x' | '0'..='7') => Err("a string has a numeric escape: write the character itself"),
        _ => Err("a string has an unknown escape"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_takes_something() {
        let odd = ['\u{85}', '\u{a0}', '\u{2028}', '\u{feff}', '\u{fffd}'];
        for c in (0..=127).map(char::from).chain(odd) {
            let text = format!("a{c}= {c}'b'{c}\n{c}");
            let mut lexer = Lexer::new(&text);
            let ends = (0..=text.len()).any(|_| lexer.next().1 == Ok(Token::End));
            assert!(ends, "{c:?}");
        }
    }
}
