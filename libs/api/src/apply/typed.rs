//! Whether an applied configuration fits its type, in the words of structured-merge-diff: all faults, in order.
//!
//! Built-in types are read from the tables of shapes and of Go's types, custom ones from their own schema.

use crate::decode::is_full;
use crate::kinds::Kind;
use crate::schema::{self, Special, Type};
use crate::shape::{self, Items, Shape};
use crate::status::{go_printed, go_quoted};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::LazyLock;

/// Faults that are told at most.
const FAULTS_MAX: usize = 50;

/// A type, as much of it as is known.
#[derive(Clone, Copy)]
enum Of<'a> {
    Built(&'a Shape, Option<&'a Type>),
    Schema(&'a Value),
    /// The object of a custom kind itself.
    Root(&'a Value, &'a Shape),
}

/// What a value may be.
enum Wanted<'a> {
    Text,
    Number,
    Flag,
    Scalar,
    List(Items, Of<'a>),
    Struct,
    Map(Of<'a>),
    Any,
}

/// The faults of a configuration of `kind`.
pub(super) fn faults(config: &Value, kind: &Kind) -> Vec<String> {
    let shape = shape::of(kind);
    let root = schema::of(kind).map(Type::Message);
    let of = match kind.custom.as_deref() {
        Some(custom) => {
            let schema = custom.pointer("/schema/openAPIV3Schema").or_else(|| custom.get("openAPIV3Schema"));
            Of::Root(schema.unwrap_or(&Value::Null), &shape)
        }
        None => Of::Built(&shape, root.as_ref()),
    };
    let mut out = Vec::new();
    walk(of, config, &mut String::new(), &mut out);
    out
}

impl<'a> Of<'a> {
    fn wanted(self) -> Wanted<'a> {
        match self {
            Self::Built(shape, of) => built(shape, of),
            Self::Root(..) => Wanted::Struct,
            Self::Schema(schema) => from_schema(schema),
        }
    }

    /// A declared field.
    fn field(self, key: &str) -> Option<Of<'a>> {
        match self {
            Self::Built(shape, of) => {
                let of = of.and_then(|of| match of {
                    Type::Message(at) => type_of_field(*at, key),
                    _ => None,
                });
                shape.field(key).map(|field| Of::Built(&field.shape, of))
            }
            Self::Root(schema, shape) => match key {
                "apiVersion" | "kind" => Some(Of::Built(&Shape::Any, None)),
                "metadata" => Some(Of::Built(shape.at("metadata"), metadata())),
                _ => Of::Schema(schema).field(key),
            },
            Self::Schema(schema) => {
                let embeds = schema["x-kubernetes-embedded-resource"] == true;
                if embeds && key == "metadata" {
                    static META: LazyLock<Shape> = LazyLock::new(shape::object_meta);
                    return Some(Of::Built(&META, metadata()));
                }
                let open = schema["x-kubernetes-preserve-unknown-fields"] == true
                    || (embeds && ["apiVersion", "kind"].contains(&key));
                schema["properties"].get(key).map(Of::Schema).or(open.then_some(Of::Built(&Shape::Any, None)))
            }
        }
    }
}

fn metadata() -> Option<&'static Type> {
    static META: LazyLock<Option<Type>> = LazyLock::new(|| schema::object_meta().map(Type::Message));
    META.as_ref()
}

fn type_of_field(at: usize, key: &str) -> Option<&'static Type> {
    schema::message(at).fields.iter().find_map(|field| match (field.inline, &field.of) {
        (true, Type::Message(inner)) => type_of_field(*inner, key),
        _ => (field.name == key).then_some(&field.of),
    })
}

fn built<'a>(shape: &'a Shape, of: Option<&'a Type>) -> Wanted<'a> {
    let item = of.and_then(|of| match of {
        Type::List(item) | Type::Map(item) => Some(&**item),
        _ => None,
    });
    match shape {
        Shape::Any => Wanted::Any,
        Shape::Named(_) | Shape::Inline(_) => Wanted::Struct,
        Shape::List(items, inner) => Wanted::List(items.clone(), Of::Built(inner, item)),
        Shape::Map(_, inner) => Wanted::Map(Of::Built(inner, item)),
        Shape::Scalar(zero) => match (of, zero) {
            (Some(Type::Special(Special::IntOrString)), _) => Wanted::Any,
            (Some(Type::Special(Special::Quantity | Special::Time | Special::MicroTime)), _) => {
                Wanted::Scalar
            }
            (Some(Type::Int32 | Type::Int64 | Type::Float), _) | (None, Value::Number(_)) => Wanted::Number,
            (Some(Type::Bool), _) | (None, Value::Bool(_)) => Wanted::Flag,
            (Some(_), _) => Wanted::Text,
            (None, _) => Wanted::Scalar,
        },
    }
}

