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
}

fn checks(server: &Server, path: &str) -> Vec<(Cow<'static, str>, bool)> {
    let mut checks: Vec<(Cow<'static, str>, bool)> = vec![("ping".into(), true), ("log".into(), true)];
    let reached = server.store.progress() > 0 && server.store.connected();
    checks.push(("etcd".into(), path == "livez" || reached));
    if let Some(encryption) = server.store.encryption() {
        checks.extend(encryption.health().into_iter().map(|(name, well)| (name.into(), well)));
    }
    if path != "livez" {
        checks.push((
            "poststarthook/bootstrap".into(),
            path == "healthz" || *server.health.bootstrapped.borrow(),
        ));
    }
    if path == "readyz" {
        checks.push(("informer-sync".into(), server.store.progress() > 0));
        checks.push(("shutdown".into(), !server.health.stopping.load(Ordering::Acquire)));
    }
    checks
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
