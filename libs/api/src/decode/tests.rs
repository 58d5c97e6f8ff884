//! Bodies read and refused.

use super::*;
use serde_json::json;

fn pod() -> &'static Kind {
    kinds::by_resource("", "v1", "pods").expect("pods")
}

#[test]
fn objects_become_canonical_with_findings() {
    let body = br#"{"metadata":{"name":"p","name":"q","labels":{}},"spec":{"containers":[{"name":"c","imagee":"x","resources":{"limits":{"cpu":1}}}],"nope":true,"hostNetwork":false,"terminationGracePeriodSeconds":0}}"#;
    let decoded = json(body, pod()).expect("pod");
    assert_eq!(
        decoded.findings,
        [
            r#"duplicate field "metadata.name""#,
            r#"unknown field "spec.containers[0].imagee""#,
            r#"unknown field "spec.nope""#
        ]
    );
    // As they stand there, and nothing of what is in unknown fields or beside them.
    let body = br#"{"spec":{"nope":{"a":1,"a":2},"nope":1,"nodeName":"x","nodeName":"y","containers":[{"no":1,"image":"a","image":"b"}]}}"#;
    assert_eq!(
        json(body, pod()).expect("pod").findings,
        [
            r#"unknown field "spec.nope""#,
            r#"duplicate field "spec.nodeName""#,
            r#"unknown field "spec.containers[0].no""#,
            r#"duplicate field "spec.containers[0].image""#,
        ]
    );
    assert_eq!(
        decoded.object,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}], "terminationGracePeriodSeconds": 0}, "status": {}})
    );
    assert_eq!(canonical(decoded.object.clone(), pod()).expect("again").object, decoded.object);
    let sets = kinds::by_resource("apps", "v1", "statefulsets").expect("statefulsets");
    let body =
        br#"{"spec":{"volumeClaimTemplates":[{"kind":"PersistentVolumeClaim","apiVersion":"v1","nope":1}]}}"#;
    let decoded = json(body, sets).expect("a set");
    assert_eq!(decoded.findings, [r#"unknown field "spec.volumeClaimTemplates[0].nope""#]);
    let claim = &decoded.object["spec"]["volumeClaimTemplates"][0];
    assert_eq!((&claim["kind"], &claim["apiVersion"]), (&json!("PersistentVolumeClaim"), &json!("v1")));
}

#[test]
fn what_a_patch_makes_of_an_object_may_be_none() {
    let number = "json: cannot unmarshal number into Go value of type v1.Pod";
    assert_eq!(canonical(json!(5), pod()), Err(number.to_owned()));
    assert!(canonical(json!([{}]), pod()).is_err());
    assert_eq!(canonical(Value::Null, pod()), canonical(json!({}), pod()));
    let custom = Kind { custom: Some(Default::default()), ..pod().clone() };
    assert!(canonical(json!("x"), &custom).is_err());
    assert_eq!(canonical(Value::Null, &custom).expect("an object").object, json!({}));
}

#[test]
fn versions_that_are_not_served_any_more_are_known() {
    let deployments = kinds::by_resource("apps", "v1", "deployments").expect("deployments");
    for (version, want) in [
        (
            "extensions/v1beta1",
            "the API version in the data (extensions/v1beta1) does not match the expected API version (apps/v1)",
        ),
        (
            "apps/v1beta9",
            r#"Deployment in version "v1beta9" cannot be handled as a Deployment: no kind "Deployment" is registered for version "apps/v1beta9" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
    ] {
        let body = json!({"apiVersion": version, "kind": "Deployment"}).to_string();
        let fault = super::json(body.as_bytes(), deployments).expect_err(version);
        assert_eq!(fault, DecodeError::BadRequest(want.to_owned()));
    }
}

#[test]
fn refusals_are_told_in_kubernetes_words() {
    let maps = kinds::by_resource("", "v1", "configmaps").expect("configmaps");
    let rows = [
        (
            &b"{"[..],
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({)",
        ),
        (
            b"",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            br#"{"kind":"Secret","apiVersion":"v1"}"#,
            r#"Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion"#,
        ),
        (
            br#"{"kind":"ConfigMap","apiVersion":"v2"}"#,
            r#"ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            br#"{"kind":"ConfigMap","apiVersion":"a/b/c"}"#,
            r#"the object provided is unrecognized (must be of type ConfigMap): unexpected GroupVersion string: a/b/c ({"kind":"ConfigMap","apiVersio ...)"#,
        ),
        (
            br#"{"kind":true}"#,
            r#"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal bool into Go struct field .kind of type string ({"kind":true})"#,
        ),
        (
            br#"{"apiVersion":"a/"}"#,
            r#"ConfigMap in version "" cannot be handled as a ConfigMap: Object 'apiVersion' is missing in '{"apiVersion":"a/"}'"#,
        ),
        (
            br#"{"binaryData":{"a":"cGxhaW4=x"}}"#,
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: illegal base64 data at input byte 8"#,
        ),
        (
            br#"{"data":{"a":1}}"#,
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#,
        ),
        (
            br#"{"data":[]}"#,
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string"#,
        ),
    ];
    for (body, want) in rows {
        let DecodeError::BadRequest(got) = json(body, maps).expect_err(want);
        assert_eq!(got, want);
    }
    let DecodeError::BadRequest(got) = json(br#"{"spec":{"containers":{}}}"#, pod()).expect_err("type");
    assert!(got.ends_with("json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"), "{got}");
}

#[test]
fn a_wrong_type_is_told_at_the_struct_that_embeds_the_field_and_with_the_name_of_a_list_of_resources() {
    let of = |group, version, plural| kinds::by_resource(group, version, plural).expect("a kind");
    for (kind, body, wanted) in [
        (
            pod(),
            r#"{"spec":{"containers":[{"envFrom":[{"secretRef":{"name":5}}]}]}}"#,
            "number into Go struct field SecretEnvSource.spec.containers.envFrom.secretRef.name of type string",
        ),
        (
            of("", "v1", "persistentvolumes"),
            r#"{"spec":{"hostPath":[1]}}"#,
            "array into Go struct field PersistentVolumeSpec.spec.hostPath of type v1.HostPathVolumeSource",
        ),
        (
            of("", "v1", "persistentvolumes"),
            r#"{"spec":{"capacity":[1]}}"#,
            "array into Go struct field PersistentVolumeSpec.spec.capacity of type v1.ResourceList",
        ),
        (
            of("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings"),
            r#"{"spec":{"matchResources":{"resourceRules":[{"apiGroups":[5]}]}}}"#,
            "number into Go struct field NamedRuleWithOperations.spec.matchResources.resourceRules.apiGroups of type string",
        ),
        // What Go reads apart is told where it stands, no deeper.
        (
            of("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
            r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"properties":{"a":{"items":{"properties":{"b":{"type":[]}}}}}}}}]}}"#,
            "array into Go struct field JSONSchemaProps.spec.versions.schema.openAPIV3Schema.properties.items of type string",
        ),
        (
            of("certificates.k8s.io", "v1", "certificatesigningrequests"),
            r#"{"spec":{"extra":{"a":["b",{}]}}}"#,
            "object into Go struct field CertificateSigningRequestSpec.spec.extra of type string",
        ),
        (
            of("certificates.k8s.io", "v1", "certificatesigningrequests"),
            r#"{"spec":{"extra":5}}"#,
            "number into Go struct field CertificateSigningRequestSpec.spec.extra of type map[string]v1.ExtraValue",
        ),
    ] {
        let DecodeError::BadRequest(got) = json(body.as_bytes(), kind).expect_err(wanted);
        assert!(got.ends_with(wanted), "{got}");
    }
}

