//! Operators, sizes, conversions between the plain types, the strings' own functions, and optional values.

use super::super::equality::order;
use super::super::value::{Fault, Key, List, Map, Value, told};
use super::{Cost, Written};
use crate::meta::parse_bool;
use indexmap::IndexMap;
use std::cmp::Ordering;
use std::sync::Arc;

const PAIRS: &[&str] = &[
    "(bool, bool) bool",
    "(int, int) bool",
    "(int, double) bool",
    "(int, uint) bool",
    "(uint, uint) bool",
    "(uint, double) bool",
    "(uint, int) bool",
    "(double, double) bool",
    "(double, int) bool",
    "(double, uint) bool",
    "(timestamp, timestamp) bool",
    "(duration, duration) bool",
];
const TEXTS: &[&str] = &["(string, string) bool", "(bytes, bytes) bool"];

pub const OPERATORS: &[Written] = &[
    ("_&&_", &["(bool, bool) bool"], Cost::Branch, branch),
    ("_||_", &["(bool, bool) bool"], Cost::Branch, branch),
    ("_?_:_", &["(bool, A, A) A"], Cost::Branch, branch),
    ("@not_strictly_false", &["(bool) bool"], Cost::One, branch),
    ("!_", &["(bool) bool"], Cost::One, not),
    ("_<_", PAIRS, Cost::One, |args| ordered(args, |order| order == Ordering::Less)),
    ("_<_", TEXTS, Cost::Compare, |args| ordered(args, |order| order == Ordering::Less)),
    ("_<=_", PAIRS, Cost::One, |args| ordered(args, |order| order != Ordering::Greater)),
    ("_<=_", TEXTS, Cost::Compare, |args| ordered(args, |order| order != Ordering::Greater)),
    ("_>_", PAIRS, Cost::One, |args| ordered(args, |order| order == Ordering::Greater)),
    ("_>_", TEXTS, Cost::Compare, |args| ordered(args, |order| order == Ordering::Greater)),
    ("_>=_", PAIRS, Cost::One, |args| ordered(args, |order| order != Ordering::Less)),
    ("_>=_", TEXTS, Cost::Compare, |args| ordered(args, |order| order != Ordering::Less)),
    ("_+_", &["(string, string) string", "(bytes, bytes) bytes"], Cost::AddText, add_text),
    ("@in", &["(A, map(A, B)) bool"], Cost::One, |args| match args {
        [key, Value::Map(map)] => Ok(Value::Bool(map.get(key).is_some())),
        _ => Err(Fault::NoOverload),
    }),
    ("_[_]", &["(list(A), int) A"], Cost::One, index_list),
    ("_[_]", &["(map(A, B), A) B"], Cost::One, index_map),
    (
        "_[_]",
        &["(optional(list(A)), int) optional(A)", "(optional(map(A, B)), A) optional(B)"],
        Cost::One,
        maybe_index,
    ),
    (
        "_[?_]",
        &[
            "(list(A), int) optional(A)",
            "(map(A, B), A) optional(B)",
            "(optional(list(A)), int) optional(A)",
            "(optional(map(A, B)), A) optional(B)",
        ],
        Cost::One,
        maybe_index,
    ),
    (
        "size",
        &[
            "(string) int",
            "(bytes) int",
            "(list(A)) int",
            "(map(A, B)) int",
            "string.() int",
            "bytes.() int",
            "list(A).() int",
            "map(A, B).() int",
        ],
        Cost::One,
        size,
    ),
    (
        "cel.@mapInsert",
        &["(map(A, B), A, B) map(A, B)", "(map(A, B), map(A, B)) map(A, B)"],
        Cost::One,
        insert,
    ),
];

