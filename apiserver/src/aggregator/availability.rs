//! The condition `Available` of APIServices: local ones always are, remote ones when their Service has endpoints and an
//! endpoint answers.
//!
//! In: APIServices, Services, EndpointSlices as they change, and what is asked again now and then. Out: conditions, and what
//! the servers told. Where no APIService is remote, nothing is followed but APIServices.

use super::probe::Address;
use super::remote::Remote;
use super::{Aggregator, api_services};
use crate::outbound;
use crate::reader::{Reader, SERVER};
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::clock::{self, Instant};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// When a server is asked again without a reason.
const AGAIN: Duration = Duration::from_secs(30);
/// After the first failure; doubled with each, up to [`AGAIN`].
const RETRY: Duration = Duration::from_millis(200);

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Condition {
    fn available(reason: &'static str, message: &str) -> Self {
        Self { status: "True", reason, message: message.to_owned() }
    }

    fn unavailable(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }
}

/// The object with the condition, or `None` where it says so already. The time of a transition stays while the status does.
fn told(object: &Value, condition: &Condition, now: &str) -> Option<Value> {
    let Condition { status, reason, message } = condition;
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let known = conditions.iter_mut().find(|known| known["type"] == "Available");
    if let Some(known) = known {
        if known["status"] == *status && known["reason"] == *reason && known["message"] == *message {
            return None;
        }
        if known["status"] != *status {
            known["status"] = json!(status);
            known["lastTransitionTime"] = json!(now);
        }
        known["reason"] = json!(reason);
        known["message"] = json!(message);
    } else {
        conditions.push(json!({"type": "Available", "status": status, "reason": reason,
            "message": message, "lastTransitionTime": now}));
    }
    let mut object = object.clone();
    object["status"]["conditions"] = json!(conditions);
    Some(object)
}

/// Why a remote server need not be asked.
fn unreachable(remote: &Remote, service: Option<&Value>, slices: &[Arc<Value>]) -> Option<Condition> {
    let Remote { namespace, service: name, port, .. } = remote;
    let Some(service) = service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(Condition::unavailable("ServiceNotFound", message));
    };
    if !matches!(service["spec"]["type"].as_str(), Some("ClusterIP") | None) {
        return None;
    }
    let ports = service["spec"]["ports"].as_array();
    let port_name = ports.into_iter().flatten().find(|own| own["port"] == *port);
    let Some(port_name) = port_name.map(|own| own["name"].as_str().unwrap_or_default()) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Condition::unavailable("ServicePortError", message));
    };
    let mut own =
        slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == *name);
    let mut found = own.clone();
    if found.next().is_none() {
        let message = format!("cannot find endpoints for service/{name} in {namespace:?}");
        return Some(Condition::unavailable("EndpointsNotFound", message));
    }
    let has = |slice: &Arc<Value>| {
        let ready = |endpoint: &Value| endpoint["conditions"]["ready"] != false;
        let named =
            |port: &Value| port["name"].as_str().unwrap_or_default() == port_name && port["port"].is_number();
        slice["endpoints"].as_array().is_some_and(|list| list.iter().any(ready))
            && slice["ports"].as_array().is_some_and(|list| list.iter().any(named))
    };
    if own.any(has) {
        return None;
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
    );
    Some(Condition::unavailable("MissingEndpoints", message))
}

/// How long until a server is asked again.
fn pause(failures: u32) -> Duration {
    if failures == 0 { AGAIN } else { RETRY.saturating_mul(1 << (failures - 1).min(16)).min(AGAIN) }
}

/// All that an answer depends on, but for the server itself.
#[derive(Clone, PartialEq)]
struct Facts {
    remote: Arc<Remote>,
    addresses: Result<Vec<Address>, Condition>,
}

struct Watched {
    facts: Facts,
    due: Instant,
    failures: u32,
    running: bool,
}

