//! A Rust source split into what is code and what is comment, and where its functions begin and end.
//!
//! In: a file's text. Out: the same text twice, once with comments and the insides of literals blanked, once with all but
//! comments blanked. Both keep every line where it was, so that positions in them are positions in the file.
//! A scanner, not a parser: it knows just enough of the language to never take a brace in a string for a brace.

/// A file's text, taken apart.
pub struct Source {
    /// Code: comments and the insides of literals are blanks.
    pub code: String,
    /// Comments: everything else is blanks.
    pub comments: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Lines from 1: the one with `fn`, and the one with the closing brace.
    pub first: usize,
    pub last: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text { hashes: Option<usize> },
}

impl Source {
    pub fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
        let mut state = State::Code;
        let mut at = 0;
        while at < chars.len() {
            let (next, length) = step(state, &chars, at);
            let comment = matches!(state, State::LineComment | State::BlockComment { .. })
                || matches!(next, State::LineComment | State::BlockComment { .. });
            let inside = matches!(state, State::Text { .. }) && matches!(next, State::Text { .. });
            // A char literal is taken in one step and never changes the state.
            let literal = state == State::Code && next == State::Code && length > 2;
            for char in &chars[at..(at + length).min(chars.len())] {
                let blank = if char.is_whitespace() { *char } else { ' ' };
                code.push(if comment || inside || literal { blank } else { *char });
                comments.push(if comment { *char } else { blank });
            }
            state = next;
            at += length;
        }
        Self { code, comments }
    }

    /// All functions with a body, in the order of their `fn`.
    pub fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let word = at == 0 || !is_word(bytes[at - 1]);
            let name: String =
                self.code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !word || name.is_empty() {
                continue;
            }
            if let Some(end) = body_end(bytes, at) {
                functions.push(Function { name, first: self.line_of(at), last: self.line_of(end) });
            }
        }
        functions
    }

    /// The line, from 1, of a byte of the code.
    pub fn line_of(&self, at: usize) -> usize {
        self.code.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The state after the character at `at`, and how many characters that takes.
fn step(state: State, chars: &[char], at: usize) -> (State, usize) {
    let here = chars[at];
    let next = chars.get(at + 1).copied().unwrap_or('\n');
    match state {
        State::Code => step_in_code(chars, at, here, next),
        State::LineComment if here == '\n' => (State::Code, 1),
        State::LineComment => (state, 1),
        State::BlockComment { depth } => match (here, next) {
            ('/', '*') => (State::BlockComment { depth: depth + 1 }, 2),
            ('*', '/') if depth == 1 => (State::Code, 2),
            ('*', '/') => (State::BlockComment { depth: depth - 1 }, 2),
            _ => (state, 1),
        },
        State::Text { hashes: None } => match here {
            '\\' => (state, 2),
            '"' => (State::Code, 1),
            _ => (state, 1),
        },
        State::Text { hashes: Some(hashes) } => {
            let closes = here == '"' && (1..=hashes).all(|i| chars.get(at + i) == Some(&'#'));
            if closes { (State::Code, 1 + hashes) } else { (state, 1) }
        }
    }
}

fn step_in_code(chars: &[char], at: usize, here: char, next: char) -> (State, usize) {
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (here, next) {
        ('/', '/') => (State::LineComment, 2),
        ('/', '*') => (State::BlockComment { depth: 1 }, 2),
        ('"', _) => (State::Text { hashes: None }, 1),
        ('b', '"') if !after_word => (State::Text { hashes: None }, 2),
        ('r', '"' | '#') if !after_word || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            // `r#type` is a name.
            if chars.get(at + 1 + hashes) == Some(&'"') {
                (State::Text { hashes: Some(hashes) }, 2 + hashes)
            } else {
                (State::Code, 1)
            }
        }
        // `'x'` and `'\n'` are literals, `'a` is a lifetime.
        ('\'', '\\') => {
            let length = chars[at + 3..].iter().take(12).position(|c| *c == '\'').map_or(1, |end| end + 4);
            (State::Code, length)
        }
        ('\'', _) if chars.get(at + 2) == Some(&'\'') => (State::Code, 3),
        _ => (State::Code, 1),
    }
}

/// Where the body of the function that begins at `at` ends, if it has one.
fn body_end(code: &[u8], at: usize) -> Option<usize> {
    let (mut nested, mut depth) = (0_i32, 0_i32);
    for (i, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' if depth == 0 => nested += 1,
            b')' | b']' if depth == 0 => nested -= 1,
            b';' if depth == 0 && nested == 0 => return None,
            b'{' if nested == 0 => depth += 1,
            b'}' if nested == 0 => {
                depth -= 1;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(text: &str) -> Vec<(String, usize)> {
        let all = Source::new(text).functions();
        all.into_iter().map(|function| (function.name, function.last - function.first + 1)).collect()
    }

    #[test]
    fn a_brace_counts_only_where_it_is_code() {
        let text = r##"
fn one() {
    let a = "}"; let b = '}'; let c = b'{'; let d = '\u{7d}'; let e = '\'';
    let f = r#"} " }"#; // }
    /* } /* } */ } */
    let g: &'static str = "\"}";
}
fn two() -> [u8; 2] { [1, 2] }
"##;
        assert_eq!(functions(text), [("one".to_owned(), 6), ("two".to_owned(), 1)]);
    }

    #[test]
    fn declarations_and_pointers_to_functions_have_no_length() {
        let text = "trait T { fn a(&self); }\ntype F = fn (u8) -> u8;\nstruct S { r#fn: u8 }\nfn b(f: fn(u8)) {\n}\n";
        assert_eq!(functions(text), [("b".to_owned(), 2)]);
    }

    #[test]
    fn a_function_within_another_counts_for_both() {
        let text = "fn outer() {\n    fn inner() {\n    }\n}\n";
        assert_eq!(functions(text), [("outer".to_owned(), 4), ("inner".to_owned(), 2)]);
    }

    #[test]
    fn code_and_comments_are_told_apart_and_keep_their_lines() {
        let source = Source::new("let a = 1; // why\nlet b = \"// no\";\n");
        assert_eq!(source.code, "let a = 1;       \nlet b = \"     \";\n");
        assert_eq!(source.comments, "           // why\n                \n");
    }
}
