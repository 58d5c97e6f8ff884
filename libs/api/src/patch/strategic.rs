//! Strategic merge patch: a merge patch that knows lists by their merge keys, and a few directives.
//!
//! Source: apimachinery `util/strategicpatch`. Directives: `$patch` (merge, replace, delete), `$retainKeys`,
//! `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`. None of them survives into the result.

use super::PatchError;
use crate::shape::{Field, Shape};
use serde_json::{Map, Value};
use std::collections::HashMap;

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

pub(super) fn apply(shape: &Shape, object: &Value, patch: Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else { return Ok(object.clone()) };
    merge_maps(shape, object.clone(), patch, false).map(Value::Object)
}

fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Malformed(text.into())
}

/// `retain` says that the field's strategy is `retainKeys`, without which the directive is not known.
fn merge_maps(
    shape: &Shape,
    mut target: Object,
    mut patch: Object,
    retain: bool,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        match directive.as_str() {
            Some("replace") => return Ok(without_directives(patch)),
            Some("delete") => return Ok(Object::new()),
            Some("merge") => {}
            _ => {
                return Err(malformed(format!(
                    "unknown patch type found: {}",
                    crate::status::shown(&directive)
                )));
            }
        }
    }
    if let Some(keys) = patch.remove(RETAIN) {
        let Some(keys) = keys.as_array().filter(|_| retain) else {
            return Err(malformed(format!("{RETAIN} directive is invalid here")));
        };
        if let Some(odd) =
            patch.keys().find(|key| !key.starts_with('$') && !keys.iter().any(|kept| kept == *key))
        {
            return Err(malformed(format!("key {odd:?} of the patch is missing in the {RETAIN} list")));
        }
        target.retain(|key, _| keys.iter().any(|kept| kept == key));
    }
    let mut orders = HashMap::new();
    for (key, value) in std::mem::take(&mut patch) {
        if let Some(list) = key.strip_prefix(ORDER) {
            let original = target.get(list).cloned().unwrap_or_default();
            orders.insert(list.to_owned(), (original, value));
        } else if let Some(list) = key.strip_prefix(DELETE) {
            if let (Some(Value::Array(items)), Some(gone)) = (target.get_mut(list), value.as_array()) {
                items.retain(|item| !gone.contains(item));
            }
        } else {
            patch.insert(key, value);
        }
    }
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
            continue;
        }
        let merged = match target.remove(&key) {
            Some(current) => merge_field(shape, &key, current, value)?,
            None => fresh(shape, &key, value)?,
        };
        target.insert(key, merged);
    }
    for (key, (original, order)) in orders {
        if let (Some(Value::Array(items)), Value::Array(order)) = (target.get_mut(&key), order) {
            let merge_key = shape.field(&key).map_or("", |field| field.merge_key.as_str());
            arrange(items, &order, original.as_array().map_or(&[], Vec::as_slice), merge_key);
        }
    }
    Ok(target)
}

fn has(field: Option<&Field>, strategy: &str) -> bool {
    field.is_some_and(|field| field.strategy.split(',').any(|one| one == strategy))
}

fn merge_field(shape: &Shape, key: &str, current: Value, value: Value) -> Result<Value, PatchError> {
    let field = shape.field(key);
    match (current, value) {
        (Value::Object(_), Value::Object(patch)) if has(field, "replace") => {
            Ok(Value::Object(without_directives(patch)))
        }
        (Value::Object(current), Value::Object(patch)) => {
            merge_maps(shape.at(key), current, patch, has(field, "retainKeys")).map(Value::Object)
        }
        (Value::Array(current), Value::Array(patch)) if has(field, "merge") => {
            merge_lists(shape, key, current, patch)
        }
        (_, value) => fresh(shape, key, value),
    }
}

/// A value where there was none: directives still hold, deletions find nothing.
fn fresh(shape: &Shape, key: &str, value: Value) -> Result<Value, PatchError> {
    match value {
        Value::Object(patch) => merge_field(shape, key, Value::Object(Object::new()), Value::Object(patch)),
        Value::Array(patch) if has(shape.field(key), "merge") => merge_lists(shape, key, Vec::new(), patch),
        other => Ok(plain(other)),
    }
}

