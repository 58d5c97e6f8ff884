//! What the cluster's maker wants in it from its first second: its components' roles, its name service, its class of volumes.
//!
//! In: a JSON List. Out: each object applied by its maker's name, whatever became of it since.

use crate::reader::Objects;
use coracle_api::kinds;
use coracle_api::meta;
use coracle_api::status::Status;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use std::path::Path;

/// Who owns what the addons set.
const MANAGER: &str = "coracle";
/// Objects that are written at a time.
const AT_ONCE: usize = 32;

/// Applies the objects of that file, in parallel. Safe to run from several apiservers at once.
///
/// # Errors
/// The file is no list of built-in objects, or one of them is refused.
pub async fn apply(objects: &dyn Objects, file: Option<&Path>) -> Result<(), Status> {
    let Some(file) = file else { return Ok(()) };
    let unfit = |why: String| Status::internal(format!("cannot use {}: {why}", file.display()));
    let text = tokio::fs::read(file).await.map_err(|error| unfit(error.to_string()))?;
    let list: Value = serde_json::from_slice(&text).map_err(|error| unfit(error.to_string()))?;
    let items = list["items"].as_array().ok_or_else(|| unfit("it has no items".to_owned()))?;
    let all: Vec<_> = items.iter().map(|object| apply_one(objects, object)).collect();
    futures::stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
}

async fn apply_one(objects: &dyn Objects, object: &Value) -> Result<(), Status> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let found = kinds::by_gvk(version, kind);
    let found = found.ok_or_else(|| Status::internal(format!("no kind {version}, {kind} for an addon")))?;
    let of = found.group_resource();
    match objects.apply(&of, "", object.clone(), MANAGER).await {
        // Another apiserver has just made it.
        Err(status) if status.code == 409 => objects.apply(&of, "", object.clone(), MANAGER).await.map(drop),
        done => done.map(drop),
    }
    .map_err(|status| {
        let what = format!("cannot apply {kind} {}: {}", meta::name(object), status.message);
        Status { message: what, ..status }
    })
}
