//! Strategic merge patch: a merge patch that knows lists by their merge keys, and a few directives.
//!
//! Source: apimachinery `util/strategicpatch`. Directives: `$patch` (merge, replace, delete), `$retainKeys`,
//! `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`. None of them survives into the result.

use super::PatchError;
use crate::shape::{Field, Shape};
use crate::status::go_printed;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder";
const DELETE: &str = "$deleteFromPrimitiveList";

type Object = Map<String, Value>;

pub(super) fn apply(shape: &Shape, object: &Value, patch: Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else { return Ok(object.clone()) };
    merge_maps(shape, object.clone(), patch).map(Value::Object)
}

fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Malformed(text.into())
}

/// What upstream has no code of its own for.
fn failed(text: impl Into<String>) -> PatchError {
    PatchError::Failed(text.into())
}

fn bad_type(wanted: &str, value: &Value) -> PatchError {
    let found = match value {
        // Go has no type for it.
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    failed(format!("expected a {wanted}, but received a {found}"))
}

fn list(value: &Value) -> Result<&Vec<Value>, PatchError> {
    value.as_array().ok_or_else(|| bad_type("[]interface {}", value))
}

/// The list that a directive such as `$setElementOrder/LIST` is about; `None` for other keys.
fn about<'a>(key: &'a str, directive: &str, form: &str) -> Result<Option<&'a str>, PatchError> {
    if !key.starts_with(directive) {
        return Ok(None);
    }
    match key.split_once('/') {
        Some((start, list)) if start == directive => Ok(Some(list)),
        _ => Err(malformed(format!("invalid patch format of {form}"))),
    }
}

/// Drops what `$retainKeys` does not name.
fn retain(target: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN) else { return Ok(()) };
    let named = |key: &str| keys.as_array().is_some_and(|keys| keys.iter().any(|kept| kept == key));
    let directive = |key: &str| key.starts_with(ORDER) || key.starts_with(DELETE);
    let fits = patch.iter().all(|(key, value)| value.is_null() || directive(key) || named(key));
    if !keys.is_array() || !fits {
        return Err(malformed("invalid patch format of retainKeys"));
    }
    target.retain(|key, _| named(key));
    Ok(())
}

