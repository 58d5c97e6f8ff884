//! Escapes and classes of a pattern.

use super::{CLASS_WEIGHT, Reader, Refused};
use regex::Regex;

impl<'p> Reader<'p> {
    pub(super) fn escape(&mut self) -> Result<(), Refused<'p>> {
        let before = self.rest;
        let assertion = match self.rest.as_bytes().get(1) {
            Some(b'A') => Some("\\A"),
            Some(b'b') => Some("(?-u:\\b)"),
            Some(b'B') => Some("(?-u:\\B)"),
            Some(b'z') => Some("\\z"),
            _ => None,
        };
        if let Some(assertion) = assertion {
            self.rest = &self.rest[2..];
            self.atom(assertion, 1);
            return Ok(());
        }
        if let Some(quoted) = self.rest.strip_prefix("\\Q") {
            let (literal, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            literal.chars().for_each(|c| self.literal(c));
            self.rest = rest;
            return Ok(());
        }
        if let Some(class) = self.named_class()? {
            self.atom(&format!("[{class}]"), CLASS_WEIGHT);
            return Ok(());
        }
        let c = self.escaped(before)?;
        self.literal(c);
        Ok(())
    }

    /// `\d` and the like, `\pL` and `\p{Greek}`, as items of a class.
    fn named_class(&mut self) -> Result<Option<String>, Refused<'p>> {
        let perl = match self.rest.as_bytes().get(1) {
            Some(b'd') => "0-9",
            Some(b'D') => "[^0-9]",
            Some(b's') => "\\t\\n\\x0C\\r\\x20",
            Some(b'S') => "[^\\t\\n\\x0C\\r\\x20]",
            Some(b'w') => "0-9A-Za-z_",
            Some(b'W') => "[^0-9A-Za-z_]",
            Some(b'p' | b'P') => return self.unicode_class().map(Some),
            _ => return Ok(None),
        };
        self.rest = &self.rest[2..];
        Ok(Some(perl.to_owned()))
    }

    fn unicode_class(&mut self) -> Result<String, Refused<'p>> {
        const CATEGORIES: &str = " C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk \
                                  Sm So Z Zl Zp Zs ";
        let before = self.rest;
        let mut negated = before.as_bytes().get(1) == Some(&b'P');
        self.rest = &before[2..];
        let name = if let Some(inner) = self.rest.strip_prefix('{') {
            let Some((name, rest)) = inner.split_once('}') else {
                return Err(("invalid character class range", before));
            };
            self.rest = rest;
            name
        } else {
            let start = self.rest;
            self.bump();
            self.since(start)
        };
        let written = self.since(before);
        let name = name.strip_prefix('^').map_or(name, |rest| {
            negated = !negated;
            rest
        });
        let plain = !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphabetic());
        let sign = if negated { 'P' } else { 'p' };
        let class = match name {
            "Any" => format!("\\{sign}{{any}}"),
            _ if CATEGORIES.contains(&format!(" {name} ")) => format!("\\{sign}{{gc={name}}}"),
            _ => format!("\\{sign}{{sc={name}}}"),
        };
        if !plain || Regex::new(&class).is_err() {
            return Err(("invalid character class range", written));
        }
        Ok(class)
    }

    /// An escaped character.
    fn escaped(&mut self, before: &'p str) -> Result<char, Refused<'p>> {
        self.bump();
        let Some(c) = self.bump() else { return Err(("trailing backslash at end of expression", "")) };
        let octal = |rest: &str| rest.starts_with(|c: char| ('0'..='7').contains(&c));
        let found = match c {
            'a' => Some('\u{7}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            'x' => self.hex(),
            '0'..='7' if c == '0' || octal(self.rest) => {
                let mut value = c.to_digit(8).unwrap_or_default();
                for _ in 1..3 {
                    if octal(self.rest) {
                        value = value * 8 + self.bump().and_then(|c| c.to_digit(8)).unwrap_or_default();
                    }
                }
                char::from_u32(value)
            }
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => Some(other),
            _ => None,
        };
        found.ok_or(("invalid escape sequence", self.since(before)))
    }

    fn hex(&mut self) -> Option<char> {
        let mut value = 0;
        if self.bump_if('{') {
            let mut some = false;
            loop {
                match self.bump()? {
                    '}' if some => return char::from_u32(value),
                    digit => value = value * 16 + digit.to_digit(16)?,
                }
                some = true;
                if value > u32::from(char::MAX) {
                    return None;
                }
            }
        }
        let (one, other) = (self.bump()?, self.bump()?);
        value = one.to_digit(16)? * 16 + other.to_digit(16)?;
        char::from_u32(value)
    }

    fn bump_if(&mut self, wanted: char) -> bool {
        let found = self.rest.starts_with(wanted);
        if found {
            self.bump();
        }
        found
    }

    /// `[…]`
    pub(super) fn class(&mut self) -> Result<(), Refused<'p>> {
        let whole = self.rest;
        self.bump();
        let mut items = String::from("[");
        if self.bump_if('^') {
            items.push('^');
        }
        let (mut first, mut weight) = (true, 1);
        while first || !self.rest.starts_with(']') {
            first = false;
            if let Some(inner) = self.rest.strip_prefix("[:")
                && let Some((name, rest)) = inner.split_once(":]")
            {
                let written = &self.rest[..self.rest.len() - rest.len()];
                if !is_posix(name.strip_prefix('^').unwrap_or(name)) {
                    return Err(("invalid character class range", written));
                }
                items.push_str(written);
                self.rest = rest;
                continue;
            }
            if self.rest.starts_with('\\')
                && let Some(named) = self.named_class()?
            {
                items.push_str(&named);
                weight = CLASS_WEIGHT;
                continue;
            }
            let before = self.rest;
            let low = self.class_char(whole)?;
            let mut high = low;
            if self.rest.len() > 1 && self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.bump();
                high = self.class_char(whole)?;
                if high < low {
                    return Err(("invalid character class range", self.since(before)));
                }
            }
            items.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)));
        }
        self.bump();
        items.push(']');
        self.atom(&items, weight);
        Ok(())
    }

    fn class_char(&mut self, whole: &'p str) -> Result<char, Refused<'p>> {
        if self.rest.starts_with('\\') {
            let before = self.rest;
            return self.escaped(before);
        }
        self.bump().ok_or(("missing closing ]", whole))
    }
}

fn is_posix(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
        "upper", "word", "xdigit",
    ];
    NAMES.contains(&name)
}
