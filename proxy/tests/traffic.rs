//! Packets through the rules: a node, two pods on it and a client outside, each a network namespace. Needs root, ip and nft.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sched::{CloneFlags, setns};
use proxy::compile::compile;
use proxy::nft;
use proxy::ruleset::Ruleset;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const WAIT: Duration = Duration::from_millis(700);
const CLUSTER_IP: &str = "10.96.0.5:80";
const NODE_PORT: &str = "192.0.2.1:30080";
const PODS: [&str; 2] = ["10.244.0.10", "10.244.0.11"];

/// The namespaces of one test; they go with it.
struct Lab {
    prefix: String,
    loaded: Ruleset,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["node", "pod0", "pod1", "out"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}{name}", self.prefix)]).status();
        }
    }
}

fn service(spec: &Value) -> Service {
    let mut all = json!({ "clusterIP": "10.96.0.5", "type": "NodePort", "ports": [
        { "name": "tcp", "port": 80, "nodePort": 30080, "protocol": "TCP" },
        { "name": "udp", "port": 80, "nodePort": 30080, "protocol": "UDP" },
    ] });
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({ "metadata": { "namespace": "d", "name": "web" }, "spec": all }))
        .expect("a Service")
}

/// Endpoints as `address@node`.
fn slice(endpoints: &[&str]) -> EndpointSlice {
    let endpoint = |text: &&str| {
        let (address, node) = text.split_once('@').unwrap_or((text, "n"));
        json!({ "addresses": [address], "nodeName": node })
    };
    let meta =
        json!({ "namespace": "d", "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } });
    let ports = ["TCP", "UDP"]
        .map(|protocol| json!({ "name": protocol.to_lowercase(), "port": 8080, "protocol": protocol }));
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    serde_json::from_value(
        json!({ "metadata": meta, "addressType": "IPv4", "ports": ports, "endpoints": endpoints }),
    )
    .expect("a slice")
}

/// Runs `work` in a namespace, on a thread of its own.
fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("entered");
        work()
    })
}

/// Answers `name` and the address that it sees, over TCP and UDP.
fn serve(namespace: &str, name: &'static str) {
    let (tcp, udp) = inside(namespace, || {
        (TcpListener::bind("0.0.0.0:8080").expect("bound"), UdpSocket::bind("0.0.0.0:8080").expect("bound"))
    })
    .join()
    .expect("sockets");
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
            let _ = write!(stream, "{name} {peer}");
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

impl Lab {
    /// `None` without root, ip or nft.
    fn new() -> Option<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("cp{}-{}-", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self { prefix, loaded: Ruleset::default() };
        let mut script = "set -e\n".to_owned();
        let p = &lab.prefix;
        for name in ["node", "pod0", "pod1", "out"] {
            script += &format!("ip netns add {p}{name}\nip -n {p}{name} link set lo up\n");
        }
        script += &format!(
            "ip netns exec {p}node sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/all/send_redirects; echo 0 >/proc/sys/net/ipv4/conf/default/send_redirects'\n"
        );
        let links = [
            ("pod0", PODS[0], "10.244.0.1"),
            ("pod1", PODS[1], "10.244.0.1"),
            ("out", "192.0.2.2", "192.0.2.1"),
        ];
        for (name, own, node) in links {
            script += &format!(
                "ip -n {p}node link add {name} type veth peer name eth0 netns {p}{name}\nip -n {p}node link set {name} up\n\
                 ip -n {p}node addr add {node}/32 dev {name}\nip -n {p}node route add {own}/32 dev {name}\n\
                 ip -n {p}{name} link set eth0 up\nip -n {p}{name} addr add {own}/32 dev eth0\n\
                 ip -n {p}{name} route add {node}/32 dev eth0\nip -n {p}{name} route add default via {node}\n"
            );
        }
        // Addresses of Services are routed like any before they are translated or refused.
        script += &format!("ip -n {p}node route add default via 192.0.2.2\nnft --version\n");
        let made = Command::new("sh").args(["-c", &script]).output().ok()?;
        if !made.status.success() {
            eprintln!("skipped, for want of root, ip or nft: {}", String::from_utf8_lossy(&made.stderr));
            return None;
        }
        serve(&format!("{p}pod0"), "pod0");
        serve(&format!("{p}pod1"), "pod1");
        lab.apply(nft::load(&Ruleset::default(), "10.244.0.0/16".parse().expect("a network")));
        Some(lab)
    }

    fn apply(&self, script: String) {
        let run = move || {
            let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
            nft.stdin.take().expect("stdin").write_all(script.as_bytes()).expect("written");
            assert!(nft.wait().expect("ended").success(), "{script}");
        };
        inside(&format!("{}node", self.prefix), run).join().expect("applied");
    }

    /// Changes the rules to those of one Service, element by element.
    fn set(&mut self, spec: &Value, endpoints: &[&str]) {
        let rules = compile(&[service(spec)], &[slice(endpoints)], "n");
        if let Some(script) = nft::change(&self.loaded, &rules) {
            self.apply(script);
        }
        self.loaded = rules;
    }

    fn ask(&self, from: &str, to: &str) -> io::Result<String> {
        let to: SocketAddr = to.parse().expect("an address");
        let ask = move || {
            let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
            stream.set_read_timeout(Some(WAIT))?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        inside(&format!("{}{from}", self.prefix), ask).join().expect("asked")
    }

    fn ask_udp(&self, from: &str, to: &str) -> io::Result<String> {
        let to: SocketAddr = to.parse().expect("an address");
        let ask = move || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(WAIT))?;
            socket.connect(to)?;
            socket.send(b"?")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        inside(&format!("{}{from}", self.prefix), ask).join().expect("asked")
    }

    /// Who answers, out of many connections.
    fn answering(&self, from: &str, to: &str) -> BTreeSet<String> {
        let name = |answer: String| answer.split(' ').next().unwrap_or_default().to_owned();
        (0..25).map(|_| name(self.ask(from, to).expect("an answer"))).collect()
    }
}

#[test]
fn connections_are_spread_over_tcp_and_udp_from_pods_nodes_and_outside() {
    let Some(mut lab) = Lab::new() else { return };
    lab.set(&json!({}), &PODS[..1]);
    assert_eq!(lab.ask("pod1", CLUSTER_IP).expect("an answer"), "pod0 10.244.0.11");
    lab.set(&json!({}), &PODS);
    for (from, to) in [("pod1", CLUSTER_IP), ("node", CLUSTER_IP), ("out", NODE_PORT), ("pod0", NODE_PORT)] {
        let answering: Vec<_> = lab.answering(from, to).into_iter().collect();
        assert_eq!(answering, ["pod0", "pod1"], "from {from} to {to}");
        assert!(lab.ask_udp(from, to).expect("an answer").starts_with("pod"), "from {from} to {to} by UDP");
    }
}

#[test]
fn a_pod_reaches_itself_by_its_service() {
    let Some(mut lab) = Lab::new() else { return };
    lab.set(&json!({}), &PODS[..1]);
    assert!(lab.ask("pod0", CLUSTER_IP).expect("an answer").starts_with("pod0 "));
    assert!(lab.ask_udp("pod0", CLUSTER_IP).expect("an answer").starts_with("pod0 "));
}

/// Refused, rather than lost.
fn refused(answer: io::Result<String>) -> bool {
    // The kernel tells a sender on the node itself that its packet was not let out.
    let kind = answer.expect_err("no answer").kind();
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied)
}

