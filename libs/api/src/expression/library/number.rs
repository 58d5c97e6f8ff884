//! Arithmetic and conversions of numbers. Whole numbers that do not fit are an error, as in CEL.

use super::super::value::{Fault, Value, told};
use super::{Cost, Written};

const SUMS: &[&str] = &["(int, int) int", "(uint, uint) uint", "(double, double) double"];

pub const TABLE: &[Written] = &[
    ("_+_", SUMS, Cost::One, |args| sum(args, i64::checked_add, u64::checked_add, |a, b| a + b)),
    ("_-_", SUMS, Cost::One, |args| sum(args, i64::checked_sub, u64::checked_sub, |a, b| a - b)),
    ("_*_", SUMS, Cost::One, |args| sum(args, i64::checked_mul, u64::checked_mul, |a, b| a * b)),
    ("_/_", SUMS, Cost::One, |args| match args {
        [_, Value::Int(0) | Value::Uint(0)] => told("division by zero"),
        args => sum(args, i64::checked_div, u64::checked_div, |a, b| a / b),
    }),
    ("_%_", &["(int, int) int", "(uint, uint) uint"], Cost::One, |args| match args {
        [Value::Double(_), _] => Err(Fault::NoOverload),
        [_, Value::Int(0) | Value::Uint(0)] => told("modulus by zero"),
        args => sum(args, i64::checked_rem, u64::checked_rem, |a, _| a),
    }),
    ("-_", &["(int) int", "(double) double"], Cost::One, |args| match args {
        [Value::Int(value)] => value.checked_neg().map(Value::Int).ok_or_else(overflow),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        _ => Err(Fault::NoOverload),
    }),
    ("int", &["(int) int", "(uint) int", "(double) int", "(string) int", "(timestamp) int"], Cost::One, int),
    ("uint", &["(uint) uint", "(int) uint", "(double) uint", "(string) uint"], Cost::One, uint),
    ("double", &["(double) double", "(int) double", "(uint) double", "(string) double"], Cost::One, double),
    ("string", &["(int) string", "(uint) string", "(double) string"], Cost::One, |args| match args {
        [Value::Int(value)] => Ok(Value::text(value.to_string())),
        [Value::Uint(value)] => Ok(Value::text(value.to_string())),
        [Value::Double(value)] => Ok(Value::text(shown(*value))),
        _ => Err(Fault::NoOverload),
    }),
];

fn overflow() -> Fault {
    Fault::Told("integer overflow".to_owned())
}

fn sum<'a>(
    args: &[Value<'a>],
    whole: fn(i64, i64) -> Option<i64>,
    natural: fn(u64, u64) -> Option<u64>,
    double: fn(f64, f64) -> f64,
) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Int(a), Value::Int(b)] => whole(*a, *b).map(Value::Int).ok_or_else(overflow),
        [Value::Uint(a), Value::Uint(b)] => natural(*a, *b)
            .map(Value::Uint)
            .ok_or_else(|| Fault::Told("unsigned integer overflow".to_owned())),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(double(*a, *b))),
        _ => Err(Fault::NoOverload),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn int<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Int(value)] => Ok(Value::Int(*value)),
        [Value::Uint(value)] => i64::try_from(*value).map(Value::Int).map_err(|_| overflow()),
        [Value::Double(value)] if value.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*value as i64)),
        [Value::Double(_)] => Err(overflow()),
        [Value::Text(text)] => {
            text.parse().map(Value::Int).or_else(|_| told("type conversion error from 'string' to 'int'"))
        }
        [Value::Timestamp(at)] => Ok(Value::Int(at.as_second())),
        _ => Err(Fault::NoOverload),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn uint<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let overflow = || Fault::Told("unsigned integer overflow".to_owned());
    match args {
        [Value::Uint(value)] => Ok(Value::Uint(*value)),
        [Value::Int(value)] => u64::try_from(*value).map(Value::Uint).map_err(|_| overflow()),
        [Value::Double(value)] if (0.0..18_446_744_073_709_551_615.0).contains(value) => {
            Ok(Value::Uint(*value as u64))
        }
        [Value::Double(_)] => Err(overflow()),
        [Value::Text(text)] => {
            text.parse().map(Value::Uint).or_else(|_| told("type conversion error from 'string' to 'uint'"))
        }
        _ => Err(Fault::NoOverload),
    }
}

#[expect(clippy::cast_precision_loss, reason = "that is what the conversion is")]
fn double<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Double(value)] => Ok(Value::Double(*value)),
        [Value::Int(value)] => Ok(Value::Double(*value as f64)),
        [Value::Uint(value)] => Ok(Value::Double(*value as f64)),
        [Value::Text(text)] => text
            .parse()
            .map(Value::Double)
            .or_else(|_| told("type conversion error from 'string' to 'double'")),
        _ => Err(Fault::NoOverload),
    }
}

/// A double as Go writes it: shortest, with an exponent where it is small or large.
pub fn shown(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let plain = value.to_string();
    // Go decides by the exponent of the shortest form, as if it had six digits.
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    if value == 0.0 || exponent.parse().is_ok_and(|exponent: i32| (-4..6).contains(&exponent)) {
        return plain;
    }
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn doubles_are_written_as_go_writes_them() {
        let rows = [
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (999_999.9, "999999.9"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-0.0, "-0"),
        ];
        for (value, want) in rows {
            assert_eq!(super::shown(value), want);
        }
    }
}
