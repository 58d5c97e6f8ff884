//! Connections of clients that call this server by what is no authority.
//!
//! etcd's own clients have put whole URLs and even lists of endpoints into HTTP/2's `:authority`; Go's server never looks at
//! it, while ours resets requests whose authority it cannot read. Nothing here depends on the name that a client used, so what
//! cannot be read is replaced before the server sees it.
//!
//! Only frames and the framing of header fields are looked at, until the first authority is found to be good; from then on bytes
//! pass through untouched. A client names the authority in full once and refers to its own table of past fields later: a
//! replacement is never longer, so that our table forgets nothing that the client's still has.

use axum::http::uri::Authority;
use coracle_etcd::hpack;
use prometheus_client::metrics::gauge::Gauge;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Longest frame of header fields that the server takes.
const FRAME_MAX: usize = 16 << 10;
/// Bytes that are read at once while frames are looked at.
const CHUNK: usize = 16 << 10;
/// The number of `:authority` in HPACK's table of known names.
const AUTHORITY: usize = 1;
/// What stands for an authority that nothing can be made of.
const NOBODY: &str = "etcd";

/// A connection; see the module.
pub(super) struct Lenient<S> {
    inner: S,
    mending: Option<Box<Mending>>,
    /// Bytes that were looked at, for the server.
    ready: Vec<u8>,
    _open: Open,
}

/// Counts a connection until it is dropped.
pub(super) struct Open(Gauge);

impl Open {
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<S> Lenient<S> {
    pub fn new(inner: S, open: Open) -> Self {
        Self { inner, mending: Some(Box::default()), ready: Vec::new(), _open: open }
    }
}

impl<S: Connected> Connected for Lenient<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.ready.is_empty() {
                let fits = this.ready.len().min(into.remaining());
                into.put_slice(&this.ready[..fits]);
                this.ready.drain(..fits);
                return Poll::Ready(Ok(()));
            }
            let Some(mending) = &mut this.mending else {
                return Pin::new(&mut this.inner).poll_read(context, into);
            };
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            let ended = read.filled().is_empty();
            mending.feed(read.filled(), &mut this.ready);
            if ended || mending.done {
                this.ready.append(&mut mending.held);
                this.mending = None;
            }
            if ended && this.ready.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Looks at what a client sends. Bytes go in as they come; whole frames come out.
#[derive(Default)]
struct Mending {
    begun: bool,
    /// Bytes of the current frame that need not be looked at.
    passing: usize,
    held: Vec<u8>,
    /// Nothing more needs to be looked at.
    done: bool,
}

/// What an authority in a frame is.
enum Found {
    None,
    Good,
    /// The frame with another one.
    Mended(Vec<u8>),
}

impl Mending {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut at = 0;
        while !self.done
            && let Some(length) = self.step(&held[at..], out)
        {
            at += length;
            // Those that belong to no frame of interest.
            let passed = self.passing.min(held.len() - at);
            out.extend_from_slice(&held[at..at + passed]);
            self.passing -= passed;
            at += passed;
        }
        held.drain(..at);
        self.held = held;
    }

    /// Takes the beginning of the next frame, or the whole of one of interest; `None` when more is needed.
    fn step(&mut self, held: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if self.passing > 0 {
            return (!held.is_empty()).then_some(0);
        }
        if !self.begun {
            let begin = &held[..held.len().min(PREFACE.len())];
            // Whatever else it is, it has no frames.
            self.done = !PREFACE.starts_with(begin);
            if self.done || begin.len() < PREFACE.len() {
                return None;
            }
            self.begun = true;
            out.extend_from_slice(PREFACE);
            return Some(PREFACE.len());
        }
        let header = held.get(..FRAME_HEADER)?;
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        if header[3] != HEADERS || length > FRAME_MAX {
            out.extend_from_slice(header);
            self.passing = length;
            return Some(FRAME_HEADER);
        }
        let frame = held.get(..FRAME_HEADER + length)?;
        match look(frame).unwrap_or(Found::None) {
            Found::Mended(mended) => out.extend_from_slice(&mended),
            found => {
                self.done = matches!(found, Found::Good);
                out.extend_from_slice(frame);
            }
        }
        Some(frame.len())
    }
}

/// Looks for the authority in a frame of header fields; `None` for what only the server may judge.
fn look(frame: &[u8]) -> Option<Found> {
    let flags = frame[4];
    let mut at = FRAME_HEADER;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(at)?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    while let Some(field) = hpack::next_literal(&frame[..end], &mut at) {
        if field.name != AUTHORITY {
            continue;
        }
        let text = field.value.unpacked()?;
        if Authority::try_from(text.as_slice()).is_ok() {
            return Some(Found::Good);
        }
        let better = mended(&text)?;
        let mut mended = frame[..field.at.start].to_vec();
        mended.push(u8::try_from(better.len()).ok()?);
        mended.extend_from_slice(better.as_bytes());
        mended.extend_from_slice(&frame[field.at.end..]);
        let length = u32::try_from(mended.len() - FRAME_HEADER).ok()?.to_be_bytes();
        mended[..3].copy_from_slice(&length[1..]);
        return Some(Found::Mended(mended));
    }
    Some(Found::None)
}

