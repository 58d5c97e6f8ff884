//! Custom kinds, checked against recorded answers of Kubernetes.

use super::*;
use serde_json::json;

fn definition() -> Value {
    json!({"metadata": {"name": "widgets.a.io"}, "spec": {"group": "a.io", "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["w"]},
        "versions": [
            {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
            {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema()}},
            {"name": "v2alpha1", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 5},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "name": {"type": "string", "maxLength": 3, "pattern": "^[a-z]+$"},
        "when": {"type": "string", "format": "date-time"},
        "port": {"x-kubernetes-int-or-string": true},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "properties": {"n": {"type": "integer"}, "q": {"type": "integer", "maximum": 1}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        "x-kubernetes-validations": [
            {"rule": "self.size < 4 || self.color == 'blue'", "message": "big ones are blue"},
            {"rule": "self.size >= oldSelf.size", "messageExpression": "'never below ' + string(oldSelf.size)"},
            {"rule": "!has(self.when) || self.when > timestamp('2020-01-01T00:00:00Z')"}]}}})
}

fn version() -> Version {
    Version::new(json!({"schema": {"openAPIV3Schema": schema()}}))
}

#[test]
fn a_definition_is_served_once_its_names_are_accepted() {
    let mut definition = definition();
    assert!(kinds(&definition).is_empty());
    definition["status"] = names::status(&definition, &[], "2020-01-01T00:00:00Z").expect("a status");
    let kinds = kinds(&definition);
    let versions: Vec<&str> = kinds.iter().map(|kind| kind.version.as_str()).collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    assert_eq!(
        (kinds[1].storage_version.as_str(), kinds[0].definition.as_str()),
        ("a.io/v1", "io.a.v1.Widget")
    );
    assert!(kinds[0].subresource("status").is_some() && kinds[1].subresource("status").is_none());
    assert_eq!(names::status(&definition, &[&definition], "later"), None);

    let mut other = super::tests::definition();
    other["metadata"]["name"] = json!("gadgets.a.io");
    other["spec"]["names"]["plural"] = json!("gadgets");
    let status = names::status(&other, &[&definition], "now").expect("a status");
    let told =
        |at: usize| (status["conditions"][at]["status"].clone(), status["conditions"][at]["reason"].clone());
    assert_eq!(
        (told(0), told(1)),
        ((json!("False"), json!("SingularConflict")), (json!("False"), json!("NotAccepted")))
    );
    assert_eq!(status["conditions"][0]["message"], "\"widget\" is already in use");
}

#[test]
fn versions_are_ordered_as_kubernetes_orders_them() {
    let mut versions = ["v1beta1", "foo", "v2", "v10", "v1alpha2", "v1", "v1beta2", "bar"];
    versions.sort_by_cached_key(|version| std::cmp::Reverse(priority(version)));
    assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha2", "bar", "foo"]);
}

#[test]
fn objects_are_pruned_and_defaulted() {
    let mut object = json!({"metadata": {"name": "x", "anything": 1}, "top": 1, "spec": {"size": 2, "nope": 1, "color": null,
        "labels": {"a": "b"}, "free": {"x": {"y": 1}}, "ports": [{"n": 1, "z": 2}]}});
    let mut unknown = Vec::new();
    prune(&mut object, &version(), &mut unknown);
    unknown.sort();
    assert_eq!(
        unknown,
        [r#"unknown field "spec.nope""#, r#"unknown field "spec.ports[0].z""#, r#"unknown field "top""#]
    );
    default(&mut object, &version());
    assert_eq!(
        object["spec"],
        json!({"size": 2, "color": "red", "labels": {"a": "b"}, "free": {"x": {"y": 1}}, "ports": [{"n": 1}]})
    );
}

#[test]
fn faults_have_kubernetes_words() {
    let skipped = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    let rows = [
        (
            json!({"size": 9}),
            vec![
                "spec.size: Invalid value: 9: spec.size in body should be less than or equal to 5",
                "spec: Invalid value: \"object\": big ones are blue",
            ],
        ),
        (json!({}), vec!["spec.size: Required value", skipped]),
        (
            json!({"size": "x"}),
            vec![
                "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
                skipped,
            ],
        ),
        (
            json!({"size": 1, "color": "green"}),
            vec!["spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"", skipped],
        ),
        (json!({"size": 1, "tags": ["a", "a"]}), vec!["spec.tags[1]: Duplicate value: \"a\""]),
        (
            json!({"size": 1, "ports": [{"n": 1}, {"n": 1}]}),
            vec!["spec.ports[1]: Duplicate value: {\"n\":1}"],
        ),
        (
            json!({"size": 1, "name": "A"}),
            vec!["spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"],
        ),
        (
            json!({"size": 1, "name": "abcd"}),
            vec!["spec.name: Too long: may not be more than 3 bytes", skipped],
        ),
        (
            json!({"size": 1, "port": true}),
            vec![
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
                skipped,
            ],
        ),
        (json!({"size": 4, "color": "red"}), vec!["spec: Invalid value: \"object\": big ones are blue"]),
        (json!({"size": 4, "color": "blue", "when": "2021-01-01T00:00:00Z", "port": "x"}), vec![]),
        (
            json!({"size": 1, "when": "2019-01-01T00:00:00Z"}),
            vec![
                "spec: Invalid value: \"object\": failed rule: !has(self.when) || self.when > timestamp('2020-01-01T00:00:00Z')",
            ],
        ),
    ];
    for (spec, want) in rows {
        let mut object = json!({"spec": spec});
        default(&mut object, &version());
        let got: Vec<String> = validate(&object, None, &version()).iter().map(ToString::to_string).collect();
        assert_eq!(got, want, "{object}");
    }
}

#[test]
fn an_update_is_judged_by_what_it_changes() {
    let object =
        |size: i64, q: i64| json!({"spec": {"size": size, "color": "blue", "ports": [{"n": 1, "q": q}]}});
    let faults = |new: &Value, old: &Value| -> Vec<String> {
        validate(new, Some(old), &version()).iter().map(ToString::to_string).collect()
    };
    // What was wrong before may stay so.
    assert!(faults(&object(3, 9), &object(2, 9)).is_empty());
    assert_eq!(faults(&object(1, 1), &object(2, 1)), ["spec: Invalid value: \"object\": never below 2"]);
    assert_eq!(faults(&object(3, 8), &object(2, 9)).len(), 1);
}

#[test]
fn rules_that_cannot_be_read_are_told_with_their_place() {
    let compiled = rules::compile("self.nope ==");
    let Err(error) = compiled.as_ref() else { panic!("it was read") };
    assert!(error.starts_with("ERROR: <input>:1:13: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | self.nope ==\n | ............^"), "{error}");
}

#[test]
fn a_stored_definition_with_a_rule_that_cannot_be_read_can_still_lose_its_finalizers() {
    let kind =
        crate::kinds::by_gvk("apiextensions.k8s.io/v1", "CustomResourceDefinition").expect("definitions");
    let mut old = definition();
    old["apiVersion"] = json!("apiextensions.k8s.io/v1");
    old["kind"] = json!("CustomResourceDefinition");
    old["metadata"]["uid"] = json!("u");
    old["metadata"]["resourceVersion"] = json!("1");
    old["status"] = json!({"storedVersions": ["v1"]});
    old["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "self =="}]);
    old["spec"]["conversion"] = json!({"strategy": "None"});
    old["metadata"]["finalizers"] = json!(["a.io/x"]);
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!([]);
    assert_eq!(crate::validate::update(&new, &old, kind, ""), []);
    new["spec"]["versions"][0]["schema"] = json!({});
    assert_eq!(crate::validate::update(&new, &old, kind, "").len(), 1);
}
