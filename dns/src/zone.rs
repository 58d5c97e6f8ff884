//! The cluster's names, as an index that follows Services, EndpointSlices and Namespaces one change at a time.
//!
//! In: one Service with all of its slices, whenever either changed. Out: what [`crate::answer`] reads. Pure.
//!
//! Invariants: every address in the reverse index belongs to the entry that it names; names are kept in lower case.

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointPort, EndpointSlice};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Namespace and name of a Service, in lower case.
pub type ServiceName = (String, String);

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its name; empty when the Service has one port only.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Its number.
    pub port: u16,
}

/// A ready address behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: IpAddr,
    /// Its label under the Service's name.
    pub hostname: String,
    /// Whether the pod gave that label itself.
    pub named: bool,
    /// What it serves.
    pub ports: Arc<[Port]>,
}

/// What a Service's own name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Virtual addresses with ports.
    Virtual {
        /// `clusterIPs`.
        addresses: Vec<IpAddr>,
        /// The Service's ports.
        ports: Vec<Port>,
    },
    /// Its endpoints (`clusterIP: None`).
    Headless,
    /// Another name; `None` when it is no name that DNS could carry.
    External(Option<Name>),
}

/// One Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What its name stands for.
    pub kind: Kind,
    /// Its ready endpoints, ordered by address.
    pub endpoints: Vec<Endpoint>,
}

/// All names of a cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    domain: Name,
    serial: u32,
    services: HashMap<ServiceName, Entry>,
    namespaces: HashSet<String>,
    owners: HashMap<IpAddr, BTreeSet<ServiceName>>,
}

impl Zone {
    /// A zone without names.
    #[must_use]
    pub fn new(domain: &Name) -> Self {
        Self {
            domain: domain.to_lowercase(),
            serial: 1,
            services: HashMap::new(),
            namespaces: HashSet::new(),
            owners: HashMap::new(),
        }
    }

    /// Where the zone begins.
    #[must_use]
    pub const fn domain(&self) -> &Name {
        &self.domain
    }

    /// Grows with each change.
    #[must_use]
    pub const fn serial(&self) -> u32 {
        self.serial
    }

    /// The Service of that name.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// How many Services there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is no Service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Whether a namespace exists.
    #[must_use]
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The Services that an address belongs to, in order.
    pub fn owners(&self, address: IpAddr) -> impl Iterator<Item = (&ServiceName, &Entry)> {
        let names = self.owners.get(&address).into_iter().flatten();
        names.filter_map(|name| self.services.get(name).map(|entry| (name, entry)))
    }

    /// Whether an address is that of a Service itself.
    #[must_use]
    pub fn is_virtual(&self, address: IpAddr) -> bool {
        self.owners(address).any(
            |(_, entry)| matches!(&entry.kind, Kind::Virtual { addresses, .. } if addresses.contains(&address)),
        )
    }

    /// Notes that a namespace exists, or no longer does.
    pub fn set_namespace(&mut self, namespace: &str, exists: bool) {
        let changed = if exists {
            self.namespaces.insert(namespace.to_ascii_lowercase())
        } else {
            self.namespaces.remove(&namespace.to_ascii_lowercase())
        };
        self.serial = self.serial.wrapping_add(u32::from(changed));
    }

    /// Replaces what is known of one Service; `None` forgets it.
    pub fn set_service(&mut self, namespace: &str, name: &str, entry: Option<Entry>) {
        let key = (namespace.to_ascii_lowercase(), name.to_ascii_lowercase());
        if self.services.get(&key) == entry.as_ref() {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        if let Some(old) = self.services.remove(&key) {
            for address in old.addresses() {
                if let Some(owners) = self.owners.get_mut(&address) {
                    owners.remove(&key);
                    if owners.is_empty() {
                        self.owners.remove(&address);
                    }
                }
            }
        }
        if let Some(entry) = entry {
            for address in entry.addresses() {
                self.owners.entry(address).or_default().insert(key.clone());
            }
            self.services.insert(key, entry);
        }
    }
}

impl Entry {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let own: &[IpAddr] = match &self.kind {
            Kind::Virtual { addresses, .. } => addresses,
            Kind::Headless | Kind::External(_) => &[],
        };
        own.iter().copied().chain(self.endpoints.iter().map(|endpoint| endpoint.address))
    }

    /// What a Service and its slices mean.
    #[must_use]
    pub fn of(service: &Service, slices: &[Arc<EndpointSlice>]) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref().unwrap_or_default();
            let target = Name::from_ascii(target).ok().filter(|name| !name.is_root());
            let target = target.map(|mut name| {
                name.set_fqdn(true);
                name
            });
            return Some(Self { kind: Kind::External(target), endpoints: Vec::new() });
        }
        let listed = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let headless = listed.clone().any(|address| address == "None");
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in listed.filter_map(|address| address.parse().ok()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let kind = if headless {
            Kind::Headless
        } else {
            let ports = spec.ports.iter().flatten();
            let ports =
                ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), Some(p.port))).collect();
            Kind::Virtual { addresses, ports }
        };
        let all = spec.publish_not_ready_addresses == Some(true);
        let mut endpoints: Vec<Endpoint> = slices.iter().flat_map(|slice| endpoints(slice, all)).collect();
        endpoints.sort_by(|a, b| (a.address, &a.ports).cmp(&(b.address, &b.ports)));
        endpoints.dedup();
        Some(Self { kind, endpoints })
    }
}

fn endpoints(slice: &EndpointSlice, all: bool) -> Vec<Endpoint> {
    if slice.address_type == "FQDN" {
        return Vec::new();
    }
    let ports: Arc<[Port]> = slice.ports.iter().flatten().filter_map(slice_port).collect();
    let ready = slice.endpoints.iter().filter(|endpoint| all || is_ready(endpoint));
    let addresses = ready.flat_map(|endpoint| {
        let ports = ports.clone();
        // All addresses of one endpoint are fungible, and consumers take the first.
        endpoint.addresses.iter().take(1).filter_map(|text| text.parse().ok()).map(move |address: IpAddr| {
            let given = endpoint.hostname.as_deref().filter(|hostname| !hostname.is_empty());
            let hostname = given.map_or_else(|| dashed(address), str::to_ascii_lowercase);
            Endpoint { address, hostname, named: given.is_some(), ports: ports.clone() }
        })
    });
    addresses.collect()
}

/// Unknown counts as ready, as the API's documentation wants.
fn is_ready(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn slice_port(slice: &EndpointPort) -> Option<Port> {
    port(slice.name.as_deref(), slice.protocol.as_deref(), slice.port)
}

fn port(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_ascii_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        port: u16::try_from(number?).ok()?,
    })
}

/// An address as a label: `10-244-0-5`, `fd00--5`.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
