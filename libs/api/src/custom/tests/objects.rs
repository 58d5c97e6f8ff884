//! What kube-apiserver 1.33 and 1.36 were seen to say of custom objects.

use super::super::{Version, default, read, validate, validate_default};
use crate::status::FieldError;
use serde_json::{Value, json};

fn version(properties: &Value) -> Version {
    let scale =
        json!({"specReplicasPath": ".n", "statusReplicasPath": ".status.n", "labelSelectorPath": ".sel"});
    Version::new(json!({"subresources": {"scale": scale},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}))
}

fn told(property: &Value, value: &Value) -> Vec<String> {
    let version = version(&json!({"v": property}));
    validate(&json!({"v": value}), None, &version, &[]).faults.iter().map(ToString::to_string).collect()
}

#[test]
fn values_are_judged_by_every_keyword() {
    let lone = json!({"type": "object", "properties": {"a": {}, "b": {}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    let rows: [(Value, Value, &[&str]); 7] = [
        // Of a text's faults only the first is told.
        (
            json!({"type": "string", "minLength": 2, "pattern": "^[a-z]+$"}),
            json!("A"),
            &[r#"v: Invalid value: "A": v in body should be at least 2 chars long"#],
        ),
        // A value of another type is still looked for among those that are allowed.
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!(1),
            &[
                r#"v: Invalid value: "integer": v in body must be of type string: "integer""#,
                r#"v: Unsupported value: 1: supported values: "a", "b""#,
            ],
        ),
        (
            json!({"type": "number", "maximum": 9.5, "exclusiveMaximum": true}),
            json!(10),
            &["v: Invalid value: 10: v in body should be less than 9"],
        ),
        (
            json!({"type": "integer", "multipleOf": 2}),
            json!(1e20),
            &[
                r#"v: Invalid value: "number": v in body must be of type integer: "number""#,
                "v: Invalid value: 1e+20: v in body should be a multiple of 2",
            ],
        ),
        (
            json!({"type": "array", "minItems": 1, "items": {}}),
            json!([]),
            &["v: Invalid value: 0: v in body should have at least 1 items"],
        ),
        (
            json!({"type": "object", "minProperties": 1}),
            json!({}),
            &["v: Invalid value: 0: v in body should have at least 1 properties"],
        ),
        (
            lone,
            json!({"a": "x", "b": "y"}),
            &[
                r#"<nil>: Invalid value: "": "v" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
    ];
    for (property, value, wanted) in rows {
        assert_eq!(told(&property, &value), wanted, "{property} {value}");
    }
}

#[test]
fn values_are_judged_by_what_their_schema_is_made_of() {
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object"}});
    let rows: [(Value, Value, &[&str]); 6] = [
        (
            json!({"type": "string", "allOf": [{"minLength": 2}, {"pattern": "^x"}]}),
            json!("y"),
            &[
                r#"v: Invalid value: "y": v in body should be at least 2 chars long"#,
                r#"v: Invalid value: "y": v in body should match '^x'"#,
                r#"<nil>: Invalid value: "": "v" must validate all the schemas (allOf). None validated"#,
            ],
        ),
        (
            json!({"type": "string", "not": {"enum": ["bad"]}}),
            json!("bad"),
            &[r#"<nil>: Invalid value: "": "v" must not validate the schema (not)"#],
        ),
        (
            map,
            json!(["x"]),
            &[
                r#"v[0]: Invalid value: "string": v[0] in body must be of type object: "string""#,
                r#"v[0]: Invalid value: "x": must be an object for an array of list-type map"#,
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            json!({}),
            &["v.apiVersion: Required value: must not be empty", "v.kind: Required value: must not be empty"],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            json!({"apiVersion": "v1/x/y", "kind": ""}),
            &[
                r#"v.apiVersion: Invalid value: "v1/x/y": unexpected GroupVersion string: v1/x/y"#,
                r#"v.kind: Invalid value: "": must not be empty"#,
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "a/b", "generateName": "%", "namespace": "N"}}),
            &[
                r#"v.metadata.generateName: Invalid value: "%": may not contain '%'"#,
                r#"v.metadata.name: Invalid value: "a/b": may not contain '/'"#,
                r#"v.metadata.namespace: Invalid value: "N": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#,
            ],
        ),
    ];
    for (property, value, wanted) in rows {
        assert_eq!(told(&property, &value), wanted, "{property} {value}");
    }
}

#[test]
fn formats_take_what_go_openapi_takes() {
    let rows: [(&str, &[&str], &[&str]); 17] = [
        ("duration", &["1h30m", "1d", "2 days", "P1D"], &["x", "5"]),
        ("byte", &["YWJj"], &["", "YWJ", "!!"]),
        ("ipv4", &["1.2.3.4", "01.2.3.4"], &["1.2.3", "::1", "1.2.3.256"]),
        ("mac", &["00:00:5e:00:53:01", "00-00-5e-00-53-01", "0000.5e00.5301"], &["x", "00:00"]),
        ("uri", &["http://a", "/x"], &["a", ":", "", "a b"]),
        ("hostname", &["a.bc", "a"], &["a.b", "-a", "a_b", "a..b", ""]),
        ("uuid", &["123e4567-e89b-12d3-a456-426614174000", "123E4567e89b12d3a456426614174000"], &["x"]),
        ("uuid3", &["123e4567-e89b-32d3-a456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]),
        ("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-42d3-1456-426614174000"]),
        ("hexcolor", &["#fff", "FFFFFF"], &["x"]),
        ("rgbcolor", &["rgb(1,2,3)"], &["rgb(1,2)", "rgb(1,2,300)"]),
        ("isbn", &["0-306-40615-2", "978-3-16-148410-0"], &["x"]),
        ("isbn10", &["0306406152"], &["0306406153", "x"]),
        ("creditcard", &["4111111111111111"], &["4111111111111112", "x"]),
        ("ssn", &["111-22-3333"], &["111223333", "x"]),
        ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["x"]),
        ("nobody-knows", &["x"], &[]),
    ];
    for (format, good, bad) in rows {
        let property = json!({"type": "string", "format": format});
        for text in good {
            assert_eq!(told(&property, &json!(text)), [""; 0], "{format}");
        }
        for text in bad {
            let shown = json!(text);
            let wanted = format!("v: Invalid value: {shown}: v in body must be of type {format}: {shown}");
            assert_eq!(told(&property, &shown), [wanted], "{format}");
        }
    }
}

#[test]
fn what_the_scale_shows_must_be_a_number_and_a_text() {
    let any = json!({"x-kubernetes-preserve-unknown-fields": true});
    let version = version(&json!({"n": any, "status": any, "sel": any}));
    let rows = [
        (json!({"n": -1}), ".n: Invalid value: -1: should be a non-negative integer"),
        (
            json!({"n": 1.5}),
            ".n: Invalid value: 0: .n accessor error: 1.5 is of the type float64, expected int64",
        ),
        (
            json!({"status": "x"}),
            ".status.n: Invalid value: 0: .status.n accessor error: x is of the type string, expected map[string]interface{}",
        ),
        (
            json!({"n": 3_000_000_000_i64}),
            ".n: Invalid value: 3000000000: should be less than or equal to 2147483647",
        ),
        (
            json!({"sel": 5}),
            r#".sel: Invalid value: "": .sel accessor error: 5 is of the type int64, expected string"#,
        ),
    ];
    for (object, wanted) in rows {
        let told: Vec<String> =
            validate(&object, None, &version, &[]).faults.iter().map(ToString::to_string).collect();
        assert_eq!(told, [wanted], "{object}");
    }
    assert_eq!(validate(&json!({"n": 1, "status": {}}), None, &version, &[]).faults, []);
}

#[test]
fn defaults_must_fit_their_schema() {
    let text = |more: Value| {
        let mut schema = json!({"type": "string"});
        schema.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
        schema
    };
    let object = json!({"type": "object", "required": ["c"], "properties": {"b": {"type": "string", "minLength": 2}, "c": {}}});
    let rows: [(Value, Value, &[&str]); 8] = [
        (
            object,
            json!({"b": "x", "zz": 1}),
            &[
                r#"<nil>: Invalid value: {"b":"x","zz":1}: must not have unknown fields"#,
                "c: Required value",
                r#"b: Invalid value: "x": b in body should be at least 2 chars long"#,
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", 1]),
            &[r#"[1]: Invalid value: "integer": [1] in body must be of type string: "integer""#],
        ),
        (text(json!({"maxLength": -1})), json!("a"), &["<nil>: Too long: value is too long"]),
        (
            text(json!({"pattern": "^a"})),
            json!("b"),
            &[r#"<nil>: Invalid value: "b":  in body should match '^a'"#],
        ),
        (
            text(json!({})),
            json!({"q": 1}),
            &[
                r#"<nil>: Invalid value: {"q":1}: must not have unknown fields"#,
                r#"<nil>: Invalid value: "object":  in body must be of type string: "object""#,
            ],
        ),
        (
            json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self<3"}]}),
            json!(5),
            &[r#"<nil>: Invalid value: "integer": failed rule: self<3"#],
        ),
        (json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), json!({"q": 1}), &[]),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"kind": "K"}),
            &["apiVersion: Required value: must not be empty"],
        ),
    ];
    for (schema, value, wanted) in rows {
        let told: Vec<String> =
            validate_default(&value, &schema, false).iter().map(ToString::to_string).collect();
        assert_eq!(told, wanted, "{schema} {value}");
    }
}

#[test]
fn objects_within_objects_are_read_as_objects() {
    let embeds = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}});
    let version = version(&json!({"v": embeds}));
    let rows = [
        (json!({"apiVersion": 1}), "v.apiVersion: Invalid value: 1: must be a string"),
        (
            json!({"metadata": 5}),
            "v.metadata: Invalid value: 5: json: cannot unmarshal number into Go value of type v1.ObjectMeta",
        ),
        (
            json!({"metadata": {"name": 5}}),
            r#"v.metadata: Invalid value: {"name":5}: json: cannot unmarshal number into Go struct field ObjectMeta.name of type string"#,
        ),
    ];
    for (value, wanted) in rows {
        let read = read(&mut json!({"v": value}), &version, &mut Vec::new());
        assert_eq!(read, Err(wanted.to_owned()));
    }
    let mut object = json!({"v": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "zz": 1}, "spec": {"t": 2}}});
    let mut unknown = Vec::new();
    drop(read(&mut object, &version, &mut unknown));
    assert_eq!(unknown, [r#"unknown field "v.spec.t""#, r#"unknown field "v.metadata.zz""#]);
    assert_eq!(
        object["v"],
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}})
    );
}

