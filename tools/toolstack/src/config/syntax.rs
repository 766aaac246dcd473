//! The parser of assignments, with `xl`'s grammar (Xen 4.17: tools/libs/util/libxlu_cfg_y.y).

use super::error::ConfigProblems;
use super::lexer::{Lexer, Token};

/// The deepest nesting of lists that is parsed. No supported parameter has nested lists.
const DEPTH_MAX: usize = 8;

/// A value and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileValue {
    pub(super) line: usize,
    pub(super) kind: ValueKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    Atom(String),
    List(Vec<FileValue>),
}

pub(super) struct Assignment {
    pub(super) name: String,
    pub(super) line: usize,
    /// `+=`
    pub(super) add: bool,
    pub(super) value: FileValue,
}

/// Parses all assignments that are valid; adds an error for each other one.
pub(super) fn assignments(text: &str, problems: &mut ConfigProblems) -> Vec<Assignment> {
    let mut parser = Parser {
        lexer: Lexer::new(text),
    };
    let mut all = Vec::new();
    while !problems.are_enough() {
        match parser.statement() {
            Ok(Some(assignment)) => all.push(assignment),
            Ok(None) => break,
            Err(Unread { line, what, at_end }) => {
                problems.add(line, what);
                if !at_end {
                    parser.skip_line();
                }
            }
        }
    }
    all
}

struct Parser<'a> {
    lexer: Lexer<'a>,
}

struct Unread {
    line: usize,
    what: String,
    /// The line or the file is over already.
    at_end: bool,
}

impl Parser<'_> {
    fn token(&mut self) -> Result<(usize, Token), Unread> {
        let (line, token) = self.lexer.next();
        token.map(|token| (line, token)).map_err(|what| Unread {
            line,
            what,
            at_end: false,
        })
    }

    /// The next token that is not a line end, as inside of lists.
    fn token_in_list(&mut self) -> Result<(usize, Token), Unread> {
        loop {
            match self.token()? {
                (_, Token::Newline) => {}
                other => return Ok(other),
            }
        }
    }

    fn skip_line(&mut self) {
        loop {
            if let Ok(Token::Newline | Token::End) = self.lexer.next().1 {
                return;
            }
        }
    }

    fn statement(&mut self) -> Result<Option<Assignment>, Unread> {
        loop {
            let (line, name) = match self.token()? {
                (_, Token::Newline | Token::Semicolon) => continue,
                (_, Token::End) => return Ok(None),
                (line, Token::Name(name)) => (line, name),
                (line, other) => return Err(unexpected(line, &other, "the name of a parameter")),
            };
            let add = match self.token()? {
                (_, Token::Assign) => false,
                (_, Token::Add) => true,
                (line, other) => return Err(unexpected(line, &other, &format!("= behind {name}"))),
            };
            let value = self.value(&name)?;
            return match self.token()? {
                (_, Token::Newline | Token::Semicolon | Token::End) => Ok(Some(Assignment {
                    name,
                    line,
                    add,
                    value,
                })),
                (line, other) => Err(unexpected(line, &other, "the end of the line")),
            };
        }
    }

    /// A string, a number, or a list of values; without recursion, because a file may be made of brackets.
    fn value(&mut self, name: &str) -> Result<FileValue, Unread> {
        let expected = format!("a value for {name}");
        let mut open: Vec<(usize, Vec<FileValue>)> = Vec::new();
        let mut token = self.token()?;
        loop {
            let value = match token {
                (line, Token::Text(text) | Token::Number(text)) => FileValue {
                    line,
                    kind: ValueKind::Atom(text),
                },
                (line, Token::Open) => {
                    if open.len() == DEPTH_MAX {
                        let what = format!("lists are nested deeper than {DEPTH_MAX}");
                        return Err(Unread {
                            line,
                            what,
                            at_end: false,
                        });
                    }
                    open.push((line, Vec::new()));
                    token = self.token_in_list()?;
                    // Empty, or its first value.
                    if token.1 != Token::Close {
                        continue;
                    }
                    close(&mut open)
                }
                // After the last comma.
                (_, Token::Close) if !open.is_empty() => close(&mut open),
                (line, other) => return Err(unexpected(line, &other, &expected)),
            };
            // The token after a value. A list that ends is a value of the list around it.
            let mut value = value;
            loop {
                let Some((_, list)) = open.last_mut() else {
                    return Ok(value);
                };
                list.push(value);
                match self.token_in_list()? {
                    (_, Token::Comma) => {
                        token = self.token_in_list()?;
                        break;
                    }
                    (_, Token::Close) => value = close(&mut open),
                    (line, other) => return Err(unexpected(line, &other, "a comma or a ]")),
                }
            }
        }
    }
}

fn close(open: &mut Vec<(usize, Vec<FileValue>)>) -> FileValue {
    let (line, values) = open.pop().unwrap_or_default();
    FileValue {
        line,
        kind: ValueKind::List(values),
    }
}

fn unexpected(line: usize, token: &Token, expected: &str) -> Unread {
    let what = format!("there is {} in place of {expected}", token.what());
    Unread {
        line,
        what,
        at_end: matches!(token, Token::Newline | Token::End),
    }
}
