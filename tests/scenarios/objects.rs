//! Reading and writing objects, whatever their kind.

use anyhow::{Context, Result, ensure};
use coracle_tests::{Cluster, Deadline};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

pub fn first_objects(cluster: &Cluster) -> Result<()> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        cluster.expect(&format!("get namespace {name} -o name"), name)?;
    }
    cluster.expect("get service kubernetes -o jsonpath={.spec.ports[0].port}", "443")?;
    cluster.expect("get nodes --no-headers", " Ready ")?;
    cluster.expect("get serviceaccount default -o name", "serviceaccount/default")?;
    cluster.expect("get configmap kube-root-ca.crt -o name", "configmap/kube-root-ca.crt")?;
    cluster.expect("version", "v1.33.")?;
    cluster.expect("api-resources", "customresourcedefinitions")?;
    cluster.expect("cluster-info", "is running at")
}

pub fn create_show_delete(cluster: &Cluster) -> Result<()> {
    cluster.expect(
        "create configmap boat --from-literal=hull=hide --from-literal=ribs=willow",
        "configmap/boat created",
    )?;
    cluster.refuses("create configmap boat", "configmaps \"boat\" already exists")?;
    cluster.expect("get configmap boat", "NAME")?;
    cluster.expect("get configmap boat -o jsonpath={.data.hull}", "hide")?;
    cluster.expect("get configmap boat -o yaml", "ribs: willow")?;
    cluster.expect("describe configmap boat", "willow")?;
    cluster.expect("delete configmap boat", "configmap \"boat\" deleted")?;
    cluster.refuses("get configmap boat", "configmaps \"boat\" not found")
}

const CHART: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: chart, labels: {sea: north}}
data: {depth: \"12\", shoal: \"2\"}
";

pub fn apply_three_ways(cluster: &Cluster) -> Result<()> {
    ensure!(cluster.apply(CHART)?.contains("configmap/chart created"));
    ensure!(cluster.apply(CHART)?.contains("configmap/chart unchanged"));
    // What another writer added stays, what we left out goes.
    cluster.tells("patch configmap chart --type=merge -p '{\"data\":{\"wreck\":\"1\"}}'")?;
    let without_shoal = CHART.replace(", shoal: \"2\"", "");
    ensure!(cluster.kubectl_reading(&without_shoal, "diff -f -")?.out.contains("-  shoal: \"2\""));
    ensure!(cluster.apply(&without_shoal)?.contains("configmap/chart configured"));
    let data: Value = serde_json::from_str(&cluster.tells("get configmap chart -o jsonpath={.data}")?)?;
    ensure!(data == serde_json::json!({"depth": "12", "wreck": "1"}), "{data}");
    cluster.expect("delete configmap chart", "deleted")
}

pub fn patches(cluster: &Cluster) -> Result<()> {
    cluster.tells("create deployment sail --image=a:1 --replicas=0")?;
    cluster.tells(
        "patch deployment sail -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"b\",\"image\":\"b:1\"}]}}}}'",
    )?;
    let images = "get deployment sail -o jsonpath={.spec.template.spec.containers[*].image}";
    // A strategic merge goes by the containers' names.
    let both: BTreeSet<String> = cluster.tells(images)?.split(' ').map(str::to_owned).collect();
    ensure!(both == BTreeSet::from(["a:1".to_owned(), "b:1".to_owned()]), "{both:?}");
    cluster.tells(
        "patch deployment sail --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]'",
    )?;
    cluster.expect("get deployment sail -o jsonpath={.spec.replicas}", "2")?;
    cluster.refuses(
        "patch deployment sail --type=json -p '[{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":7}]'",
        "",
    )?;
    cluster.tells("patch deployment sail --type=merge -p '{\"metadata\":{\"labels\":{\"app\":null}}}'")?;
    ensure!(cluster.tells("get deployment sail -o jsonpath={.metadata.labels.app}")?.is_empty());
    cluster.tells("label deployment sail wind=west")?;
    cluster.refuses("label deployment sail wind=east", "already has a value")?;
    cluster.tells("annotate deployment sail note=torn")?;
    cluster.tells("set resources deployment sail -c a --limits=cpu=200m")?;
    cluster.expect("delete deployment sail --wait", "deleted")
}

pub fn conflict(cluster: &Cluster) -> Result<()> {
    cluster.tells("create configmap log --from-literal=line=1")?;
    let old = cluster.tells("get configmap log -o yaml")?;
    cluster.tells("patch configmap log --type=merge -p '{\"data\":{\"line\":\"2\"}}'")?;
    let answer =
        cluster.kubectl_reading(&old.replace("line: \"1\"", "line: \"3\""), "replace -f -")?.refused()?;
    ensure!(answer.contains("the object has been modified"), "{answer}");
    cluster.expect("get configmap log -o jsonpath={.data.line}", "2")?;
    cluster.expect("delete configmap log", "deleted")
}

pub fn dry_run(cluster: &Cluster) -> Result<()> {
    cluster.expect("create configmap ghost --dry-run=server", "created (server dry run)")?;
    cluster.refuses("get configmap ghost", "not found")?;
    cluster.tells("create configmap solid --from-literal=a=1")?;
    cluster.tells("delete configmap solid --dry-run=server")?;
    cluster.expect("get configmap solid -o jsonpath={.data.a}", "1")?;
    cluster.expect("delete configmap solid", "deleted")
}

/// One line a change: `TYPE NAME VALUE`.
const WATCH: &str = "get configmap --watch-only --output-watch-events \
    -o jsonpath={.type}{\"\\040\"}{.object.metadata.name}{\"\\040\"}{.object.data.n}{\"\\n\"}";

