//! patch: JSON, merge, strategic-merge and apply.

use super::body::{Read, judged};
use super::options::{FieldValidation, WriteOptions};
use super::update::{Made, fits_url, is_absent, nameless};
use super::{At, Call, Outcome, Registry, Reply, shown, tail};
use coracle_api::apply::{self, ApplyError, Writer};
use coracle_api::decode::{self, Decoded};
use coracle_api::kinds::{self, Kind};
use coracle_api::meta;
use coracle_api::patch::{self, PatchError, Patched};
use coracle_api::status::{FieldError, GroupResource, Status, go_printed, go_quoted};
use coracle_api::strategy;
use coracle_daemon::clock;
use serde_json::Value;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";

impl Registry {
    pub(super) async fn patch(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?.clone();
        check_media(&kind, call)?;
        crate::audit::sent(&call.body);
        let applies = call.content_type == APPLY;
        let options = WriteOptions::read(call, "PatchOptions", applies)?;
        let at = At::new(call, self.resource(&kind)?, options)?;
        if applies {
            return self.apply(call, at).await;
        }
        let make = |old: &Value| {
            let read = patched(old, &call.content_type, &call.body, &kind, at.options.validation)?;
            let mut object = read.object;
            fits_url(&mut object, &at)?;
            Ok(Made { warnings: read.warnings, raises: read.raises, ..Made::unowned(object) })
        };
        let (outcome, warnings) = self.change(&at, &make).await?;
        Ok(Reply::bytes(200, call.format, self.encoded(&outcome, call.format, &kind).await?).warned(warnings))
    }

    async fn apply(&self, call: &Call, at: At) -> Result<Reply, Status> {
        let kind = at.kind.clone();
        // As it was sent: what is not in it is not owned.
        let read = match configuration(&call.body, at.options.validation) {
            Ok(read) => read,
            Err(status) => return Err(self.unless_absent(&at, status).await),
        };
        let Read { object: mut config, warnings, .. } = read;
        let told = warnings.clone();
        let applied = self.apply_config(&at, &mut config, warnings).await;
        let (code, outcome, warnings) = match applied {
            Ok(applied) => applied,
            Err(status) => return Err(self.unless_absent(&at, status.warned(told)).await),
        };
        Ok(Reply::bytes(code, call.format, self.encoded(&outcome, call.format, &kind).await?)
            .warned(warnings))
    }

    /// What is wrong with a configuration, unless nothing is there that it could be applied to.
    async fn unless_absent(&self, at: &At, wrong: Status) -> Status {
        if makes(at) {
            return wrong;
        }
        let found = match tail(&at.namespace, &at.info.name) {
            Ok(tail) => self.store.get(&at.resource, &tail).await,
            Err(status) => Err(status),
        };
        match found {
            Ok(Some(_)) => wrong,
            Ok(None) => at.not_found(),
            Err(status) => status,
        }
    }

    /// Applies a configuration; tells whether that created (201) or changed (200) the object.
    pub(super) async fn apply_config(
        &self,
        at: &At,
        config: &mut Value,
        warnings: Vec<String>,
    ) -> Result<(u16, Outcome, Vec<String>), Status> {
        let kind = &at.kind;
        is_of(config, kind)?;
        apply::declared(config, kind).map_err(refused)?;
        let sent = config.clone();
        // What is there already has its name, unless that is taken away.
        let says_none = |meta: &Value, key: &str| {
            meta.get(key).is_some_and(|name| name.as_str().is_none_or(str::is_empty))
        };
        let takes_name = says_none(&config["metadata"], "name");
        let named = !meta::name(config).is_empty();
        if !named {
            meta::set(config, "name", at.info.name.as_str());
        }
        fits_url(config, at)?;
        let now = clock::rfc3339_seconds(clock::now());
        let writer = Writer { manager: &at.options.manager, subresource: &at.info.subresource, now: &now };
        // Who takes the namespace away changes the object, though it gets it back.
        let takes_namespace = kind.namespaced && says_none(&sent["metadata"], "namespace");
        let changing = as_said(config, &sent, (named, takes_namespace));
        let make = |old: &Value| {
            let applied = applied(Some(old), (&changing, &sent), kind, &writer, at.options.force)?;
            let Decoded { mut object, raises, .. } = applied;
            if takes_namespace {
                meta::set(&mut object, "namespace", at.namespace.as_str());
            }
            // With the last that anybody has applied of its metadata, an object loses all of it.
            if takes_name || meta::name(&object).is_empty() {
                return Err(nameless(&at.info.name));
            }
            Ok(Made { warnings: warnings.clone(), raises, ..Made::owned(object) })
        };
        let missing = match self.change(at, &make).await {
            Ok((outcome, warnings)) => return Ok((200, outcome, warnings)),
            Err(status) => status,
        };
        // What is made by updates is so through its subresources, too.
        if !is_absent(at, &missing) || !makes(at) {
            return Err(missing);
        }
        if !named {
            return Err(nameless(&at.info.name));
        }
        let uid = meta::uid(config);
        if !uid.is_empty() {
            let cause = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Status::conflict(&kind.group_resource(), &at.info.name, &cause));
        }
        self.may_create(at).await?;
        let mut object = applied(None, (config, &sent), kind, &writer, at.options.force)?.object;
        meta::remove(&mut object, "resourceVersion");
        let mut warnings = warnings;
        let outcome = self.create_object(at, object, true, &mut warnings).await?;
        Ok((201, outcome, warnings))
    }
}