#[test]
fn nulls_that_are_not_allowed_are_nothing() {
    let map = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let version = version(&json!({"m": map, "any": {"x-kubernetes-preserve-unknown-fields": true}}));
    let mut object = json!({"m": {"a": null, "b": "c"}, "any": null});
    default(&mut object, &version);
    assert_eq!(object, json!({"m": {"b": "c"}}));
}

#[test]
fn a_long_path_is_not_copied_for_each_of_its_parts() {
    let map =
        |item: Value| json!({"type": "object", "additionalProperties": {"type": "array", "items": item}});
    let key = "x".repeat(256 << 10);
    let many = |item: Value| json!({key.clone(): vec![item; 50_000]});
    assert_eq!(told(&map(json!({"type": "integer"})), &many(json!(1))), Vec::<String>::new());
    let parts = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    assert_eq!(told(&map(parts), &many(json!({}))), Vec::<String>::new());
    let ruled = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]});
    assert_eq!(told(&map(ruled.clone()), &many(json!(1))), Vec::<String>::new());
    assert_eq!(told(&map(ruled), &many(json!(0))).len(), 100);
    let whole = json!({"type": "object", "x-kubernetes-embedded-resource": true});
    let odd = json!({"apiVersion": "v1", "kind": "?", "metadata": {"name": "a/b"}});
    assert_eq!(told(&map(whole.clone()), &many(odd.clone())).len(), 100);
    let mut unknown = Vec::new();
    let read = read(&mut json!({"v": many(odd)}), &version(&json!({"v": map(whole)})), &mut unknown);
    assert_eq!((read, unknown), (Ok(()), Vec::new()));
}

