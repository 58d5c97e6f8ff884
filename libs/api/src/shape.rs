//! How the fields of each type merge: what patches and field ownership need to know of a schema, and no more.
//!
//! Built-in types stand in `data/shapes.txt`, a line each: `TYPE[ atomic]|FIELD=SHAPE[~PATCH STRATEGY[:MERGE KEY]]|…`.
//! A shape is a scalar (`s` text, `i` number, `b` boolean, `t` time), `?` anything, `@TYPE`, a list (`[a]` atomic,
//! `[s]` set, `[m:KEYS]` keyed) or map (`{a}` atomic, `{g}` granular) of a shape. `!` marks a field that Go writes even
//! when nobody set it, `^` one that it then writes as null. A custom resource's shape is read from its own schema.

use crate::kinds::Kind;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// What Go writes for a field that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unset {
    Nothing,
    Null,
    Zero,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub shape: Shape,
    unset: Unset,
    /// `merge`, `replace`, `retainKeys`, `merge,retainKeys`; empty for the default.
    pub strategy: String,
    /// The key that strategic patches match list items by.
    pub merge_key: String,
}

/// An object type with its fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Struct {
    pub atomic: bool,
    pub fields: HashMap<String, Field>,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    /// Not at all: the list is one value.
    Atomic,
    /// By their values.
    Set,
    /// By these fields, sorted.
    Keyed(Vec<String>),
}

/// How a value merges.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A scalar, with its zero.
    Scalar(Value),
    /// Anything: objects merge by key, everything else is one value.
    Any,
    /// A built-in type by its place in the table.
    Named(usize),
    /// A type of a custom resource's schema.
    Inline(Arc<Struct>),
    List(Items, Box<Shape>),
    /// Whether it is atomic, and what it holds.
    Map(bool, Box<Shape>),
}

struct Table {
    names: HashMap<&'static str, usize>,
    structs: Vec<Struct>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let lines: Vec<&'static str> = include_str!("../data/shapes.txt").lines().collect();
    let head = |line: &'static str| line.split('|').next().unwrap_or_default();
    let name = |line| head(line).trim_end_matches(" atomic");
    let names: HashMap<_, _> = lines.iter().enumerate().map(|(index, line)| (name(line), index)).collect();
    let structs = lines.iter().map(|line| Struct {
        atomic: head(line).ends_with(" atomic"),
        fields: line.split('|').skip(1).filter_map(|text| field(text, &names)).collect(),
    });
    Table { structs: structs.collect(), names }
});

fn field(text: &str, names: &HashMap<&str, usize>) -> Option<(String, Field)> {
    let (name, rest) = text.split_once('=')?;
    let (shape, patch) = rest.split_once('~').unwrap_or((rest, ""));
    let (strategy, merge_key) = patch.split_once(':').unwrap_or((patch, ""));
    let (unset, shape) = match shape.as_bytes().first()? {
        b'!' => (Unset::Zero, &shape[1..]),
        b'^' => (Unset::Null, &shape[1..]),
        _ => (Unset::Nothing, shape),
    };
    let shape = parse(shape, names);
    Some((name.to_owned(), Field { shape, unset, strategy: strategy.into(), merge_key: merge_key.into() }))
}

fn parse(text: &str, names: &HashMap<&str, usize>) -> Shape {
    if let Some((kind, item)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let items = match kind.strip_prefix("m:") {
            Some(keys) => Items::Keyed(keys.split(',').map(str::to_owned).collect()),
            None if kind == "s" => Items::Set,
            None => Items::Atomic,
        };
        return Shape::List(items, Box::new(parse(item, names)));
    }
    if let Some((kind, item)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) {
        return Shape::Map(kind == "a", Box::new(parse(item, names)));
    }
    match text {
        "s" => Shape::Scalar(Value::String(String::new())),
        "i" => Shape::Scalar(Value::from(0)),
        "b" => Shape::Scalar(Value::Bool(false)),
        "t" => Shape::Scalar(Value::Null),
        _ => {
            text.strip_prefix('@').and_then(|name| names.get(name)).map_or(Shape::Any, |at| Shape::Named(*at))
        }
    }
}

/// The shape of a kind's objects.
pub(crate) fn of(kind: &Kind) -> Shape {
    if let Some(custom) = &kind.custom {
        return custom_root(custom);
    }
    let name = kind
        .definition
        .trim_start_matches("io.k8s.")
        .replace("apiextensions-apiserver.pkg.apis.", "")
        .replace("kube-aggregator.pkg.apis.", "");
    TABLE.names.get(name.as_str()).map_or(Shape::Any, |at| Shape::Named(*at))
}

/// Whatever its schema says, a custom resource has standard metadata.
fn custom_root(custom: &Value) -> Shape {
    let schema = custom.pointer("/schema/openAPIV3Schema").or_else(|| custom.get("openAPIV3Schema"));
    let mut fields = match schema.map(from_json_schema) {
        Some(Shape::Inline(found)) => found.fields.clone(),
        _ => HashMap::new(),
    };
    fields.insert("metadata".to_owned(), plain(object_meta()));
    Shape::Inline(Arc::new(Struct { atomic: false, fields }))
}

/// The shape of standard metadata.
pub(crate) fn object_meta() -> Shape {
    TABLE.names.get("meta.v1.ObjectMeta").map_or(Shape::Any, |at| Shape::Named(*at))
}

fn plain(shape: Shape) -> Field {
    Field { shape, unset: Unset::Nothing, strategy: String::new(), merge_key: String::new() }
}

