//! One connection: a reader that hands bytes to streams, a writer that takes frames from all of them.
//!
//! ```text
//! client ──► read ──► Stream (headers, bytes) ──► whoever serves it ──► Stream::send ──► write ──► client
//! ```
//!
//! Invariants: every queue is bounded; who does not take a stream's bytes holds the connection up, and who drops the stream
//! lets it go on. When the reader ends, every stream ends.

use super::frame::{self, Frame};
use super::headers::{Decoder, Encoder, Headers};
use bytes::Bytes;
use coracle_daemon::clock;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Streams open at a time.
const STREAMS_MAX: usize = 1024;
/// Frames that wait in one stream, and for the writer.
const WAITING_MAX: usize = 32;
/// Bytes of one data frame that we write.
const DATA_BYTES_MAX: usize = 32 << 10;
/// How long the client may take to see that the connection ended.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// `RST_STREAM`'s status codes.
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

/// A stream that the client opened.
pub struct Stream {
    /// Its number.
    pub id: u32,
    headers: Headers,
    input: mpsc::Receiver<Bytes>,
    reset: CancellationToken,
    output: mpsc::Sender<Frame>,
    _serving: Arc<()>,
}

impl Stream {
    /// A header's value; names are in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The client's bytes, until it has ended its side.
    pub const fn input(&mut self) -> &mut mpsc::Receiver<Bytes> {
        &mut self.input
    }

    /// Fires when the client gave the stream up, or the connection ended.
    #[must_use]
    pub fn reset(&self) -> CancellationToken {
        self.reset.clone()
    }

    /// The sending side.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender { id: self.id, output: self.output.clone() }
    }
}

/// Sends on one stream.
#[derive(Clone)]
pub struct Sender {
    id: u32,
    output: mpsc::Sender<Frame>,
}