/// What updates leave as it was is told where it would be refused, and only as far as schemas know it.
#[test]
fn what_stays_as_it_was_is_warned_of() {
    let fine = |what: &str| json!([{"rule": "self != 'bad'", "message": what}]);
    let word = |what: &str| json!({"type": "string", "x-kubernetes-validations": fine(what)});
    let schema = json!({"type": "object", "properties": {
        "word": word("word"),
        "plain": {"type": "array", "items": word("plain item")},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "properties": {"k": {"type": "string"}, "v": word("keyed item")}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-validations": [{"rule": "false", "message": "open"}]},
        "moves": {"type": "string", "x-kubernetes-validations": [{"rule": "self != oldSelf", "message": "moves"}]}}});
    let version = Version::new(json!({"schema": {"openAPIV3Schema": schema}}));
    let (bad, other) = (json!({"k": "a", "v": "bad"}), json!({"k": "b", "v": "x"}));
    let rows = [
        (json!({"word": "bad"}), json!({"word": "bad", "plain": []}), "", "word"),
        (json!({"word": "bad"}), json!({"word": "x"}), "word", ""),
        (json!({"plain": ["bad"]}), json!({"plain": ["bad"]}), "", "plain item"),
        // One item of such a list has no old one.
        (json!({"plain": ["bad", "y"]}), json!({"plain": ["bad"]}), "plain item", ""),
        (json!({"keyed": [other, bad]}), json!({"keyed": [bad]}), "", "keyed item"),
        (json!({"keyed": [other, bad]}), json!({"keyed": [bad, other]}), "", "keyed item"),
        (json!({"open": {}}), json!({"open": {}}), "", "open"),
        // Nobody knows how what the schema does not know corresponds.
        (json!({"open": {"x": 1}}), json!({"open": {"x": 1}}), "open", ""),
        (json!({"moves": "a"}), json!({"moves": "a"}), "moves", ""),
    ];
    for (new, old, refused, warned) in rows {
        let told = validate(&new, Some(&old), &version, &[]);
        let words =
            |faults: &[FieldError]| faults.iter().map(|fault| fault.detail.clone()).collect::<Vec<_>>();
        let wanted = |word: &str| if word.is_empty() { Vec::new() } else { vec![word.to_owned()] };
        let found = (words(&told.faults), words(&told.tolerated));
        assert_eq!(found, (wanted(refused), wanted(warned)), "{old} to {new}");
    }
}
