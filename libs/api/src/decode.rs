//! Request bodies in, canonical objects out: JSON and YAML with Kubernetes' strictness and error texts.

mod canonical;
mod findings;
mod json;
mod retired;
mod syntax;
mod time;
mod unstructured;
mod yaml;

#[cfg(test)]
mod tests;

use crate::custom;
use crate::kinds::{self, Kind};
use crate::protobuf::Envelope;
use crate::schema;
use crate::status::go_quoted;
use crate::strategy;
use serde_json::{Map, Value};
use std::sync::LazyLock;

pub use canonical::found;
pub use unstructured::{convert_numbers, fault as unstructured_fault};

pub(crate) use findings::{is_full, tell};

/// How deep an object may be. With its field owners it becomes a few levels deeper, and must still be readable as JSON, whose
/// parser goes down 128.
const DEPTH_MAX: usize = 100;
/// Bytes of a body that an error shows.
const SHOWN: usize = 30;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object as Go would encode it again: unknown fields dropped, zero values where Go writes them.
    pub object: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`, in order; at most 100.
    pub findings: Vec<String>,
    /// It told lists without items, which are not in the object and raise its generation all the same.
    pub raises: bool,
}

/// Why a body is not an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON or YAML, no kind, or another kind than expected: the whole BadRequest message.
    #[error("{0}")]
    BadRequest(String),
}

/// Decodes a JSON body that should hold a `kind`. An absent `kind` or `apiVersion` is filled in where Kubernetes does so.
///
/// # Errors
/// The message of the 400 that Kubernetes would send.
pub fn json(body: &[u8], kind: &Kind) -> Result<Decoded, DecodeError> {
    let mut findings = Vec::new();
    let parsed = json::parse(body, &mut findings);
    let object = parsed.map_err(|error| {
        unrecognized(body, kind, &format!("couldn't get version/kind; json parse error: {error}"))
    })?;
    let mut decoded = typed(object, findings, body, kind)?;
    if kind.custom.is_none() {
        decoded.findings = json::in_order(body, decoded.findings);
    }
    Ok(decoded)
}

/// The same for YAML.
///
/// # Errors
/// The message of the 400 that Kubernetes would send.
pub fn yaml(body: &[u8], kind: &Kind) -> Result<Decoded, DecodeError> {
    // JSON is YAML, and sooner read; but YAML has its own word for duplicates.
    let mut repeated_keys = Vec::new();
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
        && json::parse(body, &mut repeated_keys).is_ok()
        && repeated_keys.is_empty()
        && let Ok(decoded) = json(body, kind)
    {
        return Ok(decoded);
    }
    let document = yaml::parse(body).map_err(|error| unrecognized(body, kind, &error))?;
    let findings = repeated(&document.duplicates).into_iter().collect();
    typed(document.value, findings, body, kind)
}

/// The same for protobuf, where nothing can be told twice.
///
/// # Errors
/// The message of the 400 that Kubernetes would send.
pub fn protobuf(body: &[u8], kind: &Kind) -> Result<Decoded, DecodeError> {
    let mut envelope = Envelope::open(body).map_err(|error| unrecognized(body, kind, &error.to_string()))?;
    if envelope.kind.is_empty() {
        envelope.kind.clone_from(&kind.kind);
    }
    if envelope.api_version.is_empty() {
        envelope.api_version = kind.api_version();
    }
    let (name, version) = (&envelope.kind, &envelope.api_version);
    let short = version.rsplit('/').next().unwrap_or_default();
    let refused = |why: String| {
        DecodeError::BadRequest(format!(
            "{name} in version {short:?} cannot be handled as a {}: {why}",
            kind.kind
        ))
    };
    // Options belong to every group.
    if name != &kind.kind || (version != &kind.api_version() && kind.group != "meta.k8s.io") {
        return Err(other_kind(version, name, short, kind, &refused));
    }
    let object = envelope.object().map_err(|error| refused(error.to_string()))?;
    Ok(Decoded { object, findings: Vec::new(), raises: false })
}

/// A JSON or YAML document as it was sent, with its duplicate fields.
///
/// # Errors
/// What is wrong with it, in Kubernetes' words.
pub fn document(body: &[u8]) -> Result<Decoded, String> {
    let mut findings = Vec::new();
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(object) = json::parse(body, &mut findings)
        && !too_deep(&object)
    {
        return Ok(Decoded { object, findings, raises: false });
    }
    findings.clear();
    let read = yaml::parse(body).map_err(|error| format!("error converting YAML to JSON: {error}"))?;
    let object = read.value;
    if too_deep(&object) {
        return Err("error converting YAML to JSON: yaml: exceeded max depth".to_owned());
    }
    findings.extend(repeated(&read.duplicates).map(|text| format!("error converting YAML to JSON: {text}")));
    match object {
        // Nothing is an object without fields.
        Value::Null => Ok(Decoded { object: Value::Object(Map::new()), findings, raises: false }),
        object @ Value::Object(_) => Ok(Decoded { object, findings, raises: false }),
        other => Err(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            canonical::found(&other)
        )),
    }
}

/// go-yaml tells of all repeated keys at once.
fn repeated(duplicates: &[String]) -> Option<String> {
    (!duplicates.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  ")))
}

/// A JSON text as a value.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn document_of_json(body: &[u8]) -> Result<Value, String> {
    json::parse(body, &mut Vec::new())
}

/// The same, with a finding for each duplicate field.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn json_with_findings(body: &[u8], findings: &mut Vec<String>) -> Result<Value, String> {
    json::parse(body, findings)
}

/// A YAML or JSON text as a value, whatever it is of.
///
/// # Errors
/// What is wrong with it.
pub fn any(body: &[u8]) -> Result<Value, String> {
    yaml::parse(body).map(|document| document.value)
}

/// Brings an object that was changed by a patch into canonical form, with the same findings (types, unknown fields).
///
/// # Errors
/// The Go-style type error, e.g. `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub fn canonical(object: Value, kind: &Kind) -> Result<Decoded, String> {
    shaped(object, Vec::new(), kind)
}

