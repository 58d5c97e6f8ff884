//! Defaults that Kubernetes sets when it decodes an object. In: a canonical object. Out: the same with defaults filled in.
//!
//! What to set is the table `data/defaults.txt`, compiled on first use; small functions in `rules` say what a table
//! cannot. Applying twice changes nothing more. Defaults of admission plugins and allocations are not here.

mod rules;
mod table;
#[cfg(test)]
mod tests;

use crate::kinds::Kind;
use serde_json::Value;

/// Sets defaults in place.
pub fn apply(object: &mut Value, kind: &Kind) {
    match &kind.custom {
        None => table::apply(object, &kind.kind),
        Some(version) => crate::custom::default(object, version),
    }
}
