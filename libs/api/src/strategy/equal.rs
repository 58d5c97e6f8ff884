//! Equality as Kubernetes' semantic DeepEqual sees it in built-in kinds: lists and maps without items are none, but a pointer
//! to a struct without fields is not.

use super::same;
use crate::kinds::Kind;
use crate::schema::{self, Type};
use serde_json::Value;

static NULL: Value = Value::Null;

/// Whether a field of two objects of a kind is the same.
pub fn same_field(kind: &Kind, field: &str, a: &Value, b: &Value) -> bool {
    let root = schema::of(kind).filter(|_| kind.custom.is_none());
    let of = root.and_then(|at| schema::message(at).fields.iter().find(|own| own.name == field));
    match of {
        Some(of) => same_as(&of.of, a, b),
        None => same(a, b),
    }
}

/// Whether a list or a map without items is told in a field.
pub(super) fn tells_empties(kind: &Kind, field: &str, value: &Value) -> bool {
    let root = schema::of(kind).filter(|_| kind.custom.is_none());
    let of = root.and_then(|at| schema::message(at).fields.iter().find(|own| own.name == field));
    of.is_some_and(|of| has_empties(&of.of, value))
}

fn has_empties(of: &Type, value: &Value) -> bool {
    match (of, value) {
        (Type::List(item), Value::Array(items)) => {
            items.is_empty() || items.iter().any(|value| has_empties(item, value))
        }
        (Type::Map(item), Value::Object(map)) => {
            map.is_empty() || map.values().any(|value| has_empties(item, value))
        }
        (Type::Message(at), Value::Object(map)) => schema::message(*at).fields.iter().any(|field| {
            let inner = if field.inline { Some(value) } else { map.get(&field.name) };
            inner.is_some_and(|inner| has_empties(&field.of, inner))
        }),
        _ => false,
    }
}

fn same_as(of: &Type, a: &Value, b: &Value) -> bool {
    if a.is_null() && b.is_null() {
        return true;
    }
    match (of, a, b) {
        (Type::Message(at), Value::Object(_) | Value::Null, Value::Object(_) | Value::Null) => {
            same_message(*at, a, b)
        }
        (Type::List(item), Value::Array(own), Value::Array(others)) => {
            own.len() == others.len() && own.iter().zip(others).all(|(a, b)| same_as(item, a, b))
        }
        (Type::Map(item), Value::Object(own), Value::Object(others)) => {
            own.len() == others.len()
                && own.iter().all(|(key, a)| others.get(key).is_some_and(|b| same_as(item, a, b)))
        }
        _ => same(a, b),
    }
}

fn same_message(at: usize, a: &Value, b: &Value) -> bool {
    schema::message(at).fields.iter().all(|field| {
        if field.inline {
            return same_as(&field.of, a, b);
        }
        let (own, other) = (a.get(&field.name).unwrap_or(&NULL), b.get(&field.name).unwrap_or(&NULL));
        let is_struct = matches!(field.of, Type::Message(_));
        if field.pointer && is_struct && own.is_null() != other.is_null() {
            return false;
        }
        same_as(&field.of, own, other)
    })
}

#[cfg(test)]
mod tests {
    use super::{same_field, tells_empties};
    use crate::kinds;
    use serde_json::json;

    #[test]
    fn a_struct_without_fields_is_something_where_it_may_be_absent() {
        let rows = [
            ("v1", "Pod", json!({"affinity": {"nodeAffinity": {}}}), json!({}), false),
            ("v1", "Pod", json!({"affinity": {"nodeAffinity": {}}}), json!({"affinity": {}}), false),
            ("v1", "Pod", json!({"nodeSelector": {}, "tolerations": []}), json!({}), true),
            ("v1", "Pod", json!({"containers": [{"resources": {}}]}), json!({"containers": [{}]}), true),
            ("v1", "Pod", json!({"containers": [{"env": []}]}), json!({"containers": [{}]}), true),
            ("v1", "Pod", json!({"hostNetwork": true}), json!({}), false),
            (
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                json!({"versions": [{"name": "v1", "subresources": {"status": {}}}]}),
                json!({"versions": [{"name": "v1"}]}),
                false,
            ),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                json!({"ingress": [{"from": [{"podSelector": {}}]}]}),
                json!({"ingress": [{"from": [{}]}]}),
                false,
            ),
        ];
        for (version, name, a, b, want) in rows {
            let kind = kinds::by_gvk(version, name).expect(name);
            assert_eq!(same_field(kind, "spec", &a, &b), want, "{a} {b}");
            assert_eq!(same_field(kind, "spec", &b, &a), want, "{b} {a}");
        }
    }

    #[test]
    fn what_has_no_items_is_told_all_the_same() {
        let hooks = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "webhooks");
        let policy = ("networking.k8s.io/v1", "NetworkPolicy", "spec");
        let rows = [
            (hooks, json!([]), true),
            (hooks, json!(null), false),
            (hooks, json!([{"rules": []}]), true),
            (policy, json!({"podSelector": {}}), false),
            (policy, json!({"podSelector": {"matchLabels": {}}}), true),
            (policy, json!({"ingress": [{"from": []}]}), true),
            (policy, json!({"ingress": [{}]}), false),
        ];
        for ((version, name, field), value, want) in rows {
            let kind = kinds::by_gvk(version, name).expect(name);
            assert_eq!(tells_empties(kind, field, &value), want, "{value}");
        }
    }
}
