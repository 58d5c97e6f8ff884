//! Objects, lists and watch events as clients want them: JSON, YAML or protobuf; whole, as a Table, or only metadata.

use super::cache::{Change, Event};
use super::entry::Entry;
use super::order::Ordered;
use super::yaml;
use crate::storage::convert;
use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_api::{meta, protobuf, table};
use coracle_daemon::clock;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A serialization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Media {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What a Table's rows hold of their objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Include {
    /// Only metadata.
    Metadata,
    /// All.
    Object,
    /// Nothing.
    None,
}

/// How much of an object is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// All of it.
    Whole,
    /// Columns for people.
    Table(Include),
    /// `PartialObjectMetadata(List)`.
    Partial,
    /// The same as lists, which nothing that a watch sends is one of.
    Partials,
}

/// What the client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// The serialization.
    pub media: Media,
    /// How much.
    pub shape: Shape,
    /// Indented JSON.
    pub pretty: bool,
    /// The version of Tables and of metadata alone, which differ in nothing else.
    pub meta: MetaVersion,
}

/// A version of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    /// `v1`.
    #[default]
    V1,
    /// `v1beta1`, for clients of long ago.
    V1Beta1,
}

impl MetaVersion {
    /// The version by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

impl Format {
    /// Plain JSON.
    pub const JSON: Self =
        Self { media: Media::Json, shape: Shape::Whole, pretty: false, meta: MetaVersion::V1 };

