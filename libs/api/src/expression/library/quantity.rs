//! Quantities: `1Gi`, `200m`.

use super::super::value::{Fault, Value, told};
use super::{Cost, Opaque, Written};
use crate::quantity::Quantity;
use std::cmp::Ordering;
use std::sync::Arc;

pub const TABLE: &[Written] = &[
    ("quantity", &["(string) quantity"], Cost::ScanUntold, |args| match args {
        [Value::Text(text)] => match Quantity::parse(text) {
            Ok(quantity) => Ok(of(quantity)),
            Err(why) => told(why.to_string()),
        },
        _ => Err(Fault::NoOverload),
    }),
    ("isQuantity", &["(string) bool"], Cost::ScanUntold, |args| match args {
        [Value::Text(text)] => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        _ => Err(Fault::NoOverload),
    }),
    ("isInteger", &["quantity.() bool"], Cost::One, |args| {
        Ok(Value::Bool(one(args)?.is_whole() && exact(one(args)?).is_some()))
    }),
    ("asInteger", &["quantity.() int"], Cost::One, |args| {
        exact(one(args)?)
            .map(Value::Int)
            .ok_or_else(|| Fault::Told("cannot convert value to integer".to_owned()))
    }),
    ("asApproximateFloat", &["quantity.() double"], Cost::One, |args| {
        Ok(Value::Double(one(args)?.fraction_of(Quantity::from_units(1))))
    }),
    ("sign", &["(quantity) int"], Cost::One, |args| {
        let quantity = one(args)?;
        Ok(Value::Int(match (quantity.is_zero(), quantity.is_negative()) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }))
    }),
    ("add", &["quantity.(quantity) quantity", "quantity.(int) quantity"], Cost::One, |args| {
        let (one, other) = two(args)?;
        Ok(of(one + other))
    }),
    ("sub", &["quantity.(quantity) quantity", "quantity.(int) quantity"], Cost::One, |args| {
        let (one, other) = two(args)?;
        Ok(of(one - other))
    }),
    ("isGreaterThan", &["quantity.(quantity) bool"], Cost::One, |args| {
        let (one, other) = two(args)?;
        Ok(Value::Bool(one.cmp(&other) == Ordering::Greater))
    }),
    ("isLessThan", &["quantity.(quantity) bool"], Cost::One, |args| {
        let (one, other) = two(args)?;
        Ok(Value::Bool(one.cmp(&other) == Ordering::Less))
    }),
    ("compareTo", &["quantity.(quantity) int"], Cost::One, |args| {
        let (one, other) = two(args)?;
        Ok(Value::Int(one.cmp(&other) as i64))
    }),
];

fn of<'a>(quantity: Quantity) -> Value<'a> {
    Value::Opaque(Arc::new(Opaque::Quantity(quantity)))
}

fn quantity(value: &Value<'_>) -> Result<Quantity, Fault> {
    match value {
        Value::Opaque(value) => match value.as_ref() {
            Opaque::Quantity(quantity) => Ok(*quantity),
            _ => Err(Fault::NoOverload),
        },
        _ => Err(Fault::NoOverload),
    }
}

fn one(args: &[Value<'_>]) -> Result<Quantity, Fault> {
    quantity(args.first().ok_or(Fault::NoOverload)?)
}

fn two(args: &[Value<'_>]) -> Result<(Quantity, Quantity), Fault> {
    match args {
        [own, Value::Int(other)] => Ok((quantity(own)?, Quantity::from_units(*other))),
        [own, other] => Ok((quantity(own)?, quantity(other)?)),
        _ => Err(Fault::NoOverload),
    }
}

/// The whole number that it is, if it fits.
fn exact(quantity: Quantity) -> Option<i64> {
    let value = quantity.value();
    (quantity.is_whole() && Quantity::from_units(value).cmp(&quantity).is_eq()).then_some(value)
}
