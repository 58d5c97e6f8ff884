//! Cluster IPs and node ports of Services, and the leases of Events.
//!
//! An address is taken by a key of its own, which is an IPAddress, and a port by one too: they are created in the transaction
//! that writes the Service and freed in the one that deletes it, so that several apiservers can never give one address twice,
//! and nothing is left over to repair.

use crate::reader::{Reader, SERVER};
use crate::storage::entry::stored;
use crate::storage::write::Beside;
use crate::storage::{Resource, Store, unreachable};
use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_api::meta;
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_daemon::{clock, random};
use coracle_etcd::kv::prefix_end;
use coracle_etcd::proto::RangeRequest;
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

const IPS: &str = "/registry/ipaddresses/";
const PORTS: &str = "/registry/ranges/servicenodeports/";
/// The lower addresses of the range are left to those who choose their own.
const CHOSEN_MAX: u32 = 256;

/// Gives addresses, ports and leases.
pub struct Allocator {
    store: Arc<Store>,
    range: Ipv4Net,
    ports: RangeInclusive<u16>,
    event_ttl: Duration,
    /// Events that are written within this share a lease.
    lease_shared: Duration,
    lease: Mutex<Option<(Instant, i64)>>,
}

/// What a write of a Service takes and frees.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The keys.
    pub beside: Beside,
    /// The Service before anything was chosen for it.
    asked: Value,
    is_new: bool,
}