/// Whether an apply may make the object: through a subresource it does where updates do.
fn makes(at: &At) -> bool {
    match at.info.subresource.as_str() {
        "" => true,
        "status" => at.strategy().allow_create_on_update,
        _ => false,
    }
}

/// A configuration that fits its URL, with no more of name and namespace than its writer says of them.
fn as_said(config: &Value, sent: &Value, (named, takes_namespace): (bool, bool)) -> Value {
    let mut said = config.clone();
    if takes_namespace {
        said["metadata"]["namespace"] = Value::Null;
    } else if !named && let Some(fields) = said.as_object_mut() {
        match sent.get("metadata") {
            Some(metadata) => drop(fields.insert("metadata".to_owned(), metadata.clone())),
            None => drop(fields.remove("metadata")),
        }
    }
    said
}

/// What is applied, as it was sent.
///
/// # Errors
/// 400.
pub(super) fn configuration(body: &[u8], validation: FieldValidation) -> Result<Read, Status> {
    let mut decoded =
        decode::document(body).map_err(|text| Status::bad_request(format!("error decoding YAML: {text}")))?;
    if validation == FieldValidation::Strict && !decoded.findings.is_empty() {
        let text = decoded.findings.join(", ");
        return Err(Status::bad_request(format!("error strict decoding YAML: {text}")));
    }
    // Of more than one line, which no header can have.
    decoded.findings.clear();
    judged(decoded, validation, String::new)
}

/// Built-in kinds refuse other patches by their route, custom ones by their handler.
///
/// # Errors
/// 415, or 406 of a route where nothing is sent.
pub(super) fn check_media(kind: &Kind, call: &Call) -> Result<(), Status> {
    let content_type = call.content_type.as_str();
    let custom = kind.custom.is_some();
    let accepted: &[&str] = if custom { &[JSON, MERGE, APPLY] } else { &[JSON, MERGE, STRATEGIC, APPLY] };
    if accepted.contains(&content_type) {
        return Ok(());
    }
    // A route is chosen by any one of several types, the handler then goes by the whole text.
    let routed = content_type.split(',').any(|one| accepted.contains(&one.trim()));
    if custom || routed {
        return Err(Status::unsupported_media_type(accepted));
    }
    let mut status = if call.body.is_empty() {
        Status::new(406, "NotAcceptable", "406: Not Acceptable\n\nAvailable representations: ")
    } else {
        Status::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    };
    status.details = serde_json::json!({});
    Err(status)
}

