//! Validation of custom objects by their version's OpenAPI schema, in kube-openapi's words.
//!
//! Parts that an update leaves as they were are not judged again (ratcheting); items of lists correspond by their keys
//! in lists of type map, and not at all in others.

use super::embedded::EMBEDDED;
use super::{Version, formats};
use crate::status::{ErrorType, FieldError, shown};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Display;

/// Faults that one object is told at most.
pub(super) const FAULTS_MAX: usize = 100;

/// Faults of an object.
pub(super) fn validate(object: &Value, old: Option<&Value>, version: &Version) -> Vec<FieldError> {
    let mut judge = Judge { version, faults: Vec::new() };
    let path = &mut String::new();
    judge.value(object, old, version.schema(), path, true);
    judge.lists(object, old, version.schema(), path);
    judge.faults.truncate(FAULTS_MAX);
    judge.faults
}

/// Whether rules cannot be trusted to run on an object with these faults.
pub(super) fn blocks(faults: &[FieldError]) -> bool {
    use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    faults.iter().any(|fault| matches!(fault.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid))
}

pub(super) fn field(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Goes on to a field, and comes back. Paths grow and shrink in place: a long one is not copied for each of its fields.
pub(super) fn in_field(path: &mut String, key: &str, go: impl FnOnce(&mut String)) {
    let length = path.len();
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
    go(path);
    path.truncate(length);
}

/// Goes on to what stands below in brackets, and comes back.
pub(super) fn in_brackets(path: &mut String, key: impl Display, go: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(&format!("[{key}]"));
    go(path);
    path.truncate(length);
}

/// The old value of each of a list's items; empty where items do not correspond.
pub(super) fn old_items<'a>(
    items: &[Value],
    old: Option<&'a Value>,
    schema: &Value,
) -> Vec<Option<&'a Value>> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    let (Some(keys), Some(old)) = (keys, old.and_then(Value::as_array)) else { return Vec::new() };
    if schema["x-kubernetes-list-type"] != "map" {
        return Vec::new();
    }
    let key_of = |item: &Value| -> String {
        keys.iter().map(|key| format!("{:?}\n", item.get(key.as_str().unwrap_or_default()))).collect()
    };
    // The first of equals counts.
    let known: HashMap<String, &Value> = old.iter().rev().map(|item| (key_of(item), item)).collect();
    items.iter().map(|item| known.get(&key_of(item)).copied()).collect()
}

/// Whether an update leaves a part as it was, as far as its schema tells how it corresponds: what a schema does not
/// know never does, and the order of a map's items tells nothing.
pub(super) fn is_same(value: &Value, old: &Value, schema: &Value) -> bool {
    match (value, old) {
        (Value::Array(items), Value::Array(before)) => {
            if items.len() != before.len() {
                return false;
            }
            if schema["x-kubernetes-list-type"] != "map" {
                return items == before;
            }
            let befores = old_items(items, Some(old), schema);
            let mut pairs = items.iter().zip(befores);
            pairs.all(|(item, old)| old.is_some_and(|old| is_same(item, old, &schema["items"])))
        }
        (Value::Object(fields), Value::Object(before)) => {
            fields.len() == before.len()
                && fields.iter().all(|(key, field)| {
                    let known = before.get(key).zip(of_field(schema, key));
                    known.is_some_and(|(old, schema)| is_same(field, old, schema))
                })
        }
        _ => value == old,
    }
}

/// The schema of a field, where there is one.
pub(super) fn of_field<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    let more = &schema["additionalProperties"];
    schema["properties"].get(key).or_else(|| more.is_object().then_some(more))
}

/// JSON's name of a value's type.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_whole(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &serde_json::Number) -> bool {
    /// Beyond it floats are no whole numbers of JSON.
    const SAFE: f64 = 9_007_199_254_740_991.0;
    number.is_i64() || number.as_f64().is_some_and(|float| float.fract() == 0.0 && float.abs() <= SAFE)
}

struct Judge<'a> {
    version: &'a Version,
    faults: Vec<FieldError>,
}

