//! What is replicated, and what comes of it: [`Command`] goes into the log, [`Outcome`] or a refusal comes out of applying it.
//!
//! Both are protobuf on the wire and on disk; decoding copies no value that is most of its command. Nothing in here depends on
//! the member that proposes, applies or answers: the API adds that.

use crate::error::StoreError;
use bytes::{Buf, Bytes, BytesMut};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    PutRequest, PutResponse, TxnRequest, TxnResponse,
};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One change of the replicated state.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The proposer's wall clock. Applying never asks for the time.
    pub proposed_at_millis: i64,
    /// The change.
    pub op: Op,
}

/// The kinds of changes.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
    #[prost(message, tag = "5")]
    Compact(CompactionRequest),
    /// With an id: the proposer draws one where the client left it open.
    #[prost(message, tag = "6")]
    LeaseGrant(LeaseGrantRequest),
    /// By a client, or by the leader when time is up.
    #[prost(message, tag = "7")]
    LeaseRevoke(LeaseRevokeRequest),
    #[prost(message, tag = "8")]
    Alarm(AlarmRequest),
}

#[derive(Clone, PartialEq, prost::Message)]
struct CommandWire {
    #[prost(int64, tag = "1")]
    proposed_at_millis: i64,
    #[prost(oneof = "Op", tags = "2, 3, 4, 5, 6, 7, 8")]
    op: Option<Op>,
}

/// What a command did. Headers carry the revision only.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Outcome {
    #[prost(message, tag = "2")]
    Put(PutResponse),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
    #[prost(message, tag = "5")]
    Compact(CompactionResponse),
    #[prost(message, tag = "6")]
    LeaseGrant(LeaseGrantResponse),
    #[prost(message, tag = "7")]
    LeaseRevoke(LeaseRevokeResponse),
    #[prost(message, tag = "8")]
    Alarm(AlarmResponse),
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReplyWire {
    #[prost(bytes = "bytes", tag = "1")]
    error: Bytes,
    #[prost(oneof = "Outcome", tags = "2, 3, 4, 5, 6, 7, 8")]
    outcome: Option<Outcome>,
}

/// Bytes that are no command or reply: written by another version, or damaged.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not a protobuf message")]
    Protobuf(#[from] prost::DecodeError),
    #[error("not an error code")]
    ErrorCode(#[from] postcard::Error),
    #[error("a message of an unknown kind")]
    UnknownKind,
}

impl Command {
    /// As it stands in the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        prost::encoding::int64::encode(1, &self.proposed_at_millis, &mut out);
        self.op.encode(&mut out);
        out.freeze()
    }

    /// Bytes that [`Command::encode`] makes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        prost::encoding::int64::encoded_len(1, &self.proposed_at_millis) + self.op.encoded_len()
    }

    /// From the log. Keys and values point into `from` where that is `Bytes`.
    ///
    /// # Errors
    /// The bytes are damaged or of a kind unknown to this version.
    pub fn decode(from: Bytes) -> Result<Self, DecodeError> {
        let bytes = from.len();
        let wire = CommandWire::decode(from)?;
        let mut op = wire.op.ok_or(DecodeError::UnknownKind)?;
        match &mut op {
            Op::Put(put) => settle(put, bytes),
            Op::Txn(txn) => settle_all(txn, bytes),
            _ => {}
        }
        Ok(Self { proposed_at_millis: wire.proposed_at_millis, op })
    }
}

/// A value that is most of its command stays a slice of it, which the log in memory keeps anyway. Any other gets memory of
/// its own, as it would keep all of the command alive.
fn settle(put: &mut PutRequest, command: usize) {
    if put.value.len() < command / 4 * 3 {
        put.value = Bytes::copy_from_slice(&put.value);
    }
}

fn settle_all(txn: &mut TxnRequest, command: usize) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => settle(put, command),
            Some(Request::RequestTxn(txn)) => settle_all(txn, command),
            _ => {}
        }
    }
}

/// A command's result, for the member that asked the leader to propose it.
#[must_use]
pub fn encode_reply(reply: &Result<Outcome, StoreError>) -> Bytes {
    let wire = match reply {
        Ok(outcome) => ReplyWire { error: Bytes::new(), outcome: Some(outcome.clone()) },
        // An enum of texts always has a postcard form.
        Err(error) => {
            ReplyWire { error: postcard::to_stdvec(error).unwrap_or_default().into(), outcome: None }
        }
    };
    wire.encode_to_vec().into()
}

/// The inverse of [`encode_reply`].
///
/// # Errors
/// The bytes are damaged or of a kind unknown to this version.
pub fn decode_reply(from: impl Buf) -> Result<Result<Outcome, StoreError>, DecodeError> {
    let wire = ReplyWire::decode(from)?;
    match wire.outcome {
        Some(outcome) => Ok(Ok(outcome)),
        None if wire.error.is_empty() => Err(DecodeError::UnknownKind),
        None => Ok(Err(postcard::from_bytes(&wire.error)?)),
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::decode(Bytes::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_etcd::proto::RequestOp;

    #[test]
    fn only_a_value_that_is_most_of_its_command_stays_a_slice_of_it() {
        let put = |bytes: usize| PutRequest {
            key: "k".into(),
            value: vec![b'v'; bytes].into(),
            ..PutRequest::default()
        };
        let op = |bytes| RequestOp { request: Some(Request::RequestPut(put(bytes))) };
        let txn = |ops| Op::Txn(TxnRequest { success: ops, ..TxnRequest::default() });
        for (op, wanted) in [
            (Op::Put(put(1000)), vec![true]),
            (txn(vec![op(1000)]), vec![true]),
            (txn(vec![op(1000), op(1000)]), vec![false, false]),
            (txn(vec![op(10), op(10_000)]), vec![false, true]),
        ] {
            let encoded = Command { proposed_at_millis: 0, op }.encode();
            let within = encoded.as_ptr_range();
            let puts = match Command::decode(encoded.clone()).expect("decodes").op {
                Op::Put(put) => vec![put],
                Op::Txn(txn) => txn
                    .success
                    .into_iter()
                    .filter_map(|op| {
                        if let Some(Request::RequestPut(put)) = op.request { Some(put) } else { None }
                    })
                    .collect(),
                other => panic!("{other:?}"),
            };
            let slices: Vec<bool> = puts.iter().map(|put| within.contains(&put.value.as_ptr())).collect();
            assert_eq!(slices, wanted);
        }
    }

    #[test]
    fn commands_and_replies_survive_the_wire() {
        let put = PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..PutRequest::default() };
        for (millis, op) in [
            (0, Op::Put(put)),
            (5, Op::LeaseGrant(LeaseGrantRequest { ttl: 1, id: 2 })),
            (-1, Op::Txn(TxnRequest::default())),
        ] {
            let command = Command { proposed_at_millis: millis, op };
            let bytes = command.encode();
            assert_eq!(bytes.len(), command.encoded_len());
            assert_eq!(Command::decode(bytes).expect("decodes"), command);
            let stored = postcard::to_stdvec(&command).expect("serializes");
            assert_eq!(postcard::from_bytes::<Command>(&stored).expect("deserializes"), command);
        }
        for reply in [
            Ok(Outcome::Put(PutResponse::default())),
            Err(StoreError::LeaseNotFound),
            Err(StoreError::Internal("disk".to_owned())),
        ] {
            assert_eq!(decode_reply(encode_reply(&reply)).expect("decodes"), reply);
        }
        assert!(Command::decode(Bytes::new()).is_err(), "an empty entry is no command");
        assert!(decode_reply(Bytes::new()).is_err());
    }
}
