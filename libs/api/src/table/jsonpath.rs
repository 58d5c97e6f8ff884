//! The small JSONPath of CustomResourceDefinitions' printer columns: `.a.b`, `.list[0]`, `.list[*].x`,
//! `.annotations.a\.b`, `['key']` and `[?(@.type=="Ready")]`.

use super::rules::plain;
use super::since;
use jiff::Timestamp;
use serde_json::Value;

#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Index(i64),
    All,
    /// Items whose value at a path is this text.
    Where(Vec<Step>, String),
}

/// The cell of one `additionalPrinterColumns` entry.
pub(super) fn cell(column: &Value, object: &Value, now: Timestamp) -> Value {
    let found =
        column["jsonPath"].as_str().and_then(steps).map(|steps| find(object, &steps)).unwrap_or_default();
    let Some(first) = found.first().filter(|value| !value.is_null()) else { return Value::Null };
    match column["type"].as_str().unwrap_or_default() {
        "string" => plain(first).into(),
        "date" => match first.as_str().map(|time| since(time, now)) {
            Some(age) if age != "<unknown>" => age.into(),
            _ => "<invalid>".into(),
        },
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" => {
            if first.is_number() {
                (*first).clone()
            } else {
                Value::Null
            }
        }
        "boolean" => {
            if first.is_boolean() {
                (*first).clone()
            } else {
                Value::Null
            }
        }
        _ => Value::Null,
    }
}

fn find<'a>(object: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    steps
        .iter()
        .fold(vec![object], |found, step| found.into_iter().flat_map(|value| follow(value, step)).collect())
}

fn follow<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    let items = || -> Vec<&'a Value> {
        match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        }
    };
    match step {
        Step::Key(key) => value.get(key).into_iter().collect(),
        Step::Index(index) => {
            let length = value.as_array().map_or(0, Vec::len);
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            let index = usize::try_from(if *index < 0 { length + index } else { *index });
            index.ok().and_then(|index| value.get(index)).into_iter().collect()
        }
        Step::All => items(),
        Step::Where(path, wanted) => {
            let fits = |item: &&Value| find(item, path).first().is_some_and(|found| plain(found) == *wanted);
            items().into_iter().filter(fits).collect()
        }
    }
}

fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']')?;
            steps.push(bracket(&after[..end])?);
            rest = &after[end + 1..];
        } else {
            let (key, after) = key(rest.strip_prefix('.')?);
            match key.as_str() {
                "" => {}
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Key(key)),
            }
            rest = after;
        }
    }
    Some(steps)
}

/// A key up to the next `.` or `[` that no backslash escapes.
fn key(text: &str) -> (String, &str) {
    let (mut key, mut escaped) = (String::new(), false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => {
                key.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' => return (key, &text[index..]),
            _ => key.push(c),
        }
    }
    (key, "")
}

fn bracket(text: &str) -> Option<Step> {
    let unquoted = |text: &str| text.trim().trim_matches(['\'', '"']).to_owned();
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (path, wanted) = filter.split_once("==")?;
        return Some(Step::Where(steps(path.trim().strip_prefix('@')?)?, unquoted(wanted)));
    }
    match text {
        "*" => Some(Step::All),
        _ if text.starts_with(['\'', '"']) => Some(Step::Key(unquoted(text))),
        _ => text.parse().ok().map(Step::Index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells() {
        let object = json!({"metadata": {"annotations": {"a.b": "x"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"list": [{"n": 1}, {"n": 2}], "size": 3, "on": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        let rows = [
            (".spec.size", "integer", json!(3)),
            (".spec.size", "string", json!("3")),
            (".spec.on", "boolean", json!(true)),
            (".spec.list[1].n", "integer", json!(2)),
            (".spec.list[-1].n", "integer", json!(2)),
            (".spec.list[*].n", "string", json!("1")),
            (".spec.list", "string", json!("[{\"n\":1},{\"n\":2}]")),
            (".metadata.annotations.a\\.b", "string", json!("x")),
            (".metadata.annotations['a.b']", "string", json!("x")),
            (".status.conditions[?(@.type==\"Ready\")].status", "string", json!("True")),
            (".no.such", "string", Value::Null),
            (".metadata.creationTimestamp", "date", json!("60s")),
            (".spec.size", "boolean", Value::Null),
            (".spec.on", "date", json!("<invalid>")),
        ];
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        for (path, kind, want) in rows {
            assert_eq!(cell(&json!({"jsonPath": path, "type": kind}), &object, now), want, "{path}");
        }
    }
}