pub const CONVERSIONS: &[Written] = &[
    ("dyn", &["(A) dyn"], Cost::One, |args| args.first().cloned().ok_or(Fault::NoOverload)),
    ("type", &["(A) type(A)"], Cost::One, |args| match args {
        [value] => Ok(Value::Type(super::super::value::Text::Lent(value.type_name()))),
        _ => Err(Fault::NoOverload),
    }),
    ("bool", &["(bool) bool", "(string) bool"], Cost::One, |args| match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [Value::Text(text)] => match parse_bool(text) {
            Some(value) => Ok(Value::Bool(value)),
            None => told("type conversion error from 'string' to 'bool'"),
        },
        _ => Err(Fault::NoOverload),
    }),
    ("bytes", &["(bytes) bytes"], Cost::One, |args| args.first().cloned().ok_or(Fault::NoOverload)),
    ("bytes", &["(string) bytes"], Cost::ToBytes, |args| match args {
        [Value::Text(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        _ => Err(Fault::NoOverload),
    }),
    ("string", &["(bytes) string"], Cost::FromBytes, |args| match args {
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => told("invalid UTF-8 in bytes, cannot convert to string"),
        },
        _ => Err(Fault::NoOverload),
    }),
    ("string", &["(string) string", "(bool) string"], Cost::One, |args| match args {
        [Value::Text(text)] => Ok(Value::Text(text.clone())),
        [Value::Bool(value)] => Ok(Value::text(value.to_string())),
        _ => Err(Fault::NoOverload),
    }),
];

pub const TEXT: &[Written] = &[
    ("contains", &["string.(string) bool"], Cost::Contains, |args| {
        texts(args, |text, part| text.contains(part))
    }),
    ("startsWith", &["string.(string) bool"], Cost::Affix, |args| {
        texts(args, |text, part| text.starts_with(part))
    }),
    ("endsWith", &["string.(string) bool"], Cost::Affix, |args| {
        texts(args, |text, part| text.ends_with(part))
    }),
];

pub const OPTIONALS: &[Written] = &[
    ("optional.of", &["(A) optional(A)"], Cost::One, |args| match args {
        [value] => Ok(Value::some(value.clone())),
        _ => Err(Fault::NoOverload),
    }),
    ("optional.ofNonZeroValue", &["(A) optional(A)"], Cost::One, |args| match args {
        [value] if is_zero(value) => Ok(Value::Optional(None)),
        [value] => Ok(Value::some(value.clone())),
        _ => Err(Fault::NoOverload),
    }),
    ("optional.none", &["() optional(A)"], Cost::One, |_| Ok(Value::Optional(None))),
    ("optional.unwrap", &["(list(optional(A))) list(A)"], Cost::One, unwrap),
    ("unwrapOpt", &["list(optional(A)).() list(A)"], Cost::One, unwrap),
    ("value", &["optional(A).() A"], Cost::One, |args| match args {
        [Value::Optional(Some(value))] => Ok(value.as_ref().clone()),
        [Value::Optional(None)] => told("optional.none() dereference"),
        _ => Err(Fault::NoOverload),
    }),
    ("hasValue", &["optional(A).() bool"], Cost::One, |args| match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => Err(Fault::NoOverload),
    }),
    // The alternatives are evaluated only when they are needed: see the evaluation of calls.
    ("or", &["optional(A).(optional(A)) optional(A)"], Cost::Branch, branch),
    ("orValue", &["optional(A).(A) A"], Cost::Branch, branch),
    ("first", &["list(A).() optional(A)"], Cost::One, |args| at_end(args, |list| list.get(0))),
    ("last", &["list(A).() optional(A)"], Cost::One, |args| {
        at_end(args, |list| list.get(list.len().checked_sub(1)?))
    }),
];

/// What the evaluation itself does, since not all of its arguments may be evaluated.
fn branch<'a>(_: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Err(Fault::NoOverload)
}

fn not<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(Fault::NoOverload),
    }
}

fn ordered<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Result<Value<'a>, Fault> {
    match args {
        [one, other] => Ok(Value::Bool(order(one, other)?.is_some_and(holds))),
        _ => Err(Fault::NoOverload),
    }
}

fn texts<'a>(args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Text(one), Value::Text(other)] => Ok(Value::Bool(holds(one, other))),
        _ => Err(Fault::NoOverload),
    }
}

