//! Every refusal of the store, with etcd's text and gRPC code, so that stock clients understand it.

use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

/// Why a request was refused or could not be done.
///
/// Only [`StoreError::may_have_happened`] leaves open whether a write was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStartedMembers,
    #[error("etcdserver: given member URLs are invalid")]
    BadMemberUrls,
    #[error("etcdserver: member not found")]
    MemberNotFound,
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    #[error("etcdserver: rpc not supported for learner")]
    NotSupportedForLearner,
    #[error("etcdserver: cluster ID mismatch")]
    ClusterIdMismatch,
    #[error("etcdserver: bad leader transferee")]
    BadLeaderTransferee,
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    /// Nobody leads: surely nothing was done.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Only a leader does this: surely nothing was done.
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error("etcdserver: request timed out")]
    TimedOut,
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    TimedOutLeaderFailed,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// Something that etcd has no name for, such as a broken disk.
    #[error("etcdserver: {0}")]
    Internal(String),
}

impl StoreError {
    /// The gRPC code that goes with the text.
    #[must_use]
    pub const fn code(&self) -> Code {
        use StoreError as E;
        match self {
            E::EmptyKey
            | E::KeyNotFound
            | E::ValueProvided
            | E::LeaseProvided
            | E::TooManyOps
            | E::DuplicateKey
            | E::InvalidSortOption
            | E::RequestTooLarge
            | E::BadMemberUrls => Code::InvalidArgument,
            E::Compacted | E::FutureRevision | E::LeaseTtlTooLarge => Code::OutOfRange,
            E::NoSpace | E::TooManyRequests => Code::ResourceExhausted,
            E::LeaseNotFound | E::MemberNotFound => Code::NotFound,
            E::LeaseExists
            | E::MemberExists
            | E::PeerUrlExists
            | E::NotEnoughStartedMembers
            | E::NotLearner
            | E::LearnerNotReady
            | E::TooManyLearners
            | E::NotSupportedForLearner
            | E::ClusterIdMismatch
            | E::BadLeaderTransferee
            | E::AuthNotEnabled
            | E::NotLeader => Code::FailedPrecondition,
            E::NoLeader
            | E::LeaderChanged
            | E::Stopped
            | E::TimedOut
            | E::TimedOutLeaderFailed
            | E::Unhealthy => Code::Unavailable,
            E::Corrupt => Code::DataLoss,
            E::Internal(_) => Code::Internal,
        }
    }

    /// Whether a write that ended so may have been done, or be done later.
    #[must_use]
    pub const fn may_have_happened(&self) -> bool {
        matches!(
            self,
            Self::LeaderChanged
                | Self::Stopped
                | Self::TimedOut
                | Self::TimedOutLeaderFailed
                | Self::Internal(_)
        )
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