/// A configuration, complete and as it was sent, applied to what there is.
fn applied(
    old: Option<&Value>,
    (config, sent): (&Value, &Value),
    kind: &Kind,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Decoded, Status> {
    let decoded = |config: &Value| {
        let mut object = apply::apply(old, config, kind, writer, force).map_err(refused)?;
        apply::refresh(&mut object, sent, writer.manager);
        Ok::<_, Status>(decode::canonical(object, kind))
    };
    let text = match decoded(config)? {
        Ok(object) => return Ok(object),
        Err(text) => text,
    };
    let decoded = match numbers_converted(config, kind, text) {
        Ok(config) => decoded(&config)?,
        Err(text) => Err(text),
    };
    let unfit = |fault: String| {
        let (of, version) = (apply::shown(sent, kind), apply::versioned(kind));
        format!(
            "failed to convert new object ({of}) to proper version: unable to convert unstructured object to {version}, Kind={}: {fault}",
            kind.kind
        )
    };
    decoded.map_err(|text| Status::new(500, "", unfit(text)))
}

/// What was taken apart and could not be read as it is, with its numbers converted as Go does.
///
/// # Errors
/// That is not what is wrong: what is.
fn numbers_converted(object: &Value, kind: &Kind, text: String) -> Result<Value, String> {
    if kind.custom.is_some() {
        return Err(text);
    }
    if let Some(fault) = decode::unstructured_fault(object, kind) {
        return Err(fault);
    }
    let mut converted = object.clone();
    decode::convert_numbers(&mut converted, kind);
    Ok(converted)
}

pub(super) fn refused(error: ApplyError) -> Status {
    match error {
        ApplyError::Conflict(status) => *status,
        ApplyError::Malformed(text) => Status::bad_request(text),
        ApplyError::Undeclared(text) => Status::new(500, "", text),
    }
}

/// An applied configuration must say what it is of.
pub(super) fn is_of(config: &Value, kind: &Kind) -> Result<(), Status> {
    let text = |key: &str| config[key].as_str().unwrap_or_default();
    let (version, name) = (text("apiVersion"), text("kind"));
    if version == kind.api_version() && name == kind.kind {
        return Ok(());
    }
    let told = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
    Err(Status::bad_request(format!("invalid object type: {told}, Kind={name}")))
}

/// `old` with a patch applied, canonical again.
///
/// # Errors
/// 400 for a malformed patch, 422 for one that does not apply.
pub(super) fn patched(
    old: &Value,
    content_type: &str,
    body: &[u8],
    kind: &Kind,
    validation: FieldValidation,
) -> Result<Read, Status> {
    let built_in = kind.custom.is_none();
    let patched = match content_type {
        JSON => patch::json_patch(old, body),
        MERGE => patch::merge_patch(old, body),
        STRATEGIC => patch::strategic(old, body, kind),
        _ => return Err(Status::unsupported_media_type(&[JSON, MERGE, STRATEGIC, APPLY])),
    };
    let Patched { mut object, findings } = patched.map_err(|error| match error {
        PatchError::Malformed(text) => Status::bad_request(text),
        PatchError::TooLarge(text) => Status::too_large(text),
        PatchError::Unprocessable(text) => {
            Status { details: serde_json::json!({}), ..Status::new(422, "Invalid", text) }
        }
        PatchError::Failed(text) => Status::new(500, "", text),
    })?;
    let unfit = |shown: String, text: String| {
        let fault = FieldError::invalid("patch", &Value::String(shown), text);
        Status::invalid(&GroupResource::default(), "", &[fault])
    };
    let shown = |object: &Value| match content_type {
        STRATEGIC => go_printed(&decode::any(body).unwrap_or_default()),
        _ => shown::patched(object, old, kind),
    };
    if content_type == STRATEGIC {
        // What an object is of stands outside of what is merged.
        for key in ["kind", "apiVersion"] {
            object[key] = old[key].clone();
        }
    }
    types_stay(&object, kind, old).map_err(|wrong| match wrong {
        Wrong::Unfit(text) => unfit(shown(&object), text),
        Wrong::Refused(status) => *status,
        Wrong::Untyped => untyped(&object, old, validation, unfit, shown),
    })?;
    if built_in && object["kind"].as_str().is_none_or(str::is_empty) {
        object["kind"] = kind.kind.as_str().into();
    }
    let decoded = match content_type {
        STRATEGIC => merged(&object, kind),
        _ => decode::canonical_of_text(object.clone(), kind),
    };
    let mut decoded = decoded.map_err(|text| unfit(shown(&object), text))?;
    if let Some(text) = strategy::inconvertible(&decoded.object, kind) {
        let strategic = content_type == STRATEGIC;
        return Err(if strategic { Status::new(500, "", text) } else { unfit(shown(&object), text) });
    }
    decoded.findings.splice(0..0, findings);
    if validation == FieldValidation::Strict && !decoded.findings.is_empty() {
        let text = format!("strict decoding error: {}", decoded.findings.join(", "));
        return Err(unfit(shown(&object), text));
    }
    judged(decoded, validation, String::new)
}

/// What was merged field by field is never a text again: what is found in it has an order of its own.
fn merged(object: &Value, kind: &Kind) -> Result<Decoded, String> {
    let mut decoded = decode::canonical(object.clone(), kind)
        .or_else(|text| decode::canonical(numbers_converted(object, kind, text)?, kind))?;
    decoded.findings.sort_unstable();
    Ok(decoded)
}

/// Why a patched object is not of its kind any more.
enum Wrong {
    /// It cannot be read.
    Unfit(String),
    /// With a Status of its own.
    Refused(Box<Status>),
    /// It does not say what it is.
    Untyped,
}

/// What is read as an object of no type has no field that it names, and no name.
fn untyped(
    object: &Value,
    old: &Value,
    validation: FieldValidation,
    unfit: impl Fn(String, String) -> Status,
    shown: impl Fn(&Value) -> String,
) -> Status {
    let typed = |key: &str| matches!(key, "apiVersion" | "kind");
    let keys = object.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| !typed(key));
    let mut findings: Vec<String> = keys.map(|key| format!("unknown field {}", go_quoted(key))).collect();
    findings.sort_unstable();
    match validation {
        FieldValidation::Strict if !findings.is_empty() => {
            unfit(shown(object), format!("strict decoding error: {}", findings.join(", ")))
        }
        _ => {
            let told = if validation == FieldValidation::Warn { findings } else { Vec::new() };
            nameless(meta::name(old)).warned(told)
        }
    }
}

