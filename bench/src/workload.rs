//! What is done to a store, and how fast it goes.

use crate::members::channel;
use anyhow::{Context, Result};
use bytes::Bytes;
use coracle_etcd::proto::kv_client::KvClient;
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use coracle_etcd::{Client, Kv, WatchBatch};
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Bytes of a value, as large as a small object's.
pub const VALUE_BYTES: usize = 512;
/// Keys that gets and puts go round.
const KEYS: u64 = 10_000;
/// Bytes of a value that is only kept, and how many a request of [`fill`] puts.
pub const KEPT_BYTES: usize = 1024;
const FILL_BATCH: u64 = 100;
/// Keys that a range answers.
const RANGE_KEYS: i64 = 1000;

fn key(n: u64) -> Bytes {
    Bytes::from(format!("/bench/{:05}", n % KEYS))
}

fn kept(n: u64) -> Bytes {
    Bytes::from(format!("/kept/{n:08}"))
}

fn put(n: u64) -> PutRequest {
    PutRequest { key: key(n), value: Bytes::from(vec![b'v'; VALUE_BYTES]), ..PutRequest::default() }
}

/// Milliseconds of each put, one after the other, at the leader.
///
/// # Errors
/// A put failed.
pub async fn sequential_puts(endpoint: &str, time: Duration) -> Result<Vec<f64>> {
    let mut client = KvClient::new(channel(endpoint)?);
    client.put(put(0)).await.context("the first put failed")?;
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let asked = Instant::now();
        client.put(put(took.len() as u64)).await.context("a put failed")?;
        took.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// What a client does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Put,
    /// Linearizable.
    Get,
    /// Of 1,000 keys that [`fill`] put.
    Range,
}

/// Calls in a second, of so many clients at once, spread over all members.
///
/// # Errors
/// A call failed.
pub async fn calls_per_second(
    endpoints: &[String],
    clients: usize,
    call: Call,
    time: Duration,
) -> Result<f64> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for client in 0..clients {
        let mut kv = KvClient::new(channel(&endpoints[client % endpoints.len()])?);
        let next = next.clone();
        tasks.spawn(async move {
            let mut done = 0_u64;
            while began.elapsed() < time {
                one(&mut kv, call, next.fetch_add(1, Ordering::Relaxed)).await?;
                done += 1;
            }
            Ok::<u64, anyhow::Error>(done)
        });
    }
    let mut done = 0;
    while let Some(ended) = tasks.join_next().await {
        done += ended.context("a client panicked")??;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

async fn one(kv: &mut KvClient<Channel>, call: Call, n: u64) -> Result<()> {
    match call {
        Call::Put => kv.put(put(n)).await.map(|_| ()).context("a put failed"),
        Call::Get => {
            let request = RangeRequest { key: key(n), ..RangeRequest::default() };
            kv.range(request).await.map(|_| ()).context("a get failed")
        }
        Call::Range => {
            let (key, range_end) = (kept(0), kept(RANGE_KEYS.unsigned_abs()));
            let request = RangeRequest { key, range_end, ..RangeRequest::default() };
            let found = kv.range(request).await.context("a range failed")?.into_inner().count;
            anyhow::ensure!(found == RANGE_KEYS, "a range of {RANGE_KEYS} keys found {found}");
            Ok(())
        }
    }
}

/// Puts keys `0..keys` of [`KEPT_BYTES`] each, as fast as it goes.
///
/// # Errors
/// A transaction failed.
pub async fn fill(endpoint: &str, keys: u64) -> Result<()> {
    let client = KvClient::new(channel(endpoint)?);
    let batches = futures::stream::iter((0..keys).step_by(usize::try_from(FILL_BATCH)?));
    batches
        .map(Ok)
        .try_for_each_concurrent(8, |first| {
            let mut client = client.clone();
            async move {
                let success = (first..keys.min(first + FILL_BATCH)).map(|n| {
                    let value = Bytes::from(vec![b'k'; KEPT_BYTES]);
                    let put = PutRequest { key: kept(n), value, ..PutRequest::default() };
                    RequestOp { request: Some(Request::RequestPut(put)) }
                });
                let txn = TxnRequest { success: success.collect(), ..TxnRequest::default() };
                client.txn(txn).await.map(drop).context("a transaction of puts failed")
            }
        })
        .await
}

/// Events in a second that `watchers` of the same prefix are told, all together, while `clients` put.
///
/// # Errors
/// A watch or a put failed, or a watch missed an event.
pub async fn events_per_second(
    endpoints: &[String],
    watchers: usize,
    clients: usize,
    time: Duration,
) -> Result<f64> {
    let told = Arc::new(AtomicU64::new(0));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for watcher in 0..watchers {
        let mut all = endpoints.to_vec();
        all.rotate_left(watcher % endpoints.len());
        let store = Client::connect(&all, None).await.context("cannot connect a watcher")?;
        let mut watch =
            store.watch("/bench/".into(), "/bench0".into(), 0, false).await.context("cannot watch")?;
        let told = told.clone();
        tasks.spawn(async move {
            loop {
                if let WatchBatch::Events { events, .. } = watch.next().await.context("a watch ended")? {
                    told.fetch_add(events.len() as u64, Ordering::Relaxed);
                }
            }
        });
    }
    let began = Instant::now();
    let puts = calls_per_second(endpoints, clients, Call::Put, time).await?;
    let rate = told.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    if let Some(ended) = tasks.try_join_next() {
        ended.context("a watcher panicked")??;
    }
    anyhow::ensure!(puts > 0.0, "nothing was put");
    Ok(rate)
}

/// Milliseconds from now until a put succeeds at one of `endpoints`.
///
/// # Errors
/// None succeeds in time.
pub async fn until_a_put(endpoints: &[String], at_most: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut clients =
        endpoints.iter().map(|endpoint| Ok(KvClient::new(channel(endpoint)?))).collect::<Result<Vec<_>>>()?;
    let count = clients.len();
    for n in 0.. {
        anyhow::ensure!(began.elapsed() < at_most, "no put succeeds again");
        let mut request = tonic::Request::new(put(n));
        request.set_timeout(Duration::from_millis(200));
        if clients[usize::try_from(n).unwrap_or(0) % count].put(request).await.is_ok() {
            break;
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
