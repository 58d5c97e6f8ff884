//! What is left in a namespace that goes away, and how its conditions tell of it.

use crate::plan::{Action, NAMESPACE, status_patch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::collections::BTreeMap;

/// Why it is not known what there is, when some group versions' servers do not answer.
pub fn unknown(silent: &[String]) -> Option<String> {
    let fault = |version: &String| format!("{version}: stale GroupVersion discovery: {version}");
    let faults: Vec<String> = silent.iter().map(fault).collect();
    let told = || format!("unable to retrieve the complete list of server APIs: {}", faults.join(", "));
    (!silent.is_empty()).then(told)
}

/// What became of an attempt to empty a namespace.
#[derive(Debug, Default)]
pub struct Emptied {
    /// Why it is not known what there is.
    pub discovery: Option<String>,
    /// What could not be listed or deleted.
    pub failures: Vec<String>,
    /// Objects that were there, by resource.
    pub remaining: BTreeMap<String, usize>,
    /// Objects that wait for a finalizer, by its name.
    pub finalizers: BTreeMap<String, usize>,
}

impl Emptied {
    /// Whether the namespace is known to hold nothing.
    pub fn is_empty(&self) -> bool {
        self.discovery.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }

    /// Takes note of a resource: of its objects, or of why nothing is known about them.
    pub fn note(&mut self, resource: String, outcome: kube::Result<Vec<ObjectMeta>>) {
        match outcome {
            Err(error) => self.failures.push(text_of(&error)),
            Ok(present) if present.is_empty() => {}
            Ok(present) => {
                // Those that were asked to go just now are not held up by anything yet.
                for finalizer in present
                    .iter()
                    .filter(|object| object.deletion_timestamp.is_some())
                    .flat_map(|object| object.finalizers.iter().flatten())
                {
                    *self.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
                self.remaining.insert(resource, present.len());
            }
        }
    }

    /// Type, status, reason and message of each condition.
    fn conditions(&self) -> [(&'static str, bool, &'static str, String); 5] {
        let list = |counts: &BTreeMap<String, usize>, what: &str| {
            let told = counts.iter().map(|(name, count)| format!("{name} {what} {count} resource instances"));
            told.collect::<Vec<_>>().join(", ")
        };
        let discovery = match &self.discovery {
            Some(why) => ("DiscoveryFailed", why.clone()),
            None => ("ResourcesDiscovered", "All resources successfully discovered".to_owned()),
        };
        let content = if self.failures.is_empty() {
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned())
        } else {
            let (count, told) = (self.failures.len(), self.failures.join(", "));
            (
                "ContentDeletionFailed",
                format!("Failed to delete all resource types, {count} remaining: {told}"),
            )
        };
        let remaining = if self.remaining.is_empty() {
            ("ContentRemoved", "All content successfully removed".to_owned())
        } else {
            let told = list(&self.remaining, "has");
            ("SomeResourcesRemain", format!("Some resources are remaining: {told}"))
        };
        let finalizers = if self.finalizers.is_empty() {
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
        } else {
            let told = list(&self.finalizers, "in");
            (
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {told}"),
            )
        };
        let parsed = ("ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned());
        let with = |kind, holds, (reason, message)| (kind, holds, reason, message);
        [
            with("NamespaceDeletionDiscoveryFailure", self.discovery.is_some(), discovery),
            with("NamespaceDeletionGroupVersionParsingFailure", false, parsed),
            with("NamespaceDeletionContentFailure", !self.failures.is_empty(), content),
            with("NamespaceContentRemaining", !self.remaining.is_empty(), remaining),
            with("NamespaceFinalizersRemaining", !self.finalizers.is_empty(), finalizers),
        ]
    }
}

/// The namespace's status, if it does not say so already.
pub fn status(namespace: &Namespace, emptied: &Emptied, now: Timestamp) -> Option<Action> {
    let mut status = namespace.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for (kind, holds, reason, message) in emptied.conditions() {
        let value = if holds { "True" } else { "False" };
        let before = conditions.iter().position(|condition| condition.type_ == kind);
        let since = before
            .and_then(|at| conditions.get(at))
            .filter(|known| known.status == value)
            .and_then(|known| known.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: kind.into(),
            status: value.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match before.and_then(|at| conditions.get_mut(at)) {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    status_patch(&NAMESPACE, &namespace.metadata, &namespace.status, &status)
}

/// What an error says, without its wrapping.
pub fn text_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, object};
    use serde_json::{Value, json};

    fn told(emptied: &Emptied) -> Vec<String> {
        let namespace: Namespace = object(json!({ "metadata": { "name": "ns" } }));
        let Some(Action::Patch { patch, .. }) = status(&namespace, emptied, at("2026-01-01T00:00:00Z"))
        else {
            return Vec::new();
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = patch["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let holds = conditions.into_iter().filter(|condition| condition["status"] == "True");
        holds.map(|condition| text(&condition["message"])).collect()
    }

    #[test]
    fn what_remains_is_counted_and_named() {
        let leaving = |finalizers: Value| {
            object(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers }))
        };
        let mut emptied = Emptied::default();
        emptied.note("secrets.".into(), Ok(Vec::new()));
        assert!(emptied.is_empty());
        emptied.note("pods.".into(), Ok(vec![leaving(json!(["a.b/c"])), leaving(json!([]))]));
        assert_eq!(
            told(&emptied),
            [
                "Some resources are remaining: pods. has 2 resource instances",
                "Some content in the namespace has finalizers remaining: a.b/c in 1 resource instances",
            ]
        );
    }

    #[test]
    fn a_discovery_that_fails_lets_nothing_go() {
        assert_eq!(unknown(&[]), None);
        let why = unknown(&["a.io/v1".to_owned()]).expect("why");
        assert!(why.ends_with("APIs: a.io/v1: stale GroupVersion discovery: a.io/v1"), "{why}");
        let emptied = Emptied { discovery: Some("no route".into()), ..Emptied::default() };
        assert!(!emptied.is_empty());
        assert_eq!(told(&emptied), ["no route"]);
    }
}
