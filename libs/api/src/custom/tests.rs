//! Custom kinds, checked against recorded answers of Kubernetes.

mod definitions;
mod objects;

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
        ((json!("False"), json!("ListKindConflict")), (json!("False"), json!("NotAccepted")))
    );
    assert_eq!(status["conditions"][0]["message"], "\"WidgetList\" is already in use");
}

#[test]
fn versions_are_ordered_as_kubernetes_orders_them() {
    let mut versions = ["v1beta1", "foo", "v2", "v10", "v1alpha2", "v1", "v1beta2", "bar"];
    versions.sort_by_cached_key(|version| std::cmp::Reverse(priority(version)));
    assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha2", "bar", "foo"]);
}

#[test]
fn the_successor_of_a_version_is_newer_served_and_not_deprecated() {
    let version = |name: &str, served: bool, deprecated: bool| json!({"name": name, "served": served, "deprecated": deprecated});
    let spec = json!({"versions": [version("v1beta1", true, true), version("v1", true, false), version("v2", true, true),
        version("v3", false, false), version("v1alpha1", true, false)]});
    assert_eq!(successor(&spec, "v1beta1"), Some("v1"));
    assert_eq!(successor(&spec, "v1"), None);
}

#[test]
fn fields_that_a_schema_lets_be_are_kept_without_what_is_in_them() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}},
        "additionalProperties": true}}});
    let version = Version::new(json!({"schema": {"openAPIV3Schema": schema}}));
    let mut object = json!({"spec": {"a": "x", "b": 1, "c": {"d": 1}, "e": [{"f": 1}, 2]}});
    assert!(!structure::fits(&object, version.schema()));
    structure::prune_by(&mut object, version.schema());
    assert_eq!(object, json!({"spec": {"a": "x", "b": 1, "c": {}, "e": [{}, 2]}}));
    assert!(structure::fits(&object, version.schema()));
}

#[test]
fn objects_are_pruned_and_defaulted() {
    let mut object = json!({"metadata": {"name": "x", "anything": 1}, "top": 1, "spec": {"size": 2, "nope": 1, "color": null,
        "labels": {"a": "b"}, "free": {"x": {"y": 1}}, "ports": [{"n": 1, "z": 2}]}});
    let mut unknown = Vec::new();
    drop(read(&mut object, &version(), &mut unknown));
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
        (
            json!({"size": 1, "when": true}),
            vec![
                "spec.when: Invalid value: \"\": spec.when in body must be of type date-time: \"\"",
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
        let got: Vec<String> =
            validate(&object, None, &version(), &[]).faults.iter().map(ToString::to_string).collect();
        assert_eq!(got, want, "{object}");
    }
    // Nor are rules asked of an object whose metadata is unsound.
    let nameless = crate::status::FieldError::required("metadata.name", "");
    let found = validate(&json!({"spec": {"size": 4, "color": "red"}}), None, &version(), &[nameless]).faults;
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [skipped]);
}

#[test]
fn an_update_is_judged_by_what_it_changes() {
    let object =
        |size: i64, q: i64| json!({"spec": {"size": size, "color": "blue", "ports": [{"n": 1, "q": q}]}});
    let faults = |new: &Value, old: &Value| -> Vec<String> {
        validate(new, Some(old), &version(), &[]).faults.iter().map(ToString::to_string).collect()
    };
    // What was wrong before may stay so.
    assert!(faults(&object(3, 9), &object(2, 9)).is_empty());
    assert_eq!(faults(&object(1, 1), &object(2, 1)), ["spec: Invalid value: \"object\": never below 2"]);
    assert_eq!(faults(&object(3, 8), &object(2, 9)).len(), 1);
}

#[test]
fn rules_that_cannot_be_read_are_told_with_their_place() {
    let place = crate::expression::declared(&schema(), "selfType", true).map(Arc::new).expect("a place");
    let rule = rules::compile(&json!({"rule": "self.nope =="}), &place);
    let Err(error) = rule.program else { panic!("it was read") };
    assert!(error.starts_with("compilation failed: ERROR: <input>:1:13: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | self.nope ==\n | ............^"), "{error}");
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
    assert_eq!(
        crate::validate::update(&new, &old, kind, "", crate::validate::Policy::default(), &mut Vec::new()),
        []
    );
    new["spec"]["versions"][0]["schema"] = json!({});
    assert_eq!(
        crate::validate::update(&new, &old, kind, "", crate::validate::Policy::default(), &mut Vec::new())
            .len(),
        1
    );
}

