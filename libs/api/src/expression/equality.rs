//! Values side by side: their equality and order as CEL has them, and lists whose items belong together by their kind.
//!
//! In: two values. Out: whether they are equal, which comes first, or both lists together. Invariant: the work is about as
//! much as the values are long, whatever a client writes into them.

use super::types::ListKind;
use super::value::{Fault, List, Map, Value};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The longest list that two make together: a walk over a longer one would be over the budget.
const LENGTH_MAX: usize = 1_000_000;

/// Whether two values are equal. Numbers of all kinds are compared as numbers.
pub fn equal(one: &Value<'_>, other: &Value<'_>) -> bool {
    match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Type(a), Value::Type(b)) | (Value::Text(a), Value::Text(b)) => **a == **b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b),
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Opaque(a), Value::Opaque(b)) => a.equals(b),
        (Value::List(a), Value::List(b)) => lists_equal(a, b),
        (Value::Map(a), Value::Map(b)) => maps_equal(a, b),
        _ => numbers(one, other) == Some(Ordering::Equal),
    }
}

fn lists_equal(one: &List<'_>, other: &List<'_>) -> bool {
    if let (List::Json(a, Some(_)), List::Json(b, Some(_))) = (one, other)
        && a == b
    {
        return true;
    }
    if one.len() != other.len() {
        return false;
    }
    let kind = if *one.kind() == ListKind::Atomic { other.kind() } else { one.kind() };
    match kind {
        ListKind::Atomic => one.iter().zip(other.iter()).all(|(one, other)| equal(&one, &other)),
        ListKind::Set | ListKind::Map(_) => {
            let mut marked: HashMap<u64, Vec<Value<'_>>> = HashMap::new();
            for item in other.iter() {
                marked.entry(mark(&item)).or_default().push(item);
            }
            let found = |item: &Value<'_>| {
                marked.get(&mark(item)).is_some_and(|all| all.iter().any(|own| equal(own, item)))
            };
            one.iter().all(|item| found(&item))
        }
    }
}

fn maps_equal(one: &Map<'_>, other: &Map<'_>) -> bool {
    if let (Map::Json(a, Some(_)), Map::Json(b, Some(_))) = (one, other)
        && a == b
    {
        return true;
    }
    one.len() == other.len()
        && one.entries().iter().all(|(key, value)| other.get(key).is_some_and(|own| equal(&own, value)))
}

/// Two lists together: sets keep one of each, items of maps replace those with their keys.
///
/// # Errors
/// That is longer than any budget allows to look at.
pub fn together<'a>(one: &List<'a>, other: &List<'a>) -> Result<List<'a>, Fault> {
    if one.len() + other.len() > LENGTH_MAX {
        return Err(Fault::Limit);
    }
    let kind = if *one.kind() == ListKind::Atomic { other.kind() } else { one.kind() };
    let keys = match kind {
        ListKind::Atomic => return Ok(List::Own(Arc::new(one.iter().chain(other.iter()).collect()))),
        ListKind::Set => None,
        ListKind::Map(keys) => Some(keys),
    };
    let mark_of = |item: &Value<'_>| keys.map_or_else(|| mark(item), |keys| mark_of_keys(item, keys));
    let same = |one: &Value<'_>, other: &Value<'_>| {
        keys.map_or_else(|| equal(one, other), |keys| same_keys(one, other, keys))
    };
    let mut items: Vec<Value<'a>> = one.iter().collect();
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        places.entry(mark_of(item)).or_default().push(at);
    }
    for item in other.iter() {
        let marked = places.entry(mark_of(&item)).or_default();
        match marked.iter().find(|at| same(&items[**at], &item)) {
            Some(at) => items[*at] = item,
            None => {
                marked.push(items.len());
                items.push(item);
            }
        }
    }
    Ok(List::Own(Arc::new(items)))
}

fn same_keys(one: &Value<'_>, other: &Value<'_>, keys: &[String]) -> bool {
    keys.iter().all(|key| match (one.field(key), other.field(key)) {
        (Ok(Some(one)), Ok(Some(other))) => equal(&one, &other),
        (one, other) => matches!((one, other), (Ok(None), Ok(None))),
    })
}

