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

/// The configuration's items in its order, the live object's own between them, as structured-merge-diff weaves both. Of items
/// that a live list holds twice under one key, none is merged with the configuration's.
fn merge_lists(items: &Items, item: &Shape, live: &[Value], config: &[Value]) -> Value {
    let keyed =
        |list: &[Value]| -> Vec<String> { list.iter().map(|value| element(items, item, value)).collect() };
    let (live_keys, config_keys) = (keyed(live), keyed(config));
    let mut known: HashMap<&String, Option<&Value>> = HashMap::new();
    for (key, value) in live_keys.iter().zip(live) {
        known.entry(key).and_modify(|twice| *twice = None).or_insert(Some(value));
    }
    let wanted: HashSet<&String> = config_keys.iter().collect();
    let mut shared = config_keys.iter().filter(|key| known.contains_key(key));
    let mut next = shared.next();
    let (mut merged, mut done) = (Vec::with_capacity(live.len() + config.len()), HashSet::new());
    let (mut left, mut right) = (0, 0);
    while left < live.len() || right < config.len() {
        let (own, theirs) = (live_keys.get(left), config_keys.get(right));
        if own.is_some_and(|own| !wanted.contains(own)) {
            merged.push(live[left].clone());
            left += 1;
            continue;
        }
        // What both have waits for its turn in the configuration.
        let passed = own.is_some_and(|own| done.contains(own));
        let another = theirs.is_some() && own != theirs && next.is_some() && next != own;
        if own.is_some() && (passed || another) {
            left += 1;
            continue;
        }
        let Some(key) = theirs else { continue };
        if done.insert(key) {
            let value = &config[right];
            merged.push(match known.get(key) {
                Some(Some(live)) => merge(item, live, value),
                _ => value.clone(),
            });
        }
        right += 1;
        left += usize::from(own == theirs);
        if next == theirs {
            next = shared.next();
        }
    }
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
