//! Ownership of fields, checked against recorded conversations with Kubernetes.

#![expect(clippy::needless_pass_by_value, reason = "json!(…) arguments read best by value")]

use super::{ApplyError, Writer, apply, keep_times, update};
use crate::kinds::Kind;
use crate::shape::tests::kind;
use serde_json::{Value, json};

pub(super) const fn writer<'a>(manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer { manager, subresource: "", now }
}

pub(super) fn config_map() -> Kind {
    kind("v1", "ConfigMap", "io.k8s.api.core.v1.ConfigMap")
}

fn deployment() -> Kind {
    kind("apps/v1", "Deployment", "io.k8s.api.apps.v1.Deployment")
}

pub(super) fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

/// Owners as `(manager, fields)`.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .map(|entry| (entry["manager"].as_str().unwrap().to_owned(), entry["fieldsV1"].clone()))
        .collect()
}

fn owned(rows: &[(&str, Value)]) -> Vec<(String, Value)> {
    rows.iter().map(|(manager, fields)| ((*manager).to_owned(), fields.clone())).collect()
}

fn config_apply(live: Option<&Value>, data: Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    apply(live, &map(data), &config_map(), &writer(manager, "t"), force)
}

#[test]
fn creates_own_every_field_set() {
    let mut object = map(json!({"a": "1"}));
    object["metadata"]["labels"] = json!({"n": "0"});
    update(&mut object, None, &config_map(), &writer("unknown", "t"));
    let fields = json!({"f:data": {".": {}, "f:a": {}}, "f:metadata": {"f:labels": {".": {}, "f:n": {}}}});
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{"manager": "unknown", "operation": "Update", "apiVersion": "v1", "time": "t", "fieldsType": "FieldsV1", "fieldsV1": fields}])
    );
}

#[test]
fn structs_that_go_always_writes_have_no_dot() {
    let mut object = json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}, "spec": {"securityContext": {}, "containers": [
            {"name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}},
        "status": {"replicas": 1}});
    update(&mut object, None, &deployment(), &writer("m", "t"));
    assert_eq!(
        owners(&object)[0].1,
        json!({"f:spec": {"f:replicas": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:securityContext": {}, "f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:resources": {}, "f:ports": {".": {},
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}})
    );
}

#[test]
fn updates_move_ownership() {
    let mut old = map(json!({"a": "1", "b": "2"}));
    update(&mut old, None, &config_map(), &writer("one", "1"));
    let mut new = old.clone();
    new["data"]["b"] = "3".into();
    update(&mut new, Some(&old), &config_map(), &writer("two", "2"));
    let want = [("one", json!({"f:data": {".": {}, "f:a": {}}})), ("two", json!({"f:data": {"f:b": {}}}))];
    assert_eq!(owners(&new), owned(&want));
    let mut same = new.clone();
    update(&mut same, Some(&new), &config_map(), &writer("three", "3"));
    assert_eq!(same, new);
    let mut gone = same.clone();
    gone.as_object_mut().unwrap().remove("data");
    update(&mut gone, Some(&same), &config_map(), &writer("two", "4"));
    assert!(gone["metadata"].get("managedFields").is_none());
    for nothing in [json!([{}]), json!([])] {
        let mut reset = new.clone();
        reset["metadata"]["managedFields"] = nothing.clone();
        update(&mut reset, Some(&new), &config_map(), &writer("two", "4"));
        assert!(reset["metadata"].get("managedFields").is_none());
        let mut fresh = map(json!({"a": "1"}));
        fresh["metadata"]["managedFields"] = nothing;
        update(&mut fresh, None, &config_map(), &writer("two", "4"));
        assert_eq!(owners(&fresh), owned(&[("two", json!({"f:data": {".": {}, "f:a": {}}}))]));
    }
    let mut odd = new.clone();
    odd["metadata"]["managedFields"][0]["fieldsType"] = "Other".into();
    update(&mut odd, Some(&new), &config_map(), &writer("two", "4"));
    assert_eq!(owners(&odd), owners(&new));
}

#[test]
fn many_updaters_are_folded() {
    let mut object = map(json!({}));
    for number in 10..30 {
        let old = object.clone();
        object["data"][format!("k{number}")] = "v".into();
        let before = (number > 10).then_some(&old);
        update(&mut object, before, &config_map(), &writer(&format!("m{number}"), &number.to_string()));
    }
    let managers: Vec<String> = owners(&object).into_iter().map(|(manager, _)| manager).collect();
    assert_eq!((managers.len(), managers[0].as_str()), (10, "ancient-changes"));
}

