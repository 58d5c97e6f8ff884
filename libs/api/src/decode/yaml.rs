//! YAML with the meaning it has in Kubernetes: 1.1 scalars (`yes` is a boolean), go-yaml's words for what is wrong.
//!
//! A document becomes what YAMLToJSON would make of it. Nesting and what aliases expand to are bounded.

use super::findings::tell;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use libyaml_safer::{Encoding, Error, ErrorKind, Event, EventData, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;

/// Deepest nesting, as of JSON bodies.
const DEPTH_MAX: usize = 128;
/// Values that aliases may repeat, and those that anchors may keep: anchors within anchors keep the same ones again.
const ALIASED_MAX: usize = 100_000;
const ANCHORED_MAX: usize = 1_000_000;
/// Bytes of text that count as a value.
const TEXT_WEIGHT: usize = 64;

const EXCESSIVE: &str = "document contains excessive aliasing";

/// The first document of a text.
#[derive(Debug)]
pub(super) struct Document {
    /// What it holds; null where there is none.
    pub value: Value,
    /// `line 3: key "a" already set in map`.
    pub duplicates: Vec<String>,
}

/// Reads a text.
///
/// # Errors
/// go-yaml's words, with `yaml: ` before them.
pub(super) fn parse(text: &[u8]) -> Result<Document, String> {
    let text = unicode(text)?;
    let mark = MARKS
        .into_iter()
        .find(|mark| !text.contains(*mark))
        .ok_or("yaml: control characters are not allowed")?;
    let mut text = marked(&text, mark);
    let beyond = ended(&mut text);
    let mut input = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_encoding(Encoding::Utf8);
    parser.set_input_string(&mut input);
    let mut reader = Reader {
        parser,
        mark,
        beyond,
        anchors: HashMap::new(),
        aliased: 0,
        anchored: 0,
        duplicates: Vec::new(),
    };
    let value = reader.document().map_err(|fault| format!("yaml: {fault}"))?;
    Ok(Document { value, duplicates: reader.duplicates })
}

/// A text without its byte order mark. The parser must see nothing else: its reader of UTF-16 has bugs.
fn unicode(text: &[u8]) -> Result<String, String> {
    let units = |of: fn([u8; 2]) -> u16| -> Vec<u16> {
        text[2..].chunks(2).map(|pair| of([pair[0], pair.get(1).copied().unwrap_or_default()])).collect()
    };
    let read = match text {
        [0xfe, 0xff, ..] => String::from_utf16(&units(u16::from_be_bytes)).ok(),
        [0xff, 0xfe, ..] => String::from_utf16(&units(u16::from_le_bytes)).ok(),
        [0xef, 0xbb, 0xbf, text @ ..] => std::str::from_utf8(text).ok().map(str::to_owned),
        text => std::str::from_utf8(text).ok().map(str::to_owned),
    };
    read.ok_or_else(|| "yaml: invalid Unicode character".to_owned())
}

/// Characters for private use, one of which no text has.
const MARKS: [char; 3] = ['\u{f8fd}', '\u{f8fe}', '\u{f8ff}'];

/// The parser panics where a tag in `[]` or `{}` ends at a comma. So each comma that might be one gets a mark before it: after a
/// tag that is a fault, and anywhere else it is taken out again.
fn marked(text: &str, mark: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut tag = false;
    for c in text.chars() {
        match c {
            ',' if tag => out.extend([mark, c]),
            _ => out.push(c),
        }
        tag = match c {
            '!' => true,
            ',' | '[' | ']' | '{' | '}' => false,
            c => tag && !c.is_whitespace(),
        };
    }
    out
}

/// The parser also panics where a text ends in an escape, or in a block without a line break. So such a text gets one, and this
/// is the line that only it leads to: a block that ends there has one break too many.
fn ended(text: &mut String) -> Option<Beyond> {
    const BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    let last = text.rsplit(BREAKS).next().unwrap_or_default();
    if last.is_empty() || !text.contains(['|', '>', '\\']) {
        return None;
    }
    let blank = last.bytes().all(|byte| byte == b' ');
    text.push('\n');
    let breaks = text.matches(BREAKS).count() - text.matches("\r\n").count();
    u64::try_from(breaks).ok().map(|line| Beyond { line, blank })
}

/// A line that the text itself does not have.
struct Beyond {
    line: u64,
    /// Whether there are but blanks on the line before it.
    blank: bool,
}

impl Beyond {
    /// Takes back the break that leads to the line, as far as it became a part of a block.
    fn cut(&self, block: &mut String) {
        let Some(kept) = block.strip_suffix('\n') else { return };
        // Blanks that do not reach into the block are no line of it; where breaks are clipped, theirs is gone already.
        let counts = !self.blank || kept.is_empty() || kept.ends_with(['\n', ' ']);
        if counts {
            block.pop();
        }
    }
}

/// Where go-yaml says that an error is.
fn words(fault: &Error) -> String {
    let line = |mark: Option<libyaml_safer::Mark>| mark.map(|mark| mark.line).filter(|line| *line != 0);
    let counted = u64::from(fault.kind() == ErrorKind::Scanner);
    let problem = line(fault.problem_mark()).map(|line| line + counted);
    match problem.or_else(|| line(fault.context_mark())) {
        Some(line) => format!("line {line}: {}", fault.problem()),
        None => fault.problem().to_owned(),
    }
}

struct Reader<'b, 'r> {
    parser: Parser<&'b mut &'r [u8]>,
    /// See [`marked`].
    mark: char,
    /// See [`ended`].
    beyond: Option<Beyond>,
    anchors: HashMap<String, Value>,
    /// Values that came out of aliases.
    aliased: usize,
    /// Values that anchors keep.
    anchored: usize,
    duplicates: Vec<String>,
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Result<Event, String> {
        self.parser.parse().map_err(|fault| words(&fault))
    }

    fn document(&mut self) -> Result<Value, String> {
        loop {
            match self.next()?.data {
                EventData::StreamStart { .. } => {}
                EventData::DocumentStart { .. } => break,
                _ => return Ok(Value::Null),
            }
        }
        let first = self.next()?;
        let value = self.node(first, 0)?;
        // What stands after the document must still be YAML, as far as its end is concerned.
        self.next()?;
        Ok(value)
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(format!("line {}: exceeded max depth of {DEPTH_MAX}", event.start_mark.line + 1));
        }
        let (anchor, value) = match event.data {
            EventData::Alias { anchor } => return self.alias(&anchor),
            EventData::Scalar { anchor, tag, mut value, style, .. } => {
                value.retain(|c| c != self.mark);
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let at_end = |beyond: &&Beyond| block && beyond.line == event.end_mark.line;
                if let Some(beyond) = self.beyond.as_ref().filter(at_end) {
                    beyond.cut(&mut value);
                }
                let plain = style == ScalarStyle::Plain;
                (anchor, scalar(tag.as_deref(), value, plain)?)
            }
            EventData::SequenceStart { anchor, .. } => (anchor, self.sequence(depth)?),
            EventData::MappingStart { anchor, .. } => (anchor, self.mapping(depth)?),
            _ => return Err("unknown problem parsing YAML content".to_owned()),
        };
        if let Some(anchor) = anchor {
            self.anchored += size(&value);
            if self.anchored > ANCHORED_MAX {
                return Err(EXCESSIVE.to_owned());
            }
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: &str) -> Result<Value, String> {
        let value =
            self.anchors.get(anchor).ok_or_else(|| format!("unknown anchor '{anchor}' referenced"))?;
        self.aliased += size(value);
        if self.aliased > ALIASED_MAX {
            return Err(EXCESSIVE.to_owned());
        }
        Ok(value.clone())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        loop {
            let event = self.next()?;
            if event.data == EventData::SequenceEnd {
                return Ok(Value::Array(items));
            }
            items.push(self.node(event, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        let mut merged = Map::new();
        loop {
            let event = self.next()?;
            if event.data == EventData::MappingEnd {
                for (key, value) in merged {
                    map.entry(key).or_insert(value);
                }
                return Ok(Value::Object(map));
            }
            let line = event.start_mark.line + 1;
            let merges = matches!(&event.data, EventData::Scalar { value, style: ScalarStyle::Plain, .. } if value == "<<");
            let key = key(self.node(event, depth + 1)?)?;
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            if merges {
                merge(&mut merged, value)?;
            } else {
                if map.contains_key(&key) {
                    tell(&mut self.duplicates, || format!("line {line}: key {key:?} already set in map"));
                }
                map.insert(key, value);
            }
        }
    }
}

/// Keys of JSON are text.
fn key(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null => Ok("null".to_owned()),
        _ => Err(format!("invalid map key: {}", go_syntax(&value))),
    }
}

/// A value as Go would be told of it in a program.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{key:?}:{}", go_syntax(value))).collect();
            format!("map[interface {{}}]interface {{}}{{{}}}", fields.join(", "))
        }
        Value::Null => "interface {}(nil)".to_owned(),
        other => other.to_string(),
    }
}

