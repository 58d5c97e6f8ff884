//! Kubernetes' functions of lists. Those that compare items whole are in compare.rs.

use super::super::equality::order;
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
];

fn one<'s, 'a>(args: &'s [Value<'a>]) -> Result<&'s List<'a>, Fault> {
    match args {
        [Value::List(list)] => Ok(list),
        _ => Err(Fault::NoOverload),
    }
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
