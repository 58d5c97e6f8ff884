//! Request bodies in, canonical objects out: JSON and YAML with Kubernetes' strictness and error texts.

use crate::kinds::Kind;
use serde_json::Value;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object as Go would encode it again: unknown fields dropped, zero values where Go writes them.
    pub object: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`, in order; at most 100.
    pub findings: Vec<String>,
}

/// Why a body is not an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON or YAML, no kind, or another kind than expected: the whole BadRequest message.
    #[error("{0}")]
    BadRequest(String),
}

/// Decodes a JSON body that should hold a `kind`. An absent `kind` or `apiVersion` is filled in where Kubernetes does so.
///
/// # Errors
/// The message of the 400 that Kubernetes would send.
pub fn json(body: &[u8], kind: &Kind) -> Result<Decoded, DecodeError> {
    unimplemented!("A {body:?} {kind:?}")
}

/// The same for YAML.
///
/// # Errors
/// The message of the 400 that Kubernetes would send.
pub fn yaml(body: &[u8], kind: &Kind) -> Result<Decoded, DecodeError> {
    unimplemented!("A {body:?} {kind:?}")
}

/// Brings an object that was changed by a patch into canonical form, with the same findings (types, unknown fields).
///
/// # Errors
/// The Go-style type error, e.g. `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub fn canonical(object: Value, kind: &Kind) -> Result<Decoded, String> {
    unimplemented!("A {object:?} {kind:?}")
}