/// The same of an object that Go would write and read again: what is found is told in the order of the fields of that text.
///
/// # Errors
/// See [`canonical`].
pub fn canonical_of_text(object: Value, kind: &Kind) -> Result<Decoded, String> {
    let text = object.to_string();
    let mut decoded = canonical(object, kind)?;
    if kind.custom.is_none() {
        decoded.findings = json::in_order(text.as_bytes(), decoded.findings);
    }
    Ok(decoded)
}

/// Makes of an object what storing it makes of it: lists without items are none.
pub fn settle(object: &mut Value, kind: &Kind) {
    fn has_empty_list(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.is_empty() || items.iter().any(has_empty_list),
            Value::Object(map) => map.values().any(has_empty_list),
            _ => false,
        }
    }
    let root = schema::of(kind).filter(|_| kind.custom.is_none());
    if let Some(root) = root.filter(|_| has_empty_list(object)) {
        canonical::settle(&schema::Type::Message(root), object);
    }
}

/// The fields of standard metadata in the order in which Go writes them.
#[must_use]
pub fn metadata_fields() -> &'static [String] {
    static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let fields =
            schema::object_meta().map(schema::message).into_iter().flat_map(|message| &message.fields);
        fields.map(|field| field.name.clone()).collect()
    });
    &FIELDS
}

/// Makes an object's metadata, which is read alone, canonical; `place` is where it stands.
///
/// # Errors
/// Go's text of the first value of a wrong type.
pub(crate) fn metadata(value: Value, place: &str, findings: &mut Vec<String>) -> Result<Value, String> {
    if !value.is_object() && !value.is_null() {
        let found = canonical::found(&value);
        return Err(format!("json: cannot unmarshal {found} into Go value of type v1.ObjectMeta"));
    }
    let Some(meta) = schema::object_meta() else { return Ok(value) };
    let read = canonical::message(meta, value, &mut vec![place.to_owned()], findings);
    read.map_err(|text| text.replacen(&format!(".{place}."), ".", 1))
}

/// Makes an object of a type canonical, without kind and apiVersion.
///
/// # Errors
/// Go's text of the first value of a wrong type.
pub(crate) fn of_type(at: usize, object: Value) -> Result<Value, String> {
    if too_deep(&object) {
        return Err("proto: exceeded max depth".to_owned());
    }
    canonical::message(at, object, &mut Vec::new(), &mut Vec::new())
}

/// Whether an object could be stored, but not be read again.
fn too_deep(object: &Value) -> bool {
    fn deeper(value: &Value, left: usize) -> bool {
        match value {
            Value::Object(_) | Value::Array(_) if left == 0 => true,
            Value::Object(map) => map.values().any(|value| deeper(value, left - 1)),
            Value::Array(items) => items.iter().any(|value| deeper(value, left - 1)),
            _ => false,
        }
    }
    deeper(object, DEPTH_MAX)
}

fn shaped(mut object: Value, mut findings: Vec<String>, kind: &Kind) -> Result<Decoded, String> {
    if too_deep(&object) {
        return Err("json: exceeded max depth".to_owned());
    }
    let root = schema::of(kind).filter(|_| kind.custom.is_none());
    match &object {
        Value::Object(_) => {}
        // Nothing is an object without fields.
        Value::Null => object = Value::Object(Map::new()),
        other => {
            let go = root.map_or("map[string]interface {}", |root| schema::message(root).go.as_str());
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type {go}",
                canonical::found(other)
            ));
        }
    }
    let Some(root) = root else {
        if let Some(given) = object.get_mut("metadata") {
            *given = metadata(given.take(), "metadata", &mut findings)?;
        }
        if let Some(version) = &kind.custom {
            unstructured::as_go_writes(&mut object);
            custom::read(&mut object, version, &mut findings)?;
        }
        return Ok(Decoded { object, findings, raises: false });
    };
    let raises = strategy::tells_empties(&object, kind);
    let (name, version) = (object["kind"].take(), object["apiVersion"].take());
    if let Some(object) = object.as_object_mut() {
        object.remove("kind");
        object.remove("apiVersion");
    }
    let mut object = canonical::message(root, object, &mut Vec::new(), &mut findings)?;
    object["kind"] = name;
    object["apiVersion"] = version;
    Ok(Decoded { object, findings, raises })
}

