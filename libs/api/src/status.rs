//! Errors as Kubernetes tells them: `metav1.Status` and the field errors in its causes.
//!
//! Source: apimachinery `api/errors` and `util/validation/field`; texts in the fact table `errors.md`.

use indexmap::IndexSet;
use serde_json::{Map, Value, json};
use std::fmt;

/// A group and a plural, as errors and authorization name a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupResource {
    /// API group; empty for core.
    pub group: String,
    /// Plural name (or, in `Invalid` errors, the kind).
    pub resource: String,
}

impl GroupResource {
    /// Shorthand.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

/// The kinds of field error, which are the `reason`s of causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// A referenced value does not exist.
    NotFound,
    /// A value must be given.
    Required,
    /// A value that must be unique is not.
    Duplicate,
    /// A malformed value.
    Invalid,
    /// A value outside an enumeration; `detail` holds `supported values: "A", "B"`.
    NotSupported,
    /// A well-formed value that may not be here.
    Forbidden,
    /// A value longer than `detail` says.
    TooLong,
    /// More items than `detail` says.
    TooMany,
    /// The server failed while checking.
    Internal,
    /// A value of the wrong JSON type.
    TypeInvalid,
}

/// One fault of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorType,
    /// Path such as `spec.containers[0].name`; empty paths print as `<nil>`.
    pub field: String,
    /// The bad value as the message shows it (already quoted or `%v`-formatted); `None` where the message shows none.
    pub value: Option<String>,
    /// The detail after the value.
    pub detail: String,
}

/// `value` as Go's `field.Error` prints it: strings quoted, scalars bare, the rest as JSON text.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => go_quoted(text),
        Value::Object(map) if is_label_selector(map) => {
            // Go's order is that of the type's fields, which is not the alphabet's here.
            let fields = SELECTOR_FIELDS.iter().filter_map(|field| Some((field, map.get(*field)?)));
            let fields: Vec<String> = fields.map(|(field, value)| format!("\"{field}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

const SELECTOR_FIELDS: [&str; 2] = ["matchLabels", "matchExpressions"];

fn is_label_selector(map: &Map<String, Value>) -> bool {
    !map.is_empty() && map.keys().all(|key| SELECTOR_FIELDS.contains(&key.as_str()))
}

/// `value` as Go's `%v` prints what it has decoded: `map[a:1 b:map[c:d]]`.
#[must_use]
pub fn go_printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_printed).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            let fields = fields.iter().map(|(key, value)| format!("{key}:{}", go_printed(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// Go's `%q`.
#[must_use]
pub fn go_quoted(text: &str) -> String {
    use fmt::Write;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl FieldError {
    fn new(
        kind: ErrorType,
        field: impl Into<String>,
        value: Option<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, field: field.into(), value, detail: detail.into() }
    }
    /// `Invalid value: VALUE: detail`.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, Some(shown(value)), detail)
    }
    /// `Required value[: detail]`.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, field, None, detail)
    }
    /// `Duplicate value: VALUE`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(ErrorType::Duplicate, field, Some(shown(value)), "")
    }
    /// `Not found: VALUE`.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(ErrorType::NotFound, field, Some(shown(value)), "")
    }
    /// `Forbidden: detail`.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, field, None, detail)
    }
    /// `Unsupported value: VALUE: supported values: "A", "B"`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| go_quoted(s)).collect();
        let detail =
            if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self::new(ErrorType::NotSupported, field, Some(shown(value)), detail)
    }
    /// `Too long: may not be more than MAX bytes`.
    pub fn too_long(field: impl Into<String>, max: i64) -> Self {
        let detail = if max >= 0 {
            format!("may not be more than {max} bytes")
        } else {
            "value is too long".to_owned()
        };
        Self::new(ErrorType::TooLong, field, None, detail)
    }
    /// `Too many: ACTUAL: must have at most MAX items`.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let noun = if max == 1 { "item" } else { "items" };
        Self::new(
            ErrorType::TooMany,
            field,
            Some(actual.to_string()),
            format!("must have at most {max} {noun}"),
        )
    }
    /// `Internal error: detail`.
    pub fn internal(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Internal, field, None, detail)
    }

    /// The message without the field.
    #[must_use]
    pub fn body(&self) -> String {
        let word = match self.kind {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::Internal => "Internal error",
        };
        let mut out = word.to_owned();
        for part in [self.value.as_deref(), Some(self.detail.as_str()).filter(|detail| !detail.is_empty())]
            .into_iter()
            .flatten()
        {
            out.push_str(": ");
            out.push_str(part);
        }
        out
    }

    fn shown_field(&self) -> &str {
        if self.field.is_empty() { "<nil>" } else { &self.field }
    }

    /// As an element of `details.causes`.
    #[must_use]
    pub fn cause(&self) -> Value {
        let reason = match self.kind {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        };
        json!({"reason": reason, "message": self.body(), "field": self.shown_field()})
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shown_field(), self.body())
    }
}

/// A failure, ready to be sent. `details` is absent when `Null`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason; may be empty.
    pub reason: String,
    /// Human-readable text.
    pub message: String,
    /// `StatusDetails` as JSON, or `Null`.
    pub details: Value,
    /// `metadata.continue` of an expired list; rarely set.
    pub continue_token: Option<Box<str>>,
    /// What there was to warn of before it failed.
    pub warnings: Box<[String]>,
}