#[test]
fn other_ports_of_a_services_address_are_refused_at_once() {
    let Some(mut lab) = Lab::new() else { return };
    lab.set(&json!({}), &PODS);
    for from in ["pod0", "node"] {
        assert!(refused(lab.ask(from, "10.96.0.5:81")), "from {from}");
        assert!(refused(lab.ask_udp(from, "10.96.0.5:81")), "from {from} by UDP");
    }
    lab.set(
        &json!({ "ports": [{ "name": "udp", "port": 80, "nodePort": 30080, "protocol": "UDP" }] }),
        &PODS,
    );
    assert!(lab.ask_udp("pod0", CLUSTER_IP).expect("an answer").starts_with("pod"));
    assert!(refused(lab.ask("pod0", CLUSTER_IP)), "a port that went is no way out");
}

#[test]
fn without_endpoints_connections_are_refused_at_once() {
    let Some(mut lab) = Lab::new() else { return };
    lab.set(&json!({}), &PODS);
    lab.set(&json!({}), &[]);
    for (from, to) in [("pod0", CLUSTER_IP), ("node", CLUSTER_IP), ("out", NODE_PORT)] {
        assert!(refused(lab.ask(from, to)), "from {from} to {to}");
        assert!(refused(lab.ask_udp(from, to)), "from {from} to {to} by UDP");
    }
}

#[test]
fn a_client_stays_with_its_endpoint_as_long_as_that_is_there() {
    let Some(mut lab) = Lab::new() else { return };
    let sticky = json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } } });
    lab.set(&sticky, &PODS[..1]);
    let names = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
    assert_eq!(names(lab.answering("pod1", CLUSTER_IP)), ["pod0"]);
    lab.set(&sticky, &PODS);
    assert_eq!(names(lab.answering("pod1", CLUSTER_IP)), ["pod0"], "though another came");
    assert_eq!(lab.answering("out", NODE_PORT).len(), 1, "a new client draws one");
    lab.set(&sticky, &PODS[1..]);
    assert_eq!(names(lab.answering("pod1", CLUSTER_IP)), ["pod1"]);
    lab.set(&json!({}), &PODS);
    assert_eq!(lab.answering("pod1", CLUSTER_IP).len(), 2, "no longer");
}

#[test]
fn local_traffic_policy_keeps_the_clients_address_and_drops_without_a_pod_here() {
    let Some(mut lab) = Lab::new() else { return };
    lab.set(&json!({}), &PODS[..1]);
    assert_eq!(lab.ask("out", NODE_PORT).expect("an answer"), "pod0 10.244.0.1", "masqueraded by default");
    let local = json!({ "externalTrafficPolicy": "Local" });
    lab.set(&local, &["10.244.0.10@n", "10.244.0.11@other"]);
    assert_eq!(lab.ask("out", NODE_PORT).expect("an answer"), "pod0 192.0.2.2");
    assert_eq!(lab.answering("pod0", CLUSTER_IP).len(), 2, "the cluster's address knows all");
    lab.set(&local, &["10.244.0.11@other"]);
    assert_eq!(lab.ask("out", NODE_PORT).expect_err("no answer").kind(), ErrorKind::TimedOut);
}
