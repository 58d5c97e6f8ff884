//! From a pod to what the runtime is asked for: environment, identity, limits, names and mounts of each container.
//!
//! In: the pod, its sandbox's address, and the objects it refers to. Out: [`SandboxSpec`] and what a `ContainerSpec` is
//! made of. Pure: files are written by `volumes`.

pub mod env;
pub mod expand;
pub mod fields;
pub mod limits;
pub mod names;
pub mod security;
pub mod services;

use crate::runtime::{HostPort, SandboxSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Secret};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Why a container's configuration cannot be made, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Something that the pod refers to does not exist (yet).
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It exists, but lacks a key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// The key.
        key: String,
    },
    /// It was not asked for long enough ago to know.
    #[error("{kind} {name:?} is not known yet")]
    NotYet {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The pod says something that cannot be done.
    #[error("{0}")]
    Impossible(String),
}

/// An object that a pod refers to.
#[derive(Clone, Debug)]
pub enum Found<K> {
    /// It is here.
    Here(Arc<K>),
    /// There is none.
    Missing,
    /// Nobody knows yet; whoever asked is woken when somebody does.
    NotYet,
}

/// Where the objects that a pod refers to come from.
pub trait Lookup: Send + Sync {
    /// A ConfigMap of the pod's namespace.
    fn config_map(&self, name: &str) -> Found<ConfigMap>;
    /// A Secret of the pod's namespace.
    fn secret(&self, name: &str) -> Found<Secret>;
}

/// What all pods of a node share.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The node's name.
    pub node: String,
    /// Its address.
    pub host: std::net::IpAddr,
    /// Its memory in bytes, for `oom_score_adj` and containers without limit.
    pub memory_bytes: i64,
    /// Its processors in thousandths.
    pub cpu_millis: i64,
    /// Its disk in bytes.
    pub disk_bytes: i64,
    /// The cluster's name servers.
    pub dns: Vec<std::net::IpAddr>,
    /// The cluster's domain.
    pub domain: String,
    /// The cgroup above the pods'.
    pub cgroup_root: String,
}

/// A text that the API may leave out.
pub fn text(field: Option<&String>) -> &str {
    field.map_or("", String::as_str)
}

/// Whether the pod uses the node's network.
pub fn on_host_network(spec: &PodSpec) -> bool {
    spec.host_network == Some(true)
}

/// The ports of the node that lead to the pod; one on the node's own network listens there itself.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let asked = ports.filter_map(|port| {
        Some(HostPort {
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            address: port
                .host_ip
                .as_ref()
                .and_then(|ip| ip.parse().ok())
                .filter(|ip: &Ipv4Addr| !ip.is_unspecified()),
            port: u16::try_from(port.host_port?).ok().filter(|port| *port > 0)?,
            container_port: u16::try_from(port.container_port).ok()?,
        })
    });
    if on_host_network(spec) { Vec::new() } else { asked.collect() }
}

/// The sandbox of a pod.
pub fn sandbox(pod: &Pod, spec: &PodSpec, address: Option<Ipv4Addr>, around: &Surroundings) -> SandboxSpec {
    let context = spec.security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    let pairs = sysctls.into_iter().flatten().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()));
    let sysctls: BTreeMap<String, String> = pairs.collect();
    SandboxSpec {
        uid: text(pod.metadata.uid.as_ref()).to_owned(),
        namespace: text(pod.metadata.namespace.as_ref()).to_owned(),
        name: text(pod.metadata.name.as_ref()).to_owned(),
        hostname: names::hostname(pod, spec, around),
        address: address.filter(|_| !on_host_network(spec)),
        host_ports: host_ports(spec),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_pids: spec.share_process_namespace == Some(true),
        sysctls,
        cgroup: limits::cgroup(pod, &around.cgroup_root),
        resources: limits::of_pod(pod, spec, around.memory_bytes),
    }
}