/// What `<<` brings in; earlier ones win.
fn merge(merged: &mut Map<String, Value>, value: Value) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                merged.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.into_iter().try_for_each(|item| merge(merged, item))
        }
        _ => Err("map merge requires map or sequence of maps as the value".to_owned()),
    }
}

/// What a copy of a value costs.
fn size(value: &Value) -> usize {
    let of_text = |text: &str| text.len() / TEXT_WEIGHT;
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| of_text(key) + size(value)).sum(),
        Value::String(text) => of_text(text),
        _ => 0,
    }
}

fn scalar(tag: Option<&str>, text: String, plain: bool) -> Result<Value, String> {
    Ok(match tag {
        None if plain => resolved(text),
        Some(
            "tag:yaml.org,2002:bool"
            | "tag:yaml.org,2002:int"
            | "tag:yaml.org,2002:float"
            | "tag:yaml.org,2002:null",
        ) => resolved(text),
        Some("tag:yaml.org,2002:binary") => {
            let packed: String = text.split_whitespace().collect();
            let bytes = BASE64_STANDARD.decode(packed);
            let bytes = bytes.map_err(|_| "!!binary value contains invalid base64 data")?;
            Value::String(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => Value::String(text),
    })
}

/// A plain scalar's value.
fn resolved(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return Value::String(text);
    }
    let packed = text.replace('_', "");
    integer(&packed).or_else(|| float(&packed)).map_or(Value::String(text), Value::Number)
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        let value = 0_i128 - i128::from(magnitude);
        i64::try_from(value).ok().map(Number::from)
    } else {
        Some(Number::from(magnitude))
    }
}

