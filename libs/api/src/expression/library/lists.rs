//! Kubernetes' functions of lists, and the sets extension.

use super::super::equality::{equal, order};
use super::super::value::{Fault, List, Value, told};
use super::{Cost, Written, number, time};
use jiff::SignedDuration;
use std::cmp::Ordering;

const COMPARABLE: &[&str] = &[
    "list(int).() int",
    "list(uint).() uint",
    "list(double).() double",
    "list(bool).() bool",
    "list(string).() string",
    "list(bytes).() bytes",
    "list(timestamp).() timestamp",
    "list(duration).() duration",
];
const SORTABLE: &[&str] = &[
    "list(int).() bool",
    "list(uint).() bool",
    "list(double).() bool",
    "list(bool).() bool",
    "list(string).() bool",
    "list(bytes).() bool",
    "list(timestamp).() bool",
    "list(duration).() bool",
];
const SUMMABLE: &[&str] =
    &["list(int).() int", "list(uint).() uint", "list(double).() double", "list(duration).() duration"];
const TWO: &[&str] = &["(list(A), list(A)) bool"];

pub const TABLE: &[Written] = &[
    ("isSorted", SORTABLE, Cost::Walk, |args| {
        let mut before: Option<Value<'_>> = None;
        for item in one(args)?.iter() {
            if let Some(before) = &before
                && order(before, &item)? == Some(Ordering::Greater)
            {
                return Ok(Value::Bool(false));
            }
            before = Some(item);
        }
        Ok(Value::Bool(true))
    }),
    ("min", COMPARABLE, Cost::Walk, |args| extreme(args, "min", Ordering::Less)),
    ("max", COMPARABLE, Cost::Walk, |args| extreme(args, "max", Ordering::Greater)),
    ("sum", SUMMABLE, Cost::Walk, sum),
    ("indexOf", &["list(A).(A) int"], Cost::Walk, |args| match args {
        [Value::List(list), item] => Ok(place(list.iter().position(|own| equal(&own, item)))),
        _ => Err(Fault::NoOverload),
    }),
    ("lastIndexOf", &["list(A).(A) int"], Cost::Walk, |args| match args {
        [Value::List(list), item] => {
            let items: Vec<Value<'_>> = list.iter().collect();
            Ok(place(items.iter().rposition(|own| equal(own, item))))
        }
        _ => Err(Fault::NoOverload),
    }),
    ("sets.contains", TWO, Cost::Sets(1), |args| two(args, contains)),
    ("sets.intersects", TWO, Cost::Sets(1), |args| {
        two(args, |one, other| one.iter().any(|item| other.iter().any(|own| equal(&own, &item))))
    }),
    ("sets.equivalent", TWO, Cost::Sets(2), |args| {
        two(args, |one, other| contains(one, other) && contains(other, one))
    }),
];

fn one<'s, 'a>(args: &'s [Value<'a>]) -> Result<&'s List<'a>, Fault> {
    match args {
        [Value::List(list)] => Ok(list),
        _ => Err(Fault::NoOverload),
    }
}

fn two<'a>(args: &[Value<'a>], holds: fn(&List<'a>, &List<'a>) -> bool) -> Result<Value<'a>, Fault> {
    match args {
        [Value::List(one), Value::List(other)] => Ok(Value::Bool(holds(one, other))),
        _ => Err(Fault::NoOverload),
    }
}

fn contains(one: &List<'_>, other: &List<'_>) -> bool {
    other.iter().all(|item| one.iter().any(|own| equal(&own, &item)))
}

fn place<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Result<Value<'a>, Fault> {
    let mut best: Option<Value<'a>> = None;
    for item in one(args)?.iter() {
        let better = match &best {
            Some(best) => order(&item, best)? == Some(wanted),
            None => true,
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| Fault::Told(format!("{name} called on empty list")))
}

fn sum<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let mut total: Option<Value<'a>> = None;
    for item in one(args)?.iter() {
        total = Some(match total {
            None => item,
            Some(so_far) => plus(so_far, item)?,
        });
    }
    // The type of the first overload: an empty list of another type is told so by `typed_zero`.
    Ok(total.unwrap_or(Value::Int(0)))
}

fn plus<'a>(one: Value<'a>, other: Value<'a>) -> Result<Value<'a>, Fault> {
    let table = if matches!(one, Value::Duration(_)) { time::TABLE } else { number::TABLE };
    match table.iter().find(|(name, ..)| *name == "_+_") {
        Some((.., run)) => run(&[one, other]),
        None => told("no sums"),
    }
}

/// What the sum of an empty list of a type is.
pub fn typed_zero<'a>(ty: &super::super::types::Type) -> Value<'a> {
    use super::super::types::Type;
    match ty {
        Type::Uint => Value::Uint(0),
        Type::Double => Value::Double(0.0),
        Type::Duration => Value::Duration(SignedDuration::ZERO),
        _ => Value::Int(0),
    }
}