fn add_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Text(one), Value::Text(other)] => Ok(Value::text(format!("{}{}", &**one, &**other))),
        [Value::Bytes(one), Value::Bytes(other)] => Ok(Value::Bytes([&**one, &**other].concat().into())),
        _ => Err(Fault::NoOverload),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [value @ (Value::Text(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            Ok(Value::Int(i64::try_from(value.size()).unwrap_or(i64::MAX)))
        }
        _ => Err(Fault::NoOverload),
    }
}

fn place(index: &Value<'_>) -> Result<i128, Fault> {
    match (index, index.key()) {
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Some(Key::Number(at))) => Ok(at),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), _) => {
            Err(Fault::Told(format!("unsupported index value {} in list", super::format::shown(index))))
        }
        _ => Err(Fault::Told(format!("unsupported index type '{}' in list", index.type_name()))),
    }
}

fn index_list<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::List(list), index] = args else { return Err(Fault::NoOverload) };
    let at = place(index)?;
    let found = usize::try_from(at).ok().and_then(|at| list.get(at));
    found.ok_or_else(|| Fault::Told(format!("index out of bounds: {at}")))
}

fn index_map<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (found, key) = match args {
        [Value::Map(map), key] => (map.get(key), key),
        // What holds nothing lacks this, too.
        [of, key] if !matches!(of, Value::List(_) | Value::Optional(_)) => (None, key),
        _ => return Err(Fault::NoOverload),
    };
    found.ok_or_else(|| Fault::Told(format!("no such key: {}", super::format::shown(key))))
}

fn maybe_index<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [of, key] = args else { return Err(Fault::NoOverload) };
    let found = match of {
        Value::Optional(None) => None,
        Value::Optional(Some(of)) => return maybe_index(&[of.as_ref().clone(), key.clone()]),
        Value::List(list) => usize::try_from(place(key)?).ok().and_then(|at| list.get(at)),
        Value::Map(map) => map.get(key),
        _ => None,
    };
    Ok(Value::Optional(found.map(Arc::new)))
}

fn insert<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Some((Value::Map(map), added)) = args.split_first() else { return Err(Fault::NoOverload) };
    let mut all = Entries::new();
    for (key, value) in map.entries() {
        all.insert(key.key().ok_or(Fault::NoOverload)?, (key, value));
    }
    insert_into(&mut all, added)?;
    Ok(Value::Map(Map::Own(Arc::new(all))))
}

type Entries<'a> = IndexMap<Key, (Value<'a>, Value<'a>)>;

/// Adds a key with its value, or all of a map; keys must be new.
pub fn insert_into<'a>(all: &mut Entries<'a>, added: &[Value<'a>]) -> Result<(), Fault> {
    let added = match added {
        [key, value] => vec![(key.clone(), value.clone())],
        [Value::Map(more)] => more.entries(),
        _ => return Err(Fault::NoOverload),
    };
    for (key, value) in added {
        let known =
            key.key().ok_or_else(|| Fault::Told(format!("unsupported key type: {}", key.type_name())))?;
        if all.contains_key(&known) {
            return told(format!("insert failed: key {} already exists", super::format::shown(&key)));
        }
        all.insert(known, (key, value));
    }
    Ok(())
}

fn unwrap<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::List(list)] = args else { return Err(Fault::NoOverload) };
    let inner = list.iter().filter_map(|item| match item {
        Value::Optional(value) => value.map(|value| value.as_ref().clone()),
        other => Some(other),
    });
    Ok(Value::list(inner.collect()))
}

fn at_end<'a>(args: &[Value<'a>], of: fn(&List<'a>) -> Option<Value<'a>>) -> Result<Value<'a>, Fault> {
    match args {
        [Value::List(list)] => Ok(Value::Optional(of(list).map(Arc::new))),
        _ => Err(Fault::NoOverload),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) => true,
        Value::Double(value) => *value == 0.0,
        Value::Text(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => value.size() == 0,
        Value::Duration(value) => value.is_zero(),
        Value::Optional(value) => value.is_none(),
        _ => false,
    }
}