impl Allocator {
    /// Of these ranges.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        range: Ipv4Net,
        ports: RangeInclusive<u16>,
        event_ttl: Duration,
        lease_shared: Duration,
    ) -> Self {
        Self { store, range, ports, event_ttl, lease_shared, lease: Mutex::new(None) }
    }

    /// The lease to write an object of `resource` with; 0 for none.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn lease(&self, resource: &Resource) -> Result<i64, Status> {
        if resource.of != GroupResource::new("", "events") {
            return Ok(0);
        }
        let mut lease = self.lease.lock().await;
        if let Some((granted, id)) = *lease
            && granted.elapsed() < self.lease_shared
        {
            return Ok(id);
        }
        let ttl = i64::try_from((self.event_ttl + self.lease_shared).as_secs()).unwrap_or(i64::MAX);
        let id = self.store.kv().lease_grant(ttl).await.map_err(|error| unreachable(&error))?;
        *lease = Some((Instant::now(), id));
        Ok(id)
    }

    /// Fills in what a Service lacks, and tells which keys its write takes and frees.
    ///
    /// # Errors
    /// 422 for addresses out of range or of others, 500 when nothing is free.
    pub async fn claim(
        &self,
        kind: &Kind,
        object: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Claims, Status> {
        if kind.kind != "Service" || !kind.group.is_empty() {
            return Ok(Claims::default());
        }
        let mut faults = super::families::settle(object, old);
        if faults.is_empty() {
            faults = self.check(object, old.is_none(), dry_run);
        }
        if !faults.is_empty() {
            return Err(Status::invalid(&kind.group_kind(), meta::name(object), &faults));
        }
        if old.is_some() {
            asked_twice(&object["spec"])?;
        }
        let asked = object.clone();
        let (ips, ports) = self.taken();
        self.of_others(kind, object, old, dry_run).await?;
        self.fill(object, &ips, &ports, old.is_none())?;
        Ok(Claims { beside: beside(object, old), asked, is_new: old.is_none() })
    }

    /// After a key was taken by somebody else: other choices, or the refusal of what was asked for by name.
    ///
    /// # Errors
    /// 422 when an address that the Service asks for is taken.
    pub async fn again(&self, kind: &Kind, object: &mut Value, claims: Claims) -> Result<Claims, Status> {
        let wanted = beside(&claims.asked, None);
        for (key, _) in &wanted.claim {
            if self.exists(key).await? {
                return Err(already(kind, &claims.asked, key));
            }
        }
        let (mut ips, mut ports) = self.taken();
        for (key, _) in &claims.beside.claim {
            if self.exists(key).await? {
                let text = String::from_utf8_lossy(key);
                ips.extend(text.strip_prefix(IPS).and_then(|ip| ip.parse::<Ipv4Addr>().ok()));
                ports.extend(text.strip_prefix(PORTS).and_then(|port| port.parse::<u16>().ok()));
            }
        }
        object["spec"] = claims.asked["spec"].clone();
        self.fill(object, &ips, &ports, claims.is_new)?;
        Ok(Claims { beside: beside(object, None), ..claims })
    }

    /// What is asked for by name is refused before it is seen whether the Service is there already. A dry run asks for no address.
    async fn of_others(
        &self,
        kind: &Kind,
        object: &Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<(), Status> {
        let (ips, ports) = self.taken();
        let held = old.map(keys).unwrap_or_default();
        let known = |ip: &str| !dry_run && ip.parse().is_ok_and(|ip: Ipv4Addr| ips.contains(&ip));
        let asked = addresses_of(&object["spec"]).filter(|ip| known(ip)).map(|ip| format!("{IPS}{ip}"));
        let taken = node_ports(object).filter(|port| ports.contains(port));
        for key in asked.chain(taken.map(|port| format!("{PORTS}{port}"))) {
            // What is known may be gone by now.
            if !held.contains(&key) && self.exists(&Bytes::from(key.clone())).await? {
                return Err(already(kind, object, key.as_bytes()));
            }
        }
        Ok(())
    }

    /// The keys that go with a deleted object.
    #[must_use]
    pub fn freed(&self, kind: &Kind, object: &Value) -> Beside {
        if kind.kind != "Service" || !kind.group.is_empty() {
            return Beside::default();
        }
        Beside { claim: Vec::new(), free: keys(object).into_iter().map(Bytes::from).collect() }
    }

    async fn exists(&self, key: &Bytes) -> Result<bool, Status> {
        let request = RangeRequest { key: key.clone(), count_only: true, ..RangeRequest::default() };
        let answer = self.store.kv().range(request).await.map_err(|error| unreachable(&error))?;
        Ok(answer.count > 0)
    }

    /// What the Services that this server knows hold: choosing around it spares most second tries.
    fn taken(&self) -> (BTreeSet<Ipv4Addr>, BTreeSet<u16>) {
        let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for service in self.store.list(&GroupResource::new("", "services"), "") {
            ips.extend(
                meta::strings(&service["spec"]["clusterIPs"]).filter_map(|ip| ip.parse::<Ipv4Addr>().ok()),
            );
            ports.extend(node_ports(&service));
        }
        (ips, ports)
    }

    /// Asked-for addresses must be of the ranges, and a new Service may ask for a port once only.
    fn check(&self, object: &Value, is_new: bool, dry_run: bool) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut given: HashMap<u64, HashSet<&Value>> = HashMap::new();
        let is_external = object["spec"]["type"] == "ExternalName";
        let ip = object["spec"]["clusterIP"].as_str().filter(|_| !is_external).unwrap_or_default();
        if let Ok(address) = ip.parse::<Ipv4Addr>()
            && !self.range.contains(&address)
        {
            let text = format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                self.range
            );
            faults.push(FieldError::invalid("spec.clusterIPs", &json!([ip]), text));
        }
        let ports = object["spec"]["ports"].as_array().filter(|_| takes_ports(&object["spec"]));
        for (index, port) in ports.into_iter().flatten().enumerate() {
            let Some(number) = port["nodePort"].as_u64().filter(|number| *number > 0) else { continue };
            // The protocols of one port share a number.
            let of = given.entry(number).or_default();
            of.insert(&port["port"]);
            if of.len() > 1 && is_new {
                let (field, why) =
                    (format!("spec.ports[{index}].nodePort"), "provided port is already allocated");
                faults.push(FieldError::invalid(field, &json!(number), why));
            } else if dry_run {
                // A dry run does not look for ports.
            } else if !u16::try_from(number).is_ok_and(|number| self.ports.contains(&number)) {
                let text = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    self.ports.start(),
                    self.ports.end()
                );
                faults.push(FieldError::invalid(
                    format!("spec.ports[{index}].nodePort"),
                    &json!(number),
                    text,
                ));
            }
        }
        faults
    }

    fn fill(
        &self,
        object: &mut Value,
        ips: &BTreeSet<Ipv4Addr>,
        ports: &BTreeSet<u16>,
        is_new: bool,
    ) -> Result<(), Status> {
        let spec = &mut object["spec"];
        let text = |spec: &Value, key: &str| spec[key].as_str().unwrap_or_default().to_owned();
        let of_type = text(spec, "type");
        if of_type == "ExternalName" {
            return Ok(());
        }
        let first = meta::strings(&spec["clusterIPs"]).next().map(str::to_owned);
        let asked = Some(text(spec, "clusterIP")).filter(|ip| !ip.is_empty()).or(first);
        let ip = match asked {
            Some(ip) => ip,
            None => self.free_ip(ips)?.to_string(),
        };
        spec["clusterIP"] = json!(ip);
        if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
            spec["clusterIPs"] = json!([ip]);
        }
        let balanced = of_type == "LoadBalancer";
        if of_type == "NodePort" || (balanced && spec["allocateLoadBalancerNodePorts"] != false) {
            self.fill_ports(spec, ports, is_new)?;
        }
        let checked = balanced && spec["externalTrafficPolicy"] == "Local";
        if checked && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
            let mut taken = ports.clone();
            taken.extend(node_ports(&json!({"spec": spec.clone()})));
            spec["healthCheckNodePort"] = json!(self.free_port(&taken)?);
        }
        Ok(())
    }

    fn fill_ports(&self, spec: &mut Value, taken: &BTreeSet<u16>, is_new: bool) -> Result<(), Status> {
        let mut taken = taken.clone();
        taken.extend(node_ports(&json!({"spec": spec.clone()})));
        // One number serves TCP and UDP of the same port, as DNS does, whichever of them a new Service asks it for.
        let mut given: HashMap<u64, u64> = HashMap::new();
        let numbers =
            |port: &Value| [&port["port"], &port["nodePort"]].map(|number| number.as_u64().unwrap_or(0));
        for [port, number] in spec["ports"].as_array().into_iter().flatten().map(numbers) {
            if number != 0 {
                given.entry(port).or_insert(number);
            }
        }
        for one in spec["ports"].as_array_mut().into_iter().flatten() {
            let [port, number] = numbers(one);
            if number != 0 {
                continue;
            }
            let number = match given.get(&port).filter(|_| is_new) {
                Some(number) => *number,
                None => {
                    let free = self.free_port(&taken)?;
                    taken.insert(free);
                    u64::from(free)
                }
            };
            one["nodePort"] = json!(number);
            given.insert(port, number);
        }
        Ok(())
    }

    fn free_ip(&self, taken: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, Status> {
        let (first, last) =
            (u32::from(self.range.network()) + 1, u32::from(self.range.broadcast()).saturating_sub(1));
        let size = last.saturating_sub(first) + 1;
        let chosen = (size / 16).min(CHOSEN_MAX);
        let upper = (first + chosen, size - chosen);
        for (from, count) in [upper, (first, size)] {
            let start = u32::try_from(random::below(u64::from(count))).unwrap_or(0);
            let candidates = (0..count).map(|step| Ipv4Addr::from(from + (start + step) % count));
            if let Some(free) = candidates.into_iter().find(|ip| !taken.contains(ip)) {
                return Ok(free);
            }
        }
        Err(Status::internal("failed to allocate a serviceIP: range is full"))
    }

    fn free_port(&self, taken: &BTreeSet<u16>) -> Result<u16, Status> {
        let (first, count) = (*self.ports.start(), self.ports.len());
        let start = random::below(count as u64);
        let candidates = (0..count as u64).map(|step| (start + step) % count as u64);
        let mut candidates = candidates.filter_map(|offset| first.checked_add(u16::try_from(offset).ok()?));
        candidates
            .find(|port| !taken.contains(port))
            .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
    }
}

