//! Bytes that are passed on as they came: what was sent as a TLS record of its own stays one.
//!
//! Clients of WebSockets count on it. Python's waits for its socket to be readable, which says nothing of a message that the TLS
//! library has already read along with the one before; it would wait for the end of a session until the connection is cut off.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The most that a TLS record has in it.
const RECORD_MAX: usize = 16 << 10;

/// A TLS connection of which each read takes at most one record.
pub struct Records<S>(pub S);

impl<S: AsyncBufRead + Unpin> AsyncRead for Records<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let record = ready!(Pin::new(&mut self.0).poll_fill_buf(context))?;
        let taken = record.len().min(into.remaining());
        into.put_slice(&record[..taken]);
        Pin::new(&mut self.0).consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Records<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Copies to the end, each piece by a write of its own. (`tokio::io::copy` gathers them.)
///
/// # Errors
/// Either end fails.
pub async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut piece = vec![0; RECORD_MAX];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&piece[..length]).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_daemon::tls::{self, Identity};
    use rustls::pki_types::ServerName;
    use tokio_rustls::TlsConnector;

    /// What each write brought.
    #[derive(Default)]
    struct Pieces(Vec<Vec<u8>>);

    impl AsyncWrite for Pieces {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn messages_that_wait_together_are_passed_on_one_by_one() {
        let folder = tempfile::tempdir().expect("folder");
        crate::outbound::fake::certificates(folder.path());
        let file = |name: &str| folder.path().join(name);
        let identity = Identity { cert: file("cert.pem"), key: file("key.pem") };
        let acceptor = tls::server(&identity, None, &[]).expect("tls");
        let config = tls::client(&file("ca.pem"), None, &[]).expect("tls");
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let connector = TlsConnector::from(config);
        let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        let (client, mut server) = (client.expect("connects"), server.expect("accepts"));
        let messages = [&b"how it ended"[..], b"and that it did", b""];
        for message in messages {
            server.write_all(message).await.expect("written");
            server.flush().await.expect("written");
        }
        server.shutdown().await.expect("ends");
        let mut pieces = Pieces::default();
        pass_on(&mut Records(client), &mut pieces).await.expect("passed on");
        assert_eq!(pieces.0, messages[..2]);
    }
}
