//! A client that costs next to nothing, as it shares the machine with what it measures: HTTP/1.1 over TLS, one request at a
//! time, answers counted and thrown away.

use anyhow::{Context, Result};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HEAD_MAX: usize = 16 << 10;

/// A connection.
pub struct Wire {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer, of which only this is looked at.
pub struct Answer {
    /// The status.
    pub code: u16,
    /// From the request until the first byte.
    pub first: Duration,
    /// From the request until the last byte.
    pub whole: Duration,
}

/// The bytes of a request.
#[must_use]
pub fn request(method: &str, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\ncontent-length: {}\r\n",
        body.len()
    )
    .into_bytes();
    if !content_type.is_empty() {
        bytes.extend_from_slice(format!("content-type: {content_type}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// What the head of an answer says: its status, and the length of its body unless that comes in chunks.
fn head(bytes: &[u8]) -> Option<(u16, Option<usize>)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let code = text.get(9..12)?.parse().ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    Some((code, length))
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens, or they do not trust each other.
    pub async fn connect(port: u16, tls: &Arc<ClientConfig>, buffer: usize) -> Result<Self> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect(at).await.with_context(|| format!("cannot connect to {at}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.context("no TLS")?;
        Ok(Self { stream, buffer: vec![0; buffer] })
    }

    /// Sends a request and reads the head of its answer: the status, the body's length, what of it came along, and when.
    async fn begin(&mut self, request: &[u8]) -> Result<(u16, Option<usize>, Vec<u8>, Instant)> {
        self.stream.write_all(request).await.context("cannot send")?;
        // What the socket did not take at once waits for this.
        self.stream.flush().await.context("cannot send")?;
        let mut got = Vec::new();
        let mut first = None;
        loop {
            let read = self.stream.read(&mut self.buffer).await.context("cannot receive")?;
            anyhow::ensure!(read > 0 && got.len() < HEAD_MAX + self.buffer.len(), "no answer");
            let first = *first.get_or_insert_with(Instant::now);
            got.extend_from_slice(&self.buffer[..read]);
            if let Some(at) = got.windows(4).position(|window| window == b"\r\n\r\n") {
                let (code, length) = head(&got[..at]).context("no HTTP")?;
                return Ok((code, length, got.split_off(at + 4), first));
            }
        }
    }

    /// Asks, and reads the answer to its end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        let began = Instant::now();
        let (code, length, rest, first) = self.begin(request).await?;
        let mut left = length.context("an answer without a length")?.saturating_sub(rest.len());
        while left > 0 {
            let read = self.stream.read(&mut self.buffer).await.context("cannot receive")?;
            anyhow::ensure!(read > 0, "an answer broke off");
            left = left.saturating_sub(read);
        }
        Ok(Answer { code, first: first - began, whole: began.elapsed() })
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// It is refused.
    pub async fn watch(&mut self, path: &str) -> Result<()> {
        let (code, _, rest, _) = self.begin(&request("GET", path, "", b"")).await?;
        anyhow::ensure!(code == 200 && rest.is_empty(), "the watch was answered with {code}");
        Ok(())
    }

    /// Events of a watch until there are `wanted`. An event ends with `}` and a line feed, and nothing else in the stream does.
    ///
    /// # Errors
    /// The watch ended before.
    pub async fn events(&mut self, wanted: u64) -> Result<u64> {
        let (mut told, mut brace) = (0, false);
        while told < wanted {
            let read = self.stream.read(&mut self.buffer).await.context("cannot receive")?;
            anyhow::ensure!(read > 0, "a watch ended after {told} of {wanted} events");
            told += ends(&self.buffer[..read], &mut brace);
        }
        Ok(told)
    }
}

/// Events that end in `bytes`; `brace` tells whether what came before ended with one.
fn ends(bytes: &[u8], brace: &mut bool) -> u64 {
    let mut count = 0;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let at = from + at;
        let closes = if at == 0 { *brace } else { bytes[at - 1] == b'}' };
        count += u64::from(closes);
        from = at + 1;
    }
    *brace = bytes.last() == Some(&b'}');
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_wherever_they_are_cut() {
        let stream = b"1a\r\n{\"a\":{}}\n{}\n\r\n3\r\n{}\n\r\n";
        for cut in 0..stream.len() {
            let mut brace = false;
            let told = ends(&stream[..cut], &mut brace) + ends(&stream[cut..], &mut brace);
            assert_eq!(told, 3, "cut at {cut}");
        }
    }

    #[test]
    fn a_head_tells_status_and_length() {
        assert_eq!(head(b"HTTP/1.1 201 Created\r\ncontent-length: 12\r\nx: y"), Some((201, Some(12))));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"), Some((200, None)));
        assert_eq!(head(b"?"), None);
    }
}