#[test]
fn who_applies_what_is_there_already_owns_it_without_a_time() {
    let at = |live: Option<&Value>, data: Value, manager: &str, now: &str| {
        apply(live, &map(data), &config_map(), &writer(manager, now), false).unwrap()
    };
    let times = |object: &Value| -> Vec<(String, Value)> {
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let told = entries
            .iter()
            .map(|entry| (entry["manager"].as_str().unwrap().to_owned(), entry["time"].clone()));
        told.collect()
    };
    let one = at(None, json!({"a": "1", "b": "1"}), "one", "1");
    let two = at(Some(&one), json!({"a": "1"}), "two", "2");
    assert_eq!(times(&two), [("two".to_owned(), Value::Null), ("one".to_owned(), json!("1"))]);
    let more = at(Some(&two), json!({"a": "1", "b": "1"}), "two", "3");
    assert_eq!(times(&more), [("two".to_owned(), Value::Null), ("one".to_owned(), json!("1"))]);
    let changed = at(Some(&more), json!({"a": "1", "b": "1", "c": "1"}), "two", "4");
    assert_eq!(times(&changed), [("one".to_owned(), json!("1")), ("two".to_owned(), json!("4"))]);
}

#[test]
fn applies_share_conflict_and_remove() {
    let one = config_apply(None, json!({"a": "1"}), "one", false).unwrap();
    assert_eq!(owners(&one), owned(&[("one", json!({"f:data": {"f:a": {}}}))]));
    let both = config_apply(Some(&one), json!({"b": "2"}), "two", false).unwrap();
    assert_eq!(both["data"], json!({"a": "1", "b": "2"}));
    let Err(ApplyError::Conflict(status)) = config_apply(Some(&both), json!({"a": "9"}), "two", false) else {
        panic!("no conflict")
    };
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let forced = config_apply(Some(&both), json!({"a": "9"}), "two", true).unwrap();
    assert_eq!(
        (&forced["data"], owners(&forced)),
        (&json!({"a": "9"}), owned(&[("two", json!({"f:data": {"f:a": {}}}))]))
    );
    let again = config_apply(Some(&forced), json!({"c": "3"}), "one", false).unwrap();
    let empty = config_apply(Some(&again), json!({}), "two", false).unwrap();
    assert_eq!(empty["data"], json!({"c": "3"}));
    assert_eq!(
        owners(&empty),
        owned(&[("one", json!({"f:data": {"f:c": {}}})), ("two", json!({"f:data": {}}))])
    );
}

#[test]
fn what_nobody_owned_is_owned_by_whoever_was_before_the_first_apply() {
    let live = map(json!({"a": "1", "b": "1"}));
    let Err(ApplyError::Conflict(status)) = config_apply(Some(&live), json!({"a": "2"}), "one", false) else {
        panic!("no conflict")
    };
    let told = r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a"#;
    assert_eq!(status.message, told);
    let same = config_apply(Some(&live), json!({"a": "1"}), "one", false).unwrap();
    let before = json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}});
    assert_eq!(
        owners(&same),
        owned(&[("one", json!({"f:data": {"f:a": {}}})), ("before-first-apply", before)])
    );
}

#[test]
fn the_name_stays_when_the_last_label_goes() {
    let with = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    let apply = |live: Option<&Value>, metadata: Value| {
        apply(live, &with(metadata), &config_map(), &writer("m", "t"), false).expect("applies")
    };
    let mut live = apply(None, json!({"name": "c", "namespace": "n", "labels": {"a": "b"}}));
    live["metadata"]["uid"] = json!("u");
    let bare = apply(Some(&live), json!({"name": "c", "namespace": "n"}));
    assert_eq!(bare["metadata"], json!({"name": "c", "namespace": "n", "uid": "u"}));
}

#[test]
fn lists_merge_by_key() {
    let config = |containers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"template": {"spec": {"containers": containers}}}})
    };
    let applied = |live: Option<&Value>, containers: Value, manager| {
        apply(live, &config(containers), &deployment(), &writer(manager, "t"), false).unwrap()
    };
    let names = |object: &Value| -> Vec<String> {
        let containers =
            object["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
        containers.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let one = applied(None, json!([{"name": "a", "image": "a:1", "ports": [{"containerPort": 80}]}]), "one");
    let fields = &owners(&one)[0].1["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"];
    assert_eq!(
        *fields,
        json!({".": {}, "f:image": {}, "f:name": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}})
    );
    let two = applied(Some(&one), json!([{"name": "side", "image": "s:1"}]), "two");
    assert_eq!(names(&two), ["a", "side"]);
    let newer = applied(Some(&two), json!([{"name": "a", "image": "a:2"}]), "one");
    assert_eq!(names(&newer), ["a", "side"]);
    assert_eq!(newer["spec"]["template"]["spec"]["containers"][0], json!({"name": "a", "image": "a:2"}));
    let less = applied(Some(&newer), json!([]), "two");
    assert_eq!((names(&less), owners(&less).len()), (vec!["a".to_owned()], 1));
}

