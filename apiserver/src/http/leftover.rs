//! What a handler leaves of a request's body: it is read and thrown away before the answer is sent.
//!
//! A socket that is closed with something unread in it resets its connection, and a client that is still sending, or has
//! not read its answer, loses that. Of HTTP/2, streams are closed one by one.

use axum::body::Body;
use bytes::Bytes;
use coracle_daemon::clock;
use http::header::{EXPECT, UPGRADE};
use http::{Request, Version};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;

/// More than any handler reads.
const MOST: usize = 4 << 20;
/// How long it may take to come.
const TIME_MAX: Duration = Duration::from_millis(500);

/// A body that comes back if nobody reads it to its end.
struct Lent<B: http_body::Body> {
    body: Option<B>,
    back: Option<oneshot::Sender<B>>,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Lent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl<B: http_body::Body> Drop for Lent<B> {
    fn drop(&mut self) {
        let left = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(back)) = (left, self.back.take()) {
            // Its request may have been given up.
            let _ = back.send(body);
        }
    }
}

/// A request as handlers take it, and where what they leave of its body comes back.
pub fn lend<B>(request: Request<B>) -> (Request<Body>, Option<oneshot::Receiver<B>>)
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let headers = request.headers();
    // Who waits to be asked for a body is not to be asked any more; and what becomes another protocol has none.
    let waits = headers.contains_key(EXPECT) || headers.contains_key(UPGRADE);
    if waits || request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return (request.map(Body::new), None);
    }
    let (back, left) = oneshot::channel();
    (request.map(|body| Body::new(Lent { body: Some(body), back: Some(back) })), Some(left))
}

/// Reads what was left, as far as it comes soon.
pub async fn settle<B: http_body::Body<Data = Bytes> + Unpin>(left: Option<oneshot::Receiver<B>>) {
    // What is passed on while the answer comes is still lent.
    let Some(Ok(mut body)) = left.map(|mut left| left.try_recv()) else { return };
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await
            && read < MOST
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // What does not come is left.
    let _ = clock::timeout(TIME_MAX, reading).await;
}
