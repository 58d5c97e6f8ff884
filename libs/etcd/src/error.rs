//! What can go wrong between a caller and the store, told apart by what the caller may conclude.

use tonic::{Code, Status};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The revision asked for is gone.
    #[error("the required revision has been compacted (up to {compact_revision})")]
    Compacted {
        /// The last revision that is gone; 0 when the store did not say.
        compact_revision: i64,
    },
    /// The revision asked for does not exist yet.
    #[error("the required revision is a future revision")]
    FutureRevision,
    /// No member could be reached or none leads: surely nothing was done.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The answer was lost: a write may have been done.
    #[error("the store's answer was lost: {0}")]
    Unknown(String),
    /// The store is full and takes no writes.
    #[error("the store's database space is exceeded")]
    NoSpace,
    /// What was to be sent could not be made: nothing was done.
    #[error("{0}")]
    NotSent(String),
    /// Any other refusal.
    #[error("{message}")]
    Other {
        /// gRPC code.
        code: i32,
        /// The store's text.
        message: String,
    },
}

impl KvError {
    /// From a gRPC status, of a call that writes or only reads.
    #[must_use]
    pub fn from_status(status: &Status, writes: bool) -> Self {
        let message = status.message();
        let lost =
            || if writes { Self::Unknown(message.to_owned()) } else { Self::Unavailable(message.to_owned()) };
        match status.code() {
            Code::OutOfRange if message.contains("compacted") => Self::Compacted { compact_revision: 0 },
            Code::OutOfRange if message.contains("future revision") => Self::FutureRevision,
            Code::ResourceExhausted if message.contains("space exceeded") => Self::NoSpace,
            // These the store says before it proposes anything.
            Code::Unavailable if message.contains("no leader") || message.contains("not leader") => {
                Self::Unavailable(message.to_owned())
            }
            // The connection was never made, so nothing was sent.
            Code::Unavailable if is_connect_failure(status) => Self::Unavailable(message.to_owned()),
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown | Code::Internal => {
                lost()
            }
            code => Self::Other { code: code as i32, message: message.to_owned() },
        }
    }
}

fn is_connect_failure(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.downcast_ref::<tonic::ConnectError>().is_some() {
            return true;
        }
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