fn already(kind: &Kind, asked: &Value, key: &[u8]) -> Status {
    let text = String::from_utf8_lossy(key);
    let fault = match text.strip_prefix(IPS) {
        Some(ip) => FieldError::invalid(
            "spec.clusterIPs",
            &json!([ip]),
            format!("failed to allocate IP {ip}: provided IP is already allocated"),
        ),
        None => {
            let port: u64 = text.strip_prefix(PORTS).and_then(|port| port.parse().ok()).unwrap_or(0);
            let ports = asked["spec"]["ports"].as_array();
            let Some(index) = ports.into_iter().flatten().position(|own| own["nodePort"] == port) else {
                let why = "provided port is already allocated";
                return Status::internal(format!(
                    "failed to allocate requested HealthCheck NodePort {port}: {why}"
                ));
            };
            FieldError::invalid(
                format!("spec.ports[{index}].nodePort"),
                &json!(port),
                "provided port is already allocated",
            )
        }
    };
    Status::invalid(&kind.group_kind(), meta::name(asked), &[fault])
}

/// A changed Service that asks twice for one port of one protocol is refused where ports are given out.
fn asked_twice(spec: &Value) -> Result<(), Status> {
    let mut given = BTreeSet::new();
    let ports = spec["ports"].as_array().into_iter().flatten();
    for port in ports.filter(|_| spec["type"] == "NodePort" || spec["type"] == "LoadBalancer") {
        let (protocol, number) = (port["protocol"].as_str().unwrap_or("TCP"), port["nodePort"].as_i64());
        if let Some(number) = number.filter(|number| *number != 0)
            && !given.insert((protocol, number))
        {
            return Err(Status::new(500, "", format!("duplicate nodePort: {{{protocol} {number}}}")));
        }
    }
    Ok(())
}

