//! Names inside a pod: its host name, /etc/hosts and /etc/resolv.conf.

use super::{Surroundings, on_host_network, text};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use std::fmt::Write;

/// Longest host name that Linux takes.
const HOSTNAME_MAX: usize = 63;
/// What resolvers take, in upstream's bounds.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// The host name inside.
pub fn hostname(pod: &Pod, spec: &PodSpec, around: &Surroundings) -> String {
    if on_host_network(spec) {
        return around.node.clone();
    }
    if spec.set_hostname_as_fqdn == Some(true)
        && let Some(full) = domain_name(pod, spec, around)
    {
        return full;
    }
    short(pod, spec)
}

fn short(pod: &Pod, spec: &PodSpec) -> String {
    if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    let name = text(pod.metadata.name.as_ref());
    let cut = name.get(..HOSTNAME_MAX).unwrap_or(name);
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn domain_name(pod: &Pod, spec: &PodSpec, around: &Surroundings) -> Option<String> {
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = text(pod.metadata.namespace.as_ref());
    Some(format!("{}.{subdomain}.{namespace}.svc.{}", short(pod, spec), around.domain))
}

/// /etc/hosts; `host` is the node's own file.
pub fn hosts(pod: &Pod, spec: &PodSpec, ip: &str, host: &str, around: &Surroundings) -> String {
    let mut out = if on_host_network(spec) {
        format!("# Kubernetes-managed hosts file (host network).\n{host}")
    } else {
        let mut own = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
        let full = domain_name(pod, spec, around).map(|full| format!("{full}\t")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(own, "{ip}\t{full}{}", short(pod, spec));
        own
    };
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(out, "{}\t{names}", alias.ip);
    }
    out
}

/// What a resolver asks, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(file: &str) -> Self {
        let mut all = Self::default();
        for line in file.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => all.servers.extend(words.next().map(str::to_owned)),
                Some("search") => all.searches = words.map(str::to_owned).collect(),
                Some("options") => all.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        all
    }

    fn write(&self) -> String {
        let mut out = String::new();
        for server in self.servers.iter().take(NAMESERVERS_MAX) {
            let _ = writeln!(out, "nameserver {server}");
        }
        if !self.searches.is_empty() {
            let searches = self.searches.iter().take(SEARCHES_MAX).map(String::as_str).collect::<Vec<_>>();
            let _ = writeln!(out, "search {}", searches.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(out, "options {}", self.options.join(" "));
        }
        out
    }

    fn add_options(&mut self, name: &str, value: Option<&str>) {
        self.options.retain(|option| option.split(':').next() != Some(name));
        self.options.push(value.map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
    }
}

/// /etc/resolv.conf by the pod's DNS policy; `host` is the node's own file.
pub fn resolv_conf(pod: &Pod, spec: &PodSpec, host: &str, around: &Surroundings) -> String {
    let host = Resolver::parse(host);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !on_host_network(spec),
        other => other == "ClusterFirstWithHostNet",
    };
    let mut all = match policy {
        "None" => Resolver::default(),
        _ if cluster && !around.dns.is_empty() => {
            let (ns, domain) = (text(pod.metadata.namespace.as_ref()), &around.domain);
            let own = [format!("{ns}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            Resolver {
                servers: around.dns.iter().map(ToString::to_string).collect(),
                searches: own.into_iter().chain(host.searches).collect(),
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => host,
    };
    if let Some(config) = &spec.dns_config {
        all.servers.extend(config.nameservers.iter().flatten().cloned());
        all.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            all.add_options(text(option.name.as_ref()), option.value.as_deref());
        }
    }
    let mut seen = std::collections::HashSet::new();
    all.searches.retain(|search| seen.insert(search.clone()));
    let mut seen = std::collections::HashSet::new();
    all.servers.retain(|server| seen.insert(server.clone()));
    all.write()
}

#[cfg(test)]
mod tests {
    use super::super::fields::tests::around;
    use super::*;
    use serde_json::{Value, json};

    const HOST: &str = "nameserver 1.1.1.1\nsearch example.org\noptions timeout:2\n";

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let meta = json!({ "name": "web-0", "namespace": "ns" });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
    }

    #[test]
    fn the_resolver_follows_the_dns_policy() {
        let cluster = "nameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local cluster.local example.org\noptions ndots:5\n";
        for (spec, expected) in [
            (json!({}), cluster.to_owned()),
            (json!({ "dnsPolicy": "Default" }), HOST.to_owned()),
            (json!({ "hostNetwork": true }), HOST.to_owned()),
            (json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" }), cluster.to_owned()),
            (
                json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["9.9.9.9"], "searches": ["x"],
                        "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } }),
                "nameserver 9.9.9.9\nsearch x\noptions ndots:2 edns0\n".to_owned(),
            ),
            (
                json!({ "dnsConfig": { "options": [{ "name": "ndots", "value": "1" }] } }),
                cluster.replace("ndots:5", "ndots:1"),
            ),
        ] {
            let pod = pod(spec.clone());
            assert_eq!(resolv_conf(&pod, pod.spec.as_ref().unwrap(), HOST, &around()), expected, "{spec}");
        }
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let pod = pod(json!({ "hostname": "h", "subdomain": "sub",
            "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }] }));
        let got = hosts(&pod, pod.spec.as_ref().unwrap(), "10.1.1.1", "", &around());
        assert!(got.contains("\n10.1.1.1\th.sub.ns.svc.cluster.local\th\n"), "{got}");
        assert!(got.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{got}");
    }

    #[test]
    fn host_names_come_from_spec_pod_or_node() {
        for (spec, expected) in [
            (json!({}), "web-0"),
            (json!({ "hostname": "h" }), "h"),
            (
                json!({ "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true }),
                "h.s.ns.svc.cluster.local",
            ),
            (json!({ "hostNetwork": true }), "n"),
        ] {
            let pod = pod(spec);
            assert_eq!(hostname(&pod, pod.spec.as_ref().unwrap(), &around()), expected);
        }
    }
}
