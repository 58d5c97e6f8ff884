//! The life of CustomResourceDefinitions: their names are accepted, and before one goes its objects go.
//!
//! Invariant: safe while several apiservers do it at once; nothing is written that stands there already.

use crate::Server;
use crate::reader::Reader;
use crate::storage::customs::{GROUP, PLURAL};
use coracle_api::custom::names;
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
        if failed {
            clock::sleep(backoff.next_delay()).await;
            continue;
        }
        backoff.reset();
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
    let (of, name) = (GroupResource::new(GROUP, PLURAL), meta::name(definition));
    let deleted = !meta::field(definition, "deletionTimestamp").is_empty();
    if deleted && !meta::strings(&definition["metadata"]["finalizers"]).any(|own| own == names::CLEANUP) {
        return Ok(true);
    }
    if deleted {
        if let Some(resource) = own_objects(server, definition)
            && !server.registry.remove_all(&resource.of).await?
        {
            return Ok(false);
        }
        let release = |current: &Value| {
            let mut current = current.clone();
            current["metadata"]["finalizers"].as_array_mut()?.retain(|own| own != names::CLEANUP);
            Some(current)
        };
        return gone_or_done(server.objects.modify(&of, "", name, &release).await);
    }
    let others: Vec<&Value> = all.iter().map(AsRef::as_ref).collect();
    let now = clock::rfc3339_seconds(clock::now());
    if names::status(definition, &others, &now).is_none() {
        return Ok(true);
    }
    let accept = |current: &Value| {
        let mut current = current.clone();
        current["status"] = names::status(&current, &others, &now)?;
        Some(current)
    };
    gone_or_done(server.objects.modify(&of, "", name, &accept).await)
}

fn gone_or_done(done: Result<Value, Status>) -> Result<bool, Status> {
    match done {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(true),
    }
}
