//! AppArmor profiles of pods: what containers' fields say and what annotations say becomes the same, as nodes may know only
//! one of them.

use super::put;
use serde_json::{Map, Value, json};

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";
const NAME_MAX: usize = 4095;

/// In: a new pod. Out: what there is to warn of; the pod's annotations and fields tell of each other's profiles.
pub(super) fn mirror(pod: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if pod["spec"]["os"]["name"] == "windows" {
        return warnings;
    }
    let of_pod = pod["spec"]["securityContext"]["appArmorProfile"].clone();
    let mut notes = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let before = notes.len();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(note) = mirror_one(container, &of_pod, &mut notes) {
                warnings.push(format!(
                    "metadata.annotations[{note}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
                ));
            }
        }
    }
    if notes.len() > before {
        put(&mut pod["metadata"], "annotations", Some(notes.into()));
    }
    warnings
}

/// The annotation to warn of: one that says what no field says, or says nothing.
fn mirror_one(container: &mut Value, of_pod: &Value, notes: &mut Map<String, Value>) -> Option<String> {
    let note = format!("{ANNOTATION}{}", container["name"].as_str().unwrap_or_default());
    let own = &container["securityContext"]["appArmorProfile"];
    let Some(told) = notes.get(&note) else {
        let profile = if own.is_null() { of_pod } else { own };
        if let Some(text) = annotation_of(profile) {
            notes.insert(note, text.into());
        }
        return None;
    };
    if !own.is_null() {
        return None;
    }
    let profile = profile_of(told.as_str().unwrap_or_default());
    match profile {
        Some(profile) if profile == *of_pod => return None,
        Some(profile) => put(&mut container["securityContext"], "appArmorProfile", Some(profile)),
        None => {}
    }
    Some(note)
}

fn annotation_of(profile: &Value) -> Option<String> {
    match profile["type"].as_str()? {
        "Unconfined" => Some("unconfined".to_owned()),
        "RuntimeDefault" => Some("runtime/default".to_owned()),
        "Localhost" => Some(format!("{LOCALHOST}{}", profile["localhostProfile"].as_str()?)),
        _ => None,
    }
}

/// What an annotation says, where a field may say it.
fn profile_of(note: &str) -> Option<Value> {
    match note {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let name = note.strip_prefix(LOCALHOST)?;
            let sound = !name.is_empty() && name.trim() == name && name.len() <= NAME_MAX;
            sound.then(|| json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_and_fields_of_profiles_tell_the_same() {
        const GONE: &str = "]: deprecated since v1.30; use the \"appArmorProfile\" field instead";
        let default = json!({"type": "RuntimeDefault"});
        let local = json!({"type": "Localhost", "localhostProfile": "mine"});
        // The pod's profile, the container's, the annotation; then the last two as they come out, and whether one is warned.
        let rows = [
            (json!(null), json!(null), None, json!(null), None, false),
            (json!(null), local.clone(), None, local.clone(), Some("localhost/mine"), false),
            (default.clone(), json!(null), None, json!(null), Some("runtime/default"), false),
            (
                default.clone(),
                json!(null),
                Some("runtime/default"),
                json!(null),
                Some("runtime/default"),
                false,
            ),
            (json!(null), json!(null), Some("localhost/mine"), local.clone(), Some("localhost/mine"), true),
            (default, json!(null), Some("localhost/mine"), local, Some("localhost/mine"), true),
            (json!(null), json!(null), Some("odd"), json!(null), Some("odd"), true),
            (json!(null), json!({"type": "Localhost"}), None, json!({"type": "Localhost"}), None, false),
        ];
        for (of_pod, own, note, own_after, note_after, warned) in rows {
            let row = format!("{of_pod} {own} {note:?}");
            let mut pod = json!({"metadata": {}, "spec": {"securityContext": {"appArmorProfile": of_pod},
                "containers": [{"name": "c", "securityContext": {"appArmorProfile": own}}]}});
            let key = format!("{ANNOTATION}c");
            if let Some(note) = note {
                pod["metadata"]["annotations"] = json!({key.clone(): note});
            }
            let warnings = mirror(&mut pod);
            let container = &pod["spec"]["containers"][0]["securityContext"];
            assert_eq!(container["appArmorProfile"], own_after, "{row}");
            assert_eq!(pod["metadata"]["annotations"][&key].as_str(), note_after, "{row}");
            let wanted = warned.then(|| format!("metadata.annotations[{key}{GONE}"));
            assert_eq!(warnings, wanted.into_iter().collect::<Vec<_>>(), "{row}");
        }
    }

    #[test]
    fn windows_knows_no_profiles() {
        let mut pod = json!({"metadata": {}, "spec": {"os": {"name": "windows"},
            "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}, "containers": [{"name": "c"}]}});
        let before = pod.clone();
        assert_eq!((mirror(&mut pod), &pod), (vec![], &before));
    }
}
