//! Paths, operations and parameters, whose numbers depend on where a parameter stands.

use super::{any, put_bytes, put_plain, put_text, put_varint, schema};
use serde_json::Value;

const METHODS: [(&str, u32); 7] =
    [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];

/// `openapi.v2.Paths`.
pub(super) fn paths(paths: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, item) in paths.as_object().into_iter().flatten() {
        put_bytes(&mut out, 2, &named(path, &path_item(item)));
    }
    out
}

/// `openapi.v2.ParameterDefinitions`.
pub(super) fn definitions(parameters: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in parameters.as_object().into_iter().flatten() {
        put_bytes(&mut out, 1, &named(name, &parameter(value)));
    }
    out
}

/// `openapi.v2.SecurityDefinitions` of keys.
pub(super) fn security_definitions(definitions: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in definitions.as_object().into_iter().flatten() {
        let mut key = Vec::new();
        for (number, part) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
            put_text(&mut key, number, &value[part]);
        }
        put_bytes(&mut out, 1, &named(name, &wrapped(2, &key)));
    }
    out
}

/// `openapi.v2.SecurityRequirement` without scopes.
pub(super) fn security(requirement: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, _) in requirement.as_object().into_iter().flatten() {
        put_bytes(&mut out, 1, &named(name, &[]));
    }
    out
}

fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, value);
    out
}

fn wrapped(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, number, value);
    out
}

fn path_item(item: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (method, number) in METHODS {
        if item[method].is_object() {
            put_bytes(&mut out, number, &operation(&item[method]));
        }
    }
    put_parameters(&mut out, 9, &item["parameters"]);
    out
}

fn operation(operation: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let put_texts = |out: &mut Vec<u8>, number, texts: &Value| {
        texts.as_array().into_iter().flatten().for_each(|text| put_text(out, number, text));
    };
    put_texts(&mut out, 1, &operation["tags"]);
    put_text(&mut out, 3, &operation["description"]);
    put_text(&mut out, 5, &operation["operationId"]);
    put_texts(&mut out, 6, &operation["produces"]);
    put_texts(&mut out, 7, &operation["consumes"]);
    put_parameters(&mut out, 8, &operation["parameters"]);
    put_bytes(&mut out, 9, &responses(&operation["responses"]));
    put_texts(&mut out, 10, &operation["schemes"]);
    let extensions = operation.as_object().into_iter().flatten();
    for (name, value) in extensions.filter(|(name, _)| name.starts_with("x-")) {
        put_bytes(&mut out, 13, &named(name, &any(value)));
    }
    out
}

fn responses(responses: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (code, response) in responses.as_object().into_iter().flatten() {
        let mut told = Vec::new();
        put_text(&mut told, 1, &response["description"]);
        if response["schema"].is_object() {
            put_bytes(&mut told, 2, &wrapped(1, &schema(&response["schema"])));
        }
        put_bytes(&mut out, 1, &named(code, &wrapped(1, &told)));
    }
    out
}

fn put_parameters(out: &mut Vec<u8>, number: u32, parameters: &Value) {
    for one in parameters.as_array().into_iter().flatten() {
        let item = if one["$ref"].is_string() {
            let mut reference = Vec::new();
            put_text(&mut reference, 1, &one["$ref"]);
            wrapped(2, &reference)
        } else {
            wrapped(1, &parameter(one))
        };
        put_bytes(out, number, &item);
    }
}

/// `openapi.v2.Parameter`.
fn parameter(parameter: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    if parameter["in"] == "body" {
        put_text(&mut out, 2, &parameter["name"]);
        put_text(&mut out, 3, &parameter["in"]);
        put_flag(&mut out, 4, &parameter["required"]);
        put_bytes(&mut out, 5, &schema(&parameter["schema"]));
        return wrapped(1, &out);
    }
    // What a path has comes one earlier than what a query has, from the type on.
    let (place, less) = if parameter["in"] == "path" { (4, 1) } else { (3, 0) };
    put_flag(&mut out, 1, &parameter["required"]);
    put_text(&mut out, 2, &parameter["in"]);
    put_text(&mut out, 3, &parameter["description"]);
    put_text(&mut out, 4, &parameter["name"]);
    put_plain(&mut out, 6 - less, &parameter["type"]);
    put_flag(&mut out, 20 - less, &parameter["uniqueItems"]);
    wrapped(2, &wrapped(place, &out))
}

fn put_flag(out: &mut Vec<u8>, number: u32, flag: &Value) {
    if *flag == true {
        put_varint(out, number, 1);
    }
}