fn mark_of_keys(item: &Value<'_>, keys: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for key in keys {
        item.field(key).ok().flatten().map(|value| mark(&value)).hash(&mut hasher);
    }
    hasher.finish()
}

/// A number that is the same of equal values, and mostly another one of others.
fn mark(value: &Value<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Bool(value) => value.hash(&mut hasher),
        Value::Text(text) | Value::Type(text) => text.hash(&mut hasher),
        Value::Bytes(bytes) => bytes.hash(&mut hasher),
        Value::Timestamp(at) => at.hash(&mut hasher),
        Value::Duration(value) => value.hash(&mut hasher),
        // Lists of some kinds are equal in any order.
        Value::List(list) => list.len().hash(&mut hasher),
        Value::Map(map) => {
            let entries = map.entries();
            let marks = entries.iter().map(|(key, value)| mark(key).rotate_left(1) ^ mark(value));
            marks.fold(0_u64, u64::wrapping_add).hash(&mut hasher);
        }
        Value::Null | Value::Optional(_) | Value::Opaque(_) => {}
        Value::Int(_) | Value::Uint(_) | Value::Double(_) => {
            // Zero has two signs.
            as_double(value).map(|double| (double + 0.0).to_bits()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[expect(clippy::cast_precision_loss, reason = "CEL compares numbers of two kinds as doubles")]
fn as_double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    }
}

fn numbers(one: &Value<'_>, other: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    };
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => as_double(one)?.partial_cmp(&as_double(other)?),
    }
}

/// The order of two values; `None` where there is none between them, as with not-a-number.
pub fn order(one: &Value<'_>, other: &Value<'_>) -> Result<Option<Ordering>, Fault> {
    Ok(match (one, other) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some((**a).cmp(&**b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
        ) => numbers(one, other),
        _ => return Err(Fault::NoOverload),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::schema::declared;
    use serde_json::{Value as Json, json};

    /// So many that work which grows with their square would take minutes.
    const MANY: usize = 200_000;

    #[test]
    fn large_maps_are_compared_in_one_walk() {
        let map = |last: i32| -> Json {
            let mut all: serde_json::Map<String, Json> =
                (0..MANY).map(|at| (at.to_string(), json!(at))).collect();
            all.insert("last".to_owned(), json!(last));
            Json::Object(all)
        };
        let (one, same, other) = (map(1), map(1), map(2));
        let is_equal = |a: &Json, b: &Json| equal(&Value::of(a, None), &Value::of(b, None));
        assert!(is_equal(&one, &same));
        assert!(!is_equal(&one, &other));
    }

    #[test]
    fn large_sets_are_compared_and_put_together_in_one_walk() {
        let schema = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        let decl = declared(&schema, "x", false).expect("a place");
        let set = |from: usize| -> Json { (from..from + MANY).rev().map(|at| at.to_string()).collect() };
        let turned: Json = (0..MANY).map(|at| at.to_string()).collect();
        let (one, more) = (set(0), set(1));
        let value = |json| Value::of(json, Some(&decl));
        assert!(equal(&value(&one), &value(&turned)));
        assert!(!equal(&value(&one), &value(&more)));
        let (Value::List(one), Value::List(more)) = (value(&one), value(&more)) else { panic!("lists") };
        let both = together(&one, &more).expect("a list");
        assert_eq!(both.len(), MANY + 1);
    }

    #[test]
    fn equal_values_have_the_same_mark() {
        let rows = [
            (Value::Int(1), Value::Double(1.0)),
            (Value::Double(0.0), Value::Double(-0.0)),
            (Value::Uint(u64::MAX), Value::Double(18_446_744_073_709_551_615.0)),
            (Value::text("a"), Value::text("a")),
            (Value::list(vec![Value::Int(1)]), Value::list(vec![Value::Uint(1)])),
        ];
        for (one, other) in rows {
            assert!(equal(&one, &other) && mark(&one) == mark(&other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn lists_beyond_any_budget_are_not_made() {
        let list = List::Own(Arc::new(vec![Value::Null; LENGTH_MAX]));
        assert_eq!(together(&list, &List::Own(Arc::new(vec![Value::Null]))).err(), Some(Fault::Limit));
    }
}
