//! What pods may read of themselves: `fieldRef` and `resourceFieldRef`, in environments and downwardAPI volumes.

use super::{ConfigError, Surroundings, text};
use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceFieldSelector};
use std::collections::BTreeMap;

/// The value of a field of the pod; `ip` is its address, once it has one.
///
/// # Errors
/// The path names nothing that may be read.
pub fn of_pod(pod: &Pod, path: &str, ip: &str, around: &Surroundings) -> Result<String, ConfigError> {
    let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(unsupported(path)),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()).to_owned(),
        "metadata.namespace" => text(meta.namespace.as_ref()).to_owned(),
        "metadata.uid" => text(meta.uid.as_ref()).to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => around.node.clone(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.hostIP" | "status.hostIPs" => around.host.to_string(),
        "status.podIP" | "status.podIPs" => ip.to_owned(),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> ConfigError {
    ConfigError::Impossible(format!("unsupported fieldPath: {path}"))
}

/// `map['key']`
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A map as lines `key="value"`.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// The value of a container's request or limit, in units of its divisor, rounded up.
///
/// # Errors
/// There is no such container or resource.
pub fn of_container(
    spec: &PodSpec,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    around: &Surroundings,
) -> Result<String, ConfigError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        None => own,
        Some(name) => crate::step::containers_of(spec).find(|container| container.name == name),
    };
    let container = container.ok_or_else(|| {
        ConfigError::Impossible(format!("container {} not found", named.unwrap_or_default()))
    })?;
    let resources = container.resources.as_ref();
    let unknown =
        || ConfigError::Impossible(format!("unsupported container resource : {}", selector.resource));
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let (set, capped) = match kind {
        "limits" => (resources.and_then(|resources| resources.limits.as_ref()), true),
        "requests" => (resources.and_then(|resources| resources.requests.as_ref()), false),
        _ => return Err(unknown()),
    };
    let given = set.and_then(|set| set.get(name)).and_then(|quantity| Quantity::parse(&quantity.0).ok());
    // A container without a limit may use all of the node.
    let most = match name {
        "cpu" => Quantity::from_milli(around.cpu_millis),
        "memory" => Quantity::from_bytes(around.memory_bytes),
        "ephemeral-storage" => Quantity::from_bytes(around.disk_bytes),
        _ if name.starts_with("hugepages-") => Quantity::ZERO,
        _ => return Err(unknown()),
    };
    let amount = given.unwrap_or(if capped { most } else { Quantity::ZERO });
    let divisor = selector.divisor.as_ref().and_then(|divisor| Quantity::parse(&divisor.0).ok());
    let divisor = divisor.filter(|divisor| !divisor.is_zero()).unwrap_or(Quantity::from_units(1));
    Ok(divided(name, amount, divisor).to_string())
}

/// Processors are counted in thousandths, everything else in units.
fn divided(name: &str, amount: Quantity, divisor: Quantity) -> i64 {
    let (amount, divisor) = if name == "cpu" {
        (amount.milli_value(), divisor.milli_value())
    } else {
        (amount.value(), divisor.value())
    };
    let divisor = divisor.max(1);
    amount / divisor + i64::from(amount % divisor > 0)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    pub fn around() -> Surroundings {
        Surroundings {
            node: "n".into(),
            host: "10.89.0.10".parse().unwrap(),
            memory_bytes: 1 << 30,
            cpu_millis: 2000,
            disk_bytes: 1 << 34,
            dns: vec!["10.96.0.10".parse().unwrap()],
            domain: "cluster.local".into(),
            cgroup_root: "/".into(),
        }
    }

    #[test]
    fn pods_read_themselves() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u", "labels": { "a": "1", "b": "x\"y" } },
            "spec": { "containers": [], "serviceAccountName": "sa" },
        }))
        .unwrap();
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.uid", "u"),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['c']", ""),
            ("metadata.labels", "a=\"1\"\nb=\"x\\\"y\""),
            ("spec.nodeName", "n"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.1.1.1"),
            ("status.hostIP", "10.89.0.10"),
        ] {
            assert_eq!(of_pod(&pod, path, "10.1.1.1", &around()).unwrap(), expected, "{path}");
        }
        assert!(of_pod(&pod, "spec.containers", "", &around()).is_err());
    }

    #[test]
    fn containers_read_their_limits_in_units_of_a_divisor() {
        let spec: PodSpec = serde_json::from_value(json!({ "containers": [
            { "name": "a", "resources": { "limits": { "cpu": "1500m", "memory": "100Mi" }, "requests": { "cpu": "100m" } } },
            { "name": "b" },
        ] }))
        .unwrap();
        for (container, resource, divisor, expected) in [
            ("a", "limits.cpu", "0", "2"),
            ("a", "limits.cpu", "1m", "1500"),
            ("a", "requests.cpu", "1m", "100"),
            ("a", "limits.memory", "1Mi", "100"),
            ("a", "limits.memory", "1Gi", "1"),
            ("b", "limits.cpu", "1", "2"),
            ("b", "limits.memory", "1Mi", "1024"),
            ("b", "requests.memory", "1", "0"),
        ] {
            let selector = serde_json::from_value(
                json!({ "containerName": container, "resource": resource, "divisor": divisor }),
            )
            .unwrap();
            let got = of_container(&spec, None, &selector, &around()).unwrap();
            assert_eq!(got, expected, "{container} {resource} / {divisor}");
        }
    }
}
