//! The query syntax of label selectors: tokens, and the requirements they spell.

use super::labels::{Operator, Requirement, check_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Word,
    Symbol,
    Unknown,
    End,
}

struct Tokens<'a> {
    all: Vec<(Token, &'a str)>,
    next: usize,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> (Token, &'a str) {
        self.all.get(self.next).copied().unwrap_or((Token::End, ""))
    }
    fn take(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.next += 1;
        token
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

const fn is_special(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn tokens(text: &str) -> Tokens<'_> {
    let mut all = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    while let Some(first) = rest.bytes().next() {
        let length = if is_special(first) {
            if rest.starts_with("==") || rest.starts_with("!=") { 2 } else { 1 }
        } else {
            rest.bytes().position(|byte| is_special(byte) || is_space(byte)).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length);
        // A NUL ends Kubernetes' scan of a word: nothing valid holds one.
        let kind = if token.contains('\0') {
            Token::Unknown
        } else if is_special(first) {
            Token::Symbol
        } else {
            Token::Word
        };
        all.push((kind, token));
        rest = after.trim_start_matches([' ', '\t', '\r', '\n']);
    }
    Tokens { all, next: 0 }
}

/// Every requirement of a selector, in the order written.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut tokens = tokens(text);
    let mut requirements = Vec::new();
    loop {
        match tokens.peek() {
            (Token::End, _) => return Ok(requirements),
            (Token::Word, _) | (Token::Symbol, "!") => {
                let requirement = requirement(&mut tokens);
                requirements
                    .push(requirement.map_err(|fault| format!("unable to parse requirement: {fault}"))?);
            }
            (_, other) => {
                return Err(format!("found '{other}', expected: !, identifier, or 'end of string'"));
            }
        }
        match tokens.take() {
            (Token::End, _) => return Ok(requirements),
            (_, ",") => match tokens.peek() {
                (Token::Word, _) | (Token::Symbol, "!") => {}
                (_, other) => return Err(format!("found '{other}', expected: identifier after ','")),
            },
            (_, other) => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, String> {
    let absent = tokens.peek() == (Token::Symbol, "!");
    if absent {
        tokens.take();
    }
    let (kind, key) = tokens.take();
    if kind != Token::Word {
        return Err(format!("found '{key}', expected: identifier"));
    }
    check_key("<nil>", key)?;
    if absent {
        return Requirement::new(key, Operator::DoesNotExist, Vec::new());
    }
    if matches!(tokens.peek(), (Token::End, _) | (_, ",")) {
        return Requirement::new(key, Operator::Exists, Vec::new());
    }
    let operator = match tokens.take().1 {
        "=" | "==" => Operator::Equals,
        "!=" => Operator::NotEquals,
        "in" => Operator::In,
        "notin" => Operator::NotIn,
        ">" => Operator::Gt,
        "<" => Operator::Lt,
        other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    };
    let several = matches!(operator, Operator::In | Operator::NotIn);
    let values = if several { set(tokens)? } else { vec![exact(tokens)?] };
    Requirement::new(key, operator, values)
}

fn exact(tokens: &mut Tokens<'_>) -> Result<String, String> {
    match tokens.peek() {
        (Token::End, _) | (_, ",") => Ok(String::new()),
        (kind, word) => {
            tokens.take();
            if kind == Token::Word {
                Ok(word.to_owned())
            } else {
                Err(format!("found '{word}', expected: identifier"))
            }
        }
    }
}

/// `(a,b)`; an empty place between commas is an empty value.
fn set(tokens: &mut Tokens<'_>) -> Result<Vec<String>, String> {
    let (_, open) = tokens.take();
    if open != "(" {
        return Err(format!("found '{open}' expected: '('"));
    }
    match tokens.peek() {
        (Token::Word, _) | (_, "," | ")") => {}
        (_, other) => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
    }
    let mut values = Vec::new();
    let mut value = String::new();
    loop {
        match tokens.take() {
            (Token::Word, word) => {
                word.clone_into(&mut value);
                match tokens.peek() {
                    (_, "," | ")") => {}
                    (_, other) => return Err(format!("found '{other}', expected: ',' or ')'")),
                }
            }
            (_, ",") => values.push(std::mem::take(&mut value)),
            (_, ")") => {
                values.push(value);
                return Ok(values);
            }
            (_, other) => return Err(format!("found '{other}', expected: ',', or identifier")),
        }
    }
}