#[test]
fn every_version_that_was_ever_stored_is_noted() {
    let kind =
        crate::kinds::by_gvk("apiextensions.k8s.io/v1", "CustomResourceDefinition").expect("definitions");
    let mut old = definition();
    old["status"] = json!({"storedVersions": ["v1"]});
    let mut new = old.clone();
    new["spec"]["versions"][0]["storage"] = json!(true);
    new["spec"]["versions"][1]["storage"] = json!(false);
    crate::strategy::prepare_update(&mut new, &old, kind, "");
    assert_eq!(new["status"]["storedVersions"], json!(["v1", "v1beta1"]));
}

#[test]
fn rules_have_transitions_paths_reasons_and_a_budget() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a-b": {"type": "string"}, "n": {"type": "integer"}, "list": {"type": "array", "items": {"type": "integer"}}},
        "x-kubernetes-validations": [
            {"rule": "self.a__dash__b != 'bad'", "reason": "FieldValueForbidden", "fieldPath": ".a-b", "message": "bad one"},
            {"rule": "oldSelf.hasValue() || self.n == 1", "optionalOldSelf": true, "message": "starts at one"},
            {"rule": "!has(oldSelf.n) || self.n >= oldSelf.n", "message": "never falls"},
            {"rule": "!has(self.list) || self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))", "message": "sums"}]}}});
    let version = Version::new(json!({"schema": {"openAPIV3Schema": schema}}));
    let told = |new: Value, old: Option<Value>| -> Vec<String> {
        let (new, old) = (json!({"spec": new}), old.map(|old| json!({"spec": old})));
        validate(&new, old.as_ref(), &version, &[]).faults.iter().map(ToString::to_string).collect()
    };
    assert_eq!(told(json!({"a-b": "bad", "n": 1}), None), ["spec.a-b: Forbidden: bad one"]);
    assert_eq!(told(json!({"a-b": "x", "n": 2}), None), ["spec: Invalid value: \"object\": starts at one"]);
    let old = || Some(json!({"a-b": "x", "n": 5}));
    assert_eq!(told(json!({"a-b": "x", "n": 6}), old()), Vec::<String>::new());
    assert_eq!(told(json!({"a-b": "x", "n": 4}), old()), ["spec: Invalid value: \"object\": never falls"]);
    let many: Vec<i64> = (0..200).collect();
    assert_eq!(
        told(json!({"a-b": "x", "n": 1, "list": many}), None),
        [
            "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: sums"
        ]
    );
}

/// What is said of a definition with this schema.
#[test]
fn rules_find_the_old_items_of_long_lists_in_one_walk() {
    let rule = json!([{"rule": "self.v >= oldSelf.v", "message": "never falls"}]);
    let schema = json!({"type": "object", "properties": {"list": {"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "x-kubernetes-validations": rule,
            "properties": {"n": {"type": "integer"}, "v": {"type": "integer"}}}}}});
    let version = Version::new(json!({"schema": {"openAPIV3Schema": schema}}));
    let list = |v: i64| -> Vec<Value> { (0..60_000).map(|n| json!({"n": n, "v": v})).collect() };
    let (old, mut new) = (list(1), list(2));
    new.reverse();
    new[0]["v"] = json!(0);
    let faults = validate(&json!({"list": new}), Some(&json!({"list": old})), &version, &[]).faults;
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["list[0]: Invalid value: \"object\": never falls"]);
}

