//! What is done to a store, and how fast it goes.

use super::load::Load;
use super::requests::{DIGITS, Request};
use crate::members::channel;
use crate::report::Took;
use anyhow::{Context, Result};
use bytes::Bytes;
use coracle_etcd::kv::prefix_end;
use coracle_etcd::proto::kv_client::KvClient;
use coracle_etcd::proto::request_op;
use coracle_etcd::proto::watch_request::RequestUnion;
use coracle_etcd::proto::{
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
};
use futures::{StreamExt, TryStreamExt};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Bytes of a value, as large as a small object's.
const VALUE_BYTES: usize = 512;
/// Bytes of a value that is only kept, and how many a request of [`fill`] puts.
const KEPT_BYTES: usize = 1024;
const FILL_BATCH: u64 = 100;
/// Keys that a range answers.
const RANGE_KEYS: u64 = 1000;

/// Keys that gets and puts go round: as many as fit.
fn key(prefix: &str, n: u64) -> Bytes {
    Bytes::from(format!("{prefix}{n:0DIGITS$}"))
}

fn kept(n: u64) -> Bytes {
    Bytes::from(format!("/kept/{n:08}"))
}

fn value() -> Bytes {
    Bytes::from(vec![b'v'; VALUE_BYTES])
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

impl Call {
    /// The call at one server, of keys with this prefix.
    fn request(self, authority: &str, prefix: &str) -> Result<Request> {
        let key = key(prefix, 0);
        match self {
            Self::Put => {
                let put = PutRequest { key, value: value(), ..PutRequest::default() };
                Request::new(authority, "/etcdserverpb.KV/Put", &put, Some(prefix))
            }
            Self::Get => {
                let get = RangeRequest { key, ..RangeRequest::default() };
                Request::new(authority, "/etcdserverpb.KV/Range", &get, Some(prefix))
            }
            Self::Range => {
                let (key, range_end) = (kept(0), kept(RANGE_KEYS));
                let range = RangeRequest { key, range_end, ..RangeRequest::default() };
                Request::new(authority, "/etcdserverpb.KV/Range", &range, None)
            }
        }
    }
}

/// A watch of all keys with this prefix.
fn watch(authority: &str, prefix: &str) -> Result<Request> {
    let (key, range_end) = (Bytes::from(prefix.to_owned()), prefix_end(prefix.as_bytes()));
    let create = WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() };
    let watch = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    Ok(Request::new(authority, "/etcdserverpb.Watch/Watch", &watch, None)?.open())
}

/// Where a client connects to, and what it does there.
type Place = (SocketAddr, Rc<Request>);

/// One for each member.
fn places(endpoints: &[String], request: impl Fn(&str) -> Result<Request>) -> Result<Vec<Place>> {
    let place = |endpoint: &String| {
        let authority = endpoint.strip_prefix("http://").context("no URL")?;
        Ok((authority.parse().context("no address")?, Rc::new(request(authority)?)))
    };
    endpoints.iter().map(place).collect()
}

/// Adds clients that call, spread over all members.
fn callers(
    load: &mut Load,
    endpoints: &[String],
    clients: usize,
    (call, prefix): (Call, &str),
) -> Result<()> {
    let keys = (call == Call::Range).then_some(RANGE_KEYS);
    let places = places(endpoints, |authority| call.request(authority, prefix))?;
    for (to, request) in places.iter().cycle().take(clients) {
        load.call(*to, request.clone(), keys)?;
    }
    Ok(())
}

/// What so many clients do at once for some time, and how long each call took.
///
/// # Errors
/// A call failed.
pub async fn calls(endpoints: &[String], clients: usize, call: Call, time: Duration) -> Result<Took> {
    let endpoints = endpoints.to_vec();
    in_a_thread(move || {
        let mut load = Load::new()?;
        callers(&mut load, &endpoints, clients, (call, "/bench/"))?;
        load.run(time)
    })
    .await
}

/// Events that all watchers together are told.
pub struct Events {
    pub all: u64,
    /// While there were puts.
    pub per_second: f64,
}

/// What `watchers` of the same prefix are told while `clients` put.
///
/// # Errors
/// A watch or a put failed, or a watch missed an event.
pub async fn events(endpoints: &[String], watchers: usize, clients: usize, time: Duration) -> Result<Events> {
    let endpoints = endpoints.to_vec();
    in_a_thread(move || {
        // Keys of their own: a member may still be about to tell of what was put before.
        let prefix = format!("/watched-{watchers}/");
        let mut load = Load::new()?;
        let places = places(&endpoints, |authority| watch(authority, &prefix))?;
        for (to, request) in places.iter().cycle().take(watchers) {
            load.watch(*to, request.clone())?;
        }
        load.begin()?;
        callers(&mut load, &endpoints, clients, (Call::Put, &prefix))?;
        let took = load.run(time)?;
        let per_second = load.told() as f64 / took.time.as_secs_f64();
        load.complete()?;
        Ok(Events { all: load.told(), per_second })
    })
    .await
}

/// The load's loop waits for sockets itself.
async fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the load panicked")?
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
                    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
                });
                let txn = TxnRequest { success: success.collect(), ..TxnRequest::default() };
                client.txn(txn).await.map(drop).context("a transaction of puts failed")
            }
        })
        .await
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
        let put = PutRequest { key: key("/bench/", n), value: value(), ..PutRequest::default() };
        let mut request = tonic::Request::new(put);
        request.set_timeout(Duration::from_millis(200));
        if clients[usize::try_from(n).unwrap_or(0) % count].put(request).await.is_ok() {
            break;
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