/// Why it cannot be read what an object is of, in Go's words.
#[must_use]
pub fn type_fault(object: &Value) -> Option<String> {
    let fields = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let unfit = |value: &Value, of: &str| {
        let found = canonical::found(value);
        Some(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go {of}"
        ))
    };
    let Some(map) = object.as_object() else {
        return unfit(object, &format!("value of type {fields}"));
    };
    let told = map.iter().find(|(key, value)| {
        matches!(key.as_str(), "apiVersion" | "kind") && !value.is_string() && !value.is_null()
    });
    told.and_then(|(key, value)| unfit(value, &format!("struct field .{key} of type string")))
}

fn typed(mut object: Value, findings: Vec<String>, body: &[u8], kind: &Kind) -> Result<Decoded, DecodeError> {
    if object.is_null() {
        object = Value::Object(Map::new());
    }
    if let Some(text) = type_fault(&object) {
        return Err(unrecognized(body, kind, &text));
    }
    let told = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let (mut version, mut name) = (told("apiVersion"), told("kind"));
    if kind.custom.is_some() {
        return custom_typed(object, &version, &name, findings, body, kind);
    }
    if name.is_empty() {
        name.clone_from(&kind.kind);
    }
    if version.is_empty() {
        version = kind.api_version();
    }
    if version.matches('/').count() > 1 {
        return Err(unrecognized(body, kind, &format!("unexpected GroupVersion string: {version}")));
    }
    let short = version.rsplit('/').next().unwrap_or_default().to_owned();
    let refused = |why: String| {
        DecodeError::BadRequest(format!(
            "{name} in version {short:?} cannot be handled as a {}: {why}",
            kind.kind
        ))
    };
    if short.is_empty() {
        return Err(refused(format!(
            "Object 'apiVersion' is missing in '{}'",
            String::from_utf8_lossy(body)
        )));
    }
    if name != kind.kind || version != kind.api_version() {
        return Err(other_kind(&version, &name, &short, kind, &refused));
    }
    object["kind"] = name.clone().into();
    object["apiVersion"] = version.into();
    shaped(object, findings, kind).map_err(refused)
}

/// Custom objects must say what they are; their kind is judged with their other fields.
fn custom_typed(
    object: Value,
    version: &str,
    name: &str,
    findings: Vec<String>,
    body: &[u8],
    kind: &Kind,
) -> Result<Decoded, DecodeError> {
    if name.is_empty() {
        let text = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body));
        return Err(unrecognized(body, kind, &text));
    }
    if version != kind.api_version() {
        return Err(DecodeError::BadRequest(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    shaped(object, findings, kind).map_err(|why| {
        let (name, version) = (&kind.kind, &kind.version);
        DecodeError::BadRequest(format!("{name} in version {version:?} cannot be handled as a {name}: {why}"))
    })
}

/// Whether a version that nobody serves any more knows a kind.
pub(crate) fn is_retired(version: &str, kind: &str) -> bool {
    retired::is_known(version, kind)
}

/// Versions that nobody serves any more, but in which a Scale is still known for what it is.
const OLDER_SCALES: [&str; 3] = ["extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"];

/// Whether a kind belongs to all groups, or to none.
fn is_of_no_group(version: &str, name: &str) -> bool {
    const OF_ALL: [&str; 7] = [
        "CreateOptions",
        "DeleteOptions",
        "GetOptions",
        "ListOptions",
        "PatchOptions",
        "UpdateOptions",
        "WatchEvent",
    ];
    const OF_NONE: [&str; 5] = ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "Status"];
    let is_served = || kinds::builtin().iter().any(|kind| kind.api_version() == version);
    (version == "v1" && OF_NONE.contains(&name)) || (OF_ALL.contains(&name) && is_served())
}

fn other_kind(
    version: &str,
    name: &str,
    short: &str,
    kind: &Kind,
    refused: &dyn Fn(String) -> DecodeError,
) -> DecodeError {
    let known = kinds::by_gvk(version, name).is_some() || is_of_no_group(version, name);
    let is_older_scale = name == "Scale" && OLDER_SCALES.contains(&version);
    if name == kind.kind && (known || is_older_scale || retired::is_known(version, name)) {
        return DecodeError::BadRequest(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            kind.api_version()
        ));
    }
    if known {
        let package =
            if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
        return refused(format!(
            "converting ({short}.{name}) to ({package}.{}): unknown conversion",
            kind.kind
        ));
    }
    refused(format!(
        "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        go_quoted(name),
        go_quoted(version)
    ))
}

/// The message for a body whose kind cannot be told, with its beginning.
fn unrecognized(body: &[u8], kind: &Kind, error: &str) -> DecodeError {
    let shown = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let shown = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    DecodeError::BadRequest(format!(
        "the object provided is unrecognized (must be of type {}): {error} ({shown}{more})",
        kind.kind
    ))
}