fn from_schema(schema: &Value) -> Wanted<'_> {
    if schema["x-kubernetes-int-or-string"] == true {
        return Wanted::Scalar;
    }
    match schema["type"].as_str().unwrap_or_default() {
        "string" => Wanted::Text,
        "integer" | "number" => Wanted::Number,
        "boolean" => Wanted::Flag,
        "array" => Wanted::List(shape::items_of(schema), Of::Schema(&schema["items"])),
        "object" if schema["properties"].is_object() || schema["x-kubernetes-embedded-resource"] == true => {
            Wanted::Struct
        }
        "object" if schema["additionalProperties"].is_object() => {
            Wanted::Map(Of::Schema(&schema["additionalProperties"]))
        }
        "object" => Wanted::Map(Of::Built(&Shape::Any, None)),
        _ => Wanted::Any,
    }
}

/// The faults of a value. Its path grows and shrinks in place: a long one is not copied for each part of the value.
fn walk(of: Of<'_>, value: &Value, path: &mut String, out: &mut Vec<String>) {
    if value.is_null() || is_full(out, FAULTS_MAX) {
        return;
    }
    let mut told = |text: String| out.push(format!("{path}: {text}"));
    // A value as Go prints one that it points to.
    let shown = || format!("&{{{}}}", go_printed(value));
    match (of.wanted(), value) {
        (Wanted::Any, _)
        | (Wanted::Text, Value::String(_))
        | (Wanted::Number, Value::Number(_))
        | (Wanted::Flag, Value::Bool(_))
        | (Wanted::Scalar, Value::String(_) | Value::Number(_) | Value::Bool(_)) => {}
        (Wanted::Text, _) => {
            told(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)));
        }
        (Wanted::Number, _) => told(format!("expected numeric (int or float), got {}", go_type(value))),
        (Wanted::Flag, _) => told(format!("expected boolean, got {}", shown())),
        (Wanted::Scalar, _) => told(format!("expected any scalar, got {}", shown())),
        (Wanted::Struct, Value::Object(map)) => fields(of, map, path, out),
        (Wanted::Map(item), Value::Object(map)) => {
            for (key, value) in map {
                within(path, &[".", key], |path| walk(item, value, path, out));
            }
        }
        (Wanted::Struct | Wanted::Map(_), _) => told(format!("expected map, got {}", shown())),
        (Wanted::List(items, item), Value::Array(values)) => list(&items, item, values, path, out),
        (Wanted::List(..), _) => told(format!("expected list, got {}", shown())),
    }
}

/// Goes on to what stands below the path, and comes back.
fn within(path: &mut String, below: &[&str], go: impl FnOnce(&mut String)) {
    let length = path.len();
    below.iter().for_each(|part| path.push_str(part));
    go(path);
    path.truncate(length);
}

fn fields(of: Of<'_>, map: &Map<String, Value>, path: &mut String, out: &mut Vec<String>) {
    for (key, value) in map {
        match of.field(key) {
            Some(field) => within(path, &[".", key], |path| walk(field, value, path, out)),
            None if is_full(out, FAULTS_MAX) => return,
            None => out.push(format!("{path}.{key}: field not declared in schema")),
        }
    }
}

fn list(items: &Items, of: Of<'_>, values: &[Value], path: &mut String, out: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        if is_full(out, FAULTS_MAX) {
            return;
        }
        let place = match items {
            Items::Atomic => format!("[{index}]"),
            Items::Set => match value {
                Value::Null | Value::Object(_) | Value::Array(_) => {
                    out.push(format!("{path}: element {index}: {}", no_item(value)));
                    continue;
                }
                _ => format!("[={}]", go_literal(value)),
            },
            Items::Keyed(keys) => match value.as_object() {
                Some(map) => match keyed(keys, of, map) {
                    Ok(place) => place,
                    Err(key) => {
                        let shown = go_quoted(key);
                        out.push(format!(
                            "{path}: element {index}: associative list with keys has an element that omits key field {shown} (and doesn't have default value)"
                        ));
                        continue;
                    }
                },
                None => {
                    let what = if value.is_null() { "a null element" } else { "non-map elements" };
                    let text = format!("element {index}: associative list with keys may not have {what}");
                    out.push(format!("{path}: {text}"));
                    continue;
                }
            },
        };
        if *items != Items::Atomic && seen.contains(&place) {
            out.push(format!("{path}: duplicate entries for key {place}"));
            return;
        }
        within(path, &[&place], |path| walk(of, value, path, out));
        seen.insert(place);
    }
}

/// Why a value cannot be an item of a set.
fn no_item(value: &Value) -> &'static str {
    match value {
        Value::Null => "associative list without keys has an element that's an explicit null",
        Value::Array(_) => "not supported: associative list with lists as elements",
        _ => "associative list without keys has an element that's a map type",
    }
}

/// An item of a list by its keys: `[containerPort=80,protocol="TCP"]`, or the key that it lacks.
fn keyed<'k>(keys: &'k [String], of: Of<'_>, map: &Map<String, Value>) -> Result<String, &'k str> {
    let default = |key: &str| match of {
        Of::Built(shape, _) => shape.key_default(key),
        Of::Schema(schema) => schema["properties"][key].get("default").cloned(),
        Of::Root(..) => None,
    };
    let part = |key: &'k String| {
        let value = map.get(key).cloned().or_else(|| default(key)).ok_or(key.as_str())?;
        Ok(format!("{key}={}", go_literal(&value)))
    };
    let parts: Result<Vec<String>, &str> = keys.iter().map(part).collect();
    Ok(format!("[{}]", parts?.join(",")))
}

