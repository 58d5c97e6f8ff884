//! The processes of a cluster, as a pure function of its spec: on the host, and inside each node.

use crate::layout::Layout;
use crate::pki;
use crate::process::{Probe, Process};
use crate::spec::{STANDBYS, Spec};
use std::path::Path;

/// What every plan needs to know of the machine.
pub struct Ground<'a> {
    /// The cluster's facts.
    pub spec: &'a Spec,
    /// Where its files are.
    pub layout: &'a Layout,
    /// The `coracle` program.
    pub program: &'a Path,
}

/// Order in which processes are stopped: first those that need others.
mod stage {
    pub const NODES: u8 = 0;
    pub const CLIENTS: u8 = 1;
    pub const BALANCER: u8 = 2;
    pub const APISERVERS: u8 = 3;
    pub const STORES: u8 = 4;
}

/// A path as an argument.
fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

impl Ground<'_> {
    /// A process that runs a subcommand of `coracle`.
    fn process(&self, id: &str, component: &str, subcommand: &str, flags: &[(&str, String)]) -> Process {
        let mut command = vec![self.program.to_string_lossy().into_owned(), subcommand.to_owned()];
        command.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
        Process {
            id: id.to_owned(),
            component: component.to_owned(),
            command,
            endpoint: String::new(),
            probe: Probe::Alive,
            stage: stage::CLIENTS,
            grace_millis: 5_000,
            log: self.layout.log(&id.replace('/', "-")),
        }
    }

    /// Everything that runs in the host's namespaces, nodes' init processes included.
    #[must_use]
    pub fn host(&self) -> Vec<Process> {
        let spec = self.spec;
        let mut all: Vec<Process> = (0..spec.stores).map(|i| self.store(i)).collect();
        all.extend((0..spec.apiservers).map(|i| self.apiserver(i)));
        all.push(self.balancer());
        all.extend((0..STANDBYS).map(|i| self.standby("scheduler", i, spec.scheduler_port(i), &[])));
        let own = [
            ("root-ca-file", text(self.layout.cert("ca"))),
            ("cluster-signing-cert-file", text(self.layout.cert("ca"))),
            ("cluster-signing-key-file", text(self.layout.key("ca"))),
            ("service-account-private-key-file", text(self.layout.key("service-account"))),
            ("volume-dir", text(self.layout.volumes())),
        ];
        all.extend((0..STANDBYS).map(|i| self.standby("controllers", i, spec.controllers_port(i), &own)));
        if spec.simulated_nodes > 0 {
            all.push(self.simulator());
        }
        all.extend((0..spec.nodes).map(|i| self.node(i)));
        all
    }

    fn store(&self, i: u16) -> Process {
        let (spec, layout) = (self.spec, self.layout);
        let peer = |i: u16| format!("https://127.0.0.1:{}", spec.store_peer_port(i));
        let client = format!("https://127.0.0.1:{}", spec.store_client_port(i));
        let metrics = format!("127.0.0.1:{}", spec.store_metrics_port(i));
        let members: Vec<String> = (0..spec.stores).map(|i| format!("store-{i}={}", peer(i))).collect();
        let (ca, cert, key) =
            (text(layout.cert("ca")), text(layout.cert("store")), text(layout.key("store")));
        let flags = [
            ("name", format!("store-{i}")),
            ("data-dir", text(layout.store(i))),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client.clone()),
            ("listen-peer-urls", peer(i)),
            ("initial-advertise-peer-urls", peer(i)),
            ("initial-cluster", members.join(",")),
            ("initial-cluster-state", "new".to_owned()),
            ("listen-metrics-urls", format!("http://{metrics}")),
            ("cert-file", cert.clone()),
            ("key-file", key.clone()),
            ("trusted-ca-file", ca.clone()),
            ("peer-cert-file", cert),
            ("peer-key-file", key),
            ("peer-trusted-ca-file", ca),
        ];
        let mut process = self.process(&format!("store-{i}"), "store", "store", &flags);
        process.command.extend(["--client-cert-auth", "--peer-client-cert-auth"].map(str::to_owned));
        if let Some(etcd) = &spec.etcd {
            // The same flags, without our subcommand.
            process.command.splice(0..2, [text(etcd)]);
        }
        Process {
            endpoint: client,
            probe: Probe::Http { address: metrics, path: "/health".into() },
            stage: stage::STORES,
            ..process
        }
    }

    fn apiserver(&self, i: u16) -> Process {
        let (spec, layout) = (self.spec, self.layout);
        let stores: Vec<String> =
            (0..spec.stores).map(|i| format!("https://127.0.0.1:{}", spec.store_client_port(i))).collect();
        let mut flags = vec![
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", spec.apiserver_port(i).to_string()),
            ("advertise-address", spec.advertise_address().to_string()),
            ("etcd-servers", stores.join(",")),
            ("etcd-cafile", text(layout.cert("ca"))),
            ("etcd-certfile", text(layout.cert("apiserver-etcd-client"))),
            ("etcd-keyfile", text(layout.key("apiserver-etcd-client"))),
            ("tls-cert-file", text(layout.cert("apiserver"))),
            ("tls-private-key-file", text(layout.key("apiserver"))),
            ("client-ca-file", text(layout.cert("ca"))),
            ("service-account-key-file", text(layout.pki().join("service-account.pub"))),
            ("service-account-signing-key-file", text(layout.key("service-account"))),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
            ("allow-privileged", "true".to_owned()),
            ("enable-bootstrap-token-auth", "true".to_owned()),
            ("kubelet-preferred-address-types", "InternalIP".to_owned()),
            ("enable-admission-plugins", "NodeRestriction".to_owned()),
            ("addons-file", text(layout.addons())),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("kubelet-certificate-authority", text(layout.cert("ca"))),
            ("kubelet-client-certificate", text(layout.cert("apiserver-kubelet-client"))),
            ("kubelet-client-key", text(layout.key("apiserver-kubelet-client"))),
            ("proxy-client-cert-file", text(layout.cert(pki::FRONT_PROXY))),
            ("proxy-client-key-file", text(layout.key(pki::FRONT_PROXY))),
            ("requestheader-client-ca-file", text(layout.cert(pki::FRONT_PROXY_CA))),
            ("requestheader-allowed-names", pki::FRONT_PROXY.to_owned()),
            ("requestheader-uid-headers", "X-Remote-Uid".to_owned()),
        ];
        if spec.has_network() {
            flags.push(("bind-address", spec.bridge_address().to_string()));
        }
        let address = format!("127.0.0.1:{}", spec.apiserver_port(i));
        Process {
            endpoint: format!("https://{address}"),
            probe: Probe::Https { address, path: "/readyz".into() },
            stage: stage::APISERVERS,
            ..self.process(&format!("apiserver-{i}"), "apiserver", "apiserver", &flags)
        }
    }

    fn balancer(&self) -> Process {
        let spec = self.spec;
        let mut flags = vec![("listen", format!("127.0.0.1:{}", spec.balancer_port()))];
        if spec.has_network() {
            flags.push(("listen", format!("{}:{}", spec.bridge_address(), spec.balancer_port())));
        }
        flags.extend(
            (0..spec.apiservers).map(|i| ("backend", format!("127.0.0.1:{}", spec.apiserver_port(i)))),
        );
        let address = format!("127.0.0.1:{}", spec.balancer_port());
        Process {
            endpoint: format!("https://{address}"),
            probe: Probe::Tcp { address },
            stage: stage::BALANCER,
            grace_millis: 1_000,
            ..self.process("balancer", "balancer", "run-balancer", &flags)
        }
    }

    /// A component of which one leads and others wait.
    fn standby(&self, component: &str, i: u16, port: u16, more: &[(&str, String)]) -> Process {
        let mut flags = vec![
            ("kubeconfig", text(self.layout.kubeconfig(component))),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", port.to_string()),
            ("leader-elect-identity", format!("{component}-{i}")),
        ];
        flags.extend_from_slice(more);
        let address = format!("127.0.0.1:{port}");
        Process {
            endpoint: format!("http://{address}"),
            probe: Probe::Http { address, path: "/healthz".into() },
            ..self.process(&format!("{component}-{i}"), component, component, &flags)
        }
    }

    fn simulator(&self) -> Process {
        let (spec, layout) = (self.spec, self.layout);
        let flags = [
            ("kubeconfig", text(layout.kubeconfig("simulator"))),
            ("simulated-nodes", spec.simulated_nodes.to_string()),
            ("simulated-node-prefix", format!("{}-simulated", spec.name)),
            ("root-dir", text(layout.node("simulated"))),
            ("node-ip", spec.advertise_address().to_string()),
            ("address", spec.advertise_address().to_string()),
            ("port", spec.simulator_port().to_string()),
            ("tls-cert-file", text(layout.cert("simulator"))),
            ("tls-private-key-file", text(layout.key("simulator"))),
            ("client-ca-file", text(layout.cert("ca"))),
        ];
        let address = format!("{}:{}", spec.advertise_address(), spec.simulator_port());
        Process {
            endpoint: format!("https://{address}"),
            probe: Probe::Https { address, path: "/healthz".into() },
            ..self.process("simulated-nodes", "kubelet", "kubelet", &flags)
        }
    }

    fn node(&self, i: u16) -> Process {
        let name = self.spec.node_name(i);
        let flags = [("dir", text(self.layout.dir())), ("index", i.to_string())];
        Process {
            endpoint: self.spec.node_address(i).to_string(),
            stage: stage::NODES,
            grace_millis: 10_000,
            ..self.process(&name, "node", "run-node", &flags)
        }
    }

    /// Everything that runs inside node `i`.
    #[must_use]
    pub fn inside_node(&self, i: u16) -> Vec<Process> {
        let (spec, layout) = (self.spec, self.layout);
        let (name, address) = (spec.node_name(i), spec.node_address(i));
        let files = layout.node(&name);
        let id = |component: &str| format!("{name}/{component}");
        let kubelet = self.process(
            &id("kubelet"),
            "kubelet",
            "kubelet",
            &[
                ("kubeconfig", text(layout.kubeconfig(&name))),
                ("hostname-override", name.clone()),
                ("node-ip", address.to_string()),
                ("pod-cidr", spec.pod_cidr(i).to_string()),
                ("container-runtime-endpoint", "unix:///run/containerd/containerd.sock".to_owned()),
                ("root-dir", text(files.join("kubelet"))),
                ("cluster-dns", "10.96.0.10".to_owned()),
                ("cluster-domain", "cluster.local".to_owned()),
                ("cgroup-root", spec.cgroup(i)),
                ("tls-cert-file", text(layout.cert(&name))),
                ("tls-private-key-file", text(layout.key(&name))),
                ("client-ca-file", text(layout.cert("ca"))),
            ],
        );
        let kubelet = Process {
            endpoint: format!("https://{address}:10250"),
            probe: Probe::Https { address: format!("{address}:10250"), path: "/healthz".into() },
            ..kubelet
        };
        let healthz = format!("{address}:10256");
        let proxy = self.process(
            &id("proxy"),
            "proxy",
            "proxy",
            &[
                ("kubeconfig", text(layout.kubeconfig("proxy"))),
                ("hostname-override", name.clone()),
                ("cluster-cidr", spec.cluster_cidr().to_string()),
                ("healthz-bind-address", healthz.clone()),
            ],
        );
        let proxy = Process {
            endpoint: format!("http://{healthz}"),
            probe: Probe::Http { address: healthz, path: "/healthz".into() },
            ..proxy
        };
        let dns_healthz = format!("{address}:10254");
        let dns = self.process(
            &id("dns"),
            "dns",
            "dns",
            &[
                ("kubeconfig", text(layout.kubeconfig("dns"))),
                ("node-name", name.clone()),
                ("listen", format!("{address}:53")),
                ("cluster-domain", "cluster.local".to_owned()),
                ("healthz-bind-address", dns_healthz.clone()),
            ],
        );
        let dns = Process {
            endpoint: format!("dns://{address}:53"),
            probe: Probe::Http { address: dns_healthz, path: "/healthz".into() },
            ..dns
        };
        vec![self.containerd(&name), kubelet, proxy, dns]
    }

    fn containerd(&self, node: &str) -> Process {
        let config = self.layout.node(node).join("containerd.toml");
        Process {
            command: vec!["containerd".to_owned(), format!("--config={}", text(config))],
            endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            stage: stage::STORES,
            ..self.process(&format!("{node}/containerd"), "containerd", "", &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_depends_on_nothing_but_the_spec_and_the_paths() {
        let spec = Spec {
            name: "t".into(),
            stores: 3,
            apiservers: 2,
            nodes: 2,
            simulated_nodes: 0,
            base_port: 6443,
            subnet: 0,
            etcd: None,
        };
        let layout = Layout::at(Path::new("/c"));
        let ground = Ground { spec: &spec, layout: &layout, program: Path::new("/bin/coracle") };
        let ids: Vec<String> = ground.host().into_iter().map(|process| process.id).collect();
        assert_eq!(
            ids,
            [
                "store-0",
                "store-1",
                "store-2",
                "apiserver-0",
                "apiserver-1",
                "balancer",
                "scheduler-0",
                "scheduler-1",
                "controllers-0",
                "controllers-1",
                "t-node-0",
                "t-node-1"
            ]
        );
        assert_eq!(ground.host(), ground.host());
        let inside: Vec<String> = ground.inside_node(1).into_iter().map(|process| process.id).collect();
        assert_eq!(inside, ["t-node-1/containerd", "t-node-1/kubelet", "t-node-1/proxy", "t-node-1/dns"]);
    }
}
