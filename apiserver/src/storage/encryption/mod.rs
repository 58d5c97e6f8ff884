//! Encryption at rest (`--encryption-provider-config`): a [`Kv`] whose values are sealed on the way to the store and opened on
//! the way back, reads and watches alike.
//!
//!     storage ── plain values ──► AtRest ── `k8s:enc:…` ──► Kv
//!
//! Byte-compatible with kube-apiserver. A value that cannot be opened stays in its place as a mark that tells why
//! ([`fault`]), so that one bad secret hides nothing else. Invariant: a value is bound to the path of its key where the
//! provider can do that.

mod cipher;
mod config;
mod kms;
mod reload;
mod rules;
#[cfg(test)]
mod tests;

use super::keys;
use super::root::Root;
use anyhow::Context;
use arc_swap::ArcSwap;
use bytes::Bytes;
use coracle_daemon::Tasks;
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{
    EventType, KeyValue, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, response_op,
};
use coracle_etcd::{Kv, KvError, WatchBatch, WatchStream};
use rules::{Chain, ENCRYPTED, Rules, together};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Flags, named as kube-apiserver's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EncryptionArgs {
    /// File with the providers that encrypt objects in the store.
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Follow changes of that file.
    #[arg(long, default_value = "false", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub encryption_provider_config_automatic_reload: bool,
}

/// Batches of a watch that wait, opened.
const BATCHES_WAITING: usize = 16;
/// Begins what stands in the place of a value that cannot be opened.
const UNREADABLE: &[u8] = b"k8s:enc:unreadable:";

/// Between the key and the reason, in such a mark.
const MARK_PARTS: char = '\0';

/// Why a value cannot be read; `None` when it can. Objects never begin so. `among`: of several, so that it is said of which.
#[must_use]
pub fn fault(value: &[u8], among: bool) -> Option<String> {
    let rest = value.strip_prefix(ENCRYPTED)?;
    Some(match value.strip_prefix(UNREADABLE) {
        Some(mark) => {
            let mark = String::from_utf8_lossy(mark);
            let (key, why) = mark.split_once(MARK_PARTS).unwrap_or(("", &mark));
            if among { format!("unable to transform key {key:?}: {why}") } else { why.to_owned() }
        }
        None => {
            let scheme = String::from_utf8_lossy(rest.split(|byte| *byte == b':').next().unwrap_or_default());
            format!("identity transformer tried to read encrypted data ({scheme})")
        }
    })
}

/// The store behind encryption.
pub struct AtRest {
    kv: Arc<dyn Kv>,
    /// Where keys stand in the store, which is what values are bound to.
    root: Root,
    rules: ArcSwap<Rules>,
    path: PathBuf,
    /// Of the file that the first rules are of.
    digest: [u8; 32],
    reloads: bool,
    tasks: Tasks,
    /// Something could not be opened since the rules last changed or a service last came back.
    unreadable: AtomicBool,
    /// Tells watches that what could not be opened should be read again.
    again: watch::Sender<u64>,
    /// Ends what asks the services of rules that are past.
    services: coracle_daemon::panics::Mutex<CancellationToken>,
}

impl AtRest {
    /// With the rules of the configured file; `None` when there is none.
    ///
    /// # Errors
    /// The file cannot be read or breaks a rule.
    pub fn new(
        args: &EncryptionArgs,
        kv: &Arc<dyn Kv>,
        root: Root,
        tasks: &Tasks,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(path) = args.encryption_provider_config.clone() else { return Ok(None) };
        let rules = reload::read(&path).context("error while parsing --encryption-provider-config")?;
        Ok(Some(Arc::new(Self {
            kv: kv.clone(),
            root,
            rules: ArcSwap::from_pointee(rules.rules),
            path,
            digest: rules.digest,
            reloads: args.encryption_provider_config_automatic_reload,
            tasks: tasks.clone(),
            unreadable: AtomicBool::new(false),
            again: watch::Sender::new(0),
            services: coracle_daemon::panics::Mutex::default(),
        })))
    }

    /// Starts asking the services, and following the file.
    pub fn start(self: &Arc<Self>) {
        self.ask_services();
        if self.reloads {
            self.tasks.spawn("encryption configuration", reload::follow(self.clone()));
        }
    }

