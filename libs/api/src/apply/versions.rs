//! Changes as owners see them who wrote in another version of a kind: its fields have other names there.

use super::compare::{Changes, compare};
use super::set::FieldSet;
use crate::autoscaling;
use crate::kinds::{self, Kind};
use crate::shape;
use serde_json::{Value, json};
use std::borrow::Cow;

/// A change of an object, as its own version shows it.
pub(super) struct Change<'a> {
    pub kind: &'a Kind,
    pub old: &'a Value,
    pub new: &'a Value,
    /// Fields that it does not count for.
    pub ignored: &'a FieldSet,
    pub own: &'a Changes,
}

impl Change<'_> {
    /// What has changed in a version. Where it is not known what an object is there, the fields are taken for the same.
    pub fn in_version(&self, version: &str) -> Cow<'_, Changes> {
        let Some((kind, converted)) = conversion(self.kind, version) else { return Cow::Borrowed(self.own) };
        let mut changes = compare(&shape::of(kind), &converted(self.old), &converted(self.new));
        changes.forget(self.ignored);
        Cow::Owned(changes)
    }
}

/// How objects of a kind become those of another version of it.
fn conversion(kind: &Kind, version: &str) -> Option<(&'static Kind, impl Fn(&Value) -> Value + use<>)> {
    if kind.custom.is_some() || kind.kind != "HorizontalPodAutoscaler" || version == kind.api_version() {
        return None;
    }
    let to = kinds::by_gvk(version, &kind.kind)?;
    let convert = if autoscaling::is_v1(to) { autoscaling::to_v1 } else { autoscaling::from_v1 };
    Some((to, move |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = json!(to.api_version());
        convert(&mut object);
        object
    }))
}

#[cfg(test)]
mod tests {
    use crate::apply::{Writer, apply, update};
    use crate::kinds::{self, Kind};
    use serde_json::{Value, json};

    fn autoscaler(version: &str) -> Kind {
        kinds::by_gvk(version, "HorizontalPodAutoscaler").expect("a kind").as_ref().clone()
    }

    fn shown(version: &str, spec: &Value) -> Value {
        json!({"apiVersion": version, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec})
    }

    fn metrics(percent: i64) -> Value {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
    }

    #[test]
    fn owners_in_another_version_lose_what_has_other_names_there() {
        let (v1, v2) = ("autoscaling/v1", "autoscaling/v2");
        let writer = |manager| Writer { manager, subresource: "", now: "t" };
        let mut made = shown(v2, &json!({"maxReplicas": 3, "metrics": metrics(80)}));
        update(&mut made, None, &autoscaler(v2), &writer("two"));
        let owners = made["metadata"]["managedFields"].clone();
        assert_eq!(owners[0]["fieldsV1"], json!({"f:spec": {"f:maxReplicas": {}, "f:metrics": {}}}));

        let mut old = shown(v1, &json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        old["metadata"]["managedFields"] = owners;
        let mut new = old.clone();
        new["spec"]["targetCPUUtilizationPercentage"] = json!(50);
        update(&mut new, Some(&old), &autoscaler(v1), &writer("one"));
        let owners = new["metadata"]["managedFields"].as_array().expect("owners");
        let fields = |manager: &str| {
            owners.iter().find(|owner| owner["manager"] == manager).map(|owner| owner["fieldsV1"].clone())
        };
        assert_eq!(fields("one"), Some(json!({"f:spec": {"f:targetCPUUtilizationPercentage": {}}})));
        assert_eq!(fields("two"), Some(json!({"f:spec": {"f:maxReplicas": {}}})));

        // Who applies the same field in the other version is told whose it is.
        let config = shown(v2, &json!({"metrics": metrics(70)}));
        let mut live = shown(v2, &json!({"maxReplicas": 3, "metrics": metrics(50)}));
        live["metadata"]["managedFields"] = json!(owners);
        assert!(apply(Some(&live), &config, &autoscaler(v2), &writer("applier"), false).is_err());
    }
}
