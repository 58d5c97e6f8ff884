//! What can be refused by looking at the request alone, as etcd does.

use crate::error::StoreError;
use crate::machine::KeyRange;
use bytes::Bytes;
use coracle_etcd::proto::range_request::{SortOrder, SortTarget};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use std::collections::HashSet;
use tonic::Status;

/// A range.
///
/// # Errors
/// What etcd refuses.
pub fn range(request: &RangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(StoreError::InvalidSortOption);
    }
    Ok(())
}

/// A put.
///
/// # Errors
/// What etcd refuses.
pub fn put(request: &PutRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        Err(StoreError::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(StoreError::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(StoreError::LeaseProvided)
    } else {
        Ok(())
    }
}

/// A deletion.
///
/// # Errors
/// What etcd refuses.
pub fn delete(request: &DeleteRangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() { Err(StoreError::EmptyKey) } else { Ok(()) }
}

/// A transaction, at any depth.
///
/// # Errors
/// What etcd refuses.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), StoreError> {
    shape(request, ops_max)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn shape(request: &TxnRequest, ops_max: usize) -> Result<(), StoreError> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > ops_max {
        return Err(StoreError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(StoreError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete(request)?,
            Some(Request::RequestTxn(request)) => shape(request, ops_max - ops)?,
            // etcd: neither a key nor an operation.
            None => return Err(StoreError::KeyNotFound),
        }
    }
    Ok(())
}

/// Keys that operations put, and ranges that they delete.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a Bytes>,
    deletes: Vec<KeyRange>,
}

impl<'a> Writes<'a> {
    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|range| range.contains(key))
    }

    /// Adds what an inner transaction puts, which must not be put or deleted here; `except` may be.
    fn add_puts(&mut self, puts: &HashSet<&'a Bytes>, except: &HashSet<&'a Bytes>) -> Result<(), StoreError> {
        for key in puts {
            if (self.puts.contains(key) && !except.contains(key)) || self.deletes(key) {
                return Err(StoreError::DuplicateKey);
            }
        }
        self.puts.extend(puts);
        Ok(())
    }
}

/// Refuses operations that write a key twice. Of an inner transaction, either branch may write what the other does.
fn writes(ops: &[RequestOp]) -> Result<Writes<'_>, StoreError> {
    let mut all = Writes::default();
    let requests = || ops.iter().filter_map(|op| op.request.as_ref());
    for request in requests() {
        if let Request::RequestDeleteRange(delete) = request {
            all.deletes.push(KeyRange::new(&delete.key, &delete.range_end));
        }
    }
    for request in requests() {
        if let Request::RequestTxn(inner) = request {
            let (then, otherwise) = (writes(&inner.success)?, writes(&inner.failure)?);
            all.add_puts(&then.puts, &HashSet::new())?;
            all.add_puts(&otherwise.puts, &then.puts)?;
            all.deletes.extend(then.deletes);
            all.deletes.extend(otherwise.deletes);
        }
    }
    for request in requests() {
        if let Request::RequestPut(put) = request
            && (all.deletes(&put.key) || !all.puts.insert(&put.key))
        {
            return Err(StoreError::DuplicateKey);
        }
    }
    Ok(all)
}

