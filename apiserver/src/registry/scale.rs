//! The scale subresource: replicas of whatever has `spec.replicas`, as an autoscaling/v1 Scale.

use super::options::WriteOptions;
use super::update::{Made, fits_url};
use super::{At, Call, Registry, Reply, body, patch};
use crate::storage::convert;
use crate::storage::encode::{self, Shape};
use coracle_api::apply::{self, Writer};
use coracle_api::kinds::Kind;
use coracle_api::meta;
use coracle_api::selector::LabelSelector;
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_api::table;
use coracle_daemon::clock;
use serde_json::{Value, json};
use std::sync::Arc;

/// Where a kind keeps what a Scale tells.
struct Paths {
    replicas: String,
    observed: String,
    /// A text; `None` where the selector is an object.
    selector: Option<String>,
}

impl Paths {
    fn of(kind: &Kind) -> Self {
        let Some(version) = &kind.custom else {
            let path = |text: &str| text.to_owned();
            return Self {
                replicas: path("/spec/replicas"),
                observed: path("/status/replicas"),
                selector: None,
            };
        };
        let scale = &version["subresources"]["scale"];
        let pointer = |key: &str| scale[key].as_str().unwrap_or_default().replace('.', "/");
        Self {
            replicas: pointer("specReplicasPath"),
            observed: pointer("statusReplicasPath"),
            selector: Some(pointer("labelSelectorPath")),
        }
    }
}

/// The Scale of an object.
fn of(object: &Value, kind: &Kind) -> Value {
    let paths = Paths::of(kind);
    let from = &object["metadata"];
    let mut metadata = json!({"name": from["name"], "namespace": from["namespace"], "uid": from["uid"],
        "resourceVersion": from["resourceVersion"], "creationTimestamp": from["creationTimestamp"]});
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    let selector = &object["spec"]["selector"];
    let selector = match &paths.selector {
        Some(path) => object
            .pointer(path)
            .and_then(Value::as_str)
            .filter(|_| !path.is_empty())
            .unwrap_or_default()
            .to_owned(),
        None if object["kind"] == "ReplicationController" => LabelSelector::from_map(selector).to_string(),
        None => LabelSelector::from_object(selector).map(|selector| selector.to_string()).unwrap_or_default(),
    };
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64);
    let mut spec = json!({});
    if let Some(replicas) = number(&paths.replicas).filter(|replicas| *replicas != 0) {
        spec["replicas"] = json!(replicas);
    }
    let mut status = json!({"replicas": number(&paths.observed).unwrap_or(0)});
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A write of a scale as admission sees it: the Scale that was and the one that will be.
pub(super) fn shown(at: &At, old: Option<&Value>, object: &Value) -> Option<(Value, Value)> {
    let scales = at.info.subresource == "scale" && object.is_object();
    scales.then(|| (of(old.unwrap_or(&Value::Null), &at.kind), of(object, &at.kind)))
}

/// The Scale of an object, with who owns its replicas.
fn owned(object: &Value, kind: &Kind) -> Value {
    let mut scale = of(object, kind);
    set_owners(&mut scale, apply::of_scale(object, kind, &Paths::of(kind).replicas));
    scale
}

fn set_owners(object: &mut Value, owners: Value) {
    match owners.as_array().is_some_and(|owners| !owners.is_empty()) {
        true => meta::set(object, "managedFields", owners),
        false => meta::remove(object, "managedFields"),
    }
}

/// No replicas are not told.
fn hide_none(scale: &mut Value) {
    if let Some(spec) = scale["spec"].as_object_mut() {
        spec.retain(|key, value| key != "replicas" || *value != 0);
    }
}

/// Sets a number, making the objects on the way.
fn put(object: &mut Value, pointer: &str, number: i64) {
    let mut slot = object;
    for part in pointer.split('/').skip(1) {
        if !slot.is_object() {
            *slot = json!({});
        }
        slot = &mut slot[part];
    }
    *slot = json!(number);
}

impl Registry {
    pub(super) async fn get_scale(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?;
        let entry = self.shown_one(kind, self.find(call).await?).await?;
        let scale_kind = body::loose_kind("autoscaling", "v1", "Scale");
        let object = convert::to(kind, entry.value());
        if let Some(version) = &kind.custom
            && object.pointer(&Paths::of(kind).replicas).is_none()
        {
            let path = &version["subresources"]["scale"]["specReplicasPath"];
            return Err(Status::internal(format!("the spec replicas field {path} does not exist")));
        }
        let scale = of(&object, kind);
        let scale_kind = if kind.custom.is_some() && matches!(call.format.shape, Shape::Table(..)) {
            Arc::new(Kind { custom: Some(Arc::new(table::scale_of_custom())), ..scale_kind.as_ref().clone() })
        } else {
            scale_kind
        };
        Ok(Reply::bytes(200, call.format, encode::object(call.format, &scale_kind, &scale)?))
    }

