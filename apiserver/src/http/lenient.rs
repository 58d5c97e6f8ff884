//! HTTP/1 request lines as Go's server takes them: characters that hyper refuses in a target (`labelSelector=n>2`) are
//! percent-encoded before it sees them.
//!
//! In: the bytes of a connection. Out: the same bytes, request lines apart. The framing of requests is followed only so far
//! that bodies stay what they are; where a body has no known length, or the connection is upgraded, nothing is touched again.

use std::io;
use std::mem::MaybeUninit;
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
        while !rest.is_empty() {
            let taken = match &mut self.at {
                At::Rest => return out.extend_from_slice(rest),
                At::Body(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at = At::Request;
                    }
                    out.extend_from_slice(&rest[..taken]);
                    taken
                }
                At::Request | At::Headers => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let taken = end.map_or(rest.len(), |end| end + 1);
                    self.line(&rest[..taken], end.is_some(), out);
                    taken
                }
            };
            rest = &rest[taken..];
        }
    }

    /// Of a line, what came of it together, and whether that is its end.
    fn line(&mut self, part: &[u8], ends: bool, out: &mut Vec<u8>) {
        let kept = part.len().min(LINE_MAX - self.line.len());
        self.line.extend_from_slice(&part[..kept]);
        let is_header = self.at == At::Headers;
        if is_header || !part.iter().any(is_refused) {
            out.extend_from_slice(part);
        } else {
            for byte in part {
                if is_refused(byte) {
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                } else {
                    out.push(*byte);
                }
            }
        }
        if ends {
            self.at = if is_header { self.after_header() } else { self.after_request() };
            self.line.clear();
        }
    }

    fn after_request(&self) -> At {
        match self.line.trim_ascii() {
            b"" => At::Request,
            // HTTP/2 begins like this.
            line if line.starts_with(b"PRI * HTTP/2") => At::Rest,
            _ => At::Headers,
        }
    }

    fn after_header(&mut self) -> At {
        let line = self.line.trim_ascii();
        if line.is_empty() {
            return match (self.open_ended, std::mem::take(&mut self.length)) {
                (true, _) => At::Rest,
                (false, 0) => At::Request,
                (false, length) => At::Body(length),
            };
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = value.get(1..).map(<[u8]>::trim_ascii).and_then(|value| str::from_utf8(value).ok());
            match value.and_then(|value| value.parse().ok()) {
                Some(length) => self.length = length,
                None => self.open_ended = true,
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") || name.eq_ignore_ascii_case(b"upgrade") {
            self.open_ended = true;
        }
        At::Headers
    }
}

/// Whether hyper refuses a character of a request line.
fn is_refused(byte: &u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
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
            let mut chunk = [MaybeUninit::uninit(); CHUNK];
            let mut read = ReadBuf::uninit(&mut chunk);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What comes of bytes that come so many at once.
    async fn passed(bytes: &[u8], at_once: usize) -> String {
        let (mut near, far) = tokio::io::duplex(at_once);
        let sent = async {
            near.write_all(bytes).await.expect("written");
            drop(near);
        };
        let mut out = Vec::new();
        let mut far = Lenient::new(far, false);
        let (read, ()) = tokio::join!(far.read_to_end(&mut out), sent);
        read.expect("read");
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
            for at_once in [1, 3, 1000] {
                assert_eq!(passed(sent.as_bytes(), at_once).await, want, "{at_once} at once");
            }
        }
    }
}
