//! Semantic versions, and lenient reading of what is nearly one.

use super::super::value::{Fault, Value, told};
use super::{Cost, Opaque, Written};
use std::cmp::Ordering;
use std::sync::Arc;

/// A version: three numbers, and what comes before the release.
#[derive(Clone, Debug)]
pub struct Semver {
    numbers: [u64; 3],
    before: Vec<String>,
}

pub const TABLE: &[Written] = &[
    ("semver", &["(string) semver", "(string, bool) semver"], Cost::One, |args| match read(args)? {
        Ok(version) => Ok(Value::Opaque(Arc::new(Opaque::Semver(version)))),
        Err(why) => told(why),
    }),
    ("isSemver", &["(string) bool", "(string, bool) bool"], Cost::One, |args| {
        Ok(Value::Bool(read(args)?.is_ok()))
    }),
    ("major", &["semver.() int"], Cost::One, |args| part(args, 0)),
    ("minor", &["semver.() int"], Cost::One, |args| part(args, 1)),
    ("patch", &["semver.() int"], Cost::One, |args| part(args, 2)),
    ("isGreaterThan", &["semver.(semver) bool"], Cost::One, |args| {
        Ok(Value::Bool(compared(args)? == Ordering::Greater))
    }),
    ("isLessThan", &["semver.(semver) bool"], Cost::One, |args| {
        Ok(Value::Bool(compared(args)? == Ordering::Less))
    }),
    ("compareTo", &["semver.(semver) int"], Cost::One, |args| Ok(Value::Int(compared(args)? as i64))),
];

fn read(args: &[Value<'_>]) -> Result<Result<Semver, String>, Fault> {
    match args {
        [Value::Text(text)] | [Value::Text(text), Value::Bool(false)] => Ok(Semver::parse(text)),
        [Value::Text(text), Value::Bool(true)] => Ok(Semver::parse(&normalized(text))),
        _ => Err(Fault::NoOverload),
    }
}

fn own<'s>(value: &'s Value<'_>) -> Result<&'s Semver, Fault> {
    match value {
        Value::Opaque(value) => match value.as_ref() {
            Opaque::Semver(version) => Ok(version),
            _ => Err(Fault::NoOverload),
        },
        _ => Err(Fault::NoOverload),
    }
}

fn part<'a>(args: &[Value<'a>], at: usize) -> Result<Value<'a>, Fault> {
    let number = own(args.first().ok_or(Fault::NoOverload)?)?.numbers[at];
    Ok(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn compared(args: &[Value<'_>]) -> Result<Ordering, Fault> {
    match args {
        [one, other] => Ok(own(one)?.cmp(own(other)?)),
        _ => Err(Fault::NoOverload),
    }
}

/// A leading `v` and zeros fall away, absent numbers are zero.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts: Vec<&str> = numbers
        .split('.')
        .map(|number| {
            let short = number.trim_start_matches('0');
            if short.is_empty() && !number.is_empty() { "0" } else { short }
        })
        .collect();
    while parts.len() < 3 {
        parts.push("0");
    }
    format!("{}{rest}", parts.join("."))
}

impl Semver {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (numbers, before) = text.split_once('-').map_or((text, None), |(head, tail)| (head, Some(tail)));
        let parts: Vec<&str> = numbers.split('.').collect();
        let [major, minor, patch] = parts.as_slice() else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let number = |text: &str, what: &str| -> Result<u64, String> {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("Invalid character(s) found in {what} number {text:?}"));
            }
            if text.len() > 1 && text.starts_with('0') {
                return Err(format!("{} number must not contain leading zeroes {text:?}", capital(what)));
            }
            text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
        };
        let numbers = [number(major, "major")?, number(minor, "minor")?, number(patch, "patch")?];
        let before: Vec<String> = before.iter().flat_map(|text| text.split('.')).map(str::to_owned).collect();
        let fine =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let told = before.iter().map(String::as_str).chain(build.iter().flat_map(|build| build.split('.')));
        for part in told {
            if !fine(part) {
                return Err(format!("Invalid character(s) found in prerelease {part:?}"));
            }
        }
        Ok(Self { numbers, before })
    }

    /// The order of versions: a release comes after what comes before it.
    pub fn cmp(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        let released = || other.before.is_empty().cmp(&self.before.is_empty()).reverse();
        numbers.then_with(released).then_with(|| {
            let pairs = self.before.iter().zip(&other.before).map(|(one, other)| {
                match (one.parse::<u64>(), other.parse::<u64>()) {
                    (Ok(one), Ok(other)) => one.cmp(&other),
                    (Ok(_), Err(_)) => Ordering::Less,
                    (Err(_), Ok(_)) => Ordering::Greater,
                    (Err(_), Err(_)) => one.cmp(other),
                }
            });
            let first = pairs.into_iter().find(|order| order.is_ne());
            first.unwrap_or_else(|| self.before.len().cmp(&other.before.len()))
        })
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
