//! How pods go: what webhooks are asked, what is left of them meanwhile, and how they are evicted.

use super::Fixture;
use super::webhooks::{Hooks, configure, seen};
use coracle_etcd::memory::MemoryKv;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";

/// With the account that pods run as.
async fn started() -> Fixture {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let (code, made) = fixture.call("POST", accounts, json!({"metadata": {"name": "default"}})).await;
    assert_eq!(code, 201, "{made}");
    seen(&fixture).await;
    fixture
}

/// Makes a pod: on a node if it has one, in a phase.
async fn pod(fixture: &Fixture, name: &str, node: &str, phase: &str, finalizers: &[&str]) -> Value {
    let mut pod = json!({"metadata": {"name": name, "labels": {"x": "y"}, "finalizers": finalizers},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    let (code, made) = fixture.call("POST", PODS, pod).await;
    assert_eq!(code, 201, "{made}");
    let status = json!({"status": {"phase": phase}});
    let (code, made) = fixture.typed("PATCH", &format!("{PODS}/{name}/status"), MERGE, status).await;
    assert_eq!(code, 200, "{made}");
    seen(fixture).await;
    made
}

#[tokio::test]
async fn webhooks_are_told_how_long_pods_stay_and_asked_once_more_before_they_go() {
    let fixture = started().await;
    let hooks = Hooks::start(&fixture.tasks, |_, _| json!({"allowed": true})).await;
    let rules =
        json!([{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["*"]}]);
    let hook = hooks.hook("/v", json!({"rules": rules}));
    configure(&fixture, "ValidatingWebhookConfiguration", "v", json!([hook])).await;
    pod(&fixture, "new", "", "Pending", &[]).await;
    pod(&fixture, "runs", "n", "Running", &[]).await;
    pod(&fixture, "ended", "n", "Failed", &["a.io/x"]).await;
    for name in ["one", "other"] {
        pod(&fixture, name, "n", "Running", &[]).await;
    }
    // (what goes, and of each time that is asked: its name, the seconds in the options, and those of the object)
    let none = Value::Null;
    let rows = [
        ("/new", vec![("new", json!(0), none.clone()), ("new", json!(0), json!(0))]),
        ("/runs", vec![("runs", json!(30), none.clone())]),
        // It ends already.
        ("/runs", vec![]),
        ("/runs?gracePeriodSeconds=40", vec![]),
        ("/runs?gracePeriodSeconds=20", vec![("runs", json!(20), json!(30))]),
        ("/runs?gracePeriodSeconds=-3", vec![("runs", json!(1), json!(20))]),
        ("/runs?gracePeriodSeconds=0&dryRun=All", vec![("runs", json!(0), json!(1))]),
        ("/runs?gracePeriodSeconds=0", vec![("runs", json!(0), json!(1)), ("runs", json!(0), json!(0))]),
        ("/ended?gracePeriodSeconds=9", vec![("ended", json!(0), none.clone())]),
        ("/ended", vec![("ended", none.clone(), json!(0))]),
        (
            "?fieldSelector=spec.nodeName=n,status.phase=Running",
            vec![("", none.clone(), none.clone()), ("", none.clone(), none.clone())],
        ),
    ];
    let mut before = 0;
    for (path, wants) in rows {
        let (code, gone) = fixture.call("DELETE", &format!("{PODS}{path}"), Value::Null).await;
        assert_eq!(code, 200, "{path}: {gone}");
        let asked = hooks.asked_at("/v");
        let saw: Vec<_> = asked[before..]
            .iter()
            .map(|request| {
                let seconds = &request["oldObject"]["metadata"]["deletionGracePeriodSeconds"];
                let name = request["name"].as_str().unwrap_or_default().to_owned();
                (name, request["options"]["gracePeriodSeconds"].clone(), seconds.clone())
            })
            .collect();
        let wants: Vec<_> = wants.into_iter().map(|(name, a, b)| (name.to_owned(), a, b)).collect();
        assert_eq!(saw, wants, "{path}");
        before = asked.len();
        seen(&fixture).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_sees_a_pod_that_gets_no_time_marked_before_it_goes() {
    let fixture = started().await;
    let at_once = || vec![("MODIFIED", json!(0)), ("DELETED", json!(0))];
    // (its node, one deletion after the other, what a watch sees: each event with the seconds that are left)
    let rows = [
        ("", vec![json!({})], at_once()),
        ("", vec![json!({"dryRun": ["All"]}), json!({})], at_once()),
        ("n", vec![json!({"gracePeriodSeconds": 0})], at_once()),
        // It is the one that was meant, marked or not.
        ("n", vec![json!({"gracePeriodSeconds": 0, "preconditions": {"resourceVersion": "{}"}})], at_once()),
        (
            "n",
            vec![json!({}), json!({"gracePeriodSeconds": 5}), json!({"gracePeriodSeconds": 0})],
            [vec![("MODIFIED", json!(30)), ("MODIFIED", json!(5))], at_once()].concat(),
        ),
    ];
    for (index, (node, deletions, wants)) in rows.into_iter().enumerate() {
        let name = format!("p{index}");
        let made = pod(&fixture, &name, node, "Pending", &[]).await;
        let version = made["metadata"]["resourceVersion"].as_str().expect("a version");
        for mut options in deletions {
            if let Some(wanted) = options.pointer_mut("/preconditions/resourceVersion") {
                *wanted = json!(version);
            }
            let (code, gone) = fixture.call("DELETE", &format!("{PODS}/{name}"), options).await;
            assert_eq!(code, 200, "{name}: {gone}");
        }
        let watch = format!("{PODS}?watch=1&resourceVersion={version}&fieldSelector=metadata.name={name}");
        let watch = fixture.send("GET", &watch, "", Value::Null).await.into_body();
        for (seen, (kind, left)) in super::events(watch, wants.len()).await.into_iter().zip(wants) {
            let metadata = &seen["object"]["metadata"];
            assert_eq!((&seen["type"], &metadata["deletionGracePeriodSeconds"]), (&json!(kind), &left));
            assert!(metadata["deletionTimestamp"].is_string(), "{seen}");
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_pod_that_ends_can_only_be_hurried() {
    let fixture = started().await;
    // What is left of a pod that has 30 seconds: seconds and finalizers, where it is left.
    let rows = [
        ("", Some((30, json!(["a.io/x"])))),
        ("?propagationPolicy=Foreground", Some((30, json!(["a.io/x"])))),
        ("?gracePeriodSeconds=50&propagationPolicy=Orphan", Some((30, json!(["a.io/x"])))),
        ("?gracePeriodSeconds=20&propagationPolicy=Orphan", Some((20, json!(["a.io/x", "orphan"])))),
        ("?gracePeriodSeconds=9223372036854775807", Some((30, json!(["a.io/x"])))),
        ("?gracePeriodSeconds=0", Some((0, json!(["a.io/x"])))),
    ];
    for (index, (query, left)) in rows.into_iter().enumerate() {
        let name = format!("p{index}");
        pod(&fixture, &name, "n", "Running", &["a.io/x"]).await;
        let path = format!("{PODS}/{name}");
        assert_eq!(fixture.call("DELETE", &path, Value::Null).await.0, 200);
        // That it has ended by itself hurries nobody: its node tells when it is gone.
        let ended = json!({"status": {"phase": "Failed"}});
        assert_eq!(fixture.typed("PATCH", &format!("{path}/status"), MERGE, ended).await.0, 200);
        assert_eq!(fixture.call("DELETE", &format!("{path}{query}"), Value::Null).await.0, 200);
        let (_, found) = fixture.call("GET", &path, Value::Null).await;
        let found = found["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .map(|seconds| (seconds, found["metadata"]["finalizers"].clone()));
        assert_eq!(found, left, "{query}");
    }
    // The longest time of all has no end: what is left of less is over.
    pod(&fixture, "long", "n", "Running", &[]).await;
    for (seconds, left) in [(i64::MAX, i64::MAX), (7, 1)] {
        let path = format!("{PODS}/long?gracePeriodSeconds={seconds}");
        let (code, marked) = fixture.call("DELETE", &path, Value::Null).await;
        assert_eq!(
            (code, &marked["metadata"]["deletionGracePeriodSeconds"]),
            (200, &json!(left)),
            "{marked}"
        );
    }
    fixture.stop().await;
}

#[tokio::test]
async fn an_evicted_pod_tells_so_if_it_is_the_one_that_is_meant() {
    let fixture = started().await;
    for (name, phase, ends) in [
        ("runs", "Running", false),
        ("waits", "Pending", false),
        ("ended", "Succeeded", false),
        ("goes", "Running", true),
    ] {
        let made = pod(&fixture, name, "n", phase, &["a.io/x"]).await;
        let path = format!("{PODS}/{name}");
        let made = if ends { fixture.call("DELETE", &path, Value::Null).await.1 } else { made };
        let (version, uid) = (made["metadata"]["resourceVersion"].clone(), made["metadata"]["uid"].clone());
        let other = |what: &str, wanted: &str, found: &Value, end: &str| {
            let found = found.as_str().unwrap_or_default();
            format!(
                "Operation cannot be fulfilled on Pod \"{name}\": the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {end}"
            )
        };
        // (options, code, message, whether the pod tells of it by then)
        let rows = [
            (
                json!({"preconditions": {"uid": "x"}}),
                409,
                other("UID", "x", &uid, "deleted and then recreated"),
                false,
            ),
            (
                json!({"preconditions": {"resourceVersion": "1"}}),
                409,
                other("ResourceVersion", "1", &version, "modified"),
                false,
            ),
            (
                json!({"preconditions": {"uid": uid, "resourceVersion": version}, "dryRun": ["All"]}),
                201,
                String::new(),
                false,
            ),
            (json!({"preconditions": {"uid": uid, "resourceVersion": version}}), 201, String::new(), true),
        ];
        for (options, code, message, tells) in rows {
            let eviction = json!({"metadata": {"name": name}, "deleteOptions": options});
            let (got, answer) = fixture.call("POST", &format!("{path}/eviction"), eviction).await;
            let told = answer["message"].as_str().unwrap_or_default();
            assert_eq!((got, told), (code, message.as_str()), "{name} {options}");
            let (_, left) = fixture.call("GET", &path, Value::Null).await;
            let conditions = left["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.iter().any(|condition| condition["type"] == "DisruptionTarget");
            assert_eq!(found, tells, "{name} {options}");
            assert_eq!(left["metadata"]["deletionTimestamp"].is_string(), tells || ends, "{name} {options}");
        }
    }
    fixture.stop().await;
}
