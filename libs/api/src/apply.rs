//! Field ownership: `metadata.managedFields` on every write, and server-side apply.
//!
//! Source: structured-merge-diff v4 and KEP-555. Works on canonical objects; `now` is RFC 3339 in whole seconds.
//! The configuration given to [`apply`] must be what the user wrote, without zero values that a decoder added: whoever
//! names a field owns it.

mod compare;
mod last_applied;
mod merge;
mod owners;
mod scaled;
mod set;
mod typed;
mod versions;

pub use last_applied::refresh;
pub use scaled::{of_scale, through_scale};

use crate::kinds::{self, Kind};
use crate::meta;
use crate::shape::{self, Shape};
use crate::status::Status;
use owners::{Operation, Owners};
use serde_json::{Map, Value, json};
use set::FieldSet;
use versions::Change;

/// The owner of what an object had before anybody applied, where nobody is known to own any of it.
const BEFORE: &str = "before-first-apply";

/// Paths of conflicts are told until they have so many bytes: many fields may stand below one long name.
const CONFLICT_BYTES_MAX: usize = 1 << 20;

/// Fields of others that an apply would change, by owner.
type Conflicts = Vec<(String, FieldSet)>;

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
    Conflict(Box<Status>),
    /// The applied configuration is unusable: 400 with this message.
    Malformed(String),
    /// It names a field that its type does not have, which Kubernetes answers by a 500 with this message.
    Undeclared(String),
}

/// Sets `managedFields` of `new` after a create (`old` = None) or update by `writer` (operation Update). Entries of
/// other managers lose what changed; empty ones go; an update that changes nothing leaves times alone; more than 10 update
/// entries are folded into `ancient-changes`. `managedFields: []` or `[{}]` in `new` resets tracking.
///
/// Its place is after decoding and defaulting and before admission and the kind's strategy: nobody owns what those set.
pub fn update(new: &mut Value, old: Option<&Value>, kind: &Kind, writer: &Writer<'_>) {
    let given = new["metadata"]["managedFields"].take();
    meta::remove(new, "managedFields");
    // A subresource resets nothing, and what is new has nobody to forget.
    if old.is_some() && writer.subresource.is_empty() && owners::is_reset(&given, kind.custom.is_some()) {
        return;
    }
    let before = old.map_or(&Value::Null, |old| &old["metadata"]["managedFields"]);
    if old.is_some_and(|old| same_fields(new, old)) {
        let given = Owners::decode(&given).filter(|_| writer.subresource.is_empty());
        let kept = given.map(|mut owners| {
            owners.forget_versions(|version| is_version(version, kind));
            owners.encode()
        });
        set_entries(new, kept.unwrap_or_else(|| before.clone()));
        return;
    }
    // Taken from the request when it holds usable entries (people may edit them), else from the stored object.
    let decoded = Owners::decode(&given).filter(|_| writer.subresource.is_empty());
    let Some(mut owners) = decoded.or_else(|| Owners::decode(before)).or(old.is_none().then(Owners::default))
    else {
        return;
    };
    owners.forget_versions(|version| is_version(version, kind));
    if take(&mut owners, (old, new), kind, writer) {
        owners.cap_updates();
        set_entries(new, owners.encode());
    }
}

/// Whether objects of a kind are known in a version.
fn is_version(version: &str, kind: &Kind) -> bool {
    match &kind.custom {
        Some(custom) => custom.is_in(version),
        None => {
            // A Scale is no kind of the table.
            version == kind.api_version()
                || kinds::by_gvk(version, &kind.kind).is_some()
                || crate::decode::is_retired(version, &kind.kind)
        }
    }
}

/// Has `writer` own what an update changes; tells whether that is known.
fn take(owners: &mut Owners, (old, new): (Option<&Value>, &Value), kind: &Kind, writer: &Writer<'_>) -> bool {
    let shape = shape::of(kind);
    let zero;
    let old = if let Some(old) = old {
        old
    } else {
        zero = shape.zero();
        &zero
    };
    let mut changes = compare::compare(&shape, old, new);
    if changes.keyless {
        // Who owns an item that cannot be named is not known, nor is anything else.
        return false;
    }
    let ignored = untouchable(kind, writer.subresource);
    changes.forget(&ignored);
    owners.lose(&Change { kind, old, new, ignored: &ignored, own: &changes }, None);
    let mut taken = changes.modified;
    taken.add_all(changes.added);
    strip(&mut taken);
    if !taken.is_empty() {
        let entry = owners.entry(Operation::Update, &kind.api_version(), writer);
        entry.fields.add_all(taken);
        writer.now.clone_into(&mut entry.time);
    }
    true
}

