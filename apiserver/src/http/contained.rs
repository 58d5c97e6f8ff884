//! A request that finds a bug: it is answered with 500 and told in the log, and the others go on.
//!
//! What is guaranteed stands in `libs/daemon/src/panics.rs`: a panic under a lock on what requests share ends the process;
//! seats, turns, counts and reservations are given back by whoever is dropped; caches are changed by tasks alone, whose
//! panics end the process.

use super::respond;
use axum::body::Body;
use bytes::Bytes;
use coracle_daemon::panics::{Panicked, caught, contained};
use futures::FutureExt;
use http::{Method, Response, Uri};
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Which request it was, for the log.
pub struct Asked<'a> {
    pub method: Method,
    pub uri: Uri,
    pub id: &'a str,
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.method, self.uri, self.id)
    }
}

/// Answers a request by `work`.
pub fn answer(
    asked: Asked<'_>,
    work: impl Future<Output = Response<Body>>,
) -> impl Future<Output = Response<Body>> {
    contained(work).map(move |answered| match answered {
        Ok(response) if http_body::Body::size_hint(response.body()).exact().is_some() => response,
        Ok(response) => {
            let asked = asked.to_string();
            response.map(|body| Body::new(Streamed { body, asked, over: false }))
        }
        Err(panicked) => {
            tell(&asked.to_string(), &panicked);
            respond::error(500, "This request caused apiserver to panic. Look in the logs for details.\n")
        }
    })
}

fn tell(what: &str, panicked: &Panicked) {
    tracing::error!(what, message = panicked.message, trace = panicked.trace, "the apiserver panicked");
}

/// Carries a connection to its end.
pub fn connection(work: impl Future<Output = ()>) -> impl Future<Output = ()> {
    contained(work).map(|ended| {
        if let Err(panicked) = ended {
            tell("a connection", &panicked);
        }
    })
}

/// Starts what a connection of many streams runs beside itself.
#[derive(Clone, Default)]
pub struct Streams(TokioExecutor);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, work: F) {
        self.0.execute(connection(work));
    }
}

/// A body that is made while it is sent. After a panic it breaks off, as no status can be told any more.
struct Streamed {
    body: Body,
    asked: String,
    over: bool,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let body = &mut self.body;
        caught(|| Pin::new(body).poll_frame(context)).unwrap_or_else(|panicked| {
            self.over = true;
            self.body = Body::empty();
            tell(&self.asked, &panicked);
            Poll::Ready(Some(Err(axum::Error::new(panicked))))
        })
    }

    fn is_end_stream(&self) -> bool {
        !self.over && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_body_that_panics_breaks_off_after_what_was_sent() {
        let parts = futures::stream::iter(0..3).map(|part| {
            assert!(part < 2, "no third part");
            Ok::<_, std::io::Error>(Bytes::from_static(b"part"))
        });
        let asked = Asked { method: Method::GET, uri: Uri::default(), id: "1" };
        let response = answer(asked, async { Response::new(Body::from_stream(parts)) }).await;
        let mut body = response.into_body();
        for _ in 0..2 {
            let frame = body.frame().await.expect("a frame").expect("no error");
            assert_eq!(frame.into_data().expect("data"), "part");
        }
        assert!(body.frame().await.expect("an end").is_err());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn what_a_connection_does_may_panic() {
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        Streams::default().execute(async move {
            let _ended = ended;
            panic!("as this test wants");
        });
        end.await.expect_err("dropped");
        connection(async { panic!("as this test wants") }).await;
    }
}
