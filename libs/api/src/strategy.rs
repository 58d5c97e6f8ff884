//! What create and update keep or drop for each kind (Kubernetes' PrepareForCreate and PrepareForUpdate), as rows.

use crate::kinds::Kind;
use serde_json::Value;

/// The per-kind switches of the generic registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// PUT of a missing object creates it.
    pub allow_create_on_update: bool,
    /// PUT without resourceVersion is let through.
    pub allow_unconditional_update: bool,
    /// `metadata.generation` counts spec changes.
    pub has_generation: bool,
    /// Delete waits `terminationGracePeriodSeconds` (pods).
    pub graceful_delete: bool,
    /// `Orphan`, `Background`: what DELETE does with dependents when the caller says nothing.
    pub default_propagation: &'static str,
}

/// The row of `kind`.
#[must_use]
pub fn of(kind: &Kind) -> Strategy {
    unimplemented!("C {kind:?}")
}

/// Before validation of a create: clears status, sets generation 1, and the kind's own rules. Server-allocated
/// values (uid, clusterIP, node ports, tokens) are not set here.
pub fn prepare_create(object: &mut Value, kind: &Kind) {
    unimplemented!("C {object} {kind:?}")
}

/// Before validation of an update of `subresource` (`""` for the main resource): takes from `old` what this path may not
/// change (status, or everything but status; immutable metadata), and bumps generation when the spec changed.
pub fn prepare_update(new: &mut Value, old: &Value, kind: &Kind, subresource: &str) {
    unimplemented!("C {new} {old} {kind:?} {subresource}")
}
