//! Definitions of custom kinds.

use super::*;

fn definition(spec: &Value, version: &Value) -> Value {
    let mut own = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}});
    for (key, value) in version.as_object().into_iter().flatten() {
        own[key] = value.clone();
    }
    let mut object = json!({
        "metadata": {"name": "things.a.b"},
        "spec": {"group": "a.b", "scope": "Cluster", "versions": [own],
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}},
        "status": {"storedVersions": ["v1"]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

fn with_schema(schema: &Value) -> Value {
    definition(&json!({}), &json!({"schema": {"openAPIV3Schema": schema}}))
}

#[test]
fn versions_are_told_under_the_spec_where_they_are_the_same() {
    let columns = json!([{"name": "n", "type": "x", "format": "y", "jsonPath": "spec.n"}]);
    let scale = json!({"scale": {"specReplicasPath": "spec.n", "statusReplicasPath": ".spec.n", "labelSelectorPath": ".x"}});
    let rows: &[(Value, Value, &[&str])] = &[
        (
            json!({}),
            json!({"additionalPrinterColumns": columns, "subresources": scale, "deprecationWarning": "w"}),
            &[
                r#"spec.versions[0].deprecationWarning: Invalid value: "w": can only be set for deprecated versions"#,
                r#"spec.subresources.scale.specReplicasPath: Invalid value: "spec.n": must be a simple json path starting with ."#,
                r#"spec.subresources.scale.statusReplicasPath: Invalid value: ".spec.n": should be a json path under .status"#,
                r#"spec.subresources.scale.labelSelectorPath: Invalid value: ".x": should be a json path under either .spec or .status"#,
                r#"spec.additionalPrinterColumns[0].type: Invalid value: "x": must be one of boolean,date,integer,number,string"#,
                r#"spec.additionalPrinterColumns[0].format: Invalid value: "y": must be one of byte,date,date-time,double,float,int32,int64,password"#,
                r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec.n": must be a simple json path starting with ."#,
            ],
        ),
        (
            json!({"conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": {"url": "https://h/"}, "conversionReviewVersions": ["v9", "v9"]}}}),
            json!({}),
            &[
                r#"spec.conversion.conversionReviewVersions[1]: Invalid value: "v9": duplicate version"#,
                r#"spec.conversion.conversionReviewVersions: Invalid value: ["v9","v9"]: must include at least one of v1, v1beta1"#,
            ],
        ),
        (
            json!({"conversion": {"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}}),
            json!({}),
            &[
                "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
            ],
        ),
    ];
    for (spec, version, want) in rows {
        refuses("CustomResourceDefinition", definition(spec, version), want);
    }
}

#[test]
fn schemas_have_what_kubernetes_can_read() {
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "object", "id": "i"}}}),
            &[
                r#"spec.validation.openAPIV3Schema.properties[a].type: Unsupported value: "null": supported values: "array", "boolean", "integer", "number", "object", "string""#,
                "spec.validation.openAPIV3Schema.properties[a].type: Forbidden: type cannot be set to null, use nullable as an alternative",
                "spec.validation.openAPIV3Schema.properties[b].id: Forbidden: id is not supported",
            ],
        ),
        (
            json!({"type": "object", "properties": {
                "fine": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
                    "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "x"}]},
                "other": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "string"}, {"type": "integer"}]},
                "within": {"type": "object", "not": {"properties": {"metadata": {"description": "d"}}},
                    "oneOf": [{"nullable": true, "default": 1, "items": {"title": "t"}}]}}}),
            &[
                "spec.validation.openAPIV3Schema.properties[other].anyOf[0].type: Forbidden: must be empty to be structural",
                "spec.validation.openAPIV3Schema.properties[other].anyOf[1].type: Forbidden: must be empty to be structural",
                "spec.validation.openAPIV3Schema.properties[within].not.properties[metadata].description: Forbidden: must be empty to be structural",
                "spec.validation.openAPIV3Schema.properties[within].not.properties[metadata]: Forbidden: must not be specified in a nested context",
                "spec.validation.openAPIV3Schema.properties[within].oneOf[0].default: Forbidden: must be undefined to be structural",
                "spec.validation.openAPIV3Schema.properties[within].oneOf[0].items.title: Forbidden: must be empty to be structural",
                "spec.validation.openAPIV3Schema.properties[within].oneOf[0].nullable: Forbidden: must be false to be structural",
            ],
        ),
        // Structure and defaults are judged before the rest.
        (
            json!({"type": "objectx", "properties": {"a": {"type": "string", "anyOf": [{"type": "x"}]}}}),
            &[
                "spec.validation.openAPIV3Schema.properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
                r#"spec.validation.openAPIV3Schema.type: Invalid value: "objectx": must be object at the root"#,
                r#"spec.validation.openAPIV3Schema.type: Unsupported value: "objectx": supported values: "array", "boolean", "integer", "number", "object", "string""#,
                r#"spec.validation.openAPIV3Schema.properties[a].anyOf[0].type: Unsupported value: "x": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 5, "format": "date"}, "b": {"type": "x"}}}),
            &[
                r#"spec.validation.openAPIV3Schema.properties[a].default: Invalid value: "int64":  in body must be of type date: "int64""#,
                r#"spec.validation.openAPIV3Schema.properties[b].type: Unsupported value: "x": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ],
        ),
        // Structure is judged only where a schema can be read.
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "oneOf": [{"nullable": true, "id": "i"}]}}}),
            &["spec.validation.openAPIV3Schema.properties[a].oneOf[0].id: Forbidden: id is not supported"],
        ),
        (
            json!({"type": "object", "properties": {
                "kind": {"type": "string", "default": "k"},
                "metadata": {"type": "object", "properties": {"name": {
                    "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}}),
            &[
                "spec.validation.openAPIV3Schema.properties[kind].default: Forbidden: must not be set in top-level kind",
                "spec.validation.openAPIV3Schema.properties[metadata].properties[name].x-kubernetes-embedded-resource: Forbidden: must not be used inside of resource meta",
            ],
        ),
    ];
    for (schema, want) in rows {
        refuses("CustomResourceDefinition", with_schema(schema), want);
    }
    let with_status = json!({"subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object", "minProperties": 1}}});
    let want = r#"spec.validation.openAPIV3Schema: Invalid value: {"minProperties":1,"type":"object"}: only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled"#;
    refuses("CustomResourceDefinition", definition(&json!({}), &with_status), &[want]);
}

#[test]
fn stored_versions_stay_and_what_was_wrong_may() {
    let named = |name: &str| definition(&json!({}), &json!({"name": name}));
    refuses_change(
        "CustomResourceDefinition",
        named("v1"),
        named("v2"),
        &[
            r#"status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"#,
        ],
    );
    // A version that is there twice is looked for twice, and found once.
    let again = json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]);
    let faults = complaints("CustomResourceDefinition", definition(&json!({"versions": again}), &json!({})));
    let lacks = r#"status.storedVersions: Invalid value: ["v1"]: must have the storage version v1"#;
    assert!(faults.iter().any(|fault| fault == lacks), "{faults:?}");
    let kept = json!({"preserveUnknownFields": true, "conversion": {"strategy": "Webhook", "webhook": {
        "clientConfig": {"url": "https://h/"}, "conversionReviewVersions": ["v1"]}}});
    let faults = complaints("CustomResourceDefinition", definition(&kept, &json!({})));
    let must = r#"spec.conversion.strategy: Invalid value: "Webhook": must be None if spec.preserveUnknownFields is true"#;
    assert!(faults.iter().any(|fault| fault == must), "{faults:?}");
    let odd = |warning: &str| definition(&json!({}), &json!({"deprecationWarning": warning}));
    refuses_change("CustomResourceDefinition", odd("w"), odd("w"), &[]);
    let community = || definition(&json!({"group": "x.k8s.io"}), &json!({}));
    refuses_change("CustomResourceDefinition", community(), community(), &[]);
}

