//! The library's loops against an apiserver in memory.

use coracle_client::fake::FakeApi;
use coracle_client::{EventType, Key, ObjectId, Recorder, Reflector, Scope, Store, leader};
use coracle_daemon::{Tasks, clock};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const CONFIG_MAPS: &str = "/api/v1/namespaces/ns/configmaps";

#[tokio::test]
async fn a_reflector_lists_then_follows() {
    let api = FakeApi::default();
    api.create(CONFIG_MAPS, json!({ "metadata": { "name": "a" } }));
    let scope = Scope::new(&Tasks::new());
    let store = Reflector::<ConfigMap>::new(Api::all(api.client())).start(&scope);
    store.synced().await;
    assert_eq!(store.keys(), [Key::new("ns", "a")]);
    let changes = store.changes();
    changes.next().await;
    api.create(CONFIG_MAPS, json!({ "metadata": { "name": "b" } }));
    assert!(changes.next().await.contains(&Key::new("ns", "b")));
    api.delete(&format!("{CONFIG_MAPS}/a"));
    changes.next().await;
    assert_eq!(store.keys(), [Key::new("ns", "b")]);
    scope.stop().await;
}

/// Until the store holds exactly these ConfigMaps.
async fn holds(store: &Store<ConfigMap>, names: &[&str]) {
    let changes = store.changes();
    let wanted: Vec<_> = names.iter().map(|name| Key::new("ns", *name)).collect();
    let wait = async {
        while store.keys() != wanted {
            changes.next().await;
        }
    };
    clock::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| panic!("it holds {:?}", store.keys()));
}

#[tokio::test]
async fn a_cut_watch_goes_on_and_a_forgotten_history_is_listed_anew() {
    let api = FakeApi::default();
    let scope = Scope::new(&Tasks::new());
    let store = Reflector::<ConfigMap>::new(Api::all(api.client())).start(&scope);
    store.synced().await;
    for (name, forgotten) in [("a", false), ("b", true)] {
        api.cut_watches();
        api.create(CONFIG_MAPS, json!({ "metadata": { "name": name } }));
        if forgotten {
            api.delete(&format!("{CONFIG_MAPS}/a"));
            api.compact();
        }
        holds(&store, &[name]).await;
    }
    scope.stop().await;
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/boat";

fn holder(api: &FakeApi) -> String {
    api.get(LEASE)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn one_leads_and_the_other_takes_over_at_once_when_it_stops() {
    let api = FakeApi::default();
    let log = Arc::new(Mutex::new(Vec::new()));
    let run = |name: &'static str| {
        let (tasks, log) = (Tasks::new(), log.clone());
        leader::run(&tasks, api.client(), "boat", name, move |_| {
            log.lock().push(name);
            std::future::ready(())
        });
        tasks
    };
    let first = run("first");
    api.until("the first leads", |api| holder(api) == "first").await;
    let second = run("second");
    let stopped = clock::Instant::now();
    first.stop_within(Duration::from_secs(5)).await.expect("stops");
    api.until("the second leads", |api| holder(api) == "second").await;
    assert!(stopped.elapsed() < Duration::from_secs(4), "the lease was released, not waited for");
    assert_eq!(*log.lock(), ["first", "second"]);
    second.stop_within(Duration::from_secs(5)).await.expect("stops");
    assert_eq!(holder(&api), "");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_the_work() {
    let api = FakeApi::default();
    let tasks = Tasks::new();
    let scopes = Arc::new(Mutex::new(Vec::new()));
    let seen = scopes.clone();
    leader::run(&tasks, api.client(), "boat", "me", move |scope| {
        seen.lock().push(scope);
        std::future::ready(())
    });
    api.until("we lead", |api| holder(api) == "me").await;
    // The work starts a moment after the lease is written.
    let scope = loop {
        if let Some(scope) = scopes.lock().first().cloned() {
            break scope;
        }
        tokio::task::yield_now().await;
    };
    api.patch(LEASE, &json!({ "spec": { "holderIdentity": "thief" } }));
    clock::timeout(Duration::from_secs(15), scope.stopping().cancelled()).await.expect("the work is stopped");
    tasks.stop_within(Duration::from_secs(5)).await.expect("stops");
    assert_eq!(holder(&api), "thief");
}

#[tokio::test]
async fn events_that_repeat_are_counted_up() {
    let api = FakeApi::default();
    let scope = Scope::new(&Tasks::new());
    let recorder = Recorder::new(api.client(), "tester", None, &scope);
    let about = ObjectId {
        kind: "Pod".into(),
        namespace: "ns".into(),
        name: "p".into(),
        uid: "u".into(),
        ..ObjectId::default()
    };
    for _ in 0..3 {
        recorder.event(&about, EventType::Warning, "Odd", "something is odd");
    }
    let count = |api: &FakeApi| {
        api.list("/api/v1/namespaces/ns/events")
            .iter()
            .filter_map(|event| event["count"].as_i64())
            .collect::<Vec<_>>()
    };
    api.until("one event, three times", |api| count(api) == [3]).await;
    recorder.of("other").event(&about, EventType::Warning, "Odd", "something is odd");
    api.until("the same from another source", |api| count(api).len() == 2).await;
    let events = api.list("/api/v1/namespaces/ns/events");
    let mut sources: Vec<_> = events.iter().map(|event| event["source"]["component"].clone()).collect();
    sources.sort_by_key(ToString::to_string);
    assert_eq!(sources, ["other", "tester"]);
    scope.stop().await;
}
