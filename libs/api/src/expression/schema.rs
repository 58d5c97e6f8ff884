//! What OpenAPI schemas declare of values, for expressions: types, and how large things can get in one request.

use super::types::{Decl, Field, ListKind, ObjectType, Type};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The largest request.
const REQUEST_MAX: u64 = 3 * 1024 * 1024;
const DURATION_MAX: u64 = 32;
const TIME_MAX: u64 = 32;
const DATE_SIZE: u64 = 12;

/// Words that CEL keeps for itself, some of them for the languages that it stands in.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether a word looks like a name in CEL but is none.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// A property's name as an identifier; `None` where none can be made.
pub fn escape(name: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(fine) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let under = name.replace("__", "__underscores__");
    Some(under.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

/// How many values of a size one request can hold.
pub fn cardinality(min_size: u64) -> u64 {
    REQUEST_MAX / (min_size + 1)
}

/// What a schema declares; `None` where expressions can see nothing. `root` is for whole objects with their metadata.
pub fn declared(schema: &Json, name: &str, root: bool) -> Option<Decl> {
    if schema["x-kubernetes-int-or-string"] == true {
        let max = schema["maxLength"].as_u64().map_or(REQUEST_MAX - 2, |max| max.saturating_mul(4));
        return Some(Decl::plain(Type::Dyn, max, 1));
    }
    match schema["type"].as_str() {
        Some("array") => array(schema, name),
        Some("object") => object(schema, name, root),
        None if root => object(schema, name, root),
        Some("string") => Some(string(schema)),
        Some("boolean") => Some(Decl::plain(Type::Bool, 0, 4)),
        Some("number") => Some(Decl::plain(Type::Double, 0, 1)),
        Some("integer") => Some(Decl::plain(Type::Int, 0, 1)),
        _ => None,
    }
}

fn inner(schema: &Json, name: &str) -> Option<Arc<Decl>> {
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    declared(schema, name, embedded).map(Arc::new)
}

fn array(schema: &Json, name: &str) -> Option<Decl> {
    let item = inner(schema.get("items")?, &format!("{name}.@idx"))?;
    let max = schema["maxItems"].as_u64().unwrap_or((REQUEST_MAX - 2) / (item.min_size + 1));
    let list = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListKind::Map(keys.filter_map(|key| escape(key.as_str()?)).collect())
        }
        _ => ListKind::Atomic,
    };
    Some(Decl { ty: Type::list(item.ty.clone()), max, min_size: 2, item: Some(item), key: None, list })
}

fn object(schema: &Json, name: &str, root: bool) -> Option<Decl> {
    let more = &schema["additionalProperties"];
    if more.is_object() && !root {
        let item = inner(more, &format!("{name}.@elem"))?;
        let max = schema["maxProperties"].as_u64().unwrap_or((REQUEST_MAX - 2) / (item.min_size + 6));
        let ty = Type::map(Type::String, item.ty.clone());
        let key = Some(Arc::new(Decl::plain(Type::String, 0, 2)));
        return Some(Decl { ty, max, min_size: 2, item: Some(item), key, list: ListKind::Atomic });
    }
    let mut properties: BTreeMap<String, Json> = BTreeMap::new();
    properties.extend(
        schema["properties"].as_object().into_iter().flatten().map(|(key, own)| (key.clone(), own.clone())),
    );
    if root {
        let text = json!({"type": "string"});
        properties.insert("apiVersion".to_owned(), text.clone());
        properties.insert("kind".to_owned(), text.clone());
        // Metadata that is declared with its names is all there: that of built-in kinds.
        let declared = |metadata: &Json| {
            ["name", "generateName"].iter().all(|key| metadata["properties"][*key]["type"] == "string")
        };
        if !properties.get("metadata").is_some_and(declared) {
            let metadata = json!({"type": "object", "properties": {"name": text, "generateName": text}});
            properties.insert("metadata".to_owned(), metadata);
        }
    }
    let required =
        |key: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|own| own == key));
    let mut min_size = 2;
    let mut fields = BTreeMap::new();
    for (raw, property) in properties {
        let Some(decl) = inner(&property, &format!("{name}.{raw}")) else { continue };
        if required(&raw) && property.get("default").is_none_or(Json::is_null) {
            min_size += raw.len() as u64 + decl.min_size + 4;
        }
        if let Some(escaped) = escape(&raw) {
            fields.insert(escaped, Field { raw, decl });
        }
    }
    let ty = Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields }));
    Some(Decl { ty, max: 0, min_size, item: None, key: None, list: ListKind::Atomic })
}

fn string(schema: &Json) -> Decl {
    let longest = schema["maxLength"].as_u64();
    match schema["format"].as_str() {
        Some("byte") => Decl::plain(Type::Bytes, longest.unwrap_or(REQUEST_MAX - 2), 2),
        Some("duration") => Decl::plain(Type::Duration, DURATION_MAX, 3),
        Some("date") => Decl::plain(Type::Timestamp, DATE_SIZE, DATE_SIZE),
        Some("date-time") => Decl::plain(Type::Timestamp, TIME_MAX, 21),
        _ => {
            let listed = schema["enum"].as_array().filter(|all| !all.is_empty());
            let longest_listed =
                listed.map(|all| all.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0));
            let max = match (longest, longest_listed) {
                (Some(max), _) => max.saturating_mul(4),
                (None, Some(max)) => max as u64,
                (None, None) => REQUEST_MAX - 2,
            };
            Decl::plain(Type::String, max, 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        let rows = [
            ("plain", Some("plain")),
            ("namespace", Some("__namespace__")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("1a", None),
            ("a$", None),
        ];
        for (name, want) in rows {
            assert_eq!(escape(name).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn sizes_are_bounded_by_the_schema_or_by_a_request() {
        let list =
            declared(&json!({"type": "array", "items": {"type": "string"}}), "x", false).expect("a list");
        assert_eq!(list.max, (3 * 1024 * 1024 - 2) / 3);
        let text = declared(&json!({"type": "string", "maxLength": 5}), "x", false).expect("a text");
        assert_eq!(text.max, 20);
        let text = declared(&json!({"type": "string", "enum": ["a", "abc"]}), "x", false).expect("a text");
        assert_eq!(text.max, 3);
        assert!(declared(&json!({"x-kubernetes-preserve-unknown-fields": true}), "x", false).is_none());
    }
}
