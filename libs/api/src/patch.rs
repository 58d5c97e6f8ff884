//! JSON patch (RFC 6902), merge patch (RFC 7396) and strategic merge patch over dynamic objects.
//!
//! In: the current object and the patch's bytes. Out: the patched object, not yet canonical (`decode::canonical` does
//! that). Invariant: the input object is never changed, whatever the patch holds.

mod json;
mod merge;
mod strategic;

use crate::kinds::Kind;
use serde_json::{Value, json};

pub use merge::merge_values;

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 with this message.
    #[error("{0}")]
    Malformed(String),
    /// It does not apply to this object: 422 with this message.
    #[error("{0}")]
    Unprocessable(String),
    /// Upstream has no code for it: 500 with this message.
    #[error("{0}")]
    Failed(String),
}

/// Applies a JSON patch document. Bounded: at most 10,000 operations.
///
/// # Errors
/// See [`PatchError`].
pub fn json_patch(object: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    json::apply(object, patch)
}

/// Applies a merge patch.
///
/// # Errors
/// See [`PatchError`].
pub fn merge_patch(object: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let mut patched = object.clone();
    let document = document(patch)?.ok_or_else(|| PatchError::Malformed("Invalid JSON Patch".to_owned()))?;
    merge::merge_values(&mut patched, document);
    Ok(patched)
}

/// Applies a strategic merge patch by the schema of `kind` (patchMergeKey, patchStrategy, `$patch`, `$retainKeys`,
/// `$setElementOrder/…`, `$deleteFromPrimitiveList/…`).
///
/// # Errors
/// See [`PatchError`].
pub fn strategic(object: &Value, patch: &[u8], kind: &Kind) -> Result<Value, PatchError> {
    strategic::apply(&crate::shape::of(kind), object, document(patch)?.unwrap_or_else(|| json!({})))
}

/// A patch that must be a JSON object; `null` is none.
fn document(patch: &[u8]) -> Result<Option<Value>, PatchError> {
    let document =
        parse(patch).map_err(|fault| PatchError::Malformed(format!("error decoding patch: {fault}")))?;
    let found = match &document {
        Value::Object(_) => return Ok(Some(document)),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => return Ok(None),
    };
    let fault = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
    Err(PatchError::Malformed(format!("error decoding patch: {fault}")))
}

/// JSON with Go's words for what is wrong with it.
fn parse(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text).map_err(|fault| {
        if fault.is_eof() {
            return "unexpected end of JSON input".to_owned();
        }
        let line = text.split(|byte| *byte == b'\n').nth(fault.line().saturating_sub(1)).unwrap_or_default();
        match line.get(fault.column().saturating_sub(1)) {
            Some(byte) => format!("invalid character '{}' looking for beginning of value", char::from(*byte)),
            None => fault.to_string(),
        }
    })
}
