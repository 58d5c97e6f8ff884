//! What is asked of the servers, by how many at once, and how long it took.

use super::servers::Servers;
use super::wire::{Wire, request};
use crate::report::Took;
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The bytes of a request.
pub type Write = Vec<u8>;
/// Clients that make objects.
const FILLERS: usize = 32;
/// Handshakes at once.
const HANDSHAKES: usize = 32;
/// Bytes that a watcher reads at once, and one that is told nothing.
const WATCHER_BUFFER: usize = 16 << 10;
const QUIET_BUFFER: usize = 4 << 10;
const MERGE: &str = "application/merge-patch+json";

/// Objects of one kind and prefix, by number.
#[derive(Clone, Copy)]
pub struct Objects {
    plural: &'static str,
    prefix: &'static str,
    rest: &'static str,
}

/// A pod as people write them; nobody schedules it.
const POD: &str = r#""spec":{"schedulerName":"none","automountServiceAccountToken":false,"containers":[{"name":"web","image":"nginx:1.27","ports":[{"containerPort":80}],"env":[{"name":"MODE","value":"production"}],"resources":{"requests":{"cpu":"100m","memory":"64Mi"},"limits":{"memory":"128Mi"}},"readinessProbe":{"httpGet":{"path":"/","port":80}}}]}"#;
const MAP: &str = r#""data":{"a":"1","b":"2"}"#;

impl Objects {
    pub fn pods(prefix: &'static str) -> Self {
        Self { plural: "pods", prefix, rest: POD }
    }

    pub fn maps(prefix: &'static str) -> Self {
        Self { plural: "configmaps", prefix, rest: MAP }
    }

    /// The path of their collection.
    pub fn path(self) -> String {
        format!("/api/v1/namespaces/default/{}", self.plural)
    }

    fn one(self, n: u64) -> String {
        format!("{}/{}-{n:06}", self.path(), self.prefix)
    }

    pub fn create(self, n: u64) -> Write {
        let (prefix, rest) = (self.prefix, self.rest);
        let labels = format!(r#"{{"app":"{prefix}","part":"{}"}}"#, n % 100);
        let body = format!(r#"{{"metadata":{{"name":"{prefix}-{n:06}","labels":{labels}}},{rest}}}"#);
        request("POST", &self.path(), "application/json", body.as_bytes())
    }

    pub fn patch(self, n: u64) -> Write {
        static CHANGES: AtomicU64 = AtomicU64::new(0);
        let change = CHANGES.fetch_add(1, Ordering::Relaxed);
        let body = format!(r#"{{"metadata":{{"annotations":{{"example.com/change":"{change}"}}}}}}"#);
        request("PATCH", &self.one(n), MERGE, body.as_bytes())
    }

    pub fn get(self, n: u64, query: &str) -> Write {
        request("GET", &format!("{}{query}", self.one(n)), "", b"")
    }

    pub fn delete(self, n: u64) -> Write {
        request("DELETE", &format!("{}?gracePeriodSeconds=0", self.one(n)), "", b"")
    }

    /// Makes those of `from..to`.
    ///
    /// # Errors
    /// One is refused.
    pub async fn fill(self, servers: &Servers, from: u64, to: u64) -> Result<()> {
        so_many(servers, FILLERS, to.saturating_sub(from), |n| self.create(from + n)).await
    }
}

/// Requests of so many connections at once, spread over the servers, for some time.
///
/// # Errors
/// One is refused.
pub async fn at_once(
    servers: &Servers,
    clients: usize,
    time: Duration,
    make: impl Fn(u64) -> Write + Sync,
) -> Result<Took> {
    requests(servers, clients, (time, u64::MAX), make).await
}

/// So many requests, as fast as it goes.
///
/// # Errors
/// One is refused.
pub async fn so_many(
    servers: &Servers,
    clients: usize,
    count: u64,
    make: impl Fn(u64) -> Write + Sync,
) -> Result<()> {
    requests(servers, clients, (Duration::MAX, count), make).await.map(drop)
}

async fn requests(
    servers: &Servers,
    clients: usize,
    (time, count): (Duration, u64),
    make: impl Fn(u64) -> Write + Sync,
) -> Result<Took> {
    let mut wires = Vec::new();
    for n in 0..clients {
        wires.push(servers.client(n).await?);
    }
    let next = AtomicU64::new(0);
    let began = Instant::now();
    let one = async |mut wire: Wire| {
        let mut took = Vec::new();
        while began.elapsed() < time {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                break;
            }
            let answer = wire.ask(&make(n)).await?;
            anyhow::ensure!(answer.code < 300, "request {n} was answered with {}", answer.code);
            took.push(answer.whole.as_secs_f64() * 1e3);
        }
        Ok::<_, anyhow::Error>(took)
    };
    let all = futures::future::try_join_all(wires.into_iter().map(one)).await?;
    Ok(Took { milliseconds: all.concat(), time: began.elapsed() })
}

/// Clients that watch.
pub struct Watchers {
    wires: Vec<Wire>,
}

/// Watches of `objects`, spread over the servers.
///
/// # Errors
/// One is refused.
pub async fn watched(servers: &Servers, objects: &Objects, count: usize) -> Result<Watchers> {
    let wires = (0..count).map(|n| begun(servers, n, objects, WATCHER_BUFFER));
    let wires = futures::stream::iter(wires).buffer_unordered(HANDSHAKES).try_collect().await?;
    Ok(Watchers { wires })
}

/// Watches at one server.
///
/// # Errors
/// One is refused.
pub async fn watched_by(
    servers: &Servers,
    server: usize,
    objects: &Objects,
    count: usize,
) -> Result<Watchers> {
    let wires = (0..count).map(|_| begun(servers, server, objects, QUIET_BUFFER));
    let wires = futures::stream::iter(wires).buffer_unordered(HANDSHAKES).try_collect().await?;
    Ok(Watchers { wires })
}

async fn begun(servers: &Servers, server: usize, objects: &Objects, buffer: usize) -> Result<Wire> {
    let mut wire = servers.client_with(server, buffer).await?;
    // From now on, of what this prefix has: no events of the past.
    let query =
        format!("{}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan", objects.path());
    wire.watch(&query).await?;
    Ok(wire)
}

impl Watchers {
    /// Reads, from now on, until each has been told so many events.
    pub fn read(self, wanted: u64) -> Told {
        let mut tasks = JoinSet::new();
        for mut wire in self.wires {
            tasks.spawn(async move { wire.events(wanted).await });
        }
        Told { tasks, wanted }
    }
}

/// Watchers that read.
pub struct Told {
    tasks: JoinSet<Result<u64>>,
    wanted: u64,
}

impl Told {
    /// Ends when all have been told.
    ///
    /// # Errors
    /// A watch ended before, or was told more.
    pub async fn all(mut self) -> Result<()> {
        while let Some(told) = self.tasks.join_next().await {
            let told = told.context("a watcher panicked")??;
            anyhow::ensure!(told == self.wanted, "a watcher was told {told} events of {}", self.wanted);
        }
        Ok(())
    }
}