/// An authority in place of `text`, and no longer.
fn mended(text: &[u8]) -> Option<&str> {
    let short = |authority: &&str| authority.len() < 0x7F && Authority::try_from(*authority).is_ok();
    let url = std::str::from_utf8(text).ok().and_then(|text| Some(text.split_once("://")?.1));
    url.filter(short).or_else(|| (text.len() >= NOBODY.len()).then_some(NOBODY))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server reads of what a client sends, one byte after the other.
    fn passed(sent: &[u8]) -> (Vec<u8>, bool) {
        let (mut mending, mut out) = (Mending::default(), Vec::new());
        for byte in sent {
            mending.feed(&[*byte], &mut out);
        }
        out.extend_from_slice(&mending.held);
        (out, mending.done)
    }

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], content].concat()
    }

    fn literal(first: u8, value: &[u8]) -> Vec<u8> {
        [&[0x83, first, u8::try_from(value.len()).expect("short")], value, &[0x86]].concat()
    }

    fn packed(first: u8, value: &[u8]) -> Vec<u8> {
        let mut fields = literal(first, value);
        fields[2] |= 0x80;
        fields
    }

    fn conversation(headers: &[u8]) -> Vec<u8> {
        let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100]);
        [PREFACE, &settings, headers, &frame(0, 1, b"what is asked")].concat()
    }

    const URL: [u8; 15] =
        [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x09, 0x97, 0x5f];
    const ADDRESS: [u8; 10] = [0x08, 0x9d, 0x5c, 0x0b, 0x81, 0x70, 0xdc, 0x13, 0x2e, 0xbf];
    const ENDPOINTS: [u8; 22] = [
        0xff, 0xa3, 0x54, 0x64, 0x98, 0x74, 0x51, 0xea, 0x0f, 0xfd, 0x84, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e,
        0x09, 0x97, 0x5f, 0xff, 0xe7,
    ];

    #[test]
    fn authorities_that_are_none_are_replaced_and_all_else_stays() {
        for (fields, wanted) in [
            (literal(0x41, b"http://127.0.0.1:2379"), literal(0x41, b"127.0.0.1:2379")),
            (literal(0x01, b"https://[::1]:2379"), literal(0x01, b"[::1]:2379")),
            (literal(0x11, b"unix:///run/etcd"), literal(0x11, b"etcd")),
            (packed(0x41, &URL), literal(0x41, b"127.0.0.1:2379")),
            (packed(0x41, &ENDPOINTS), literal(0x41, b"etcd")),
        ] {
            let (out, done) = passed(&conversation(&frame(1, 4, &fields)));
            assert_eq!(out, conversation(&frame(1, 4, &wanted)));
            assert!(!done, "the client may say it again");
        }
        let padded = |fields: Vec<u8>| {
            frame(1, 4 | PADDED | PRIORITY, &[&[3, 0, 0, 0, 0, 16], &fields[..], &[0; 3]].concat())
        };
        let sent = padded(literal(0x41, b"http://a:1"));
        let wanted = padded(literal(0x41, b"a:1"));
        assert_eq!(passed(&conversation(&sent)).0, conversation(&wanted));
    }

    #[test]
    fn nothing_is_looked_at_once_an_authority_was_good_or_where_there_are_no_frames() {
        for fields in [literal(0x41, b"127.0.0.1:2379"), packed(0x41, &ADDRESS)] {
            let sent = conversation(&frame(1, 4, &fields));
            assert_eq!(passed(&sent), (sent, true));
        }
        for sent in [&b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"PRI or not", b"\x16\x03"] {
            assert_eq!(passed(sent), (sent.to_vec(), true));
        }
    }

    #[test]
    fn what_only_the_server_may_judge_stays() {
        for fields in [
            vec![],
            vec![0x81],
            vec![0x41],
            vec![0x41, 0x7f, 0xff, 0xff, 0xff, 0xff],
            literal(0x41, b"#"),
            literal(0x00, b"x"),
            packed(0x41, &[0xff, 0xff, 0xff, 0xff]),
        ] {
            let sent = conversation(&frame(1, 4, &fields));
            assert_eq!(passed(&sent).0, sent, "{fields:x?}");
        }
        let large = [PREFACE, &[1, 0, 0, HEADERS, 0, 0, 0, 0, 1], &[0x41; 70_000]].concat();
        assert_eq!(passed(&large).0, large);
    }
}
