//! `v3electionpb.Election`: who is first in the queue of a name leads, and its key's value is what it proclaims.

use super::Api;
use crate::machine::KeyRange;
use bytes::Bytes;
use coracle_etcd::proto::request_op::Request as Change;
use coracle_etcd::proto::v3electionpb::election_server::Election;
use coracle_etcd::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use coracle_etcd::proto::{DeleteRangeRequest, PutRequest, ResponseHeader};
use futures::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use tonic::{Request, Response, Status};

type Leaders = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

fn missing_leader() -> Status {
    Status::invalid_argument("\"leader\" field must be provided")
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

impl Api {
    async fn proclaim(&self, leader: LeaderKey, value: Bytes) -> Result<Option<ResponseHeader>, Status> {
        let LeaderKey { key, rev, lease, .. } = leader;
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        match self.if_created_by(&key, rev, Change::RequestPut(put)).await? {
            (true, header) => Ok(header),
            (false, _) => Err(not_leader()),
        }
    }
}

/// What an observer of an election is to be told.
struct Observer {
    api: Api,
    name: Bytes,
    told: VecDeque<LeaderResponse>,
    /// The leader's key that is watched, and from which revision on; empty while nobody leads.
    leader: Option<(Bytes, i64)>,
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Ok(told);
            }
            match self.leader.take() {
                None => self.find().await?,
                Some((key, from)) => self.follow(key, from).await?,
            }
        }
    }

    /// Finds who leads, or waits until somebody may.
    async fn find(&mut self) -> Result<(), Status> {
        let (leader, header) = self.api.first(&self.name).await?;
        let next = header.map_or(0, |header| header.revision) + 1;
        if let Some(kv) = leader {
            self.leader = Some((kv.key.clone(), next));
            self.told.push_back(LeaderResponse { header, kv: Some(kv) });
        } else {
            self.api.watch_queue(&self.name, next).next().await?;
        }
        Ok(())
    }

    /// Takes what the leader proclaims, until its key is gone.
    async fn follow(&mut self, key: Bytes, from: i64) -> Result<(), Status> {
        let range = KeyRange { from: key.clone(), end: Bytes::new() };
        let states = super::queue::Watched::new(&self.api, range, from).next().await?;
        let mut next = from;
        for (kv, gone) in states {
            if gone {
                return Ok(());
            }
            next = kv.mod_revision + 1;
            self.told.push_back(LeaderResponse { header: self.api.header_at(kv.mod_revision), kv: Some(kv) });
        }
        self.leader = Some((key, next));
        Ok(())
    }
}

#[tonic::async_trait]
impl Election for Api {
    type ObserveStream = Leaders;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        self.admit_voter(&request)?;
        let CampaignRequest { name, lease, value } = request.into_inner();
        let place = self.stand(&name, lease, value.clone()).await?;
        let leader =
            LeaderKey { name: name.clone(), key: place.key.clone(), rev: place.created, lease: place.lease };
        if place.value != value {
            self.proclaim(leader.clone(), value).await?;
        }
        self.wait_turn(&name, &place).await?;
        Ok(Response::new(CampaignResponse { header: place.header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        self.admit_voter(&request)?;
        let ProclaimRequest { leader, value } = request.into_inner();
        let header = Api::proclaim(self, leader.ok_or_else(missing_leader)?, value).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        self.admit_voter(&request)?;
        match self.first(&request.get_ref().name).await? {
            (None, _) => Err(Status::unknown("election: no leader")),
            (kv, header) => Ok(Response::new(LeaderResponse { header, kv })),
        }
    }

    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Leaders>, Status> {
        self.admit_voter(&request)?;
        let name = request.into_inner().name;
        let observer = Observer { api: self.clone(), name, told: VecDeque::new(), leader: None };
        let leaders = futures::stream::try_unfold(observer, |mut observer| async move {
            let told = observer.next().await?;
            Ok::<_, Status>(Some((told, observer)))
        });
        Ok(Response::new(Box::pin(leaders)))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        self.admit_voter(&request)?;
        let leader = request.into_inner().leader.ok_or_else(missing_leader)?;
        let delete = DeleteRangeRequest { key: leader.key.clone(), ..DeleteRangeRequest::default() };
        // Who leads no more has nothing to resign.
        let (_, header) =
            self.if_created_by(&leader.key, leader.rev, Change::RequestDeleteRange(delete)).await?;
        Ok(Response::new(ResignResponse { header }))
    }
}
