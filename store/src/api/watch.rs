//! `etcdserverpb.Watch`: one task for each stream, which takes its requests and sends what its watchers read.

use super::Api;
use super::context::wants_leader;
use super::session::Session;
use super::wire::WatchResponse;
use super::wire::watch_server::Watch;
use crate::error::StoreError;
use coracle_daemon::clock::{self, Instant};
use coracle_etcd::proto::WatchRequest;
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Answers of a stream that wait for its client; then the stream's watchers wait, and nobody else.
const WAITING_MAX: usize = 16;

#[tonic::async_trait]
impl Watch for Api {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.admit_voter(&request)?;
        let wants_leader = wants_leader(request.metadata());
        let requests = request.into_inner();
        let (out, answers) = mpsc::channel(WAITING_MAX);
        let (api, failed) = (self.clone(), out.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with its stream, and at stop")]
        tokio::spawn(async move {
            let stop = api.stop.clone();
            let stopped = tokio::select! {
                ended = serve(&api, requests, out) => ended,
                () = stop.cancelled() => Err(StoreError::Stopped.into()),
                () = leader_lost(&api, wants_leader) => Err(StoreError::NoLeader.into()),
            };
            if let Err(status) = stopped {
                // A client that is gone or does not read needs no reason.
                let _ = failed.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

async fn leader_lost(api: &Api, wanted: bool) {
    let mut leadership = api.watch_leadership();
    if !wanted || leadership.wait_for(|leadership| leadership.leader == 0).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Serves one stream until its client ends it.
async fn serve(
    api: &Api,
    mut requests: Streaming<WatchRequest>,
    out: mpsc::Sender<Result<WatchResponse, Status>>,
) -> Result<(), Status> {
    let mut session = Session::new(api.clone(), out);
    let mut progress_at = Instant::now() + api.limits.progress_interval;
    loop {
        // A busy stream still takes requests, one after each watcher's turn.
        let request = if session.read_some().await? {
            match requests.message().now_or_never() {
                Some(request) => request?,
                None => continue,
            }
        } else {
            tokio::select! {
                request = requests.message() => request?,
                () = session.woken() => continue,
                () = clock::sleep_until(progress_at) => {
                    session.notify_progress().await?;
                    progress_at = Instant::now() + api.limits.progress_interval;
                    continue;
                }
                () = session.closed() => return Ok(()),
            }
        };
        let Some(request) = request else { return Ok(()) };
        session.take(request).await?;
    }
}
