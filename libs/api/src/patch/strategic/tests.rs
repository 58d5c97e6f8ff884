//! Strategic merge patches in, objects or the words of refusals out.

use super::super::{PatchError, strategic};
use super::{failed, malformed};
use crate::shape::tests::kind;
use serde_json::{Value, json};

/// Patches the pod spec of a Deployment's template.
fn patched(spec: &Value, patch: &Value) -> Result<Value, PatchError> {
    let kind = kind("v1", "Pod", "io.k8s.api.core.v1.Pod");
    let patch = json!({"spec": patch}).to_string();
    strategic(&json!({"spec": spec}), patch.as_bytes(), &kind).map(|patched| patched.object["spec"].clone())
}

#[test]
fn merges_by_schema() {
    let containers = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
    let rows = [
        // A list that replaces another has no directives.
        (
            json!({"tolerations": [{"key": "k"}, {"key": "l"}]}),
            json!({"tolerations": [{"key": "n"}, {"key": "k", "$patch": "delete"}]}),
            json!({"tolerations": [{"key": "n"}, {"key": "k", "$patch": "delete"}]}),
        ),
        (
            containers.clone(),
            json!({"containers": [{"name": "b", "image": "3"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}),
        ),
        (
            containers.clone(),
            json!({"containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        ),
        (
            containers.clone(),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b", "image": "2"}]}),
        ),
        (
            containers.clone(),
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
            json!({"containers": [{"name": "z"}]}),
        ),
        (
            containers,
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "c"}, {"name": "a", "image": "1"}]}),
        ),
        (
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"a": null, "c": "3"}}),
            json!({"nodeSelector": {"b": "2", "c": "3"}}),
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "replace", "c": "3"}}),
            json!({"nodeSelector": {"c": "3"}}),
        ),
        (
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        (json!({"hostname": "h"}), json!({"hostname": null}), json!({})),
    ];
    for (spec, patch, want) in rows {
        assert_eq!(patched(&spec, &patch).unwrap(), want, "{patch}");
    }
}

#[test]
fn what_was_not_there_is_taken_as_it_is() {
    let rows = [
        (json!({"nodeSelector": {"$patch": "replace", "a": "1"}}), json!({})),
        (json!({"volumes": [{"emptyDir": {}}, {"$patch": "x"}]}), json!({"volumes": [{"emptyDir": {}}]})),
        (json!({"containers": [{"name": "a", "$patch": "replace"}]}), json!({"containers": []})),
    ];
    for (patch, want) in rows {
        let spec =
            if patch["containers"].is_null() { json!({}) } else { json!({"containers": [{"name": "a"}]}) };
        assert_eq!(patched(&spec, &patch).expect("applies"), want, "{patch}");
    }
}

#[test]
fn primitive_lists_and_metadata() {
    let kind = kind("v1", "Pod", "io.k8s.api.core.v1.Pod");
    let object = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch =
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}).to_string();
    assert_eq!(
        strategic(&object, patch.as_bytes(), &kind).unwrap().object["metadata"]["finalizers"],
        json!(["c", "b"])
    );
}