#[test]
fn items_of_one_key_are_owned_as_one() {
    let with = |env: &[&str]| {
        let mut container = json!({"name": "a"});
        if !env.is_empty() {
            let env = env.iter().map(|value| json!({"name": "X", "value": value}));
            container["env"] = env.collect();
        }
        json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [container]}}}})
    };
    // What each update owns after it, below `env`.
    let (key, leaf) = ("k:{\"name\":\"X\"}", json!({".": {}, "f:name": {}, "f:value": {}}));
    let none = Value::Null;
    for (case, old, new, first, second) in [
        ("two stay", &["1", "2"][..], &["1", "2"][..], json!({".": {}, key: {}}), none.clone()),
        ("one of two changes", &["1", "2"], &["1", "3"], json!({}), json!({key: {}})),
        ("one of two goes", &["1", "2"], &["1"], json!({}), json!({key: leaf})),
        ("another comes", &["1"], &["1", "2"], json!({}), json!({key: {}})),
        ("two go", &["1", "2"], &[], none.clone(), none.clone()),
        ("two come", &[], &["1", "2"], none, json!({".": {}, key: {}})),
    ] {
        let mut one = with(old);
        update(&mut one, None, &deployment(), &writer("one", "1"));
        let mut two = with(new);
        two["metadata"] = one["metadata"].clone();
        two["metadata"]["labels"] = json!({"l": "1"});
        update(&mut two, Some(&one), &deployment(), &writer("two", "2"));
        let below = |manager: &str| {
            let all = owners(&two);
            let found = all.iter().find(|(name, _)| name == manager).map(|(_, fields)| fields.clone());
            let containers = &found.unwrap_or_default()["f:spec"]["f:template"]["f:spec"]["f:containers"];
            containers["k:{\"name\":\"a\"}"]["f:env"].clone()
        };
        assert_eq!((below("one"), below("two")), (first, second), "{case}");
    }
}

#[test]
fn lists_are_woven_as_upstream_weaves_them() {
    let list = |names: &str| -> Value {
        let items = names.split_whitespace().map(|name| match name.split_once('=') {
            Some((name, value)) => json!({"name": name, "value": value}),
            None => json!({"name": name}),
        });
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template":
            {"spec": {"containers": [{"name": "c", "env": items.collect::<Vec<_>>()}]}}}})
    };
    for (live, config, merged) in [
        ("a b c", "b", "a b c"),
        ("a b x", "b a", "b x a"),
        ("x a y b z", "a b", "x a y b z"),
        ("x a y b z", "n a m b", "x n a y m b z"),
        ("a", "b", "a b"),
        ("a=1 x a=2 y", "a=3", "a=3 x y"),
        ("a=1 x a=2 y", "n", "a=1 x a=2 y n"),
        ("a b", "", "a b"),
    ] {
        let done = apply(Some(&list(live)), &list(config), &deployment(), &writer("m", "t"), true).unwrap();
        let env = &done["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(
            *env,
            list(merged)["spec"]["template"]["spec"]["containers"][0]["env"],
            "{live} + {config}"
        );
    }
}

#[test]
fn refuses_what_it_cannot_own() {
    let refused = |change: fn(&mut Value)| {
        let mut config = map(json!({"a": "1"}));
        change(&mut config);
        super::declared(&config, &config_map())
            .and_then(|()| apply(None, &config, &config_map(), &writer("one", "t"), false).map(drop))
            .unwrap_err()
    };
    assert_eq!(
        refused(|config| config["nope"] = 1.into()),
        ApplyError::Undeclared(
            "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .nope: field not declared in schema".into()
        )
    );
    assert_eq!(
        refused(|config| config["metadata"]["managedFields"] = json!([{"manager": "x"}])),
        ApplyError::Malformed("metadata.managedFields must be nil".into())
    );
}