impl Judge<'_> {
    fn invalid(&mut self, path: &str, value: &Value, text: String) {
        self.faults.push(FieldError::invalid(path, value, text));
    }

    /// `path in body …`.
    fn body(&mut self, path: &str, value: &Value, text: &str) {
        self.invalid(path, value, format!("{path} in body {text}"));
    }

    fn of_type(&mut self, path: &str, wanted: &str, found: &Value) {
        let text = format!("{path} in body must be of type {wanted}: {}", shown(found));
        let fault = FieldError::invalid(path, found, text);
        self.faults.push(FieldError { kind: ErrorType::TypeInvalid, ..fault });
    }

    fn value(&mut self, value: &Value, old: Option<&Value>, schema: &Value, path: &mut String, root: bool) {
        let kept = old.is_some_and(|old| is_same(value, old, schema));
        if kept || self.faults.len() > FAULTS_MAX || !schema.is_object() {
            return;
        }
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        let fits = self.fits_type(value, schema, path);
        self.enumerated(value, schema, path);
        match value {
            Value::Number(_) if matches!(schema["type"].as_str(), Some("integer" | "number")) => {
                self.number(value, schema, path);
            }
            _ if !fits => {}
            Value::String(text) => self.text(text, schema, path),
            Value::Number(_) => self.number(value, schema, path),
            Value::Array(items) => self.array(items, old, schema, path),
            Value::Object(_) => self.object(value, old, schema, path, root),
            _ => {}
        }
        self.combined(value, schema, path, root);
    }

    fn fits_type(&mut self, value: &Value, schema: &Value, path: &str) -> bool {
        let found = type_name(value);
        if schema["x-kubernetes-int-or-string"] == true {
            let fits = matches!(found, "integer" | "string");
            if !fits {
                self.of_type(path, "integer,string", &found.into());
            }
            return fits;
        }
        let Some(wanted) = schema["type"].as_str().filter(|wanted| !wanted.is_empty()) else { return true };
        let fits = wanted == found || (wanted == "number" && found == "integer");
        // Who names a format is told what has it, and texts and lists are judged by it alone.
        let format = schema["format"].as_str().filter(|format| formats::is_known(format));
        match (format, value) {
            _ if fits => {}
            (Some(_), Value::String(_) | Value::Array(_)) if !matches!(wanted, "number" | "integer") => {
                return true;
            }
            (Some(format), Value::Number(_) | Value::Bool(_) | Value::Object(_)) => {
                let found = match value {
                    Value::Number(number) if number.is_f64() => "float64",
                    Value::Number(_) => "int64",
                    _ => "",
                };
                self.of_type(path, format, &found.into());
            }
            _ => self.of_type(path, wanted, &found.into()),
        }
        fits
    }

    fn enumerated(&mut self, value: &Value, schema: &Value, path: &str) {
        let Some(allowed) = schema["enum"].as_array() else { return };
        if allowed.is_empty() || allowed.contains(value) {
            return;
        }
        let texts: Vec<String> =
            allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.faults.push(FieldError::not_supported(path, value, &texts));
    }

    fn text(&mut self, text: &str, schema: &Value, path: &str) {
        let value = &Value::from(text);
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = schema["maxLength"].as_i64().filter(|max| length > *max) {
            self.faults.push(FieldError::too_long(path, max));
        } else if let Some(min) = schema["minLength"].as_i64().filter(|min| length < *min) {
            self.body(path, value, &format!("should be at least {min} chars long"));
        } else if let Some(pattern) = schema["pattern"].as_str()
            && self.version.pattern(pattern).is_some_and(|pattern| !pattern.is_match(text))
        {
            self.body(path, value, &format!("should match '{pattern}'"));
        }
        if let Some(format) = schema["format"].as_str()
            && !formats::fits(text, format)
        {
            self.of_type(path, format, value);
        }
    }

    fn number(&mut self, value: &Value, schema: &Value, path: &str) {
        let (number, known) = (value.as_f64().unwrap_or_default(), self.faults.len());
        // Whole numbers are compared with whole bounds.
        #[expect(clippy::cast_possible_truncation, reason = "as Kubernetes does")]
        let bound = |key: &str| {
            let bound = schema[key].as_f64()?;
            let whole = bound.trunc();
            Some(if value.is_i64() { (whole, (whole as i64).into()) } else { (bound, schema[key].clone()) })
        };
        // Whole numbers are judged by whole factors.
        let whole = value.is_i64() || value.is_u64();
        let factor = schema["multipleOf"].as_f64().map(|factor| if whole { factor.trunc() } else { factor });
        if factor == Some(0.0) {
            let text = format!("factor MultipleOf declared for {path} must be positive: 0");
            self.invalid(path, &Value::from(0), text);
        }
        if let Some(factor) = factor.filter(|factor| *factor > 0.0)
            && !serde_json::Number::from_f64(number / factor).is_some_and(|times| is_whole(&times))
        {
            self.body(path, value, &format!("should be a multiple of {}", schema["multipleOf"]));
        }
        if let Some((max, told)) = bound("maximum") {
            let exclusive = schema["exclusiveMaximum"] == true;
            if exclusive && number >= max {
                self.body(path, value, &format!("should be less than {told}"));
            } else if number > max {
                self.body(path, value, &format!("should be less than or equal to {told}"));
            }
        }
        if let Some((min, told)) = bound("minimum") {
            let exclusive = schema["exclusiveMinimum"] == true;
            if exclusive && number <= min {
                self.body(path, value, &format!("should be greater than {told}"));
            } else if number < min {
                self.body(path, value, &format!("should be greater than or equal to {told}"));
            }
        }
        let range = match schema["format"].as_str() {
            Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
            _ => None,
        };
        if range.is_some_and(|(low, high)| number < low || number > high) && self.faults.len() == known {
            let text = format!("Checked value must be of type integer with format int32 in {path}");
            self.invalid("", &Value::from(""), text);
        }
    }

    fn array(&mut self, items: &[Value], old: Option<&Value>, schema: &Value, path: &mut String) {
        let length = items.len() as u64;
        if let Some(max) = schema["maxItems"].as_u64().filter(|max| length > *max) {
            self.faults.push(FieldError::too_many(
                path.as_str(),
                items.len(),
                usize::try_from(max).unwrap_or(usize::MAX),
            ));
        }
        if let Some(min) = schema["minItems"].as_u64().filter(|min| length < *min) {
            self.body(path, &length.into(), &format!("should have at least {min} items"));
        }
        let before = old_items(items, old, schema);
        for (index, item) in items.iter().enumerate() {
            let before = before.get(index).copied().flatten();
            in_brackets(path, index, |path| self.value(item, before, &schema["items"], path, false));
        }
    }

    fn object(&mut self, value: &Value, old: Option<&Value>, schema: &Value, path: &mut String, root: bool) {
        let Some(map) = value.as_object() else { return };
        let needed: &[&str] = if schema[EMBEDDED] == true && !root { &["apiVersion", "kind"] } else { &[] };
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for key in required.filter(|key| !needed.contains(key)).chain(needed.iter().copied()) {
            if !map.contains_key(key) {
                let detail = if needed.contains(&key) { "must not be empty" } else { "" };
                self.faults.push(FieldError::required(field(path, key), detail));
            }
        }
        let length = map.len() as u64;
        if let Some(max) = schema["maxProperties"].as_u64().filter(|max| length > *max) {
            self.faults.push(FieldError::too_many(
                path.as_str(),
                map.len(),
                usize::try_from(max).unwrap_or(usize::MAX),
            ));
        }
        if let Some(min) = schema["minProperties"].as_u64().filter(|min| length < *min) {
            self.body(path, &length.into(), &format!("should have at least {min} properties"));
        }
        for (key, child) in map {
            // Standard metadata is judged by its own rules; a schema may only restrict the name.
            if root && key == "metadata" {
                self.root_metadata(child, &schema["properties"]["metadata"]);
                continue;
            }
            let before = old.and_then(|old| old.get(key));
            let child_schema = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
            in_field(path, key, |path| self.value(child, before, child_schema, path, false));
        }
    }

    fn root_metadata(&mut self, metadata: &Value, schema: &Value) {
        for key in ["name", "generateName"] {
            if let (Some(value), Some(schema)) = (metadata.get(key), schema["properties"].get(key)) {
                self.value(value, None, schema, &mut format!("metadata.{key}"), false);
            }
        }
    }

    /// allOf, anyOf, oneOf, not.
    fn combined(&mut self, value: &Value, schema: &Value, path: &mut String, root: bool) {
        let told = |path: &str, text: &str| format!("{} {text}", crate::status::go_quoted(path));
        let empty = Value::from("");
        let tries = |judge: &Self, list: &Value, path: &mut String| -> Vec<Vec<FieldError>> {
            let schemas = list.as_array().into_iter().flatten();
            schemas.map(|schema| judge.alone(value, schema, path, root)).collect()
        };
        if schema["allOf"].is_array() {
            let all = tries(self, &schema["allOf"], path);
            let wrong = all.iter().filter(|faults| !faults.is_empty()).count();
            if wrong > 0 {
                let none = if wrong == all.len() { ". None validated" } else { "" };
                self.faults.extend(all.into_iter().flatten());
                self.invalid("", &empty, told(path, &format!("must validate all the schemas (allOf){none}")));
            }
        }
        for (key, text) in [
            ("anyOf", "must validate at least one schema (anyOf)"),
            ("oneOf", "must validate one and only one schema (oneOf). Found none valid"),
        ] {
            let all = tries(self, &schema[key], path);
            let valid = all.iter().filter(|faults| faults.is_empty()).count();
            if all.is_empty() {
                continue;
            }
            if valid == 0 {
                self.invalid("", &empty, told(path, text));
                self.faults.extend(all.into_iter().min_by_key(Vec::len).into_iter().flatten());
            } else if key == "oneOf" && valid > 1 {
                let text = format!(
                    "must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                );
                self.invalid("", &empty, told(path, &text));
            }
        }
        if schema["not"].is_object() && self.alone(value, &schema["not"], path, root).is_empty() {
            self.invalid("", &empty, told(path, "must not validate the schema (not)"));
        }
    }

    /// The faults by one schema only.
    fn alone(&self, value: &Value, schema: &Value, path: &mut String, root: bool) -> Vec<FieldError> {
        let mut judge = Judge { version: self.version, faults: Vec::new() };
        judge.value(value, None, schema, path, root);
        judge.faults
    }

    /// Items of sets and keys of maps must be unique.
    fn lists(&mut self, value: &Value, old: Option<&Value>, schema: &Value, path: &mut String) {
        if old == Some(value) || !schema.is_object() {
            return;
        }
        match value {
            Value::Object(map) => {
                for (key, child) in map {
                    let before = old.and_then(|old| old.get(key));
                    let schema = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
                    in_field(path, key, |path| self.lists(child, before, schema, path));
                }
            }
            Value::Array(items) => {
                self.unique(items, schema, path);
                let before = old_items(items, old, schema);
                for (index, item) in items.iter().enumerate() {
                    let before = before.get(index).copied().flatten();
                    in_brackets(path, index, |path| self.lists(item, before, &schema["items"], path));
                }
            }
            _ => {}
        }
    }

    fn unique(&mut self, items: &[Value], schema: &Value, path: &str) {
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let key_of = |item: &Value| match (schema["x-kubernetes-list-type"].as_str(), keys) {
            (Some("set"), _) => Some(item.clone()),
            (Some("map"), Some(keys)) => {
                let named = keys.iter().filter_map(Value::as_str);
                Some(named.filter_map(|key| Some((key.to_owned(), item.get(key)?.clone()))).collect())
            }
            _ => None,
        };
        // Each that is there more than once is told once.
        let mut seen: std::collections::HashMap<String, u8> = std::collections::HashMap::new();
        for (index, item) in items.iter().enumerate() {
            let Some(key) = key_of(item) else { return };
            if schema["x-kubernetes-list-type"] == "map" && !item.is_object() {
                let text = "must be an object for an array of list-type map".to_owned();
                self.invalid(&format!("{path}[{index}]"), item, text);
                continue;
            }
            let times = seen.entry(key.to_string()).or_default();
            *times = times.saturating_add(1);
            if *times == 2 && self.faults.len() <= FAULTS_MAX {
                self.faults.push(FieldError::duplicate(format!("{path}[{index}]"), &key));
            }
        }
    }
}
