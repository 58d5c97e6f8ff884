//! What the plugins that are off by default change and refuse.

#![expect(clippy::needless_pass_by_value, reason = "the tables read better with values written in place")]

use super::super::configuration::{node_selectors, tolerations};
use super::super::tests::{Write, world, write};
use super::super::{AdmissionArgs, CREATE, DELETE, Plugins, UPDATE};
use crate::reader::fake::Fake;
use serde_json::{Value, json};
use std::sync::Arc;

const POD: &str = "pods";

async fn run(write: &Write, fake: &Arc<Fake>, plugin: &str, object: Value) -> Result<Value, String> {
    let plugins = super::super::tests::with(&[plugin]);
    write.run_with(fake, plugins, object).await.map_err(|status| status.message)
}

fn pod(spec: Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": spec})
}

fn of_image(policy: &str) -> Value {
    pod(json!({"containers": [{"name": "c", "image": "i", "imagePullPolicy": policy}],
        "volumes": [{"name": "v", "image": {"reference": "r", "pullPolicy": policy}}]}))
}

#[tokio::test]
async fn images_are_pulled_by_every_pod_that_brings_one() {
    let fake = world();
    let made = run(&write(CREATE, "", POD, "a", "p"), &fake, "AlwaysPullImages", of_image("Never")).await;
    let made = made.expect("admitted");
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
    let same = write(UPDATE, "", POD, "a", "p").over(of_image("Never"));
    let kept = run(&same, &fake, "AlwaysPullImages", of_image("Never")).await.expect("admitted");
    assert_eq!(kept["spec"]["containers"][0]["imagePullPolicy"], "Never");
}

#[tokio::test]
async fn pods_may_insist_on_being_apart_by_host_only() {
    let apart = |key: &str| {
        let terms = json!([{"topologyKey": key}]);
        pod(
            json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}),
        )
    };
    let (fake, make) = (world(), write(CREATE, "", POD, "a", "p"));
    let plugin = "LimitPodHardAntiAffinityTopology";
    assert!(run(&make, &fake, plugin, apart("kubernetes.io/hostname")).await.is_ok());
    let why = "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed";
    assert_eq!(run(&make, &fake, plugin, apart("zone")).await, Err(why.to_owned()));
}

#[tokio::test]
async fn a_namespace_comes_with_what_is_made_in_it() {
    let (fake, map) = (world(), || json!({"metadata": {"name": "m", "namespace": "new"}}));
    let make = write(CREATE, "", "configmaps", "new", "m");
    assert_eq!(
        run(&make, &fake, "NamespaceExists", map()).await,
        Err("namespaces \"new\" not found".to_owned())
    );
    assert!(run(&make, &fake, "NamespaceAutoProvision", map()).await.is_ok());
    assert!(run(&make, &fake, "NamespaceExists", map()).await.is_ok());
    let gone = write(DELETE, "", "configmaps", "never", "m");
    let refused = run(&gone, &fake, "NamespaceExists", Value::Null).await;
    assert_eq!(refused, Err("namespaces \"never\" not found".to_owned()));
}

#[tokio::test]
async fn services_take_no_new_external_addresses() {
    let of = |ips: Value| json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"externalIPs": ips}});
    let fake = world();
    let why = "services \"s\" is forbidden: Use of external IPs is denied by admission control";
    let cases = [
        (None, json!(["1.2.3.4"]), false),
        (None, json!([]), true),
        (Some(json!(["1.2.3.4", "5.6.7.8"])), json!(["5.6.7.8"]), true),
        (Some(json!(["1.2.3.4"])), json!(["1.2.3.4", "5.6.7.8"]), false),
    ];
    for (old, new, passes) in cases {
        let mut change = write(if old.is_some() { UPDATE } else { CREATE }, "", "services", "a", "s");
        change.old = old.map(of);
        let told = run(&change, &fake, "DenyServiceExternalIPs", of(new.clone())).await.map(drop);
        assert_eq!(told, if passes { Ok(()) } else { Err(why.to_owned()) }, "{new}");
    }
}

