//! The metadata watches: one for each resource that can be listed, watched and deleted, following discovery.

use super::Garbage;
use super::collect::uid_of;
use super::graph::Node;
use crate::counts::full_name;
use crate::discovery::{self, Discovered, Served};
use coracle_client::{Reflector, Scope, Store};
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

type Metadata = PartialObjectMeta<DynamicObject>;

/// Resources that own nothing, are owned by nothing, and change all the time.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// How long the collector's start waits for a server that does not answer.
const SYNCED_WITHIN: Duration = Duration::from_secs(30);
/// After how long servers that did not answer are looked for again, and what an apiserver may not have known of others.
const AGAIN: Duration = Duration::from_secs(30);

struct Monitor {
    namespaced: bool,
    scope: Scope,
    store: Store<Metadata>,
}

/// Keeps a watch for every resource served; `synced` turns true once all of the first are filled.
pub async fn follow(garbage: Garbage, scope: Scope, synced: watch::Sender<bool>) {
    // Custom resources come and go with their definitions; a definition's status tells when they are served.
    let definitions: Store<CustomResourceDefinition> =
        Reflector::new(Api::all(garbage.client.clone())).trim(keep_names).start(&scope);
    let defined = definitions.changes();
    let mut known = BTreeSet::new();
    // And what other servers serve, with their APIServices' conditions.
    let services = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService"),
        "apiservices",
    );
    let services = Reflector::metadata(garbage.client.clone(), &services).start(&scope).changes();
    let mut monitors: HashMap<ApiResource, Monitor> = HashMap::new();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut unsettled = false;
    loop {
        let established: BTreeSet<String> =
            definitions.list().iter().filter_map(|own| established(own)).collect();
        let (again, lagging) = match discovery::discover(&garbage.client).await {
            Ok(mut served) => {
                served.resources.retain(is_collected);
                adjust(&garbage, &scope, &mut monitors, &served);
                if lags(&served, &established, &known) {
                    (Some(backoff.next_delay()), true)
                } else {
                    backoff.reset();
                    known = established;
                    ((unsettled || !served.silent.is_empty()).then_some(AGAIN), false)
                }
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
            _ = defined.next() => {}
            _ = services.next() => unsettled = true,
            () = clock::sleep(again.unwrap_or_default()), if again.is_some() => unsettled &= lagging,
        }
    }
}

/// The resource of a definition whose objects are served.
fn established(definition: &CustomResourceDefinition) -> Option<String> {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_established = conditions.clone().any(|own| own.type_ == "Established" && own.status == "True");
    let serves = definition.spec.versions.iter().any(|version| version.served);
    (is_established && serves).then(|| full_name(&definition.spec.group, &definition.spec.names.plural))
}

/// Whether what is served was told by an apiserver that does not know the definitions' last change yet: one is missing, or
/// one is there that was `known` and is not established any more.
fn lags(served: &Served, established: &BTreeSet<String>, known: &BTreeSet<String>) -> bool {
    let told: BTreeSet<String> = served
        .resources
        .iter()
        .map(|served| full_name(&served.resource.group, &served.resource.plural))
        .collect();
    !established.is_subset(&told) || known.difference(established).any(|gone| told.contains(gone))
}

fn keep_names(definition: &mut CustomResourceDefinition) {
    definition.metadata.managed_fields = None;
    definition.metadata.annotations = None;
    definition.spec.conversion = None;
    for version in &mut definition.spec.versions {
        version.schema = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn discovery_that_does_not_know_the_last_change_of_a_definition_lags() {
        let names = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|&name| name.into()).collect() };
        let served = |plurals: &[&str]| Served {
            resources: plurals
                .iter()
                .map(|plural| Discovered {
                    resource: ApiResource::from_gvk_with_plural(
                        &GroupVersionKind::gvk("a.io", "v1", "K"),
                        plural,
                    ),
                    namespaced: true,
                    verbs: Vec::new(),
                })
                .collect(),
            silent: Vec::new(),
        };
        let rows = [
            (&["ones"][..], &["ones.a.io"][..], &[][..], false),
            (&[], &["ones.a.io"], &[], true),
            (&["ones"], &[], &["ones.a.io"], true),
            (&[], &[], &["ones.a.io"], false),
            // Nobody defined it here: an aggregated server has it.
            (&["ones"], &[], &[], false),
        ];
        for (told, established, known, expected) in rows {
            let got = lags(&served(told), &names(established), &names(known));
            assert_eq!(got, expected, "{told:?} {established:?} {known:?}");
        }
    }

    #[test]
    fn a_definition_counts_once_its_objects_are_served() {
        let definition = |status: &str, served: bool| -> CustomResourceDefinition {
            serde_json::from_value(json!({"metadata": {"name": "ones.a.io"},
                "spec": {"group": "a.io", "scope": "Namespaced", "names": {"plural": "ones", "kind": "One"},
                    "versions": [{"name": "v1", "served": served, "storage": true}]},
                "status": {"conditions": [{"type": "Established", "status": status}]}}))
            .expect("a definition")
        };
        assert_eq!(established(&definition("True", true)).as_deref(), Some("ones.a.io"));
        assert_eq!(established(&definition("False", true)), None);
        assert_eq!(established(&definition("True", false)), None);
    }
}
