//! DeleteOptions: from a body or from a query.

use super::super::options::{FieldValidation, WriteOptions, dry_run};
use super::super::{Call, body, read};
use crate::storage::encode::Media;
use crate::storage::entry::Entry;
use coracle_api::meta;
use coracle_api::status::{FieldError, GroupResource, Status};
use serde_json::{Value, json};

/// What the caller of a delete wants.
#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct DeleteOptions {
    pub dry_run: bool,
    /// Seconds.
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub revision: Option<String>,
    /// `Orphan`, `Background` or `Foreground`; `None` leaves it to the kind.
    pub propagation: Option<String>,
    /// As admission is shown them.
    pub sent: Value,
}

impl DeleteOptions {
    pub(super) fn read(call: &Call) -> Result<Self, Status> {
        let sent = if call.body.is_empty() {
            Value::Null
        } else {
            let kind = body::loose_kind("meta.k8s.io", "v1", "DeleteOptions");
            match body::media(&call.content_type)? {
                Media::Protobuf => {
                    body::read(&call.content_type, &call.body, &kind, FieldValidation::Ignore)?.object
                }
                Media::Yaml => coracle_api::decode::any(&call.body).map_err(untold)?,
                Media::Json => coracle_api::decode::document_of_json(&call.body).map_err(untold)?,
            }
        };
        check_types(&sent)?;
        // Who sends a body says everything there.
        let query: &[_] = if call.body.is_empty() { &call.query } else { &[] };
        let options = Self::of(&sent, query)?;
        if !call.body.is_empty() {
            crate::audit::options(&options.sent);
        }
        Ok(options)
    }