#[test]
fn lists_in_schemas_say_what_they_hold_and_how() {
    let list = |more: Value| {
        let mut own = json!({"type": "array"});
        own.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
        with_schema(&json!({"type": "object", "properties": {"l": own}}))
    };
    let rows: [(Value, &[&str]); 3] = [
        (json!({}), &["items: Required value: must be specified"]),
        (
            json!({"items": {"type": "string"}, "x-kubernetes-list-type": "x"}),
            &[r#"x-kubernetes-list-type: Unsupported value: "x": supported values: "atomic", "set", "map""#],
        ),
        (
            json!({"items": {"x-kubernetes-preserve-unknown-fields": true}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            &[
                r#"items.type: Invalid value: "": must be object if parent array's x-kubernetes-list-type is map"#,
            ],
        ),
    ];
    for (more, wanted) in rows {
        let place = "spec.validation.openAPIV3Schema.properties[l].";
        let wanted: Vec<String> = wanted.iter().map(|told| format!("{place}{told}")).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        refuses("CustomResourceDefinition", list(more), &wanted);
    }
}

#[test]
fn a_schema_may_let_be_what_it_does_not_name_and_no_more_than_that() {
    let map = |more: Value| json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": more});
    let of = |more: Value| with_schema(&json!({"type": "object", "properties": {"map": map(more)}}));
    refuses("CustomResourceDefinition", of(json!(true)), &[]);
    let exclusive = "spec.validation.openAPIV3Schema.properties[map].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive";
    for more in [json!(false), json!({"type": "string"})] {
        refuses("CustomResourceDefinition", of(more), &[exclusive]);
    }
}

#[test]
fn schemas_say_of_every_field_what_it_is() {
    const AT: &str = "spec.validation.openAPIV3Schema";
    let with = |name: &str, schema: Value| json!({"type": "object", "properties": {name: schema}});
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"type": "object", "additionalProperties": true}),
            &[".additionalProperties: Forbidden: must not be used at the root"],
        ),
        (
            with("e", json!({"type": "string", "x-kubernetes-embedded-resource": true})),
            &[
                ".properties[e].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
                ".properties[e].type: Invalid value: \"string\": must be object if x-kubernetes-embedded-resource is true",
            ],
        ),
        (
            with("metadata", json!({"type": "object", "properties": {"labels": {"type": "object"}}})),
            &[
                ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        ),
        (
            with(
                "metadata",
                json!({"type": "object", "properties": {"name": {"type": "string", "pattern": "a"}}}),
            ),
            &[],
        ),
        (
            with("kind", json!({"type": "integer"})),
            &[".properties[kind].type: Invalid value: \"integer\": must be string"],
        ),
        (
            with("p", json!({"type": "string", "pattern": "["})),
            &[
                ".properties[p].pattern: Invalid value: \"[\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ]: `[`",
            ],
        ),
        (
            json!({"type": "object", "oneOf": [{"properties": {"a": {"minLength": 1}}}]}),
            &[
                ".properties[a]: Required value: because it is defined in spec.validation.openAPIV3Schema.oneOf[0].properties[a]",
            ],
        ),
        // What cannot be read is not judged.
        (with("r", json!({"$ref": "x"})), &[".properties[r].$ref: Forbidden: $ref is not supported"]),
        (
            with("s", json!({"type": "object", "$schema": "x"})),
            &[": Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported"],
        ),
        (
            with(
                "i",
                json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            ),
            &[
                ".properties[i].x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
            ],
        ),
    ];
    for (schema, want) in rows {
        let want: Vec<String> = want.iter().map(|text| format!("{AT}{text}")).collect();
        let want: Vec<&str> = want.iter().map(String::as_str).collect();
        refuses("CustomResourceDefinition", with_schema(schema), &want);
    }
}