/// Whether a cluster could go back to `version`, which is a matter of one minor version.
pub(super) fn downgrade(version: &str) -> Result<(), Status> {
    let mut numbers = version.split('.').map(|number| number.parse::<u16>().ok());
    let numbers = (numbers.next(), numbers.next(), numbers.next(), numbers.next());
    match numbers {
        (Some(Some(3)), Some(Some(4)), None | Some(Some(_)), None) => Ok(()),
        (Some(Some(_)), Some(Some(_)), None | Some(Some(_)), None) => {
            Err(Status::invalid_argument("etcdserver: invalid downgrade target version"))
        }
        _ => Err(Status::invalid_argument("etcdserver: wrong downgrade target version format")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_etcd::proto::Compare;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_of(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }))
    }

    fn delete_of(key: &'static str, range_end: &'static str) -> RequestOp {
        let delete = DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..DeleteRangeRequest::default()
        };
        op(Request::RequestDeleteRange(delete))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { compare: vec![], success, failure }))
    }

    #[test]
    fn a_transaction_may_write_a_key_once() {
        let twice = Err(StoreError::DuplicateKey);
        for (ops, wanted) in [
            (vec![put_of("a"), put_of("b")], Ok(())),
            (vec![put_of("a"), put_of("a")], twice.clone()),
            (vec![put_of("b"), delete_of("a", "c")], twice.clone()),
            (vec![put_of("c"), delete_of("a", "c")], Ok(())),
            (vec![delete_of("a", "c"), delete_of("b", "")], Ok(())),
            (vec![put_of("a"), nested(vec![put_of("a")], vec![])], twice.clone()),
            (vec![nested(vec![put_of("a")], vec![put_of("a")])], Ok(())),
            (vec![nested(vec![put_of("a")], vec![]), nested(vec![], vec![put_of("a")])], twice.clone()),
            (vec![delete_of("a", "\0"), nested(vec![put_of("z")], vec![])], twice.clone()),
            (vec![put_of("z"), nested(vec![delete_of("z", "")], vec![])], twice),
        ] {
            let request = TxnRequest { success: ops.clone(), ..TxnRequest::default() };
            assert_eq!(txn(&request, 128), wanted, "{ops:?}");
            let request = TxnRequest { failure: ops.clone(), ..TxnRequest::default() };
            assert_eq!(txn(&request, 128), wanted, "as failure: {ops:?}");
        }
    }

    #[test]
    fn keys_operations_and_sort_options_are_checked_at_any_depth() {
        let of = |success| TxnRequest { success, ..TxnRequest::default() };
        assert_eq!(txn(&of(vec![put_of("a"), put_of("b"), put_of("c")]), 2), Err(StoreError::TooManyOps));
        let deep = of(vec![nested(vec![put_of("a"), put_of("b")], vec![])]);
        assert_eq!(txn(&deep, 2), Err(StoreError::TooManyOps), "inner operations count on top of outer ones");
        assert_eq!(txn(&deep, 3), Ok(()));
        assert_eq!(txn(&of(vec![nested(vec![put_of("")], vec![])]), 9), Err(StoreError::EmptyKey));
        let compare = TxnRequest { compare: vec![Compare::default()], ..TxnRequest::default() };
        assert_eq!(txn(&compare, 9), Err(StoreError::EmptyKey));
        let sorted = RangeRequest { key: "a".into(), sort_target: 9, ..RangeRequest::default() };
        assert_eq!(range(&sorted), Err(StoreError::InvalidSortOption));
    }

    #[test]
    fn one_minor_version_back_is_a_downgrade_that_could_be() {
        for (version, wanted) in [
            ("3.4", None),
            ("3.4.0", None),
            ("3.3.0", Some("etcdserver: invalid downgrade target version")),
            ("3.5.0", Some("etcdserver: invalid downgrade target version")),
            ("3", Some("etcdserver: wrong downgrade target version format")),
            ("3.4.0.1", Some("etcdserver: wrong downgrade target version format")),
            ("three", Some("etcdserver: wrong downgrade target version format")),
        ] {
            let refused = downgrade(version).err();
            assert_eq!(refused.as_ref().map(Status::message), wanted, "{version}");
        }
    }

    #[test]
    fn puts_that_keep_a_part_may_not_give_it() {
        let key: Bytes = "a".into();
        let with_value =
            PutRequest { key: key.clone(), value: "v".into(), ignore_value: true, ..PutRequest::default() };
        let with_lease = PutRequest { key, lease: 1, ignore_lease: true, ..PutRequest::default() };
        assert_eq!(put(&with_value), Err(StoreError::ValueProvided));
        assert_eq!(put(&with_lease), Err(StoreError::LeaseProvided));
        assert_eq!(put(&PutRequest::default()), Err(StoreError::EmptyKey));
    }
}
