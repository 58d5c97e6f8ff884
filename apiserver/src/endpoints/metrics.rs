//! `/metrics`: requests by verb, resource and code, their times, and what runs now.

use crate::Server;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    verb: String,
    resource: String,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Timed {
    verb: String,
    resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Running {
    request_kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stored {
    resource: String,
}

const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The server's metrics.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    times: Family<Timed, Histogram, fn() -> Histogram>,
    running: Family<Running, Gauge>,
    objects: Family<Stored, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let times: Family<Timed, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let (running, objects) = (Family::default(), Family::default());
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and code",
            Family::clone(&requests),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to answer; watches: to begin",
            Family::clone(&times),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests that run now",
            Family::clone(&running),
        );
        registry.register("apiserver_storage_objects", "Stored objects by resource", Family::clone(&objects));
        Self { registry, requests, times, running, objects }
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn observe(&self, verb: &str, resource: &str, code: u16, took: Duration) {
        let (verb, resource) = (verb.to_uppercase(), resource.to_owned());
        self.requests.get_or_create(&Request { verb: verb.clone(), resource: resource.clone(), code }).inc();
        self.times.get_or_create(&Timed { verb, resource }).observe(took.as_secs_f64());
    }

    /// All as text.
    #[must_use]
    pub fn text(&self, server: &Server) -> String {
        let (reads, writes) = server.limits.running();
        for (request_kind, running) in [("readOnly", reads), ("mutating", writes)] {
            self.running.get_or_create(&Running { request_kind }).set(i64::try_from(running).unwrap_or(0));
        }
        for resource in server.store.resources().values() {
            let stored = Stored { resource: resource.of.to_string() };
            self.objects.get_or_create(&stored).set(i64::try_from(resource.cache.count()).unwrap_or(0));
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
