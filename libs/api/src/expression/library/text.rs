//! The strings extension. Places count characters, not bytes.

use super::super::value::{Fault, Value, told};
use super::{Cost, Written};

/// The longest text that is made, in bytes.
const LENGTH_MAX: usize = 16 << 20;

pub const TABLE: &[Written] = &[
    ("charAt", &["string.(int) string"], Cost::One, |args| match args {
        [Value::Text(text), Value::Int(at)] => {
            let length = text.chars().count();
            match usize::try_from(*at) {
                Ok(at) if at < length => {
                    Ok(Value::text(text.chars().nth(at).map(String::from).unwrap_or_default()))
                }
                Ok(at) if at == length => Ok(Value::text("")),
                _ => told(format!("index out of range: {at}")),
            }
        }
        _ => Err(Fault::NoOverload),
    }),
    ("indexOf", &["string.(string) int", "string.(string, int) int"], Cost::Walk, index_of),
    ("lastIndexOf", &["string.(string) int", "string.(string, int) int"], Cost::Walk, last_index_of),
    ("join", &["list(string).() string", "list(string).(string) string"], Cost::Join, join),
    ("lowerAscii", &["string.() string"], Cost::ScanSame, |args| mapped(args, str::to_ascii_lowercase)),
    ("upperAscii", &["string.() string"], Cost::ScanSame, |args| mapped(args, str::to_ascii_uppercase)),
    ("trim", &["string.() string"], Cost::ScanSame, |args| mapped(args, |text| text.trim().to_owned())),
    (
        "replace",
        &["string.(string, string) string", "string.(string, string, int) string"],
        Cost::Replace,
        replace,
    ),
    ("split", &["string.(string) list(string)", "string.(string, int) list(string)"], Cost::Split, split),
    ("substring", &["string.(int) string", "string.(int, int) string"], Cost::ScanSame, substring),
    ("strings.quote", &["(string) string"], Cost::Quote, |args| mapped(args, quote)),
];

fn mapped<'a>(args: &[Value<'a>], change: fn(&str) -> String) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Text(text)] => Ok(Value::text(change(text))),
        _ => Err(Fault::NoOverload),
    }
}

fn whole(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// The start in bytes of the character at `at`; the end where it is one past the last.
fn byte(text: &str, at: usize) -> Option<usize> {
    text.char_indices().map(|(start, _)| start).chain([text.len()]).nth(at)
}

fn index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, part, from) = match args {
        [Value::Text(text), Value::Text(part)] => (text, part, 0),
        [Value::Text(text), Value::Text(part), Value::Int(from)] => (text, part, *from),
        _ => return Err(Fault::NoOverload),
    };
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let Ok(start) = usize::try_from(from) else {
        return told(format!("index out of range: {from}"));
    };
    // Nothing is found behind the end.
    let Some(start) = byte(text, start) else { return Ok(Value::Int(-1)) };
    let found = text[start..].find(&**part);
    Ok(Value::Int(found.map_or(-1, |at| whole(text[..start + at].chars().count()))))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, part, from) = match args {
        [Value::Text(text), Value::Text(part)] => (text, part, None),
        [Value::Text(text), Value::Text(part), Value::Int(from)] => (text, part, Some(*from)),
        _ => return Err(Fault::NoOverload),
    };
    let length = text.chars().count();
    if part.is_empty() {
        return Ok(Value::Int(from.unwrap_or_else(|| whole(length))));
    }
    let last = match from {
        None => length,
        Some(from) => match usize::try_from(from) {
            Ok(from) if from < length => from,
            Ok(_) => return Ok(Value::Int(-1)),
            Err(_) => return told(format!("index out of range: {from}")),
        },
    };
    // A match may begin at `last`, and end after it.
    let end = byte(text, last).unwrap_or(text.len()).saturating_add(part.len());
    let found = text[..text.floor_char_boundary(end)].rfind(&**part);
    Ok(Value::Int(found.map_or(-1, |at| whole(text[..at].chars().count()))))
}

/// Adds to a text; it is not made longer than a walk over it may cost.
pub fn push(out: &mut String, more: &str) -> Result<(), Fault> {
    if out.len() + more.len() > LENGTH_MAX {
        return Err(Fault::Limit);
    }
    out.push_str(more);
    Ok(())
}

fn replace<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, old, new, limit) = match args {
        [Value::Text(text), Value::Text(old), Value::Text(new)] => (text, old, new, -1),
        [Value::Text(text), Value::Text(old), Value::Text(new), Value::Int(limit)] => {
            (text, old, new, *limit)
        }
        _ => return Err(Fault::NoOverload),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut out, mut done) = (String::new(), 0);
    for (at, found) in text.match_indices(&**old).take(limit) {
        push(&mut out, &text[done..at])?;
        push(&mut out, new)?;
        done = at + found.len();
    }
    push(&mut out, &text[done..])?;
    Ok(Value::text(out))
}

fn join<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::Text(separator)] => (list, &**separator),
        _ => return Err(Fault::NoOverload),
    };
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            push(&mut out, separator)?;
        }
        push(&mut out, item.as_text()?)?;
    }
    Ok(Value::text(out))
}

fn split<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, by, limit) = match args {
        [Value::Text(text), Value::Text(by)] => (text, by, -1),
        [Value::Text(text), Value::Text(by), Value::Int(limit)] => (text, by, *limit),
        _ => return Err(Fault::NoOverload),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let parts: Vec<String> = if by.is_empty() {
        let mut parts: Vec<String> = text.chars().take(limit.saturating_sub(1)).map(String::from).collect();
        let rest: String = text.chars().skip(parts.len()).collect();
        if !rest.is_empty() {
            parts.push(rest);
        }
        parts
    } else {
        text.splitn(limit, &**by).map(str::to_owned).collect()
    };
    Ok(Value::list(parts.into_iter().map(Value::text).collect()))
}

fn substring<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, start, end) = match args {
        [Value::Text(text), Value::Int(start)] => (text, *start, None),
        [Value::Text(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return Err(Fault::NoOverload),
    };
    let length = whole(text.chars().count());
    let last = end.unwrap_or(length);
    if start > last {
        return told(match end {
            Some(end) => format!("invalid substring range. start: {start}, end: {end}"),
            None => format!("index out of range: {start}"),
        });
    }
    if start < 0 || start > length {
        return told(format!("index out of range: {start}"));
    }
    if last > length {
        return told(format!("index out of range: {last}"));
    }
    let at =
        |place: i64| usize::try_from(place).ok().and_then(|place| byte(text, place)).unwrap_or(text.len());
    Ok(Value::text(&text[at(start)..at(last)]))
}

/// A text in quotes, with what is special escaped.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