    /// What was sent in a body, or in a query.
    ///
    /// # Errors
    /// 422 that names the option, 400 for what is no number.
    pub(in crate::registry) fn of(sent: &Value, query: &[(String, String)]) -> Result<Self, Status> {
        let mut faults = Vec::new();
        let grace = query.iter().find(|(key, _)| key == "gracePeriodSeconds");
        let grace = read::integer(grace.map_or("", |(_, value)| value))?;
        let in_query = query.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str());
        let dry_run = dry_run(meta::strings(&sent["dryRun"]).chain(in_query), &mut faults);
        let asked = |name: &str| {
            let found = query.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).filter(|text| !text.is_empty())
        };
        let propagation =
            sent["propagationPolicy"].as_str().map(str::to_owned).or_else(|| asked("propagationPolicy"));
        if let Some(policy) = &propagation
            && !["Background", "Foreground", "Orphan"].contains(&policy.as_str())
        {
            faults.push(FieldError::not_supported(
                "propagationPolicy",
                &json!(policy),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        let orphans = sent["orphanDependents"]
            .as_bool()
            .or_else(|| asked("orphanDependents").map(|text| !matches!(text.as_str(), "false" | "0")));
        if orphans.is_some() && propagation.is_some() {
            faults.push(FieldError::invalid(
                "propagationPolicy",
                &json!(propagation),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if !faults.is_empty() {
            return Err(Status::invalid(&GroupResource::new("meta.k8s.io", "DeleteOptions"), "", &faults));
        }
        let mut shown = if sent.is_object() { sent.clone() } else { json!({}) };
        (shown["kind"], shown["apiVersion"]) = (json!("DeleteOptions"), json!("meta.k8s.io/v1"));
        if !query.is_empty() {
            let rows = [
                ("gracePeriodSeconds", grace.map(Value::from)),
                ("dryRun", dry_run.then(|| json!(["All"]))),
                ("orphanDependents", orphans.map(Value::from)),
                ("propagationPolicy", propagation.clone().map(Value::from)),
            ];
            say(&mut shown, rows);
        }
        let by_flag = orphans.map(|orphans| if orphans { "Orphan" } else { "Background" }.to_owned());
        Ok(Self {
            dry_run,
            grace: sent["gracePeriodSeconds"].as_i64().or(grace),
            propagation: propagation.or(by_flag),
            sent: shown,
            ..Self::conditions(sent, query)
        })
    }

    /// What must hold of an object, alone.
    pub(in crate::registry) fn conditions(sent: &Value, query: &[(String, String)]) -> Self {
        let sent = &sent["preconditions"];
        let told = |key: &str| {
            let found = query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
            let text = sent[key].as_str().filter(|text| !text.is_empty()).or(found);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Self { uid: told("uid"), revision: told("resourceVersion"), ..Self::default() }
    }

    /// As they are once an object was marked to go at once.
    pub(super) fn hurry(&mut self, marked: &Entry) {
        self.grace = Some(0);
        if let Some(revision) = &mut self.revision {
            *revision = marked.revision.to_string();
        }
    }

    /// As admission is shown them once it is known for how long an object is to stay.
    pub(super) fn shown(&self, grace: Option<i64>) -> Value {
        let mut shown = self.sent.clone();
        say(&mut shown, [("gracePeriodSeconds", grace.map(Value::from))]);
        shown
    }
}

impl DeleteOptions {
    pub(super) fn as_write(&self) -> WriteOptions {
        WriteOptions { dry_run: self.dry_run, sent: self.sent.clone(), ..WriteOptions::of_server() }
    }
}

/// Shows admission what is known besides.
fn say<const N: usize>(shown: &mut Value, rows: [(&str, Option<Value>); N]) {
    for (key, value) in rows {
        if let Some(value) = value {
            shown[key] = value;
        }
    }
}

/// Refuses options of the wrong types: what was meant cannot be known, and a deletion cannot be taken back.
fn check_types(sent: &Value) -> Result<(), Status> {
    let conditions = &sent["preconditions"];
    let rows: [(&str, &Value, &str, bool); 7] = [
        ("gracePeriodSeconds", &sent["gracePeriodSeconds"], "int64", sent["gracePeriodSeconds"].is_i64()),
        ("orphanDependents", &sent["orphanDependents"], "bool", sent["orphanDependents"].is_boolean()),
        ("propagationPolicy", &sent["propagationPolicy"], "string", sent["propagationPolicy"].is_string()),
        ("dryRun", &sent["dryRun"], "[]string", sent["dryRun"].is_array()),
        ("preconditions", conditions, "v1.Preconditions", conditions.is_object()),
        ("preconditions.uid", &conditions["uid"], "types.UID", conditions["uid"].is_string()),
        (
            "preconditions.resourceVersion",
            &conditions["resourceVersion"],
            "string",
            conditions["resourceVersion"].is_string(),
        ),
    ];
    if !sent.is_object() && !sent.is_null() {
        let found = coracle_api::decode::found(sent);
        return Err(untold(format!(
            "json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    }
    let text = |key: &str| sent[key].as_str().filter(|text| !text.is_empty());
    if let Some(other) = text("kind").filter(|kind| *kind != "DeleteOptions") {
        let version = text("apiVersion").unwrap_or("meta.k8s.io/v1");
        return Err(Status::new(
            500,
            "",
            format!(
                "no kind {other:?} is registered for version {version:?} in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\""
            ),
        ));
    }
    match rows.into_iter().find(|(_, value, _, fits)| !value.is_null() && !fits) {
        None => Ok(()),
        Some((field, value, of, _)) => {
            let found = match value {
                // Go shows numbers that do not fit.
                Value::Number(number) if of == "int64" => format!("number {number}"),
                other => coracle_api::decode::found(other).to_owned(),
            };
            let text = format!(
                "json: cannot unmarshal {found} into Go struct field DeleteOptions.{field} of type {of}"
            );
            Err(Status::new(500, "", text))
        }
    }
}

/// A body whose type cannot be told.
fn untold(fault: impl std::fmt::Display) -> Status {
    Status::new(500, "", format!("couldn't get version/kind; json parse error: {fault}"))
}
