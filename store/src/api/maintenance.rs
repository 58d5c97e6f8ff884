//! `etcdserverpb.Maintenance`.

use super::context::mismatch;
use super::{Api, CLUSTER_VERSION, VERSION, check, snapshot};
use crate::command::{Op, Outcome};
use crate::error::StoreError;
use coracle_etcd::proto::alarm_request::AlarmAction;
use coracle_etcd::proto::downgrade_request::DowngradeAction;
use coracle_etcd::proto::maintenance_server::Maintenance;
use coracle_etcd::proto::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use futures::Stream;
use std::pin::Pin;
use tonic::{Request, Response, Status};

type Blobs = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

impl Api {
    /// Alarms as `Status` tells them.
    fn alarm_errors(&self) -> Vec<String> {
        let machine = self.shared.machine();
        let alarms = machine.alarms().map(|(member, alarm)| {
            let name = AlarmType::try_from(alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name());
            format!("memberID:{member} alarm:{name} ")
        });
        alarms.collect()
    }
}

#[tonic::async_trait]
impl Maintenance for Api {
    type SnapshotStream = Blobs;

    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        if request.action() == AlarmAction::Get {
            self.barrier().await?;
            let wanted = |alarm: i32| request.alarm() == AlarmType::None || alarm == request.alarm;
            let machine = self.shared.machine();
            let alarms = machine.alarms().filter(|(_, alarm)| wanted(*alarm));
            let alarms = alarms.map(|(member_id, alarm)| AlarmMember { member_id, alarm }).collect();
            drop(machine);
            return Ok(Response::new(AlarmResponse { header: self.header(), alarms }));
        }
        let Outcome::Alarm(mut answer) = self.commit(Op::Alarm(request)).await? else {
            return Err(mismatch());
        };
        answer.header = self.complete(answer.header);
        Ok(Response::new(answer))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.admit(&request)?;
        let consensus = self.consensus.clone();
        // It asks the disk how large the files are.
        let status = tokio::task::spawn_blocking(move || consensus.status())
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let in_use = i64::try_from(self.shared.machine().size()).unwrap_or(i64::MAX);
        let mut errors = status.errors;
        errors.extend(self.alarm_errors());
        Ok(Response::new(StatusResponse {
            header: self.header(),
            version: VERSION.to_owned(),
            db_size: i64::try_from(status.disk_bytes).unwrap_or(i64::MAX).max(in_use),
            leader: status.leader,
            raft_index: status.index,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors,
            db_size_in_use: in_use,
            is_learner: status.is_learner,
        }))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.admit(&request)?;
        self.consensus.defragment().await?;
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.admit(&request)?;
        let view = self.shared.view();
        let hash = tokio::task::spawn_blocking(move || view.hash(0)).await;
        let hash = hash.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(HashResponse { header: self.header(), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        self.admit(&request)?;
        let asked = request.into_inner().revision;
        let view = self.shared.view();
        if asked > view.revision() {
            return Err(StoreError::FutureRevision.into());
        }
        if asked > 0 && asked < view.compacted() {
            return Err(StoreError::Compacted.into());
        }
        let hash_revision = if asked == 0 { view.revision() } else { asked };
        // etcd says -1 of a store that was never compacted.
        let compact_revision = if view.compacted() == 0 { -1 } else { view.compacted() };
        let header = self.header_at(view.revision());
        let hash = tokio::task::spawn_blocking(move || view.hash(hash_revision)).await;
        let hash = hash.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(HashKvResponse { header, hash, compact_revision, hash_revision }))
    }

    async fn snapshot(&self, request: Request<SnapshotRequest>) -> Result<Response<Blobs>, Status> {
        self.admit(&request)?;
        Ok(Response::new(Box::pin(snapshot::stream(self))))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.admit_voter(&request)?;
        let leadership = self.leadership();
        if !leadership.is_me {
            return Err(StoreError::NotLeader.into());
        }
        let target = request.into_inner().target_id;
        let can_lead =
            self.consensus.members().iter().any(|member| member.id == target && !member.is_learner);
        if !can_lead {
            return Err(StoreError::BadLeaderTransferee.into());
        }
        if target != self.member_id() {
            self.consensus.transfer_leader(target).await?;
        }
        Ok(Response::new(MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        if request.action() == DowngradeAction::Cancel {
            return Err(Status::failed_precondition("etcdserver: no inflight downgrade job"));
        }
        check::downgrade(&request.version)?;
        if request.action() == DowngradeAction::Enable {
            return Err(Status::unimplemented("etcdserver: members of this store have one version"));
        }
        Ok(Response::new(DowngradeResponse { header: self.header(), version: CLUSTER_VERSION.to_owned() }))
    }
}
