//! `etcdserverpb.Watch`: each stream is served when its client can take an answer: no task of its own and no queue between.

use super::Api;
use super::context::wants_leader;
use super::session::Session;
use super::wire::WatchResponse;
use super::wire::watch_server::Watch;
use crate::error::StoreError;
use coracle_daemon::clock::{self, Instant};
use coracle_etcd::proto::WatchRequest;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

#[tonic::async_trait]
impl Watch for Api {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.admit_voter(&request)?;
        let ended = ended(self.clone(), wants_leader(request.metadata())).boxed();
        let progress_at = Instant::now() + self.limits.progress_interval;
        let (session, requests) = (Session::new(self.clone()), request.into_inner());
        let served = Box::new(Served { api: self.clone(), session, requests, progress_at, ended });
        let answers = futures::stream::try_unfold(served, |mut served| async move {
            Ok(served.next().await?.map(|answer| (answer, served)))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Returns why a stream must end although its client goes on.
async fn ended(api: Api, wants_leader: bool) -> StoreError {
    let leader_lost = async {
        let mut leadership = api.watch_leadership();
        if !wants_leader || leadership.wait_for(|leadership| leadership.leader == 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = api.stop.cancelled() => StoreError::Stopped,
        () = leader_lost => StoreError::NoLeader,
    }
}

/// A stream.
struct Served {
    api: Api,
    session: Session,
    requests: Streaming<WatchRequest>,
    progress_at: Instant,
    ended: BoxFuture<'static, StoreError>,
}

impl Served {
    /// The next answer; `None` when the client has ended the stream.
    async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        loop {
            if let Some(answer) = self.session.next_answer() {
                return Ok(Some(answer));
            }
            // A busy stream still takes requests, one after each watcher's turn.
            let request = if self.session.read_some() {
                if let Some(error) = (&mut self.ended).now_or_never() {
                    return Err(error.into());
                }
                match self.requests.message().now_or_never() {
                    Some(request) => request?,
                    None => continue,
                }
            } else {
                tokio::select! {
                    request = self.requests.message() => request?,
                    () = self.session.woken() => continue,
                    () = clock::sleep_until(self.progress_at) => {
                        self.session.notify_progress();
                        self.progress_at = Instant::now() + self.api.limits.progress_interval;
                        continue;
                    }
                    error = &mut self.ended => return Err(error.into()),
                }
            };
            let Some(request) = request else { return Ok(None) };
            self.session.take(request);
        }
    }
}