impl Sender {
    /// Sends bytes.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn send(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let bytes = bytes.split_to(bytes.len().min(DATA_BYTES_MAX));
            self.frame(Frame::Data { stream: self.id, bytes, fin: false }).await?;
        }
        Ok(())
    }

    /// Ends our side.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn finish(&self) -> io::Result<()> {
        self.frame(Frame::Data { stream: self.id, bytes: Bytes::new(), fin: true }).await
    }

    /// Gives the stream up.
    pub async fn abort(&self) {
        // A connection that ended has no streams to give up.
        let _ = self.frame(Frame::Reset { stream: self.id, status: CANCEL }).await;
    }

    async fn frame(&self, frame: Frame) -> io::Result<()> {
        self.output.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A connection after its upgrade.
pub struct Connection<S> {
    io: S,
    idle_max: Duration,
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    /// A connection that may be silent for so long.
    #[must_use]
    pub const fn new(io: S, idle_max: Duration) -> Self {
        Self { io, idle_max }
    }

    /// Serves the streams by `serve`, which gets them as they are opened. Ends when `serve` does, which it should when
    /// there are no more streams and those that it has are reset.
    ///
    /// # Errors
    /// The connection broke, or the client did not keep to the protocol.
    pub async fn run<F: Future<Output = ()>>(
        self,
        serve: impl FnOnce(mpsc::Receiver<Stream>) -> F,
    ) -> io::Result<()> {
        let (mut from, mut to) = tokio::io::split(self.io);
        let (output, frames) = mpsc::channel(WAITING_MAX);
        let (opened, streams) = mpsc::channel(WAITING_MAX);
        let stop = CancellationToken::new();
        let reader =
            Reader { output, opened, ended: CancellationToken::new(), open: HashMap::new(), last: 0 };
        let read = reader.run(&mut from, self.idle_max, &stop);
        let serve = async {
            serve(streams).await;
            stop.cancel();
        };
        let write = async {
            let written = write(frames, &mut to).await;
            stop.cancel();
            written
        };
        let (read, (), written) = tokio::join!(read, serve, write);
        // Unread bytes at a close would make the kernel throw away what the client has not read yet.
        let farewell = async {
            to.shutdown().await?;
            tokio::io::copy(&mut from, &mut tokio::io::sink()).await
        };
        let _ = clock::timeout(FAREWELL_MAX, farewell).await;
        read.and(written)
    }
}

/// What the reader keeps of an open stream.
struct Open {
    /// `None` once the client has ended its side.
    input: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    /// Gone when nobody serves the stream any more.
    served: Weak<()>,
}

struct Reader {
    output: mpsc::Sender<Frame>,
    opened: mpsc::Sender<Stream>,
    ended: CancellationToken,
    open: HashMap<u32, Open>,
    last: u32,
}

impl Reader {
    async fn run(
        mut self,
        from: &mut (impl AsyncRead + Unpin),
        idle_max: Duration,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let read = match stop.run_until_cancelled(self.read(from, idle_max)).await {
            Some(read) => read,
            None => {
                let _ = self.output.send(Frame::GoAway { last: self.last, status: 0 }).await;
                Ok(())
            }
        };
        self.ended.cancel();
        read
    }

    async fn read(&mut self, from: &mut (impl AsyncRead + Unpin), idle_max: Duration) -> io::Result<()> {
        let mut decoder = Decoder::default();
        loop {
            let frame = clock::timeout(idle_max, frame::read(from, &mut decoder)).await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the connection was idle for too long")
            })?;
            match frame? {
                None => return Ok(()),
                Some(frame) => self.take(frame).await?,
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Open { stream, headers, fin } => self.accept(stream, headers, fin).await,
            Frame::Data { stream, bytes, fin } => {
                let Some(open) = self.open.get_mut(&stream) else { return Ok(()) };
                if let Some(input) = open.input.as_ref().filter(|_| !bytes.is_empty()) {
                    // Whoever dropped the stream wants no more of it.
                    let _ = input.send(bytes).await;
                }
                if fin {
                    open.input = None;
                }
                Ok(())
            }
            Frame::Reset { stream, .. } => {
                if let Some(open) = self.open.remove(&stream) {
                    open.reset.cancel();
                }
                Ok(())
            }
            // Odd ones are the client's questions, even ones would be answers to ours.
            Frame::Ping(id) if !id.is_multiple_of(2) => self.say(Frame::Ping(id)).await,
            Frame::Headers { stream, fin: true, .. } => {
                if let Some(open) = self.open.get_mut(&stream) {
                    open.input = None;
                }
                Ok(())
            }
            Frame::Ping(_)
            | Frame::Reply { .. }
            | Frame::Headers { .. }
            | Frame::GoAway { .. }
            | Frame::Other => Ok(()),
        }
    }

    async fn accept(&mut self, id: u32, headers: Headers, fin: bool) -> io::Result<()> {
        if id.is_multiple_of(2) || id <= self.last {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("SPDY stream {id} out of order")));
        }
        self.last = id;
        self.open.retain(|_, open| open.served.strong_count() > 0);
        if self.open.len() >= STREAMS_MAX {
            return self.say(Frame::Reset { stream: id, status: REFUSED_STREAM }).await;
        }
        let (input, received) = mpsc::channel(WAITING_MAX);
        let (reset, serving) = (self.ended.child_token(), Arc::new(()));
        let served = Arc::downgrade(&serving);
        let input = (!fin).then_some(input);
        self.open.insert(id, Open { input, reset: reset.clone(), served });
        self.say(Frame::Reply { stream: id, headers: Vec::new(), fin: false }).await?;
        let output = self.output.clone();
        let stream = Stream { id, headers, input: received, reset, output, _serving: serving };
        // Nobody accepts any more when the end is near.
        let _ = self.opened.send(stream).await;
        Ok(())
    }

    async fn say(&self, frame: Frame) -> io::Result<()> {
        self.output.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Writes frames until nobody can send any.
async fn write(mut frames: mpsc::Receiver<Frame>, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut encoder = Encoder::new()?;
    while let Some(frame) = frames.recv().await {
        to.write_all(&frame::write(&frame, &mut encoder)?).await?;
        if frames.is_empty() {
            to.flush().await?;
        }
    }
    Ok(())
}