/// Applies `config` (what the user wrote, unknown fields known to the caller) onto `live` (None creates); returns the
/// merged object with managedFields set (operation Apply). `force` takes ownership on conflict.
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
    if config["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApplyError::Malformed("metadata.managedFields must be nil".to_owned()));
    }
    let conflicts = match (merged(live, config, kind, writer, force), live) {
        (Ok(merged), _) => return Ok(merged),
        (Err(conflicts), None) => conflicts,
        (Err(conflicts), Some(live)) => {
            let own = last_applied::own(live, kind, &shape::of(kind), writer.manager);
            without(conflicts, &own.unwrap_or_default())
        }
    };
    if conflicts.is_empty() {
        return merged(live, config, kind, writer, true).map_err(refused);
    }
    Err(refused(conflicts))
}

fn merged(
    live: Option<&Value>,
    config: &Value,
    kind: &Kind,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Conflicts> {
    let shape = shape::of(kind);
    let mut owners =
        live.and_then(|live| Owners::decode(&live["metadata"]["managedFields"])).unwrap_or_default();
    let mut before = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    meta::remove(&mut before, "managedFields");
    if live.is_some() && owners.is_empty() {
        take(&mut owners, (None, &before), kind, &Writer { manager: BEFORE, ..*writer });
    }
    let ignored = untouchable(kind, writer.subresource);
    let mut applied = FieldSet::of(&shape, config);
    applied.remove_below(&ignored);
    let mut owned = applied.clone();
    strip(&mut owned);

    let entry = owners.entry(Operation::Apply, &kind.api_version(), writer);
    // What is never tracked counts as applied for now: a name that the configuration has is not left over from the last one.
    let last = std::mem::replace(&mut entry.fields, applied);
    kind.api_version().clone_into(&mut entry.api_version);

    let merged = merge::merge(&shape, &before, config);
    let mut merged = prune(&shape, merged, &last, &owners);
    owners.entry(Operation::Apply, &kind.api_version(), writer).fields = owned;
    let mut changes = compare::compare(&shape, &before, &merged);
    changes.forget(&ignored);
    let change = Change { kind, old: &before, new: &merged, ignored: &ignored, own: &changes };
    if !force {
        let conflicts = owners.conflicts(&change, writer);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    owners.lose(&change, Some(writer));
    // Who takes over what is there already wrote nothing, and so at no time.
    if merged != before {
        writer.now.clone_into(&mut owners.entry(Operation::Apply, &kind.api_version(), writer).time);
    }
    set_entries(&mut merged, owners.encode());
    Ok(merged)
}

/// Without what the writer may take from others.
fn without(mut conflicts: Conflicts, own: &FieldSet) -> Conflicts {
    for (_, fields) in &mut conflicts {
        fields.subtract(own);
    }
    conflicts.retain(|(_, fields)| !fields.is_empty());
    conflicts
}

/// The refusal that names every field and its owner.
fn refused(conflicts: Conflicts) -> ApplyError {
    let count = conflicts.iter().map(|(_, fields)| fields.count()).sum();
    let mut room = CONFLICT_BYTES_MAX;
    let mut named: Vec<(String, Vec<String>)> =
        conflicts.into_iter().map(|(owner, fields)| (owner, fields.paths(&mut room))).collect();
    named.retain(|(_, paths)| !paths.is_empty());
    named.sort();
    ApplyError::Conflict(Box::new(conflict_status(&named, count)))
}

fn same_but_times(a: &Value, b: &Value) -> bool {
    fn timeless(entry: &Value) -> Vec<(&String, &Value)> {
        entry.as_object().into_iter().flatten().filter(|(key, _)| *key != "time").collect()
    }
    let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else { return false };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| timeless(a) == timeless(b))
}

/// Gives the owners of `new` the times of those of `old` where nothing else has changed: such a write changes nothing.
pub fn keep_times(new: &mut Value, old: &Value, kind: &Kind) {
    let entries = |object: &Value| object["metadata"]["managedFields"].clone();
    let (now, before) = (&new["metadata"]["managedFields"], &old["metadata"]["managedFields"]);
    if now == before || !same_but_times(now, before) {
        return;
    }
    let own = new["metadata"]["managedFields"].take();
    let mut without = old.clone();
    without["metadata"]["managedFields"] = Value::Null;
    let same = if kind.custom.is_some() { *new == without } else { crate::strategy::same(new, &without) };
    new["metadata"]["managedFields"] = if same { entries(old) } else { own };
}

/// Whether the type of `config` has all fields that it names.
///
/// # Errors
/// [`ApplyError::Undeclared`].
pub fn declared(config: &Value, kind: &Kind) -> Result<(), ApplyError> {
    let faults = typed::faults(config, kind);
    let told = match faults.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    Err(ApplyError::Undeclared(format!(
        "failed to create typed patch object ({}): {told}",
        shown(config, kind)
    )))
}

/// An applied object as its faults name it: where it is, and of what.
#[must_use]
pub fn shown(config: &Value, kind: &Kind) -> String {
    let (namespace, name) = (meta::namespace(config), meta::name(config));
    format!("{namespace}/{name}; {}, Kind={}", versioned(kind), kind.kind)
}

/// A group and version as faults name them, with a slash also where there is no group.
#[must_use]
pub fn versioned(kind: &Kind) -> String {
    format!("{}/{}", kind.group, kind.version)
}

/// Takes from `merged` what the writer applied last time, and nobody owns now.
fn prune(shape: &Shape, merged: Value, last: &FieldSet, owners: &Owners) -> Value {
    if last.is_empty() {
        return merged;
    }
    let last = last.with_named_fields(shape);
    let pruned = merge::remove(shape, &merged, &last);
    // Items that others own, or that stand beside them, come back.
    let all = FieldSet::of(shape, &merged).with_named_fields(shape);
    let mut kept = FieldSet::of(shape, &pruned).with_named_fields(shape);
    kept.add_all(owners.all_fields().with_named_fields(shape));
    let mut gone = all.clone();
    gone.subtract(&kept);
    let pruned = merge::remove(shape, &merged, &gone);
    // What was never in the last configuration is not ours to remove, even below something that was.
    let mut dangling = all;
    dangling.subtract(&FieldSet::of(shape, &pruned).with_named_fields(shape));
    merge::remove(shape, &merged, &dangling.intersect(&last))
}

/// Fields that a write through this path never changes, so that nobody owns them by it.
fn untouchable(kind: &Kind, subresource: &str) -> FieldSet {
    let mut fields = FieldSet::default();
    for path in crate::strategy::unowned(kind, subresource) {
        fields.add_all(FieldSet::path(path));
    }
    fields
}

/// Fields that are never tracked.
fn strip(fields: &mut FieldSet) {
    const METADATA: [&str; 9] = [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:clusterName",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
    ];
    for top in ["f:apiVersion", "f:kind"] {
        fields.strip(top, &[]);
    }
    fields.strip("f:metadata", &METADATA);
}

/// Whether two objects are the same in every field that can be owned.
fn same_fields(new: &Value, old: &Value) -> bool {
    const UNTRACKED: [&str; 3] = ["managedFields", "resourceVersion", "generation"];
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let tracked = |metadata: &Value, other: &Value| {
        metadata.as_object().into_iter().flatten().all(|(key, value)| {
            UNTRACKED.contains(&key.as_str()) || other.get(key).unwrap_or(&Value::Null) == value
        })
    };
    let null = &Value::Null;
    let (ours, theirs) = (new.get("metadata").unwrap_or(null), old.get("metadata").unwrap_or(null));
    new.len() == old.len()
        && new.iter().all(|(key, value)| key == "metadata" || old.get(key) == Some(value))
        && tracked(ours, theirs)
        && tracked(theirs, ours)
}

fn set_entries(object: &mut Value, entries: Value) {
    if entries.as_array().is_some_and(|entries| !entries.is_empty()) {
        meta::set(object, "managedFields", entries);
    }
}

/// The 409.
fn conflict_status(conflicts: &[(String, Vec<String>)], fields: usize) -> Status {
    let message = match conflicts {
        [(owner, paths)] if fields == 1 => {
            format!("Apply failed with 1 conflict: conflict with {owner}: {}", paths[0])
        }
        _ => {
            let blocks: Vec<String> = conflicts
                .iter()
                .map(|(owner, paths)| format!("conflicts with {owner}:\n- {}", paths.join("\n- ")))
                .collect();
            format!("Apply failed with {fields} conflicts: {}", blocks.join("\n"))
        }
    };
    let causes = conflicts.iter().flat_map(|(owner, paths)| {
        paths.iter().map(move |path| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {owner}"), "field": path})
        })
    });
    let mut status = Status::new(409, "Conflict", message);
    status.details = json!({"causes": causes.collect::<Vec<_>>()});
    status
}

#[cfg(test)]
mod tests;
