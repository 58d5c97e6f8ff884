//! Tables over the pure core, and a server in this process asked over UDP and TCP.

use crate::answer::{Answer, answer};
use crate::server::{self, Handler, Metrics};
use crate::upstream::Upstream;
use crate::zone::{Entry, Zone};
use crate::{Args, publish::Publisher};
use coracle_client::fake::FakeApi;
use coracle_client::{Reflector, Scope};
use coracle_daemon::{Tasks, clock};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use parking_lot::RwLock;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const NS: &str = "/api/v1/namespaces";
const SERVICES: &str = "/api/v1/namespaces/shop/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

#[expect(clippy::needless_pass_by_value, reason = "the rows of the tables read better")]
fn service(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
}

#[expect(clippy::needless_pass_by_value, reason = "the rows of the tables read better")]
fn slice(name: &str, service: &str, kind: &str, endpoints: Value, ports: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind, "endpoints": endpoints, "ports": ports,
        "metadata": { "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": service } },
    })
}

/// A shop: `web` with a virtual address, `db` headless, `far` elsewhere, `idle` headless without endpoints.
fn objects() -> (Vec<Value>, Vec<Value>) {
    let http = json!([{ "name": "http", "protocol": "TCP", "port": 8080 }]);
    let ready =
        |address: &str, ready: bool| json!({ "addresses": [address], "conditions": { "ready": ready } });
    let services = vec![
        service(
            "web",
            json!({ "type": "ClusterIP", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1", "fd00:96::1"],
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }, { "name": "dns", "port": 53, "protocol": "UDP" }] }),
        ),
        service(
            "db",
            json!({ "type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "name": "http", "port": 80 }] }),
        ),
        service("far", json!({ "type": "ExternalName", "externalName": "www.example.com" })),
        service("idle", json!({ "type": "ClusterIP", "clusterIP": "None" })),
        service("early", json!({ "clusterIP": "None", "publishNotReadyAddresses": true })),
    ];
    let slices = vec![
        slice("web-1", "web", "IPv4", json!([ready("10.244.0.7", true)]), http.clone()),
        slice(
            "db-1",
            "db",
            "IPv4",
            json!([
                { "addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": { "ready": true } },
                { "addresses": ["10.244.1.6"] },
                ready("10.244.1.9", false),
            ]),
            http.clone(),
        ),
        slice("db-2", "db", "IPv6", json!([{ "addresses": ["fd00:244::5"], "hostname": "db-0" }]), http),
        slice("early-1", "early", "IPv4", json!([ready("10.244.2.2", false)]), json!([])),
    ];
    (services, slices)
}

fn shop() -> Zone {
    let mut zone = Zone::new(&name("cluster.local"));
    zone.set_namespace("shop", true);
    zone.set_namespace("empty", true);
    let (services, slices) = objects();
    let slices: Vec<Arc<EndpointSlice>> =
        slices.into_iter().map(|slice| Arc::new(serde_json::from_value(slice).unwrap())).collect();
    for service in services {
        let own = service["metadata"]["name"].as_str().unwrap().to_owned();
        let of_it = |slice: &&Arc<EndpointSlice>| {
            slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"] == own
        };
        let of_it: Vec<_> = slices.iter().filter(of_it).cloned().collect();
        let entry = Entry::of(&serde_json::from_value(service).unwrap(), &of_it);
        zone.set_service("shop", &own, entry);
    }
    zone
}

/// An answer in a few words.
fn told(zone: &Zone, asked: &str, kind: RecordType) -> String {
    let Answer::Own(records) = answer(zone, &name(asked), kind) else { return "upstream".to_owned() };
    assert!(records.answers.iter().all(|record| record.ttl == 5 && record.name == name(asked)));
    let has_soa = records.authority.iter().any(|record| record.record_type() == RecordType::SOA);
    assert_eq!(has_soa, records.answers.is_empty(), "{asked}: only an empty answer carries the SOA");
    match (records.code, records.answers.is_empty()) {
        (ResponseCode::NXDomain, _) => "nxdomain".to_owned(),
        (_, true) => "nodata".to_owned(),
        _ => records.answers.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(" | "),
    }
}

