//! Waiting for a server that has just started: nothing is sent to it before it says that it is ready.
//!
//!     first request ──► GET /readyz ──500──► again, a little later
//!                            └──── any other answer ──► the request, and from then on every request at once
//!
//! Until then the roles of a new cluster may be missing, and everything would be forbidden. A server that cannot be reached
//! fails the request as ever, so callers keep their own ways of trying again.

use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OnceCell;
use tower::{BoxError, Service, ServiceExt};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

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
    let mut backoff = Backoff::new(FIRST_PAUSE, PAUSE_MAX);
    loop {
        let question = Request::get("/readyz").body(Body::empty())?;
        if !service.clone().oneshot(question).await?.status().is_server_error() {
            return Ok(());
        }
        clock::sleep(backoff.next_delay()).await;
    }
}
