//! What one object counts for in a quota. Pure.

use crate::admission::resources::{Amounts, amounts, containers, pod_total};
use crate::admission::{CREATE, UPDATE};
use coracle_api::meta;
use coracle_api::quantity::Quantity;
use coracle_api::status::GroupResource;
use serde_json::Value;

const ONE: Quantity = Quantity::from_units(1);
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Core kinds that quotas also name without `count/`.
const PLAIN: [&str; 7] = [
    "pods",
    "services",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
];

/// Whether this operation can change what the resource uses.
pub fn handles(operation: &str, of: &GroupResource) -> bool {
    let grows = of.group.is_empty() && ["services", "persistentvolumeclaims"].contains(&of.resource.as_str());
    operation == CREATE || (operation == UPDATE && grows)
}

/// All that an object counts for, by the names that quotas use.
pub fn of(of: &GroupResource, object: &Value) -> Amounts {
    let mut used = Amounts::from([(format!("count/{of}"), ONE)]);
    if !of.group.is_empty() {
        return used;
    }
    let finished = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if of.resource == "pods" && finished {
        // It runs no more: it is only an object.
        return used;
    }
    if PLAIN.contains(&of.resource.as_str()) {
        used.insert(of.resource.clone(), ONE);
    }
    match of.resource.as_str() {
        "pods" => pod(object, &mut used),
        "services" => service(object, &mut used),
        "persistentvolumeclaims" => claim(object, &mut used),
        _ => {}
    }
    used
}

fn pod(pod: &Value, used: &mut Amounts) {
    for (name, amount) in pod_total(&pod["spec"], "requests") {
        if ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_total(&pod["spec"], "limits") {
        used.insert(format!("limits.{name}"), amount);
    }
}

fn service(service: &Value, used: &mut Amounts) {
    let ports = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    let ports = Quantity::from_units(i64::try_from(ports).unwrap_or(i64::MAX));
    match service["spec"]["type"].as_str() {
        Some("NodePort") => {
            used.insert("services.nodeports".to_owned(), ports);
        }
        Some("LoadBalancer") => {
            used.insert("services.loadbalancers".to_owned(), ONE);
            if service["spec"]["allocateLoadBalancerNodePorts"] != false {
                used.insert("services.nodeports".to_owned(), ports);
            }
        }
        _ => {}
    }
}

fn claim(claim: &Value, used: &mut Amounts) {
    let class = claim["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty());
    if let Some(class) = class {
        used.insert(format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), ONE);
    }
    if let Some(storage) = amounts(&claim["spec"]["resources"]["requests"]).get("storage") {
        used.insert("requests.storage".to_owned(), *storage);
        if let Some(class) = class {
            used.insert(format!("{class}{STORAGE_CLASS}requests.storage"), *storage);
        }
    }
}

/// What a quota needs to know of a pod's containers and is not told: `requests.cpu for: a,b`.
pub fn unspecified(of: &GroupResource, pod: &Value, hard: &Amounts) -> Vec<String> {
    if !of.group.is_empty() || of.resource != "pods" {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for name in hard.keys() {
        let (which, resource) = match name.split_once('.') {
            Some((which @ ("requests" | "limits"), resource)) => (which, resource),
            _ => ("requests", name.as_str()),
        };
        if !["cpu", "memory"].contains(&resource) {
            continue;
        }
        let spec = &pod["spec"];
        let all = containers(spec, "initContainers").chain(containers(spec, "containers"));
        let without = all.filter(|container| container["resources"][which][resource].is_null());
        let mut names: Vec<&str> = without.filter_map(|container| container["name"].as_str()).collect();
        names.sort_unstable();
        if !names.is_empty() {
            missing.push(format!("{name} for: {}", names.join(",")));
        }
    }
    missing
}

/// One scope: its name, operator and values.
type Scope<'a> = (&'a str, &'a str, &'a Value);

fn expression(expression: &Value) -> Scope<'_> {
    let text = |key: &str| expression[key].as_str().unwrap_or_default();
    (text("scopeName"), text("operator"), &expression["values"])
}

fn scopes(quota: &Value) -> impl Iterator<Item = Scope<'_>> {
    let named = meta::strings(&quota["spec"]["scopes"]).map(|scope| (scope, "Exists", &Value::Null));
    let expressions = quota["spec"]["scopeSelector"]["matchExpressions"].as_array();
    named.chain(expressions.into_iter().flatten().map(expression))
}