/// Name, type, answer.
const ROWS: &[(&str, RecordType, &str)] = {
    use RecordType::{A, AAAA, ANY, CNAME, NS, SOA, SRV, TXT};
    &[
        // Virtual addresses.
        ("web.shop.svc.cluster.local", A, "10.96.1.1"),
        ("WEB.Shop.SVC.cluster.LOCAL", A, "10.96.1.1"),
        ("web.shop.svc.cluster.local", AAAA, "fd00:96::1"),
        ("web.shop.svc.cluster.local", ANY, "10.96.1.1 | fd00:96::1"),
        ("web.shop.svc.cluster.local", TXT, "nodata"),
        ("_http._tcp.web.shop.svc.cluster.local", SRV, "0 100 80 web.shop.svc.cluster.local."),
        ("_dns._udp.web.shop.svc.cluster.local", SRV, "0 100 53 web.shop.svc.cluster.local."),
        ("_http._udp.web.shop.svc.cluster.local", SRV, "nxdomain"),
        ("_nope._tcp.web.shop.svc.cluster.local", SRV, "nxdomain"),
        ("_tcp.web.shop.svc.cluster.local", SRV, "nodata"),
        ("_sctp.web.shop.svc.cluster.local", SRV, "nxdomain"),
        (
            "web.shop.svc.cluster.local",
            SRV,
            "0 50 80 web.shop.svc.cluster.local. | 0 50 53 web.shop.svc.cluster.local.",
        ),
        ("10-244-0-7.web.shop.svc.cluster.local", A, "10.244.0.7"),
        // Endpoints.
        ("db.shop.svc.cluster.local", A, "10.244.0.5 | 10.244.1.6"),
        ("db.shop.svc.cluster.local", AAAA, "fd00:244::5"),
        ("db-0.db.shop.svc.cluster.local", A, "10.244.0.5"),
        ("db-0.db.shop.svc.cluster.local", AAAA, "fd00:244::5"),
        ("10-244-1-6.db.shop.svc.cluster.local", A, "10.244.1.6"),
        ("10-244-0-5.db.shop.svc.cluster.local", A, "nxdomain"),
        ("10-244-1-9.db.shop.svc.cluster.local", A, "nxdomain"),
        (
            "_http._tcp.db.shop.svc.cluster.local",
            SRV,
            "0 33 8080 db-0.db.shop.svc.cluster.local. | 0 33 8080 10-244-1-6.db.shop.svc.cluster.local. | 0 33 8080 db-0.db.shop.svc.cluster.local.",
        ),
        ("early.shop.svc.cluster.local", A, "10.244.2.2"),
        ("idle.shop.svc.cluster.local", A, "nodata"),
        // Aliases.
        ("far.shop.svc.cluster.local", A, "www.example.com."),
        ("far.shop.svc.cluster.local", CNAME, "www.example.com."),
        ("_http._tcp.far.shop.svc.cluster.local", SRV, "nxdomain"),
        // Pods.
        ("10-244-0-5.shop.pod.cluster.local", A, "10.244.0.5"),
        ("fd00--5.shop.pod.cluster.local", AAAA, "fd00::5"),
        ("10-244-0-5.shop.pod.cluster.local", AAAA, "nodata"),
        ("10-244-0.shop.pod.cluster.local", A, "nxdomain"),
        ("10-244-0-5.none.pod.cluster.local", A, "nxdomain"),
        // Names with nothing but names below them, and names that are not there.
        ("cluster.local", A, "nodata"),
        ("svc.cluster.local", A, "nodata"),
        ("pod.cluster.local", A, "nodata"),
        ("dns.cluster.local", A, "nodata"),
        ("shop.svc.cluster.local", A, "nodata"),
        ("shop.pod.cluster.local", A, "nodata"),
        ("empty.svc.cluster.local", A, "nodata"),
        ("none.svc.cluster.local", A, "nxdomain"),
        ("web.none.svc.cluster.local", A, "nxdomain"),
        ("gone.shop.svc.cluster.local", A, "nxdomain"),
        ("a.b.c.web.shop.svc.cluster.local", A, "nxdomain"),
        ("*.shop.svc.cluster.local", A, "nxdomain"),
        ("web.cluster.local", A, "nxdomain"),
        // The zone itself.
        ("dns-version.cluster.local", TXT, "1.1.0"),
        ("cluster.local", NS, "ns.dns.cluster.local."),
        ("cluster.local", SOA, "ns.dns.cluster.local. hostmaster.cluster.local. 8 7200 1800 86400 5"),
        // Elsewhere.
        ("example.com", A, "upstream"),
        ("cluster.local.example.com", A, "upstream"),
    ]
};