    pub(super) async fn write_scale(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?.clone();
        let scale_kind = body::loose_kind("autoscaling", "v1", "Scale");
        let patches = call.info.verb == "patch";
        let applies = patches && call.content_type == patch::APPLY;
        let options =
            WriteOptions::read(call, if patches { "PatchOptions" } else { "UpdateOptions" }, applies)?;
        let validation = options.validation;
        let at = At::new(call, self.resource(&kind)?, options)?;
        if applies {
            return self.apply_scale(call, &at, &scale_kind).await;
        }
        if patches {
            patch::check_media(&kind, call)?;
        }
        let sent = if patches {
            None
        } else {
            let mut read = body::read(&call.content_type, &call.body, &scale_kind, validation)
                .map_err(|status| if kind.custom.is_some() { unread(status) } else { status })?;
            fits_url(&mut read.object, &at).map_err(|status| status.warned(read.warnings.clone()))?;
            Some(read)
        };
        let now = clock::rfc3339_seconds(clock::now());
        let make = |old: &Value| {
            let live = owned(old, &kind);
            let (mut scale, warnings) = match &sent {
                Some(read) => (read.object.clone(), read.warnings.clone()),
                None => {
                    let read =
                        patch::patched(&live, &call.content_type, &call.body, &scale_kind, validation)?;
                    (read.object, read.warnings)
                }
            };
            fits_url(&mut scale, &at)?;
            let object = scaled(old, &scale, &at)?;
            hide_none(&mut scale);
            apply::update(&mut scale, Some(&live), &scale_kind, &writer(&at, &now));
            Ok(Made { warnings, scale: Some(scale), ..Made::owned(object) })
        };
        let (outcome, warnings) = self.change(&at, &make).await?;
        Ok(Reply::value(200, call.format, &of(&outcome.object(&kind), &kind))?.warned(warnings))
    }

    /// Applies a Scale to that of an object, whose replicas it then has.
    async fn apply_scale(&self, call: &Call, at: &At, scale_kind: &Kind) -> Result<Reply, Status> {
        let kind = &at.kind;
        let body::Read { object: mut config, warnings, .. } =
            patch::configuration(&call.body, at.options.validation)?;
        let refused = |status: Status| status.warned(warnings.clone());
        patch::is_of(&config, scale_kind).map_err(refused)?;
        apply::declared(&config, scale_kind).map_err(patch::refused).map_err(refused)?;
        if meta::name(&config).is_empty() {
            meta::set(&mut config, "name", at.info.name.as_str());
        }
        fits_url(&mut config.clone(), at).map_err(refused)?;
        let now = clock::rfc3339_seconds(clock::now());
        let make = |old: &Value| {
            let live = owned(old, kind);
            let nobody = live["metadata"].get("managedFields").is_none();
            if kind.custom.is_some() && nobody {
                let what = "failed to create manager for existing fields: failed to convert live object (/;";
                return Err(unconverted(what));
            }
            let applied = apply::apply(Some(&live), &config, scale_kind, &writer(at, &now), at.options.force);
            let mut scale = applied.map_err(patch::refused)?;
            if kind.custom.is_some() && !same_but_owners(&scale, &live) {
                let (namespace, name) = (meta::namespace(&config), meta::name(&config));
                return Err(unconverted(&format!("failed to convert new object ({namespace}/{name};")));
            }
            let object = scaled(old, &scale, at)?;
            hide_none(&mut scale);
            Ok(Made { warnings: warnings.clone(), scale: Some(scale), ..Made::owned(object) })
        };
        let (outcome, told) = self.change(at, &make).await.map_err(refused)?;
        Ok(Reply::value(200, call.format, &of(&outcome.object(kind), kind))?.warned(told))
    }

    /// Lets admission change a Scale that was made of that of `old`, and takes it over into the object.
    pub(super) async fn mutate_scale(
        &self,
        at: &At,
        old: &Value,
        mut scale: Value,
    ) -> Result<(Value, Vec<String>), Status> {
        let live = owned(old, &at.kind);
        let told = self.admission.mutate(&at.attributes("UPDATE", Some(&live)), &mut scale).await?;
        let mut object = scaled(old, &scale, at)?;
        let owners = apply::through_scale(old, &scale, &at.kind, &Paths::of(&at.kind).replicas);
        set_owners(&mut object, owners);
        Ok((object, told))
    }
}

fn writer<'a>(at: &'a At, now: &'a str) -> Writer<'a> {
    Writer { manager: &at.options.manager, subresource: "scale", now }
}

fn same_but_owners(a: &Value, b: &Value) -> bool {
    let without = |scale: &Value| {
        let mut scale = scale.clone();
        meta::remove(&mut scale, "managedFields");
        scale
    };
    without(a) == without(b)
}

/// Upstream takes the Scale for a custom object where it is applied.
fn unconverted(what: &str) -> Status {
    let text = format!(
        "{what} autoscaling/v1, Kind=Scale) to proper version: request to convert CR to an invalid group/version: autoscaling/v1"
    );
    Status::new(500, "", text)
}

/// The handler of custom kinds cannot even say what it did not understand.
fn unread(status: Status) -> Status {
    const TEXT: &str = r#"no kind is registered for the type v1.Scale in scheme "pkg/runtime/scheme.go:110""#;
    if status.code == 400 { Status::bad_request(TEXT) } else { status }
}

fn check(replicas: i64, at: &At) -> Result<(), Status> {
    if replicas >= 0 {
        return Ok(());
    }
    let fault = FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
    Err(Status::invalid(&GroupResource::new("autoscaling", "Scale"), &at.info.name, &[fault]))
}

fn scaled(old: &Value, scale: &Value, at: &At) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    // Custom objects are judged themselves.
    if at.kind.custom.is_none() {
        check(replicas, at)?;
    }
    let mut object = old.clone();
    put(&mut object, &Paths::of(&at.kind).replicas, replicas);
    let seen = meta::field(scale, "resourceVersion");
    if !seen.is_empty() {
        meta::set(&mut object, "resourceVersion", seen);
    }
    let uid = meta::uid(scale);
    if !uid.is_empty() {
        meta::set(&mut object, "uid", uid);
    }
    Ok(object)
}