    /// The answer's `Content-Type`.
    #[must_use]
    pub fn content_type(self, stream: bool) -> &'static str {
        match (self.media, stream) {
            (Media::Json, _) => "application/json",
            (Media::Yaml, _) => "application/yaml",
            (Media::Protobuf, false) => "application/vnd.kubernetes.protobuf",
            (Media::Protobuf, true) => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    /// The snapshot's resourceVersion.
    pub revision: u64,
    /// Where the next page begins.
    pub continue_token: Option<String>,
    /// How many objects come after this page.
    pub remaining: Option<u64>,
    /// Lists of custom kinds say when there is no next page.
    pub says_end: bool,
}

impl ListMeta {
    fn value(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        } else if self.says_end {
            metadata["continue"] = json!("");
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        metadata
    }
}

/// Any object in `format`'s serialization, whole.
///
/// # Errors
/// It has no such form.
pub fn value(format: Format, object: &Value) -> Result<Vec<u8>, Status> {
    match format.media {
        Media::Json if format.pretty => {
            let mut out = Vec::new();
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"  ");
            let mut to = serde_json::Serializer::with_formatter(&mut out, indent);
            serde::Serialize::serialize(&Ordered::new(object), &mut to).map_err(Status::internal)?;
            out.push(b'\n');
            Ok(out)
        }
        Media::Json => {
            let mut out = serde_json::to_vec(&Ordered::new(object)).map_err(Status::internal)?;
            out.push(b'\n');
            Ok(out)
        }
        Media::Yaml => Ok(yaml::document(object).into_bytes()),
        Media::Protobuf => protobuf::encode(object).map_err(Status::internal),
    }
}

/// One object of `kind` as `format` wants it.
///
/// # Errors
/// It has no such form.
pub fn entry(format: Format, kind: &Kind, entry: &Entry) -> Result<Bytes, Status> {
    entry.fault().map_or(Ok(()), Err)?;
    if format.shape == Shape::Whole && convert::is_plain(kind, entry) {
        match format.media {
            Media::Json if !format.pretty => {
                let mut out = Vec::new();
                entry.write_json(&mut out, false);
                out.push(b'\n');
                return Ok(out.into());
            }
            Media::Protobuf => {
                if let Some(bytes) = entry.protobuf() {
                    return Ok(bytes.clone());
                }
            }
            _ => {}
        }
    }
    object(format, kind, &told_of(format, kind, entry.value())).map(Bytes::from)
}

/// What is told of a stored object: Tables and metadata of built-in kinds are made before the object is in any version.
fn told_of(format: Format, kind: &Kind, stored: &Arc<Value>) -> Arc<Value> {
    match format.shape {
        _ if kind.custom.is_some() => convert::to(kind, stored),
        Shape::Whole => convert::to(kind, stored),
        Shape::Table(Include::Object) => stored.clone(),
        _ => convert::bare(kind, stored),
    }
}

/// An object in the version of `kind` as `format` wants it.
///
/// # Errors
/// It has no such form.
pub fn object(format: Format, kind: &Kind, object: &Value) -> Result<Vec<u8>, Status> {
    match format.shape {
        // Objects of custom kinds are maps to Go, which it writes by name.
        Shape::Whole if kind.custom.is_some() && format.media == Media::Json && !format.pretty => {
            let mut out = serde_json::to_vec(object).map_err(Status::internal)?;
            out.push(b'\n');
            Ok(out)
        }
        Shape::Whole => value(format, object),
        Shape::Partial | Shape::Partials => value(format, &partial(format.meta, object)),
        Shape::Table(include) => {
            // What is not kept has none.
            let metadata = match meta::field(object, "resourceVersion") {
                "" => json!({}),
                version => json!({"resourceVersion": version}),
            };
            value(format, &tabled(kind, &metadata, [object], (format.meta, include), true))
        }
    }
}

/// A list of `kind` as `format` wants it.
///
/// # Errors
/// It has no such form.
pub fn list(format: Format, kind: &Kind, entries: &[Arc<Entry>], about: &ListMeta) -> Result<Bytes, Status> {
    entries.iter().find_map(|entry| entry.fault_among()).map_or(Ok(()), Err)?;
    let plain = format.shape == Shape::Whole && format.media == Media::Json && !format.pretty;
    if plain && entries.iter().all(|entry| convert::is_plain(kind, entry)) {
        return Ok(plain_list(kind, entries, about).into());
    }
    let objects: Vec<Arc<Value>> = entries.iter().map(|entry| told_of(format, kind, entry.value())).collect();
    values(format, kind, objects.iter().map(AsRef::as_ref), &about.value()).map(Bytes::from)
}

/// A list of objects in the version of `kind`.
///
/// # Errors
/// It has no such form.
pub fn values<'a>(
    format: Format,
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: &Value,
) -> Result<Vec<u8>, Status> {
    let list = match format.shape {
        Shape::Whole => {
            let items: Vec<Value> = objects.into_iter().map(|object| item(kind, object)).collect();
            json!({"kind": kind.list_kind(), "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
        }
        Shape::Partial | Shape::Partials => {
            // Kubernetes leaves the list unset where nothing is in it.
            let items: Option<Vec<Value>> =
                Some(objects.into_iter().map(|object| partial(format.meta, object)).collect());
            let items = items.filter(|items| !items.is_empty());
            json!({"kind": "PartialObjectMetadataList", "apiVersion": format.meta.api_version(), "metadata": metadata, "items": items})
        }
        Shape::Table(include) => tabled(kind, metadata, objects, (format.meta, include), true),
    };
    value(format, &list)
}

/// Items of built-in lists go without kind and apiVersion.
fn item(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(object) = object.as_object_mut().filter(|_| kind.custom.is_none()) {
        object.remove("kind");
        object.remove("apiVersion");
    }
    object
}

fn plain_list(kind: &Kind, entries: &[Arc<Entry>], about: &ListMeta) -> Vec<u8> {
    let size: usize = entries.iter().map(|entry| entry.raw().len() + 48).sum();
    let mut out = Vec::with_capacity(size + 256);
    out.extend_from_slice(
        format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":",
            kind.list_kind(),
            kind.api_version()
        )
        .as_bytes(),
    );
    // Writing JSON to memory does not fail.
    let _ = serde_json::to_writer(&mut out, &Ordered::metadata(&about.value()));
    out.extend_from_slice(b",\"items\":[");
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        entry.write_json(&mut out, kind.custom.is_none());
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// `PartialObjectMetadata` of an object.
fn partial(version: MetaVersion, object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": object["metadata"]})
}

fn tabled<'a>(
    kind: &Kind,
    metadata: &Value,
    objects: impl IntoIterator<Item = &'a Value>,
    (version, include): (MetaVersion, Include),
    with_columns: bool,
) -> Value {
    let now = clock::now();
    let mut objects: Vec<&Value> = objects.into_iter().collect();
    if kind.kind == "FlowSchema" {
        // In the order in which requests are matched.
        objects.sort_by_key(|object| object["spec"]["matchingPrecedence"].as_i64());
    }
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let shown = match include {
                Include::Metadata => partial(version, object),
                Include::Object if kind.custom.is_none() && object["apiVersion"] != kind.api_version() => {
                    convert::to(kind, &Arc::new(object.clone())).as_ref().clone()
                }
                Include::Object => object.clone(),
                Include::None => Value::Null,
            };
            let mut row = json!({"cells": table::cells(kind, object, now), "object": shown});
            if let Some(conditions) = table::row_conditions(kind, object) {
                row["conditions"] = conditions;
            }
            row
        })
        .collect();
    let rows = Some(rows).filter(|rows| !rows.is_empty() || !table::is_plain(kind));
    let columns = if with_columns { table::columns(kind) } else { Value::Null };
    json!({"kind": "Table", "apiVersion": version.api_version(), "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

/// One frame of a watch: `change` as this watcher sees it, of `entry`. `first` Tables tell their columns.
///
/// # Errors
/// It has no such form.
pub fn frame(format: Format, kind: &Kind, change: Change, of: &Entry, first: bool) -> Result<Bytes, Status> {
    of.fault().map_or(Ok(()), Err)?;
    if format.media == Media::Protobuf {
        let object = entry(format, kind, of)?;
        return Ok(protobuf::watch_frame(change.word(), &object).into());
    }
    if format.shape == Shape::Whole && format.media == Media::Json && convert::is_plain(kind, of) {
        let mut out = Vec::with_capacity(of.raw().len() + 80);
        out.extend_from_slice(format!("{{\"type\":\"{}\",\"object\":", change.word()).as_bytes());
        of.write_json(&mut out, false);
        out.extend_from_slice(b"}\n");
        return Ok(out.into());
    }
    let object = told_of(format, kind, of.value());
    let object = match format.shape {
        Shape::Whole => object.as_ref().clone(),
        Shape::Partial | Shape::Partials => partial(format.meta, &object),
        Shape::Table(include) => {
            let metadata = json!({"resourceVersion": of.revision.to_string()});
            tabled(kind, &metadata, [object.as_ref()], (format.meta, include), first)
        }
    };
    told(format, change.word(), &object)
}

/// The frame of an event that all watchers of one format share.
///
/// # Errors
/// It has no such form.
pub fn shared_frame(format: Format, kind: &Kind, change: Change, event: &Event) -> Result<Bytes, Status> {
    let mut failed = None;
    let key = (change, format, kind.api_version());
    let bytes = event.frame(key, || {
        let left = event.left(change);
        let of = left.as_ref().unwrap_or(&event.entry);
        frame(format, kind, change, of, false).unwrap_or_else(|status| {
            failed = Some(status);
            Bytes::new()
        })
    });
    failed.map_or(Ok(bytes), Err)
}

/// A frame of any object: bookmarks and errors.
///
/// # Errors
/// It has no such form.
pub fn told(format: Format, word: &str, object: &Value) -> Result<Bytes, Status> {
    if format.media == Media::Protobuf {
        let object = protobuf::encode(object).map_err(Status::internal)?;
        return Ok(protobuf::watch_frame(word, &object).into());
    }
    let mut out = format!("{{\"type\":\"{word}\",\"object\":").into_bytes();
    serde_json::to_writer(&mut out, &Ordered::new(object)).map_err(Status::internal)?;
    out.extend_from_slice(b"}\n");
    Ok(out.into())
}

/// A bookmark's object: nothing but its kind, resourceVersion and, at the end of initial events, the annotation.
#[must_use]
pub fn bookmark(format: Format, kind: &Kind, revision: u64, initial_events_end: bool) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), json!(revision.to_string()));
    metadata.insert("creationTimestamp".to_owned(), Value::Null);
    if initial_events_end {
        metadata.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
    }
    match format.shape {
        Shape::Whole => json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}),
        Shape::Partial | Shape::Partials => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": format.meta.api_version(), "metadata": metadata})
        }
        Shape::Table(_) => {
            json!({"kind": "Table", "apiVersion": format.meta.api_version(), "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": [], "rows": []})
        }
    }
}