#[tokio::test]
async fn pods_tolerate_the_taints_of_the_resources_they_ask_for() {
    let asks = json!({"requests": {"example.com/gpu": "1", "cpu": "1"}});
    let spec = json!({"containers": [{"name": "c", "resources": asks}], "tolerations": [
        {"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5}]});
    let (fake, make) = (world(), write(CREATE, "", POD, "a", "p"));
    let made = run(&make, &fake, "ExtendedResourceToleration", pod(spec)).await.expect("admitted");
    let own: Vec<&Value> = made["spec"]["tolerations"].as_array().into_iter().flatten().collect();
    let want = json!({"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"});
    assert_eq!(own.iter().filter(|one| one["key"] == "example.com/gpu").collect::<Vec<_>>(), [&&want]);
    assert!(!own.iter().any(|one| one["key"] == "cpu"));
}

fn annotated(key: &str, value: &str) -> Arc<Fake> {
    let namespace =
        json!({"metadata": {"name": "b", "annotations": {key: value}}, "status": {"phase": "Active"}});
    let account = json!({"metadata": {"namespace": "b", "name": "default"}});
    Fake::with([("", "namespaces", namespace), ("", "serviceaccounts", account)])
}

#[tokio::test]
async fn a_namespace_says_on_which_nodes_its_pods_run() {
    let configured = || {
        let mut plugins = super::super::tests::with(&["PodNodeSelector"]);
        plugins.node_selectors = node_selectors(Some(
            "podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: zone=z, b: 'env=test,disk=ssd'}",
        ));
        plugins
    };
    let make = write(CREATE, "", POD, "b", "p");
    let fake = annotated("scheduler.alpha.kubernetes.io/node-selector", "env=test");
    let go = async |own: Value| {
        let made = make.run_with(&fake, configured(), pod(json!({"nodeSelector": own}))).await;
        made.map(|pod| pod["spec"]["nodeSelector"].clone()).map_err(|status| status.message)
    };
    assert_eq!(go(json!({"disk": "ssd"})).await, Ok(json!({"env": "test", "disk": "ssd"})));
    let conflict =
        "pods \"p\" is forbidden: pod node label selector conflicts with its namespace node label selector";
    assert_eq!(go(json!({"env": "live"})).await, Err(conflict.to_owned()));
    let forbidden =
        "pods \"p\" is forbidden: pod node label selector labels conflict with its namespace whitelist";
    assert_eq!(go(json!({"zone": "z"})).await, Err(forbidden.to_owned()));
    let plain = write(CREATE, "", POD, "a", "p").run_with(&world(), configured(), pod(json!({}))).await;
    assert_eq!(plain.expect("admitted")["spec"]["nodeSelector"], json!({"zone": "z"}));
    let bad = annotated("scheduler.alpha.kubernetes.io/node-selector", "env");
    let told = make.run_with(&bad, configured(), pod(json!({}))).await.map_err(|status| status.message);
    assert_eq!(told, Err("invalid selector: [env]".to_owned()));
}

#[tokio::test]
async fn a_namespace_says_what_its_pods_tolerate() {
    let configured = || {
        let mut plugins = super::super::tests::with(&["PodTolerationRestriction"]);
        plugins.tolerations = tolerations(Some(
            "{apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1, kind: Configuration, default: [{key: d, operator: Exists}]}",
        ))
        .expect("a configuration");
        plugins
    };
    let make = write(CREATE, "", POD, "b", "p");
    let keys = |pod: &Value| -> Vec<String> {
        let own = pod["spec"]["tolerations"].as_array().into_iter().flatten();
        own.map(|one| one["key"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let fake = annotated("scheduler.alpha.kubernetes.io/other", "");
    let busy = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}));
    let made = make.run_with(&fake, configured(), busy).await.expect("admitted");
    let lost = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
    assert_eq!(keys(&made), [lost[0], lost[1], "d", "node.kubernetes.io/memory-pressure"]);
    let allowed = annotated(
        "scheduler.alpha.kubernetes.io/tolerationsWhitelist",
        r#"[{"key": "x", "operator": "Exists"}]"#,
    );
    let refused = make.run_with(&allowed, configured(), pod(json!({}))).await.expect_err("not allowed");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            500,
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"
        )
    );
}

#[tokio::test]
async fn owners_are_given_by_those_who_may_delete_and_blocked_by_those_who_may_finalize() {
    let owner = |blocks: bool| json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u", "blockOwnerDeletion": blocks});
    let owned =
        |owner: Value| json!({"metadata": {"name": "m", "namespace": "a", "ownerReferences": [owner]}});
    let bare = || json!({"metadata": {"name": "m", "namespace": "a"}});
    let (fake, plugin) = (world(), "OwnerReferencesPermissionEnforcement");
    let make = write(CREATE, "", "configmaps", "a", "m");
    assert!(run(&make, &fake, plugin, owned(owner(false))).await.is_ok());
    let blocks = "configmaps \"m\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>";
    assert_eq!(run(&make, &fake, plugin, owned(owner(true))).await, Err(blocks.to_owned()));
    let mut unknown = owner(true);
    unknown["kind"] = json!("Nope");
    let nobody = "configmaps \"m\" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion apps/v1 Kind Nope: no matches for kind \"Nope\" in version \"apps/v1\"";
    assert_eq!(run(&make, &fake, plugin, owned(unknown)).await, Err(nobody.to_owned()));
    let change = write(UPDATE, "", "configmaps", "a", "m").over(bare());
    let delete =
        "configmaps \"m\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!(run(&change, &fake, plugin, owned(owner(false))).await, Err(delete.to_owned()));
    let same = write(UPDATE, "", "configmaps", "a", "m").over(owned(owner(true)));
    assert!(run(&same, &fake, plugin, owned(owner(true))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn events_are_bounded_by_all_that_a_limit_counts_by() {
    let limits = "{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Namespace, qps: 1, burst: 2}, {type: User, qps: 100, burst: 100}]}";
    let file = format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{{name: EventRateLimit, configuration: {limits}}}]}}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admission.yaml");
    std::fs::write(&path, file).expect("written");
    let args = AdmissionArgs {
        enable_admission_plugins: vec!["EventRateLimit".to_owned()],
        admission_control_config_file: Some(path),
        ..AdmissionArgs::default()
    };
    let plugins = Plugins::new(&args).expect("plugins");
    let fake = world();
    let admission = super::super::Admission::new(fake.clone(), fake, plugins);
    let judge = async |namespace: &str| {
        let make = write(CREATE, "", "events", namespace, "e");
        let judged = admission.validate(&make.attributes(), &json!({"metadata": {"name": "e"}})).await;
        judged.map(drop).map_err(|status| (status.code, status.message))
    };
    assert_eq!((judge("a").await, judge("a").await), (Ok(()), Ok(())));
    assert_eq!(
        judge("a").await,
        Err((429, "Too many requests: limit reached on type Namespace for key a".to_owned()))
    );
    assert_eq!(judge("going").await, Ok(()));
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(judge("a").await, Ok(()));
    assert!(judge("a").await.is_err());
}

#[tokio::test]
async fn everything_is_denied_where_that_is_asked_for() {
    let (fake, map) = (world(), json!({"metadata": {"name": "m", "namespace": "a"}}));
    let refused = run(&write(CREATE, "", "configmaps", "a", "m"), &fake, "AlwaysDeny", map).await;
    let why = "configmaps \"m\" is forbidden: admission control is denying all modifications";
    assert_eq!(refused, Err(why.to_owned()));
}
