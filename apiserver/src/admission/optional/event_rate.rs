//! EventRateLimit: bounds on how many Events are written, in all, of a namespace, by a user, or about an object by a source.

use super::super::{Attributes, Context};
use coracle_api::status::Status;
use coracle_daemon::clock::Instant;
use coracle_daemon::panics::Mutex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// Buckets of one limit that are kept, where the configuration does not say.
const KEPT: usize = 4096;

/// What a limit counts by.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum By {
    /// All events.
    Server,
    /// Those of a namespace.
    Namespace,
    /// Those that a user writes.
    User,
    /// Those of a source about an object.
    SourceAndObject,
}

/// One limit of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// What it counts by.
    pub by: By,
    /// Events a second.
    pub qps: f64,
    /// Events at once.
    pub burst: f64,
    /// Buckets that are kept; 0: as many as usual.
    pub kept: usize,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// A limit and how far it is used.
struct Enforced {
    limit: Limit,
    buckets: Mutex<HashMap<String, Bucket>>,
}

/// All limits.
#[derive(Default)]
pub struct Limits(Vec<Enforced>);

impl Limits {
    /// Of a configuration.
    pub fn new(limits: Vec<Limit>) -> Self {
        Self(limits.into_iter().map(|limit| Enforced { limit, buckets: Mutex::default() }).collect())
    }
}

/// Refuses an event that is one too many.
pub fn validate(context: &Context, attributes: &Attributes<'_>, event: &Value) -> Result<(), Status> {
    let request = attributes.request;
    let of_events = request.resource == "events" && ["", "events.k8s.io"].contains(&request.group.as_str());
    if !of_events || attributes.dry_run || !attributes.changes() {
        return Ok(());
    }
    let refused: Vec<String> = context
        .plugins
        .events
        .0
        .iter()
        .filter_map(|one| {
            let key = key(one.limit.by, attributes, event);
            (!one.take(&key, Instant::now()))
                .then(|| format!("limit reached on type {:?} for key {key}", one.limit.by))
        })
        .collect();
    match refused.as_slice() {
        [] => Ok(()),
        [one] => Err(Status::too_many_requests(format!("Too many requests: {one}"), 0)),
        all => Err(Status::too_many_requests(format!("Too many requests: [{}]", all.join(", ")), 0)),
    }
}

fn key(by: By, attributes: &Attributes<'_>, event: &Value) -> String {
    match by {
        By::Server => String::new(),
        By::Namespace => attributes.request.namespace.clone(),
        By::User => attributes.user.name.clone(),
        By::SourceAndObject => {
            let (source, about) = (&event["source"], &event["involvedObject"]);
            let parts = [
                &source["component"],
                &source["host"],
                &about["kind"],
                &about["namespace"],
                &about["name"],
                &about["uid"],
                &about["apiVersion"],
            ];
            parts.iter().filter_map(|part| part.as_str()).collect()
        }
    }
}

impl Enforced {
    /// Whether one more may pass now.
    fn take(&self, key: &str, now: Instant) -> bool {
        let Limit { qps, burst, kept, .. } = self.limit;
        let mut buckets = self.buckets.lock();
        let most = if kept == 0 { KEPT } else { kept };
        if !buckets.contains_key(key) && buckets.len() >= most {
            // Who was not heard of for longest begins anew.
            let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone());
            oldest.and_then(|key| buckets.remove(&key));
        }
        let bucket = buckets.entry(key.to_owned()).or_insert(Bucket { left: burst, at: now });
        let more = now.saturating_duration_since(bucket.at).as_secs_f64() * qps;
        *bucket = Bucket { left: (bucket.left + more).min(burst), at: now };
        let passes = bucket.left >= 1.0;
        if passes {
            bucket.left -= 1.0;
        }
        passes
    }
}
