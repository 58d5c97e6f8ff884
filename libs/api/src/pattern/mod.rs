//! Patterns in RE2's syntax, as Go reads them, matched by Rust's engine.
//!
//! In: a pattern. Out: it, compiled, or what is wrong with it in the words of Go's `regexp`. Invariants: `\d`, `\w`, `\s` and
//! `\b` mean ASCII as in RE2; whatever only Rust's syntax has (sets, more flags) is read as RE2 reads it or refused; what a
//! match may take is known before: about the text's length times the pattern's weight.

mod class;
#[cfg(test)]
mod tests;

use regex::{Regex, RegexBuilder};

/// The most memory of a compiled pattern, and of what is learned of it while it matches.
const SIZE_MAX: usize = 4 << 20;
const LEARNED_MAX: usize = 256 << 10;
/// The most that repetitions within repetitions come to.
const REPEAT_MAX: u64 = 1000;
/// Groups within groups.
const DEPTH_MAX: usize = 250;
/// What a class of a script or a category weighs: it is many states.
const CLASS_WEIGHT: u64 = 8;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    weight: u64,
}

impl Pattern {
    /// Reads and compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let failed = |(what, part): Refused<'_>| format!("error parsing regexp: {what}: `{part}`");
        let mut reader = Reader::new(pattern);
        reader.read().map_err(failed)?;
        let weight = reader.frame().total();
        let built = RegexBuilder::new(&reader.out)
            .size_limit(SIZE_MAX)
            .dfa_size_limit(LEARNED_MAX)
            .octal(false)
            .build();
        let regex = built.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => failed(("expression too large", pattern)),
            _ => failed(("invalid or unsupported Perl syntax", pattern)),
        })?;
        Ok(Self { regex, weight })
    }

    /// The pattern as Rust's engine has it.
    #[must_use]
    pub fn regex(&self) -> &Regex {
        &self.regex
    }

    /// Whether it is somewhere in a text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// How many places it has, with repetitions counted as often as they are allowed.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

/// What is wrong, and with which part.
type Refused<'p> = (&'static str, &'p str);

/// What the last atom weighs, and how often the repetitions in it come to.
#[derive(Clone, Copy)]
struct Atom {
    weight: u64,
    repeats: u64,
}

/// A group that is being read.
#[derive(Default)]
struct Frame {
    weight: u64,
    repeats: u64,
    last: Option<Atom>,
}

impl Frame {
    fn push(&mut self, weight: u64, repeats: u64) {
        self.close();
        self.last = Some(Atom { weight, repeats });
    }

    fn close(&mut self) {
        if let Some(last) = self.last.take() {
            self.weight = self.weight.saturating_add(last.weight);
            self.repeats = self.repeats.max(last.repeats);
        }
    }

    fn total(&self) -> u64 {
        self.weight.saturating_add(self.last.map_or(0, |last| last.weight))
    }
}

struct Reader<'p> {
    whole: &'p str,
    rest: &'p str,
    /// The pattern in Rust's syntax.
    out: String,
    frames: Vec<Frame>,
    /// The text from the repetition just read on.
    repeated: Option<&'p str>,
}

impl<'p> Reader<'p> {
    fn new(whole: &'p str) -> Self {
        Self { whole, rest: whole, out: String::new(), frames: vec![Frame::default()], repeated: None }
    }