#[test]
fn what_cannot_be_read_as_a_structural_schema_is_not_held_to_be_one() {
    const BOTH: &str = "spec.validation.openAPIV3Schema.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive";
    const AT_ROOT: &str =
        "spec.validation.openAPIV3Schema.additionalProperties: Forbidden: must not be used at the root";
    let fields = json!({"a": {"type": "string"}});
    for (more, want) in [
        (json!(false), &[AT_ROOT, BOTH][..]),
        (json!({"type": "string"}), &[AT_ROOT, BOTH]),
        (json!(true), &[AT_ROOT]),
    ] {
        let schema = json!({"type": "object", "properties": fields, "additionalProperties": more});
        refuses("CustomResourceDefinition", with_schema(&schema), want);
    }
    let loose = json!({"type": "object", "properties": {"a": {"type": ""}}, "x-kubernetes-preserve-unknown-fields": false});
    let want = [
        "spec.validation.openAPIV3Schema.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
    ];
    refuses("CustomResourceDefinition", with_schema(&loose), &want);
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}}}});
    let fields = json!([{"jsonPath": ".spec.a[0]"}, {"jsonPath": ".spec.b[0]"}]);
    let version = json!({"schema": {"openAPIV3Schema": schema}, "selectableFields": fields});
    let path = |at: &str, text: &str, why: &str| {
        format!("spec.selectableFields[{at}].jsonPath: Invalid value: {text:?}: is an invalid path: {why}")
    };
    let want = [
        path("0", ".spec.a[0]", "array notation is not allowed"),
        path("1", ".spec.b[0]", "does not refer to a valid field"),
    ];
    refuses(
        "CustomResourceDefinition",
        definition(&json!({}), &version),
        &want.each_ref().map(String::as_str),
    );
}