/// Only pods have scopes.
fn is_pod(of: &GroupResource) -> bool {
    of.group.is_empty() && of.resource == "pods"
}

fn scope_takes_object((scope, operator, values): Scope<'_>, of: &GroupResource, object: &Value) -> bool {
    is_pod(of) && scope_takes(scope, operator, values, &object["spec"])
}

/// Whether the quota's scopes take the object in.
pub fn in_scope(quota: &Value, of: &GroupResource, object: &Value) -> bool {
    scopes(quota).all(|scope| scope_takes_object(scope, of, object))
}

/// Whether a scope does, written as an expression.
pub fn takes(scope: &Value, of: &GroupResource, object: &Value) -> bool {
    scope_takes_object(expression(scope), of, object)
}

/// The names of those of a quota's scopes that do.
pub fn scopes_that_take(quota: &Value, of: &GroupResource, object: &Value) -> Vec<String> {
    let taking = scopes(quota).filter(|scope| scope_takes_object(*scope, of, object));
    taking.map(|(name, ..)| name.to_owned()).collect()
}

fn scope_takes(scope: &str, operator: &str, values: &Value, spec: &Value) -> bool {
    let terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => is_best_effort(spec),
        "NotBestEffort" => !is_best_effort(spec),
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().unwrap_or_default();
            let listed = meta::strings(values).any(|value| value == class);
            match operator {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                _ => false,
            }
        }
        "CrossNamespacePodAffinity" => mentions_namespaces(&spec["affinity"]),
        _ => false,
    }
}

fn is_best_effort(spec: &Value) -> bool {
    let asks = |container: &Value| {
        let resources = &container["resources"];
        ["requests", "limits"].iter().any(|which| {
            amounts(&resources[which])
                .iter()
                .any(|(name, amount)| ["cpu", "memory"].contains(&name.as_str()) && !amount.is_zero())
        })
    };
    !containers(spec, "containers").chain(containers(spec, "initContainers")).any(asks)
}

/// Whether a pod's affinity terms look into other namespaces.
fn mentions_namespaces(affinity: &Value) -> bool {
    match affinity {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let named = key == "namespaces" && value.as_array().is_some_and(|names| !names.is_empty());
            named || (key == "namespaceSelector" && value.is_object()) || mentions_namespaces(value)
        }),
        Value::Array(items) => items.iter().any(mentions_namespaces),
        _ => false,
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "the tables read better with values written in place")]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(resource: &str, object: Value) -> String {
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let used = of(&GroupResource::new(group, resource), &object);
        used.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_object_counts_under_every_name_that_quotas_use() {
        let container = json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}});
        let cases = [
            ("deployments.apps", json!({}), "count/deployments.apps=1"),
            ("secrets", json!({}), "count/secrets=1 secrets=1"),
            (
                "pods",
                json!({"spec": {"containers": [container]}}),
                "count/pods=1 cpu=1 limits.cpu=2 pods=1 requests.cpu=1",
            ),
            (
                "pods",
                json!({"spec": {"containers": [container]}, "status": {"phase": "Failed"}}),
                "count/pods=1",
            ),
            (
                "services",
                json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}}),
                "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2",
            ),
            (
                "persistentvolumeclaims",
                json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}),
                "count/persistentvolumeclaims=1 persistentvolumeclaims=1 requests.storage=1Gi",
            ),
        ];
        for (resource, object, want) in cases {
            assert_eq!(told(resource, object), want, "{resource}");
        }
    }

    #[test]
    fn scopes_choose_pods_and_nothing_else() {
        let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
        let pods = GroupResource::new("", "pods");
        let idle = json!({"spec": {"containers": [{}]}});
        let busy = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}], "activeDeadlineSeconds": 5}});
        for (scope, of_idle, of_busy) in [
            ("BestEffort", true, false),
            ("NotBestEffort", false, true),
            ("Terminating", false, true),
            ("NotTerminating", true, false),
        ] {
            assert_eq!(in_scope(&quota(scope), &pods, &idle), of_idle, "{scope}");
            assert_eq!(in_scope(&quota(scope), &pods, &busy), of_busy, "{scope}");
        }
        assert!(!in_scope(&quota("BestEffort"), &GroupResource::new("", "secrets"), &json!({})));
        let high = json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
        assert!(in_scope(&high, &pods, &json!({"spec": {"priorityClassName": "high"}})));
        assert!(!in_scope(&high, &pods, &idle));
    }
}
