//! A node's kubelet: the pods bound to its nodes in; containers, node objects, leases and pod statuses out.
//!
//! ```text
//! pods of our nodes ──Reflector──► Queue ──► step(pod, sandbox, memory, now) ──► Actions ──► Runtime, volumes, pods/status
//! machine facts ──► node::object ──► nodes, nodes/status          one timer ──► leases of all nodes
//! ```
//!
//! Two runtimes stand behind one trait: containerd, and the simulated one (`--simulated-nodes N`), where one unprivileged
//! process plays N nodes whose pods go through every status without a container. Invariant: a pod is deleted for good only
//! by its uid, and only when nothing of it is left.

mod addresses;
mod admission;
mod args;
mod launch;
pub mod logger;
mod machine;
mod node;
mod objects;
mod pod;
mod pods;
mod probes;
mod registration;
mod routes;
pub mod runtime;
mod server;
mod step;
mod streaming;
#[cfg(test)]
mod tests;
mod volumes;

pub use args::Args;

use anyhow::{Context, Result};
use coracle_client::{Recorder, Reflector, Scope};
use coracle_daemon::Tasks;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use pods::{Ground, Parts};
use runtime::Runtime;
use runtime::simulated::Simulated;
use std::sync::Arc;
use streaming::Streaming;

/// Is one node, or plays many, until the process stops.
///
/// # Errors
/// The kubeconfig, certificates, address or runtime cannot be used.
pub async fn run(args: Args, tasks: Tasks) -> Result<()> {
    let client = coracle_client::connect(&args.kubeconfig, "coracle-kubelet")
        .await
        .context("cannot set up the API client")?;
    if args.simulated_nodes > 0 {
        simulate(args, client, tasks).await
    } else {
        be_a_node(args, client, tasks).await
    }
}

async fn simulate(args: Args, client: kube::Client, tasks: Tasks) -> Result<()> {
    let nodes = Arc::new(node::simulated(&args, &machine::Facts::read()));
    let scope = Scope::new(&tasks);
    let recorder = Recorder::new(client.clone(), "kubelet", None, &scope);
    let store = pods::watch(&scope, &client, &nodes);
    let runtime: Arc<dyn Runtime> = Arc::new(Simulated::new(&scope, &store));
    let streaming = Streaming::new(None, store.clone(), args.pod_logs_dir.clone(), tasks.clone());
    server::start(&args, store.clone(), streaming, &tasks).await?;
    let known = Reflector::<Node>::new(Api::all(client.clone())).start(&scope);
    let parts = Parts {
        client: client.clone(),
        nodes: nodes.clone(),
        known: known.clone(),
        recorder,
        store,
        runtime: runtime.clone(),
    };
    pods::start(&scope, parts, |_| None);
    registration::start(&scope, &client, nodes, &known, runtime);
    Ok(())
}

async fn be_a_node(args: Args, client: kube::Client, tasks: Tasks) -> Result<()> {
    let pod_cidr =
        args.pod_cidr.context("pass --pod-cidr, the addresses that this node gives to its pods")?;
    let config = runtime::Config::new(&args.container_runtime_endpoint, &args.containerd_namespace)
        .context("cannot find the coracle program")?;
    let containerd = runtime::Containerd::connect(config, &tasks).await.context("cannot use containerd")?;
    let runtime: Arc<dyn Runtime> = Arc::new(containerd);
    let facts = machine::Facts::read();
    let nodes = Arc::new(node::real(&args, &facts, pod_cidr, runtime.version()));
    let this = nodes.values().next().cloned().context("there is no node")?;
    let scope = Scope::new(&tasks);
    let recorder = Recorder::new(client.clone(), "kubelet", Some(&this.name), &scope);
    let store = pods::watch(&scope, &client, &nodes);
    let services = Reflector::<Service>::new(Api::all(client.clone())).start(&scope);
    let logs = args.pod_logs_dir.clone();
    let streaming = Streaming::new(Some(runtime.clone()), store.clone(), logs.clone(), tasks.clone());
    server::start(&args, store.clone(), streaming, &tasks).await?;
    let around = launch::Surroundings {
        dns: args.cluster_dns.clone(),
        domain: args.cluster_domain.clone(),
        cgroup_root: args.cgroup_root.clone(),
        ..this.surroundings()
    };
    let known = Reflector::<Node>::new(Api::all(client.clone())).start(&scope);
    let parts = Parts {
        client: client.clone(),
        nodes: nodes.clone(),
        known: known.clone(),
        recorder,
        store,
        runtime: runtime.clone(),
    };
    pods::start(&scope, parts, |wake| {
        Some(Ground {
            files: volumes::Files::new(&args.root_dir, &logs, true),
            objects: objects::Objects::new(&client, &scope, wake),
            services,
            around: Arc::new(around),
        })
    });
    registration::start(&scope, &client, nodes, &known, runtime);
    let network = runtime::network::Network::here(&tasks).context("cannot reach the kernel's network")?;
    routes::start(&scope, &known, &this.name, Arc::new(network));
    Ok(())
}
