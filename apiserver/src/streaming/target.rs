//! Which container is meant, and where the kubelet of its node listens. Pure.

use coracle_api::meta;
use coracle_api::status::Status;
use serde_json::Value;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const KUBELET_PORT: u16 = 10250;

fn names(pod: &Value, list: &str) -> Vec<String> {
    let containers = pod["spec"][list].as_array();
    containers.into_iter().flatten().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
}

/// The asked container of a pod; of those that ask for none, the only one or the one that the pod calls its default.
///
/// # Errors
/// 400 when there is none of that name, or a choice must be made.
pub fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let (own, name) = (names(pod, "containers"), meta::name(pod));
    let all: Vec<String> =
        [names(pod, "initContainers"), own.clone(), names(pod, "ephemeralContainers")].concat();
    if !asked.is_empty() {
        if all.iter().any(|container| container == asked) {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    let default = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    match (own.as_slice(), default) {
        ([], _) => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        ([only], _) => Ok(only.clone()),
        (_, Some(default)) if all.iter().any(|container| container == default) => Ok(default.to_owned()),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// The node that a pod is bound to.
pub fn node(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
}

/// Host and port of a node's kubelet: the first of its addresses of the types in their order.
///
/// # Errors
/// 500 when the node tells no address.
pub fn kubelet_address(node: &Value, types: &[String]) -> Result<(String, u16), Status> {
    let addresses = || node["status"]["addresses"].as_array().into_iter().flatten();
    let of_type = |wanted: &str| {
        let found = addresses().find(|address| address["type"] == wanted)?;
        found["address"].as_str().filter(|address| !address.is_empty())
    };
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port =
        port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(KUBELET_PORT);
    match types.iter().find_map(|wanted| of_type(wanted)) {
        Some(host) => Ok((host.to_owned(), port)),
        None => {
            let known: Vec<String> = addresses().map(Value::to_string).collect();
            let text = format!("no preferred addresses found; known addresses: [{}]", known.join(" "));
            Err(Status::new(500, "", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: &[&str], annotation: Option<&str>) -> Value {
        let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
        json!({"metadata": {"name": "p", "annotations": {DEFAULT_CONTAINER: annotation}},
            "spec": {"initContainers": [{"name": "init"}], "containers": containers}})
    }

    #[test]
    fn a_container_is_chosen_or_asked_for() {
        let cases = [
            (pod(&["a"], None), "", Ok("a")),
            (pod(&["a", "b"], None), "b", Ok("b")),
            (pod(&["a", "b"], None), "init", Ok("init")),
            (pod(&["a", "b"], Some("b")), "", Ok("b")),
            (
                pod(&["a", "b"], None),
                "",
                Err("a container name must be specified for pod p, choose one of: [init a b]"),
            ),
            (pod(&["a"], None), "z", Err("container z is not valid for pod p")),
        ];
        for (pod, asked, want) in cases {
            let got = container(&pod, asked).map_err(|status| status.message);
            assert_eq!(got.as_deref().map_err(String::as_str), want);
        }
    }

    #[test]
    fn the_kubelet_is_where_its_node_says() {
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10255}}}});
        let types = ["InternalIP", "Hostname"].map(str::to_owned);
        assert_eq!(kubelet_address(&node, &types).expect("address"), ("10.0.0.1".to_owned(), 10255));
        assert_eq!(kubelet_address(&node, &types[1..]).expect("address"), ("n1".to_owned(), 10255));
        let bare = json!({"status": {"addresses": [{"type": "Hostname", "address": "n1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}}});
        assert_eq!(kubelet_address(&bare, &types).expect("address"), ("n1".to_owned(), 10250));
        assert_eq!(kubelet_address(&json!({}), &types).expect_err("none").code, 500);
    }
}