#[test]
fn bytes_are_told_in_one_line() {
    let secrets = kinds::by_resource("", "v1", "secrets").expect("secrets");
    let secret = json(br#"{"data":{"a":"YQ==\n"}}"#, secrets).expect("a secret").object;
    assert_eq!(secret["data"]["a"], "YQ==");
}

#[test]
fn lists_without_items_count_as_none_once_they_are_stored() {
    let roles = kinds::by_resource("rbac.authorization.k8s.io", "v1", "roles").expect("roles");
    let mut role = json(br#"{"rules":[]}"#, roles).expect("a role").object;
    assert_eq!(role.get("rules"), Some(&json!([])), "its writer owns what it writes");
    settle(&mut role, roles);
    assert_eq!(role.get("rules"), Some(&Value::Null));
    let definitions = kinds::by_resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let definitions = definitions.expect("definitions");
    let mut definition = json(br#"{"spec":{"versions":[]}}"#, definitions).expect("one").object;
    settle(&mut definition, definitions);
    assert_eq!(definition["spec"]["versions"], json!([]), "it is stored as JSON");
    let maps = kinds::by_resource("", "v1", "configmaps").expect("configmaps");
    let map = json(br#"{"binaryData":{"a":null}}"#, maps).expect("a map").object;
    assert_eq!(map["binaryData"]["a"], json!(""), "bytes are none or some");
}

#[test]
fn floating_point_numbers_come_back_as_they_were_written() {
    let custom = kinds::by_resource("apps", "v1", "controllerrevisions").expect("revisions");
    let mut bits = 1_u64;
    for _ in 0..5_000 {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = f64::from_bits(bits);
        if !number.is_finite() || number.fract() == 0.0 {
            continue;
        }
        let body = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": {"x": number}});
        let decoded = json(body.to_string().as_bytes(), custom).expect("decodes");
        assert_eq!(decoded.object["data"]["x"].as_f64().map(f64::to_bits), Some(bits), "{number:e}");
    }
}

#[test]
fn numbers_of_custom_objects_are_as_go_keeps_them() {
    let rows = [
        ("5.0", "5"),
        ("1e3", "1000"),
        ("1.5", "1.5"),
        ("1e15", "1000000000000000"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854776000"),
        ("12345678901234567890", "12345678901234567000"),
        ("1e300", "1e300"),
    ];
    for (written, kept) in rows {
        let mut value: Value = serde_json::from_str(written).expect(written);
        for _ in 0..2 {
            unstructured::as_go_writes(&mut value);
            assert_eq!(value.to_string().replace('+', ""), kept, "{written}");
            // What the store gives back is no other.
            value = serde_json::from_str(&value.to_string()).expect(written);
        }
    }
}

#[test]
fn what_is_nothing_to_go_is_there_where_it_stands_for_itself() {
    let revisions = kinds::by_resource("apps", "v1", "controllerrevisions").expect("revisions");
    for data in [json!({}), json!([]), json!("")] {
        let body = json!({"data": data, "revision": 1});
        assert_eq!(json(body.to_string().as_bytes(), revisions).expect("decodes").object["data"], data);
    }
    let requests = kinds::by_resource("certificates.k8s.io", "v1", "certificatesigningrequests");
    let extra = json(br#"{"spec":{"extra":{"a":[null,"b"]}}}"#, requests.expect("requests"));
    assert_eq!(extra.expect("decodes").object["spec"]["extra"]["a"], json!(["", "b"]));
}
