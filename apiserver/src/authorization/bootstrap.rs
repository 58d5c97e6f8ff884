//! What every cluster has from its first second: the system namespaces and priority classes, and the roles and
//! bindings, which stand as data and are reconciled.
//!
//! As upstream: what is missing is added, what people added stays, and the annotation
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` keeps an object as it is.

use super::rbac::GROUP;
use super::rule::{self, Rule};
use crate::reader::{Objects, SERVER};
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};

const DATA: &str = include_str!("../../data/rbac-bootstrap.json");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Objects that are read or written at a time.
const AT_ONCE: usize = 32;

/// The data's lists with the resource and kind of their objects.
const LISTS: [(&str, &str, &str); 6] = [
    ("clusterRoles", "clusterroles", "ClusterRole"),
    ("controllerClusterRoles", "clusterroles", "ClusterRole"),
    ("clusterRoleBindings", "clusterrolebindings", "ClusterRoleBinding"),
    ("controllerClusterRoleBindings", "clusterrolebindings", "ClusterRoleBinding"),
    ("roles", "roles", "Role"),
    ("roleBindings", "rolebindings", "RoleBinding"),
];

fn data() -> Value {
    // The data is part of the program: a test reads it.
    serde_json::from_str(DATA).unwrap_or_default()
}

/// The rules of ClusterRole `system:node`, by which nodes are judged though nobody is bound to it.
pub fn node_rules() -> Vec<Rule> {
    let data = data();
    let roles = data["clusterRoles"].as_array();
    let role = roles.into_iter().flatten().find(|role| role["name"] == "system:node");
    role.map(|role| Rule::parse_all(&role["rules"])).unwrap_or_default()
}

/// Every bootstrap object with its plural. The rules of aggregated roles are their controller's, and authorization
/// gathers them itself.
fn wanted() -> Vec<(&'static str, Value)> {
    let data = data();
    let mut wanted = Vec::new();
    for (list, plural, kind) in LISTS {
        for row in data[list].as_array().into_iter().flatten() {
            wanted.push((plural, object(&data, kind, row)));
        }
    }
    wanted
}

fn object(data: &Value, kind: &str, row: &Value) -> Value {
    let mut labels = data["commonLabels"].as_object().cloned().unwrap_or_default();
    labels.extend(row["extraLabels"].as_object().cloned().unwrap_or_default());
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {"name": row["name"], "labels": labels, "annotations": data["commonAnnotations"]},
    });
    if row["namespace"].is_string() {
        object["metadata"]["namespace"] = row["namespace"].clone();
    }
    for key in ["aggregationRule", "rules", "roleRef", "subjects"] {
        // A list without items says nothing, and so nobody owns it: aggregated rules are their controller's.
        if !row[key].is_null() && row[key].as_array().is_none_or(|items| !items.is_empty()) {
            object[key] = row[key].clone();
        }
    }
    object
}

/// `current` with what `wanted` has and it has not; `None` when nothing is missing or it is not to be touched.
fn reconciled(current: &Value, wanted: &Value) -> Option<Value> {
    if current["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut out = current.clone();
    for key in ["labels", "annotations"] {
        let mut all = wanted["metadata"][key].as_object().cloned().unwrap_or_default();
        all.extend(current["metadata"][key].as_object().cloned().unwrap_or_default());
        let had = current["metadata"][key].as_object().map_or(0, Map::len);
        if all.len() != had {
            out["metadata"][key] = Value::Object(all);
        }
    }
    let (held, asked) = (Rule::parse_all(&current["rules"]), Rule::parse_all(&wanted["rules"]));
    let missing = rule::missing(&held, &asked);
    if !missing.is_empty() {
        let rules = held.iter().chain(&missing);
        out["rules"] = rules.map(Rule::to_value).collect();
    }
    append_missing(&mut out, current, wanted, &["subjects"]);
    append_missing(&mut out, current, wanted, &["aggregationRule", "clusterRoleSelectors"]);
    (out != *current).then_some(out)
}

/// Adds to the list at `path` the items that it lacks.
fn append_missing(out: &mut Value, current: &Value, wanted: &Value, path: &[&str]) {
    let list = |object: &Value| {
        path.iter().fold(object, |value, key| &value[*key]).as_array().cloned().unwrap_or_default()
    };
    let mut items = list(current);
    let before = items.len();
    for item in list(wanted) {
        if !items.iter().any(|own| same_item(own, &item)) {
            items.push(item);
        }
    }
    if items.len() != before {
        let slot = path.iter().fold(out, |value, key| &mut value[*key]);
        *slot = Value::Array(items);
    }
}

/// Equal, an absent `apiGroup` or `namespace` being an empty one.
fn same_item(a: &Value, b: &Value) -> bool {
    let known = ["kind", "name", "namespace", "matchLabels", "matchExpressions"];
    known.iter().all(|key| a[*key] == b[*key])
}

/// The namespaces and classes, which are made when missing and otherwise left alone.
fn fixtures() -> Vec<(GroupResource, Value)> {
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"].map(|name| {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        (GroupResource::new("", "namespaces"), namespace)
    });
    let classes = [
        (
            "system-cluster-critical",
            2_000_000_000,
            "must run in the cluster, but can be moved to another node if necessary",
        ),
        ("system-node-critical", 2_000_001_000, "must not be moved from their current node"),
    ]
    .map(|(name, value, what)| {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": format!("Used for system critical pods that {what}."),
            "preemptionPolicy": "PreemptLowerPriority",
        });
        (GroupResource::new("scheduling.k8s.io", "priorityclasses"), class)
    });
    namespaces.into_iter().chain(classes).collect()
}

async fn ensure_exists(objects: &dyn Objects, of: &GroupResource, wanted: &Value) -> Result<(), Status> {
    if objects.get_fresh(of, "", meta::name(wanted)).await?.is_some() {
        return Ok(());
    }
    match objects.create(of, "", wanted.clone(), SERVER).await {
        Err(status) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

async fn ensure(objects: &dyn Objects, plural: &str, wanted: &Value) -> Result<(), Status> {
    let of = GroupResource::new(GROUP, plural);
    let (namespace, name) = (meta::namespace(wanted), meta::name(wanted));
    let change = |current: &Value| reconciled(current, wanted);
    match objects.modify(&of, namespace, name, SERVER, &change).await {
        Err(status) if status.code == 404 => {}
        other => return other.map(drop),
    }
    match objects.create(&of, namespace, wanted.clone(), SERVER).await {
        // Another apiserver was faster, and it makes the same objects.
        Err(status) if status.code == 409 => {
            objects.modify(&of, namespace, name, SERVER, &change).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// Makes and reconciles the system namespaces, priority classes, roles and bindings. Safe to run from several apiservers
/// at once; writes nothing when nothing is missing.
///
/// # Errors
/// The store cannot be written.
pub async fn bootstrap(objects: &dyn Objects) -> Result<(), Status> {
    // First the namespaces: the Roles live in them.
    let fixtures = fixtures();
    futures::future::try_join_all(fixtures.iter().map(|(of, object)| ensure_exists(objects, of, object)))
        .await?;
    let wanted = wanted();
    let all: Vec<_> = wanted.iter().map(|(plural, object)| ensure(objects, plural, object)).collect();
    futures::stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
}
