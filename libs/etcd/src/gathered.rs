//! Connections that send small pieces together.
//!
//! HTTP/2 hands over an answer as what precedes its message, the message, and what follows it. To a connection that takes
//! vectors it writes a message of more than 256 bytes before it has even made what follows: a packet of ten bytes more for each
//! call. One that takes none is given whatever has up to 1 KiB as one piece, and pieces that are small are sent at the flush.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes of pieces that wait for each other.
const TOGETHER: usize = 4 << 10;

/// A connection; see the module.
#[derive(Debug)]
pub struct Gathered<S> {
    inner: S,
    waiting: Vec<u8>,
}

impl<S> Gathered<S> {
    /// Around a connection on which nothing was sent.
    pub fn new(inner: S) -> Self {
        Self { inner, waiting: Vec::new() }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Sends what waits, and `bytes` behind it; returns how many of these were taken, at least one of some.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let inner = Pin::new(&mut self.inner);
            if self.waiting.is_empty() {
                return if bytes.is_empty() { Poll::Ready(Ok(0)) } else { inner.poll_write(context, bytes) };
            }
            let parts = [IoSlice::new(&self.waiting), IoSlice::new(bytes)];
            let sent = ready!(inner.poll_write_vectored(context, &parts))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if sent < self.waiting.len() {
                self.waiting.drain(..sent);
                continue;
            }
            let taken = sent - self.waiting.len();
            // Most connections are idle most of the time: they keep no buffer.
            self.waiting = Vec::new();
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() + bytes.len() > TOGETHER {
            return self.poll_send(context, bytes);
        }
        self.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context, &[]))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: Connected> Connected for Gathered<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Takes at most so many bytes at once, and only every other time; keeps what each write brought.
    #[derive(Debug)]
    struct Narrow {
        most: usize,
        busy: bool,
        writes: Vec<Vec<u8>>,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.busy = !self.busy;
            if self.busy {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let taken = bytes.len().min(self.most);
            self.writes.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            self.poll_write(context, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_however_little_is_taken_at_once() {
        for most in [1, 7, TOGETHER, 1 << 20] {
            let narrow = Narrow { most, busy: false, writes: Vec::new() };
            let mut connection = Gathered::new(narrow);
            let mut sent = Vec::new();
            for (number, length) in [1, 600, 10, 5000, 3, 4000, 200, 0, 9000].into_iter().enumerate() {
                let piece = vec![u8::try_from(number).unwrap(); length];
                connection.write_all(&piece).await.unwrap();
                sent.extend(piece);
            }
            connection.flush().await.unwrap();
            assert!(connection.inner.writes.concat() == sent, "at most {most} at once");
        }
    }

    #[tokio::test]
    async fn small_pieces_are_one_write_and_only_at_the_flush() {
        let mut connection = Gathered::new(Narrow { most: 1 << 20, busy: false, writes: Vec::new() });
        for piece in [&b"what precedes"[..], b"a message", b"what follows"] {
            connection.write_all(piece).await.unwrap();
        }
        assert!(connection.inner.writes.is_empty());
        connection.flush().await.unwrap();
        assert_eq!(connection.inner.writes, [b"what precedesa messagewhat follows"]);
    }

    #[tokio::test]
    async fn what_waits_is_sent_before_the_end() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut connection = Gathered::new(near);
        connection.write_all(b"the last words").await.unwrap();
        connection.shutdown().await.unwrap();
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "the last words");
    }
}