#[test]
fn directives_of_the_wrong_type_are_told_as_upstream_tells_them() {
    let spec = json!({"containers": [{"name": "a"}], "nodeSelector": {"a": "1"}, "hostname": "h"});
    let odd = "expected a []interface {}, but received a";
    let rows = [
        (json!({"$setElementOrder/containers": "a"}), failed(format!("{odd} string"))),
        (json!({"$setElementOrder/containers": 1}), failed(format!("{odd} int64"))),
        (json!({"$setElementOrder/containers": null}), failed(format!("{odd} %!s(<nil>)"))),
        (json!({"$setElementOrder/nodeSelector": []}), failed(format!("{odd} map[string]interface {{}}"))),
        (json!({"$setElementOrder/x": [], "x": true}), failed(format!("{odd} bool"))),
        (json!({"$setElementOrder": []}), malformed("invalid patch format of setElementOrder list")),
        (
            json!({"$setElementOrder/containers": [{"name": "z"}], "containers": [{"name": "q"}]}),
            failed(
                "The order in patch list:\n[map[name:q]]\n doesn't match $setElementOrder list:\n[map[name:z]]\n",
            ),
        ),
        (json!({"$deleteFromPrimitiveList": []}), malformed("invalid patch format of primitive list")),
        (json!({"nodeSelector": {"$retainKeys": "a"}}), malformed("invalid patch format of retainKeys")),
        (
            json!({"nodeSelector": {"$retainKeys": ["a"], "b": ""}}),
            malformed("invalid patch format of retainKeys"),
        ),
        (json!({"$patch": "what", "a": 1}), failed("unknown patch type: what in map: map[$patch:what a:1]")),
        (
            json!({"containers": [{"image": "x"}]}),
            failed("map: map[image:x] does not contain declared merge key: name"),
        ),
        (
            json!({"containers": [{"name": "a", "$patch": "merge"}]}),
            failed("merging lists cannot yet be specified in the patch"),
        ),
        (
            json!({"nodeSelector": {"$patch": 1}}),
            failed("unknown patch type: %!s(int64=1) in map: map[$patch:1]"),
        ),
        (
            json!({"$setElementOrder/containers": [{"x": "a"}]}),
            failed("map: map[x:a] does not contain declared merge key: name"),
        ),
        (json!({"$setElementOrder/containers": ["a"]}), failed("value for key 0 is not a map")),
        (
            json!({"$setElementOrder/containers": ["a"], "containers": [{"name": "a"}]}),
            failed("expected a map[string]interface {}, but received a string"),
        ),
        (json!({"containers": ["x"]}), failed("list element types are not identical: [[map[name:a]] [x]]")),
    ];
    for (patch, want) in rows {
        assert_eq!(patched(&spec, &patch), Err(want), "{patch}");
    }
    let kind = kind("v1", "Pod", "io.k8s.api.core.v1.Pod");
    let object = json!({"metadata": {"finalizers": ["a", "b"]}});
    for (gone, left) in
        [(json!("a"), json!(["a", "b"])), (json!(["a"]), json!(["b"])), (json!(null), json!(null))]
    {
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": gone}}).to_string();
        let patched = strategic(&object, patch.as_bytes(), &kind).expect("applies");
        assert_eq!(patched.object["metadata"]["finalizers"], left, "{patch}");
    }
}

#[test]
fn long_lists_are_put_in_order_in_one_walk() {
    let named = |range: std::ops::Range<usize>| -> Value {
        range.map(|n| json!({"name": format!("c{n}")})).collect()
    };
    let (spec, order) = (json!({"containers": named(0..20_000)}), named(100..40_000));
    let patch = json!({"$setElementOrder/containers": order, "containers": [{"name": "c200", "image": "i"}]});
    let patched = patched(&spec, &patch).expect("patched");
    assert_eq!(patched["containers"].as_array().map(Vec::len), Some(20_000));
    assert_eq!(patched["containers"][200], json!({"name": "c200", "image": "i"}));
}

#[test]
fn what_replaces_or_is_kept_as_a_text_is_not_merged() {
    let patched = |version: &str, name: &str, object: Value, patch: Value| {
        let kind = kind(version, name, &format!("io.k8s.api.{}.{name}", version.replace('/', ".")));
        strategic(&object, patch.to_string().as_bytes(), &kind).map(|patched| patched.object)
    };
    let selector = |selector: Value| json!({"spec": {"selector": selector}});
    let replaced = json!({"$patch": "replace", "matchLabels": {"c": "d"}});
    assert_eq!(
        patched(
            "policy/v1",
            "PodDisruptionBudget",
            selector(json!({"matchLabels": {"a": "b"}})),
            selector(replaced.clone())
        ),
        Ok(selector(replaced))
    );
    let revision = |data: Value| json!({"data": data});
    let of =
        |data: Value, patch: Value| patched("apps/v1", "ControllerRevision", revision(data), revision(patch));
    assert_eq!(of(json!({"a": 1}), json!({"a": 2})), Ok(revision(json!({"a": 2}))));
    for inner in [json!({"b": 1}), json!([1])] {
        assert_eq!(
            of(json!({"a": inner}), json!({"a": inner})),
            Err(failed("unable to find api field in struct RawExtension for the json field \"a\""))
        );
    }
}
