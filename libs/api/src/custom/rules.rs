//! `x-kubernetes-validations`: CEL rules over custom objects.
//!
//! `self` is the value where the rule stands, `oldSelf` what an update replaces. A rule that names `oldSelf` is only asked
//! of updates. Rules of parts that an update leaves as they were are not asked again.

use super::Version;
use super::schema::{field, old_item};
use crate::status::{ErrorType, FieldError};
use cel::objects::{Key, Map};
use cel::{Context, Env, Program, extensions};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// A rule, or what is wrong with it.
pub(crate) type Compiled = Arc<Result<Program, String>>;

const RULES: &str = "x-kubernetes-validations";
/// Words that CEL keeps for itself.
const RESERVED: [&str; 17] = [
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
];

/// CEL with the libraries that Kubernetes has, as far as they exist.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for (name, done) in [
        ("strings", env.add_extension(extensions::strings)),
        ("lists", env.add_extension(extensions::lists)),
        ("math", env.add_extension(extensions::math)),
        ("encoders", env.add_extension(extensions::encoders)),
    ] {
        debug_assert!(done.is_ok(), "{name}");
    }
    Arc::new(env)
});
static TIMESTAMP: LazyLock<Compiled> = LazyLock::new(|| compile("timestamp(text)"));
static DURATION: LazyLock<Compiled> = LazyLock::new(|| compile("duration(text)"));

/// CEL as Kubernetes has it.
pub(crate) fn env() -> Arc<Env> {
    ENV.clone()
}

/// Compiles a rule.
pub(crate) fn compile(rule: &str) -> Compiled {
    let told = |errors: &dyn std::fmt::Display| errors.to_string().replace("\n| ", "\n | ");
    Arc::new(ENV.compile(rule.trim()).map_err(|errors| told(&errors)))
}

/// A text as CEL's timestamp or duration.
fn converted(program: &Compiled, text: &str) -> Option<cel::Value> {
    let program = program.as_ref().as_ref().ok()?;
    let mut context = Context::with_env(ENV.clone());
    context.add_variable_from_value("text", text);
    program.execute(&context).ok()
}

/// A text as a duration.
pub(crate) fn go_duration(text: &str) -> Option<cel::Value> {
    converted(&DURATION, text)
}

/// Whether a schema has rules anywhere.
pub(super) fn any(schema: &Value) -> bool {
    let inner = |schema: &Value| schema.is_object() && any(schema);
    schema[RULES].as_array().is_some_and(|rules| !rules.is_empty())
        || schema["properties"].as_object().is_some_and(|properties| properties.values().any(inner))
        || inner(&schema["items"])
        || inner(&schema["additionalProperties"])
}

/// Faults of an object by all rules.
pub(super) fn validate(object: &Value, old: Option<&Value>, version: &Version) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let (object, old) = (with_public_metadata(object), old.map(with_public_metadata));
    ask(&object, old.as_ref(), version.schema(), "", version, &mut faults);
    faults
}

/// Rules see of an object's metadata only its name.
fn with_public_metadata(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| key == "name" || key == "generateName");
    }
    object
}

fn ask(
    value: &Value,
    old: Option<&Value>,
    schema: &Value,
    path: &str,
    version: &Version,
    faults: &mut Vec<FieldError>,
) {
    if old == Some(value) || !any(schema) {
        return;
    }
    let rules = schema[RULES].as_array();
    if let Some(rules) = rules.filter(|rules| !rules.is_empty() && !value.is_null()) {
        let own = to_cel(value, schema);
        let before = old.map(|old| to_cel(old, schema));
        for rule in rules {
            faults.extend(one(rule, &own, before.as_ref(), schema, path, version));
        }
    }
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                let declared = schema["properties"].get(key);
                let at = match declared {
                    Some(_) => field(path, key),
                    None => format!("{path}[{key}]"),
                };
                let before = old.and_then(|old| old.get(key));
                ask(child, before, declared.unwrap_or(&schema["additionalProperties"]), &at, version, faults);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let before = old_item(item, old, schema);
                ask(item, before, &schema["items"], &format!("{path}[{index}]"), version, faults);
            }
        }
        _ => {}
    }
}