fn complaints(schema: &Value) -> Vec<String> {
    let kind =
        crate::kinds::by_gvk("apiextensions.k8s.io/v1", "CustomResourceDefinition").expect("definitions");
    let mut own = definition();
    own["apiVersion"] = json!("apiextensions.k8s.io/v1");
    own["kind"] = json!("CustomResourceDefinition");
    own["spec"]["conversion"] = json!({"strategy": "None"});
    own["spec"]["versions"] =
        json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
    own["status"] = json!({"storedVersions": ["v1"]});
    crate::validate::create(&own, kind, crate::validate::Policy::default())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn rules_are_checked_when_their_definition_is_made() {
    let at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    let with = |rule: Value, property: Value| {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": property},
            "x-kubernetes-validations": [rule]}}})
    };
    let text = || json!({"type": "string"});
    let ends = |rule: Value, property: Value| -> Vec<String> {
        let own = complaints(&with(rule, property));
        own.iter().map(|one| one.strip_prefix(at).unwrap_or(one).to_owned()).collect()
    };
    let shown = |rule: &str| {
        format!(
            r#"{{"Rule":"{rule}","Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}}"#
        )
    };
    let rule = |text: &str| json!({"rule": text});
    assert_eq!(ends(rule("self.x == 'a'"), text()), Vec::<String>::new());
    assert_eq!(
        ends(rule("self.y == 1"), text()),
        [format!(
            ".rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'y'\n | self.y == 1\n | ....^",
            shown("self.y == 1")
        )]
    );
    assert_eq!(
        ends(rule("self.x > 1"), text()),
        [format!(
            ".rule: Invalid value: {}: compilation failed: ERROR: <input>:1:8: found no matching overload for '_>_' applied to '(string, int)'\n | self.x > 1\n | .......^",
            shown("self.x > 1")
        )]
    );
    assert_eq!(
        ends(rule("self.x"), text()),
        [format!(".rule: Invalid value: {}: cel expression must evaluate to a bool", shown("self.x"))]
    );
    let list = || json!({"type": "array", "items": {"type": "string"}});
    let costly = ends(rule("self.x.all(a, self.x.all(b, a == b))"), list());
    assert_eq!(costly.len(), 3, "{costly:?}");
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    assert_eq!(
        costly[0],
        format!(".rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {hint}")
    );
    assert_eq!(
        costly[1],
        ".rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    );
    assert_eq!(
        costly[2],
        format!(
            "spec.validation.openAPIV3Schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {hint}"
        )
    );
    assert_eq!(
        ends(json!({"rule": "true", "fieldPath": ".nope", "reason": "Nope", "message": "a\nb"}), text()),
        [
            ".message: Invalid value: \"a\\nb\": message must not contain line breaks",
            ".reason: Unsupported value: \"Nope\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
            ".fieldPath: Invalid value: \".nope\": fieldPath must be a valid path",
        ]
    );
    assert_eq!(
        ends(json!({"rule": "true", "optionalOldSelf": true}), text()),
        [".optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"]
    );
}

#[test]
fn of_a_rule_that_cannot_be_read_nothing_more_is_looked_at() {
    let rule = json!({"rule": "oldSelf.x", "optionalOldSelf": true, "messageExpression": "1"});
    let schema = json!({"type": "object", "properties": {"l": {"type": "string", "x-kubernetes-validations": [rule]}}});
    let told = complaints(&schema);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("rule: Invalid value: "), "{told:?}");
    assert!(told[1].ends_with("true: may not be set if oldSelf is not used in rule"), "{told:?}");
}

#[test]
fn what_was_before_is_only_known_where_items_can_be_told_apart() {
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "object",
        "properties": {"n": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.n == oldSelf.n"}]}}}});
    assert_eq!(
        complaints(&schema),
        [
            "spec.validation.openAPIV3Schema.properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self.n == oldSelf.n\": oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[l]"
        ]
    );
}

/// Costs that kube-apiserver is known to count: the longest list that is accepted for a length of its items.
#[test]
fn costs_are_estimated_as_upstream() {
    let rows = [(16, 909_090), (63, 333_333), (253, 94_339), (1024, 24_154)];
    for (length, most) in rows {
        let told = |items: u64| {
            complaints(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "tags": {"type": "array", "maxItems": items, "items": {"type": "string", "maxLength": length},
                    "x-kubernetes-validations": [{"rule": "self.all(x, x.contains('gpu'))"}]}}}}}))
        };
        assert_eq!(told(most), Vec::<String>::new(), "{length}");
        assert_eq!(told(most + most / 50).len(), 1, "{length}");
    }
}

#[test]
fn lists_of_a_definition_must_tell_their_items_apart() {
    let told = |list: Value| -> Vec<String> {
        let all = complaints(&json!({"type": "object", "properties": {"l": list}}));
        let at = "spec.validation.openAPIV3Schema.properties[l].";
        all.iter().map(|one| one.strip_prefix(at).unwrap_or(one).to_owned()).collect()
    };
    let item = |more: Value| {
        let mut item = json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}});
        item.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        item
    };
    let keyed = |keys: Value, item: Value| json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": item});
    let rows = [
        (keyed(json!(["k"]), item(json!({}))), vec![]),
        (
            keyed(json!(["k"]), item(json!({"required": []}))),
            vec![
                "items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            keyed(json!(["k", "k"]), item(json!({}))),
            vec![
                "x-kubernetes-list-map-keys: Invalid value: [\"k\",\"k\"]: must not contain duplicate entries",
            ],
        ),
        (
            keyed(json!(["k"]), item(json!({"nullable": true}))),
            vec!["items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is map"],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": item(json!({}))}),
            vec![
                "items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
            ],
        ),
        (
            json!({"type": "string", "x-kubernetes-map-type": "atomic"}),
            vec!["type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified"],
        ),
    ];
    for (list, want) in rows {
        assert_eq!(told(list.clone()), want, "{list}");
    }
}
