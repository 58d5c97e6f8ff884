//! Patterns in texts: see pattern.rs. Compiled ones are kept, within bounds.

use super::super::value::{Fault, Value};
use super::super::work::Work;
use super::{Cost, Counted};
use crate::pattern::Pattern;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

pub const TABLE: &[Counted] = &[
    ("matches", &["string.(string) bool", "(string, string) bool"], Cost::Pattern, |args, work| match args {
        [Value::Text(text), Value::Text(pattern)] => {
            Ok(Value::Bool(counted(pattern, text, work)?.is_match(text)))
        }
        _ => Err(Fault::NoOverload),
    }),
    ("find", &["string.(string) string"], Cost::Find, |args, work| match args {
        [Value::Text(text), Value::Text(pattern)] => {
            let pattern = counted(pattern, text, work)?;
            Ok(Value::text(pattern.regex().find(text).map_or("", |found| found.as_str())))
        }
        _ => Err(Fault::NoOverload),
    }),
    (
        "findAll",
        &["string.(string) list(string)", "string.(string, int) list(string)"],
        Cost::Find,
        |args, work| {
            let (text, pattern, limit) = match args {
                [Value::Text(text), Value::Text(pattern)] => (text, pattern, -1),
                [Value::Text(text), Value::Text(pattern), Value::Int(limit)] => (text, pattern, *limit),
                _ => return Err(Fault::NoOverload),
            };
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let pattern = counted(pattern, text, work)?;
            let mut all = Vec::new();
            for found in pattern.regex().find_iter(text).take(limit) {
                // The rest may be gone over to the end for each.
                work.step(1 + (text.len() - found.start()) as u64 / TEXT_OF_ONE)?;
                all.push(Value::text(found.as_str()));
            }
            Ok(Value::list(all))
        },
    ),
];

/// Compiled patterns that are kept, and the heaviest of them.
const KEPT_MAX: usize = 256;
const KEPT_WEIGHT: u64 = 2_000;
/// Characters that are matched with one place of a pattern in one step.
const PLACES_OF_ONE: u64 = 400;
/// Characters that are gone over for one match in one step.
const TEXT_OF_ONE: u64 = 512;

static KEPT: LazyLock<Mutex<HashMap<String, Pattern>>> = LazyLock::new(Mutex::default);

fn kept() -> MutexGuard<'static, HashMap<String, Pattern>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pattern for a text: what matching may take at worst is counted first.
fn counted(pattern: &str, text: &str, work: &mut Work) -> Result<Pattern, Fault> {
    let pattern = compiled(pattern)?;
    let compiling = if pattern.weight() > KEPT_WEIGHT { pattern.weight() } else { 0 };
    work.step(compiling + (text.len() as u64).saturating_mul(pattern.weight()) / PLACES_OF_ONE)?;
    Ok(pattern)
}

/// A pattern, compiled; others need not wait meanwhile.
pub fn compiled(pattern: &str) -> Result<Pattern, Fault> {
    if let Some(known) = kept().get(pattern) {
        return Ok(known.clone());
    }
    let built = Pattern::new(pattern).map_err(Fault::Told)?;
    if built.weight() <= KEPT_WEIGHT {
        let mut kept = kept();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(pattern.to_owned(), built.clone());
    }
    Ok(built)
}
