//! What the machine does, by example, and against a model that is too simple to be wrong.

mod examples;
mod model;

use super::Machine;
use crate::command::{Command, Op, Outcome};
use crate::error::StoreError;
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RequestOp,
};

pub(super) fn apply(machine: &mut Machine, op: Op) -> Result<Outcome, StoreError> {
    machine.apply(&Command { proposed_at_millis: 0, op })
}

pub(super) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() }
}

pub(super) fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..DeleteRangeRequest::default()
    }
}

pub(super) fn range(key: &str, range_end: &str, revision: i64) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        revision,
        ..RangeRequest::default()
    }
}

pub(super) fn compact(revision: i64) -> Op {
    Op::Compact(CompactionRequest { revision, physical: false })
}

pub(super) fn grant(id: i64) -> Op {
    Op::LeaseGrant(LeaseGrantRequest { id, ttl: 60 })
}

pub(super) fn revoke(id: i64) -> Op {
    Op::LeaseRevoke(LeaseRevokeRequest { id })
}

pub(super) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}
