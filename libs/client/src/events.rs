//! Events about objects: recorded without waiting, counted up instead of repeated, and bounded in number.
//!
//! In: an object's identity, a type, a reason and a message. Out: core/v1 Events. The caller only puts the event into a
//! bounded channel; when that is full the event is lost, for events are a help and never a duty.

use crate::{ObjectId, Scope};
use coracle_daemon::clock::{self, Instant, rfc3339_seconds};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events waiting to be sent.
const BACKLOG: usize = 1000;
/// Remembered events and objects; past that, all are forgotten, which costs a new Event object and no more.
const REMEMBERED: usize = 4096;
/// How long an event counts as the same when it comes again.
const SAME_FOR: Duration = Duration::from_secs(600);
/// Events one object may cause at once, and how long until it has earned another.
const BURST: f64 = 25.0;
const EARN_ONE: Duration = Duration::from_secs(300);

/// Whether an event is about something going well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// All as it should be.
    Normal,
    /// Someone should look.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Event {
    about: ObjectId,
    source: Arc<str>,
    field_path: String,
    kind: EventType,
    reason: String,
    message: String,
}

/// Records events of one component; clones share it.
#[derive(Clone)]
pub struct Recorder {
    sink: mpsc::Sender<Event>,
    source: Arc<str>,
}

impl Recorder {
    /// A recorder that sends until the scope ends. `component` is the events' source, `host` its node if it has one.
    #[must_use]
    pub fn new(client: kube::Client, component: &str, host: Option<&str>, scope: &Scope) -> Self {
        let (sink, events) = mpsc::channel(BACKLOG);
        let sender = Sender {
            client,
            host: host.unwrap_or_default().to_owned(),
            seen: HashMap::new(),
            budgets: HashMap::new(),
        };
        scope.spawn("event recorder", sender.send_all(events));
        Self { sink, source: component.into() }
    }

    /// The same, for another source: processes may be made of several components.
    #[must_use]
    pub fn of(&self, component: &str) -> Self {
        Self { sink: self.sink.clone(), source: component.into() }
    }

    /// Records an event about `about`. Never waits.
    pub fn event(&self, about: &ObjectId, kind: EventType, reason: &str, message: impl Into<String>) {
        self.event_on_part(about, "", kind, reason, message);
    }

    /// Records an event about a part of an object, such as `spec.containers{web}`. Never waits.
    pub fn event_on_part(
        &self,
        about: &ObjectId,
        field_path: &str,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let event = Event {
            about: about.clone(),
            source: self.source.clone(),
            field_path: field_path.to_owned(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
        };
        if self.sink.try_send(event).is_err() {
            tracing::debug!(reason, "too many events: one dropped");
        }
    }

    /// Records a normal event about a typed object.
    pub fn normal<K: kube::Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(&ObjectId::of(about), EventType::Normal, reason, message);
    }

    /// Records a warning about a typed object.
    pub fn warning<K: kube::Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(&ObjectId::of(about), EventType::Warning, reason, message);
    }
}

struct Sent {
    name: String,
    count: u32,
    last: Instant,
}

struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn spend(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() / EARN_ONE.as_secs_f64();
        self.left = (self.left + earned).min(BURST);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

struct Sender {
    client: kube::Client,
    host: String,
    seen: HashMap<Event, Sent>,
    budgets: HashMap<ObjectId, Budget>,
}

impl Sender {
    async fn send_all(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let now = Instant::now();
            if self.seen.len() > REMEMBERED || self.budgets.len() > REMEMBERED {
                self.seen.clear();
                self.budgets.clear();
            }
            let budget = self.budgets.entry(event.about.clone()).or_insert(Budget { left: BURST, at: now });
            if !budget.spend(now) {
                tracing::debug!(reason = event.reason, "too many events about one object: one dropped");
                continue;
            }
            if let Err(error) = self.send(event, now).await {
                tracing::debug!(%error, "event not sent");
            }
        }
    }

    async fn send(&mut self, event: Event, now: Instant) -> kube::Result<()> {
        let namespace = if event.about.namespace.is_empty() { "default" } else { &event.about.namespace };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Event"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let wall = rfc3339_seconds(clock::now());
        if let Some(sent) = self.seen.get_mut(&event).filter(|sent| now.duration_since(sent.last) < SAME_FOR)
        {
            sent.count += 1;
            sent.last = now;
            let patch = json!({ "count": sent.count, "lastTimestamp": wall });
            let patched = api.patch(&sent.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            match patched {
                // The Event expired: record it anew below.
                Err(error) if crate::errors::is_not_found(&error) => {}
                other => return other.map(|_| ()),
            }
        }
        let name = format!("{}.{:x}", event.about.name, clock::now().as_nanosecond());
        let body = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": { "name": name, "namespace": namespace },
            "involvedObject": {
                "apiVersion": event.about.api_version, "kind": event.about.kind, "namespace": event.about.namespace,
                "name": event.about.name, "uid": event.about.uid, "fieldPath": event.field_path,
            },
            "type": format!("{:?}", event.kind), "reason": event.reason, "message": event.message,
            "source": { "component": &*event.source, "host": self.host },
            "reportingComponent": &*event.source, "reportingInstance": self.host,
            "firstTimestamp": wall, "lastTimestamp": wall, "count": 1,
        });
        let object: DynamicObject = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &object).await?;
        self.seen.insert(event, Sent { name, count: 1, last: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_object_earns_its_events_back_slowly() {
        let now = Instant::now();
        let mut budget = Budget { left: BURST, at: now };
        let at_once = (0..100).filter(|_| budget.spend(now)).count();
        assert_eq!(at_once, 25);
        assert!(budget.spend(now + EARN_ONE) && !budget.spend(now + EARN_ONE));
    }
}