#[test]
fn names_are_answered_as_the_specification_says() {
    let zone = shop();
    for &(asked, kind, expected) in ROWS {
        assert_eq!(told(&zone, asked, kind), expected, "{asked} {kind}");
    }
}

#[test]
fn addresses_are_told_their_names() {
    let rows = [
        ("1.1.96.10.in-addr.arpa", RecordType::PTR, "web.shop.svc.cluster.local."),
        ("5.0.244.10.in-addr.arpa", RecordType::PTR, "db-0.db.shop.svc.cluster.local."),
        ("6.1.244.10.in-addr.arpa", RecordType::PTR, "10-244-1-6.db.shop.svc.cluster.local."),
        ("5.0.244.10.IN-ADDR.arpa", RecordType::A, "nodata"),
        // An endpoint of a virtual address has no name of its own; a foreign address is not ours.
        ("7.0.244.10.in-addr.arpa", RecordType::PTR, "upstream"),
        ("1.2.0.192.in-addr.arpa", RecordType::PTR, "upstream"),
        ("96.10.in-addr.arpa", RecordType::PTR, "upstream"),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa",
            RecordType::PTR,
            "web.shop.svc.cluster.local.",
        ),
    ];
    let zone = shop();
    for (asked, kind, expected) in rows {
        assert_eq!(told(&zone, asked, kind), expected, "{asked} {kind}");
    }
}

#[test]
fn srv_records_bring_the_addresses_of_their_targets() {
    let asked = name("_http._tcp.db.shop.svc.cluster.local");
    let Answer::Own(records) = answer(&shop(), &asked, RecordType::SRV) else { panic!("not ours") };
    let told: Vec<_> = records.additional.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
    let expected = [
        "db-0.db.shop.svc.cluster.local. 10.244.0.5",
        "10-244-1-6.db.shop.svc.cluster.local. 10.244.1.6",
        "db-0.db.shop.svc.cluster.local. fd00:244::5",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_service_that_goes_takes_its_addresses_along() {
    let mut zone = shop();
    let serial = zone.serial();
    zone.set_service("shop", "web", None);
    assert_eq!(told(&zone, "1.1.96.10.in-addr.arpa", RecordType::PTR), "upstream");
    assert_eq!(told(&zone, "web.shop.svc.cluster.local", RecordType::A), "nxdomain");
    assert_eq!(zone.serial(), serial + 1);
    zone.set_service("shop", "web", None);
    assert_eq!(zone.serial(), serial + 1, "nothing changed");
}

// From here on: over the wire.

/// Asks a server over the wire.
async fn ask(server: SocketAddr, asked: &str, kind: RecordType, tcp: bool, payload: Option<u16>) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(asked), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.edns = Some(edns);
    }
    let bytes = message.to_vec().unwrap();
    let exchange = async {
        if tcp {
            let mut stream = TcpStream::connect(server).await.unwrap();
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut answer).await.unwrap();
            answer
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(&bytes, server).await.unwrap();
            let mut answer = vec![0; 65536];
            let (length, _) = socket.recv_from(&mut answer).await.unwrap();
            answer.truncate(length);
            answer
        }
    };
    let answer = clock::timeout(Duration::from_secs(10), exchange).await.expect("an answer");
    Message::from_vec(&answer).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    let mut told: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    told.sort();
    told
}

fn handler(zone: Zone, upstream: Upstream) -> Handler {
    Handler {
        zone: Arc::new(RwLock::new(zone)),
        ready: Arc::new(AtomicBool::new(true)),
        upstream: Arc::new(upstream),
        metrics: Metrics::default(),
    }
}

