//! The metadata watches: one for each resource that can be listed, watched and deleted, following discovery.

use super::Garbage;
use super::collect::uid_of;
use super::graph::Node;
use crate::counts::full_name;
use crate::discovery::{self, Discovered, Served};
use coracle_client::{Reflector, Scope, Store};
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

type Metadata = PartialObjectMeta<DynamicObject>;

/// Resources that own nothing, are owned by nothing, and change all the time.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// How long the collector's start waits for a server that does not answer.
const SYNCED_WITHIN: Duration = Duration::from_secs(30);
/// After how long servers that did not answer are looked for again.
const SILENT_AGAIN: Duration = Duration::from_secs(30);

struct Monitor {
    namespaced: bool,
    scope: Scope,
    store: Store<Metadata>,
}

/// Keeps a watch for every resource served; `synced` turns true once all of the first are filled.
pub async fn follow(garbage: Garbage, scope: Scope, synced: watch::Sender<bool>) {
    let definitions = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        "customresourcedefinitions",
    );
    // Custom resources come and go with their definitions; a definition's status tells when they are served.
    let definitions = Reflector::metadata(garbage.client.clone(), &definitions).start(&scope).changes();
    // And what other servers serve, with their APIServices' conditions.
    let services = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService"),
        "apiservices",
    );
    let services = Reflector::metadata(garbage.client.clone(), &services).start(&scope).changes();
    let mut monitors: HashMap<ApiResource, Monitor> = HashMap::new();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        let silent = match discovery::discover(&garbage.client).await {
            Ok(mut served) => {
                backoff.reset();
                served.resources.retain(is_collected);
                adjust(&garbage, &scope, &mut monitors, &served);
                !served.silent.is_empty()
            }
            Err(error) => {
                tracing::debug!(%error, "cannot discover what to collect");
                clock::sleep(backoff.next_delay()).await;
                continue;
            }
        };
        if !*synced.borrow() {
            let all = async {
                for monitor in monitors.values() {
                    monitor.store.synced().await;
                }
            };
            if clock::timeout(SYNCED_WITHIN, all).await.is_err() {
                tracing::warn!("some resources cannot be listed; collecting without them");
            }
            synced.send_replace(true);
        }
        tokio::select! {
            _ = definitions.next() => {}
            _ = services.next() => {}
            () = clock::sleep(SILENT_AGAIN), if silent => {}
        }
    }
}

fn is_collected(resource: &Discovered) -> bool {
    let ignored = IGNORED.contains(&(resource.resource.group.as_str(), resource.resource.plural.as_str()));
    !ignored && ["list", "watch", "delete"].iter().all(|verb| resource.can(verb))
}

fn adjust(garbage: &Garbage, scope: &Scope, monitors: &mut HashMap<ApiResource, Monitor>, served: &Served) {
    monitors.retain(|resource, monitor| {
        // What a server that is silent had is not gone.
        let kept = served.resources.iter().any(|served| served.resource == *resource)
            || served.silent.contains(&resource.api_version);
        if !kept {
            monitor.scope.cancel();
            garbage.graph.lock().forget_resource(resource);
            garbage.counts.forget(&full_name(&resource.group, &resource.plural));
        }
        kept
    });
    for served in &served.resources {
        monitors.entry(served.resource.clone()).or_insert_with(|| monitor(garbage, &scope.child(), served));
    }
    let all = monitors.iter().map(|(resource, monitor)| (resource.clone(), monitor.namespaced)).collect();
    garbage.graph.lock().serve(all);
}

fn monitor(garbage: &Garbage, scope: &Scope, served: &Discovered) -> Monitor {
    let (resource, namespaced) = (&served.resource, served.namespaced);
    let store = Reflector::metadata(garbage.client.clone(), resource).trim(keep_owners).start(scope);
    let (garbage, resource) = (garbage.clone(), Arc::new(resource.clone()));
    let name = full_name(&resource.group, &resource.plural);
    store.on_change(move |change| {
        if change.old.is_none() != change.new.is_none() {
            garbage.counts.note(&name, &change.key.namespace, change.old.is_none());
        }
        let mut graph = garbage.graph.lock();
        let mut look_at = Vec::new();
        // Deleted and made anew between two lists: another object under the same name.
        if let Some(old) = &change.old
            && change.new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid)
        {
            look_at.extend(graph.lost(&uid_of(&old.metadata)));
        }
        if let Some(new) = &change.new {
            look_at.extend(graph.saw(&uid_of(&new.metadata), &Node::new(resource.clone(), &new.metadata)));
        }
        drop(graph);
        for uid in look_at {
            garbage.queue.add(uid);
        }
    });
    Monitor { namespaced, scope: scope.clone(), store }
}

fn keep_owners(object: &mut Metadata) {
    object.metadata.labels = None;
    object.metadata.annotations = None;
    object.metadata.managed_fields = None;
}
