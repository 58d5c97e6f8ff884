//! Keeps one probing task for each running container that has probes.

use super::{Entry, Pods};
use crate::node::Node;
use crate::probes::check::Place;
use crate::probes::{self, Finding, Kind};
use crate::runtime::{Sandbox, State};
use crate::step::{Health, containers_of};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Pods {
    /// Starts and ends tasks so that they fit what runs.
    pub(super) fn probe(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        sandbox: Option<&Sandbox>,
        node: &Node,
    ) {
        let running = sandbox
            .iter()
            .flat_map(|sandbox| &sandbox.containers)
            .filter(|container| matches!(container.state, State::Running { .. }));
        let mut alive = BTreeSet::new();
        for container in running {
            alive.insert(container.id.clone());
            let spec = pod.spec.as_ref();
            let Some(spec) = spec.and_then(|spec| containers_of(spec).find(|one| one.name == container.name))
            else {
                continue;
            };
            let any = spec.startup_probe.is_some()
                || spec.liveness_probe.is_some()
                || spec.readiness_probe.is_some();
            if !any {
                continue;
            }
            if self.ground.is_none() {
                let well = Health { started: Some(true), live: true, ready: Some(true) };
                entry.memory.lock().health.insert(container.id.clone(), well);
                continue;
            }
            let known = entry.work.lock().probes.contains_key(&container.id);
            let hook = entry.memory.lock().hooks.contains(&container.id);
            // A pod that goes is not probed anew; a hook at the beginning comes before all probes.
            if known || hook || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let scope = entry.scope.child();
            entry.work.lock().probes.insert(container.id.clone(), scope.clone());
            let place = Place {
                runtime: self.runtime.clone(),
                id: container.id.clone(),
                ip: sandbox.and_then(|sandbox| sandbox.address).unwrap_or(node.address),
                container: spec.clone(),
            };
            let listener =
                Listener { pods: self.clone(), entry: entry.clone(), pod: pod.clone(), place: place.clone() };
            scope.spawn(format!("probes of {}", container.id), probes::run(place, listener));
        }
        entry.work.lock().probes.retain(|id, scope| {
            let keep = alive.contains(id);
            if !keep {
                scope.cancel();
            }
            keep
        });
    }
}

struct Listener {
    pods: Arc<Pods>,
    entry: Arc<Entry>,
    pod: Arc<Pod>,
    place: Place,
}

impl probes::Listener for Listener {
    fn found(&self, finding: Finding) {
        let unknown = Health { started: None, live: true, ready: None };
        let mut memory = self.entry.memory.lock();
        let health = memory.health.entry(self.place.id.clone()).or_insert(unknown);
        match finding.kind {
            Kind::Startup => health.started = Some(finding.well),
            Kind::Liveness => health.live = finding.well,
            Kind::Readiness => health.ready = Some(finding.well),
        }
        drop(memory);
        self.pods.queue.add(self.entry.key.clone());
    }

    fn failed(&self, kind: Kind, why: &str) {
        let text = format!("{kind:?} probe failed: {why}");
        self.pods.warn(&self.pod, &self.place.container.name, "Unhealthy", text);
    }
}
