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
    /// It is larger than anybody needs: 413 with this message.
    #[error("{0}")]
    TooLarge(String),
    /// Upstream has no code for it: 500 with this message.
    #[error("{0}")]
    Failed(String),
}

/// A patched object, and what the patch itself has said twice or in vain.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched {
    /// Not canonical.
    pub object: Value,
    /// As Kubernetes tells of unknown and duplicate fields.
    pub findings: Vec<String>,
}

/// Applies a JSON patch document. Bounded: at most 10,000 operations.
///
/// # Errors
/// See [`PatchError`].
pub fn json_patch(object: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    json::apply(object, patch)
}

/// The operations of a webhook's JSON patch; at most 10,000.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn operations(patch: &[u8]) -> Result<Vec<Value>, String> {
    json::operations(patch)
}

/// Applies operations that were read before.
///
/// # Errors
/// Which one does not apply, in the words that webhooks' authors know.
pub fn operated(object: &Value, operations: &[Value]) -> Result<Value, String> {
    json::operated(object, operations)
}

/// Applies a merge patch.
///
/// # Errors
/// See [`PatchError`].
pub fn merge_patch(object: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    let mut findings = Vec::new();
    let mut patched = object.clone();
    let document = document(patch, &mut findings).map_err(undecodable)?;
    let document = document.ok_or_else(|| PatchError::Malformed("Invalid JSON Patch".to_owned()))?;
    merge::merge_values(&mut patched, document);
    Ok(Patched { object: patched, findings })
}

/// Applies a strategic merge patch by the schema of `kind` (patchMergeKey, patchStrategy, `$patch`, `$retainKeys`,
/// `$setElementOrder/…`, `$deleteFromPrimitiveList/…`).
///
/// # Errors
/// See [`PatchError`].
pub fn strategic(object: &Value, patch: &[u8], kind: &Kind) -> Result<Patched, PatchError> {
    let mut findings = Vec::new();
    let document = document(patch, &mut findings).map_err(PatchError::Malformed)?;
    let document = document.unwrap_or_else(|| json!({}));
    let object = strategic::apply(&crate::shape::of(kind), object, whole_numbers(document))?;
    Ok(Patched { object, findings })
}

/// With whole numbers as such, however they are written: what is patched by schema is never text again.
fn whole_numbers(value: Value) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, one)| (key, whole_numbers(one))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(whole_numbers).collect()),
        Value::Number(number) if number.as_i64().is_none() && number.as_u64().is_none() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT);
            // Which is told without a point.
            let whole = whole.and_then(|float| float.to_string().parse::<i64>().ok());
            whole.map_or(Value::Number(number), Value::from)
        }
        other => other,
    }
}

fn undecodable(fault: impl std::fmt::Display) -> PatchError {
    PatchError::Malformed(format!("error decoding patch: {fault}"))
}

/// A patch that must be a JSON object; `null` is none.
fn document(patch: &[u8], findings: &mut Vec<String>) -> Result<Option<Value>, String> {
    let document = crate::decode::json_with_findings(patch, findings)?;
    let found = match &document {
        Value::Object(_) => return Ok(Some(document)),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => return Ok(None),
    };
    Err(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"))
}