async fn running(handler: Handler) -> (hickory_server::Server<Handler>, SocketAddr) {
    let sockets = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = sockets.1.local_addr().unwrap();
    (server::serve(handler, vec![sockets]), address)
}

fn servers(address: SocketAddr) -> Option<ResolverConfig> {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (address.port(), address.port());
    Some(ResolverConfig::from_name_servers(vec![NameServerConfig::new(address.ip(), true, vec![udp, tcp])]))
}

#[tokio::test]
async fn both_transports_answer_and_large_answers_are_cut_only_where_they_must() {
    let mut zone = shop();
    let many: Vec<Value> = (0..60).map(|n| json!({ "addresses": [format!("10.244.9.{n}")] })).collect();
    let slice: EndpointSlice =
        serde_json::from_value(slice("m", "many", "IPv4", json!(many), json!([]))).unwrap();
    let many = serde_json::from_value(service("many", json!({ "clusterIP": "None" }))).unwrap();
    zone.set_service("shop", "many", Entry::of(&many, &[Arc::new(slice)]));
    let (_server, address) = running(handler(zone, Upstream::to(None).unwrap())).await;

    for tcp in [false, true] {
        let answer = ask(address, "Web.shop.svc.cluster.local", RecordType::A, tcp, None).await;
        assert_eq!((addresses(&answer), answer.metadata.authoritative), (vec!["10.96.1.1".to_owned()], true));
        assert_eq!(answer.answers[0].name.to_ascii(), "Web.shop.svc.cluster.local.", "the case is kept");
        assert!(answer.edns.is_none());
    }
    let asked = "many.shop.svc.cluster.local";
    let cut = ask(address, asked, RecordType::A, false, None).await;
    assert!(cut.metadata.truncation && cut.answers.len() < 60);
    let whole = ask(address, asked, RecordType::A, false, Some(4096)).await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 60);
    assert_eq!(whole.edns.as_ref().unwrap().max_payload(), 1232);
    let whole = ask(address, asked, RecordType::A, true, None).await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 60);

    let refused = ask(address, "example.com", RecordType::A, false, None).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused, "there is no upstream");
    let transfer = ask(address, "cluster.local", RecordType::AXFR, true, None).await;
    assert_eq!(transfer.metadata.response_code, ResponseCode::Refused);
}

