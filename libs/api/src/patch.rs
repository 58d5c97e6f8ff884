//! JSON patch (RFC 6902), merge patch (RFC 7396) and strategic merge patch over dynamic objects.

use crate::kinds::Kind;
use serde_json::Value;

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 with this message.
    #[error("{0}")]
    Malformed(String),
    /// It does not apply to this object: 422 with this message.
    #[error("{0}")]
    Unprocessable(String),
}

/// Applies a JSON patch document. Bounded: at most 10,000 operations.
///
/// # Errors
/// See [`PatchError`].
pub fn json_patch(object: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    unimplemented!("B {object} {patch:?}")
}

/// Applies a merge patch.
///
/// # Errors
/// See [`PatchError`].
pub fn merge_patch(object: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    unimplemented!("B {object} {patch:?}")
}

/// Applies a strategic merge patch by the schema of `kind` (patchMergeKey, patchStrategy, `$patch`, `$retainKeys`,
/// `$setElementOrder/…`, `$deleteFromPrimitiveList/…`).
///
/// # Errors
/// See [`PatchError`].
pub fn strategic(object: &Value, patch: &[u8], kind: &Kind) -> Result<Value, PatchError> {
    unimplemented!("B {object} {patch:?} {kind:?}")
}
