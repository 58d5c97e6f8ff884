//! What a cluster has from its first second, and what apiservers keep up together: system namespaces, roles, its maker's
//! addons, the `kubernetes` Service with the addresses of the apiservers that live, and the compaction of the store.
//!
//! Invariants: all of it is safe while several apiservers do it at once; a server that says it is ready authorizes by it.

mod addons;
mod identity;

use crate::aggregator::trust;
use crate::reader::{Reader, SERVER};
use crate::registry::allocate;
use crate::storage::Store;
use crate::{Args, Server, authorization, flowcontrol};
use bytes::Bytes;
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::Tasks;
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock::{self, Instant};
use coracle_etcd::kv::prefix_end;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op, response_op,
};
use coracle_etcd::{Kv, KvError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Living apiservers: one key each, which goes when its server does.
const MASTERS: &str = "/registry/masterleases/";
const LEASE_SECONDS: i64 = 15;
const LEASE_RENEWED: Duration = Duration::from_secs(10);
/// After a renewal that failed: the next would come when the lease is over.
const RENEWED_AGAIN: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long FlowSchemas and priority levels that every cluster has may differ from what they are to be.
const FLOWS_KEPT: Duration = Duration::from_secs(60);
/// As upstream; not below our root, since nobody watches it.
const COMPACT_KEY: &[u8] = b"compact_rev_key";
const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// Makes the first objects, then keeps this server's address known until the process stops.
///
/// # Errors
/// None: what fails is tried again.
pub async fn run(server: Arc<Server>, args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let stop = tasks.stopping();
    let work = async {
        server.store.loaded().await;
        while let Err(status) = first_objects(&server, &args).await {
            tracing::warn!(error = status.message, "cannot make the first objects; trying again");
            clock::sleep(RETRY).await;
        }
        server.health.bootstrapped();
        tracing::info!("ready");
        keep_address(&server, &args).await;
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => server.health.stopping(),
    }
    Ok(())
}

async fn first_objects(server: &Server, args: &Args) -> Result<(), Status> {
    authorization::bootstrap(server.objects.as_ref()).await?;
    let ((), configured, service, added) = tokio::join!(
        server.health.wait_flows(),
        trust::publish(server.store.as_ref(), server.objects.as_ref(), &args.authentication),
        kubernetes_service(server, args),
        addons::apply(server.objects.as_ref(), args.addons_file.as_deref())
    );
    configured?;
    service?;
    added?;
    // Authorization reads from the caches.
    server.store.fresh().await
}

/// Lets requests run by the FlowSchemas and priority levels as they are, keeps those that every cluster has, and tells the
/// former of the latter, whenever one of either changes; without end.
pub async fn priority_levels(server: Arc<Server>) {
    const GROUP: &str = "flowcontrol.apiserver.k8s.io";
    const PLURALS: [&str; 2] = ["flowschemas", "prioritylevelconfigurations"];
    let [Some(schemas), Some(levels)] = PLURALS.map(|plural| server.store.resource(GROUP, plural)) else {
        return;
    };
    let (mut schemas, mut levels) = (schemas.cache.moved(), levels.cache.moved());
    // Of all that is made at first, this waits for nothing else: where that fails, requests still have their turns.
    server.store.loaded().await;
    let mut backoff = Backoff::new(RETRY, RETRY_MAX);
    // What people change is kept as it was within this time, as Kubernetes does: nothing is done where nothing changes.
    let mut kept_at = Instant::now();
    let mut due = Some(kept_at);
    loop {
        schemas.borrow_and_update();
        levels.borrow_and_update();
        let [flows, own] =
            PLURALS.map(|plural| Reader::list(server.store.as_ref(), &GroupResource::new(GROUP, plural), ""));
        server.flow.configure(&flows, &own);
        let (reader, objects) = (server.store.as_ref(), server.objects.as_ref());
        let is_due = due.is_some_and(|due| due <= Instant::now());
        let kept = async {
            if is_due {
                flowcontrol::maintain(reader, objects).await?;
                for (of, name, uid) in flowcontrol::unwanted(reader) {
                    remove(&server, &of, &name, &uid).await?;
                }
            }
            if server.flow.is_on() {
                flowcontrol::tell_dangling(reader, objects).await?;
            }
            Ok::<(), Status>(())
        };
        if let Err(status) = kept.await {
            tracing::warn!(error = status.message, "cannot keep FlowSchemas and their priority levels");
            clock::sleep(backoff.next_delay()).await;
            continue;
        }
        backoff.reset();
        server.health.flows_kept();
        if is_due {
            (kept_at, due) = (Instant::now(), None);
        }
        tokio::select! {
            _ = schemas.changed() => due = due.or(Some(kept_at + FLOWS_KEPT)),
            _ = levels.changed() => due = due.or(Some(kept_at + FLOWS_KEPT)),
            () = clock::sleep_until(due.unwrap_or(kept_at)), if due.is_some() => {}
        }
    }
}

/// Deletes an object unless it is gone, or is another by now.
async fn remove(server: &Server, of: &GroupResource, name: &str, uid: &str) -> Result<(), Status> {
    match server.registry.remove(of, "", name, uid).await {
        Err(status) if !matches!(status.code, 404 | 409) => Err(status),
        _ => Ok(()),
    }
}

/// Creates an object unless it is there.
async fn ensure(
    server: &Server,
    group: &str,
    plural: &str,
    namespace: &str,
    object: Value,
) -> Result<(), Status> {
    let of = GroupResource::new(group, plural);
    if Reader::get(server.store.as_ref(), &of, namespace, meta::name(&object)).is_some() {
        return Ok(());
    }
    match server.objects.create(&of, namespace, object, SERVER).await {
        Err(status) if status.code == 409 => Ok(()),
        done => done.map(drop),
    }
}

async fn kubernetes_service(server: &Server, args: &Args) -> Result<(), Status> {
    let hosts = args.service_cluster_ip_range;
    let first = hosts.hosts().next().unwrap_or(hosts.network()).to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": first, "sessionAffinity": "None",
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": args.secure_port}]}});
    let mut service = service;
    if args.kubernetes_service_node_port > 0 {
        service["spec"]["type"] = json!("NodePort");
        service["spec"]["ports"][0]["nodePort"] = json!(args.kubernetes_service_node_port);
    }
    let (service, range) =
        tokio::join!(ensure(server, "", "services", NAMESPACE, service), service_range(server, args));
    service?;
    range?;
    // Services that are older than this way to hold an address.
    for service in Reader::list(server.store.as_ref(), &GroupResource::new("", "services"), "") {
        for address in allocate::addresses(&service) {
            ensure(server, "networking.k8s.io", "ipaddresses", "", address).await?;
        }
    }
    allocate::adopt_ports(&server.store).await
}

/// The range of Services' addresses, which is ready.
async fn service_range(server: &Server, args: &Args) -> Result<(), Status> {
    const GROUP: &str = "networking.k8s.io";
    const PLURAL: &str = "servicecidrs";
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": NAME}, "spec": {"cidrs": [args.service_cluster_ip_range.to_string()]}});
    ensure(server, GROUP, PLURAL, "", range).await?;
    let of = GroupResource::new(GROUP, PLURAL);
    let range = server.objects.get_fresh(&of, "", NAME).await?.unwrap_or_default();
    if range["status"]["conditions"].as_array().is_some_and(|told| !told.is_empty()) {
        return Ok(());
    }
    let condition = json!({"type": "Ready", "status": "True", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": clock::rfc3339_seconds(clock::now())});
    let ready = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": NAME},
        "status": {"conditions": [condition]}});
    server.objects.apply(&of, "status", ready, "kubernetes-service-cidr-controller").await.map(drop)
}

/// Renews this server's key, and keeps the endpoints of the `kubernetes` Service equal to the keys that live; on the same
/// timer, what tells clients of this server.
async fn keep_address(server: &Server, args: &Args) {
    let kv = server.store.kv().clone();
    let mut identity = identity::Identity::new(args);
    let mut lease = 0;
    if args.endpoint_reconciler_type == "none" {
        return keep_told(server, &mut identity).await;
    }
    while !server.health.is_stopping() {
        let mut pause = RENEWED_AGAIN;
        // At the same time, so that members of the store are woken once for both.
        let (held, told) = tokio::join!(renew(kv.as_ref(), args, lease), identity.round(server));
        match held {
            Ok(held) => {
                lease = held;
                pause = clock::until_whole(LEASE_RENEWED);
                if let Err(status) = publish(server).await {
                    tracing::warn!(
                        error = status.message,
                        "cannot keep the endpoints of the kubernetes Service"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "cannot renew this server's lease"),
        }
        if let Err(status) = told {
            tracing::warn!(error = status.message, "cannot tell clients of this server");
        }
        clock::sleep(pause).await;
    }
    std::future::pending::<()>().await;
}

/// Keeps what tells clients of this server, where others keep its address.
async fn keep_told(server: &Server, identity: &mut identity::Identity) {
    while !server.health.is_stopping() {
        if let Err(status) = identity.round(server).await {
            tracing::warn!(error = status.message, "cannot tell clients of this server");
        }
        clock::sleep(clock::until_whole(LEASE_RENEWED)).await;
    }
    std::future::pending::<()>().await;
}

fn key_of(args: &Args) -> (Bytes, String) {
    let address = SocketAddr::new(args.advertised(), args.secure_port).to_string();
    (Bytes::from(format!("{MASTERS}{address}")), address)
}

/// Takes this server's address away from the `kubernetes` Service: it is about to stop.
///
/// # Errors
/// The store cannot be reached.
pub async fn withdraw(server: &Server, args: &Args) -> Result<(), Status> {
    if args.endpoint_reconciler_type == "none" {
        return Ok(());
    }
    let delete = DeleteRangeRequest { key: key_of(args).0, ..DeleteRangeRequest::default() };
    let success = vec![RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }];
    let request = TxnRequest { success, ..TxnRequest::default() };
    server.store.kv().txn(request).await.map_err(|error| crate::storage::unreachable(&error))?;
    publish(server).await
}

async fn renew(kv: &dyn Kv, args: &Args, lease: i64) -> Result<i64, KvError> {
    if lease != 0 && kv.lease_keep_alive(lease).await.is_ok_and(|seconds| seconds > 0) {
        return Ok(lease);
    }
    let lease = kv.lease_grant(LEASE_SECONDS).await?;
    let (key, address) = key_of(args);
    let put = PutRequest { key, value: Bytes::from(address), lease, ..PutRequest::default() };
    let success = vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }];
    kv.txn(TxnRequest { success, ..TxnRequest::default() }).await?;
    Ok(lease)
}