/// How a custom resource's schema tells the items of a list apart.
pub(crate) fn items_of(schema: &Value) -> Items {
    match schema["x-kubernetes-list-type"].as_str().unwrap_or_default() {
        "set" => Items::Set,
        "map" => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            let mut keys: Vec<String> = keys.filter_map(|key| key.as_str().map(str::to_owned)).collect();
            keys.sort();
            Items::Keyed(keys)
        }
        _ => Items::Atomic,
    }
}

fn from_json_schema(schema: &Value) -> Shape {
    let extension = |name: &str| schema[format!("x-kubernetes-{name}")].as_str().unwrap_or_default();
    match schema["type"].as_str().unwrap_or_default() {
        "array" => Shape::List(items_of(schema), Box::new(from_json_schema(&schema["items"]))),
        "object" => {
            let atomic = extension("map-type") == "atomic";
            let embeds = schema["x-kubernetes-embedded-resource"] == true;
            let properties = schema["properties"].as_object();
            if embeds || properties.is_some() {
                let fields = properties.into_iter().flatten().map(|(name, schema)| {
                    let mut shape = from_json_schema(schema);
                    if let (Shape::Scalar(zero), Some(default)) = (&mut shape, schema.get("default")) {
                        zero.clone_from(default);
                    }
                    (name.clone(), plain(shape))
                });
                let mut fields: HashMap<String, Field> = fields.collect();
                if embeds {
                    fields.insert("metadata".to_owned(), plain(object_meta()));
                }
                return Shape::Inline(Arc::new(Struct { atomic, fields }));
            }
            let item = schema["additionalProperties"].as_object();
            Shape::Map(
                atomic,
                Box::new(item.map_or(Shape::Any, |_| from_json_schema(&schema["additionalProperties"]))),
            )
        }
        "string" | "integer" | "number" | "boolean" => Shape::Scalar(Value::Null),
        _ => Shape::Any,
    }
}

impl Shape {
    /// The type with fields that this is, if it is one.
    pub(crate) fn fields(&self) -> Option<&Struct> {
        match self {
            Self::Named(at) => TABLE.structs.get(*at),
            Self::Inline(found) => Some(found),
            _ => None,
        }
    }
    /// The shape of a field or map value.
    pub(crate) fn at(&self, key: &str) -> &Shape {
        match self {
            Self::Map(_, item) => item,
            _ => self.field(key).map_or(&Self::Any, |field| &field.shape),
        }
    }
    /// A declared field.
    pub(crate) fn field(&self, key: &str) -> Option<&Field> {
        self.fields()?.fields.get(key)
    }
    /// Whether it is a name alone, which is empty where none is given.
    fn is_local_reference(&self) -> bool {
        matches!(self, Self::Named(at) if TABLE.names.get("api.core.v1.LocalObjectReference") == Some(at))
    }
    /// What an item that leaves out a key of its list counts as having there.
    pub(crate) fn key_default(&self, key: &str) -> Option<Value> {
        let field = self.field(key)?;
        match &field.shape {
            Self::Scalar(Value::String(zero)) if key == "protocol" && zero.is_empty() => Some("TCP".into()),
            // What Go always writes is what it is where nobody set it, and so are names of what is near.
            Self::Scalar(zero) if matches!(field.unset, Unset::Zero) || self.is_local_reference() => {
                Some(zero.clone())
            }
            Self::Scalar(default) if matches!(self, Self::Inline(_)) && !default.is_null() => {
                Some(default.clone())
            }
            _ => None,
        }
    }
    /// The object as Go writes it before anybody set a field.
    pub(crate) fn zero(&self) -> Value {
        let Some(found) = self.fields() else { return Value::Object(Map::new()) };
        let written = found.fields.iter().filter_map(|(name, field)| {
            let value = match (field.unset, &field.shape) {
                (Unset::Nothing, _) => return None,
                (Unset::Null, _) => Value::Null,
                (Unset::Zero, Shape::Scalar(zero)) => zero.clone(),
                (Unset::Zero, shape) => shape.zero(),
            };
            Some((name.clone(), value))
        });
        Value::Object(written.collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A row of the table of kinds, as far as shapes go.
    pub(crate) fn kind(api_version: &str, name: &str, definition: &str) -> Kind {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Kind {
            group: group.into(),
            version: version.into(),
            kind: name.into(),
            plural: format!("{}s", name.to_lowercase()),
            singular: name.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: Vec::new(),
            subresources: vec![crate::kinds::Subresource {
                name: "status".into(),
                group: group.into(),
                version: version.into(),
                kind: name.into(),
                verbs: Vec::new(),
            }],
            storage_version: api_version.into(),
            definition: definition.into(),
            custom: None,
        }
    }

    #[test]
    fn reads_the_table() {
        let deployment = of(&kind("apps/v1", "Deployment", "io.k8s.api.apps.v1.Deployment"));
        let containers = deployment.at("spec").at("template").at("spec").at("containers");
        let Shape::List(Items::Keyed(keys), container) = containers else { panic!("{containers:?}") };
        assert_eq!(keys, &["name"]);
        assert_eq!(container.field("env").unwrap().merge_key, "name");
        assert_eq!(deployment.zero()["spec"]["template"]["spec"], json!({"containers": null}));
        assert_eq!(deployment.zero()["metadata"], json!({"creationTimestamp": null}));
    }

    #[test]
    fn reads_a_custom_schema() {
        let schema = json!({"schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"], "items": {"type": "object"}}}}}}}});
        let shape = custom_root(&schema);
        assert!(matches!(shape.at("spec").at("ports"), Shape::List(Items::Keyed(_), _)));
        assert!(matches!(shape.at("metadata").at("labels"), Shape::Map(false, _)));
    }
}
