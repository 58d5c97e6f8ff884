//! Merging a configuration into an object, and removing fields from one.

use super::set::{Container, FieldSet, container, element};
use crate::shape::{Items, Shape};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// `live` with everything that `config` names laid over it.
pub(super) fn merge(shape: &Shape, live: &Value, config: &Value) -> Value {
    match (container(shape, live), container(shape, config)) {
        (Container::Map(Some(live)), Container::Map(config)) => {
            let mut merged = live.clone();
            for (key, value) in config.into_iter().flatten() {
                let value = match live.get(key) {
                    Some(live) => merge(shape.at(key), live, value),
                    None => value.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Container::List(items, item, Some(live)), Container::List(_, _, config)) => {
            merge_lists(items, item, live, config.map_or(&[], Vec::as_slice))
        }
        _ => config.clone(),
    }
}

/// Items both have keep the configuration's order; the live object's own items stay where they stood between them.
fn merge_lists(items: &Items, item: &Shape, live: &[Value], config: &[Value]) -> Value {
    let keyed =
        |list: &[Value]| -> Vec<String> { list.iter().map(|value| element(items, item, value)).collect() };
    let (live_keys, config_keys) = (keyed(live), keyed(config));
    let wanted: HashSet<&String> = config_keys.iter().collect();
    let at: HashMap<&String, &Value> = live_keys.iter().zip(live).rev().collect();
    let mut merged = Vec::with_capacity(live.len() + config.len());
    let mut done = HashSet::new();
    let mut rest = live_keys.iter().zip(live).peekable();
    for (key, value) in config_keys.iter().zip(config) {
        if !done.insert(key) {
            continue;
        }
        // What is only in the live object and stands before its next shared item comes first.
        while let Some((_, own)) = rest.next_if(|(key, _)| !wanted.contains(key)) {
            merged.push(own.clone());
        }
        rest.next_if(|(live_key, _)| *live_key == key);
        merged.push(at.get(key).map_or_else(|| value.clone(), |live| merge(item, live, value)));
    }
    merged.extend(rest.filter(|(key, _)| !wanted.contains(key)).map(|(_, own)| own.clone()));
    Value::Array(merged)
}

/// `value` without `fields`; objects and lists that become empty go too.
pub(super) fn remove(shape: &Shape, value: &Value, fields: &FieldSet) -> Value {
    let keep = |name: &str, value: &Value, shape: &Shape| -> Option<Value> {
        if fields.has(name) {
            return None;
        }
        match fields.below(name) {
            Some(below) if !below.is_empty() => {
                let left = remove(shape, value, below);
                (!left.is_null()).then_some(left)
            }
            _ => Some(value.clone()),
        }
    };
    match container(shape, value) {
        Container::Map(Some(map)) if !map.is_empty() => {
            let left: Map<String, Value> = map
                .iter()
                .filter_map(|(key, value)| {
                    Some((key.clone(), keep(&format!("f:{key}"), value, shape.at(key))?))
                })
                .collect();
            if left.is_empty() { Value::Null } else { Value::Object(left) }
        }
        Container::List(items, item, Some(list)) if !list.is_empty() => {
            let left: Vec<Value> =
                list.iter().filter_map(|value| keep(&element(items, item, value), value, item)).collect();
            if left.is_empty() { Value::Null } else { Value::Array(left) }
        }
        _ => value.clone(),
    }
}