/// Where the apiservers that live listen, by port. Pods cannot reach a loopback address, so it is told to nobody.
async fn alive(kv: &dyn Kv) -> Result<BTreeMap<u16, BTreeSet<IpAddr>>, KvError> {
    let key = Bytes::from_static(MASTERS.as_bytes());
    let request = RangeRequest { range_end: prefix_end(&key), key, ..RangeRequest::default() };
    let answer = kv.range(request).await?;
    let mut alive: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    let addresses =
        answer.kvs.iter().filter_map(|kv| std::str::from_utf8(&kv.value).ok()?.parse::<SocketAddr>().ok());
    for address in addresses.filter(|address| !address.ip().is_loopback()) {
        alive.entry(address.port()).or_default().insert(address.ip());
    }
    Ok(alive)
}

/// The name of the slice for a port: apiservers on one host differ by port, and a slice has one.
fn slice_name(port: u16, first: Option<u16>) -> String {
    if first.is_none_or(|first| first == port) { NAME.to_owned() } else { format!("{NAME}-{port}") }
}

async fn publish(server: &Server) -> Result<(), Status> {
    let alive =
        alive(server.store.kv().as_ref()).await.map_err(|error| crate::storage::unreachable(&error))?;
    let told = |port: u16| json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subsets: Vec<Value> = alive
        .iter()
        .map(|(port, ips)| {
            let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
            json!({"addresses": addresses, "ports": told(*port)})
        })
        .collect();
    if subsets.is_empty() {
        return Ok(());
    }
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": subsets});
    keep(server, "", "endpoints", endpoints, &["subsets"]).await?;
    let first = alive.keys().next().copied();
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    for (port, ips) in &alive {
        let ready: Vec<Value> = ips
            .iter()
            .map(|ip| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}}))
            .collect();
        let name = slice_name(*port, first);
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
            "endpoints": ready, "ports": told(*port)});
        wanted.insert(name, slice);
    }
    // Slices of ports where nobody lives any more are emptied.
    let of = GroupResource::new("discovery.k8s.io", "endpointslices");
    for known in server.store.list(&of, NAMESPACE) {
        let name = meta::name(&known);
        if known["metadata"]["labels"]["kubernetes.io/service-name"] == NAME && !wanted.contains_key(name) {
            let mut empty = known.as_ref().clone();
            empty["endpoints"] = json!([]);
            wanted.insert(name.to_owned(), empty);
        }
    }
    for slice in wanted.into_values() {
        keep(server, "discovery.k8s.io", "endpointslices", slice, &["endpoints", "ports"]).await?;
    }
    Ok(())
}

