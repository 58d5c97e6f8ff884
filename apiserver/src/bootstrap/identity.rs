//! Which apiservers live, as clients may know it: a Lease of each in `kube-system`; and since when uses of old tokens are noted.
//!
//! Runs on the timer that keeps the server's address: no timer of its own, and one write every ten seconds.

use super::Server;
use crate::Args;
use crate::reader::{Reader, SERVER};
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::{clock, random};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const HOST_LABEL: &str = "kubernetes.io/hostname";
const LEASE_SECONDS: i64 = 3600;
const SWEPT_EVERY: Duration = Duration::from_secs(3600);
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const SINCE: &str = "since";
/// How soon what somebody deletes is made again.
const MADE_AGAIN: Duration = Duration::from_secs(30 * 60);

/// This server among the others.
pub struct Identity {
    name: String,
    holder: String,
    host: String,
    swept: Option<clock::Instant>,
    made: Option<clock::Instant>,
}

fn leases() -> GroupResource {
    GroupResource::new("coordination.k8s.io", "leases")
}

fn maps() -> GroupResource {
    GroupResource::new("", "configmaps")
}

/// `apiserver-` and a hash of where the server is: several of one host differ by their ports.
fn name_of(host: &str, address: &SocketAddr) -> String {
    let mut hash = Sha256::new();
    for part in [host, "kube-apiserver", &address.to_string()] {
        hash.update(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        hash.update(part);
    }
    format!("apiserver-{}", base32(&hash.finalize()[..16]))
}

/// RFC 4648, section 6, in lower case and without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let letters = (0..bytes.len() * 8).step_by(5);
    letters
        .map(|at| {
            let value = (at..at + 5).fold(0, |value, at| value << 1 | bit(at));
            char::from(ALPHABET[usize::from(value)])
        })
        .collect()
}

/// Whether nobody renews a Lease any more.
fn is_expired(lease: &Value, now: jiff::Timestamp) -> bool {
    let spec = &lease["spec"];
    let renewed = spec["renewTime"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let (Some(renewed), Some(seconds)) = (renewed, spec["leaseDurationSeconds"].as_i64()) else {
        return true;
    };
    now.duration_since(renewed) > jiff::SignedDuration::from_secs(seconds)
}

impl Identity {
    pub fn new(args: &Args) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim().to_owned();
        let name = name_of(&host, &SocketAddr::new(args.advertised(), args.secure_port));
        let holder = format!("{name}_{}", random::uuid());
        Self { name, holder, host, swept: None, made: None }
    }

    /// One round of the timer: does what is due.
    ///
    /// # Errors
    /// The store cannot be written; the next round tries again.
    pub async fn round(&mut self, server: &Server) -> Result<(), Status> {
        self.renew(server).await?;
        self.track(server).await?;
        if self.swept.is_none_or(|swept| swept.elapsed() >= SWEPT_EVERY) {
            sweep(server).await?;
            self.swept = Some(clock::Instant::now());
        }
        Ok(())
    }

    async fn renew(&self, server: &Server) -> Result<(), Status> {
        let now = clock::rfc3339_micros(clock::now());
        let labels = json!({LABEL: SERVER, HOST_LABEL: self.host});
        let wanted = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.name, "namespace": NAMESPACE, "labels": labels},
            "spec": {"holderIdentity": self.holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
        let renewed = |lease: &Value| {
            let mut lease = lease.clone();
            lease["spec"]["renewTime"] = wanted["spec"]["renewTime"].clone();
            for label in [LABEL, HOST_LABEL] {
                lease["metadata"]["labels"][label] = labels[label].clone();
            }
            Some(lease)
        };
        match server.objects.modify(&leases(), NAMESPACE, &self.name, SERVER, &renewed).await {
            Err(status) if status.code == 404 => {
                server.objects.create(&leases(), NAMESPACE, wanted.clone(), SERVER).await.map(drop)
            }
            done => done.map(drop),
        }
    }

    /// Keeps the day since when it is noted which tokens of ServiceAccounts' Secrets are used.
    async fn track(&mut self, server: &Server) -> Result<(), Status> {
        let today = clock::rfc3339_seconds(clock::now());
        let today = today.split('T').next().unwrap_or_default();
        let Some(known) = Reader::get(server.store.as_ref(), &maps(), NAMESPACE, TRACKING) else {
            if self.made.is_some_and(|made| made.elapsed() < MADE_AGAIN) {
                return Ok(());
            }
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": TRACKING, "namespace": NAMESPACE}, "data": {SINCE: today}});
            match server.objects.create(&maps(), NAMESPACE, map, SERVER).await {
                Err(status) if status.code != 409 => return Err(status),
                _ => self.made = Some(clock::Instant::now()),
            }
            return Ok(());
        };
        let is_day = |map: &Value| {
            map["data"][SINCE].as_str().is_some_and(|day| day.parse::<jiff::civil::Date>().is_ok())
        };
        if is_day(&known) {
            return Ok(());
        }
        let dated = |map: &Value| {
            let mut dated = map.clone();
            if !dated["data"].is_object() {
                dated["data"] = json!({});
            }
            dated["data"][SINCE] = json!(today);
            (!is_day(map)).then_some(dated)
        };
        server.objects.modify(&maps(), NAMESPACE, TRACKING, SERVER, &dated).await.map(drop)
    }
}

/// Removes the Leases of servers that are gone.
async fn sweep(server: &Server) -> Result<(), Status> {
    for lease in Reader::list(server.store.as_ref(), &leases(), NAMESPACE) {
        let own = lease["metadata"]["labels"][LABEL] == SERVER;
        if !own || !is_expired(&lease, clock::now()) {
            continue;
        }
        let name = meta::name(&lease);
        let fresh = server.objects.get_fresh(&leases(), NAMESPACE, name).await?;
        let Some(fresh) = fresh.filter(|fresh| is_expired(fresh, clock::now())) else { continue };
        match server.registry.remove(&leases(), NAMESPACE, name, meta::uid(&fresh)).await {
            Err(status) if !matches!(status.code, 404 | 409) => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hashes_of_where_a_server_is() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let name = name_of("vm", &address("10.0.0.1:6443"));
        assert_eq!(name.len(), "apiserver-".len() + 26);
        for (host, at) in [("vn", "10.0.0.1:6443"), ("vm", "10.0.0.2:6443"), ("vm", "10.0.0.1:6444")] {
            assert_ne!(name_of(host, &address(at)), name);
        }
    }

    #[test]
    fn a_lease_that_nobody_renews_expires() {
        let now: jiff::Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
        for (spec, expired) in [
            (json!({"renewTime": "2026-01-01T00:59:59.000000Z", "leaseDurationSeconds": 3600}), false),
            (json!({"renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 3600}), false),
            (json!({"renewTime": "2025-12-31T23:59:59.000000Z", "leaseDurationSeconds": 3600}), true),
            (json!({"renewTime": "2026-01-01T00:59:59.000000Z"}), true),
            (json!({"leaseDurationSeconds": 3600}), true),
        ] {
            assert_eq!(is_expired(&json!({"spec": spec}), now), expired, "{spec}");
        }
    }
}