impl Status {
    /// A Status without details.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            details: Value::Null,
            continue_token: None,
            warnings: Box::default(),
        }
    }

    /// With what there was to warn of before.
    #[must_use]
    pub fn warned(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        let later = std::mem::take(&mut self.warnings);
        self.warnings = warnings.into_iter().chain(later).collect();
        self
    }

    fn about(code: u16, reason: &str, of: &GroupResource, name: &str, message: String) -> Self {
        Self { details: details(name, of), ..Self::new(code, reason, message) }
    }

    /// 404 of a path that leads nowhere.
    #[must_use]
    pub fn no_such_resource() -> Self {
        let mut status = Self::new(404, "NotFound", "the server could not find the requested resource");
        status.details = json!({});
        status
    }
    /// 405 of a path that takes other methods.
    #[must_use]
    pub fn no_such_method() -> Self {
        let text = "the server does not allow this method on the requested resource";
        let mut status = Self::new(405, "MethodNotAllowed", text);
        status.details = json!({});
        status
    }
    /// 404 for an object.
    #[must_use]
    pub fn not_found(of: &GroupResource, name: &str) -> Self {
        Self::about(404, "NotFound", of, name, format!("{of} {} not found", go_quoted(name)))
    }
    /// 409 on create.
    #[must_use]
    pub fn already_exists(of: &GroupResource, name: &str) -> Self {
        Self::about(409, "AlreadyExists", of, name, format!("{of} {} already exists", go_quoted(name)))
    }
    /// 409 with a cause.
    #[must_use]
    pub fn conflict(of: &GroupResource, name: &str, cause: &str) -> Self {
        Self::about(
            409,
            "Conflict",
            of,
            name,
            format!("Operation cannot be fulfilled on {of} {}: {cause}", go_quoted(name)),
        )
    }
    /// 409 for a resourceVersion that is not the latest.
    #[must_use]
    pub fn stale(of: &GroupResource, name: &str) -> Self {
        Self::conflict(
            of,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }
    /// 403 with the full text after `forbidden: `.
    #[must_use]
    pub fn forbidden(of: &GroupResource, name: &str, cause: &str) -> Self {
        let message = match (of.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {cause}"),
            (false, true) => format!("{of} is forbidden: {cause}"),
            (false, false) => format!("{of} {} is forbidden: {cause}", go_quoted(name)),
        };
        Self::about(403, "Forbidden", of, name, message)
    }
    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }
    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }
    /// 405: `ACTION is not supported on resources of kind "RES"`.
    #[must_use]
    pub fn method_not_allowed(of: &GroupResource, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind {}", go_quoted(&of.to_string()));
        Self::about(405, "MethodNotAllowed", of, "", message)
    }
    /// 422; `of` is group and *kind*. Repeated errors are told once.
    #[must_use]
    pub fn invalid(of: &GroupResource, name: &str, errors: &[FieldError]) -> Self {
        let texts: IndexSet<String> = errors.iter().map(ToString::to_string).collect();
        let texts: Vec<String> = texts.into_iter().collect();
        let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let message = if errors.is_empty() {
            format!("{of} {} is invalid", go_quoted(name))
        } else {
            format!("{of} {} is invalid: {list}", go_quoted(name))
        };
        let mut status = Self::about(422, "Invalid", of, name, message);
        if !errors.is_empty() {
            status.details["causes"] = errors.iter().map(FieldError::cause).collect();
        }
        status
    }
    /// 410, reason Expired.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }
    /// 429 with `details.retryAfterSeconds`.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(429, "TooManyRequests", message);
        if retry_after_seconds > 0 {
            status.details = json!({"retryAfterSeconds": retry_after_seconds});
        }
        status
    }
    /// 500.
    pub fn internal(error: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {error}");
        let mut status = Self::new(500, "InternalError", message);
        status.details = json!({"causes": [{"message": error.to_string()}]});
        status
    }
    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }
    /// 504 for a resourceVersion from the future.
    #[must_use]
    pub fn too_large_resource_version(wanted: u64, current: u64) -> Self {
        let mut status = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {wanted}, current: {current}"),
        );
        status.details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
        status
    }
    /// 504.
    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}"))
    }
    /// 406.
    #[must_use]
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
    }
    /// 415.
    #[must_use]
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }
    /// 413, and what is too large.
    #[must_use]
    pub fn too_large(what: impl fmt::Display) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {what}"))
    }

    /// The body that clients get.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), json!(token));
        }
        let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure", "message": self.message, "code": self.code});
        if !self.reason.is_empty() {
            body["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            body["details"] = self.details.clone();
        }
        body
    }
}

fn details(name: &str, of: &GroupResource) -> Value {
    let mut details = Map::new();
    for (key, value) in [("name", name), ("group", &of.group), ("kind", &of.resource)] {
        if !value.is_empty() {
            details.insert(key.to_owned(), json!(value));
        }
    }
    Value::Object(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_are_shown_in_the_order_of_their_fields() {
        let selector = json!({"matchExpressions": [{"key": "a"}], "matchLabels": {"b": "c"}});
        assert_eq!(shown(&selector), r#"{"matchLabels":{"b":"c"},"matchExpressions":[{"key":"a"}]}"#);
        assert_eq!(shown(&json!({"matchLabels": {}})), r#"{"matchLabels":{}}"#);
        assert_eq!(shown(&json!({})), "{}");
    }

    #[test]
    fn invalid_lists_every_field_error_as_kubernetes_does() {
        let errors =
            [FieldError::required("spec.a", ""), FieldError::invalid("spec.b", &json!("x"), "must be y")];
        let status = Status::invalid(&GroupResource::new("apps", "Deployment"), "web", &errors);
        assert_eq!(
            status.message,
            r#"Deployment.apps "web" is invalid: [spec.a: Required value, spec.b: Invalid value: "x": must be y]"#
        );
        assert_eq!(
            status.to_value()["details"]["causes"][0],
            json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"})
        );
    }
}
