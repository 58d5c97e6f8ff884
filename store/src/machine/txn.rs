//! Transactions: all comparisons are made first, against the state before; then the chosen operations are checked; then done.

use super::apply::header;
use super::{KeyRange, Machine};
use crate::error::StoreError;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::response_op::Response;
use coracle_etcd::proto::{Compare, KeyValue, RequestOp, ResponseOp, TxnRequest, TxnResponse};
use std::collections::VecDeque;

/// Whether a transaction puts a key, whichever way its comparisons turn out.
#[must_use]
pub fn has_puts(txn: &TxnRequest) -> bool {
    any_op(txn, &|request| matches!(request, Request::RequestPut(_)))
}

/// Whether a transaction changes nothing, whichever way its comparisons turn out.
#[must_use]
pub fn is_read_only(txn: &TxnRequest) -> bool {
    !any_op(txn, &|request| matches!(request, Request::RequestPut(_) | Request::RequestDeleteRange(_)))
}

/// Whether a transaction reads only what this member has, if that is old.
#[must_use]
pub fn is_serializable(txn: &TxnRequest) -> bool {
    !any_op(txn, &|request| match request {
        Request::RequestRange(range) => !range.serializable,
        Request::RequestTxn(_) => false,
        Request::RequestPut(_) | Request::RequestDeleteRange(_) => true,
    })
}

fn any_op(txn: &TxnRequest, wanted: &impl Fn(&Request) -> bool) -> bool {
    txn.success.iter().chain(&txn.failure).filter_map(|op| op.request.as_ref()).any(|request| {
        wanted(request) || matches!(request, Request::RequestTxn(inner) if any_op(inner, wanted))
    })
}

/// How each transaction's comparisons turned out: the outer one's, then those within what it chose, in order.
type Turns = VecDeque<bool>;

fn chosen(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

impl Machine {
    pub(super) fn txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, StoreError> {
        let mut turns = self.check_txn(txn)?;
        let answer = self.run(txn, &mut turns);
        // What was checked cannot fail; what was done before a failure would still be one whole revision.
        self.finish();
        let mut answer = answer?;
        answer.header = header(self.revision);
        Ok(answer)
    }

    /// Answers a transaction that changes nothing ([`is_read_only`]).
    ///
    /// # Errors
    /// As for a range.
    pub fn read_txn(&self, txn: &TxnRequest) -> Result<TxnResponse, StoreError> {
        let mut turns = self.check_txn(txn)?;
        let mut answer = self.read(txn, &mut turns)?;
        answer.header = header(self.revision);
        Ok(answer)
    }

    fn read(&self, txn: &TxnRequest, turns: &mut Turns) -> Result<TxnResponse, StoreError> {
        let succeeded = turns.pop_front().unwrap_or_default();
        let mut responses = Vec::new();
        for request in chosen(txn, succeeded).iter().filter_map(|op| op.request.as_ref()) {
            let response = match request {
                Request::RequestRange(range) => Response::ResponseRange(self.range(range)?),
                Request::RequestTxn(inner) => Response::ResponseTxn(self.read(inner, turns)?),
                Request::RequestPut(_) | Request::RequestDeleteRange(_) => {
                    return Err(StoreError::Internal("a write where only reads may be".to_owned()));
                }
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: None, succeeded, responses })
    }

    fn check_txn(&self, txn: &TxnRequest) -> Result<Turns, StoreError> {
        let mut turns = Turns::new();
        self.compare(txn, &mut turns);
        self.check(txn, &mut turns.iter().copied())?;
        Ok(turns)
    }

    fn compare(&self, txn: &TxnRequest, turns: &mut Turns) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        turns.push_back(succeeded);
        for op in chosen(txn, succeeded) {
            if let Some(Request::RequestTxn(inner)) = &op.request {
                self.compare(inner, turns);
            }
        }
    }

    fn check(&self, txn: &TxnRequest, turns: &mut dyn Iterator<Item = bool>) -> Result<(), StoreError> {
        let succeeded = turns.next().unwrap_or_default();
        for request in chosen(txn, succeeded).iter().filter_map(|op| op.request.as_ref()) {
            match request {
                Request::RequestRange(range) => self.check_range(range)?,
                Request::RequestPut(put) => self.check_put(put)?,
                Request::RequestDeleteRange(_) => {}
                Request::RequestTxn(inner) => self.check(inner, turns)?,
            }
        }
        Ok(())
    }

    /// The revision that reads within the running transaction see.
    fn seen(&self) -> i64 {
        self.revision + i64::from(!self.events.is_empty())
    }

    fn run(&mut self, txn: &TxnRequest, turns: &mut Turns) -> Result<TxnResponse, StoreError> {
        let succeeded = turns.pop_front().unwrap_or_default();
        let mut responses = Vec::new();
        for request in chosen(txn, succeeded).iter().filter_map(|op| op.request.as_ref()) {
            let response = match request {
                Request::RequestRange(range) => {
                    Response::ResponseRange(self.find_at(range, self.seen())?.answer(range))
                }
                Request::RequestPut(put) => {
                    let mut answer = self.put(put);
                    answer.header = header(self.seen());
                    Response::ResponsePut(answer)
                }
                Request::RequestDeleteRange(delete) => {
                    let mut answer = self.delete_range(delete);
                    answer.header = header(self.seen());
                    Response::ResponseDeleteRange(answer)
                }
                Request::RequestTxn(inner) => {
                    let mut answer = self.run(inner, turns)?;
                    answer.header = header(self.seen());
                    Response::ResponseTxn(answer)
                }
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: None, succeeded, responses })
    }

    /// Whether a comparison holds for all keys of its range, or for a key that is not there.
    fn holds(&self, compare: &Compare) -> bool {
        let range = KeyRange::new(&compare.key, &compare.range_end);
        let mut found = self
            .index
            .range::<[u8], _>(range.bounds())
            .filter_map(|(_, history)| history.at(self.revision))
            .peekable();
        if found.peek().is_none() {
            // A missing value is not the empty value.
            return compare.target() != CompareTarget::Value && holds_for(compare, &KeyValue::default());
        }
        found.all(|record| holds_for(compare, &record.kv))
    }
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let number = |found: i64, wanted: Option<i64>| found.cmp(&wanted.unwrap_or_default());
    let union = compare.target_union.as_ref();
    let order = match compare.target() {
        CompareTarget::Version => number(
            kv.version,
            union.and_then(
                |union| if let TargetUnion::Version(wanted) = union { Some(*wanted) } else { None },
            ),
        ),
        CompareTarget::Create => number(
            kv.create_revision,
            union.and_then(|union| {
                if let TargetUnion::CreateRevision(wanted) = union { Some(*wanted) } else { None }
            }),
        ),
        CompareTarget::Mod => number(
            kv.mod_revision,
            union.and_then(
                |union| if let TargetUnion::ModRevision(wanted) = union { Some(*wanted) } else { None },
            ),
        ),
        CompareTarget::Lease => number(
            kv.lease,
            union.and_then(|union| if let TargetUnion::Lease(wanted) = union { Some(*wanted) } else { None }),
        ),
        CompareTarget::Value => {
            let wanted = match union {
                Some(TargetUnion::Value(wanted)) => wanted.as_ref(),
                _ => &[],
            };
            kv.value.as_ref().cmp(wanted)
        }
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}
