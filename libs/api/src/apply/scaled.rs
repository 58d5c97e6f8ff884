//! Who owns the replicas of an object, as its Scale tells while it is written, and what that makes of the object's owners.

use super::is_version;
use super::owners::Owners;
use super::set::FieldSet;
use crate::kinds::Kind;
use serde_json::Value;

/// Where a Scale has its replicas, and its version.
const IN_SCALE: [&str; 2] = ["f:spec", "f:replicas"];
const VERSION: &str = "autoscaling/v1";

fn path(pointer: &str) -> FieldSet {
    let mut set = FieldSet::default();
    let elements: Vec<String> = pointer.split('/').skip(1).map(|part| format!("f:{part}")).collect();
    set.insert(elements.iter().map(String::as_str));
    set
}

fn known(object: &Value, kind: &Kind) -> Owners {
    let mut owners = Owners::decode(&object["metadata"]["managedFields"]).unwrap_or_default();
    owners.forget_versions(|version| is_version(version, kind));
    owners.distinct()
}

/// `managedFields` of the Scale of `object`, which keeps its replicas at `pointer`.
#[must_use]
pub fn of_scale(object: &Value, kind: &Kind, pointer: &str) -> Value {
    known(object, kind).narrowed(&path(pointer), &FieldSet::path(&IN_SCALE), VERSION).encode()
}

/// `managedFields` of `object` once its Scale was written with those of `scale`. The Scale knows no times, and nobody that
/// wrote the object in a version of its own is known by it again.
#[must_use]
pub fn through_scale(object: &Value, scale: &Value, kind: &Kind, pointer: &str) -> Value {
    let written = Owners::decode(&scale["metadata"]["managedFields"]).unwrap_or_default();
    known(object, kind)
        .widened(written, &FieldSet::path(&IN_SCALE), &path(pointer), &kind.api_version())
        .encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    fn entry(who: (&str, &str, &str, &str), time: &str, fields: &Value) -> Value {
        let (manager, operation, version, subresource) = who;
        let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": version,
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields}});
        for (key, value) in [("subresource", subresource), ("time", time)] {
            if !value.is_empty() {
                entry[key] = value.into();
            }
        }
        entry
    }

    #[test]
    fn a_scale_knows_who_owns_replicas_and_gives_them_to_who_writes_it() {
        let kind = kinds::by_gvk("apps/v1", "Deployment").expect("a kind");
        let both = json!({"f:replicas": {}, "f:paused": {}});
        let (replicas, paused) = (json!({"f:replicas": {}}), json!({"f:paused": {}}));
        let main = ("m", "Update", "apps/v1", "");
        let applied = ("a", "Apply", "apps/v1", "");
        let scale = |who: &str, operation: &str, sub: &str, time: &str| {
            entry((who, operation, VERSION, sub), time, &replicas)
        };
        // (of the object, of its Scale, of the Scale as it was written, of the object after it)
        let rows = [
            // Who changes them takes them from whoever had them, at no time.
            (
                vec![entry(main, "t", &both)],
                vec![scale("m", "Update", "", "t")],
                vec![scale("s", "Update", "scale", "u")],
                vec![entry(("s", "Update", "apps/v1", "scale"), "", &replicas), entry(main, "t", &paused)],
            ),
            // Who is left with them is not known again, but for who applies.
            (
                vec![entry(applied, "t", &both), entry(main, "t", &both)],
                vec![scale("a", "Apply", "", "t"), scale("m", "Update", "", "t")],
                vec![scale("a", "Apply", "", "t"), scale("m", "Update", "", "t")],
                vec![entry(applied, "t", &both), entry(main, "", &replicas), entry(main, "t", &paused)],
            ),
            // Of two with one name the last is meant.
            (
                vec![entry(main, "", &replicas), entry(main, "t", &paused)],
                vec![],
                vec![],
                vec![entry(main, "t", &paused)],
            ),
            // Who applies a Scale and no replicas any more keeps what it has.
            (
                vec![entry(applied, "t", &both)],
                vec![scale("a", "Apply", "", "t")],
                vec![entry(("a", "Apply", VERSION, ""), "t", &json!({}))],
                vec![entry(applied, "t", &both)],
            ),
            // Labels of a Scale are nothing to the object.
            (
                vec![entry(main, "t", &paused)],
                vec![],
                vec![
                    json!({"manager": "s", "operation": "Update", "apiVersion": VERSION, "subresource": "scale",
                    "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}}),
                ],
                vec![entry(main, "t", &paused)],
            ),
            // Nobody is known in a version that nobody knows.
            (vec![entry(("x", "Update", "apps/v7", ""), "t", &both)], vec![], vec![], vec![]),
        ];
        for (owners, of, written, want) in rows {
            let object = json!({"metadata": {"managedFields": owners}});
            assert_eq!(of_scale(&object, kind, "/spec/replicas"), json!(of));
            let scale = json!({"metadata": {"managedFields": written}});
            assert_eq!(through_scale(&object, &scale, kind, "/spec/replicas"), json!(want));
        }
    }
}