    fn ask_services(self: &Arc<Self>) {
        let stop = self.tasks.stopping().child_token();
        std::mem::replace(&mut *self.services.lock(), stop.clone()).cancel();
        for service in self.rules.load().services() {
            let (own, service, stop) = (self.clone(), service.clone(), stop.clone());
            self.tasks.run("key management service", async move {
                tokio::select! {
                    () = service.follow(|| own.read_again()) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    fn replace(self: &Arc<Self>, rules: Rules) {
        self.rules.store(Arc::new(rules));
        self.ask_services();
        self.read_again();
    }

    /// Has watches end, if that may open what could not be opened.
    fn read_again(&self) {
        if self.unreadable.swap(false, Ordering::AcqRel) {
            self.again.send_modify(|times| *times += 1);
        }
    }

    /// Whether its file is followed.
    #[must_use]
    pub fn reloads(&self) -> bool {
        self.reloads
    }

    /// Why its services are not well; `None` where nothing depends on services.
    #[must_use]
    pub fn health(&self) -> Option<Result<(), String>> {
        let rules = self.rules.load();
        let services = rules.services().iter().enumerate();
        let faults =
            services.filter_map(|(at, service)| Some(format!("kms-provider-{at}: {}", service.fault()?)));
        let faults = together(&faults.collect::<Vec<_>>());
        let told = self.reloads || !rules.services().is_empty();
        told.then(|| faults.map_or(Ok(()), Err))
    }

    /// Whether the value that `key` has at `revision` should be written anew though nothing in it changes.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn stale(&self, key: &Bytes, revision: u64) -> Result<bool, KvError> {
        let Some(chain) = self.chain(key) else { return Ok(false) };
        let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let answer = self.kv.range(request).await?;
        let Some(kv) = answer.kvs.first().filter(|kv| u64::try_from(kv.mod_revision) == Ok(revision)) else {
            return Ok(false);
        };
        Ok(chain.open(&kv.value, &self.root.stored(key)).await.is_ok_and(|(_, stale)| stale))
    }

    fn chain(&self, key: &[u8]) -> Option<Arc<Chain>> {
        let of = keys::resource_of(std::str::from_utf8(key).ok()?)?;
        self.rules.load().of(&of).cloned()
    }

    async fn open(&self, kv: &mut KeyValue) {
        // Asked for without its value.
        if kv.value.is_empty() {
            return;
        }
        let stored = self.root.stored(&kv.key);
        let opened = match self.chain(&kv.key) {
            Some(chain) => chain.open(&kv.value, &stored).await,
            None if kv.value.starts_with(ENCRYPTED) => {
                Err("identity transformer tried to read encrypted data".to_owned())
            }
            None => return,
        };
        kv.value = match opened {
            Ok((value, _)) => value.into(),
            Err(why) => {
                let key = String::from_utf8_lossy(&stored);
                tracing::warn!(%key, why, "a stored value cannot be decrypted");
                self.unreadable.store(true, Ordering::Release);
                [UNREADABLE, format!("{key}{MARK_PARTS}{why}").as_bytes()].concat().into()
            }
        };
    }

    async fn seal(&self, ops: &mut [RequestOp]) -> Result<(), KvError> {
        for op in ops {
            let Some(Request::RequestPut(put)) = &mut op.request else { continue };
            let Some(chain) = self.chain(&put.key) else { continue };
            let stored = self.root.stored(&put.key);
            let sealed = chain.seal(&put.value, &stored).await;
            put.value = sealed.map_err(KvError::NotSent)?.into();
        }
        Ok(())
    }

    /// Opens what a watch of the store tells, until either end is gone or everything should be read again.
    async fn relay(self: Arc<Self>, mut from: WatchStream, to: mpsc::Sender<Result<WatchBatch, KvError>>) {
        let mut again = self.again.subscribe();
        let stop = self.tasks.stopping();
        loop {
            let batch = tokio::select! {
                batch = from.next() => batch,
                // Whoever watches reads everything anew after that.
                _ = again.changed() => Err(KvError::Compacted { compact_revision: 0 }),
                () = to.closed() => return,
                () = stop.cancelled() => return,
            };
            let batch = match batch {
                Ok(WatchBatch::Events { revision, mut events }) => {
                    for event in &mut events {
                        let deleted = event.r#type() == EventType::Delete;
                        if let Some(kv) = event.kv.as_mut().filter(|_| !deleted) {
                            self.open(kv).await;
                        }
                        if let Some(kv) = &mut event.prev_kv {
                            self.open(kv).await;
                        }
                    }
                    Ok(WatchBatch::Events { revision, events })
                }
                other => other,
            };
            let over = batch.is_err();
            if to.send(batch).await.is_err() || over {
                return;
            }
        }
    }
}

/// The store as this server sees it: plain values.
pub struct Plain(pub Arc<AtRest>);

#[async_trait::async_trait]
impl Kv for Plain {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let mut answer = self.0.kv.range(request).await?;
        for kv in &mut answer.kvs {
            self.0.open(kv).await;
        }
        Ok(answer)
    }

    async fn txn(&self, mut request: TxnRequest) -> Result<TxnResponse, KvError> {
        self.0.seal(&mut request.success).await?;
        self.0.seal(&mut request.failure).await?;
        let mut answer = self.0.kv.txn(request).await?;
        for response in &mut answer.responses {
            if let Some(response_op::Response::ResponseRange(range)) = &mut response.response {
                for kv in &mut range.kvs {
                    self.0.open(kv).await;
                }
            }
        }
        Ok(answer)
    }

    async fn compact(&self, revision: i64) -> Result<(), KvError> {
        self.0.kv.compact(revision).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, KvError> {
        self.0.kv.lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, KvError> {
        self.0.kv.lease_keep_alive(lease).await
    }

    async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
        prev_kv: bool,
    ) -> Result<WatchStream, KvError> {
        let from = self.0.kv.watch(key, range_end, start_revision, prev_kv).await?;
        let (to, batches) = mpsc::channel(BATCHES_WAITING);
        let progress = from.progress_requests();
        self.0.tasks.run("decryption", self.0.clone().relay(from, to));
        Ok(WatchStream::new(batches, progress))
    }
}