/// An upstream server that knows `www.example.com`.
async fn upstream_server(tasks: &Tasks) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tasks.run("upstream", async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = question.queries[0].clone();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.add_query(query.clone());
            if *query.name() != name("www.example.com") {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else if query.query_type() == RecordType::A {
                let data = RData::A(A::new(192, 0, 2, 1));
                answer.add_answers([Record::from_rdata(query.name().clone(), 60, data)]);
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_aliases_followed() {
    let tasks = Tasks::new();
    let upstream = Upstream::to(servers(upstream_server(&tasks).await)).unwrap();
    let (_server, address) = running(handler(shop(), upstream)).await;
    let answer = ask(address, "www.example.com", RecordType::A, false, None).await;
    assert_eq!((addresses(&answer), answer.metadata.authoritative), (vec!["192.0.2.1".to_owned()], false));
    let answer = ask(address, "far.shop.svc.cluster.local", RecordType::A, true, None).await;
    assert_eq!(addresses(&answer), ["192.0.2.1", "www.example.com."]);
    assert_eq!(answer.answers[0].record_type(), RecordType::CNAME);
    let missing = ask(address, "nope.example.com", RecordType::A, false, None).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn an_upstream_that_is_away_is_a_failure_and_one_that_loops_is_refused() {
    // Bound and never read: nobody answers. Its TCP port is closed.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::to(servers(silent.local_addr().unwrap())).unwrap();
    let (_server, address) = running(handler(shop(), upstream)).await;
    let answer = ask(address, "www.example.com", RecordType::A, false, None).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let answer = ask(address, "web.shop.svc.cluster.local", RecordType::A, false, None).await;
    assert_eq!(addresses(&answer), ["10.96.1.1"]);

    let sockets = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = sockets.1.local_addr().unwrap();
    let handler = handler(shop(), Upstream::to(servers(address)).unwrap());
    let upstream = handler.upstream.clone();
    let _server = server::serve(handler, vec![sockets]);
    upstream.look_for_loop().await;
    let answer = ask(address, "www.example.com", RecordType::A, false, None).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn a_service_as_upstream_is_a_loop() {
    let upstream = Upstream::to(servers("10.96.1.1:53".parse().unwrap())).unwrap();
    let (_server, address) = running(handler(shop(), upstream)).await;
    let answer = ask(address, "www.example.com", RecordType::A, false, None).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

fn args(resolv_conf: PathBuf) -> Args {
    Args {
        kubeconfig: PathBuf::new(),
        node_name: "n1".to_owned(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf,
        healthz_bind_address: None,
    }
}

#[tokio::test]
async fn the_server_follows_the_api() {
    let (api, tasks) = (FakeApi::default(), Tasks::new());
    for namespace in ["shop", "kube-system"] {
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        api.create(NS, object);
    }
    let bound = crate::start(&args("/nonexistent".into()), api.client(), &tasks).await.unwrap();
    let (services, slices) = objects();
    services.into_iter().for_each(|service| api.create(SERVICES, service));
    slices.into_iter().for_each(|slice| api.create(SLICES, slice));
    let becomes = async |asked: &str, code: ResponseCode, expected: &[&str]| {
        let asking = async {
            loop {
                let answer = ask(bound[0], asked, RecordType::A, false, None).await;
                if answer.metadata.response_code == code && addresses(&answer) == expected {
                    return;
                }
                clock::sleep(Duration::from_millis(5)).await;
            }
        };
        clock::timeout(Duration::from_secs(10), asking)
            .await
            .unwrap_or_else(|_| panic!("{asked}: {expected:?}"));
    };
    let db = "db.shop.svc.cluster.local";
    becomes(db, ResponseCode::NoError, &["10.244.0.5", "10.244.1.6"]).await;
    let endpoints = json!({ "endpoints": [{ "addresses": ["10.244.3.3"] }] });
    api.patch(&format!("{SLICES}/db-1"), &endpoints);
    becomes(db, ResponseCode::NoError, &["10.244.3.3"]).await;
    api.delete(&format!("{SLICES}/db-1"));
    becomes(db, ResponseCode::NoError, &[]).await;
    api.delete(&format!("{SERVICES}/db"));
    becomes(db, ResponseCode::NXDomain, &[]).await;
    tasks.stop_within(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_answered_before_the_zone_is_complete() {
    let mut handler = handler(shop(), Upstream::to(None).unwrap());
    handler.ready = Arc::new(AtomicBool::new(false));
    let (_server, address) = running(handler).await;
    let answer = ask(address, "gone.shop.svc.cluster.local", RecordType::A, false, None).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_server_is_an_endpoint_of_its_service_while_it_runs() {
    const OWN: &str = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-n1";
    let (api, tasks) = (FakeApi::default(), Tasks::new());
    let scope = Scope::new(&tasks);
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kube-system" } });
    api.create(NS, object);
    let publisher = Publisher {
        listen: vec!["172.30.0.2:53".parse().unwrap()],
        node_name: "n1".to_owned(),
        nodes: Reflector::new(Api::all(api.client())).start(&scope),
        slices: Reflector::new(Api::all(api.client())).start(&scope),
        api: Publisher::api(api.client()),
    };
    let stop = tasks.stopping();
    tasks.run("publisher", publisher.run(stop));
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
    api.create("/api/v1/nodes", node);
    let stands = |api: &FakeApi| api.get(OWN)["endpoints"][0]["addresses"] == json!(["172.30.0.2"]);
    api.until("the slice stands", stands).await;
    assert_eq!(api.get(OWN)["metadata"]["labels"]["kubernetes.io/service-name"], "kube-dns");
    assert_eq!(api.get(OWN)["metadata"]["ownerReferences"][0]["kind"], "Node");
    api.patch(OWN, &json!({ "endpoints": [] }));
    api.until("a foreign change is undone", stands).await;
    api.delete(OWN);
    api.until("it comes back", stands).await;
    tasks.stop_within(Duration::from_secs(5)).await.unwrap();
    assert!(api.get(OWN).is_null(), "a stopped server serves nobody");
}