/// Whole ones are written like integers, as Go does.
fn float(text: &str) -> Option<Number> {
    let shaped =
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    let value: f64 =
        text.parse().ok().filter(|_| shaped && text.bytes().any(|byte| byte.is_ascii_digit()))?;
    let whole = value.fract() == 0.0 && value.abs() < 1e18;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and fits")]
    if whole { Some(Number::from(value as i64)) } else { Number::from_f64(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_have_the_types_of_go_yaml() {
        let text = "a: y\nb: \"y\"\nc: Off\nd: ~\ne: 0x10\nf: 010\ng: 1_000\nh: 1.50\ni: -3\nj: 2001-01-01\nk: 1.0\nl: v1\nm: |\n  two\n  lines\nnn: !!str 5\no: 1e3\np: 10.96.0.1\nq: '5'\n5: x\nyes: z\n";
        let want = json!({"a": true, "b": "y", "c": false, "d": null, "e": 16, "f": 8, "g": 1000, "h": 1.5, "i": -3,
            "j": "2001-01-01", "k": 1, "l": "v1", "m": "two\nlines\n", "nn": "5", "o": 1000, "p": "10.96.0.1", "q": "5",
            "5": "x", "true": "z"});
        assert_eq!(parse(text.as_bytes()).expect("yaml").value, want);
    }

    #[test]
    fn anchors_merges_and_duplicates_are_read() {
        let text = "base: &b {x: 1, y2: 2}\nuse:\n  <<: *b\n  x: 3\n  x: 4\nlist: [*b]\n---\nnot: read\n";
        let read = parse(text.as_bytes()).expect("yaml");
        assert_eq!(
            read.value,
            json!({"base": {"x": 1, "y2": 2}, "use": {"x": 4, "y2": 2}, "list": [{"x": 1, "y2": 2}]})
        );
        assert_eq!(read.duplicates, ["line 5: key \"x\" already set in map"]);
    }

    #[test]
    fn a_block_may_end_with_the_text() {
        let rows = [
            ("a: |\n  x", "x"),
            ("a: |\n  x\n", "x\n"),
            ("a: >-\n  x\n  y", "x y"),
            ("a: |+\n  x", "x"),
            ("a: |\n  x\n\n  y", "x\n\ny"),
            ("a: |\r\n  x\r\n  ü", "x\nü"),
            ("a: |\n  x\n ", "x\n"),
            ("a: |\n  x\n  ", "x\n"),
            ("a: |\n  x\n    ", "x\n  "),
            ("a: |\n  x\n    \n    ", "x\n  \n  "),
            ("a: |-\n  x\n    ", "x\n  "),
            ("a: |-\n  x\n ", "x"),
            ("a: |+\n  x\n ", "x\n"),
            ("a: |+\n  x\n\n ", "x\n\n"),
            ("a: >\n  x\n    ", "x\n  "),
            ("a: |\n  ", ""),
            ("a: |\n  x\n# more", "x\n"),
            ("a: x|", "x|"),
        ];
        for (text, want) in rows {
            assert_eq!(parse(text.as_bytes()).expect(text).value, json!({"a": want}), "{text:?}");
        }
    }

    #[test]
    fn faults_are_told_in_go_yamls_words() {
        let rows = [
            ("a: b\nmetadata:\n  name: y2\n bad\n", "yaml: line 3: did not find expected key"),
            ("a: b\nc:\n  d:\n  - e: f\n    g: h\n   i: j\n", "yaml: line 5: did not find expected key"),
            ("a: [1, 2\n", "yaml: line 1: did not find expected ',' or ']'"),
            (
                "? [a, {b: ~}]\n: c\n",
                "yaml: invalid map key: []interface {}{\"a\", map[interface {}]interface {}{\"b\":interface {}(nil)}}",
            ),
            ("a: !!binary x\n", "yaml: !!binary value contains invalid base64 data"),
            ("a: b: c\n", "yaml: mapping values are not allowed in this context"),
            ("a: *none\n", "yaml: unknown anchor 'none' referenced"),
        ];
        for (text, want) in rows {
            assert_eq!(parse(text.as_bytes()).expect_err(text), want);
        }
        assert!(parse("[".repeat(5000).as_bytes()).is_err());
        // What made the parser panic.
        for text in [
            "[!a, b]",
            "{\"a\":!!str,}",
            "[!<x>,]",
            "[!,]",
            "\"a\\",
            "a: [\"\\\\\\",
            "[!a\u{f8fd}\u{f8fe}\u{f8ff},]",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        for bytes in [&b"\xfe\xff\xff"[..], b"\xfe\xff\xd8\0", b"\xff\xfe\0", b"\xff", b"a: \xc3"] {
            let _ = parse(bytes);
        }
    }

    #[test]
    fn what_anchors_and_aliases_come_to_is_bounded() {
        let tree = (0..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
            let items = vec![format!("*a{i}"); 9].join(",");
            format!("{text}a{}: &a{} [{items}]\n", i + 1, i + 1)
        });
        let long = "x".repeat(64 << 10);
        let again = vec!["*a"; 1000].join(",");
        let texts = format!("a: &a {long}\nb: [{again}]\n");
        let keys = format!("a: &a {{? {long} : 1}}\nb: [{again}]\n");
        let nested = format!("{}{}{}", "&a [".repeat(100), vec!["1"; 20_000].join(","), "]".repeat(100));
        for bomb in [tree, texts, keys, nested] {
            let told = parse(bomb.as_bytes()).expect_err(&bomb[..20]);
            assert_eq!(told, "yaml: document contains excessive aliasing");
        }
        let few = format!("a: &a {long}\nb: &b [*a, *a, &c [*a]]\n");
        assert_eq!(parse(few.as_bytes()).expect("few").value["b"][2][0].as_str(), Some(long.as_str()));
    }

    #[test]
    fn commas_after_exclamation_marks_and_other_encodings_are_read() {
        assert_eq!(parse(b"a: b\\").expect("yaml").value, json!({"a": "b\\"}));
        let text = "a: well!, b!c,d\nb: [\"x!, y\", z!, 'p!q,r'] # no!, way\nc!,d: |\n  !e,\n";
        let want = json!({"a": "well!, b!c,d", "b": ["x!, y", "z!", "p!q,r"], "c!,d": "!e,\n"});
        assert_eq!(parse(text.as_bytes()).expect("yaml").value, want);
        for text in [&b"\xef\xbb\xbfa: b"[..], b"\xfe\xff\0a\0:\0 \0b", b"\xff\xfea\0:\0 \0b\0"] {
            assert_eq!(parse(text).expect("yaml").value, json!({"a": "b"}));
        }
    }
}