/// A value as structured-merge-diff shows it in a path.
fn go_literal(value: &Value) -> String {
    match value {
        Value::String(text) => go_quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(go_literal).collect::<Vec<_>>().join(",")),
        Value::Object(map) => map.iter().map(|(key, value)| format!("{key}={}", go_literal(value))).collect(),
        other => other.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => go_quoted(text),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| format!("{}:{}", go_quoted(key), go_syntax(value)));
            format!("map[string]interface {{}}{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    fn told(group: &str, resource: &str, config: &Value) -> Vec<String> {
        faults(config, kinds::by_resource(group, "v1", resource).expect("a built-in kind"))
    }

    #[test]
    fn values_of_wrong_types_are_told_as_structured_merge_diff_does() {
        let rows = [
            (json!({"data": {"a": 1}}), ".data.a: expected string, got &value.valueUnstructured{Value:1}"),
            (
                json!({"data": {"a": [1, "b"]}}),
                ".data.a: expected string, got &value.valueUnstructured{Value:[]interface {}{1, \"b\"}}",
            ),
            (json!({"data": [1]}), ".data: expected map, got &{[1]}"),
            (json!({"immutable": "x"}), ".immutable: expected boolean, got &{x}"),
            (
                json!({"metadata": {"finalizers": {"a": 1}}}),
                ".metadata.finalizers: expected list, got &{map[a:1]}",
            ),
            (json!({"foo": 1}), ".foo: field not declared in schema"),
            (
                json!({"metadata": {"finalizers": [null]}}),
                ".metadata.finalizers: element 0: associative list without keys has an element that's an explicit null",
            ),
            (
                json!({"metadata": {"finalizers": ["a", {}]}}),
                ".metadata.finalizers: element 1: associative list without keys has an element that's a map type",
            ),
            (
                json!({"metadata": {"finalizers": [[]]}}),
                ".metadata.finalizers: element 0: not supported: associative list with lists as elements",
            ),
            (
                json!({"metadata": {"deletionTimestamp": []}}),
                ".metadata.deletionTimestamp: expected any scalar, got &{[]}",
            ),
        ];
        for (config, want) in rows {
            assert_eq!(told("", "configmaps", &config), [want], "{config}");
        }
        let two = told("", "configmaps", &json!({"data": {"a": 1}, "foo": 1}));
        assert_eq!(two.len(), 2, "{two:?}");
    }

    #[test]
    fn items_are_named_by_their_keys_and_stand_once() {
        let pod = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let at = ".spec.template.spec.containers";
        let rows = [
            (json!([{"name": "a"}, {"name": "a"}]), format!("{at}: duplicate entries for key [name=\"a\"]")),
            (
                json!(["x"]),
                format!("{at}: element 0: associative list with keys may not have non-map elements"),
            ),
            (
                json!([null]),
                format!("{at}: element 0: associative list with keys may not have a null element"),
            ),
            (
                json!([{"name": {}}]),
                format!(
                    "{at}[name=].name: expected string, got &value.valueUnstructured{{Value:map[string]interface {{}}{{}}}}"
                ),
            ),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": {}}}}]),
                format!("{at}[name=\"a\"].resources.limits.cpu: expected any scalar, got &{{map[]}}"),
            ),
            (
                json!([{"name": "a", "ports": [{"containerPort": "x"}]}]),
                format!(
                    "{at}[name=\"a\"].ports[containerPort=\"x\",protocol=\"TCP\"].containerPort: expected numeric (int or float), got string"
                ),
            ),
        ];
        for (containers, want) in rows {
            assert_eq!(told("apps", "deployments", &pod(containers)), [want]);
        }
        // What must be written has a value where it is not.
        assert_eq!(told("apps", "deployments", &pod(json!([{"image": "i"}]))), Vec::<String>::new());
        assert_eq!(
            told("", "serviceaccounts", &json!({"secrets": [{"kind": "Secret"}]})),
            [
                ".secrets: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)"
            ]
        );
    }

    #[test]
    fn long_lists_and_paths_cost_no_more_than_they_are_long() {
        let pod =
            |name: &str, ports: Vec<Value>| json!({"spec": {"containers": [{"name": name, "ports": ports}]}});
        let long = "x".repeat(1 << 20);
        // One path for all of them, and every place looked up at once.
        let ports = (0..200_000).map(|port| json!({"containerPort": port})).collect();
        assert_eq!(told("", "pods", &pod(&long, ports)), Vec::<String>::new());
        let nothing = told("", "pods", &pod(&long, vec![Value::Null; 100_000]));
        assert!(nothing.iter().map(String::len).sum::<usize>() < 3 << 20, "{}", nothing.len());
        assert_eq!(told("", "pods", &pod("x", vec![Value::Null; 100_000])).len(), FAULTS_MAX);
    }
}
