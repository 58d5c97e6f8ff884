//! `/healthz`, `/livez`, `/readyz`, with `?verbose` and single checks. They answer anybody, also while the store is away.

use crate::Server;
use crate::http::request_info::Pairs;
use crate::http::respond::plain;
use axum::body::Body;
use http::Response;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// What readiness knows.
#[derive(Default)]
pub struct Health {
    bootstrapped: watch::Sender<bool>,
    stopping: AtomicBool,
}

impl Health {
    /// The first objects are there.
    pub fn bootstrapped(&self) {
        self.bootstrapped.send_replace(true);
    }

    /// Ends when the first objects are there.
    pub async fn wait_bootstrapped(&self) {
        // The sender lives as long as this.
        let _ = self.bootstrapped.subscribe().wait_for(|done| *done).await;
    }

    /// From now on this server is not ready.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// What runs once the caches hold the store's objects, under kube-apiserver's names.
const AFTER_LOADING: [&str; 14] = [
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-discovery-controller",
    "apiservice-openapi-controller",
    "apiservice-openapiv3-controller",
];
/// What has made the first objects, likewise.
const AFTER_BOOTSTRAP: [&str; 7] = [
    "start-system-namespaces-controller",
    "start-cluster-authentication-info-controller",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "kube-apiserver-autoregistration",
];

fn checks(server: &Server, path: &str) -> Vec<(Cow<'static, str>, bool)> {
    let mut checks: Vec<(Cow<'static, str>, bool)> = vec![("ping".into(), true), ("log".into(), true)];
    let loaded = server.store.progress() > 0;
    checks.push(("etcd".into(), path == "livez" || (loaded && server.store.connected())));
    if path == "readyz" {
        checks.push(("etcd-readiness".into(), loaded && server.store.connected()));
        checks.push(("informer-sync".into(), loaded));
    }
    if let Some(encryption) = server.store.encryption() {
        checks.extend(encryption.health().into_iter().map(|(name, well)| (name.into(), well)));
    }
    // A server that is still starting lives.
    let done = |done: bool| path != "readyz" || done;
    let bootstrapped = *server.health.bootstrapped.borrow();
    let hook = |name: &&str, well: bool| (Cow::from(format!("poststarthook/{name}")), done(well));
    checks.extend(AFTER_LOADING.iter().map(|name| hook(name, loaded)));
    checks.extend(AFTER_BOOTSTRAP.iter().map(|name| hook(name, bootstrapped)));
    checks.push(("autoregister-completion".into(), done(bootstrapped)));
    if path == "readyz" {
        checks.push(("shutdown".into(), !server.health.is_stopping()));
    }
    checks
}

/// Every check with the path that it belongs to, for the metrics.
#[must_use]
pub fn results(server: &Server) -> Vec<(String, &'static str, bool)> {
    let of = |path: &'static str| {
        checks(server, path).into_iter().map(move |(name, well)| (name.into_owned(), path, well))
    };
    ["healthz", "livez", "readyz"].into_iter().flat_map(of).collect()
}

/// The answer, for paths of health.
#[must_use]
pub fn answer(server: &Arc<Server>, path: &str, query: &Pairs) -> Option<Response<Body>> {
    let path = path.trim_matches('/');
    let (path, single) = path.split_once('/').unwrap_or((path, ""));
    if !["healthz", "livez", "readyz"].contains(&path) {
        return None;
    }
    let excluded = |name: &str| query.iter().any(|(key, value)| key == "exclude" && value == name);
    let mut checks = checks(server, path);
    if !single.is_empty() {
        checks.retain(|(name, _)| *name == single);
        if checks.is_empty() {
            return Some(crate::http::respond::page_not_found());
        }
    }
    checks.retain(|(name, _)| !excluded(name));
    let well = checks.iter().all(|(_, well)| *well);
    let verbose = query.iter().any(|(key, _)| key == "verbose");
    if well && !verbose {
        return Some(plain(200, "text/plain; charset=utf-8", "ok"));
    }
    let mut text = String::new();
    for (name, well) in checks {
        text.push_str(&if well {
            format!("[+]{name} ok\n")
        } else {
            format!("[-]{name} failed: reason withheld\n")
        });
    }
    text.push_str(&format!("{path} check {}\n", if well { "passed" } else { "failed" }));
    Some(plain(if well { 200 } else { 500 }, "text/plain; charset=utf-8", text))
}
