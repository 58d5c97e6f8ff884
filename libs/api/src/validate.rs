//! Validation: every fault of an object, with Kubernetes' paths, types and texts.

use crate::kinds::Kind;
use crate::status::FieldError;
use serde_json::Value;

/// Faults of a new object (metadata rules included).
#[must_use]
pub fn create(object: &Value, kind: &Kind) -> Vec<FieldError> {
    unimplemented!("C {object} {kind:?}")
}

/// Faults of an update of the main resource or a subresource (`""`, `status`, `ephemeralcontainers`, `resize`, `approval`, `finalize` …).
#[must_use]
pub fn update(new: &Value, old: &Value, kind: &Kind, subresource: &str) -> Vec<FieldError> {
    unimplemented!("C {new} {old} {kind:?} {subresource}")
}

/// Warnings for the writer (`Warning: 299`), e.g. for deprecated fields.
#[must_use]
pub fn warnings(new: &Value, old: Option<&Value>, kind: &Kind) -> Vec<String> {
    unimplemented!("C {new} {old:?} {kind:?}")
}
