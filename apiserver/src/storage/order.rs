//! The order in which Go writes the fields of what every client reads: Statuses, discovery, Tables and metadata. The rest of an
//! object stands in the order of its names.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

const OBJECT: &[&str] = &[
    "kind",
    "apiVersion",
    "name",
    "metadata",
    "groupVersion",
    "spec",
    "status",
    "message",
    "reason",
    "details",
    "code",
    "versions",
    "preferredVersion",
    "serverAddressByClientCIDRs",
    "columnDefinitions",
    "rows",
];
/// What holds an object or a list of them, and the order of the fields there; whole objects under other names.
const ORDERS: &[(&str, &[&str])] = &[
    ("items", OBJECT),
    ("groups", OBJECT),
    ("object", OBJECT),
    (
        "metadata",
        &[
            "name",
            "generateName",
            "namespace",
            "selfLink",
            "uid",
            "resourceVersion",
            "continue",
            "remainingItemCount",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "labels",
            "annotations",
            "ownerReferences",
            "finalizers",
            "managedFields",
        ],
    ),
    (
        "managedFields",
        &["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"],
    ),
    ("ownerReferences", &["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"]),
    ("details", &["name", "group", "kind", "uid", "causes", "retryAfterSeconds"]),
    ("causes", &["reason", "message", "field"]),
    (
        "resources",
        &[
            "resource",
            "responseKind",
            "scope",
            "singularResource",
            "name",
            "singularName",
            "namespaced",
            "group",
            "version",
            "kind",
            "verbs",
            "shortNames",
            "categories",
            "subresources",
            "storageVersionHash",
        ],
    ),
    ("responseKind", &["group", "version", "kind"]),
    ("subresources", &["subresource", "responseKind", "acceptedTypes", "verbs"]),
    ("versions", &["groupVersion", "version", "resources", "freshness"]),
    ("preferredVersion", &["groupVersion", "version"]),
    ("serverAddressByClientCIDRs", &["clientCIDR", "serverAddress"]),
    ("columnDefinitions", &["name", "type", "format", "description", "priority"]),
    ("rows", &["cells", "conditions", "object"]),
];

/// A value that is written in Go's order.
pub struct Ordered<'a> {
    value: &'a Value,
    /// The field that holds it; empty for a whole answer.
    within: &'a str,
}

impl<'a> Ordered<'a> {
    /// A whole answer.
    #[must_use]
    pub const fn new(value: &'a Value) -> Self {
        Self { value, within: "" }
    }

    /// The metadata of a list.
    #[must_use]
    pub const fn metadata(value: &'a Value) -> Self {
        Self { value, within: "metadata" }
    }

    fn order(&self) -> &'static [&'static str] {
        if self.within.is_empty() {
            return OBJECT;
        }
        ORDERS.iter().find(|(name, _)| *name == self.within).map_or(&[], |(_, order)| order)
    }
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Object(map) => {
                let order = self.order();
                let known = order.iter().filter_map(|name| map.get_key_value(*name));
                let others = map.iter().filter(|(name, _)| !order.contains(&name.as_str()));
                let mut out = serializer.serialize_map(Some(map.len()))?;
                for (name, value) in known.chain(others) {
                    out.serialize_entry(name, &Ordered { value, within: name })?;
                }
                out.end()
            }
            Value::Array(items) => {
                serializer.collect_seq(items.iter().map(|value| Ordered { value, within: self.within }))
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::status::{FieldError, GroupResource, Status};
    use serde_json::json;

    #[test]
    fn fields_stand_in_gos_order() {
        let told = |value: &Value| serde_json::to_string(&Ordered::new(value)).expect("json");
        let fault = FieldError::required("spec.x", "");
        let status = Status::invalid(&GroupResource::new("apps", "Deployment"), "d", &[fault]);
        let text = told(&status.to_value());
        assert!(text.starts_with(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"#
        ));
        let details = r#""reason":"Invalid","details":{"name":"d","group":"apps","kind":"Deployment","causes":[{"reason":"FieldValueRequired","message":"Required value","field":"spec.x"}]},"code":422}"#;
        assert!(text.ends_with(details), "{text}");
        let rows: [(Value, &str); 3] = [
            (
                json!({"data": {"b": "1", "a": "2"}, "metadata": {"uid": "u", "name": "n"}, "apiVersion": "v1", "kind": "K"}),
                r#"{"kind":"K","apiVersion":"v1","metadata":{"name":"n","uid":"u"},"data":{"a":"2","b":"1"}}"#,
            ),
            (
                json!({"kind": "APIResourceList", "resources": [{"verbs": ["get"], "kind": "K", "name": "ks"}], "groupVersion": "v1"}),
                r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"ks","kind":"K","verbs":["get"]}]}"#,
            ),
            (
                json!({"rows": [{"object": {"metadata": {}, "kind": "K"}, "cells": [1]}], "kind": "Table"}),
                r#"{"kind":"Table","rows":[{"cells":[1],"object":{"kind":"K","metadata":{}}}]}"#,
            ),
        ];
        for (value, want) in rows {
            assert_eq!(told(&value), want);
        }
    }
}