fn one(
    rule: &Value,
    own: &cel::Value,
    before: Option<&cel::Value>,
    schema: &Value,
    path: &str,
    version: &Version,
) -> Option<FieldError> {
    let text = |key: &str| rule[key].as_str().unwrap_or_default().trim();
    let compiled = version.program(text("rule"));
    let shown = Value::from(schema["type"].as_str().unwrap_or("object"));
    let program = match compiled.as_ref() {
        Ok(program) => program,
        Err(why) => return Some(FieldError::invalid(path, &shown, format!("rule compile error: {why}"))),
    };
    if program.references().has_variable("oldSelf") && before.is_none() {
        return None;
    }
    let mut context = Context::with_env(ENV.clone());
    context.add_variable_from_value("self", own.clone());
    if let Some(before) = before {
        context.add_variable_from_value("oldSelf", before.clone());
    }
    let said = match text("message") {
        "" => format!("failed rule: {}", text("rule")),
        message => message.to_owned(),
    };
    let detail = match program.execute(&context) {
        Ok(cel::Value::Bool(true)) => return None,
        Ok(cel::Value::Bool(false)) => expression(rule, &context, version).unwrap_or(said),
        Ok(_) => "rule evaluated to a value that is no boolean".to_owned(),
        Err(error) => format!("{} evaluating rule: {said}", faulted(&error)),
    };
    let path = format!("{path}{}", text("fieldPath"));
    let path = path.trim_start_matches('.');
    Some(match text("reason") {
        "FieldValueForbidden" => FieldError::forbidden(path, detail),
        "FieldValueRequired" => FieldError::required(path, detail),
        "FieldValueDuplicate" => {
            FieldError { kind: ErrorType::Duplicate, ..FieldError::invalid(path, &shown, detail) }
        }
        _ => FieldError::invalid(path, &shown, detail),
    })
}

/// The text that `messageExpression` makes, where it makes one.
fn expression(rule: &Value, context: &Context<'_, '_>, version: &Version) -> Option<String> {
    let text = rule["messageExpression"].as_str().filter(|text| !text.is_empty())?;
    let compiled = version.program(text);
    match compiled.as_ref().as_ref().ok()?.execute(context) {
        Ok(cel::Value::String(text)) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        _ => None,
    }
}

pub(crate) fn faulted(error: &cel::ExecutionError) -> String {
    match error {
        cel::ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        other => other.to_string(),
    }
}

/// A property's name as an identifier of CEL.
fn escaped(key: &str) -> String {
    if RESERVED.contains(&key) {
        return format!("__{key}__");
    }
    key.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// A value by its schema; without one (`Null`) as it is.
pub(crate) fn to_cel(value: &Value, schema: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) if schema["type"] != "number" => cel::Value::Int(whole),
            _ => cel::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => {
            let special = match schema["format"].as_str() {
                Some("date-time") => converted(&TIMESTAMP, text),
                Some("duration") => converted(&DURATION, text),
                _ => None,
            };
            special.unwrap_or_else(|| cel::Value::from(text.as_str()))
        }
        Value::Array(items) => {
            let items: Vec<cel::Value> = items.iter().map(|item| to_cel(item, &schema["items"])).collect();
            cel::Value::List(Arc::new(items))
        }
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| match schema["properties"].get(key) {
                Some(schema) => (Key::from(escaped(key)), to_cel(value, schema)),
                None => (Key::from(key.as_str()), to_cel(value, &schema["additionalProperties"])),
            };
            let map: HashMap<Key, cel::Value> = map.iter().map(entry).collect();
            cel::Value::Map(Map { map: Arc::new(map) })
        }
    }
}