pub fn watch(cluster: &Cluster) -> Result<()> {
    cluster.tells("create configmap buoy --from-literal=n=0")?;
    // A watch that has told of the object is a watch that runs.
    let mut watch = cluster.follow(&WATCH.replace("--watch-only", "--watch"))?;
    let deadline = Deadline::seconds(30);
    watch.line(deadline, |line| line == "ADDED buoy 0")?;
    for n in 1..=5 {
        cluster.tells(&format!("patch configmap buoy --type=merge -p '{{\"data\":{{\"n\":\"{n}\"}}}}'"))?;
    }
    cluster.tells("delete configmap buoy")?;
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(watch.line(deadline, |line| line.contains(" buoy "))?);
    }
    let wanted = [
        "MODIFIED buoy 1",
        "MODIFIED buoy 2",
        "MODIFIED buoy 3",
        "MODIFIED buoy 4",
        "MODIFIED buoy 5",
        "DELETED buoy 5",
    ];
    ensure!(told == wanted, "{told:#?}");
    Ok(())
}

pub fn pages(cluster: &Cluster) -> Result<()> {
    const COUNT: usize = 120;
    let mut yaml = String::new();
    for i in 0..COUNT {
        write!(
            yaml,
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: page-{i:03}, labels: {{book: log}}}}\n"
        )?;
    }
    cluster.kubectl_reading(&yaml, "create -f -")?.ok()?;
    let listed = cluster.tells("get configmap -l book=log -o name --chunk-size=25")?;
    let names: Vec<&str> = listed.lines().collect();
    ensure!(names.len() == COUNT && names.is_sorted(), "{} names: {names:?}", names.len());
    cluster.tells("delete configmap -l book=log")?;
    ensure!(cluster.tells("get configmap -l book=log -o name")?.is_empty());
    Ok(())
}

pub fn selectors(cluster: &Cluster) -> Result<()> {
    for (name, label) in [("red", "side=port"), ("green", "side=starboard"), ("white", "stern=yes")] {
        cluster.tells(&format!("create configmap lamp-{name}"))?;
        cluster.tells(&format!("label configmap lamp-{name} kind=lamp {label}"))?;
    }
    for (selector, wanted) in [
        ("-l side=port", "lamp-red"),
        ("-l 'side in (starboard, aft)'", "lamp-green"),
        ("-l 'kind=lamp,!side'", "lamp-white"),
        ("-l kind=lamp,side!=port,side", "lamp-green"),
        ("-l kind=lamp --field-selector metadata.name=lamp-white", "lamp-white"),
    ] {
        let told = cluster.tells(&format!("get configmap -o name {selector}"))?;
        ensure!(told == format!("configmap/{wanted}"), "{selector}: {told}");
    }
    cluster.refuses("get configmap -l 'side in'", "unable to parse requirement")?;
    cluster.refuses("get configmap --field-selector data.n=1", "\"data.n\" is not a known field selector")?;
    cluster.expect("delete configmap -l kind=lamp", "deleted")
}

pub fn server_side_apply(cluster: &Cluster) -> Result<()> {
    let yaml = |n: u8| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: deed}}\ndata: {{share: \"{n}\"}}\n")
    };
    let apply =
        |yaml: &str, flags: &str| cluster.kubectl_reading(yaml, &format!("apply --server-side -f - {flags}"));
    apply(&yaml(1), "--field-manager=ann")?.ok()?;
    apply(&yaml(1), "--field-manager=bob")?.ok()?;
    let refused = apply(&yaml(2), "--field-manager=bob")?.refused()?;
    ensure!(refused.contains("conflict with \"ann\"") && refused.contains(".data.share"), "{refused}");
    apply(&yaml(2), "--field-manager=bob --force-conflicts")?.ok()?;
    cluster.expect("get configmap deed -o jsonpath={.data.share}", "2")?;
    cluster.expect("get configmap deed --show-managed-fields -o yaml", "manager: bob")?;
    // A field that its one owner leaves out goes.
    apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: deed}\n", "--field-manager=bob")?.ok()?;
    ensure!(cluster.tells("get configmap deed -o jsonpath={.data}")?.is_empty());
    cluster.expect("delete configmap deed", "deleted")
}

pub fn explain(cluster: &Cluster) -> Result<()> {
    cluster.expect("explain pod.spec.containers.resources", "FIELDS:")?;
    cluster.expect("explain deployment.spec.replicas", "integer")?;
    cluster.expect("explain cronjob --recursive", "concurrencyPolicy")?;
    cluster.refuses("explain pod.spec.sails", "field \"sails\" does not exist")
}

pub fn namespace(cluster: &Cluster) -> Result<()> {
    cluster.tells("create namespace fleet")?;
    cluster.refuses("create configmap a -n nowhere", "namespaces \"nowhere\" not found")?;
    cluster.tells("wait --for=create serviceaccount/default -n fleet --timeout=20s")?;
    cluster.tells("create configmap a -n fleet")?;
    cluster.tells("create deployment d -n fleet --image=nginx --replicas=2")?;
    cluster.tells("rollout status deployment d -n fleet --timeout=60s")?;
    cluster.tells("delete namespace fleet --timeout=60s")?;
    cluster.refuses("get namespace fleet", "not found")?;
    let left = cluster.tells("get configmaps,deployments,pods -A -o name")?;
    let left_of_fleet = cluster.tells("get pods -n fleet -o name").context("an empty list is no error")?;
    ensure!(!left.contains("deployment.apps/d") && left_of_fleet.is_empty(), "{left}");
    Ok(())
}