fn merge_maps(shape: &Shape, mut target: Object, mut patch: Object) -> Result<Object, PatchError> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(without_directives(patch)),
            Some("delete") => Ok(Object::new()),
            _ => {
                let directive = go_printed(directive);
                let shown = go_printed(&Value::Object(patch));
                Err(failed(format!("unknown patch type: {directive} in map: {shown}")))
            }
        };
    }
    retain(&mut target, &mut patch)?;
    let mut orders = HashMap::new();
    let given = std::mem::take(&mut patch);
    for (key, value) in given.clone() {
        if let Some(of) = about(&key, ORDER, "setElementOrder list")? {
            let order = list(&value)?;
            let merge_key = shape.field(of).map_or("", |field| field.merge_key.as_str());
            let original = target.get(of).map(list).transpose()?.map_or(&[][..], Vec::as_slice);
            let (original, order) = (places(original, merge_key), places(order, merge_key));
            if let Some(Value::Array(items)) = given.get(of) {
                in_order(items, list(&value)?, merge_key)?;
            }
            orders.insert(of.to_owned(), (original, order));
        } else if let Some(of) = about(&key, DELETE, "primitive list")? {
            match (target.get_mut(of), &value) {
                (Some(Value::Array(items)), Value::Array(gone)) => {
                    let gone: HashSet<String> = gone.iter().map(name).collect();
                    items.retain(|item| !gone.contains(&name(item)));
                }
                (Some(_), Value::Null) => {
                    target.remove(of);
                }
                // As upstream: what is no list deletes nothing.
                _ => {}
            }
        } else {
            patch.insert(key, value);
        }
    }
    for of in orders.keys() {
        patch.get(of).map(list).transpose()?;
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
        if let Some(Value::Array(items)) = target.get_mut(&key) {
            let merge_key = shape.field(&key).map_or("", |field| field.merge_key.as_str());
            arrange(items, &order, &original, merge_key);
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
            merge_maps(shape.at(key), current, patch).map(Value::Object)
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
    let (original, order) = (places(&current, merge_key), places(&patch, merge_key));
    if merge_key.is_empty() {
        let mut seen: HashSet<String> = current.iter().map(name).collect();
        let mut items = current;
        items.extend(patch.into_iter().filter(|value| seen.insert(name(value))));
        arrange(&mut items, &order, &original, merge_key);
        return Ok(Value::Array(items));
    }
    let all = || current.iter().chain(&patch);
    if all().any(Value::is_object) && !all().all(Value::is_object) {
        let shown = go_printed(&json!([current, patch]));
        return Err(failed(format!("list element types are not identical: {shown}")));
    }
    let replace = |item: &Value| item[PATCH] == "replace";
    if patch.iter().any(replace) {
        let kept = patch.into_iter().filter(|item| !replace(item) || item.get(merge_key).is_some());
        return Ok(Value::Array(kept.map(plain).collect()));
    }
    let mut items = merge_keyed(item, merge_key, current, patch)?;
    arrange(&mut items, &order, &original, merge_key);
    Ok(Value::Array(items))
}

/// Merges the items of a patch into those of the same key.
fn merge_keyed(
    item: &Shape,
    merge_key: &str,
    current: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, PatchError> {
    let mut at = places(&current, merge_key);
    let mut items: Vec<Option<Value>> = current.into_iter().map(Some).collect();
    for value in patch {
        let Value::Object(value) = value else { return Err(bad_type("map[string]interface {}", &value)) };
        let Some(id) = value.get(merge_key).map(name) else {
            let shown = go_printed(&Value::Object(value));
            return Err(failed(format!("map: {shown} does not contain declared merge key: {merge_key}")));
        };
        let found = at.remove(&id).unwrap_or_default();
        if value.get(PATCH).is_some_and(|directive| directive == "delete") {
            found.iter().for_each(|place| items[*place] = None);
            continue;
        }
        let (merged, place) = match found.first() {
            Some(place) => {
                let Some(Value::Object(target)) = items[*place].take() else { continue };
                (merge_maps(item, target, value)?, *place)
            }
            None => (merge_maps(item, Object::new(), value)?, items.len()),
        };
        if place == items.len() {
            items.push(None);
        }
        items[place] = Some(Value::Object(merged));
        at.insert(id, if found.is_empty() { vec![place] } else { found });
    }
    Ok(items.into_iter().flatten().collect())
}

/// A value as text: equal values, and only they, have the same.
fn name(value: &Value) -> String {
    value.to_string()
}

fn name_of(item: &Value, merge_key: &str) -> String {
    if merge_key.is_empty() { name(item) } else { name(&item[merge_key]) }
}

/// The items of a patch must stand in the order that it asks for.
fn in_order(items: &[Value], order: &[Value], merge_key: &str) -> Result<(), PatchError> {
    let kept: Vec<&Value> = items.iter().filter(|item| item[PATCH] != "delete").collect();
    let mut places = order.iter();
    let found = kept.iter().take_while(|item| {
        let name = name_of(item, merge_key);
        places.any(|place| name_of(place, merge_key) == name)
    });
    if found.count() == kept.len() {
        return Ok(());
    }
    let shown = |list: &[Value]| go_printed(&Value::Array(list.to_vec()));
    Err(failed(format!(
        "The order in patch list:\n{}\n doesn't match {ORDER} list:\n{}\n",
        shown(items),
        shown(order)
    )))
}

/// Where the items of each key, or value, stand in a list.
type Places = HashMap<String, Vec<usize>>;

fn places(list: &[Value], merge_key: &str) -> Places {
    let mut places = Places::new();
    for (place, item) in list.iter().enumerate() {
        places.entry(name_of(item, merge_key)).or_default().push(place);
    }
    places
}

/// Puts the items that `order` names into its order. Each of the others goes before the first of them that stood behind
/// it in the `original` list; so what a patch adds comes first.
fn arrange(items: &mut Vec<Value>, order: &Places, original: &Places, merge_key: &str) {
    let place = |list: &Places, item: &Value| list.get(&name_of(item, merge_key))?.first().copied();
    let items_of_order = std::mem::take(items).into_iter().map(|item| (place(order, &item), item));
    let (mut named, others): (Vec<_>, Vec<_>) = items_of_order.partition(|(named, _)| named.is_some());
    named.sort_by_key(|(place, _)| *place);
    let mut others = others.into_iter().map(|(_, item)| (place(original, &item), item)).peekable();
    for (_, item) in named {
        let stood = place(original, &item);
        let before =
            |other: &(Option<usize>, Value)| other.0.zip(stood).is_some_and(|(other, item)| other < item);
        while let Some((_, other)) = others.next_if(before) {
            items.push(other);
        }
        items.push(item);
    }
    items.extend(others.map(|(_, item)| item));
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
    use super::{failed, malformed};
    use crate::shape::tests::kind;
    use serde_json::{Value, json};

    /// Patches the pod spec of a Deployment's template.
    fn patched(spec: &Value, patch: &Value) -> Result<Value, PatchError> {
        let kind = kind("v1", "Pod", "io.k8s.api.core.v1.Pod");
        let patch = json!({"spec": patch}).to_string();
        strategic(&json!({"spec": spec}), patch.as_bytes(), &kind)
            .map(|patched| patched.object["spec"].clone())
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
            strategic(&object, patch.as_bytes(), &kind).unwrap().object["metadata"]["finalizers"],
            json!(["c", "b"])
        );
    }

    #[test]
    fn directives_of_the_wrong_type_are_told_as_upstream_tells_them() {
        let spec = json!({"containers": [{"name": "a"}], "nodeSelector": {"a": "1"}, "hostname": "h"});
        let odd = "expected a []interface {}, but received a";
        let rows = [
            (json!({"$setElementOrder/containers": "a"}), failed(format!("{odd} string"))),
            (json!({"$setElementOrder/containers": 1}), failed(format!("{odd} int64"))),
            (json!({"$setElementOrder/containers": null}), failed(format!("{odd} %!s(<nil>)"))),
            (
                json!({"$setElementOrder/nodeSelector": []}),
                failed(format!("{odd} map[string]interface {{}}")),
            ),
            (json!({"$setElementOrder/x": [], "x": true}), failed(format!("{odd} bool"))),
            (json!({"$setElementOrder": []}), malformed("invalid patch format of setElementOrder list")),
            (
                json!({"$setElementOrder/containers": [{"name": "z"}], "containers": [{"name": "q"}]}),
                failed(
                    "The order in patch list:\n[map[name:q]]\n doesn't match $setElementOrder list:\n[map[name:z]]\n",
                ),
            ),
            (json!({"$deleteFromPrimitiveList": []}), malformed("invalid patch format of primitive list")),
            (json!({"nodeSelector": {"$retainKeys": "a"}}), malformed("invalid patch format of retainKeys")),
            (
                json!({"nodeSelector": {"$retainKeys": ["a"], "b": ""}}),
                malformed("invalid patch format of retainKeys"),
            ),
            (
                json!({"$patch": "what", "a": 1}),
                failed("unknown patch type: what in map: map[$patch:what a:1]"),
            ),
            (
                json!({"containers": [{"image": "x"}]}),
                failed("map: map[image:x] does not contain declared merge key: name"),
            ),
            (
                json!({"containers": ["x"]}),
                failed("list element types are not identical: [[map[name:a]] [x]]"),
            ),
        ];
        for (patch, want) in rows {
            assert_eq!(patched(&spec, &patch), Err(want), "{patch}");
        }
        let kind = kind("v1", "Pod", "io.k8s.api.core.v1.Pod");
        let object = json!({"metadata": {"finalizers": ["a", "b"]}});
        for (gone, left) in
            [(json!("a"), json!(["a", "b"])), (json!(["a"]), json!(["b"])), (json!(null), json!(null))]
        {
            let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": gone}}).to_string();
            let patched = strategic(&object, patch.as_bytes(), &kind).expect("applies");
            assert_eq!(patched.object["metadata"]["finalizers"], left, "{patch}");
        }
    }
}
