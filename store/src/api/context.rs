//! What all services share.

use crate::Args;
use crate::command::{Op, Outcome};
use crate::consensus::{Consensus, Leadership};
use crate::error::StoreError;
use crate::shared::Shared;
use coracle_etcd::proto::alarm_request::AlarmAction;
use coracle_etcd::proto::{AlarmRequest, AlarmType, ResponseHeader};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

/// What requests may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request.
    pub request_bytes_max: usize,
    /// Operations of a transaction.
    pub txn_ops_max: usize,
    /// Bytes of state, if bounded.
    pub quota_bytes: Option<u64>,
    /// Seconds of the shortest lease.
    pub lease_ttl_min: i64,
    /// How often a quiet watch that asked for it is told how far it is.
    pub progress_interval: Duration,
}

impl Limits {
    /// From the flags.
    #[must_use]
    pub fn from_args(args: &Args) -> Self {
        Self {
            request_bytes_max: args.max_request_bytes as usize,
            txn_ops_max: args.max_txn_ops as usize,
            quota_bytes: args.quota_bytes(),
            lease_ttl_min: args.lease_ttl_min(),
            progress_interval: args.experimental_watch_progress_notify_interval,
        }
    }
}

/// All services of a member; clones share it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// See [`Api`].
pub struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) limits: Limits,
    pub(super) stop: CancellationToken,
    pub(super) counts: super::metrics::Counts,
    leadership: watch::Receiver<Leadership>,
    cluster_id: u64,
    member_id: u64,
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    /// Over a member's state and replication; streams end when `stop` fires.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        consensus: Arc<dyn Consensus>,
        limits: Limits,
        stop: CancellationToken,
    ) -> Self {
        let status = consensus.status();
        Self(Arc::new(Inner {
            shared,
            limits,
            stop,
            counts: super::metrics::Counts::default(),
            leadership: consensus.leadership(),
            cluster_id: status.cluster_id,
            member_id: status.member_id,
            consensus,
        }))
    }
}

impl Inner {
    /// This member's id.
    pub(super) fn member_id(&self) -> u64 {
        self.member_id
    }

    /// Who leads, as this member knows.
    pub(super) fn leadership(&self) -> Leadership {
        *self.leadership.borrow()
    }

    /// For streams that end when nobody leads.
    pub(super) fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// A header with `revision`.
    #[expect(clippy::unnecessary_wraps, reason = "messages hold optional headers")]
    pub(super) fn header_at(&self, revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.leadership().term,
        })
    }

    /// A header with this member's revision.
    pub(super) fn header(&self) -> Option<ResponseHeader> {
        self.header_at(self.shared.machine().revision())
    }

    /// Completes the machine's header.
    pub(super) fn complete(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        self.header_at(header.map_or(0, |header| header.revision))
    }

    /// Refuses a request that asks for a leader when there is none, and all but a few on a member without a vote.
    pub(super) fn admit<T>(&self, request: &Request<T>) -> Result<(), StoreError> {
        if wants_leader(request.metadata()) && self.leadership().leader == 0 {
            return Err(StoreError::NoLeader);
        }
        Ok(())
    }

    /// Refuses a learner's part in what a majority decides.
    pub(super) fn admit_voter<T>(&self, request: &Request<T>) -> Result<(), StoreError> {
        self.admit(request)?;
        if self.consensus.is_learner() { Err(StoreError::NotSupportedForLearner) } else { Ok(()) }
    }

    /// Replicates and applies; counts.
    pub(super) async fn commit(&self, op: Op) -> Result<Outcome, StoreError> {
        let _pending = self.counts.proposal();
        match self.consensus.commit(op).await {
            Ok(committed) => Ok(committed.outcome),
            Err(error) => {
                if error.may_have_happened() || error == StoreError::NoLeader {
                    self.counts.proposals_failed.inc();
                }
                Err(error)
            }
        }
    }

    /// Waits until this member has caught up.
    pub(super) async fn barrier(&self) -> Result<(), StoreError> {
        self.consensus.read_barrier().await
    }

    /// Refuses what does not fit into the quota, and raises the alarm, which makes every member refuse.
    pub(super) async fn check_quota(&self, bytes: usize) -> Result<(), StoreError> {
        let Some(quota) = self.limits.quota_bytes else { return Ok(()) };
        if self.shared.machine().size() + bytes as u64 <= quota {
            return Ok(());
        }
        if !self.shared.machine().has_alarm(AlarmType::Nospace) {
            tracing::warn!(quota, "the store is full: it takes no writes until the alarm is disarmed");
            let alarm = AlarmRequest {
                action: AlarmAction::Activate as i32,
                member_id: self.member_id,
                alarm: AlarmType::Nospace as i32,
            };
            self.commit(Op::Alarm(alarm)).await?;
        }
        Err(StoreError::NoSpace)
    }
}

/// Whether a request asks to fail when nobody leads.
pub(super) fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}

/// A command's outcome of another kind than the command.
pub(super) fn mismatch() -> Status {
    Status::internal("etcdserver: a command had another command's outcome")
}
