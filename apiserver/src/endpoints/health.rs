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
    flows: watch::Sender<bool>,
    bootstrapped: watch::Sender<bool>,
    stopping: AtomicBool,
}

/// Ends when it is so; the sender lives as long as who asks.
async fn until(is: &watch::Sender<bool>) {
    let _ = is.subscribe().wait_for(|done| *done).await;
}

impl Health {
    /// The FlowSchemas and priority levels are there that every cluster has.
    pub fn flows_kept(&self) {
        self.flows.send_replace(true);
    }

    /// Ends when they are there.
    pub async fn wait_flows(&self) {
        until(&self.flows).await;
    }

    /// The first objects are there.
    pub fn bootstrapped(&self) {
        self.bootstrapped.send_replace(true);
    }

    /// Ends when the first objects are there.
    pub async fn wait_bootstrapped(&self) {
        until(&self.bootstrapped).await;
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

/// A check, and why it fails.
type Check = (Cow<'static, str>, Result<(), Cow<'static, str>>);

/// What those are told of a failure who may not know more.
const WITHHELD: &str = "reason withheld";

fn checked(well: bool, otherwise: impl Into<Cow<'static, str>>) -> Result<(), Cow<'static, str>> {
    if well { Ok(()) } else { Err(otherwise.into()) }
}

/// Why a check fails where nobody is to know more.
fn withheld(name: &str) -> String {
    format!("{name} failed: {WITHHELD}")
}

fn checks(server: &Server, path: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = vec![("ping".into(), Ok(())), ("log".into(), Ok(()))];
    let loaded = server.store.progress() > 0;
    let connected = loaded && server.store.connected();
    checks.push(("etcd".into(), checked(path == "livez" || connected, withheld("etcd"))));
    if path == "readyz" {
        checks.push(("etcd-readiness".into(), checked(connected, withheld("etcd-readiness"))));
    }
    let encryption = server.store.encryption();
    // A server lives, whoever else does not.
    if let Some(services) = encryption.filter(|_| path != "livez").and_then(|encryption| encryption.health())
    {
        checks.push(("kms-providers".into(), services.map_err(Cow::from)));
    }
    if path == "readyz" {
        checks.push(("informer-sync".into(), checked(loaded, withheld("informer-sync"))));
    }
    if encryption.is_some_and(|encryption| encryption.reloads()) {
        let follows = "poststarthook/start-encryption-provider-config-automatic-reload";
        checks.push((follows.into(), Ok(())));
    }
    // A server that is still starting lives.
    let done = |done: bool| checked(path != "readyz" || done, "not finished");
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
            let done = checked(path != "readyz" || bootstrapped, withheld("autoregister-completion"));
            checks.push(("autoregister-completion".into(), done));
        }
    }
    if path == "readyz" {
        let stays = !server.health.is_stopping();
        checks.push(("shutdown".into(), checked(stays, "process is shutting down")));
    }
    checks
}

/// Every check with the path that it belongs to, for the metrics.
#[must_use]
pub fn results(server: &Server) -> Vec<(String, &'static str, bool)> {
    let of = |path: &'static str| {
        checks(server, path).into_iter().map(move |(name, well)| (name.into_owned(), path, well.is_ok()))
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
            Some((_, Ok(()))) => plain(200, "text/plain; charset=utf-8", "ok"),
            // Who asks for one alone may know.
            Some((_, Err(why))) => text(500, format!("internal server error: {why}\n")),
        },
        None => all(path, &checks, query),
    })
}

fn text(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = plain(code, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// All checks but those that are left out, each on a line of its own where somebody asks or one fails.
fn all(path: &str, checks: &[Check], query: &Pairs) -> Response<Body> {
    let excluded: Vec<&str> =
        query.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    let (mut well, mut told) = (true, String::new());
    for (name, passed) in checks {
        if excluded.contains(&name.as_ref()) {
            told.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if passed.is_ok() {
            told.push_str(&format!("[+]{name} ok\n"));
        } else {
            well = false;
            told.push_str(&format!("[-]{name} failed: {WITHHELD}\n"));
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
    fn a_check_that_fails_tells_why_and_one_that_does_not_tells_nothing() {
        assert_eq!(checked(false, withheld("etcd")), Err("etcd failed: reason withheld".into()));
        assert_eq!(checked(true, withheld("etcd")), Ok(()));
    }
}
