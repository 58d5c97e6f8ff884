//! Field ownership: `metadata.managedFields` on every write, and server-side apply.
//!
//! Source: structured-merge-diff v4 and KEP-555. Works on canonical objects; `now` is RFC 3339 in whole seconds.

use crate::kinds::Kind;
use serde_json::Value;

/// Who writes, and through what.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Field manager name.
    pub manager: &'a str,
    /// Subresource, empty for the main resource.
    pub subresource: &'a str,
    /// Time of the write.
    pub now: &'a str,
}

/// Why an apply did not go through.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyError {
    /// Other managers own fields with other values: the 409 Status to send.
    Conflict(Box<crate::status::Status>),
    /// The applied configuration is unusable: 400 with this message.
    Malformed(String),
}

/// Sets `managedFields` of `new` after a create (`old` = None) or update by `writer` (operation Update). Entries of
/// other managers lose what changed; empty ones go; an update that changes nothing leaves times alone; more than 10 update
/// entries are folded into `ancient-changes`. `managedFields: []` or `[{}]` in `new` resets tracking.
pub fn update(new: &mut Value, old: Option<&Value>, kind: &Kind, writer: &Writer<'_>) {
    unimplemented!("B {new} {old:?} {kind:?} {writer:?}")
}

/// Applies `config` (already decoded, unknown fields known to the caller) onto `live` (None creates); returns the merged object
/// with managedFields set (operation Apply). `force` takes ownership on conflict.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    kind: &Kind,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    unimplemented!("B {live:?} {config} {kind:?} {writer:?} {force}")
}
