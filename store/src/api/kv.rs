//! `etcdserverpb.KV`: check, commit or wait, translate.

use super::context::mismatch;
use super::{Api, check};
use crate::command::{Op, Outcome};
use crate::error::StoreError;
use crate::machine::{is_read_only, is_serializable};
use coracle_etcd::proto::kv_server::Kv;
use coracle_etcd::proto::{
    AlarmType, CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use prost::Message;
use tonic::{Request, Response, Status};

impl Api {
    fn check_size(&self, bytes: usize) -> Result<(), StoreError> {
        if bytes > self.limits.request_bytes_max { Err(StoreError::RequestTooLarge) } else { Ok(()) }
    }

    fn check_corrupt(&self) -> Result<(), StoreError> {
        if self.shared.machine().has_alarm(AlarmType::Corrupt) { Err(StoreError::Corrupt) } else { Ok(()) }
    }

    async fn read_txn(&self, txn: &TxnRequest) -> Result<TxnResponse, StoreError> {
        if !is_serializable(txn) {
            self.barrier().await?;
        }
        self.check_corrupt()?;
        self.shared.machine().read_txn(txn)
    }
}

#[tonic::async_trait]
impl Kv for Api {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        if request.get_ref().serializable {
            self.admit(&request)?;
        } else {
            self.admit_voter(&request)?;
        }
        let request = request.into_inner();
        check::range(&request)?;
        if !request.serializable {
            self.barrier().await?;
        }
        self.check_corrupt()?;
        let found = self.shared.machine().find(&request)?;
        // The machine is free again: a large answer keeps nobody waiting.
        let mut answer = found.answer(&request);
        answer.header = self.complete(answer.header);
        self.counts.ranges.inc();
        Ok(Response::new(answer))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        check::put(&request)?;
        let bytes = request.encoded_len();
        self.check_size(bytes)?;
        self.check_quota(bytes).await?;
        let Outcome::Put(mut answer) = self.commit(Op::Put(request)).await? else { return Err(mismatch()) };
        answer.header = self.complete(answer.header);
        self.counts.puts.inc();
        Ok(Response::new(answer))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        check::delete(&request)?;
        self.check_size(request.encoded_len())?;
        let outcome = self.commit(Op::DeleteRange(request)).await?;
        let Outcome::DeleteRange(mut answer) = outcome else { return Err(mismatch()) };
        answer.header = self.complete(answer.header);
        self.counts.deletes.inc();
        Ok(Response::new(answer))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        check::txn(&request, self.limits.txn_ops_max)?;
        let mut answer = if is_read_only(&request) {
            self.read_txn(&request).await?
        } else {
            let bytes = request.encoded_len();
            self.check_size(bytes)?;
            if crate::machine::has_puts(&request) {
                self.check_quota(bytes).await?;
            }
            let Outcome::Txn(answer) = self.commit(Op::Txn(request)).await? else { return Err(mismatch()) };
            answer
        };
        answer.header = self.complete(answer.header);
        self.counts.txns.inc();
        Ok(Response::new(answer))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.admit_voter(&request)?;
        let outcome = self.commit(Op::Compact(request.into_inner())).await?;
        let Outcome::Compact(mut answer) = outcome else { return Err(mismatch()) };
        answer.header = self.complete(answer.header);
        Ok(Response::new(answer))
    }
}