#[test]
fn who_only_takes_over_what_is_there_wrote_at_no_time() {
    let live = config_apply(None, json!({"a": "1"}), "first", false).expect("applies");
    let times = |object: &Value| -> Vec<Option<String>> {
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["time"].as_str().map(str::to_owned)).collect()
    };
    let both = config_apply(Some(&live), json!({"a": "1"}), "second", false).expect("applies");
    assert_eq!(times(&both), [None, Some("t".to_owned())], "{both}");
    let changed = config_apply(Some(&live), json!({"a": "2"}), "second", true).expect("applies");
    assert_eq!(times(&changed), [Some("t".to_owned())], "{changed}");
}

#[test]
fn a_write_that_changes_nothing_keeps_the_times() {
    let mut old = map(json!({"a": "1"}));
    update(&mut old, None, &config_map(), &writer("m", "t"));
    let mut later = old.clone();
    later["metadata"]["managedFields"][0]["time"] = json!("u");
    let mut same = later.clone();
    keep_times(&mut same, &old, &config_map());
    assert_eq!(same, old);
    later["data"]["a"] = json!("2");
    let mut other = later.clone();
    keep_times(&mut other, &old, &config_map());
    assert_eq!(other, later);
}

#[test]
fn nobody_owns_an_object_with_items_that_cannot_be_told_apart() {
    let account = kind("v1", "ServiceAccount", "io.k8s.api.core.v1.ServiceAccount");
    for (secrets, tracked) in [(json!([{}]), false), (json!([{"name": "s"}]), true)] {
        let mut object = json!({"metadata": {"name": "a"}, "secrets": secrets});
        update(&mut object, None, &account, &writer("m", "t"));
        assert_eq!(object["metadata"].get("managedFields").is_some(), tracked, "{object}");
    }
    // The name of a secret to pull images with is empty where there is none.
    let pod = kind("v1", "Pod", "io.k8s.api.core.v1.Pod");
    let mut object = json!({"metadata": {"name": "p"}, "spec": {"imagePullSecrets": [{}]}});
    update(&mut object, None, &pod, &writer("m", "t"));
    let secrets = &owners(&object)[0].1["f:spec"]["f:imagePullSecrets"];
    assert!(secrets.get("k:{\"name\":\"\"}").is_some(), "{secrets}");
}

#[test]
fn owners_of_versions_and_fields_that_nobody_knows_are_forgotten() {
    let owned_by = |entries: Value| {
        let mut object = map(json!({"a": "1"}));
        object["metadata"]["managedFields"] = entries;
        object
    };
    let entry = |version: &str, fields: Value| json!([{"manager": "x", "operation": "Apply", "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    let old = map(json!({"a": "1"}));
    for (version, fields, kept) in [
        ("v1", json!({"f:data": {"f:a": {}}}), 1),
        ("v9", json!({"f:data": {"f:a": {}}}), 0),
        ("v1", json!({"x:data": {}}), 0),
    ] {
        let mut new = owned_by(entry(version, fields.clone()));
        update(&mut new, Some(&old), &config_map(), &writer("w", "t"));
        assert_eq!(owners(&new).len(), kept, "{version} {fields}");
    }
}

#[test]
fn what_was_folded_is_lost_where_it_is_not_the_oldest() {
    let mut object = map(json!({"0": "1"}));
    update(&mut object, None, &config_map(), &writer("z", "t"));
    for manager in "abcdefghijkl".chars().map(String::from) {
        let mut next = object.clone();
        next["data"][&manager] = json!("1");
        update(&mut next, Some(&object), &config_map(), &writer(&manager, "t"));
        object = next;
    }
    assert_eq!((owners(&object)[0].0.as_str(), owners(&object).len()), ("ancient-changes", 10));
    let mut next = object.clone();
    next["data"]["a"] = json!("2");
    update(&mut next, Some(&object), &config_map(), &writer("a", "t"));
    assert_eq!((owners(&next)[0].0.as_str(), owners(&next).len()), ("a", 10));
}

#[test]
fn conflicts_below_a_long_name_are_counted_and_told_as_far_as_there_is_room() {
    let name = "x".repeat(64 << 10);
    let config = |value: &str| -> Value {
        let env: Value = (0..2000).map(|n| json!({"name": format!("n{n}"), "value": value})).collect();
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"template": {"spec": {"containers": [{"name": name, "env": env}]}}}})
    };
    let live = apply(None, &config("1"), &deployment(), &writer("one", "t1"), false).expect("created");
    let refused = apply(Some(&live), &config("2"), &deployment(), &writer("two", "t2"), false);
    let Err(ApplyError::Conflict(status)) = refused else { panic!("a conflict") };
    assert!(
        status.message.starts_with("Apply failed with 2000 conflicts: conflicts with \"one\":\n- .spec.")
    );
    assert!(status.message.len() < 2 << 20 && status.details.to_string().len() < 2 << 20);
}
