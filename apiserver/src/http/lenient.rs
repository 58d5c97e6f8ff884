//! HTTP/1 request lines as Go's server takes them: characters that hyper refuses in a target (`labelSelector=n>2`) are
//! percent-encoded before it sees them.
//!
//! In: the bytes of a connection. Out: the same bytes, request lines apart. The framing of requests is followed only so far
//! that bodies stay what they are; where a body has no known length, or the connection is upgraded, nothing is touched again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much of a header line is looked at: the names and values that matter here are short.
const LINE_MAX: usize = 64;
const CHUNK: usize = 8 << 10;

#[derive(Debug, PartialEq, Eq)]
enum At {
    /// In a request line.
    Request,
    /// In the headers of a request.
    Headers,
    /// This much of a body is to come.
    Body(u64),
    /// In what is not looked at.
    Rest,
}

/// Where in its requests a connection is.
struct Lines {
    at: At,
    line: Vec<u8>,
    length: u64,
    /// A body without a length, or another protocol, follows.
    open_ended: bool,
}

impl Lines {
    /// What goes on for `bytes`.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let [byte, tail @ ..] = rest {
            match &mut self.at {
                At::Rest => return out.extend_from_slice(rest),
                At::Body(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    out.extend_from_slice(&rest[..take]);
                    *left -= take as u64;
                    rest = &rest[take..];
                    if *left == 0 {
                        self.at = At::Request;
                    }
                    continue;
                }
                At::Request => self.request(*byte, out),
                At::Headers => self.header(*byte, out),
            }
            rest = tail;
        }
    }

    fn request(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b'\n' => {
                out.push(byte);
                let begun = !matches!(self.line.as_slice(), b"" | b"\r");
                // HTTP/2 begins like this.
                self.at = match (begun, self.line.starts_with(b"PRI * HTTP/2")) {
                    (_, true) => At::Rest,
                    (true, _) => At::Headers,
                    (false, _) => At::Request,
                };
                self.line.clear();
                return;
            }
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            _ => out.push(byte),
        }
        self.keep(byte);
    }

    fn header(&mut self, byte: u8, out: &mut Vec<u8>) {
        out.push(byte);
        if byte != b'\n' {
            return self.keep(byte);
        }
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line).trim().to_ascii_lowercase();
        match text.split_once(':') {
            Some(("content-length", value)) => match value.trim().parse() {
                Ok(length) => self.length = length,
                Err(_) => self.open_ended = true,
            },
            Some(("transfer-encoding" | "upgrade", _)) => self.open_ended = true,
            _ => {}
        }
        if text.is_empty() {
            let length = std::mem::take(&mut self.length);
            self.at = match (self.open_ended, length) {
                (true, _) => At::Rest,
                (false, 0) => At::Request,
                (false, length) => At::Body(length),
            };
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.line.len() < LINE_MAX {
            self.line.push(byte);
        }
    }
}

/// A connection whose request lines are made to fit.
pub struct Lenient<S> {
    stream: S,
    lines: Lines,
    pending: Vec<u8>,
    taken: usize,
}

impl<S> Lenient<S> {
    /// Over a connection; one that speaks HTTP/2 is left as it is.
    pub fn new(stream: S, http2: bool) -> Self {
        let at = if http2 { At::Rest } else { At::Request };
        let lines = Lines { at, line: Vec::new(), length: 0, open_ended: false };
        Self { stream, lines, pending: Vec::new(), taken: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.pending.len() {
            if this.lines.at == At::Rest {
                this.pending = Vec::new();
                this.taken = 0;
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            this.pending.clear();
            this.taken = 0;
            this.lines.pass(read.filled(), &mut this.pending);
        }
        let ready = &this.pending[this.taken..];
        let take = ready.len().min(buf.remaining());
        buf.put_slice(&ready[..take]);
        this.taken += take;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn passed(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        Lenient::new(bytes, false).read_to_end(&mut out).await.expect("read");
        String::from_utf8(out).expect("text")
    }

    #[tokio::test]
    async fn only_request_lines_are_encoded() {
        let rows = [
            (
                "GET /a?l=n>2,m<3 HTTP/1.1\r\nX: <a>\r\n\r\n",
                "GET /a?l=n%3E2,m%3C3 HTTP/1.1\r\nX: <a>\r\n\r\n",
            ),
            (
                "POST /a|b HTTP/1.1\r\ncontent-LENGTH: 4\r\n\r\n<>\n<GET /> HTTP/1.1\r\n\r\n",
                "POST /a%7Cb HTTP/1.1\r\ncontent-LENGTH: 4\r\n\r\n<>\n<GET /%3E HTTP/1.1\r\n\r\n",
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n>\r\nGET /> HTTP/1.1\r\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n>\r\nGET /> HTTP/1.1\r\n",
            ),
            ("\r\nGET /ü HTTP/1.1\r\n\r\n", "\r\nGET /%C3%BC HTTP/1.1\r\n\r\n"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n<>", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n<>"),
        ];
        for (sent, want) in rows {
            assert_eq!(passed(sent.as_bytes()).await, want);
        }
    }
}
