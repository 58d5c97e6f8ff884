//! Differences of two objects as patches, as clients make them.

use crate::shape::Shape;
use serde_json::{Map, Value, json};

/// A JSON patch; one that tests makes sure of what was before and comes after it.
pub(super) fn json_patch(one: &Value, other: &Value, tests: bool) -> Value {
    let test = |value: &Value| tests.then(|| json!({"op": "test", "path": "", "value": value}));
    let mut operations: Vec<Value> = test(one).into_iter().collect();
    steps(one, other, "", &mut operations);
    operations.extend(test(other));
    Value::Array(operations)
}

fn steps(one: &Value, other: &Value, path: &str, out: &mut Vec<Value>) {
    let under = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().filter(|key| !other.contains_key(*key)) {
                out.push(json!({"op": "remove", "path": under(key)}));
            }
            for (key, value) in other {
                match one.get(key) {
                    Some(old) => steps(old, value, &under(key), out),
                    None => out.push(json!({"op": "add", "path": under(key), "value": value})),
                }
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for _ in other.len()..one.len() {
                out.push(json!({"op": "remove", "path": under("-1")}));
            }
            for (index, value) in other.iter().enumerate() {
                match one.get(index) {
                    Some(old) => steps(old, value, &under(&index.to_string()), out),
                    None => out.push(json!({"op": "add", "path": under("-"), "value": value})),
                }
            }
        }
        _ if one != other => out.push(json!({"op": "replace", "path": path, "value": other})),
        _ => {}
    }
}

/// A merge patch.
pub(super) fn merge_patch(one: &Value, other: &Value) -> Value {
    let (Value::Object(one), Value::Object(other)) = (one, other) else { return other.clone() };
    let mut patch = gone(one, other);
    for (key, value) in other {
        match one.get(key) {
            Some(old) if old == value => {}
            Some(old) if old.is_object() && value.is_object() => {
                patch.insert(key.clone(), merge_patch(old, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

fn gone(one: &Map<String, Value>, other: &Map<String, Value>) -> Map<String, Value> {
    let gone = one.keys().filter(|key| !other.contains_key(*key));
    gone.map(|key| (key.clone(), Value::Null)).collect()
}

/// A strategic merge patch, with the directives that kubectl uses.
pub(super) fn strategic(shape: &Shape, one: &Value, other: &Value) -> Value {
    let (Value::Object(one), Value::Object(other)) = (one, other) else { return other.clone() };
    let mut patch = gone(one, other);
    for (key, value) in other {
        let Some(old) = one.get(key) else {
            patch.insert(key.clone(), value.clone());
            continue;
        };
        if old == value {
            continue;
        }
        let field = shape.field(key);
        let has =
            |one: &str| field.is_some_and(|field| field.strategy.split(',').any(|strategy| strategy == one));
        let merge_key = field.map_or("", |field| field.merge_key.as_str());
        match (old, value) {
            (Value::Object(_), Value::Object(_)) if has("replace") => {
                patch.insert(key.clone(), value.clone());
            }
            (Value::Object(_), Value::Object(new)) => {
                let mut inner = strategic(shape.at(key), old, value);
                if has("retainKeys") {
                    inner["$retainKeys"] = new.keys().cloned().collect();
                }
                patch.insert(key.clone(), inner);
            }
            (Value::Array(old), Value::Array(new)) if has("merge") && merge_key.is_empty() => {
                values(key, old, new, &mut patch);
            }
            (Value::Array(old), Value::Array(new)) if has("merge") => {
                let item = if let Shape::List(_, item) = shape.at(key) { item } else { &Shape::Any };
                keyed((key, item, merge_key), old, new, &mut patch, has("retainKeys"));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

/// A list of plain values.
fn values(key: &str, old: &[Value], new: &[Value], patch: &mut Map<String, Value>) {
    let without = |list: &[Value], other: &[Value]| -> Value {
        list.iter().filter(|value| !other.contains(value)).cloned().collect()
    };
    patch.insert(format!("$deleteFromPrimitiveList/{key}"), without(old, new));
    patch.insert(format!("$setElementOrder/{key}"), new.into());
    patch.insert(key.to_owned(), without(new, old));
}

/// A list of objects with a key.
fn keyed(
    (name, shape, merge_key): (&str, &Shape, &str),
    old: &[Value],
    new: &[Value],
    patch: &mut Map<String, Value>,
    retains: bool,
) {
    let same =
        |list: &'_ [Value], item: &Value| list.iter().find(|one| one[merge_key] == item[merge_key]).cloned();
    let mut items: Vec<Value> = Vec::new();
    for item in old.iter().filter(|item| same(new, item).is_none()) {
        items.push(json!({"$patch": "delete", merge_key: item[merge_key]}));
    }
    for item in new {
        let former = same(old, item);
        let mut changed = former.as_ref().map_or_else(|| item.clone(), |old| strategic(shape, old, item));
        changed[merge_key] = item[merge_key].clone();
        // What is new has nothing to retain.
        if let Some(fields) = item.as_object().filter(|_| retains && former.is_some()) {
            changed["$retainKeys"] = fields.keys().cloned().collect();
        }
        items.push(changed);
    }
    let order = new.iter().map(|item| json!({merge_key: item[merge_key]}));
    patch.insert(format!("$setElementOrder/{name}"), order.collect());
    patch.insert(name.to_owned(), Value::Array(items));
}