/// Whether ports of nodes are given to a Service, or taken for it.
fn takes_ports(spec: &Value) -> bool {
    matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

fn node_ports(service: &Value) -> impl Iterator<Item = u16> {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    ports
        .chain([&spec["healthCheckNodePort"]])
        .filter_map(Value::as_u64)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .collect::<Vec<u16>>()
        .into_iter()
}

/// The addresses that a Service has in its two fields.
fn addresses_of(spec: &Value) -> impl Iterator<Item = &str> {
    let ips = meta::strings(&spec["clusterIPs"]).chain(spec["clusterIP"].as_str());
    ips.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
}

/// The keys of everything that a Service holds.
fn keys(service: &Value) -> BTreeSet<String> {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return BTreeSet::new();
    }
    let ips = addresses_of(spec).map(|ip| format!("{IPS}{ip}"));
    ips.chain(node_ports(service).map(|port| format!("{PORTS}{port}"))).collect()
}

/// Claims the node ports of Services that were written by who keeps them elsewhere, as a kube-apiserver does in one map of all.
///
/// # Errors
/// The store cannot be reached.
pub async fn adopt_ports(store: &Store) -> Result<(), Status> {
    let Some(services) = store.resource("", "services") else { return Ok(()) };
    let key = Bytes::from_static(PORTS.as_bytes());
    let request =
        RangeRequest { range_end: prefix_end(&key), key, keys_only: true, ..RangeRequest::default() };
    let held = store.kv().range(request).await.map_err(|error| unreachable(&error))?;
    let held: BTreeSet<Bytes> = held.kvs.into_iter().map(|kv| kv.key).collect();
    let (entries, _) = services.cache.list("", 0, |_| true);
    for entry in entries {
        let service = entry.value();
        let claims = beside(service, None).claim.into_iter();
        for (key, owner) in claims.filter(|(key, _)| key.starts_with(PORTS.as_bytes()) && !held.contains(key))
        {
            let object = services.key(meta::namespace(service), meta::name(service));
            store.claim((object, entry.revision), key, owner).await?;
        }
    }
    Ok(())
}

/// The IPAddresses by which a Service holds what it has.
#[must_use]
pub fn addresses(service: &Value) -> Vec<Value> {
    let ips = keys(service).into_iter();
    ips.filter_map(|key| Some(address(key.strip_prefix(IPS)?, service))).collect()
}

/// The IPAddress by which a Service holds an address.
fn address(ip: &str, service: &Value) -> Value {
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    let now = clock::rfc3339_seconds(clock::now());
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": ip, "uid": random::uuid(),
            "creationTimestamp": now, "managedFields": [{"manager": SERVER, "operation": "Update", "apiVersion": "networking.k8s.io/v1",
                "time": now, "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:metadata": {"f:labels": {".": {}, "f:ipaddress.kubernetes.io/ip-family": {},
                        "f:ipaddress.kubernetes.io/managed-by": {}}},
                    "f:spec": {"f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}}}}],
            "labels": {"ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "namespace": meta::namespace(service),
            "name": meta::name(service)}}})
}

fn beside(object: &Value, old: Option<&Value>) -> Beside {
    let (new, old) = (keys(object), old.map(keys).unwrap_or_default());
    let owner = Bytes::from(format!("{}/{}", meta::namespace(object), meta::name(object)));
    let value = |key: &str| match key.strip_prefix(IPS) {
        Some(ip) => Bytes::from(stored(&address(ip, object))),
        None => owner.clone(),
    };
    Beside {
        claim: new.difference(&old).map(|key| (Bytes::from(key.clone()), value(key))).collect(),
        free: old.difference(&new).map(|key| Bytes::from(key.clone())).collect(),
    }
}
