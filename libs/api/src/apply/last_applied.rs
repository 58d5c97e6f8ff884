//! The annotation in which `kubectl apply` keeps what it applied last, when kubectl goes over to applying by the server.
//!
//! Only the manager `kubectl` is served: it may take over what the annotation says that it set, and finds the annotation
//! up to date should it go back. Others are not concerned.

use super::compare::compare;
use super::set::FieldSet;
use super::typed;
use crate::json::as_go;
use crate::kinds::Kind;
use crate::shape::Shape;
use serde_json::{Value, json};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Whose annotation it is.
const MANAGER: &str = "kubectl";
/// Bytes of all names and values of annotations.
const ANNOTATIONS_MAX: usize = 256 << 10;

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str().filter(|text| !text.is_empty())
}

/// The fields that `manager` may take from others, as it set them to what they are.
pub(super) fn own(live: &Value, kind: &Kind, shape: &Shape, manager: &str) -> Option<FieldSet> {
    let text = annotation(live).filter(|_| manager == MANAGER)?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last["apiVersion"] != kind.api_version().as_str() || !typed::faults(&last, kind).is_empty() {
        return None;
    }
    let mut fields = FieldSet::of(shape, &last);
    let since = compare(shape, &last, live);
    for changed in [&since.modified, &since.added, &since.removed] {
        fields.subtract(changed);
    }
    Some(fields)
}

/// Keeps the annotation of what `config` was applied to up to date, where there is one.
pub fn refresh(object: &mut Value, config: &Value, manager: &str) {
    if manager != MANAGER || annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = as_go(&config) + "\n";
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.insert(ANNOTATION.to_owned(), json!(text));
    let bytes = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
    if bytes.sum::<usize>() > ANNOTATIONS_MAX {
        annotations.remove(ANNOTATION);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config_map, map, writer};
    use super::super::{ApplyError, apply, update};
    use super::*;

    /// As `kubectl apply` leaves it.
    fn made(data: &Value, annotation: &str) -> Value {
        let mut object = map(data.clone());
        object["metadata"]["annotations"] = json!({ANNOTATION: annotation});
        update(&mut object, None, &config_map(), &writer("kubectl-client-side-apply", "1"));
        object
    }

    #[test]
    fn kubectl_takes_over_what_it_applied_itself_and_nothing_else() {
        let set = map(json!({"a": "1", "b": "1"})).to_string();
        let told = |manager: &str, live: &Value, data: Value| -> Vec<String> {
            match apply(Some(live), &map(data), &config_map(), &writer(manager, "2"), false) {
                Ok(_) => Vec::new(),
                Err(ApplyError::Conflict(status)) => {
                    let causes = status.details["causes"].as_array().expect("causes").clone();
                    causes.iter().map(|cause| cause["field"].as_str().expect("a field").to_owned()).collect()
                }
                Err(other) => panic!("{other:?}"),
            }
        };
        let live = made(&json!({"a": "1", "b": "1"}), &set);
        let mut changed = live.clone();
        changed["data"]["b"] = json!("2");
        update(&mut changed, Some(&live), &config_map(), &writer("edit", "2"));
        let other_version = set.replace("\"v1\"", "\"v2\"");
        let (both, none) = (&[".data.a", ".data.b"][..], &[][..]);
        for (case, manager, live, data, conflicts) in [
            ("its own", "kubectl", live.clone(), json!({"a": "9", "b": "9"}), none),
            ("not kubectl", "other", live, json!({"a": "9", "b": "9"}), both),
            ("changed since", "kubectl", changed, json!({"a": "9", "b": "9"}), &[".data.b"][..]),
            (
                "another version",
                "kubectl",
                made(&json!({"a": "1", "b": "1"}), &other_version),
                json!({"a": "9", "b": "9"}),
                both,
            ),
            (
                "no JSON",
                "kubectl",
                made(&json!({"a": "1", "b": "1"}), "{"),
                json!({"a": "9", "b": "9"}),
                both,
            ),
        ] {
            assert_eq!(told(manager, &live, data), conflicts, "{case}");
        }
    }

    #[test]
    fn the_annotation_says_what_kubectl_applied_where_there_is_one() {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c",
            "annotations": {ANNOTATION: "old", "x": "y"}}, "data": {"a": "<&>"}});
        let written = "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"\\u003c\\u0026\\u003e\"},\"kind\":\"ConfigMap\",\
            \"metadata\":{\"annotations\":{\"x\":\"y\"},\"name\":\"c\"}}\n";
        let long = "x".repeat(ANNOTATIONS_MAX);
        for (case, manager, before, after) in [
            ("there", "kubectl", json!({ANNOTATION: "{}"}), json!({ANNOTATION: written})),
            ("not there", "kubectl", json!({"x": "y"}), json!({"x": "y"})),
            ("empty", "kubectl", json!({ANNOTATION: ""}), json!({ANNOTATION: ""})),
            ("not kubectl", "other", json!({ANNOTATION: "{}"}), json!({ANNOTATION: "{}"})),
            ("too long", "kubectl", json!({ANNOTATION: "{}", "l": long}), json!({"l": long})),
        ] {
            let mut object = json!({"metadata": {"annotations": before}});
            refresh(&mut object, &config, manager);
            assert_eq!(object["metadata"]["annotations"], after, "{case}");
        }
    }
}
