//! `/healthz`, `/livez`, `/readyz`, with `?verbose` and single checks. The three answer anybody, also while the store is away;
//! single checks those who may ask for them.

use crate::Server;
use crate::http::request_info::Pairs;
use crate::http::respond::plain;
use axum::body::Body;
use bytes::Bytes;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderValue, Response};
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

/// When what a check is named after has been done.
#[derive(Clone, Copy)]
enum After {
    /// The caches hold the store's objects.
    Loading,
    /// The first objects are made.
    Bootstrap,
}

/// Runs only where there is a certificate for aggregated servers; each connection to one goes by what the files say then.
const RELOADS: &str = "aggregator-reload-proxy-client-cert";

/// Run with priority and fairness, or where only numbers count.
const FLOWS: &str = "priority-and-fairness-config-consumer";
const FLOW_FILTER: &str = "priority-and-fairness-filter";
const NUMBERS: &str = "max-in-flight-filter";

/// What runs from the start on, under kube-apiserver's names and in its order.
const HOOKS: [(&str, After); 29] = [
    ("start-apiserver-admission-initializer", After::Loading),
    ("generic-apiserver-start-informers", After::Loading),
    (FLOWS, After::Loading),
    (FLOW_FILTER, After::Loading),
    (NUMBERS, After::Loading),
    ("storage-object-count-tracker-hook", After::Loading),
    ("start-apiextensions-informers", After::Loading),
    ("start-apiextensions-controllers", After::Loading),
    ("crd-informer-synced", After::Loading),
    ("start-system-namespaces-controller", After::Bootstrap),
    ("start-cluster-authentication-info-controller", After::Bootstrap),
    ("start-kube-apiserver-identity-lease-controller", After::Bootstrap),
    ("start-kube-apiserver-identity-lease-garbage-collector", After::Bootstrap),
    ("start-legacy-token-tracking-controller", After::Bootstrap),
    // Addresses are allocated with the Services that hold them, so that there is nothing to repair.
    ("start-service-ip-repair-controllers", After::Loading),
    ("rbac/bootstrap-roles", After::Bootstrap),
    ("scheduling/bootstrap-system-priority-classes", After::Bootstrap),
    ("priority-and-fairness-config-producer", After::Bootstrap),
    ("bootstrap-controller", After::Bootstrap),
    ("start-kubernetes-service-cidr-controller", After::Bootstrap),
    (RELOADS, After::Loading),
    ("start-kube-aggregator-informers", After::Loading),
    ("apiservice-status-local-available-controller", After::Loading),
    ("apiservice-status-remote-available-controller", After::Loading),
    ("apiservice-registration-controller", After::Loading),
    ("apiservice-discovery-controller", After::Loading),
    ("kube-apiserver-autoregistration", After::Bootstrap),
    ("apiservice-openapi-controller", After::Loading),
    ("apiservice-openapiv3-controller", After::Loading),
];

fn checks(server: &Server, path: &str) -> Vec<(Cow<'static, str>, bool)> {
    let mut checks: Vec<(Cow<'static, str>, bool)> = vec![("ping".into(), true), ("log".into(), true)];
    let loaded = server.store.progress() > 0;
    checks.push(("etcd".into(), path == "livez" || (loaded && server.store.connected())));
    if path == "readyz" {
        checks.push(("etcd-readiness".into(), loaded && server.store.connected()));
    }
    if let Some(encryption) = server.store.encryption() {
        checks.extend(encryption.health().into_iter().map(|(name, well)| (name.into(), well)));
    }
    if path == "readyz" {
        checks.push(("informer-sync".into(), loaded));
    }
    if server.store.encryption().is_some_and(|encryption| encryption.reloads()) {
        checks.push(("poststarthook/start-encryption-provider-config-automatic-reload".into(), true));
    }
    // A server that is still starting lives.
    let done = |done: bool| path != "readyz" || done;
    let bootstrapped = *server.health.bootstrapped.borrow();
    let reloads = server.aggregator.shows_itself();
    let runs = |name: &str| match name {
        RELOADS => reloads,
        FLOWS | FLOW_FILTER => server.flow.is_on(),
        NUMBERS => !server.flow.is_on(),
        _ => true,
    };
    for (name, after) in HOOKS.into_iter().filter(|(name, _)| runs(name)) {
        let well = match after {
            After::Loading => loaded,
            After::Bootstrap => bootstrapped,
        };
        checks.push((format!("poststarthook/{name}").into(), done(well)));
        if name == "kube-apiserver-autoregistration" {
            checks.push(("autoregister-completion".into(), done(bootstrapped)));
        }
    }
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

/// Whether a path answers whoever asks.
#[must_use]
pub fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz")
}

/// The answer, for paths of health.
#[must_use]
pub fn answer(server: &Arc<Server>, path: &str, query: &Pairs) -> Option<Response<Body>> {
    let path = path.strip_prefix('/')?;
    let (path, single) = path.split_once('/').map_or((path, None), |(path, single)| (path, Some(single)));
    if !["healthz", "livez", "readyz"].contains(&path) {
        return None;
    }
    let checks = checks(server, path);
    Some(match single {
        Some(name) => match checks.iter().find(|(known, _)| known == name) {
            None => crate::http::respond::page_not_found(),
            Some((_, true)) => plain(200, "text/plain; charset=utf-8", "ok"),
            Some((name, false)) => text(500, format!("internal server error: {}\n", why(name))),
        },
        None => all(path, &checks, query),
    })
}

/// Why a check fails: who asks for one alone may know.
fn why(name: &str) -> String {
    match name {
        "shutdown" => "process is shutting down".to_owned(),
        name if name.starts_with("poststarthook/") => "not finished".to_owned(),
        name => format!("{name} failed: reason withheld"),
    }
}

fn text(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = plain(code, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// All checks but those that are left out, each on a line of its own where somebody asks or one fails.
fn all(path: &str, checks: &[(Cow<'static, str>, bool)], query: &Pairs) -> Response<Body> {
    let excluded: Vec<&str> =
        query.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    let (mut well, mut told) = (true, String::new());
    for (name, passed) in checks {
        if excluded.contains(&name.as_ref()) {
            told.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if *passed {
            told.push_str(&format!("[+]{name} ok\n"));
        } else {
            well = false;
            told.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    let mut unknown: Vec<String> = excluded
        .into_iter()
        .filter(|name| checks.iter().all(|(known, _)| known != name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        unknown.sort();
        let unknown = unknown.join(",");
        told.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown}\n"));
    }
    if !well {
        return text(500, format!("{told}{path} check failed\n"));
    }
    if query.iter().any(|(key, _)| key == "verbose") {
        return text(200, format!("{told}{path} check passed\n"));
    }
    text(200, "ok")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_alone_tells_why_it_fails() {
        for (name, told) in [
            ("shutdown", "process is shutting down"),
            ("poststarthook/rbac/bootstrap-roles", "not finished"),
            ("etcd", "etcd failed: reason withheld"),
        ] {
            assert_eq!(why(name), told);
        }
    }
}