fn merge_lists(
    shape: &Shape,
    key: &str,
    current: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Value, PatchError> {
    let merge_key = shape.field(key).map_or("", |field| field.merge_key.as_str());
    let item = match shape.at(key) {
        Shape::List(_, item) => item,
        _ => &Shape::Any,
    };
    let (original, order) = (current.clone(), patch.clone());
    let mut items = current;
    if merge_key.is_empty() {
        for value in patch {
            if !items.contains(&value) {
                items.push(value);
            }
        }
        arrange(&mut items, &order, &original, merge_key);
        return Ok(Value::Array(items));
    }
    let retain = has(shape.field(key), "retainKeys");
    let replace = |item: &Value| item[PATCH] == "replace";
    if patch.iter().any(replace) {
        let kept = patch.into_iter().filter(|item| !replace(item) || item.get(merge_key).is_some());
        return Ok(Value::Array(kept.map(plain).collect()));
    }
    for value in patch {
        let Value::Object(value) = value else {
            return Err(malformed("delete patch type with no merge key defined"));
        };
        let Some(id) = value.get(merge_key).cloned() else {
            return Err(malformed(format!(
                "map: {} does not contain declared merge key: {merge_key}",
                Value::Object(value)
            )));
        };
        if value.get(PATCH).is_some_and(|directive| directive == "delete") {
            items.retain(|item| item[merge_key] != id);
            continue;
        }
        match items.iter_mut().find(|item| item[merge_key] == id) {
            Some(Value::Object(found)) => *found = merge_maps(item, std::mem::take(found), value, retain)?,
            _ => items.push(Value::Object(merge_maps(item, Object::new(), value, retain)?)),
        }
    }
    arrange(&mut items, &order, &original, merge_key);
    Ok(Value::Array(items))
}

/// Puts the items that `order` names into its order. Each of the others goes before the first of them that stood behind
/// it in the `original` list; so what a patch adds comes first.
fn arrange(items: &mut Vec<Value>, order: &[Value], original: &[Value], merge_key: &str) {
    let id = |item: &Value| if merge_key.is_empty() { item.clone() } else { item[merge_key].clone() };
    let place = |list: &[Value], item: &Value| list.iter().position(|other| id(other) == id(item));
    let (mut named, others): (Vec<_>, Vec<_>) =
        std::mem::take(items).into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    let mut others = others.into_iter().peekable();
    for item in named {
        let stood = place(original, &item);
        while let Some(other) = others
            .next_if(|other| place(original, other).zip(stood).is_some_and(|(other, named)| other < named))
        {
            items.push(other);
        }
        items.push(item);
    }
    items.extend(others);
}

fn without_directives(object: Object) -> Object {
    let directive =
        |key: &str| key == PATCH || key == RETAIN || key.starts_with(ORDER) || key.starts_with(DELETE);
    object
        .into_iter()
        .filter(|(key, value)| !directive(key) && !value.is_null())
        .map(|(key, value)| (key, plain(value)))
        .collect()
}

fn plain(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(without_directives(object)),
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PatchError, strategic};
    use crate::shape::tests::kind;
    use serde_json::{Value, json};

    /// Patches the pod spec of a Deployment's template.
    fn patched(spec: &Value, patch: &Value) -> Result<Value, PatchError> {
        let kind = kind("v1", "Pod", "io.k8s.api.core.v1.Pod");
        let patch = json!({"spec": patch}).to_string();
        strategic(&json!({"spec": spec}), patch.as_bytes(), &kind).map(|object| object["spec"].clone())
    }

    #[test]
    fn merges_by_schema() {
        let containers = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
        let rows = [
            (
                containers.clone(),
                json!({"containers": [{"name": "b", "image": "3"}]}),
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}),
            ),
            (
                containers.clone(),
                json!({"containers": [{"name": "c"}]}),
                json!({"containers": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
            ),
            (
                containers.clone(),
                json!({"containers": [{"name": "a", "$patch": "delete"}]}),
                json!({"containers": [{"name": "b", "image": "2"}]}),
            ),
            (
                containers.clone(),
                json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
                json!({"containers": [{"name": "z"}]}),
            ),
            (
                containers,
                json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}),
                json!({"containers": [{"name": "b", "image": "2"}, {"name": "c"}, {"name": "a", "image": "1"}]}),
            ),
            (
                json!({"nodeSelector": {"a": "1", "b": "2"}}),
                json!({"nodeSelector": {"a": null, "c": "3"}}),
                json!({"nodeSelector": {"b": "2", "c": "3"}}),
            ),
            (
                json!({"nodeSelector": {"a": "1"}}),
                json!({"nodeSelector": {"$patch": "replace", "c": "3"}}),
                json!({"nodeSelector": {"c": "3"}}),
            ),
            (
                json!({"tolerations": [{"key": "a"}]}),
                json!({"tolerations": [{"key": "b"}]}),
                json!({"tolerations": [{"key": "b"}]}),
            ),
            (
                json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}),
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            ),
            (json!({"hostname": "h"}), json!({"hostname": null}), json!({})),
        ];
        for (spec, patch, want) in rows {
            assert_eq!(patched(&spec, &patch).unwrap(), want, "{patch}");
        }
    }

    #[test]
    fn primitive_lists_and_metadata() {
        let kind = kind("v1", "Pod", "io.k8s.api.core.v1.Pod");
        let object = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}})
            .to_string();
        assert_eq!(
            strategic(&object, patch.as_bytes(), &kind).unwrap()["metadata"]["finalizers"],
            json!(["c", "b"])
        );
    }

    #[test]
    fn malformed() {
        let list = json!({"containers": [{"name": "a"}]});
        for patch in
            [json!({"containers": [{"image": "x"}]}), json!({"containers": ["x"]}), json!({"$patch": "what"})]
        {
            assert!(matches!(patched(&list, &patch), Err(PatchError::Malformed(_))), "{patch}");
        }
    }
}
