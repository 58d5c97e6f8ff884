//! An APIService for each group version of this server and of definitions.
//!
//! Invariants: what people have made or taken over is left alone; built-in ones are looked at once a start, so that whoever
//! changes one keeps the change until then; those of definitions go with them.

use super::{api_services, priorities};
use crate::Server;
use crate::reader::{Reader, SERVER};
use crate::storage::customs;
use coracle_api::meta;
use coracle_api::status::Status;
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How an APIService is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Managed {
    /// Once a start.
    OnStart,
    /// At any time.
    Always,
}

impl Managed {
    fn label(self) -> &'static str {
        match self {
            Self::OnStart => "onstart",
            Self::Always => "true",
        }
    }

    fn of(object: &Value) -> Option<Self> {
        match object["metadata"]["labels"][LABEL].as_str() {
            Some("onstart") => Some(Self::OnStart),
            Some("true") => Some(Self::Always),
            _ => None,
        }
    }
}

/// What is there.
#[derive(Clone, Copy)]
struct Current {
    managed: Option<Managed>,
    /// It says what is wanted.
    same: bool,
    /// It was there when this server started.
    at_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Leave,
    Create,
    Update,
    Delete,
}

/// What to do; `done` when it was done once since the start.
fn step(wanted: Option<Managed>, current: Option<Current>, done: bool) -> Step {
    let Some(current) = current else {
        return match wanted {
            None => Step::Leave,
            Some(Managed::OnStart) if done => Step::Leave,
            Some(_) => Step::Create,
        };
    };
    let left = match current.managed {
        None => true,
        Some(Managed::OnStart) => done || !current.at_start,
        Some(Managed::Always) => wanted == Some(Managed::OnStart) && done,
    };
    match (left, wanted) {
        (true, _) => Step::Leave,
        (false, None) => Step::Delete,
        (false, Some(_)) if current.same => Step::Leave,
        (false, Some(_)) => Step::Update,
    }
}

struct Wanted {
    managed: Managed,
    spec: Value,
}

fn wanted(served: &[(&str, &str)]) -> BTreeMap<String, Wanted> {
    let mut all = BTreeMap::new();
    for (group, version) in served.iter().copied() {
        let builtin = priorities::builtin(group, version);
        let managed = if builtin.is_some() { Managed::OnStart } else { Managed::Always };
        let (group_priority, version_priority) = builtin.unwrap_or_else(priorities::custom);
        if group == super::GROUP {
            continue;
        }
        let mut spec = json!({"version": version, "groupPriorityMinimum": group_priority,
            "versionPriority": version_priority});
        if !group.is_empty() {
            spec["group"] = json!(group);
        }
        all.insert(format!("{version}.{group}"), Wanted { managed, spec });
    }
    all
}

/// Keeps them; without end.
pub async fn run(server: Arc<Server>) {
    let server = &*server;
    let Some(definitions) = server.store.resource(customs::GROUP, customs::PLURAL) else { return };
    let Some(services) = server.store.resource(super::GROUP, super::PLURAL) else { return };
    let (mut definitions, mut services) = (definitions.cache.moved(), services.cache.moved());
    server.health.wait_bootstrapped().await;
    let known = server.store.list(&api_services(), "");
    let at_start: HashSet<String> = known.iter().map(|object| meta::name(object).to_owned()).collect();
    let mut done = HashSet::new();
    let mut backoff = Backoff::new(RETRY, RETRY_MAX);
    loop {
        definitions.borrow_and_update();
        services.borrow_and_update();
        if round(server, &at_start, &mut done).await {
            backoff.reset();
            tokio::select! {
                _ = definitions.changed() => {}
                _ = services.changed() => {}
            }
        } else {
            clock::sleep(backoff.next_delay()).await;
        }
    }
}

/// Brings all to what they should be; false when something is left to do.
async fn round(server: &Server, at_start: &HashSet<String>, done: &mut HashSet<String>) -> bool {
    // In this order: a definition whose APIService is seen is seen too.
    let current: BTreeMap<String, Arc<Value>> = server
        .store
        .list(&api_services(), "")
        .into_iter()
        .map(|object| (meta::name(&object).to_owned(), object))
        .collect();
    let customs = server.store.customs();
    let wanted = wanted(&server.aggregator.served(customs.kinds()));
    let names: BTreeSet<&String> = current.keys().chain(wanted.keys()).collect();
    let steps = names.into_iter().map(|name| {
        let (wanted, current) = (wanted.get(name), current.get(name));
        let state = current.map(|object| Current {
            managed: Managed::of(object),
            same: wanted.is_some_and(|wanted| object["spec"] == wanted.spec),
            at_start: at_start.contains(name),
        });
        let step = step(wanted.map(|wanted| wanted.managed), state, done.contains(name));
        async move {
            let ended = take(server, step, name, wanted, current.map(AsRef::as_ref)).await;
            (name.clone(), ended)
        }
    });
    let mut whole = true;
    for (name, ended) in join_all(steps).await {
        match ended {
            Ok(()) => drop(done.insert(name)),
            Err(status) => {
                tracing::warn!(name, error = status.message, "cannot register an API");
                whole = false;
            }
        }
    }
    whole
}

async fn take(
    server: &Server,
    step: Step,
    name: &str,
    wanted: Option<&Wanted>,
    current: Option<&Value>,
) -> Result<(), Status> {
    let of = api_services();
    let ended = match (step, wanted, current) {
        (Step::Create, Some(wanted), _) => {
            let object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": name, "labels": {LABEL: wanted.managed.label()}}, "spec": wanted.spec});
            server.objects.create(&of, "", object, SERVER).await.map(drop)
        }
        (Step::Update, Some(wanted), _) => {
            let change = |object: &Value| {
                let mut object = object.clone();
                object["spec"] = wanted.spec.clone();
                Managed::of(&object).map(|_| object)
            };
            server.objects.modify(&of, "", name, SERVER, &change).await.map(drop)
        }
        (Step::Delete, _, Some(current)) => server.registry.remove(&of, "", name, meta::uid(current)).await,
        _ => Ok(()),
    };
    match ended {
        // Another server was faster, or somebody has taken it away or replaced it.
        Err(status) if matches!(status.code, 404 | 409) => Ok(()),
        ended => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_managed_is_touched_and_built_in_ones_only_once() {
        let current = |managed, same, at_start| Some(Current { managed, same, at_start });
        let (start, always) = (Some(Managed::OnStart), Some(Managed::Always));
        let rows = [
            // Wanted, there, done already.
            (None, None, false, Step::Leave),
            (start, None, false, Step::Create),
            (start, None, true, Step::Leave),
            (always, None, true, Step::Create),
            (None, current(None, false, true), false, Step::Leave),
            (always, current(None, false, true), false, Step::Leave),
            (None, current(start, false, false), false, Step::Leave),
            (None, current(start, false, true), false, Step::Delete),
            (None, current(start, false, true), true, Step::Leave),
            (start, current(start, false, true), false, Step::Update),
            (start, current(start, false, true), true, Step::Leave),
            (start, current(start, true, true), false, Step::Leave),
            (None, current(always, false, false), true, Step::Delete),
            (always, current(always, false, false), true, Step::Update),
            (always, current(always, true, false), true, Step::Leave),
            (start, current(always, false, false), true, Step::Leave),
        ];
        for (at, (wanted, current, done, want)) in rows.into_iter().enumerate() {
            assert_eq!(step(wanted, current, done), want, "row {at}");
        }
    }
}
