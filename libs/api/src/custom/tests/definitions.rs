//! How definitions are read, as kube-apiserver 1.33 and 1.36 read them.

use crate::{decode, kinds, protobuf};
use serde_json::{Value, json};

fn kind() -> &'static kinds::Kind {
    kinds::by_resource("apiextensions.k8s.io", "v1", "customresourcedefinitions").expect("a kind")
}

fn definition(property: &str) -> String {
    let schema = format!(
        r#"{{"type":"object","properties":{{"spec":{{"type":"object","properties":{{"a":{property}}}}}}}}}"#
    );
    format!(
        r#"{{"metadata":{{"name":"ts.a.io"}},"spec":{{"group":"a.io","scope":"Namespaced","names":{{"plural":"ts","kind":"TS","shortNames":[]}},
        "preserveUnknownFields":false,"versions":[{{"name":"v1","storage":true,"schema":{{"openAPIV3Schema":{schema}}}}}]}}}}"#
    )
}

#[test]
fn schemas_are_read_by_their_types() {
    let at = "Go struct field JSONSchemaProps.spec.versions.schema.openAPIV3Schema.properties.properties";
    let rows = [
        (r#"{"type":1}"#, format!("number into {at}.type of type string")),
        (r#"{"items":[1]}"#, format!("number into {at}.items of type v1.JSONSchemaProps")),
        // What is read apart is told where it stands.
        (r#"{"items":{"type":1}}"#, format!("number into {at}.items of type string")),
        (r#"{"dependencies":{"a":[1]}}"#, format!("number into {at}.dependencies of type string")),
        (r#"{"minLength":1.5}"#, format!("number 1.5 into {at}.minLength of type int64")),
        (r#"{"minLength":1.0}"#, format!("number 1.0 into {at}.minLength of type int64")),
        (r#"{"maximum":"x"}"#, format!("string into {at}.maximum of type float64")),
        (r#"{"enum":{}}"#, format!("object into {at}.enum of type []v1.JSON")),
        (
            r#"{"x-kubernetes-validations":{}}"#,
            format!("object into {at}.x-kubernetes-validations of type v1.ValidationRules"),
        ),
        (
            r#"{"x-kubernetes-validations":[1]}"#,
            format!("number into {at}.x-kubernetes-validations of type v1.ValidationRule"),
        ),
        (
            r#"{"x-kubernetes-validations":[{"reason":5}]}"#,
            format!(
                "number into {}.x-kubernetes-validations.reason of type v1.FieldValueErrorReason",
                at.replace("JSONSchemaProps", "ValidationRule")
            ),
        ),
        (r#"{"additionalProperties":1}"#, "boolean or JSON schema expected".to_owned()),
        (r#"{"additionalProperties":"true"}"#, "boolean or JSON schema expected".to_owned()),
    ];
    for (property, told) in rows {
        let why = decode::json(definition(property).as_bytes(), kind()).expect_err(property).to_string();
        let wanted =
            if told.starts_with("boolean") { told } else { format!("json: cannot unmarshal {told}") };
        let head =
            "CustomResourceDefinition in version \"v1\" cannot be handled as a CustomResourceDefinition";
        assert_eq!(why, format!("{head}: {wanted}"), "{property}");
    }
}

#[test]
fn schemas_are_written_as_go_has_them() {
    let rows = [
        (
            r#"{"default":null,"enum":[null,"x"],"nullable":true}"#,
            json!({"enum": [null, "x"], "nullable": true}),
        ),
        (
            r#"{"maximum":1.50e3,"minimum":1.0,"multipleOf":0.1}"#,
            json!({"maximum": 1500, "minimum": 1, "multipleOf": 0.1}),
        ),
        (r#"{"default":{"b":1.0,"a":[2.0]}}"#, json!({"default": {"a": [2], "b": 1}})),
        (
            r#"{"allOf":[],"anyOf":[null],"not":{},"pattern":"","nullable":false}"#,
            json!({"anyOf": [{}], "not": {}}),
        ),
        (r#"{"items":1}"#, json!({})),
        (r#"{"items":{"type":"string","bogus":1}}"#, json!({"items": {"type": "string"}})),
        (
            r#"{"additionalProperties":{"type":"string","odd":1}}"#,
            json!({"additionalProperties": {"type": "string"}}),
        ),
        (r#"{"additionalProperties":false}"#, json!({"additionalProperties": false})),
        ("null", json!({})),
    ];
    for (property, wanted) in rows {
        let read = decode::json(definition(property).as_bytes(), kind()).expect(property);
        let spec = &read.object["spec"];
        let schema = &spec["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["properties"]["spec"]["properties"]["a"], wanted, "{property}");
        // What Go reads apart does not tell of fields that it does not know.
        assert_eq!(read.findings, [""; 0], "{property}");
        assert_eq!(spec.get("preserveUnknownFields"), None);
        assert_eq!(
            (&spec["versions"][0]["served"], &spec["names"]),
            (&json!(false), &json!({"plural": "ts", "kind": "TS"}))
        );
        let bytes = protobuf::encode(&read.object).expect("has a protobuf form");
        assert_eq!(protobuf::decode(&bytes).expect("reads"), with_type(&read.object), "{property}");
    }
    let read = decode::json(definition(r#"{"typo":1}"#).as_bytes(), kind()).expect("readable");
    let place = "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.a.typo";
    assert_eq!(read.findings, [format!("unknown field {place:?}")]);
}

fn with_type(object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!("apiextensions.k8s.io/v1");
    object["kind"] = json!("CustomResourceDefinition");
    object
}
