//! OpenAPI v2 and v3 documents from the schemas and the table of kinds.

use crate::kinds::Kind;
use serde_json::Value;
use std::sync::Arc;

/// The `/openapi/v3` index: paths (`api/v1`, `apis/apps/v1`, …) to `serverRelativeURL`s with a hash.
#[must_use]
pub fn v3_index(custom: &[Arc<Kind>]) -> Value {
    let _ = custom;
    serde_json::json!({"paths": {}})
}

/// The document for one path of the index (`api/v1`, `apis/apps/v1`), with `x-kubernetes-*` extensions and paths; `None` if unknown.
#[must_use]
pub fn v3_document(path: &str, custom: &[Arc<Kind>]) -> Option<Value> {
    let _ = (path, custom);
    None
}

/// The `/openapi/v2` document.
#[must_use]
pub fn v2_document(custom: &[Arc<Kind>]) -> Value {
    let _ = custom;
    serde_json::json!({"paths": {}})
}