/// Keeps conditions; without end.
pub async fn run(aggregator: Arc<Aggregator>) {
    let store = &aggregator.store;
    let below = [store.resource("", "services"), store.resource("discovery.k8s.io", "endpointslices")];
    let [Some(services), Some(slices)] = below else { return };
    let (mut moved, mut services, mut slices) =
        (aggregator.services.cache.moved(), services.cache.moved(), slices.cache.moved());
    store.loaded().await;
    let mut watched: HashMap<String, Watched> = HashMap::new();
    let mut running: FuturesUnordered<BoxFuture<'_, (Facts, bool)>> = FuturesUnordered::new();
    loop {
        for moved in [&mut moved, &mut services, &mut slices] {
            moved.borrow_and_update();
        }
        let local_at = aggregator.tell_local().await.err().map(|status| {
            tracing::warn!(error = status.message, "cannot tell that local APIs are available");
            Instant::now() + RETRY
        });
        for facts in aggregator.due(&mut watched) {
            running.push(Box::pin(aggregator.look(facts)));
        }
        let due = watched.values().filter(|watched| !watched.running).map(|watched| watched.due);
        let next = due.chain(local_at).min();
        tokio::select! {
            _ = moved.changed() => {}
            () = either(&mut services, &mut slices), if !watched.is_empty() => {}
            Some((facts, well)) = running.next(), if !running.is_empty() => {
                if let Some(known) = watched.get_mut(&facts.remote.name) {
                    known.running = false;
                    known.failures = if well { 0 } else { known.failures.saturating_add(1) };
                    // What has changed meanwhile is looked at once more.
                    known.due = Instant::now() + if known.facts == facts { pause(known.failures) } else { Duration::ZERO };
                }
            }
            () = clock::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

async fn either(one: &mut watch::Receiver<u64>, two: &mut watch::Receiver<u64>) {
    tokio::select! {
        _ = one.changed() => {}
        _ = two.changed() => {}
    }
}

impl Aggregator {
    /// What must be looked at now; forgets what is gone.
    fn due(&self, watched: &mut HashMap<String, Watched>) -> Vec<Facts> {
        let remotes = self.remotes();
        watched.retain(|name, known| {
            remotes.all().any(|remote| remote.name == *name && remote.uid == known.facts.remote.uid)
        });
        self.told.lock().retain(|name, _| watched.contains_key(name));
        let now = Instant::now();
        let mut due = Vec::new();
        for remote in remotes.all() {
            let facts = self.facts(remote);
            let new = || Watched { facts: facts.clone(), due: now, failures: 0, running: false };
            let known = watched.entry(remote.name.clone()).or_insert_with(new);
            if known.facts != facts {
                (known.facts, known.due, known.failures) = (facts, now, 0);
            }
            if !known.running && known.due <= now {
                known.running = true;
                due.push(known.facts.clone());
            }
        }
        due
    }

    fn facts(&self, remote: &Arc<Remote>) -> Facts {
        let reader: &dyn Reader = self.store.as_ref();
        let service = reader.get(&GroupResource::new("", "services"), &remote.namespace, &remote.service);
        let slices =
            reader.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), &remote.namespace);
        let addresses = match unreachable(remote, service.as_deref(), &slices) {
            Some(condition) => Err(condition),
            // Where this finds nothing, asking nobody tells so.
            None => outbound::addresses(reader, &remote.namespace, &remote.service, remote.port)
                .or_else(|_| Ok(Vec::new())),
        };
        let addresses = addresses.map(|mut addresses: Vec<Address>| {
            addresses.sort();
            addresses
        });
        Facts { remote: remote.clone(), addresses }
    }

    /// Asks where it must, and tells; false when it is to be tried again soon.
    async fn look(&self, facts: Facts) -> (Facts, bool) {
        let remote = facts.remote.clone();
        let answer = match &facts.addresses {
            Err(condition) => Err(condition.clone()),
            Ok(addresses) => self
                .probe(&remote, addresses)
                .await
                .map_err(|fault| Condition::unavailable("FailedDiscoveryCheck", fault)),
        };
        let (condition, told) = match answer {
            Ok(told) => (Condition::available("Passed", "all checks passed"), told),
            Err(condition) => (condition, None),
        };
        {
            let mut known = self.told.lock();
            match told {
                Some(told) => drop(known.insert(remote.name.clone(), told)),
                None => known.entry(remote.name.clone()).or_default().discovery.fresh = false,
            }
        }
        let failed = condition.reason == "FailedDiscoveryCheck";
        let written = self.tell(&remote.name, &condition, |object| {
            Remote::of(object).is_some_and(|current| current == *remote)
        });
        if let Err(status) = written.await {
            tracing::warn!(
                name = remote.name,
                error = status.message,
                "cannot tell whether an API is available"
            );
            return (facts, false);
        }
        (facts, !failed)
    }

    /// Writes a condition unless it stands there, or the object is not what it is about any more.
    async fn tell(
        &self,
        name: &str,
        condition: &Condition,
        is_about: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<(), Status> {
        let now = clock::rfc3339_seconds(clock::now());
        let change = |object: &Value| if is_about(object) { told(object, condition, &now) } else { None };
        let known = Reader::get(self.store.as_ref(), &api_services(), "", name);
        if known.is_none_or(|known| change(&known).is_none()) {
            return Ok(());
        }
        tracing::info!(
            name,
            status = condition.status,
            reason = condition.reason,
            condition.message,
            "availability of an API"
        );
        match self.objects.modify(&api_services(), "", name, SERVER, &change).await {
            Err(status) if status.code != 404 => Err(status),
            _ => Ok(()),
        }
    }

    async fn tell_local(&self) -> Result<(), Status> {
        let condition = Condition::available("Local", "Local APIServices are always available");
        for object in Reader::list(self.store.as_ref(), &api_services(), "") {
            if Remote::of(&object).is_none() {
                self.tell(meta::name(&object), &condition, |object| Remote::of(object).is_none()).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        Remote { namespace: "ns".to_owned(), service: "s".to_owned(), port: 443, ..Remote::default() }
    }

    #[test]
    fn what_keeps_a_remote_server_from_being_asked_is_told_in_kubernetes_words() {
        let service = |kind: &str, port: u16| json!({"spec": {"type": kind, "ports": [{"port": 80}, {"name": "https", "port": port}]}});
        let slice = |service: &str, port: &str, ready: bool| {
            Arc::new(json!({"metadata": {"labels": {"kubernetes.io/service-name": service}},
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}], "ports": [{"name": port, "port": 8443}]}))
        };
        let rows = [
            (None, vec![], Some(("ServiceNotFound", "service/s in \"ns\" is not present"))),
            (
                Some(service("ClusterIP", 8443)),
                vec![],
                Some(("ServicePortError", "service/s in \"ns\" is not listening on port 443")),
            ),
            (
                Some(service("ClusterIP", 443)),
                vec![slice("other", "https", true)],
                Some(("EndpointsNotFound", "cannot find endpoints for service/s in \"ns\"")),
            ),
            (
                Some(service("ClusterIP", 443)),
                vec![slice("s", "https", false), slice("s", "http", true)],
                Some((
                    "MissingEndpoints",
                    "endpointslices for service/s in \"ns\" have no addresses with port name \"https\"",
                )),
            ),
            (
                Some(service("ClusterIP", 443)),
                vec![slice("s", "https", false), slice("s", "https", true)],
                None,
            ),
            (Some(service("ExternalName", 80)), vec![], None),
        ];
        for (service, slices, want) in rows {
            let got = unreachable(&remote(), service.as_ref(), &slices);
            let got = got.as_ref().map(|got| (got.reason, got.message.as_str()));
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_condition_is_written_once_and_keeps_the_time_of_its_status() {
        let passed = Condition::available("Passed", "all checks passed");
        let failed = |text: &str| Condition::unavailable("FailedDiscoveryCheck", text.to_owned());
        let first = told(&json!({"spec": {}}), &passed, "1").expect("new");
        assert_eq!(told(&first, &passed, "2"), None);
        let second = told(&first, &failed("a"), "2").expect("another status");
        let third = told(&second, &failed("b"), "3").expect("another message");
        assert_eq!(
            third["status"]["conditions"],
            json!([{"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck", "message": "b", "lastTransitionTime": "2"}])
        );
    }

    #[test]
    fn failures_are_asked_again_ever_more_slowly() {
        let seconds: Vec<f64> = [0, 1, 2, 3, 8, 9, 99].map(|n| pause(n).as_secs_f64()).to_vec();
        assert_eq!(seconds, [30.0, 0.2, 0.4, 0.8, 25.6, 30.0, 30.0]);
    }
}
