//! `etcdserverpb.Lease`. Granting and ending is replicated; time left is the leader's.

use super::Api;
use super::context::{mismatch, wants_leader};
use crate::command::{Op, Outcome};
use crate::error::StoreError;
use coracle_daemon::random;
use coracle_etcd::proto::lease_server::Lease;
use coracle_etcd::proto::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use futures::Stream;
use prost::Message;
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming};

/// Tries to draw an id that no lease has; one is nearly always enough.
const DRAWS: usize = 8;

/// Answers to keep-alives.
type KeepAlives = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

impl Api {
    pub(super) async fn grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        let ttl = request.ttl.max(self.limits.lease_ttl_min);
        for _ in 0..DRAWS {
            let drawn = i64::try_from(random::u64() >> 1).unwrap_or(1).max(1);
            let id = if request.id == 0 { drawn } else { request.id };
            match self.commit(Op::LeaseGrant(LeaseGrantRequest { ttl, id })).await {
                Ok(Outcome::LeaseGrant(answer)) => return Ok(answer),
                Ok(_) => return Err(mismatch()),
                Err(StoreError::LeaseExists) if request.id == 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::LeaseExists.into())
    }

    async fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, StoreError> {
        let ttl = match self.consensus.renew_lease(id).await {
            Ok(ttl) => ttl,
            Err(StoreError::LeaseNotFound) => 0,
            Err(error) => return Err(error),
        };
        Ok(LeaseKeepAliveResponse { header: self.header(), id, ttl })
    }

    async fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, StoreError> {
        let id = request.id;
        let left = match self.consensus.lease_remaining(id).await {
            Ok(left) => Some(left),
            Err(StoreError::LeaseNotFound) => None,
            Err(error) => return Err(error),
        };
        self.barrier().await?;
        let machine = self.shared.machine();
        let found = left.and_then(|left| {
            machine.lease(id).map(|(granted, keys)| {
                (left, granted, if request.keys { keys.cloned().collect() } else { Vec::new() })
            })
        });
        drop(machine);
        let (ttl, granted_ttl, keys) = found.unwrap_or((-1, 0, Vec::new()));
        Ok(LeaseTimeToLiveResponse { header: self.header(), id, ttl, granted_ttl, keys })
    }
}

#[tonic::async_trait]
impl Lease for Api {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        self.check_quota(request.encoded_len()).await?;
        let mut answer = self.grant(request).await?;
        answer.header = self.complete(answer.header);
        Ok(Response::new(answer))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.admit_voter(&request)?;
        let outcome = self.commit(Op::LeaseRevoke(request.into_inner())).await?;
        let Outcome::LeaseRevoke(mut answer) = outcome else { return Err(mismatch()) };
        answer.header = self.complete(answer.header);
        Ok(Response::new(answer))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        self.admit_voter(&request)?;
        let wants_leader = wants_leader(request.metadata());
        let api = self.clone();
        let requests = request.into_inner();
        let answers = futures::stream::try_unfold((api, requests), move |(api, mut requests)| async move {
            let mut leadership = api.watch_leadership();
            let asked = tokio::select! {
                () = api.stop.cancelled() => return Err(StoreError::Stopped.into()),
                lost = leadership.wait_for(|leadership| wants_leader && leadership.leader == 0) => {
                    return Err(if lost.is_ok() { StoreError::NoLeader } else { StoreError::Stopped }.into());
                }
                asked = requests.message() => asked?,
            };
            let Some(asked) = asked else { return Ok(None) };
            let answer = api.keep_alive(asked.id).await?;
            Ok::<_, Status>(Some((answer, (api, requests))))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        self.admit_voter(&request)?;
        Ok(Response::new(self.time_to_live(request.into_inner()).await?))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.admit_voter(&request)?;
        self.barrier().await?;
        let leases = self.shared.machine().leases().map(|(id, _)| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.header(), leases }))
    }
}
