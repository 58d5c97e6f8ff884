//! ControllerRevisions: the templates that a StatefulSet or DaemonSet had, so that it can tell pods apart and go back.
//!
//! In: the template now, and the revisions kept. Out: which revision it is (an old one, when it is equal to that), and
//! the revisions to make, renumber or forget.

use crate::plan::{Action, CONTROLLER_REVISION, Deletion};
use crate::pods::owner_reference;
use coracle_client::{Key, ObjectId};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The label of pods and revisions that holds the revision.
pub const HASH_LABEL: &str = "controller-revision-hash";
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The revision that the template is.
pub struct Current {
    /// The ControllerRevision's name.
    pub name: String,
    /// The part of it that is a hash.
    pub hash: String,
    pub actions: Vec<Action>,
}

/// Ten letters, safe in names, that stand for some bytes.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(10)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// The patch that makes an object have this template; what `kubectl rollout undo` applies. Byte by byte as Kubernetes writes it,
/// whose clients compare it: there a template always has a time.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if template["metadata"]["creationTimestamp"].is_null() {
        template["metadata"]["creationTimestamp"] = Value::Null;
    }
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// The template that a revision stands for.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    serde_json::from_value(revision.data.as_ref()?.0["spec"]["template"].clone()).ok()
}

/// `labels`: those of the template, which revisions carry too, so that they are found by the selector. `set`: the owner's
/// metadata, whose annotations a new revision keeps, for `kubectl rollout history`.
pub fn current(
    owner: &ObjectId,
    set: &ObjectMeta,
    template: &PodTemplateSpec,
    labels: &BTreeMap<String, String>,
    kept: &[Arc<ControllerRevision>],
) -> Current {
    let data = data(template);
    let newest = kept.iter().map(|revision| revision.revision).max().unwrap_or(0);
    if let Some(same) = kept
        .iter()
        .filter(|revision| self::template(revision).is_some_and(|kept| self::data(&kept) == data))
        .max_by_key(|same| same.revision)
    {
        let key = Key::of(&same.metadata);
        let hash = same
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(HASH_LABEL).cloned())
            .unwrap_or_default();
        // Going back makes an old revision the newest.
        let renumber = (same.revision != newest).then(|| Action::Patch {
            resource: &CONTROLLER_REVISION,
            key: key.clone(),
            subresource: "",
            patch: json!({ "metadata": { "resourceVersion": same.metadata.resource_version }, "revision": newest + 1 }),
        });
        return Current { name: key.name, hash, actions: renumber.into_iter().collect() };
    }
    let hash = hash(data.to_string().as_bytes());
    let name = format!("{}-{hash}", owner.name);
    let mut labels = labels.clone();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let body = json!({
        "metadata": {
            "name": name, "namespace": owner.namespace, "labels": labels, "annotations": set.annotations,
            "ownerReferences": [owner_reference(owner)],
        },
        "data": data, "revision": newest + 1,
    });
    Current { name, hash, actions: vec![Action::Ensure { resource: &CONTROLLER_REVISION, body }] }
}

/// Forgets the oldest revisions that nobody uses, beyond the limit.
pub fn forget(kept: &[Arc<ControllerRevision>], used: &BTreeSet<String>, limit: i32) -> Vec<Action> {
    let name = |revision: &ControllerRevision| revision.metadata.name.clone().unwrap_or_default();
    let mut unused: Vec<_> = kept.iter().filter(|revision| !used.contains(&name(revision))).collect();
    unused.sort_by_key(|revision| revision.revision);
    let surplus = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let gone = unused.into_iter().take(surplus);
    gone.map(|revision| Action::Delete {
        resource: &CONTROLLER_REVISION,
        key: Key::of(&revision.metadata),
        uid: revision.metadata.uid.clone(),
        how: Deletion::default(),
        owner: None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    fn template(image: &str) -> PodTemplateSpec {
        object(json!({ "spec": { "containers": [{ "name": "c", "image": image }] } }))
    }

    fn kept(image: &str, revision: i64) -> Arc<ControllerRevision> {
        let meta = json!({ "name": format!("web-{image}"), "labels": { HASH_LABEL: image } });
        Arc::new(object(json!({ "metadata": meta, "data": data(&template(image)), "revision": revision })))
    }

    fn now(image: &str, revisions: &[Arc<ControllerRevision>]) -> Current {
        let owner = ObjectId { name: "web".into(), ..ObjectId::default() };
        let annotations = Some(BTreeMap::from([("kubernetes.io/change-cause".to_owned(), "why".to_owned())]));
        let set = ObjectMeta { annotations, ..ObjectMeta::default() };
        current(&owner, &set, &template(image), &BTreeMap::new(), revisions)
    }

    #[test]
    fn a_known_template_is_its_revision_and_a_new_one_gets_the_next_number() {
        let revisions = [kept("a", 1), kept("b", 2)];
        let same = now("b", &revisions);
        assert_eq!((same.name.as_str(), same.actions.len()), ("web-b", 0));
        let Some(Action::Ensure { body, .. }) = now("c", &revisions).actions.pop() else {
            panic!("a revision is made")
        };
        assert_eq!(body["revision"], 3);
        assert_eq!(body["metadata"]["annotations"], json!({ "kubernetes.io/change-cause": "why" }));
    }

    #[test]
    fn a_revision_holds_what_kubernetes_would_write() {
        let mut labelled = template("a");
        let text = |template: &PodTemplateSpec| data(template).to_string();
        assert_eq!(
            text(&labelled),
            r#"{"spec":{"template":{"$patch":"replace","metadata":{"creationTimestamp":null},"spec":{"containers":[{"image":"a","name":"c"}]}}}}"#
        );
        labelled.metadata = Some(object(json!({ "labels": { "x": "y" } })));
        let metadata = r#""metadata":{"creationTimestamp":null,"labels":{"x":"y"}}"#;
        assert!(text(&labelled).contains(metadata), "{}", text(&labelled));
    }

    #[test]
    fn a_revision_without_that_time_is_the_same() {
        let old = json!({ "spec": { "template": { "$patch": "replace", "spec": template("a").spec } } });
        let old = json!({ "metadata": { "name": "old" }, "data": old, "revision": 1 });
        assert_eq!(now("a", &[Arc::new(object(old))]).name, "old");
    }

    #[test]
    fn going_back_renumbers() {
        let Some(Action::Patch { key, patch, .. }) = now("a", &[kept("a", 1), kept("b", 2)]).actions.pop()
        else {
            panic!("renumbered")
        };
        assert_eq!((key.name.as_str(), &patch["revision"]), ("web-a", &json!(3)));
    }

    #[test]
    fn used_revisions_are_kept_beyond_the_limit() {
        let gone =
            forget(&[kept("a", 1), kept("b", 2), kept("c", 3)], &BTreeSet::from(["web-a".to_owned()]), 1);
        assert!(matches!(&gone[..], [Action::Delete { key, .. }] if key.name == "web-b"));
    }
}
