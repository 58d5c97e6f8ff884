//! `v3lockpb.Lock`: who is first in the queue of a name has its lock.

use super::Api;
use super::context::mismatch;
use crate::command::{Op, Outcome};
use crate::error::StoreError;
use bytes::Bytes;
use coracle_etcd::proto::DeleteRangeRequest;
use coracle_etcd::proto::v3lockpb::lock_server::Lock;
use coracle_etcd::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Lock for Api {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        let place = self.stand(&request.name, request.lease, Bytes::new()).await?;
        let header = self.wait_turn(&request.name, &place).await?;
        Ok(Response::new(LockResponse { header, key: place.key }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        self.admit_voter(&request)?;
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(StoreError::EmptyKey.into());
        }
        let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let Outcome::DeleteRange(answer) = self.commit(Op::DeleteRange(delete)).await? else {
            return Err(mismatch());
        };
        Ok(Response::new(UnlockResponse { header: self.complete(answer.header) }))
    }
}
