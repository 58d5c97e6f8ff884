//! Objects of any kind, as the table of types describes them.

use crate::kinds::Kind;
use crate::schema::{self, Instead, Special, Type};
use crate::shape::{Items, Shape};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Deeper fields are left out.
const DEPTH_MAX: usize = 9;
/// So many values make a large object.
const VALUES_MAX: usize = 400;

const WORDS: [&str; 12] =
    ["a", "b", "web", "Always", "TCP", "10.1.2.3", "x.example.com", "ü☃", "Ready", "True", "1", "a-b"];
const QUANTITIES: [&str; 8] = ["0", "1", "100m", "1.5", "2Gi", "1e3", "0.5Ki", "123456789"];

/// Numbers that a seed makes (splitmix64).
pub(super) struct Random {
    state: u64,
    values: usize,
}

impl Random {
    pub(super) fn new(kind: &str, seed: u64) -> Self {
        let state = kind.bytes().fold(seed, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
        Self { state, values: 0 }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let place = self.below(of.len() as u64);
        of[usize::try_from(place).expect("small")]
    }

    /// An object of a kind.
    pub(super) fn object(&mut self, kind: &Kind) -> Value {
        let mut object = self.message(schema::of(kind).expect("a type"), 0);
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        crate::meta::set(&mut object, "name", "n");
        crate::meta::remove(&mut object, "managedFields");
        crate::meta::remove(&mut object, "namespace");
        if kind.namespaced {
            crate::meta::set(&mut object, "namespace", "default");
        }
        object
    }

    fn message(&mut self, at: usize, depth: usize) -> Value {
        let mut object = Map::new();
        for field in &schema::message(at).fields {
            if field.inline {
                if let (Type::Message(inner), Value::Object(more)) = (&field.of, &mut json!({})) {
                    more.extend(self.message(*inner, depth).as_object().cloned().unwrap_or_default());
                    object.append(more);
                }
                continue;
            }
            let leave = self.below(10) < 3 + depth as u64 / 2;
            if depth > DEPTH_MAX || self.values > VALUES_MAX || leave && field.name != "spec" {
                continue;
            }
            self.values += 1;
            object.insert(field.name.clone(), self.value(&field.of, depth));
        }
        Value::Object(object)
    }

    fn value(&mut self, of: &Type, depth: usize) -> Value {
        match of {
            Type::String => json!(self.pick(&WORDS)),
            Type::Bool => json!(self.below(2) == 0),
            Type::Int32 => json!(self.pick(&[0, 1, -1, 80, 420, i32::MAX, i32::MIN])),
            Type::Int64 => json!(self.pick(&[0, 1, -1, 30, 1000, i64::MAX, i64::MIN])),
            Type::Float => json!(self.pick(&[0.5, -2.25, 1e300])),
            Type::Or(Instead::Flag, _) if self.below(2) == 0 => json!(self.below(2) == 0),
            Type::Or(Instead::Texts, _) if self.below(2) == 0 => json!([self.pick(&WORDS)]),
            Type::Or(Instead::Many, at) if self.below(2) == 0 => json!([self.message(*at, depth + 1)]),
            Type::Or(_, at) => self.message(*at, depth + 1),
            Type::Bytes => json!(self.pick(&["AA==", "AAEC", "/+8="])),
            Type::Special(special) => self.special(*special),
            Type::Message(at) => self.message(*at, depth + 1),
            // What is empty is nothing to protobuf.
            Type::List(item) => (0..1 + self.below(3)).map(|_| self.value(item, depth)).collect(),
            Type::Map(item) => {
                let entries =
                    (0..1 + self.below(3)).map(|_| (self.pick(&WORDS).to_owned(), self.value(item, depth)));
                Value::Object(entries.collect())
            }
        }
    }

    fn special(&mut self, special: Special) -> Value {
        match special {
            Special::Quantity => json!(self.pick(&QUANTITIES)),
            Special::IntOrString if self.below(2) == 0 => json!(self.pick(&[0, 1, 8080, -1])),
            Special::IntOrString => json!(self.pick(&["25%", "http", "0"])),
            Special::Time => json!(self.pick(&["2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z"])),
            Special::MicroTime => {
                json!(self.pick(&["2026-01-02T03:04:05.000006Z", "2026-01-02T03:04:05.900000Z"]))
            }
            Special::Duration => json!(self.pick(&["1h0m0s", "1m30s", "5s", "250ms", "0s"])),
            Special::Raw | Special::Json => {
                json!({"kind": self.pick(&WORDS), "list": [1, 2.5, true, {"a": "b"}]})
            }
            Special::Strings => json!([self.pick(&WORDS), "z"]),
        }
    }
}

/// An object without what is null or empty, and with each key of its lists once, as patches can tell it.
pub(super) fn sparse(shape: &Shape, value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| {
                let value = sparse(shape.at(&key), value);
                let merge_key = shape.field(&key).map_or("", |field| field.merge_key.as_str());
                let merges = shape.field(&key).is_some_and(|field| field.strategy.contains("merge"));
                let value = unique(shape.at(&key), value, merges, merge_key);
                (key, value)
            });
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => {
            let item = if let Shape::List(_, item) = shape { item } else { &Shape::Any };
            let items = items.into_iter().map(|value| sparse(item, value));
            Value::Array(items.filter(|value| !is_empty(value)).collect())
        }
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The items of a list whose keys, of patches and of apply, are there and new.
fn unique(shape: &Shape, value: Value, merges: bool, merge_key: &str) -> Value {
    let (Shape::List(items, _), Value::Array(list)) = (shape, &value) else { return value };
    let mut keys: Vec<Vec<&str>> = Vec::new();
    if merges {
        keys.push(Some(merge_key).filter(|key| !key.is_empty()).into_iter().collect());
    }
    match items {
        Items::Atomic => {}
        Items::Set => keys.push(Vec::new()),
        Items::Keyed(of) => keys.push(of.iter().map(String::as_str).collect()),
    }
    let mut seen = HashSet::new();
    let is_new = |item: &&Value| {
        keys.iter().enumerate().all(|(which, keys)| {
            let key = match keys.as_slice() {
                [] => item.to_string(),
                keys => {
                    let parts: Option<Vec<&Value>> = keys.iter().map(|key| item.get(key)).collect();
                    let Some(parts) = parts else { return false };
                    format!("{parts:?}")
                }
            };
            seen.insert((which, key))
        })
    };
    list.iter().filter(is_new).cloned().collect()
}
