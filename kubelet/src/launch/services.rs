//! Environment variables that tell of Services, as upstream sets them for every container.

use super::text;
use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The variables for a pod of `namespace`: always those of the apiserver's Service, with `links` also its namespace's.
pub fn variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut wanted: Vec<&Service> = services
        .filter(|service| {
            let (ns, name) =
                (text(service.metadata.namespace.as_ref()), text(service.metadata.name.as_ref()));
            has_address(service) && ((ns == "default" && name == "kubernetes") || (links && ns == namespace))
        })
        .collect();
    // A Service `kubernetes` of the pod's own namespace wins over the apiserver's, so that one comes last.
    wanted.sort_by_key(|service| {
        (text(service.metadata.namespace.as_ref()) == namespace, service.metadata.name.clone())
    });
    wanted.into_iter().flat_map(of_service).collect()
}

fn address(service: &Service) -> &str {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default()
}

fn has_address(service: &Service) -> bool {
    !matches!(address(service), "" | "None")
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let name = variable_name(text(service.metadata.name.as_ref()));
    let address = address(service);
    let ports: &[ServicePort] =
        service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut all = vec![(format!("{name}_SERVICE_HOST"), address.to_owned())];
    if let Some(first) = ports.first() {
        all.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    }
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            all.push((format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string()));
        }
    }
    for (at, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{address}:{}", protocol.to_lowercase(), port.port);
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        if at == 0 {
            all.push((format!("{name}_PORT"), url.clone()));
        }
        all.push((prefix.clone(), url));
        all.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        all.push((format!("{prefix}_PORT"), port.port.to_string()));
        all.push((format!("{prefix}_ADDR"), address.to_owned()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_of_the_namespace_and_the_apiserver_are_told() {
        let services: Vec<Service> = serde_json::from_value(json!([
            { "metadata": { "namespace": "default", "name": "kubernetes" },
              "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "https", "port": 443 }] } },
            { "metadata": { "namespace": "ns", "name": "my-db" },
              "spec": { "clusterIP": "10.96.0.7", "ports": [{ "port": 53, "protocol": "UDP" }] } },
            { "metadata": { "namespace": "ns", "name": "headless" }, "spec": { "clusterIP": "None" } },
            { "metadata": { "namespace": "other", "name": "x" }, "spec": { "clusterIP": "10.96.0.8" } },
        ]))
        .unwrap();
        let told = variables(services.iter(), "ns", true);
        let has = |name: &str| told.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        for (name, value) in [
            ("KUBERNETES_SERVICE_HOST", Some("10.96.0.1")),
            ("KUBERNETES_SERVICE_PORT_HTTPS", Some("443")),
            ("KUBERNETES_PORT_443_TCP_ADDR", Some("10.96.0.1")),
            ("MY_DB_PORT", Some("udp://10.96.0.7:53")),
            ("MY_DB_PORT_53_UDP_PROTO", Some("udp")),
            ("HEADLESS_SERVICE_HOST", None),
            ("X_SERVICE_HOST", None),
        ] {
            assert_eq!(has(name), value, "{name}");
        }
        let without = variables(services.iter(), "ns", false);
        assert!(without.iter().all(|(name, _)| name.starts_with("KUBERNETES_")));
    }
}
