//! Objects as YAML in the words of go-yaml, as Kubernetes writes it: keys sorted, lists not indented, texts quoted only
//! where they would be read as something else, and long ones folded at blanks.

use coracle_api::decode;
use serde_json::{Map, Value};

/// Columns after which a text is folded at the next blank.
const WIDTH: usize = 80;

/// The document of an object.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, &mut out),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        other => scalar(other, 0, 0, &mut out),
    }
    out
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', depth));
}

fn mapping(map: &Map<String, Value>, depth: usize, out: &mut String) {
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_by(|(a, _), (b, _)| natural(a, b));
    for (at, (key, value)) in fields.into_iter().enumerate() {
        if at > 0 {
            indent(depth, out);
        }
        out.push_str(&text(key, None));
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                indent(depth + 2, out);
                mapping(map, depth + 2, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                indent(depth, out);
                sequence(items, depth, out);
            }
            value => {
                out.push(' ');
                let line = out.rsplit('\n').next().unwrap_or_default();
                let column = line.chars().count();
                scalar(value, depth + 2, column, out);
            }
        }
    }
}

fn sequence(items: &[Value], depth: usize, out: &mut String) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            indent(depth, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(map, depth + 2, out),
            Value::Array(items) if !items.is_empty() => sequence(items, depth + 2, out),
            item => scalar(item, depth + 2, depth + 2, out),
        }
    }
}

/// A value on the rest of its line; `depth` is where it goes on.
fn scalar(value: &Value, depth: usize, column: usize, out: &mut String) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(literal) if literal.contains('\n') && printable(literal) => block(literal, depth, out),
        Value::String(plain) => out.push_str(&text(plain, Some((depth, column)))),
        other => out.push_str(&other.to_string()),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

/// A text of several lines.
fn block(literal: &str, depth: usize, out: &mut String) {
    out.push('|');
    if literal.starts_with([' ', '\n']) {
        out.push('2');
    }
    let kept = literal.len() - literal.trim_end_matches('\n').len();
    out.push_str(match kept {
        0 => "-",
        1 if literal.len() > 1 => "",
        _ => "+",
    });
    out.push('\n');
    let body = literal.strip_suffix('\n').unwrap_or(literal);
    for line in body.split('\n') {
        if !line.is_empty() {
            indent(depth, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

fn printable(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control())
}

/// A text in its lightest form; `fold` tells where it goes on and in which column it begins, where it may be folded.
fn text(text: &str, fold: Option<(usize, usize)>) -> String {
    if !printable(text) || text.contains('\n') {
        return quoted(text);
    }
    // What is no text when it stands alone.
    let other = matches!(decode::any(text.as_bytes()), Ok(Value::Null | Value::Bool(_) | Value::Number(_)));
    let other = other && !text.starts_with('#');
    if text.is_empty() || other || is_time(text) || is_sexagesimal(text) {
        return quoted(text);
    }
    let blanks = text.starts_with(' ') || text.ends_with(' ');
    let alone = matches!(decode::any(format!("k: {text}").as_bytes()), Ok(read) if read["k"] == *text);
    if alone && may_be_plain(text) && !blanks {
        return folded(text, fold);
    }
    format!("'{}'", folded(&text.replace('\'', "''"), fold.map(|(depth, column)| (depth, column + 1))))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Dates are read as such.
fn is_time(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    digits == 4
        && text[4..].starts_with('-')
        && text.len() >= 8
        && text[5..].bytes().all(|b| !b.is_ascii_alphabetic() || matches!(b, b'T' | b't' | b'Z'))
}

/// Numbers of base 60, which old readers take for such: `1:30`.
fn is_sexagesimal(text: &str) -> bool {
    let mut parts = text.trim_start_matches(['+', '-']).split(':');
    let digits = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'_' | b'.'))
    };
    parts.next().is_some_and(digits)
        && text.contains(':')
        && parts.all(|part| part.len() <= 2 && digits(part))
}

/// As libyaml judges it for block context.
fn may_be_plain(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let second_is_blank = text.chars().nth(1).is_none_or(|c| c == ' ');
    let odd_start = "#,[]{}&*!|>'\"%@`".contains(first) || ("-?:".contains(first) && second_is_blank);
    !odd_start
        && !text.starts_with("---")
        && !text.starts_with("...")
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with(':')
}

/// Goes on in the next line at blanks beyond the width.
fn folded(text: &str, fold: Option<(usize, usize)>) -> String {
    let Some((depth, mut column)) = fold else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let mut after_blank = false;
    for (at, c) in chars.iter().enumerate() {
        let alone = chars.get(at + 1).is_some_and(|next| *next != ' ');
        if *c == ' ' && !after_blank && column > WIDTH && alone && at > 0 {
            out.push('\n');
            indent(depth, &mut out);
            column = depth;
        } else {
            out.push(*c);
            column += 1;
        }
        after_blank = *c == ' ';
    }
    out
}

/// Letters before digits, and numbers by their value.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut one, mut two) = (a.chars().peekable(), b.chars().peekable());
    while let (Some(x), Some(y)) = (one.peek().copied(), two.peek().copied()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
                let mut digits = String::new();
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                (
                    digits.trim_start_matches('0').len(),
                    digits.trim_start_matches('0').to_owned(),
                    digits.len(),
                )
            };
            let (x, y) = (number(&mut one), number(&mut two));
            if x != y {
                return x.cmp(&y);
            }
            continue;
        }
        if x != y {
            return match (x.is_alphabetic(), y.is_alphabetic()) {
                (true, false) => std::cmp::Ordering::Greater,
                (false, true) => std::cmp::Ordering::Less,
                _ => x.cmp(&y),
            };
        }
        one.next();
        two.next();
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_written_as_go_yaml_does() {
        let object = json!({"apiVersion": "v1", "data": {"a": "1", "b": "yes", "c": "", "d": "two\nlines\n", "e": "- x", "f": "a: b", "g": "it's", "h": "10Gi", "i": "~", "j": "1:30", "k": "x, y", "l": "#c"},
            "items": [], "list": [{"x": 1, "z": null}, "2024-01-01T00:00:00Z", true], "metadata": {}});
        let want = "apiVersion: v1\ndata:\n  a: \"1\"\n  b: \"yes\"\n  c: \"\"\n  d: |\n    two\n    lines\n  e: '- x'\n  f: 'a: b'\n  g: it's\n  h: 10Gi\n  i: \"~\"\n  j: \"1:30\"\n  k: x, y\n  l: '#c'\nitems: []\nlist:\n- x: 1\n  z: null\n- \"2024-01-01T00:00:00Z\"\n- true\nmetadata: {}\n";
        assert_eq!(document(&object), want);
    }

    #[test]
    fn long_texts_are_folded_at_blanks() {
        let text = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
        let want = "message: 'only the following media types are accepted: application/json;stream=watch,\n  application/vnd.kubernetes.protobuf;stream=watch'\n";
        assert_eq!(document(&json!({"message": text})), want);
    }
}
