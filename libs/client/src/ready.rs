//! Waiting for a server that has just started: nothing is sent to it before it says that it is ready.
//!
//!     first request ──► GET /readyz ──500, 403──► again, a little later
//!                            └──── any other answer ──► the request, and from then on every request at once
//!
//! Until then the roles of a new cluster may be missing, and everything would be forbidden, `/readyz` too. Where that stays
//! forbidden, the request is sent all the same. A server that cannot be reached fails the request as ever, so callers keep their
//! own ways of trying again.

use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceExt};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a server may forbid the question because it still makes its roles; as long as Kubernetes' components wait for theirs.
const FORBIDDEN_MAX: Duration = Duration::from_secs(10);

/// A service whose first request waits for `/readyz`. Clones share what they know.
#[derive(Clone)]
pub struct WhenReady<S> {
    inner: S,
    ready: Arc<OnceCell<()>>,
}

impl<S> WhenReady<S> {
    /// Over a service that nothing has been sent to.
    pub fn new(inner: S) -> Self {
        Self { inner, ready: Arc::default() }
    }
}

impl<S, B> Service<Request<Body>> for WhenReady<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: Send,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.ready.initialized() {
            return Box::pin(self.inner.call(request));
        }
        let (ready, inner, asking) = (self.ready.clone(), self.inner.clone(), self.inner.clone());
        Box::pin(async move {
            ready.get_or_try_init(move || wait(asking)).await?;
            inner.oneshot(request).await
        })
    }
}

async fn wait<S, B>(service: S) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone,
{
    let (mut backoff, began) = (Backoff::new(FIRST_PAUSE, PAUSE_MAX), Instant::now());
    loop {
        let question = Request::get("/readyz").body(Body::empty())?;
        let status = service.clone().oneshot(question).await?.status();
        let forbidden = status == StatusCode::FORBIDDEN && began.elapsed() < FORBIDDEN_MAX;
        if !status.is_server_error() && !forbidden {
            return Ok(());
        }
        clock::sleep(backoff.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tower::service_fn;

    /// A server that says these one after the other, and the last again and again.
    fn saying(
        statuses: &'static [u16],
        asked: &Arc<AtomicUsize>,
    ) -> impl Service<Request<Body>, Response = Response<()>, Error = BoxError> + Clone {
        let asked = asked.clone();
        service_fn(move |_: Request<Body>| {
            let status = statuses[asked.fetch_add(1, Ordering::Relaxed).min(statuses.len() - 1)];
            let answer = Response::builder().status(status).body(());
            async move { answer.map_err(BoxError::from) }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_still_makes_its_roles_is_waited_for() {
        for statuses in [&[500, 403, 500, 200][..], &[403, 403, 403, 200], &[200], &[500, 401], &[404]] {
            let asked = Arc::default();
            wait(saying(statuses, &asked)).await.expect("ready");
            assert_eq!(asked.load(Ordering::Relaxed), statuses.len(), "{statuses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_never_ask_goes_on_after_a_while() {
        let began = Instant::now();
        wait(saying(&[403], &Arc::default())).await.expect("goes on");
        assert!(
            (FORBIDDEN_MAX..FORBIDDEN_MAX + PAUSE_MAX * 2).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
    }
}
