//! `meta.k8s.io/v1` Tables: the columns that kubectl prints, computed as Kubernetes' printers do.
//!
//! Columns are data (`data/columns.txt`): a kind's line `GROUP/KIND`, then `NAME|TYPE|FORMAT|PRIORITY|RULE[|DESCRIPTION]`
//! for each column; a cell without a name has no column. A description `=TYPE.FIELD` is that of the field. A rule is a JSON pointer with the text of an absent value (`/spec/x?<none>`), or one of `age:`, `text:`,
//! `len:`, `ratio:`, `join:LIST:KEY`, `labels:`, `selector:`, or `fn:NAME`, a function where a rule cannot say it.

mod age;
mod config;
mod jsonpath;
mod network;
mod pod;
mod rules;
mod workload;

pub use age::{human_duration, since};

use crate::custom::Version;
use crate::kinds::Kind;
use crate::openapi;
use jiff::Timestamp;
use rules::Rule;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One column of a table.
struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    priority: i64,
    description: Cow<'static, str>,
    rule: Rule,
}

/// An object and the time it is looked at.
pub(crate) struct Row<'a> {
    object: &'a Value,
    now: Timestamp,
}

impl Row<'_> {
    /// A text by JSON pointer, empty when absent.
    fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
    /// A number by JSON pointer, zero when absent.
    fn number(&self, pointer: &str) -> i64 {
        self.object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
    }
    /// The items of a list by JSON pointer.
    fn list(&self, pointer: &str) -> &[Value] {
        self.object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
    /// The status of a condition, empty when there is none.
    fn condition(&self, kind: &str) -> &str {
        let found = self.list("/status/conditions").iter().find(|condition| condition["type"] == kind);
        found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
    }
    fn is_deleting(&self) -> bool {
        !self.text("/metadata/deletionTimestamp").is_empty()
    }
    fn age(&self, pointer: &str) -> String {
        since(self.text(pointer), self.now)
    }
}

static TABLES: LazyLock<HashMap<&'static str, Vec<Column>>> = LazyLock::new(|| {
    let mut tables: HashMap<&'static str, Vec<Column>> = HashMap::new();
    let mut current = "";
    for line in include_str!("../data/columns.txt").lines() {
        let mut parts = line.splitn(6, '|');
        let mut next = || parts.next().unwrap_or_default();
        let (name, kind, format, priority, rule, told) = (next(), next(), next(), next(), next(), next());
        if rule.is_empty() {
            current = name;
        } else {
            let (priority, rule) = (i64::from(priority == "1"), Rule::parse(rule));
            let column = Column { name, kind, format, priority, description: description(told), rule };
            tables.entry(current).or_default().push(column);
        }
    }
    tables
});

fn table(kind: &Kind) -> Option<&'static [Column]> {
    // Events of both groups are the same objects.
    let group = if kind.kind == "Event" { "" } else { kind.group.as_str() };
    TABLES.get(format!("{group}/{}", kind.kind).as_str()).map(Vec::as_slice)
}

fn description(told: &'static str) -> Cow<'static, str> {
    match told.strip_prefix('=') {
        Some(field) => openapi::description(field).unwrap_or_default().into(),
        None if told.contains("\\n") => told.replace("\\n", "\n").into(),
        None => told.into(),
    }
}

fn definition(column: &Column) -> Value {
    json!({"name": column.name, "type": column.kind, "format": column.format,
        "description": column.description, "priority": column.priority})
}

/// `columnDefinitions` of a kind.
#[must_use]
pub fn columns(kind: &Kind) -> Value {
    let of_object = |name: &str, kind: &str, format: &str, field: &str| {
        let told = openapi::description(&format!("apimachinery.pkg.apis.meta.v1.ObjectMeta.{field}"));
        json!({"name": name, "type": kind, "format": format, "description": told.unwrap_or_default(), "priority": 0})
    };
    let name = || of_object("Name", "string", "name", "name");
    if let Some(custom) = &kind.custom {
        let text = |column: &Value, key: &str| column[key].as_str().unwrap_or_default().to_owned();
        let printed = printer_columns(custom).into_iter().map(|column| {
            let described = match text(&column, "description") {
                told if told.is_empty() => {
                    let path = text(&column, "jsonPath");
                    format!("Custom resource definition column (in JSONPath format): {path}")
                }
                told => told,
            };
            json!({
                "name": text(&column, "name"), "type": text(&column, "type"), "format": text(&column, "format"),
                "description": described, "priority": column["priority"].as_i64().unwrap_or_default(),
            })
        });
        return std::iter::once(name()).chain(printed).collect();
    }
    match table(kind) {
        Some(table) => table.iter().filter(|column| !column.name.is_empty()).map(definition).collect(),
        None => json!([name(), of_object("Created At", "date", "", "creationTimestamp")]),
    }
}

/// Whether a kind is shown without a printer of its own, which leaves the rows unset where there are none.
#[must_use]
pub fn is_plain(kind: &Kind) -> bool {
    kind.custom.is_none() && table(kind).is_none()
}

/// The cells of one object; `now` gives ages.
#[must_use]
pub fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    let row = Row { object, now };
    let name = || row.text("/metadata/name").into();
    if let Some(custom) = &kind.custom {
        let printed = printer_columns(custom).into_iter().map(|column| jsonpath::cell(&column, object, now));
        return std::iter::once(name()).chain(printed).collect();
    }
    match table(kind) {
        Some(table) => table.iter().map(|column| column.rule.cell(&row)).collect(),
        None => vec![name(), row.text("/metadata/creationTimestamp").into()],
    }
}

/// What a custom kind declares, or its age.
fn printer_columns(custom: &Value) -> Vec<Value> {
    match custom["additionalPrinterColumns"].as_array() {
        Some(columns) if !columns.is_empty() => columns.clone(),
        _ => vec![age()],
    }
}

fn age() -> Value {
    let told = openapi::description("apimachinery.pkg.apis.meta.v1.ObjectMeta.creationTimestamp");
    json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": told})
}

/// What the Scale of a custom object declares.
#[must_use]
pub fn scale_of_custom() -> Version {
    let number = |name: &str, told: &str, path: &str| json!({"name": name, "type": "integer", "description": told, "jsonPath": path});
    Version::new(json!({"additionalPrinterColumns": [
        number("Desired", "Number of desired replicas", ".spec.replicas"),
        number("Available", "Number of actual replicas", ".status.replicas"),
        age(),
    ]}))
}

/// The `conditions` of a row: finished pods say so.
#[must_use]
pub fn row_conditions(kind: &Kind, object: &Value) -> Option<Value> {
    if kind.kind != "Pod" || !kind.group.is_empty() {
        return None;
    }
    let (reason, message) = match object["status"]["phase"].as_str()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

#[cfg(test)]
mod tests;
