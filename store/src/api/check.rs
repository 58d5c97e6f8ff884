//! What can be refused by looking at the request alone, as etcd does.

use crate::error::StoreError;
use crate::machine::KeyRange;
use bytes::Bytes;
use coracle_etcd::proto::range_request::{SortOrder, SortTarget};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
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

/// Ranges of keys by where they begin, with where they end, if they do. Those that touch are one.
#[derive(Default)]
struct Ranges(BTreeMap<Bytes, Option<Bytes>>);

impl Ranges {
    fn contains(&self, key: &[u8]) -> bool {
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| end > key))
    }

    fn add(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let end = match range.end.as_ref() {
            [] => Some([range.from.as_ref(), &[0]].concat().into()),
            [0] => None,
            _ => Some(range.end.clone()),
        };
        self.insert(range.from.clone(), end);
    }

    /// Makes one range of it and those that it touches.
    fn insert(&mut self, mut from: Bytes, mut end: Option<Bytes>) {
        loop {
            let up_to = end.clone().map_or(Bound::Unbounded, Bound::Included);
            let last = self.0.range((Bound::Unbounded, up_to)).next_back();
            let touching = last.filter(|(_, end)| end.as_ref().is_none_or(|end| *end >= from));
            let Some((begin, ends)) = touching.map(|(begin, ends)| (begin.clone(), ends.clone())) else {
                break;
            };
            self.0.remove(&begin);
            from = from.min(begin);
            end = end.zip(ends).map(|(one, other)| one.max(other));
        }
        self.0.insert(from, end);
    }
}

/// Keys that operations put, and ranges that they delete.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a Bytes>,
    deletes: Ranges,
}

impl Writes<'_> {
    fn contains(&self, key: &Bytes) -> bool {
        self.puts.contains(key) || self.deletes.contains(key)
    }

    /// Adds all of `other`; the larger takes the smaller in, as a transaction may be deep.
    fn merge(&mut self, mut other: Self) {
        if self.puts.len() < other.puts.len() {
            std::mem::swap(&mut self.puts, &mut other.puts);
        }
        self.puts.extend(other.puts);
        if self.deletes.0.len() < other.deletes.0.len() {
            std::mem::swap(&mut self.deletes, &mut other.deletes);
        }
        other.deletes.0.into_iter().for_each(|(from, end)| self.deletes.insert(from, end));
    }
}

/// Refuses operations that write a key twice. Of an inner transaction, either branch may write what the other does.
fn writes(ops: &[RequestOp]) -> Result<Writes<'_>, StoreError> {
    let mut all = Writes::default();
    let requests = || ops.iter().filter_map(|op| op.request.as_ref());
    for request in requests() {
        if let Request::RequestDeleteRange(delete) = request {
            all.deletes.add(&KeyRange::new(&delete.key, &delete.range_end));
        }
    }
    for request in requests() {
        if let Request::RequestTxn(inner) = request {
            let (then, otherwise) = (writes(&inner.success)?, writes(&inner.failure)?);
            if then.puts.iter().chain(&otherwise.puts).any(|key| all.contains(key)) {
                return Err(StoreError::DuplicateKey);
            }
            all.merge(then);
            all.merge(otherwise);
        }
    }
    for request in requests() {
        if let Request::RequestPut(put) = request
            && (all.deletes.contains(&put.key) || !all.puts.insert(&put.key))
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
    fn a_key_is_in_ranges_that_are_kept_together_as_in_each_of_them() {
        let words = ["", "\0", "a", "a\0", "ab", "b", "b\0", "c", "d"].map(Bytes::from);
        let single = words.iter().flat_map(|from| words.iter().map(move |end| KeyRange::new(from, end)));
        let single: Vec<KeyRange> = single.filter(|range| !range.from.is_empty()).collect();
        for (one, two, three) in
            (0..single.len()).flat_map(|at| [(at, at * 7 + 3, at * 31 + 11), (at * 5, at * 3 + 1, at)])
        {
            let chosen = [one, two, three].map(|at| &single[at % single.len()]);
            let mut ranges = Ranges::default();
            chosen.iter().for_each(|range| ranges.add(range));
            for key in &words[1..] {
                let wanted = chosen.iter().any(|range| range.contains(key));
                assert_eq!(ranges.contains(key), wanted, "{key:?} in {chosen:?}");
            }
        }
    }

    #[test]
    fn a_transaction_with_many_writes_at_many_depths_is_checked_in_time() {
        let key = |prefix: &str, n: usize| Bytes::from(format!("{prefix}{n:06}"));
        let leaf = |n: usize| {
            let puts = (0..64).map(|at| {
                op(Request::RequestPut(PutRequest { key: key("p", n * 64 + at), ..PutRequest::default() }))
            });
            let deletes = (0..64).map(|at| {
                let key = key("d", n * 64 + at);
                op(Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }))
            });
            puts.chain(deletes).collect()
        };
        let mut ops: Vec<RequestOp> = (0..1024).map(|n| nested(leaf(n), vec![])).collect();
        for _ in 0..20 {
            ops = vec![nested(ops, vec![delete_of("x", "")])];
        }
        let request = TxnRequest { success: ops, ..TxnRequest::default() };
        let began = std::time::Instant::now();
        assert_eq!(txn(&request, usize::MAX), Ok(()));
        // Comparing each with each took minutes.
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
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
