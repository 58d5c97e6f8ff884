//! The OpenAPI v2 document as protobuf (`openapi.v2.Document` of gnostic), which kubectl asks for before it validates.
//!
//! In: the JSON document. Out: bytes. Extensions and defaults go as YAML texts, and JSON is YAML.

mod operations;

use serde_json::{Map, Value};

/// Fields of `openapi.v2.Schema` that are plain values, by their name in JSON.
const PLAIN: [(&str, u32); 13] = [
    ("$ref", 1),
    ("format", 2),
    ("title", 3),
    ("description", 4),
    ("multipleOf", 6),
    ("maximum", 7),
    ("minimum", 9),
    ("maxLength", 11),
    ("minLength", 12),
    ("pattern", 13),
    ("maxItems", 14),
    ("minItems", 15),
    ("uniqueItems", 16),
];
/// Those of [`PLAIN`] that are doubles.
const DOUBLES: [u32; 3] = [6, 7, 9];

/// The whole document.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, &document["swagger"]);
    let mut info = Vec::new();
    put_text(&mut info, 1, &document["info"]["title"]);
    put_text(&mut info, 2, &document["info"]["version"]);
    put_bytes(&mut out, 2, &info);
    put_bytes(&mut out, 8, &operations::paths(&document["paths"]));
    put_bytes(&mut out, 9, &named(document["definitions"].as_object()));
    if document["parameters"].is_object() {
        put_bytes(&mut out, 10, &operations::definitions(&document["parameters"]));
    }
    for requirement in document["security"].as_array().into_iter().flatten() {
        put_bytes(&mut out, 12, &operations::security(requirement));
    }
    if document["securityDefinitions"].is_object() {
        put_bytes(&mut out, 13, &operations::security_definitions(&document["securityDefinitions"]));
    }
    out
}

/// Schemas with their names: the form of definitions and of properties.
fn named(schemas: Option<&Map<String, Value>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in schemas.into_iter().flatten() {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, name.as_bytes());
        put_bytes(&mut entry, 2, &schema(value));
        put_bytes(&mut out, 1, &entry);
    }
    out
}

fn schema(schema: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number) in PLAIN {
        put_plain(&mut out, number, &schema[name]);
    }
    if let Some(default) = schema.get("default") {
        put_bytes(&mut out, 5, &any(default));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        put_text(&mut out, 19, required);
    }
    for value in schema["enum"].as_array().into_iter().flatten() {
        put_bytes(&mut out, 20, &any(value));
    }
    match &schema["additionalProperties"] {
        Value::Object(_) => put_bytes(&mut out, 21, &inner(&schema["additionalProperties"])),
        Value::Bool(allowed) => put_bytes(&mut out, 21, &[2 << 3, u8::from(*allowed)]),
        _ => {}
    }
    if schema["type"].is_string() {
        let mut item = Vec::new();
        put_text(&mut item, 1, &schema["type"]);
        put_bytes(&mut out, 22, &item);
    }
    if schema["items"].is_object() {
        put_bytes(&mut out, 23, &inner(&schema["items"]));
    }
    if let Some(properties) = schema["properties"].as_object() {
        put_bytes(&mut out, 25, &named(Some(properties)));
    }
    let extensions = schema.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
    for (name, value) in extensions {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, name.as_bytes());
        put_bytes(&mut entry, 2, &any(value));
        put_bytes(&mut out, 31, &entry);
    }
    out
}

/// A schema within an item.
fn inner(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &schema(value));
    out
}

/// `openapi.v2.Any`: a YAML text.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, value.to_string().as_bytes());
    out
}

fn put_plain(out: &mut Vec<u8>, number: u32, value: &Value) {
    match value {
        Value::String(_) => put_text(out, number, value),
        Value::Bool(value) => put_varint(out, number, u64::from(*value)),
        Value::Number(value) if DOUBLES.contains(&number) => {
            put_key(out, number, 1);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        Value::Number(value) => put_varint(out, number, value.as_u64().unwrap_or_default()),
        _ => {}
    }
}

fn put_text(out: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(text) = value.as_str() {
        put_bytes(out, number, text.as_bytes());
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_key(out, number, 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_key(out, number, 0);
    varint(out, value);
}

fn put_key(out: &mut Vec<u8>, number: u32, wire: u32) {
    varint(out, u64::from(number << 3 | wire));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits and a mark")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "less than 0x80")]
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_is_swagger_info_paths_and_definitions() {
        let bytes = document(&json!({
            "swagger": "2.0", "info": {"title": "K", "version": "1"}, "paths": {},
            "definitions": {"D": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}},
        }));
        let mut wanted = b"\x0a\x032.0\x12\x06\x0a\x01K\x12\x011\x42\x00\x4a".to_vec();
        // {name: D, value: {type: {value: object}, properties: {{name: n, value: {minimum: 1.0, type: …}}}}}
        let number = [b"\x49".as_slice(), &1f64.to_le_bytes(), b"\xb2\x01\x09\x0a\x07integer"].concat();
        let property = [b"\x0a\x01n\x12".as_slice(), &[number.len() as u8], &number].concat();
        let properties = [b"\x0a".as_slice(), &[property.len() as u8], &property].concat();
        let schema =
            [b"\xb2\x01\x08\x0a\x06object\xca\x01".as_slice(), &[properties.len() as u8], &properties]
                .concat();
        let definition = [b"\x0a\x01D\x12".as_slice(), &[schema.len() as u8], &schema].concat();
        wanted.extend(
            [&[definition.len() as u8 + 2, 0x0a, definition.len() as u8], definition.as_slice()].concat(),
        );
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn extensions_are_yaml_texts_and_numbers_varints() {
        assert_eq!(schema(&json!({"x-a": true})), b"\xfa\x01\x0d\x0a\x03x-a\x12\x06\x12\x04true");
        assert_eq!(schema(&json!({"maxLength": 300})), [11 << 3, 0xac, 0x02]);
        assert_eq!(schema(&json!({"additionalProperties": true})), [0xaa, 0x01, 2, 0x10, 1]);
    }
}