    fn frame(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.frames.push(Frame::default());
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    /// What was read since `before`.
    fn since(&self, before: &'p str) -> &'p str {
        &before[..before.len() - self.rest.len()]
    }

    fn bump(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    fn atom(&mut self, text: &str, weight: u64) {
        self.out.push_str(text);
        self.frame().push(weight, 1);
    }

    fn literal(&mut self, c: char) {
        push_char(&mut self.out, c);
        self.frame().push(1, 1);
    }

    fn read(&mut self) -> Result<(), Refused<'p>> {
        while let Some(first) = self.rest.chars().next() {
            let before = self.rest;
            let mut repeated = None;
            match first {
                '(' => self.open()?,
                ')' => self.end_group()?,
                '|' => {
                    self.bump();
                    self.out.push('|');
                    self.frame().close();
                }
                '^' | '$' | '.' => {
                    self.bump();
                    self.atom(first.encode_utf8(&mut [0; 4]), 1);
                }
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.bump();
                    self.repeat(before, first.encode_utf8(&mut [0; 4]), 1)?;
                    repeated = Some(before);
                }
                '{' => match bounds(self.rest) {
                    None => {
                        self.bump();
                        self.literal('{');
                    }
                    Some((bounds, rest)) => {
                        self.rest = rest;
                        let written = self.since(before);
                        let Some(most) = bounds else { return Err(("invalid repeat count", written)) };
                        self.repeat(before, written, most)?;
                        repeated = Some(before);
                    }
                },
                '\\' => self.escape()?,
                other => {
                    self.bump();
                    self.literal(other);
                }
            }
            self.repeated = repeated;
        }
        if self.frames.len() > 1 { Err(("missing closing )", self.whole)) } else { Ok(()) }
    }

    /// A repetition, written `text`, of the last atom.
    fn repeat(&mut self, before: &'p str, text: &str, most: u64) -> Result<(), Refused<'p>> {
        let written = self.since(before);
        self.out.push_str(text);
        if self.rest.starts_with('?') {
            self.bump();
            self.out.push('?');
        }
        if let Some(earlier) = self.repeated {
            return Err(("invalid nested repetition operator", self.since(earlier)));
        }
        let Some(last) = self.frame().last else {
            return Err(("missing argument to repetition operator", written));
        };
        let repeats = last.repeats.saturating_mul(most.max(1));
        if most > 1 && repeats > REPEAT_MAX {
            return Err(("invalid repeat count", written));
        }
        let weight = last.weight.saturating_mul(most.max(1));
        self.frame().last = Some(Atom { weight, repeats });
        Ok(())
    }

    /// A group, or a change of flags.
    fn open(&mut self) -> Result<(), Refused<'p>> {
        let before = self.rest;
        self.bump();
        if let Some(inner) = self.rest.strip_prefix('?') {
            let name = inner.strip_prefix("P<").or_else(|| inner.strip_prefix('<'));
            match name {
                Some(named) => {
                    let Some((name, rest)) = named.split_once('>') else {
                        return Err(("invalid named capture", before));
                    };
                    self.rest = rest;
                    if name.is_empty()
                        || !name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
                    {
                        return Err(("invalid named capture", self.since(before)));
                    }
                    // No one asks for groups by their names.
                    self.out.push('(');
                }
                None => {
                    self.rest = inner;
                    if !self.flags(before)? {
                        return Ok(());
                    }
                }
            }
        } else {
            self.out.push('(');
        }
        if self.frames.len() > DEPTH_MAX {
            return Err(("expression nests too deeply", self.whole));
        }
        self.frames.push(Frame::default());
        Ok(())
    }

    /// Flags after `(?`; whether they open a group.
    fn flags(&mut self, before: &'p str) -> Result<bool, Refused<'p>> {
        let (mut negative, mut some) = (false, false);
        while let Some(c) = self.bump() {
            match c {
                'i' | 'm' | 's' | 'U' => some = true,
                '-' if !negative => (negative, some) = (true, false),
                ':' | ')' if some || !negative => {
                    // Go allows a flag twice, Rust does not.
                    self.out.push_str(&tidy(self.since(before)));
                    return Ok(c == ':');
                }
                _ => break,
            }
        }
        Err(("invalid or unsupported Perl syntax", self.since(before)))
    }

    fn end_group(&mut self) -> Result<(), Refused<'p>> {
        if self.frames.len() < 2 {
            return Err(("unexpected )", self.whole));
        }
        self.bump();
        self.out.push(')');
        if let Some(mut inner) = self.frames.pop() {
            inner.close();
            self.frame().push(inner.weight.max(1), inner.repeats.max(1));
        }
        Ok(())
    }
}

/// Flags, each once.
fn tidy(written: &str) -> String {
    let mut out = String::new();
    for part in written.split_inclusive('-') {
        let from = out.len();
        for c in part.chars() {
            if !out[from..].contains(c) {
                out.push(c);
            }
        }
    }
    // What is set and cleared at once is cleared.
    let Some((set, cleared)) = out.split_once('-') else { return out };
    let set: String = set.chars().filter(|c| !c.is_alphabetic() || !cleared.contains(*c)).collect();
    format!("{set}-{cleared}")
}

fn push_char(out: &mut String, c: char) {
    if matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$') {
        out.push('\\');
    }
    out.push(c);
}

/// `{2}`, `{2,}` or `{2,5}`: how often at most (`None`: that is too often), and what follows; nothing where it is not of that form.
fn bounds(text: &str) -> Option<(Option<u64>, &str)> {
    let (least, mut rest) = number(text.strip_prefix('{')?)?;
    let mut most = least;
    if let Some(after) = rest.strip_prefix(',') {
        rest = after;
        if !rest.starts_with('}') {
            (most, rest) = number(rest)?;
        }
    }
    let rest = rest.strip_prefix('}')?;
    Some(((least <= most && most <= REPEAT_MAX).then_some(most), rest))
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() || digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    Some((digits.parse().unwrap_or(u64::MAX), rest))
}
