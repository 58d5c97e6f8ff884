//! Validation: every fault of an object, with Kubernetes' paths, types and texts.

pub(crate) mod amount;

use crate::kinds::Kind;
use crate::status::FieldError;
use serde_json::Value;

/// Faults of a new object (metadata rules included).
#[must_use]
pub fn create(_object: &Value, _kind: &Kind) -> Vec<FieldError> {
    Vec::new()
}

/// Faults of an update of the main resource or a subresource (`""`, `status`, `ephemeralcontainers`, `resize`, `approval`, `finalize` …).
#[must_use]
pub fn update(_new: &Value, _old: &Value, _kind: &Kind, _subresource: &str) -> Vec<FieldError> {
    Vec::new()
}

/// Warnings for the writer (`Warning: 299`), e.g. for deprecated fields.
#[must_use]
pub fn warnings(_new: &Value, _old: Option<&Value>, _kind: &Kind) -> Vec<String> {
    Vec::new()
}
