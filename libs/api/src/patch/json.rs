//! JSON patch: a list of operations, all of which apply or none.
//!
//! As in Kubernetes, a negative index counts from the end, and what does not apply is told without detail.

use super::{PatchError, Patched, undecodable};
use crate::decode;
use serde_json::Value;

const OPERATIONS_MAX: usize = 10_000;
/// What operations may place in all, in bytes: copies of copies would otherwise grow without bound.
const PLACED_BYTES_MAX: usize = 6 * 1024 * 1024;
/// How deep an object may become: whatever walks it afterwards does so by recursion.
const DEPTH_MAX: usize = 500;

/// How many items of lists may move to other places: inserting at the front of a long list moves them all.
const SHIFTED_MAX: usize = 50_000_000;

/// What the operations so far have cost.
#[derive(Default)]
struct Spent {
    placed: usize,
    shifted: usize,
}

impl Spent {
    /// Items of a list move to other places.
    fn shift(&mut self, items: usize) -> Result<(), Misfit> {
        self.shifted += items;
        if self.shifted <= SHIFTED_MAX { Ok(()) } else { Err(Misfit) }
    }
}

/// An operation that does not apply to the object at hand.
struct Misfit;

pub(super) fn apply(object: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    let mut duplicates = Vec::new();
    let operations = match decode::json_with_findings(patch, &mut duplicates).map_err(undecodable)? {
        Value::Array(operations) => operations,
        Value::Null => Vec::new(),
        other => return Err(not_go(&other, "[]handlers.jsonPatchOp")),
    };
    if operations.len() > OPERATIONS_MAX {
        let count = operations.len();
        let text = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(PatchError::TooLarge(text));
    }
    let mut findings: Vec<String> = duplicates.iter().map(|text| format!("json patch {text}")).collect();
    for (index, operation) in operations.iter().enumerate() {
        of_go(index, operation, &mut findings)?;
    }
    let mut patched = object.clone();
    let mut spent = Spent::default();
    for operation in &operations {
        step(&mut patched, operation, &mut spent).map_err(|Misfit| {
            let text = "the server rejected our request due to an error in our request";
            PatchError::Unprocessable(text.to_owned())
        })?;
    }
    Ok(Patched { object: patched, findings })
}

pub(super) fn operations(patch: &[u8]) -> Result<Vec<Value>, String> {
    match decode::document_of_json(patch)? {
        Value::Array(operations) if operations.len() > OPERATIONS_MAX => {
            Err(format!("more than {OPERATIONS_MAX} operations"))
        }
        Value::Array(operations) => Ok(operations),
        Value::Null => Ok(Vec::new()),
        other => {
            let found = decode::found(&other);
            Err(format!("json: cannot unmarshal {found} into Go value of type jsonpatch.Patch"))
        }
    }
}

pub(super) fn operated(object: &Value, operations: &[Value]) -> Result<Value, String> {
    let (mut patched, mut spent) = (object.clone(), Spent::default());
    for operation in operations {
        step(&mut patched, operation, &mut spent).map_err(|Misfit| misfit(&mut patched, operation))?;
    }
    Ok(patched)
}

/// Why an operation does not apply.
fn misfit(object: &mut Value, operation: &Value) -> String {
    let op = operation["op"].as_str().unwrap_or("unknown");
    let text = |key: &str| operation[key].as_str().unwrap_or_default();
    let (path, from) = (text("path"), text("from"));
    let mut held = |path: &str| {
        let keys = pointer(&Value::from(path)).unwrap_or_default();
        let parent = keys.split_last().map(|(_, parent)| parent.to_vec());
        parent.is_some_and(|parent| {
            find(object, &parent).is_some_and(|value| value.is_object() || value.is_array())
        })
    };
    let key = path.rsplit('/').next().unwrap_or_default();
    match op {
        "test" => format!("testing value {path} failed: test failed"),
        "remove" if held(path) => format!(
            "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
        ),
        "replace" if held(path) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        "replace" => format!("replace operation does not apply: doc is missing path: {path}: missing value"),
        "add" | "remove" => {
            format!("{op} operation does not apply: doc is missing path: {path:?}: missing value")
        }
        "move" | "copy" => {
            format!("{op} operation does not apply: doc is missing from path: {from}: missing value")
        }
        _ => format!("Unexpected kind: {op}"),
    }
}

