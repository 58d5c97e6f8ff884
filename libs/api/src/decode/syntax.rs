//! Go's words for the first byte at which a text is no JSON: the states of its scanner, one byte at a time.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    AfterValue,
    Text,
    Escape,
    /// Of this many hexadecimal digits that are still to come.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Decimals,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// A word, and how much of it was there.
    Word(&'static str, usize),
}

/// What is open around a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Key,
    Field,
    Items,
}

/// What is wrong with a text, if anything.
pub(super) fn fault(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { state: State::Value, within: Vec::new() };
    let told = |byte: u8, place: String| format!("invalid character {} {place}", quoted(byte));
    for byte in text {
        if let Err(place) = scanner.step(*byte) {
            return Some(told(*byte, place));
        }
    }
    // The end is as a blank, behind which nothing may be missing.
    match scanner.step(b' ') {
        Err(place) => Some(told(b' ', place)),
        Ok(()) if scanner.is_done() => None,
        Ok(()) => Some("unexpected end of JSON input".to_owned()),
    }
}

struct Scanner {
    state: State,
    within: Vec<Within>,
}

impl Scanner {
    fn is_done(&self) -> bool {
        self.state == State::AfterValue && self.within.is_empty()
    }

    fn step(&mut self, byte: u8) -> Result<(), String> {
        use State::{
            AfterValue, Decimals, Digits, Escape, Exponent, ExponentDigits, ExponentSign, Hex, Key, KeyOrEnd,
            Minus, Point, Text, Value, ValueOrEnd, Word, Zero,
        };
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.state = match (self.state, byte) {
            (Value | ValueOrEnd | Key | KeyOrEnd | AfterValue, _) if blank => self.state,
            (ValueOrEnd, b']') | (KeyOrEnd, b'}') => self.closed(),
            (Value | ValueOrEnd, _) => return self.value(byte),
            (Key | KeyOrEnd, b'"') => Text,
            (Key | KeyOrEnd, _) => return Err("looking for beginning of object key string".to_owned()),
            (AfterValue, _) => return self.after_value(byte),
            (Text, b'"') => AfterValue,
            (Text, b'\\') => Escape,
            (Text, ..b' ') => return Err("in string literal".to_owned()),
            (Text, _) | (Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => Text,
            (Escape, b'u') => Hex(4),
            (Escape, _) => return Err("in string escape code".to_owned()),
            (Hex(left), _) if byte.is_ascii_hexdigit() => {
                if left == 1 {
                    Text
                } else {
                    Hex(left - 1)
                }
            }
            (Hex(_), _) => return Err("in \\u hexadecimal character escape".to_owned()),
            (Minus, b'0') => Zero,
            (Minus | Digits, b'0'..=b'9') => Digits,
            (Minus, _) => return Err("in numeric literal".to_owned()),
            (Zero | Digits, b'.') => Point,
            (Zero | Digits | Decimals, b'e' | b'E') => Exponent,
            (Point | Decimals, b'0'..=b'9') => Decimals,
            (Point, _) => return Err("after decimal point in numeric literal".to_owned()),
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            (Exponent | ExponentSign, _) => return Err("in exponent of numeric literal".to_owned()),
            (Zero | Digits | Decimals | ExponentDigits, _) => return self.after_number(byte),
            (Word(word, at), _) => return self.word(word, at, byte),
        };
        Ok(())
    }

    fn value(&mut self, byte: u8) -> Result<(), String> {
        self.state = match byte {
            b'{' => {
                self.within.push(Within::Key);
                State::KeyOrEnd
            }
            b'[' => {
                self.within.push(Within::Items);
                State::ValueOrEnd
            }
            b'"' => State::Text,
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Word("true", 1),
            b'f' => State::Word("false", 1),
            b'n' => State::Word("null", 1),
            _ => return Err("looking for beginning of value".to_owned()),
        };
        Ok(())
    }

    fn word(&mut self, word: &'static str, at: usize, byte: u8) -> Result<(), String> {
        let wanted = word.as_bytes()[at];
        if byte != wanted {
            return Err(format!("in literal {word} (expecting '{}')", char::from(wanted)));
        }
        self.state = if at + 1 == word.len() { State::AfterValue } else { State::Word(word, at + 1) };
        Ok(())
    }

    fn after_number(&mut self, byte: u8) -> Result<(), String> {
        self.state = State::AfterValue;
        self.step(byte)
    }

    fn after_value(&mut self, byte: u8) -> Result<(), String> {
        let Some(within) = self.within.last_mut() else { return Err("after top-level value".to_owned()) };
        self.state = match (*within, byte) {
            (Within::Key, b':') => {
                *within = Within::Field;
                State::Value
            }
            (Within::Field, b',') => {
                *within = Within::Key;
                State::Key
            }
            (Within::Items, b',') => State::Value,
            (Within::Field, b'}') | (Within::Items, b']') => self.closed(),
            (Within::Key, _) => return Err("after object key".to_owned()),
            (Within::Field, _) => return Err("after object key:value pair".to_owned()),
            (Within::Items, _) => return Err("after array element".to_owned()),
        };
        Ok(())
    }

    fn closed(&mut self) -> State {
        self.within.pop();
        State::AfterValue
    }
}

/// A byte as Go shows it: as the character of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' | b'\r' | b'\t' => format!("'{}'", char::from(byte).escape_default()),
        0x7f..=0x9f | 0xad => format!(r"'\u{byte:04x}'"),
        ..b' ' => format!(r"'\x{byte:02x}'"),
        0xa0 => r"'\u00a0'".to_owned(),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn the_first_byte_that_is_wrong_is_told_in_gos_words() {
        let rows = [
            ("{\"a\":01}", "'1' after object key:value pair"),
            ("{\"a\":1.}", "'}' after decimal point in numeric literal"),
            ("{\"a\":-}", "'}' in numeric literal"),
            ("{\"a\":1e}", "'}' in exponent of numeric literal"),
            ("{\"a\":nul}", "'}' in literal null (expecting 'l')"),
            ("{\"a\":falsy}", "'y' in literal false (expecting 'e')"),
            ("{\"a\":\"\\x\"}", "'x' in string escape code"),
            ("{\"a\":\"\\u12\"}", "'\"' in \\u hexadecimal character escape"),
            ("{\"a\":\"b\tc\"}", "'\\t' in string literal"),
            ("'a'", "'\\'' looking for beginning of value"),
            ("-", "' ' in numeric literal"),
            ("text", "'e' in literal true (expecting 'r')"),
            ("{a:1}", "'a' looking for beginning of object key string"),
            ("{\"a\":1,}", "'}' looking for beginning of object key string"),
            ("{\"a\" 1}", "'1' after object key"),
            ("[1 2]", "'2' after array element"),
            ("[1,]", "']' looking for beginning of value"),
            ("{} x", "'x' after top-level value"),
            ("\u{e9}", "'\u{c3}' looking for beginning of value"),
        ];
        for (text, want) in rows {
            assert_eq!(fault(text.as_bytes()), Some(format!("invalid character {want}")), "{text}");
        }
        for text in ["", "{", "[", "{\"a\":1", "\"a", "[1,"] {
            assert_eq!(fault(text.as_bytes()).as_deref(), Some("unexpected end of JSON input"), "{text}");
        }
        for text in ["{}", " [1, -0.5e+7, null, true, \"\\u00e9\"] ", "0"] {
            assert_eq!(fault(text.as_bytes()), None, "{text}");
        }
    }
}
