//! What compares values whole: equality, membership, lists put together, and the sets extension.
//!
//! In: values. Out: a value, or that there was too much to compare: every step is counted as it is taken.

use super::super::equality::{equal, place, together};
use super::super::value::{Fault, List, Value};
use super::super::work::Work;
use super::{Cost, Counted};

const TWO: &[&str] = &["(list(A), list(A)) bool"];

pub const TABLE: &[Counted] = &[
    ("_==_", &["(A, A) bool"], Cost::Compare, |args, work| match args {
        [one, other] => equal(one, other, work).map(Value::Bool),
        _ => Err(Fault::NoOverload),
    }),
    ("_!=_", &["(A, A) bool"], Cost::Compare, |args, work| match args {
        [one, other] => equal(one, other, work).map(|same| Value::Bool(!same)),
        _ => Err(Fault::NoOverload),
    }),
    ("_+_", &["(list(A), list(A)) list(A)"], Cost::AddList, |args, work| match args {
        [Value::List(one), Value::List(other)] => together(one, other, work).map(Value::List),
        _ => Err(Fault::NoOverload),
    }),
    ("@in", &["(A, list(A)) bool"], Cost::In, |args, work| match args {
        [item, Value::List(list)] => Ok(Value::Bool(place(item, list.iter(), work)?.is_some())),
        _ => Err(Fault::NoOverload),
    }),
    ("indexOf", &["list(A).(A) int"], Cost::Walk, |args, work| match args {
        [Value::List(list), item] => Ok(told(place(item, list.iter(), work)?)),
        _ => Err(Fault::NoOverload),
    }),
    ("lastIndexOf", &["list(A).(A) int"], Cost::Walk, |args, work| match args {
        [Value::List(list), item] => {
            let backwards = (0..list.len()).rev().filter_map(|at| list.get(at));
            let found = place(item, backwards, work)?;
            Ok(told(found.map(|at| list.len() - 1 - at)))
        }
        _ => Err(Fault::NoOverload),
    }),
    ("sets.contains", TWO, Cost::Sets(1), |args, work| two(args, work, contains)),
    ("sets.intersects", TWO, Cost::Sets(1), |args, work| {
        two(args, work, |one, other, work| {
            for item in one.iter() {
                if place(&item, other.iter(), work)?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }),
    ("sets.equivalent", TWO, Cost::Sets(2), |args, work| {
        two(args, work, |one, other, work| Ok(contains(one, other, work)? && contains(other, one, work)?))
    }),
];

fn told<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn two<'a>(
    args: &[Value<'a>],
    work: &mut Work,
    holds: fn(&List<'a>, &List<'a>, &mut Work) -> Result<bool, Fault>,
) -> Result<Value<'a>, Fault> {
    match args {
        [Value::List(one), Value::List(other)] => holds(one, other, work).map(Value::Bool),
        _ => Err(Fault::NoOverload),
    }
}

fn contains(one: &List<'_>, other: &List<'_>, work: &mut Work) -> Result<bool, Fault> {
    for item in other.iter() {
        if place(&item, one.iter(), work)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