fn not_go(value: &Value, of: &str) -> PatchError {
    let found = decode::found(value);
    undecodable(format!("json: cannot unmarshal {found} into Go value of type {of}"))
}

/// Checks the types of an operation's own fields, and tells of those that there are not.
fn of_go(index: usize, operation: &Value, findings: &mut Vec<String>) -> Result<(), PatchError> {
    let fields = match operation {
        Value::Object(fields) => fields,
        Value::Null => return Ok(()),
        other => return Err(not_go(other, "handlers.jsonPatchOp")),
    };
    for (key, value) in fields {
        match key.as_str() {
            "op" | "from" | "path" if !value.is_string() && !value.is_null() => {
                let found = decode::found(value);
                return Err(undecodable(format!(
                    "json: cannot unmarshal {found} into Go struct field jsonPatchOp.{key} of type string"
                )));
            }
            "op" | "from" | "path" | "value" => {}
            _ => decode::tell(findings, || format!("json patch unknown field \"[{index}].{key}\"")),
        }
    }
    Ok(())
}

fn step(object: &mut Value, operation: &Value, spent: &mut Spent) -> Result<(), Misfit> {
    let path = pointer(&operation["path"])?;
    // A missing value is null.
    let given = || operation.get("value").cloned().unwrap_or_default();
    let from = || pointer(&operation["from"]);
    let place = |value: Value, spent: &mut Spent| {
        let (bytes, depth) = measure(&value);
        spent.placed += bytes;
        let fits = spent.placed <= PLACED_BYTES_MAX && depth + path.len() <= DEPTH_MAX;
        if fits { Ok(value) } else { Err(Misfit) }
    };
    match operation["op"].as_str().ok_or(Misfit)? {
        "add" => {
            let value = place(given(), spent)?;
            add(object, &path, value, spent)
        }
        "remove" => remove(object, &path, spent).map(drop),
        // The whole is replaced by what holds something; anything else is passed over, as Kubernetes does.
        "replace" if path.is_empty() => match operation.get("value").ok_or(Misfit)? {
            whole @ (Value::Object(_) | Value::Array(_)) => {
                *object = place(whole.clone(), spent)?;
                Ok(())
            }
            _ => Ok(()),
        },
        "replace" => {
            let value = place(given(), spent)?;
            put(object, &path, value)
        }
        "move" => {
            let value = remove(object, &from()?, spent)?;
            let value = place(value, spent)?;
            add(object, &path, value, spent)
        }
        "copy" => {
            let value = place(copied(object, &from()?)?, spent)?;
            add(object, &path, value, spent)
        }
        // A missing field equals a null, and a missing `value` is one. Numbers are as they are written.
        "test" => {
            let wanted = &operation["value"];
            match find(object, &path) {
                Some(found) if found == wanted => Ok(()),
                None if wanted.is_null() => Ok(()),
                _ => Err(Misfit),
            }
        }
        _ => Err(Misfit),
    }
}

/// About how many bytes a value takes as text, and how deep it is.
fn measure(value: &Value) -> (usize, usize) {
    let sum =
        |(bytes, depth): (usize, usize), (more, deep): (usize, usize)| (bytes + more, depth.max(deep + 1));
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key, measure(value)))
            .fold((2, 1), |all, (key, one)| sum(all, (one.0 + key.len() + 4, one.1))),
        Value::Array(items) => items.iter().map(measure).fold((2, 1), sum),
        Value::String(text) => (text.len() + 3, 1),
        _ => (5, 1),
    }
}

/// `/a/b~1c` as its keys; the empty pointer is the whole object.
fn pointer(path: &Value) -> Result<Vec<String>, Misfit> {
    let path = path.as_str().ok_or(Misfit)?;
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let keys = path.strip_prefix('/').ok_or(Misfit)?;
    Ok(keys.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'a>(object: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, key| match value {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => {
            let index = index(key, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    })
}

/// An index below `len`, or at it; negative ones count from the end.
fn index(key: &str, len: usize) -> Option<usize> {
    let number: isize = key.parse().ok()?;
    if number >= 0 {
        return usize::try_from(number).ok().filter(|index| *index <= len);
    }
    len.checked_sub(number.unsigned_abs())
}

