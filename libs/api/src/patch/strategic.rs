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

fn unknown_directive(patch: &Object) -> PatchError {
    let directive = match &patch[PATCH] {
        Value::Number(number) if !number.is_f64() => format!("%!s(int64={number})"),
        Value::Number(number) => format!("%!s(float64={number})"),
        Value::Bool(flag) => format!("%!s(bool={flag})"),
        other => go_printed(other),
    };
    let shown = go_printed(&Value::Object(patch.clone()));
    failed(format!("unknown patch type: {directive} in map: {shown}"))
}

fn no_merge_key(item: &Value, merge_key: &str) -> PatchError {
    failed(format!("map: {} does not contain declared merge key: {merge_key}", go_printed(item)))
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
            _ => Err(unknown_directive(&patch)),
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
                let texts = list(&value)?.iter().find(|item| !merge_key.is_empty() && !item.is_object());
                texts.map_or(Ok(()), |item| Err(bad_type("map[string]interface {}", item)))?;
                in_order(items, list(&value)?, merge_key)?;
            }
            orders.insert(of.to_owned(), (original, order, value));
        } else if let Some(of) = about(&key, DELETE, "primitive list")? {
            match (target.get_mut(of), &value) {
                (Some(Value::Array(items)), Value::Array(gone)) => {
                    of_one_type(items, gone)?;
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
            None => fresh(value),
        };
        if let Some(merged) = merged {
            target.insert(key, merged);
        }
    }
    for (key, (original, order, given)) in orders {
        if let Some(Value::Array(items)) = target.get_mut(&key) {
            let merge_key = shape.field(&key).map_or("", |field| field.merge_key.as_str());
            if !merge_key.is_empty() {
                looked_up(items, list(&given)?, merge_key)?;
            }
            arrange(items, &order, &original, merge_key);
        }
    }
    Ok(target)
}

fn has(field: Option<&Field>, strategy: &str) -> bool {
    field.is_some_and(|field| field.strategy.split(',').any(|one| one == strategy))
}

fn merge_field(shape: &Shape, key: &str, current: Value, value: Value) -> Result<Option<Value>, PatchError> {
    let field = shape.field(key);
    match (current, value) {
        // Of a text that is kept as it is, Go knows no fields.
        (Value::Object(_), Value::Object(_)) | (Value::Array(_), Value::Array(_)) if is_text(shape) => {
            Err(failed(format!("unable to find api field in struct RawExtension for the json field {key:?}")))
        }
        // A map that replaces another is taken as it is.
        (Value::Object(_), patch @ Value::Object(_)) if has(field, "replace") => Ok(Some(patch)),
        (Value::Object(current), Value::Object(patch)) => {
            merge_maps(shape.at(key), current, patch).map(|merged| Some(Value::Object(merged)))
        }
        (Value::Array(current), Value::Array(patch)) if has(field, "merge") => {
            merge_lists(shape, key, current, patch).map(Some)
        }
        // A list that replaces another is taken as it is.
        (Value::Array(_), patch @ Value::Array(_)) => Ok(Some(patch)),
        (_, value) => Ok(fresh(value)),
    }
}

/// Whether Go keeps the value as the text that it was sent as.
fn is_text(shape: &Shape) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Map(_, inner) => matches!(**inner, Shape::Any),
        _ => false,
    }
}

/// A value where there was none, as it is; what says by a directive what is to become of it becomes nothing.
fn fresh(value: Value) -> Option<Value> {
    match value {
        Value::Object(patch) if patch.contains_key(PATCH) => None,
        Value::Object(patch) => {
            let kept = patch.into_iter().filter(|(_, value)| !value.is_null());
            Some(Value::Object(kept.filter_map(|(key, value)| Some((key, fresh(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(fresh).collect())),
        other => Some(other),
    }
}

/// Looks items up in the order that is asked for, as far as that takes.
fn looked_up(items: &[Value], order: &[Value], merge_key: &str) -> Result<(), PatchError> {
    let known: HashSet<&Value> = order.iter().map_while(|other| other.get(merge_key)).collect();
    let odd = order.iter().enumerate().find(|(_, other)| other.get(merge_key).is_none());
    for item in items {
        let wanted = item.get(merge_key).ok_or_else(|| no_merge_key(item, merge_key))?;
        match odd.filter(|_| !known.contains(wanted)) {
            None => {}
            Some((_, odd)) if odd.is_object() => return Err(no_merge_key(odd, merge_key)),
            Some((place, _)) => return Err(failed(format!("value for key {place} is not a map"))),
        }
    }
    Ok(())
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
    of_one_type(&current, &patch)?;
    patch.iter().try_for_each(|item| directed(item, merge_key))?;
    if patch.iter().any(|item| item[PATCH] == "replace") {
        let kept: Vec<Value> = patch.into_iter().filter(|item| item.get(PATCH).is_none()).collect();
        let nameless = kept.iter().find(|item| item.get(merge_key).is_none());
        return nameless.map_or(Ok(Value::Array(kept.clone())), |item| Err(no_merge_key(item, merge_key)));
    }
    let mut items = merge_keyed(item, merge_key, current, patch)?;
    arrange(&mut items, &order, &original, merge_key);
    Ok(Value::Array(items))
}

/// The items of what is merged are of one type.
fn of_one_type(current: &[Value], patch: &[Value]) -> Result<(), PatchError> {
    let mut all = current.iter().chain(patch).map(std::mem::discriminant);
    let first = all.next();
    if all.all(|other| Some(other) == first) {
        return Ok(());
    }
    let shown = go_printed(&json!([current, patch]));
    Err(failed(format!("list element types are not identical: {shown}")))
}

/// What an item of a list says that is to become of it, if anything.
fn directed(item: &Value, merge_key: &str) -> Result<(), PatchError> {
    let Some(item_of) = item.as_object().filter(|item| item.contains_key(PATCH)) else { return Ok(()) };
    match item[PATCH].as_str() {
        Some("delete") if item.get(merge_key).is_none() => Err(no_merge_key(item, merge_key)),
        Some("replace" | "delete") => Ok(()),
        Some("merge") => Err(failed("merging lists cannot yet be specified in the patch")),
        _ => Err(unknown_directive(item_of)),
    }
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
            return Err(no_merge_key(&Value::Object(value), merge_key));
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
            // As it is, with whatever is in it.
            None => (value, items.len()),
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
mod tests;