/// A patch may not make another kind or version of an object.
fn types_stay(object: &Value, kind: &Kind, old: &Value) -> Result<(), Wrong> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let (name, version) = (text("kind"), text("apiVersion"));
    let refused = |status: Status| Err(Wrong::Refused(Box::new(status)));
    if let Some(text) = decode::type_fault(object) {
        return Err(Wrong::Unfit(text));
    }
    if kind.custom.is_some() {
        if name.is_empty() {
            return Err(Wrong::Unfit(format!("Object 'Kind' is missing in '{object}'")));
        }
        if object.get("apiVersion").is_some_and(Value::is_null) {
            let text = ".apiVersion accessor error: <nil> is of the type <nil>, expected string";
            return Err(Wrong::Unfit(text.to_owned()));
        }
        let has_metadata = matches!(object["metadata"], Value::Object(_) | Value::Null);
        if has_metadata && meta::name(object).is_empty() && !version.is_empty() {
            return refused(nameless(meta::name(old)));
        }
        if version.is_empty() {
            return refused(Status::internal(
                "Object 'apiVersion' is missing in 'object has no apiVersion field'",
            ));
        }
        if version != kind.api_version() {
            let fault = FieldError::invalid(
                "apiVersion",
                &object["apiVersion"],
                format!("must be {}", kind.api_version()),
            );
            let group = version.split_once('/').map_or("", |(group, _)| group);
            return refused(Status::invalid(&GroupResource::new(group, name), meta::name(old), &[fault]));
        }
        return Ok(());
    }
    if version.is_empty() {
        return Err(Wrong::Untyped);
    }
    if version.ends_with('/') {
        return Err(Wrong::Unfit(format!("Object 'apiVersion' is missing in '{object}'")));
    }
    // What does not say its kind is of the one that was there.
    let name = if name.is_empty() { kind.kind.as_str() } else { name };
    if name == kind.kind && version == kind.api_version() {
        return Ok(());
    }
    if kinds::by_gvk(version, name).is_some() {
        let package =
            if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
        let short = version.rsplit('/').next().unwrap_or_default();
        let text = format!("converting ({short}.{name}) to ({package}.{}): unknown conversion", kind.kind);
        return Err(Wrong::Unfit(text));
    }
    Err(Wrong::Unfit(format!(
        "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        go_quoted(name),
        go_quoted(version)
    )))
}
