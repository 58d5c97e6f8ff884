//! The life of CustomResourceDefinitions: their names are accepted, and before one goes its objects go.
//!
//! Invariant: safe while several apiservers do it at once; nothing is written that stands there already.

use crate::Server;
use crate::reader::{Reader, SERVER};
use crate::storage::customs::{GROUP, PLURAL};
use coracle_api::custom::names::{self, Ending};
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use futures::future::select_all;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Keeps definitions' status; without end.
pub async fn run(server: Arc<Server>) {
    let server = &*server;
    let Some(resource) = server.store.resource(GROUP, PLURAL) else { return };
    let mut moved = resource.cache.moved();
    server.store.loaded().await;
    let mut backoff = Backoff::new(RETRY, RETRY_MAX);
    loop {
        moved.borrow_and_update();
        let all = server.store.list(&GroupResource::new(GROUP, PLURAL), "");
        let (mut failed, mut emptying) = (false, Vec::new());
        for definition in &all {
            // Whoever waits for the last object must have looked before it is counted.
            let objects = own_objects(server, definition).map(|resource| resource.cache.moved());
            match step(server, definition, &all).await {
                Ok(true) => {}
                Ok(false) => emptying.extend(objects),
                Err(status) => {
                    tracing::warn!(
                        name = meta::name(definition),
                        error = status.message,
                        "cannot keep a custom kind"
                    );
                    failed = true;
                }
            }
        }
        // Whatever one definition waits for, the others do not.
        let again = if failed { Some(backoff.next_delay()) } else { None };
        if again.is_none() {
            backoff.reset();
        }
        let again = async {
            match again {
                Some(delay) => clock::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        let emptied = async {
            if emptying.is_empty() {
                return std::future::pending().await;
            }
            let waits = emptying.iter_mut().map(|objects| Box::pin(objects.changed()));
            drop(select_all(waits).await);
        };
        tokio::select! {
            _ = moved.changed() => {}
            () = emptied => {}
            () = again => {}
        }
    }
}

fn own_objects(server: &Server, definition: &Value) -> Option<Arc<crate::storage::Resource>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spec = &definition["spec"];
    server.store.resource(&text(&spec["group"]), &text(&spec["names"]["plural"])).filter(|own| own.custom)
}

/// Does what a definition needs now; false while its objects hold it.
async fn step(server: &Server, definition: &Arc<Value>, all: &[Arc<Value>]) -> Result<bool, Status> {
    if !meta::field(definition, "deletionTimestamp").is_empty() {
        return end(server, definition).await;
    }
    let others: Vec<&Value> = all.iter().map(AsRef::as_ref).collect();
    let now = clock::rfc3339_seconds(clock::now());
    let accept = |current: &Value| names::status(current, &others, &now);
    set_status(server, definition, &accept, &[]).await
}

/// Removes a definition's objects and then what holds it; false while they are not gone.
async fn end(server: &Server, definition: &Arc<Value>) -> Result<bool, Status> {
    if !meta::strings(&definition["metadata"]["finalizers"]).any(|own| own == names::CLEANUP) {
        return Ok(true);
    }
    let now = clock::rfc3339_seconds(clock::now());
    let told = |ending| {
        let now = &now;
        move |current: &Value| names::terminating(current, ending, now)
    };
    set_status(server, definition, &told(Ending::Running), &[]).await?;
    let mut ending = Ending::Unborn;
    if let Some(resource) = own_objects(server, definition) {
        if !server.registry.remove_all(&resource.of).await? {
            return Ok(false);
        }
        ending = Ending::Done;
    }
    // By way of the status, which can be written whatever else is wrong with a definition.
    set_status(server, definition, &told(ending), &[names::CLEANUP]).await
}

/// Writes a definition's status, as far as it changes, and takes finalizers away with it.
async fn set_status(
    server: &Server,
    definition: &Value,
    status: &(dyn Fn(&Value) -> Option<Value> + Send + Sync),
    released: &[&str],
) -> Result<bool, Status> {
    if status(definition).is_none() {
        return Ok(true);
    }
    let change = |current: &Value| {
        let mut changed = current.clone();
        changed["status"] = status(current)?;
        let finalizers = changed["metadata"].get_mut("finalizers").and_then(Value::as_array_mut);
        if let Some(finalizers) = finalizers {
            finalizers.retain(|own| !released.iter().any(|gone| own == gone));
        }
        Some(changed)
    };
    let of = GroupResource::new(GROUP, PLURAL);
    gone_or_done(server.objects.modify(&of, "", meta::name(definition), SERVER, &change).await)
}

fn gone_or_done(done: Result<Value, Status>) -> Result<bool, Status> {
    match done {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(true),
    }
}
