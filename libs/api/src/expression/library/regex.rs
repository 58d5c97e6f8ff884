//! Patterns: RE2's syntax, of which Rust's is nearly the same. Compiled ones are kept, within bounds.

use super::super::value::{Fault, Value};
use super::{Cost, Written};
use regex::{Regex, RegexBuilder};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

pub const TABLE: &[Written] = &[
    ("matches", &["string.(string) bool", "(string, string) bool"], Cost::Pattern, |args| match args {
        [Value::Text(text), Value::Text(pattern)] => Ok(Value::Bool(compiled(pattern)?.is_match(text))),
        _ => Err(Fault::NoOverload),
    }),
    ("find", &["string.(string) string"], Cost::Find, |args| match args {
        [Value::Text(text), Value::Text(pattern)] => {
            let found = compiled(pattern)?.find(text).map_or("", |found| found.as_str()).to_owned();
            Ok(Value::text(found))
        }
        _ => Err(Fault::NoOverload),
    }),
    ("findAll", &["string.(string) list(string)", "string.(string, int) list(string)"], Cost::Find, |args| {
        let (text, pattern, limit) = match args {
            [Value::Text(text), Value::Text(pattern)] => (text, pattern, -1),
            [Value::Text(text), Value::Text(pattern), Value::Int(limit)] => (text, pattern, *limit),
            _ => return Err(Fault::NoOverload),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let pattern = compiled(pattern)?;
        let found = pattern.find_iter(text).take(limit).map(|found| Value::text(found.as_str()));
        Ok(Value::list(found.collect()))
    }),
];

/// Compiled patterns that are kept.
const KEPT_MAX: usize = 512;
/// The most memory of a compiled pattern.
const SIZE_MAX: usize = 1 << 20;

static KEPT: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);

fn kept() -> MutexGuard<'static, HashMap<String, Regex>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pattern, compiled; others need not wait meanwhile.
pub fn compiled(pattern: &str) -> Result<Regex, Fault> {
    if let Some(known) = kept().get(pattern) {
        return Ok(known.clone());
    }
    let built = RegexBuilder::new(pattern).size_limit(SIZE_MAX).build();
    let built = built.map_err(|error| {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Fault::Told(format!("error parsing regexp: {why}: `{pattern}`"))
    })?;
    let mut kept = kept();
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), built.clone());
    Ok(built)
}
