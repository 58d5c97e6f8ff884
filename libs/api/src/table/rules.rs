//! The rules of `data/columns.txt`, read once.

use super::{Row, age, config, network, pod, workload};
use crate::selector::LabelSelector;
use serde_json::Value;

/// A cell made by code.
pub(super) type Cell = fn(&Row<'_>) -> Value;

/// How a cell comes from an object.
pub(super) enum Rule {
    /// The value there, or this.
    Value(&'static str, Value),
    /// The same as text.
    Text(&'static str, Value),
    Age(&'static str, &'static str),
    /// How many items these hold together.
    Count(Vec<&'static str>),
    /// `ready/wanted`.
    Ratio(&'static str, &'static str),
    /// A key of each item, or the items themselves, joined by commas.
    Join(&'static str, &'static str, &'static str),
    Labels(&'static str),
    Selector(&'static str),
    Code(Cell),
}

impl Rule {
    /// Reads a rule of the table.
    pub fn parse(text: &'static str) -> Self {
        let (rule, absent) = text.split_once('?').unwrap_or((text, ""));
        let value = || serde_json::from_str(absent).unwrap_or_else(|_| Value::from(absent));
        let (verb, rest) = rule.split_once(':').unwrap_or(("", rule));
        let pair = || rest.split_once(':').unwrap_or((rest, ""));
        match verb {
            "age" => Self::Age(rest, if absent.is_empty() { "<unknown>" } else { absent }),
            "text" => Self::Text(rest, value()),
            "len" => Self::Count(rest.split(':').collect()),
            "ratio" => Self::Ratio(pair().0, pair().1),
            "join" => Self::Join(pair().0, pair().1, absent),
            "labels" => Self::Labels(rest),
            "selector" => Self::Selector(rest),
            "fn" => Self::Code(code(rest).unwrap_or(|_| Value::Null)),
            _ => Self::Value(rule, value()),
        }
    }

    pub fn cell(&self, row: &Row<'_>) -> Value {
        let found = |pointer: &str| {
            row.object.pointer(pointer).filter(|value| !value.is_null() && value.as_str() != Some(""))
        };
        match self {
            Self::Value(pointer, absent) => found(pointer).unwrap_or(absent).clone(),
            Self::Text(pointer, absent) => plain(found(pointer).unwrap_or(absent)).into(),
            Self::Age(pointer, absent) => {
                found(pointer).map_or_else(|| (*absent).into(), |_| row.age(pointer).into())
            }
            Self::Count(pointers) => pointers
                .iter()
                .map(|pointer| match row.object.pointer(pointer) {
                    Some(Value::Object(map)) => map.len(),
                    Some(Value::Array(list)) => list.len(),
                    _ => 0,
                })
                .sum::<usize>()
                .into(),
            Self::Ratio(some, all) => format!("{}/{}", row.number(some), row.number(all)).into(),
            Self::Join(list, key, absent) => {
                let item = |item: &Value| plain(if key.is_empty() { item } else { &item[*key] });
                let joined = row.list(list).iter().map(item).collect::<Vec<_>>().join(",");
                if joined.is_empty() { (*absent).into() } else { joined.into() }
            }
            Self::Labels(pointer) => labels(row.object.pointer(pointer).unwrap_or(&Value::Null)).into(),
            Self::Selector(pointer) => selector(row.object.pointer(pointer).unwrap_or(&Value::Null)).into(),
            Self::Code(cell) => cell(row),
        }
    }
}

/// A scalar as text.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn labels(map: &Value) -> String {
    let mut pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", plain(value))).collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

fn selector(object: &Value) -> String {
    match LabelSelector::from_object(object) {
        Ok(selector) if selector.requirements().is_empty() => "<none>".to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// The first three, and how many more.
pub(super) fn first_three(items: &[String]) -> String {
    let shown = items[..items.len().min(3)].join(",");
    if items.len() > 3 { format!("{shown} + {} more...", items.len() - 3) } else { shown }
}

/// The function of a name in the table.
fn code(name: &str) -> Option<Cell> {
    [pod::CELLS, workload::CELLS, network::CELLS, config::CELLS]
        .into_iter()
        .flatten()
        .find(|(known, _)| *known == name)
        .map(|(_, cell)| *cell)
}

/// A duration between two times, or until now.
pub(super) fn between(start: &str, end: &str, row: &Row<'_>) -> Option<String> {
    let start: jiff::Timestamp = start.parse().ok()?;
    let end = end.parse().unwrap_or(row.now);
    Some(age::human_duration(end.duration_since(start).as_secs()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_function_of_the_table_exists() {
        for line in include_str!("../../data/columns.txt").lines() {
            if let Some(name) = line.split('|').nth(4).and_then(|rule| rule.strip_prefix("fn:")) {
                assert!(super::code(name).is_some(), "{name}");
            }
        }
    }
}