fn add(object: &mut Value, path: &[String], value: Value, spent: &mut Spent) -> Result<(), Misfit> {
    // Nothing holds the whole.
    let (key, parent) = path.split_last().ok_or(Misfit)?;
    match find(object, parent).ok_or(Misfit)? {
        Value::Object(map) => {
            map.insert(key.clone(), value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            // Inserting at -1 means behind the last item: the list is already one longer in this count.
            let len = items.len() + usize::from(key.starts_with('-'));
            let index = index(key, len).filter(|index| *index <= items.len()).ok_or(Misfit)?;
            spent.shift(items.len() - index)?;
            items.insert(index, value);
        }
        _ => return Err(Misfit),
    }
    Ok(())
}

/// Replaces what is there. As in Kubernetes, a field need not be there to be replaced, an item must.
fn put(object: &mut Value, path: &[String], value: Value) -> Result<(), Misfit> {
    if let Some((key, parent)) = path.split_last()
        && let Some(Value::Object(map)) = find(object, parent)
    {
        map.insert(key.clone(), value);
        return Ok(());
    }
    *find(object, path).ok_or(Misfit)? = value;
    Ok(())
}

fn remove(object: &mut Value, path: &[String], spent: &mut Spent) -> Result<Value, Misfit> {
    let (key, parent) = path.split_last().ok_or(Misfit)?;
    match find(object, parent).ok_or(Misfit)? {
        Value::Object(map) => map.remove(key).ok_or(Misfit),
        Value::Array(items) => {
            let index = index(key, items.len()).filter(|index| *index < items.len()).ok_or(Misfit)?;
            spent.shift(items.len() - index)?;
            Ok(items.remove(index))
        }
        _ => Err(Misfit),
    }
}

/// What is copied: a field that is not there is null, an item must be there.
fn copied(object: &mut Value, from: &[String]) -> Result<Value, Misfit> {
    if let Some(found) = find(object, from) {
        return Ok(found.clone());
    }
    let (_, parent) = from.split_last().ok_or(Misfit)?;
    find(object, parent).filter(|parent| parent.is_object()).map(|_| Value::Null).ok_or(Misfit)
}

#[cfg(test)]
mod tests {
    use super::super::{PatchError, json_patch};
    use super::DEPTH_MAX;
    use serde_json::{Value, json};

    fn patched(patch: &Value) -> Result<Value, PatchError> {
        let patched =
            json_patch(&json!({"a": {"b": 1}, "l": [1, 2], "x/y": "s"}), patch.to_string().as_bytes());
        patched.map(|patched| patched.object)
    }

    #[test]
    fn what_an_operation_says_in_vain_or_twice_is_told() {
        let text = r#"[{"op":"test","path":"/a/b","path":"/a/b","value":1,"x":2}]"#;
        let patched = json_patch(&json!({"a": {"b": 1}}), text.as_bytes()).expect("it applies");
        assert_eq!(
            patched.findings,
            [r#"json patch duplicate field "[0].path""#, r#"json patch unknown field "[0].x""#]
        );
    }

    #[test]
    fn what_is_no_patch_is_told_in_gos_words() {
        let rows = [
            ("{", "error decoding patch: unexpected end of JSON input"),
            (
                "{}",
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (
                "[1]",
                "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
            ),
            (
                r#"[{"op":1}]"#,
                "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
            (
                r#"[{"op":"test",}]"#,
                "error decoding patch: invalid character '}' looking for beginning of object key string",
            ),
        ];
        for (patch, want) in rows {
            let fault = json_patch(&json!({}), patch.as_bytes()).expect_err(patch);
            assert_eq!(fault, PatchError::Malformed(want.to_owned()));
        }
    }

    #[test]
    fn operations() {
        let rows = [
            (json!([{"op": "add", "path": "/a/c", "value": 2}]), "/a", json!({"b": 1, "c": 2})),
            (json!([{"op": "add", "path": "/l/-", "value": 3}]), "/l", json!([1, 2, 3])),
            (json!([{"op": "add", "path": "/l/0", "value": 3}]), "/l", json!([3, 1, 2])),
            (json!([{"op": "add", "path": "/l/-1", "value": 3}]), "/l", json!([1, 2, 3])),
            (json!([{"op": "remove", "path": "/l/-1"}]), "/l", json!([1])),
            (json!([{"op": "replace", "path": "/x~1y", "value": null}]), "/x~1y", Value::Null),
            (json!([{"op": "move", "from": "/a/b", "path": "/l/1"}]), "/l", json!([1, 1, 2])),
            (json!([{"op": "copy", "from": "/l", "path": "/a/b"}]), "/a/b", json!([1, 2])),
            (
                json!([{"op": "test", "path": "/a/b", "value": 1}, {"op": "test", "path": "/no"}]),
                "/a/b",
                json!(1),
            ),
            (json!([{"op": "copy", "from": "/a/no", "path": "/a/c"}]), "/a/c", Value::Null),
            (
                json!([{"op": "add", "path": "/a/c"}, {"op": "replace", "path": "/a/b"}, {"op": "replace", "path": "/a/d", "value": 1}]),
                "/a",
                json!({"b": null, "c": null, "d": 1}),
            ),
            (json!([{"op": "replace", "path": "", "value": {"c": 1}}]), "", json!({"c": 1})),
            (json!([{"op": "replace", "path": "", "value": [1]}]), "", json!([1])),
            (
                json!([{"op": "replace", "path": "", "value": "x"}, {"op": "replace", "path": "", "value": null}]),
                "/a/b",
                json!(1),
            ),
        ];
        for (patch, place, want) in rows {
            assert_eq!(patched(&patch).unwrap().pointer(place), Some(&want), "{patch}");
        }
    }

    #[test]
    fn webhooks_are_told_what_does_not_apply() {
        let rows = [
            ("text", "invalid character 'e' in literal true (expecting 'r')"),
            ("{}", "json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
            (r#"[{"op":"odd","path":"/a"}]"#, "Unexpected kind: odd"),
            (
                r#"[{"op":"remove","path":"/no"}]"#,
                "error in remove for path: '/no': Unable to remove nonexistent key: no: missing value",
            ),
            (r#"[{"op":"test","path":"/a/b","value":2}]"#, "testing value /a/b failed: test failed"),
            (
                r#"[{"op":"add","path":"","value":2}]"#,
                "add operation does not apply: doc is missing path: \"\": missing value",
            ),
            (
                r#"[{"op":"add","path":"/no/deep","value":2}]"#,
                "add operation does not apply: doc is missing path: \"/no/deep\": missing value",
            ),
        ];
        for (patch, want) in rows {
            let done = super::operations(patch.as_bytes())
                .and_then(|operations| super::operated(&json!({"a": {"b": 1}}), &operations));
            assert_eq!(done.expect_err(patch), want);
        }
        assert_eq!(super::operations(b"[]"), Ok(Vec::new()));
    }

    #[test]
    fn misfits() {
        let operations = [
            json!({"op": "remove", "path": "/no"}),
            json!({"op": "replace", "path": "/no/deep", "value": 1}),
            json!({"op": "replace", "path": "/l/9", "value": 1}),
            json!({"op": "add", "path": "/no/deep", "value": 1}),
            json!({"op": "add", "path": "/l/9", "value": 1}),
            json!({"op": "test", "path": "/a/b", "value": 2}),
            json!({"op": "test", "path": "/a/b", "value": 1.0}),
            json!({"op": "copy", "from": "/l/9", "path": "/a/b"}),
            json!({"op": "copy", "from": "/no/deep", "path": "/a/b"}),
            json!({"op": "what", "path": "/a"}),
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "replace", "path": ""}),
            json!({"op": "remove", "path": "no"}),
            json!({"path": "/a"}),
            Value::Null,
        ];
        for operation in operations {
            assert!(matches!(patched(&json!([operation])), Err(PatchError::Unprocessable(_))), "{operation}");
        }
        assert!(matches!(patched(&json!({})), Err(PatchError::Malformed(_))));
        let doubling: Vec<Value> =
            (0..40).map(|n| json!({"op": "copy", "from": "", "path": format!("/a/{n}")})).collect();
        assert!(matches!(patched(&json!(doubling)), Err(PatchError::Unprocessable(_))));
        // Each operation moves all of a long list.
        let long = json!([{"op": "add", "path": "/l", "value": vec![0; 100_000]}]);
        let front = (0..9_000).map(|_| json!({"op": "add", "path": "/l/0", "value": 0}));
        let shifting: Vec<Value> = long.as_array().into_iter().flatten().cloned().chain(front).collect();
        assert!(matches!(patched(&json!(shifting)), Err(PatchError::Unprocessable(_))));
        let nesting = vec![json!({"op": "copy", "from": "/a", "path": "/a/b"}); DEPTH_MAX];
        assert!(matches!(patched(&json!(nesting)), Err(PatchError::Unprocessable(_))));
    }
}
