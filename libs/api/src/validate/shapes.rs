//! Objects as Kubernetes has them inside: other names, another order, and every field shown, even an empty one.
//!
//! In: a part of a canonical object and the name of its shape in `data/internal-shapes.txt`. Out: lines of JSON text with
//! one space for each level, which `diff` compares.

use crate::status::go_quoted;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

static SHAPES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let lines = include_str!("../../data/internal-shapes.txt").lines().filter(|line| !line.starts_with('#'));
    let shape = |line: &'static str| {
        let (name, fields) = line.split_once(": ")?;
        Some((name, fields.split(' ').filter_map(Field::parse).collect()))
    };
    lines.filter_map(shape).collect()
});

struct Field {
    /// As shown.
    name: &'static str,
    /// As in the object.
    json: String,
    kind: Kind,
}

enum Kind {
    /// Shown as it is, or as this where absent.
    Plain(Value),
    /// Shown with the first letters of names made capitals.
    Capitalized,
    Shape(&'static str),
    Optional(&'static str),
    List(&'static str),
}

impl Field {
    fn parse(text: &'static str) -> Option<Self> {
        let (names, kind) = text.split_once(':')?;
        let (name, json) = match names.split_once('=') {
            Some((name, json)) => (name, json.to_owned()),
            None => (names, camel_case(names)),
        };
        let kind = match kind {
            "s" => Kind::Plain(Value::from("")),
            "b" => Kind::Plain(Value::from(false)),
            "i" => Kind::Plain(Value::from(0)),
            "n" => Kind::Plain(Value::Null),
            "?" => Kind::Capitalized,
            _ => match (kind.strip_prefix('*'), kind.strip_prefix("[]")) {
                (Some(shape), _) => Kind::Optional(shape),
                (None, Some(shape)) => Kind::List(shape),
                (None, None) => Kind::Shape(kind),
            },
        };
        Some(Self { name, json, kind })
    }
}

/// `DNSPolicy` → `dnsPolicy`: all leading capitals but the one that starts the next word.
fn camel_case(name: &str) -> String {
    let capitals = name.chars().take_while(char::is_ascii_uppercase).count();
    let lowered = if capitals > 1 && capitals < name.len() { capitals - 1 } else { capitals };
    name[..lowered].to_lowercase() + &name[lowered..]
}

/// `object` as text, seen as `shape`.
pub(super) fn lines(object: &Value, shape: &'static str) -> Vec<String> {
    let mut out = Vec::new();
    write_shape(object, shape, "", "", 0, &mut out);
    out
}

/// `object` as text on one line, seen as `shape`.
pub(super) fn compact(object: &Value, shape: &'static str) -> String {
    let lines = lines(object, shape);
    let line = |line: &String| line.trim_start().replacen("\": ", "\":", 1);
    lines.iter().map(line).collect()
}

fn comma(at: usize, len: usize) -> &'static str {
    if at + 1 < len { "," } else { "" }
}

fn write_shape(object: &Value, shape: &str, head: &str, tail: &str, depth: usize, out: &mut Vec<String>) {
    let pad = " ".repeat(depth);
    let Some(fields) = SHAPES.get(shape) else { return write_plain(object, head, tail, depth, out) };
    out.push(format!("{pad}{head}{{"));
    for (i, field) in fields.iter().enumerate() {
        let value = object.get(&field.json).unwrap_or(&Value::Null);
        let head = format!("{}: ", go_quoted(field.name));
        let tail = comma(i, fields.len());
        match &field.kind {
            Kind::Plain(zero) => {
                write_plain(if value.is_null() { zero } else { value }, &head, tail, depth + 1, out);
            }
            Kind::Capitalized => write_plain(&capitalized(value), &head, tail, depth + 1, out),
            Kind::Shape(shape) => write_shape(value, shape, &head, tail, depth + 1, out),
            Kind::Optional(_) if value.is_null() => write_plain(value, &head, tail, depth + 1, out),
            Kind::Optional(shape) => write_shape(value, shape, &head, tail, depth + 1, out),
            Kind::List(shape) => write_list(value, shape, &head, tail, depth + 1, out),
        }
    }
    out.push(format!("{pad}}}{tail}"));
}

fn write_list(list: &Value, shape: &str, head: &str, tail: &str, depth: usize, out: &mut Vec<String>) {
    let Some(items) = list.as_array().filter(|items| !items.is_empty()) else {
        return write_plain(&Value::Null, head, tail, depth, out);
    };
    let pad = " ".repeat(depth);
    out.push(format!("{pad}{head}["));
    for (i, item) in items.iter().enumerate() {
        write_shape(item, shape, "", comma(i, items.len()), depth + 1, out);
    }
    out.push(format!("{pad}]{tail}"));
}

fn write_plain(value: &Value, head: &str, tail: &str, depth: usize, out: &mut Vec<String>) {
    let pad = " ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push(format!("{pad}{head}{{"));
            for (i, (key, value)) in map.iter().enumerate() {
                let head = format!("{}: ", go_quoted(key));
                write_plain(value, &head, comma(i, map.len()), depth + 1, out);
            }
            out.push(format!("{pad}}}{tail}"));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push(format!("{pad}{head}["));
            for (i, item) in items.iter().enumerate() {
                write_plain(item, "", comma(i, items.len()), depth + 1, out);
            }
            out.push(format!("{pad}]{tail}"));
        }
        other => out.push(format!("{pad}{head}{other}{tail}")),
    }
}

fn capitalized(value: &Value) -> Value {
    let capital = |key: &String| {
        let mut chars = key.chars();
        chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    };
    match value {
        Value::Object(map) => Value::Object(
            map.iter().map(|(key, value)| (capital(key), capitalized(value))).collect::<Map<_, _>>(),
        ),
        Value::Array(items) => items.iter().map(capitalized).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_that_a_field_names_is_there() {
        for (shape, fields) in SHAPES.iter() {
            for field in fields {
                if let Kind::Shape(name) | Kind::Optional(name) | Kind::List(name) = field.kind {
                    assert!(SHAPES.contains_key(name), "{shape}.{}: {name}", field.name);
                }
            }
        }
    }

    #[test]
    fn a_line_holds_the_whole_object() {
        let profile = serde_json::json!({"type": "a: \": b"});
        assert_eq!(compact(&profile, "Profile"), r#"{"Type":"a: \": b","LocalhostProfile":null}"#);
    }

    #[test]
    fn names_become_camel_case_as_in_the_api() {
        for (name, json) in [
            ("DNSPolicy", "dnsPolicy"),
            ("TTY", "tty"),
            ("HostPID", "hostPID"),
            ("SELinuxOptions", "seLinuxOptions"),
        ] {
            assert_eq!(camel_case(name), json);
        }
    }
}
