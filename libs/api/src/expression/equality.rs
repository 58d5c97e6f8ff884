//! Values side by side: their equality and order as CEL has them, and lists whose items belong together by their kind.
//!
//! In: two values. Out: whether they are equal, which comes first, or both lists together. Invariants: the work is about as
//! much as the values are long, whatever a client writes into them, and each step of it is counted.

use super::types::ListKind;
use super::value::{Fault, List, Map, Value};
use super::work::Work;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The longest list that two make together: a walk over a longer one would be over the budget.
const LENGTH_MAX: usize = 1_000_000;

/// Whether two values are equal. Numbers of all kinds are compared as numbers.
///
/// # Errors
/// There are more parts than there is work left.
pub fn equal(one: &Value<'_>, other: &Value<'_>, work: &mut Work) -> Result<bool, Fault> {
    work.step(1)?;
    Ok(match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => {
            work.look(std::slice::from_ref(one))?;
            a == b
        }
        (Value::Type(a), Value::Type(b)) | (Value::Text(a), Value::Text(b)) => {
            work.look(std::slice::from_ref(one))?;
            **a == **b
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b, work)?,
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Opaque(a), Value::Opaque(b)) => a.equals(b),
        (Value::List(a), Value::List(b)) => lists_equal(a, b, work)?,
        (Value::Map(a), Value::Map(b)) => maps_equal(a, b, work)?,
        _ => numbers(one, other) == Some(Ordering::Equal),
    })
}

/// Where a value is among others.
///
/// # Errors
/// There are more parts than there is work left.
pub fn place<'v, 'a: 'v>(
    wanted: &Value<'_>,
    among: impl IntoIterator<Item = Value<'a>>,
    work: &mut Work,
) -> Result<Option<usize>, Fault> {
    for (at, own) in among.into_iter().enumerate() {
        if equal(&own, wanted, work)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn lists_equal(one: &List<'_>, other: &List<'_>, work: &mut Work) -> Result<bool, Fault> {
    if one.len() != other.len() {
        return Ok(false);
    }
    let kind = if *one.kind() == ListKind::Atomic { other.kind() } else { one.kind() };
    match kind {
        ListKind::Atomic => {
            for (one, other) in one.iter().zip(other.iter()) {
                if !equal(&one, &other, work)? {
                    return Ok(false);
                }
            }
        }
        ListKind::Set | ListKind::Map(_) => {
            let mut marked: HashMap<u64, Vec<Value<'_>>> = HashMap::new();
            for item in other.iter() {
                marked.entry(mark(&item, work)?).or_default().push(item);
            }
            for item in one.iter() {
                let Some(all) = marked.get(&mark(&item, work)?) else { return Ok(false) };
                if place(&item, all.iter().cloned(), work)?.is_none() {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

fn maps_equal(one: &Map<'_>, other: &Map<'_>, work: &mut Work) -> Result<bool, Fault> {
    if one.len() != other.len() {
        return Ok(false);
    }
    work.step(one.len() as u64)?;
    for (key, value) in &one.entries() {
        match other.get(key) {
            Some(own) if equal(&own, value, work)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Two lists together: sets keep one of each, items of maps replace those with their keys.
///
/// # Errors
/// That is longer than any budget allows to look at, or there is not as much work left.
pub fn together<'a>(one: &List<'a>, other: &List<'a>, work: &mut Work) -> Result<List<'a>, Fault> {
    if one.len() + other.len() > LENGTH_MAX {
        return Err(Fault::Limit);
    }
    work.step((one.len() + other.len()) as u64)?;
    let kind = if *one.kind() == ListKind::Atomic { other.kind() } else { one.kind() };
    let keys = match kind {
        ListKind::Atomic => return Ok(List::Own(Arc::new(one.iter().chain(other.iter()).collect()))),
        ListKind::Set => None,
        ListKind::Map(keys) => Some(keys),
    };
    let mut items: Vec<Value<'a>> = one.iter().collect();
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        places.entry(mark_of_item(item, keys, work)?).or_default().push(at);
    }
    for item in other.iter() {
        let marked = places.entry(mark_of_item(&item, keys, work)?).or_default();
        let mut same = None;
        for at in &*marked {
            if same_item(&items[*at], &item, keys, work)? {
                same = Some(*at);
                break;
            }
        }
        match same {
            Some(at) => items[at] = item,
            None => {
                marked.push(items.len());
                items.push(item);
            }
        }
    }
    Ok(List::Own(Arc::new(items)))
}

/// Whether two items are the same one: by their keys where the list is a map.
fn same_item(
    one: &Value<'_>,
    other: &Value<'_>,
    keys: Option<&Vec<String>>,
    work: &mut Work,
) -> Result<bool, Fault> {
    let Some(keys) = keys else { return equal(one, other, work) };
    for key in keys {
        let same = match (one.field(key), other.field(key)) {
            (Ok(Some(one)), Ok(Some(other))) => equal(&one, &other, work)?,
            (one, other) => matches!((one, other), (Ok(None), Ok(None))),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn mark_of_item(item: &Value<'_>, keys: Option<&Vec<String>>, work: &mut Work) -> Result<u64, Fault> {
    let Some(keys) = keys else { return mark(item, work) };
    let mut hasher = DefaultHasher::new();
    for key in keys {
        let value = item.field(key).ok().flatten();
        value.map(|value| mark(&value, work)).transpose()?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// A number that is the same of equal values, and mostly another one of others.
fn mark(value: &Value<'_>, work: &mut Work) -> Result<u64, Fault> {
    work.step(1)?;
    work.look(std::slice::from_ref(value))?;
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
            work.step(map.len() as u64)?;
            let mut marks = 0_u64;
            for (key, value) in &map.entries() {
                marks = marks.wrapping_add(mark(key, work)?.rotate_left(1) ^ mark(value, work)?);
            }
            marks.hash(&mut hasher);
        }
        Value::Null | Value::Optional(_) | Value::Opaque(_) => {}
        Value::Int(_) | Value::Uint(_) | Value::Double(_) => {
            // Zero has two signs.
            as_double(value).map(|double| (double + 0.0).to_bits()).hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
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

    fn work() -> Work {
        Work::within(1_000_000)
    }

    fn same(one: &Value<'_>, other: &Value<'_>) -> bool {
        equal(one, other, &mut work()).expect("enough work")
    }

    #[test]
    fn large_maps_are_compared_in_one_walk() {
        let map = |last: i32| -> Json {
            let mut all: serde_json::Map<String, Json> =
                (0..MANY).map(|at| (at.to_string(), json!(at))).collect();
            all.insert("last".to_owned(), json!(last));
            Json::Object(all)
        };
        let (one, again, other) = (map(1), map(1), map(2));
        let is_equal = |a: &Json, b: &Json| same(&Value::of(a, None), &Value::of(b, None));
        assert!(is_equal(&one, &again));
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
        assert!(same(&value(&one), &value(&turned)));
        assert!(!same(&value(&one), &value(&more)));
        let (Value::List(one), Value::List(more)) = (value(&one), value(&more)) else { panic!("lists") };
        let both = together(&one, &more, &mut work()).expect("a list");
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
            let marks = (mark(&one, &mut work()), mark(&other, &mut work()));
            assert!(same(&one, &other) && marks.0 == marks.1, "{one:?} {other:?}");
        }
    }

    #[test]
    fn lists_beyond_any_budget_are_not_made() {
        let list = List::Own(Arc::new(vec![Value::Null; LENGTH_MAX]));
        assert_eq!(
            together(&list, &List::Own(Arc::new(vec![Value::Null])), &mut work()).err(),
            Some(Fault::Limit)
        );
    }
}