/// Creates an object, or brings its `fields` to what they should be.
async fn keep(
    server: &Server,
    group: &str,
    plural: &str,
    wanted: Value,
    fields: &[&str],
) -> Result<(), Status> {
    let of = GroupResource::new(group, plural);
    let name = meta::name(&wanted).to_owned();
    let change = |old: &Value| {
        let mut new = old.clone();
        for field in fields {
            new[*field] = wanted[*field].clone();
        }
        (new != *old).then_some(new)
    };
    match Reader::get(server.store.as_ref(), &of, NAMESPACE, &name) {
        Some(known) if change(&known).is_none() => return Ok(()),
        Some(_) => {}
        None => match server.objects.create(&of, NAMESPACE, wanted.clone(), SERVER).await {
            Err(status) if status.code == 409 => {}
            done => return done.map(drop),
        },
    }
    server.objects.modify(&of, NAMESPACE, &name, SERVER, &change).await.map(drop)
}

/// Lets the store forget revisions that are older than once or twice `every`. Of several apiservers, the one that moves the key does it;
/// without end: what fails is tried again next time.
pub async fn compact(store: Arc<Store>, every: Duration) {
    let (mut seen, mut revision) = (0, 0);
    loop {
        match compact_once(store.kv().as_ref(), seen, revision).await {
            Ok(next) => (seen, revision) = next,
            Err(error) => tracing::warn!(%error, "cannot compact the store"),
        }
        clock::sleep(every).await;
    }
}

/// One round: `seen` is the key's version last time, `revision` the store's revision then.
async fn compact_once(kv: &dyn Kv, seen: i64, revision: i64) -> Result<(i64, i64), KvError> {
    let key = Bytes::from_static(COMPACT_KEY);
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::Version(seen)),
        range_end: Bytes::new(),
    };
    let put =
        PutRequest { key: key.clone(), value: Bytes::from(revision.to_string()), ..PutRequest::default() };
    let look = RangeRequest { key, ..RangeRequest::default() };
    let answer = kv
        .txn(TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(look)) }],
        })
        .await?;
    let now = answer.header.as_ref().map_or(0, |header| header.revision);
    if !answer.succeeded {
        let version = answer.responses.into_iter().find_map(|response| match response.response {
            Some(response_op::Response::ResponseRange(range)) => range.kvs.first().map(|kv| kv.version),
            _ => None,
        });
        return Ok((version.unwrap_or(0), now));
    }
    if revision > 0 {
        match kv.compact(revision).await {
            // Somebody has compacted further.
            Ok(()) | Err(KvError::Compacted { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((seen + 1, now))
}
