//! The parameters of requests, as `data/parameters.txt` has them.

use super::descriptions;
use serde_json::{Value, json};
use std::sync::LazyLock;

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// A parameter of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameter {
    pub name: String,
    /// `query` or `path`.
    pub place: &'static str,
    kind: &'static str,
    description: String,
    /// What it is called where version 2 shares it; empty where it does not.
    shared: String,
}

struct Row {
    options: &'static str,
    parameter: Parameter,
}

static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let lines = include_str!("../../data/parameters.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(row).collect()
});

fn row(line: &'static str) -> Option<Row> {
    let mut parts = line.splitn(4, '|');
    let (options, name) = parts.next()?.split_once('.')?;
    let (kind, suffix, told) = (parts.next()?, parts.next()?, parts.next()?);
    let description = match told {
        "" => descriptions::of_field(DELETE_OPTIONS, name).unwrap_or_default().to_owned(),
        told => told.replace("\\n", "\n"),
    };
    let place = if options == "Path" && name != "pretty" { "path" } else { "query" };
    let shared = if suffix.is_empty() { String::new() } else { format!("{name}-{suffix}") };
    Some(Row { options, parameter: Parameter { name: name.to_owned(), place, kind, description, shared } })
}

/// Those that belong to `options`, in order.
pub(super) fn of(options: &str) -> Vec<Parameter> {
    let rows = TABLE.iter().filter(|row| row.options == options);
    rows.map(|row| row.parameter.clone()).collect()
}

/// Some of those that belong to `options`.
pub(super) fn some(options: &str, names: &[&str]) -> Vec<Parameter> {
    of(options).into_iter().filter(|parameter| names.contains(&parameter.name.as_str())).collect()
}

/// The object's name in a path.
pub(super) fn name_of(kind: &str) -> Parameter {
    Parameter {
        name: "name".to_owned(),
        place: "path",
        kind: "string",
        description: format!("name of the {kind}"),
        shared: String::new(),
    }
}

impl Parameter {
    /// As version 3 has it.
    pub fn v3(&self) -> Value {
        let mut told = json!({"name": self.name, "in": self.place, "description": self.description,
            "schema": {"type": self.kind, "uniqueItems": true}});
        if self.place == "path" {
            told["required"] = json!(true);
        }
        told
    }

    /// As version 2 has it where it is used.
    pub fn v2(&self) -> Value {
        if self.shared.is_empty() { self.v2_whole() } else { shared_reference(&self.shared) }
    }

    fn v2_whole(&self) -> Value {
        let mut told = json!({"name": self.name, "in": self.place, "description": self.description,
            "type": self.kind, "uniqueItems": true});
        if self.place == "path" {
            told["required"] = json!(true);
        }
        told
    }
}

/// A reference to what version 2 shares.
pub(super) fn shared_reference(name: &str) -> Value {
    json!({"$ref": format!("#/parameters/{name}")})
}

/// What version 2 shares: names and parameters.
pub(super) fn shared() -> impl Iterator<Item = (String, Value)> {
    let rows = TABLE.iter().map(|row| &row.parameter).filter(|parameter| !parameter.shared.is_empty());
    rows.map(|parameter| (parameter.shared.clone(), parameter.v2_whole()))
}
